//! Whose certificates are accepted, on every transport.

use std::io::Write;
use std::sync::Arc;

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

#[tokio::test]
async fn only_who_is_trusted_is_told_the_key() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut authority = tempfile::NamedTempFile::new().unwrap();
    authority.write_all(made.cert.pem().as_bytes()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let serving = tokio::spawn(refuse_all(listener, TlsAcceptor::from(Arc::new(server))));
    for transport in [TransportChoice::Ws, TransportChoice::Sse, TransportChoice::Poll, TransportChoice::Auto] {
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
    serving.abort();
}
