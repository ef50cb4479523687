//! TLS: a certificate and key from files, read again when they change, or made for `--dev`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{error, info};

use super::socket::Socket;
use crate::config::TlsMode;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read as PEM.
    #[error("cannot read {what} from {path}: {detail}")]
    File {
        /// Certificate or key.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        detail: String,
    },
    /// The key is not the certificate's, or of a kind that is not supported.
    #[error("certificate and key cannot be used: {0}")]
    Rustls(#[from] rustls::Error),
    /// No certificate could be made.
    #[error("no certificate could be made: {0}")]
    SelfSigned(#[from] rcgen::Error),
}

/// Accepts TLS with the current certificate.
pub(super) struct Tls {
    acceptor: TlsAcceptor,
    current: Arc<Current>,
    files: Option<Files>,
}

struct Files {
    cert: PathBuf,
    key: PathBuf,
}

/// The certificate that new handshakes get.
#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Tls {
    /// What the mode asks for; `None` when TLS is off.
    pub(super) fn load(mode: &TlsMode) -> Result<Option<Self>, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let (certified, files) = match mode {
            TlsMode::Off => return Ok(None),
            TlsMode::SelfSigned => (self_signed(&provider)?, None),
            TlsMode::Files { cert, key } => {
                let files = Files { cert: cert.clone(), key: key.clone() };
                (files.read(&provider)?, Some(files))
            }
        };
        let current = Arc::new(Current(ArcSwap::from_pointee(certified)));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Some(Self { acceptor: TlsAcceptor::from(Arc::new(config)), current, files }))
    }

    pub(super) async fn accept(&self, stream: Socket) -> std::io::Result<TlsStream<Socket>> {
        self.acceptor.accept(stream).await
    }

    /// Takes over changed files, for as long as it is polled. Files that cannot be used are logged, and the
    /// certificate stays.
    pub(super) async fn watch(&self) {
        let Some(files) = &self.files else { return };
        let mut seen = files.changed_at().await;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = files.changed_at().await;
            if now == seen {
                continue;
            }
            seen = now;
            match files.read(&Arc::new(ring::default_provider())) {
                Ok(certified) => {
                    self.current.0.store(Arc::new(certified));
                    info!("Certificate reloaded from {}.", files.cert.display());
                }
                Err(error) => error!(%error, "Changed certificate not taken over; the one before stays."),
            }
        }
    }
}

impl Files {
    fn read(&self, provider: &Arc<CryptoProvider>) -> Result<CertifiedKey, TlsError> {
        let file = |what, path: &Path, detail: String| TlsError::File { what, path: path.to_owned(), detail };
        let chain = CertificateDer::pem_file_iter(&self.cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| file("certificate", &self.cert, error.to_string()))?;
        if chain.is_empty() {
            return Err(file("certificate", &self.cert, "no CERTIFICATE section".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| file("key", &self.key, error.to_string()))?;
        Ok(CertifiedKey::from_der(chain, key, provider)?)
    }

    async fn changed_at(&self) -> [Option<SystemTime>; 2] {
        let modified =
            |path: PathBuf| async move { tokio::fs::metadata(path).await.and_then(|meta| meta.modified()).ok() };
        [modified(self.cert.clone()).await, modified(self.key.clone()).await]
    }
}

fn self_signed(provider: &Arc<CryptoProvider>) -> Result<CertifiedKey, TlsError> {
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    Ok(CertifiedKey::from_der(vec![cert.der().clone()], key, provider)?)
}
