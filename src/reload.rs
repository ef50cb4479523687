//! SIGHUP: the configuration is read again, and what may change while the server runs is taken over.
//!
//! The environment of a process cannot change from outside, so what changes is the file of `--config` and the files that
//! settings name. All or nothing: one fault, and everything stays as it was.

use std::sync::Arc;

use gatecast::cli::Reread;
use gatecast::config::{Effective, setting};
use gatecast::server::Reloader;
use tokio::signal::unix::Signal;
use tracing::{error, info, warn};

use crate::logging::Logging;
use crate::notify::Notify;

/// What a SIGHUP works on.
pub(crate) struct Reload {
    /// What holds of the settings that need a restart.
    started: Effective,
    /// What holds of the others.
    now: Effective,
    reread: Reread,
    reloader: Reloader,
    logging: Logging,
    notify: Arc<Notify>,
}

impl Reload {
    /// For a server that was started with `now`.
    pub(crate) fn new(
        now: Effective,
        reread: Reread,
        reloader: Reloader,
        logging: Logging,
        notify: Arc<Notify>,
    ) -> Self {
        Self { started: now.clone(), now, reread, reloader, logging, notify }
    }

    /// Reloads at each SIGHUP, for as long as it is polled.
    pub(crate) async fn at_each(mut self, mut hangup: Signal) {
        while hangup.recv().await.is_some() {
            info!(signal = "SIGHUP", "Told to read the configuration again.");
            self.notify.reloading();
            let reread = self.reread.clone();
            // It fails only when the runtime shuts down.
            let Ok(read) = tokio::task::spawn_blocking(move || reread()).await else { return };
            match read {
                Ok(next) => self.take_over(next),
                Err(faults) => {
                    for fault in &faults {
                        error!("Fault in the configuration: {fault}");
                    }
                    error!(faults = faults.len(), "The configuration has faults; everything stays as it was.");
                }
            }
            self.notify.ready();
        }
    }

    fn take_over(&mut self, mut next: Effective) {
        if let Err(error) = self.reloader.take_over(&next.config) {
            error!(%error, "The certificate cannot be used; everything stays as it was.");
            return;
        }
        self.logging.set(&next.config.log);
        let mut at_restart = next.changed_since(&self.started);
        at_restart.retain(|setting| !setting.is_live());
        if at_restart.iter().any(|setting| setting.name == setting::TLS.name) {
            // Its certificate comes with it.
            next.keep_certificate(&self.now);
        }
        for setting in next.changed_since(&self.now).into_iter().filter(|setting| setting.is_live()) {
            info!("Setting {} changed.", setting.name);
        }
        for setting in at_restart {
            warn!("Setting {} changed in the configuration: needs a restart.", setting.name);
        }
        info!("Configuration reloaded.");
        self.now = next;
    }
}
