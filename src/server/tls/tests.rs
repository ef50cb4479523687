use gatecast_storage::SystemClock;
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
    Tls::try_load(&mode, Arc::new(SystemClock)).unwrap().unwrap()
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
    let tls = Tls::try_load(&TlsMode::Files { cert, key, client_ca: Some(authorities) }, Arc::new(SystemClock))
        .unwrap()
        .unwrap();
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
    let mode = TlsMode::Files { cert: cert.clone(), key: key.clone(), client_ca: None };
    let began = tokio::time::Instant::now();
    let error = Tls::load(&mode, Arc::new(SystemClock)).await.err().unwrap().to_string();
    assert!([&cert, &key].iter().all(|file| error.contains(file.to_str().unwrap())), "{error}");
    assert_eq!(began.elapsed(), LOOK_AT_START_EVERY * LOOKS_AT_START);
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
    let (loaded, ()) = tokio::join!(Tls::load(&mode, Arc::new(SystemClock)), replaced);
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
