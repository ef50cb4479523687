//! TLS: a certificate and key from files, read again when they change, or made for `--dev`; and whose client certificates
//! count.

use std::fmt::Display;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use gatecast_storage::Clock;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{self, Ticketer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CipherSuite, CommonState, HandshakeKind, RootCertStore, ServerConfig};
use tracing::{error, info};

use super::socket::Socket;
use super::tls_stream::TlsStream;
use crate::certificate::{Expiry, end_of};
use crate::config::{ConfigFault, Setting, TlsMode, setting};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How often they are while they cannot be used at a start, and how many times: two seconds are long for a certificate manager
/// that renames what it has written.
const LOOK_AT_START_EVERY: Duration = Duration::from_millis(250);
const LOOKS_AT_START: u32 = 8;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// All that is wrong with the files.
    #[error("{}", one_line(.0))]
    Files(Vec<ConfigFault>),
    /// rustls cannot be set up.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
    /// No certificate could be made.
    #[error("no certificate could be made: {0}")]
    SelfSigned(#[from] rcgen::Error),
}

fn one_line(faults: &[ConfigFault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What is wrong with the files that the mode names, as they are now.
pub(crate) fn file_faults(mode: &TlsMode) -> Vec<ConfigFault> {
    match Tls::read(mode) {
        Err(TlsError::Files(faults)) => faults,
        _ => Vec::new(),
    }
}

/// Accepts TLS with the current certificate.
pub(super) struct Tls {
    /// What new handshakes get. One value, so that what belongs together is taken over together; sessions of one before
    /// are not resumed.
    current: ArcSwap<Current>,
    /// `None` for a certificate that was made at start.
    files: Option<Mutex<Files>>,
    /// When the certificate of `current` ends.
    expiry: Arc<Expiry>,
}

/// How handshakes are answered.
struct Current {
    config: Arc<ServerConfig>,
    clients: Arc<dyn ClientCertVerifier>,
    expires_at: Option<DateTime<Utc>>,
}

/// Where a certificate is read from.
#[derive(Clone, PartialEq, Eq)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    /// As they were right before they were read last.
    read_at: [Stamp; 3],
}

/// Tells whether a file is another one, or another text, than before: changed when, how long, and which file.
type Stamp = Option<(SystemTime, u64, u64)>;

impl Tls {
    /// What the mode asks for; `None` when TLS is off. Files that are being replaced, one after the other, are waited for: a
    /// start in that moment would be one with a faulty configuration, which service managers do not try again.
    pub(super) async fn load(mode: &TlsMode, clock: Arc<dyn Clock>) -> Result<Option<Self>, TlsError> {
        for _ in 0..LOOKS_AT_START {
            match Self::try_load(mode, clock.clone()) {
                Err(_) => tokio::time::sleep(LOOK_AT_START_EVERY).await,
                loaded => return loaded,
            }
        }
        Self::try_load(mode, clock)
    }

    /// [`Self::load`], as the files are now.
    pub(super) fn try_load(mode: &TlsMode, clock: Arc<dyn Clock>) -> Result<Option<Self>, TlsError> {
        let (config, files) = match mode {
            TlsMode::Off => return Ok(None),
            TlsMode::SelfSigned => {
                let provider = provider();
                (current(self_signed(&provider)?, Arc::new(NoClientAuth), provider)?, None)
            }
            TlsMode::Files { cert, key, client_ca } => {
                let files = Files::of(cert, key, client_ca.as_deref());
                (files.read()?, Some(Mutex::new(files)))
            }
        };
        let expiry = Arc::new(Expiry::new(clock));
        expiry.set(config.expires_at);
        Ok(Some(Self { current: ArcSwap::from_pointee(config), files, expiry }))
    }

    /// When the certificate in use ends, also once it is another one.
    pub(super) fn expiry(&self) -> Arc<Expiry> {
        self.expiry.clone()
    }

    pub(super) async fn accept(&self, stream: Socket) -> io::Result<TlsStream> {
        let current = self.current.load_full();
        let stream = TlsStream::accept(current.config.clone(), stream).await?;
        current.look_again(stream.session(), UnixTime::now()).map_err(io::Error::other)?;
        Ok(stream)
    }

    /// Reads what the mode names, which may be other files than before, to be taken over. `None` if there are no files.
    pub(super) fn read(mode: &TlsMode) -> Result<Option<NewCertificate>, TlsError> {
        let TlsMode::Files { cert, key, client_ca } = mode else { return Ok(None) };
        let files = Files::of(cert, key, client_ca.as_deref());
        Ok(Some(NewCertificate { config: files.read()?, files }))
    }

    /// Gives new handshakes what was read.
    pub(super) fn take_over(&self, new: NewCertificate) {
        let Some(files) = &self.files else { return };
        *files.lock().unwrap_or_else(PoisonError::into_inner) = new.files;
        self.give(new.config);
    }

    fn give(&self, config: Current) {
        self.expiry.set(config.expires_at);
        self.current.store(Arc::new(config));
    }

    /// Takes over changed files, and tells when they are about to expire, for as long as it is polled. Files that cannot be
    /// used are logged, and the certificate stays.
    pub(super) async fn watch(&self) {
        let Some(files) = &self.files else { return };
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            self.expiry.tell();
            let before = files.lock().unwrap_or_else(PoisonError::into_inner).clone();
            // It fails only when the runtime shuts down.
            let looked = tokio::task::spawn_blocking(move || before.look()).await;
            let Ok(Some((before, after, config))) = looked else { continue };
            let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
            if *files != before {
                // SIGHUP was quicker.
                continue;
            }
            match config {
                Ok(config) => {
                    info!("Certificate reloaded from {}.", after.cert.display());
                    self.give(config);
                }
                Err(error) => error!(%error, "Changed certificate not taken over; the one before stays."),
            }
            *files = after;
        }
    }
}

