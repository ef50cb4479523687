//! Whose certificates are accepted, on every transport.

use std::io::Write;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::client::{ApiKey, Client, ClientConfig, Endpoint, Incoming, TransportChoice, Trust};

/// Answers every request with 401 over TLS: to be refused by the server means to have trusted it.
async fn refuse_all(listener: TcpListener, acceptor: TlsAcceptor) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let Ok(mut tls) = acceptor.accept(socket).await else { continue };
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tls.read_u8().await.unwrap());
        }
        tls.write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.unwrap();
        tls.shutdown().await.ok();
    }
}

async fn first_word(trust: Trust, transport: TransportChoice, url: &str) -> Incoming {
    let config = ClientConfig::new(Endpoint::parse(url).unwrap(), ApiKey::parse("k").unwrap());
    Client::new(ClientConfig { trust, transport, ..config }).unwrap().next().await
}

/// A server with a certificate, and the certificate in a file.
async fn serving(made: &rcgen::Certificate, key: &rcgen::KeyPair) -> (String, tempfile::NamedTempFile) {
    let mut authority = tempfile::NamedTempFile::new().unwrap();
    authority.write_all(made.pem().as_bytes()).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(refuse_all(listener, TlsAcceptor::from(Arc::new(server))));
    (url, authority)
}

const TRANSPORTS: [TransportChoice; 4] =
    [TransportChoice::Ws, TransportChoice::Sse, TransportChoice::Poll, TransportChoice::Auto];

#[tokio::test]
async fn only_who_is_trusted_is_told_the_key() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (url, authority) = serving(&made.cert, &made.signing_key).await;
    for transport in TRANSPORTS {
        let unknown = first_word(Trust::System, transport, &url).await;
        assert!(
            matches!(&unknown, Incoming::Disconnected { reason, .. } if reason.contains("--insecure")),
            "{transport:?}: {unknown:?}"
        );
        for trust in [Trust::Anyone, Trust::File(authority.path().to_owned())] {
            let known = first_word(trust, transport, &url).await;
            assert!(matches!(known, Incoming::Fatal { status: Some(401), .. }), "{transport:?}: {known:?}");
        }
    }
}

#[tokio::test]
async fn a_certificate_whose_time_is_over_or_that_is_of_another_is_not_put_right_by_trusting_it() {
    let expired = |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let of_authority = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    for (name, change, word) in [
        ("localhost", &expired as &dyn Fn(&mut CertificateParams), "expired"),
        ("localhost", &of_authority, "-addext basicConstraints=critical,CA:FALSE"),
        ("elsewhere.example", &|_: &mut CertificateParams| {}, "not valid for name"),
    ] {
        let (mut params, key) = (CertificateParams::new([name.to_owned()]).unwrap(), KeyPair::generate().unwrap());
        change(&mut params);
        let (url, authority) = serving(&params.self_signed(&key).unwrap(), &key).await;
        for transport in TRANSPORTS {
            let word_of = first_word(Trust::File(authority.path().to_owned()), transport, &url).await;
            let Incoming::Disconnected { reason, .. } = &word_of else { unreachable!("{word_of:?}") };
            assert!(reason.contains(word) && !reason.contains("--insecure"), "{transport:?}: {reason}");
        }
    }
}
