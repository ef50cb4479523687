//! TLS: a certificate and key from files, read again when they change, or made for `--dev`.

use std::os::unix::fs::MetadataExt;
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
    /// As they were right before they were read first.
    read_at: [Stamp; 2],
}

/// Tells whether a file is another one, or another text, than before: changed when, how long, and which file.
type Stamp = Option<(SystemTime, u64, u64)>;

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
                let read_at = [cert, key].map(|path| stamp(path));
                let files = Files { cert: cert.clone(), key: key.clone(), read_at };
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
        let mut seen = files.read_at;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = files.stamps().await;
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

    async fn stamps(&self) -> [Stamp; 2] {
        let paths = [self.cert.clone(), self.key.clone()];
        let stamps = tokio::task::spawn_blocking(move || paths.map(|path| stamp(&path)));
        // It fails only when the runtime shuts down.
        stamps.await.unwrap_or_default()
    }
}

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len(), meta.ino()))
}

fn self_signed(provider: &Arc<CryptoProvider>) -> Result<CertifiedKey, TlsError> {
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    Ok(CertifiedKey::from_der(vec![cert.der().clone()], key, provider)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path) -> Vec<u8> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        std::fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
        made.cert.der().to_vec()
    }

    #[tokio::test]
    async fn a_change_between_the_start_and_the_first_look_is_not_missed() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path());
        let mode = TlsMode::Files { cert: dir.path().join("cert.pem"), key: dir.path().join("key.pem") };
        let tls = Tls::load(&mode).unwrap().unwrap();
        let second = write(dir.path());
        let taken = async {
            while tls.current.0.load().cert.first().map(|cert| cert.to_vec()) != Some(second.clone()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = tls.watch() => panic!("it watches for ever"),
            taken = tokio::time::timeout(Duration::from_secs(60), taken) => taken.expect("taken over"),
        }
    }
}
