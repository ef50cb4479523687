//! Taking over another configuration while the server runs.

use std::sync::Arc;

use super::connection::Wire;
use super::tls::{Tls, TlsError};
use crate::config::Config;
use crate::hub::Hub;

/// Gives a running server what may change while it runs ([`LIVE`](crate::config::setting::LIVE)), but for the log filter,
/// which is not the server's.
pub struct Reloader {
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) hub: Arc<Hub>,
    pub(super) wire: Arc<Wire>,
}

impl Reloader {
    /// Takes over a configuration, all of it or nothing. It reads the certificate.
    ///
    /// # Errors
    /// If the certificate cannot be used; nothing has changed then.
    pub fn take_over(&self, config: &Config) -> Result<(), TlsError> {
        let certificate = Tls::read(&config.tls)?;
        if let (Some(tls), Some(certificate)) = (&self.tls, certificate) {
            tls.take_over(certificate);
        }
        self.hub.take_over(&super::limits(config));
        self.wire.places.set_connections_max(config.max_connections as usize);
        Ok(())
    }
}