impl Current {
    /// rustls takes a client's certificate to be what it was when the session began, which may be hours ago: it may have
    /// expired since.
    fn look_again(&self, session: &CommonState, now: UnixTime) -> Result<(), rustls::Error> {
        match session.peer_certificates() {
            Some([certificate, chain @ ..]) if session.handshake_kind() == Some(HandshakeKind::Resumed) => {
                self.clients.verify_client_cert(certificate, chain, now).map(drop)
            }
            _ => Ok(()),
        }
    }
}

/// A certificate that was read and is not in use yet.
pub(super) struct NewCertificate {
    config: Current,
    files: Files,
}

impl Files {
    fn of(cert: &Path, key: &Path, client_ca: Option<&Path>) -> Self {
        let read_at = [stamp(cert), stamp(key), client_ca.and_then(stamp)];
        Self { cert: cert.to_owned(), key: key.to_owned(), client_ca: client_ca.map(Path::to_owned), read_at }
    }

    /// Itself, what it is now, and what that says, if the files are others than when they were read last.
    fn look(self) -> Option<(Self, Self, Result<Current, TlsError>)> {
        let now = Self::of(&self.cert, &self.key, self.client_ca.as_deref());
        (now != self).then(|| {
            let config = now.read();
            (self, now, config)
        })
    }

    fn read(&self) -> Result<Current, TlsError> {
        let provider = provider();
        let (certified, clients) =
            both(self.certified(&provider), self.verifier(&provider)).map_err(TlsError::Files)?;
        current(certified, clients, provider)
    }

    /// Client certificates are asked for and not insisted on: tokens go on to count.
    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, Faults> {
        let Some(path) = &self.client_ca else { return Ok(Arc::new(NoClientAuth)) };
        let mut roots = RootCertStore::empty();
        for authority in certificates(&setting::TLS_CLIENT_CA, path)? {
            roots.add(authority).map_err(|error| unreadable(&setting::TLS_CLIENT_CA, path, &error))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        verifier.allow_unauthenticated().build().map_err(|error| unusable(setting::TLS_CLIENT_CA.name, &error))
    }

    fn certified(&self, provider: &Arc<CryptoProvider>) -> Result<CertifiedKey, Faults> {
        let key = PrivateKeyDer::from_pem_file(&self.key);
        let key = key.map_err(|error| unreadable(&setting::TLS_KEY, &self.key, &error));
        let (chain, key) = both(certificates(&setting::TLS_CERT, &self.cert), key)?;
        let names = "GATECAST_TLS_CERT and GATECAST_TLS_KEY";
        CertifiedKey::from_der(chain, key, provider).map_err(|error| unusable(names, &error))
    }
}

/// All that is wrong with some of the files.
type Faults = Vec<ConfigFault>;

/// Both, or all that is wrong with either.
fn both<A, B>(one: Result<A, Faults>, other: Result<B, Faults>) -> Result<(A, B), Faults> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (one, other) => Err([one.err(), other.err()].into_iter().flatten().flatten().collect()),
    }
}

fn unreadable(setting: &Setting, path: &Path, problem: &dyn Display) -> Faults {
    vec![ConfigFault::Unreadable { name: setting.name, path: path.to_owned(), problem: problem.to_string() }]
}

fn unusable(names: &'static str, problem: &dyn Display) -> Faults {
    vec![ConfigFault::Unusable { names, problem: problem.to_string() }]
}

/// The certificates in a PEM file, of which there must be one.
fn certificates(setting: &Setting, path: &Path) -> Result<Vec<CertificateDer<'static>>, Faults> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(setting, path, &error))?;
    if found.is_empty() { Err(unreadable(setting, path, &"no CERTIFICATE section")) } else { Ok(found) }
}

/// ring, with AES-128 first, whatever a client has first: the hash that goes with AES-256, SHA-384, is one that no
/// instruction of ring's speeds up, and took a tenth of a handshake (perf). A client that insists on AES-256 gets it.
fn provider() -> Arc<CryptoProvider> {
    use CipherSuite::{
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS13_AES_128_GCM_SHA256,
    };
    let first =
        [TLS13_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256];
    let mut provider = ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| !first.contains(&suite.suite()));
    Arc::new(provider)
}

fn current(
    certified: CertifiedKey,
    clients: Arc<dyn ClientCertVerifier>,
    provider: Arc<CryptoProvider>,
) -> Result<Current, TlsError> {
    let expires_at = certified.cert.first().and_then(end_of);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients.clone())
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ignore_client_order = true;
    // A fleet that comes back resumes its sessions, however large it is: what they were is sealed in the ticket that each
    // has, where a store would hold so many (256 unless told otherwise) and forget the others. One, as for one connection.
    config.ticketer = Ticketer::new()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 1;
    Ok(Current { config: Arc::new(config), clients, expires_at })
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
mod tests;
