//! TLS: a certificate and key from files, read again when they change, or made for `--dev`; and whose client certificates
//! count.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{self, Ticketer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CipherSuite, CommonState, HandshakeKind, RootCertStore, ServerConfig};
use tracing::{error, info};

use super::socket::Socket;
use super::tls_stream::TlsStream;
use crate::config::TlsMode;

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
    /// A file cannot be read as PEM.
    #[error("cannot read {what} from {path}: {detail}")]
    File {
        /// Certificate, key or authorities.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        detail: String,
    },
    /// The key is not the certificate's, or of a kind that is not supported.
    #[error("certificate and key cannot be used: {0}")]
    Rustls(#[from] rustls::Error),
    /// The authorities of client certificates cannot be used.
    #[error("the authorities of client certificates cannot be used: {0}")]
    ClientAuthorities(#[from] VerifierBuilderError),
    /// No certificate could be made.
    #[error("no certificate could be made: {0}")]
    SelfSigned(#[from] rcgen::Error),
}

/// Accepts TLS with the current certificate.
pub(super) struct Tls {
    /// What new handshakes get. One value, so that what belongs together is taken over together; sessions of one before
    /// are not resumed.
    current: ArcSwap<Current>,
    /// `None` for a certificate that was made at start.
    files: Option<Mutex<Files>>,
}

/// How handshakes are answered.
struct Current {
    config: Arc<ServerConfig>,
    clients: Arc<dyn ClientCertVerifier>,
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
    pub(super) async fn load(mode: &TlsMode) -> Result<Option<Self>, TlsError> {
        for _ in 0..LOOKS_AT_START {
            match Self::try_load(mode) {
                Err(_) => tokio::time::sleep(LOOK_AT_START_EVERY).await,
                loaded => return loaded,
            }
        }
        Self::try_load(mode)
    }

    /// [`Self::load`], as the files are now.
    pub(super) fn try_load(mode: &TlsMode) -> Result<Option<Self>, TlsError> {
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
        Ok(Some(Self { current: ArcSwap::from_pointee(config), files }))
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
        self.current.store(Arc::new(new.config));
    }

    /// Takes over changed files, for as long as it is polled. Files that cannot be used are logged, and the
    /// certificate stays.
    pub(super) async fn watch(&self) {
        let Some(files) = &self.files else { return };
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
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
                    self.current.store(Arc::new(config));
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
        current(self.certified(&provider)?, self.verifier(&provider)?, provider)
    }

    /// Client certificates are asked for and not insisted on: tokens go on to count.
    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let Some(path) = &self.client_ca else { return Ok(Arc::new(NoClientAuth)) };
        let mut roots = RootCertStore::empty();
        for authority in certificates("authorities of client certificates", path)? {
            roots.add(authority)?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        Ok(verifier.allow_unauthenticated().build()?)
    }

    fn certified(&self, provider: &Arc<CryptoProvider>) -> Result<CertifiedKey, TlsError> {
        let chain = certificates("certificate", &self.cert)?;
        let key =
            PrivateKeyDer::from_pem_file(&self.key).map_err(|error| unreadable("key", &self.key, error.to_string()))?;
        Ok(CertifiedKey::from_der(chain, key, provider)?)
    }
}

fn unreadable(what: &'static str, path: &Path, detail: String) -> TlsError {
    TlsError::File { what, path: path.to_owned(), detail }
}

/// The certificates in a PEM file, of which there must be one.
fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(what, path, error.to_string()))?;
    if found.is_empty() { Err(unreadable(what, path, "no CERTIFICATE section".to_owned())) } else { Ok(found) }
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
    Ok(Current { config: Arc::new(config), clients })
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
    use rustls::client::WantsClientCert;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, ConfigBuilder, ServerConnection};

    use super::*;

    /// A client that trusts a server, knows these suites, and remembers its sessions.
    fn client(dir: &Path, suites: impl Fn(CipherSuite) -> bool) -> Arc<ClientConfig> {
        Arc::new(trusting(dir, suites).with_no_client_auth())
    }

    fn trusting(dir: &Path, suites: impl Fn(CipherSuite) -> bool) -> ConfigBuilder<ClientConfig, WantsClientCert> {
        let mut provider = ring::default_provider();
        provider.cipher_suites.retain(|suite| suites(suite.suite()));
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(dir.join("cert.pem")).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions();
        config.unwrap().with_root_certificates(roots)
    }

    /// What a handshake, with the ticket that follows it, was, and what was agreed to.
    fn handshake(server: &Tls, client: &Arc<ClientConfig>) -> (HandshakeKind, CipherSuite) {
        let (far, _) = shaken(server, client);
        (far.handshake_kind().unwrap(), far.negotiated_cipher_suite().unwrap().suite())
    }

    fn shaken(server: &Tls, client: &Arc<ClientConfig>) -> (ClientConnection, ServerConnection) {
        let mut near = ServerConnection::new(server.current.load().config.clone()).unwrap();
        let mut far = ClientConnection::new(client.clone(), ServerName::try_from("localhost").unwrap()).unwrap();
        while near.wants_write() || far.wants_write() {
            let mut wire = Vec::new();
            while far.wants_write() {
                far.write_tls(&mut wire).unwrap();
            }
            near.read_tls(&mut wire.as_slice()).unwrap();
            near.process_new_packets().unwrap();
            wire.clear();
            while near.wants_write() {
                near.write_tls(&mut wire).unwrap();
            }
            far.read_tls(&mut wire.as_slice()).unwrap();
            far.process_new_packets().unwrap();
        }
        (far, near)
    }

    fn of_files(dir: &Path) -> Tls {
        write(dir);
        let mode = TlsMode::Files { cert: dir.join("cert.pem"), key: dir.join("key.pem"), client_ca: None };
        Tls::try_load(&mode).unwrap().unwrap()
    }

    #[test]
    fn a_session_is_resumed_however_many_came_since_and_not_once_the_certificate_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let tls = of_files(dir.path());
        let early = client(dir.path(), |_| true);
        assert_eq!(handshake(&tls, &early).0, HandshakeKind::Full);
        for _ in 0..300 {
            assert_eq!(handshake(&tls, &client(dir.path(), |_| true)).0, HandshakeKind::Full);
        }
        for _ in 0..3 {
            assert_eq!(handshake(&tls, &early).0, HandshakeKind::Resumed, "each leaves a ticket for the next");
        }
        let files = Files::of(&dir.path().join("cert.pem"), &dir.path().join("key.pem"), None);
        tls.take_over(NewCertificate { config: files.read().unwrap(), files });
        assert_eq!(handshake(&tls, &early).0, HandshakeKind::Full);
    }

    #[test]
    fn a_resumed_session_is_still_its_certificates_and_over_once_that_has_expired() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path());
        let made = rcgen::generate_simple_self_signed(["gateway-1".to_owned()]).unwrap();
        let authorities = dir.path().join("clients.pem");
        std::fs::write(&authorities, made.cert.pem()).unwrap();
        let [cert, key] = ["cert.pem", "key.pem"].map(|name| dir.path().join(name));
        let tls = Tls::try_load(&TlsMode::Files { cert, key, client_ca: Some(authorities) }).unwrap().unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let known = trusting(dir.path(), |_| true).with_client_auth_cert(vec![made.cert.der().clone()], key).unwrap();
        let (known, unknown) = (Arc::new(known), client(dir.path(), |_| true));
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (far, near) = shaken(&tls, &known);
            let chain = near.peer_certificates().map(<[_]>::to_vec);
            assert_eq!((far.handshake_kind(), chain), (Some(kind), Some(vec![made.cert.der().clone()])));
            // rcgen's certificates hold until the year 4096.
            let late = UnixTime::since_unix_epoch(Duration::from_hours(24 * 366 * 2127));
            let looks = [UnixTime::now(), late].map(|at| tls.current.load().look_again(&near, at).is_ok());
            assert_eq!(looks, [true, kind == HandshakeKind::Full], "of a full one rustls has seen to it");
            let (far, near) = shaken(&tls, &unknown);
            assert_eq!((far.handshake_kind(), near.peer_certificates()), (Some(kind), None));
        }
    }

    #[test]
    fn aes_128_is_agreed_to_unless_the_client_has_another_alone() {
        let dir = tempfile::tempdir().unwrap();
        let tls = of_files(dir.path());
        let agreed = |suites: fn(CipherSuite) -> bool| handshake(&tls, &client(dir.path(), suites)).1;
        assert_eq!(agreed(|_| true), CipherSuite::TLS13_AES_128_GCM_SHA256);
        let tls12 = |suite: CipherSuite| suite.as_str().is_some_and(|name| name.starts_with("TLS_ECDHE"));
        assert_eq!(agreed(tls12), CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256);
        for only in [CipherSuite::TLS13_AES_256_GCM_SHA384, CipherSuite::TLS13_CHACHA20_POLY1305_SHA256] {
            let client = client(dir.path(), |suite| suite == only);
            assert_eq!(handshake(&tls, &client).1, only);
        }
    }

    fn write(dir: &Path) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        std::fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_waits_for_files_that_are_being_replaced_and_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let [cert, key] = ["cert.pem", "key.pem"].map(|name| dir.path().join(name));
        let mode = TlsMode::Files { cert: cert.clone(), key, client_ca: None };
        let began = tokio::time::Instant::now();
        let TlsError::File { path, .. } = Tls::load(&mode).await.err().unwrap() else { unreachable!() };
        assert_eq!((path, began.elapsed()), (cert.clone(), LOOK_AT_START_EVERY * LOOKS_AT_START));
        write(dir.path());
        let (first, second) = (std::fs::read(&cert).unwrap(), dir.path().join("second"));
        std::fs::create_dir(&second).unwrap();
        write(&second);
        // The certificate is another one already, the key is not yet.
        std::fs::copy(second.join("cert.pem"), &cert).unwrap();
        let replaced = async {
            tokio::time::sleep(LOOK_AT_START_EVERY / 2).await;
            std::fs::write(&cert, first).unwrap();
        };
        let (loaded, ()) = tokio::join!(Tls::load(&mode), replaced);
        assert!(loaded.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_change_between_the_start_and_the_first_look_is_not_missed() {
        let dir = tempfile::tempdir().unwrap();
        let tls = of_files(dir.path());
        let first = tls.current.load_full();
        write(dir.path());
        let taken = async {
            while Arc::ptr_eq(&first, &tls.current.load()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = tls.watch() => panic!("it watches for ever"),
            taken = tokio::time::timeout(Duration::from_secs(60), taken) => taken.expect("taken over"),
        }
    }
}
