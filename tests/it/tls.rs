//! Certificates from files, taken over while the server runs.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use crate::app::App;
use crate::wire::{PATIENCE, tls};

pub(crate) fn write_certificate(dir: &Path) -> Vec<u8> {
    write_certificate_until(dir, 4096)
}

/// A certificate that ends when that year begins.
fn write_certificate_until(dir: &Path, year: i32) -> Vec<u8> {
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    let signing_key = rcgen::KeyPair::generate().unwrap();
    let cert = params.self_signed(&signing_key).unwrap();
    // Renamed into place, key first, as certificate managers do.
    for (name, text) in [("key.pem", signing_key.serialize_pem()), ("cert.pem", cert.pem())] {
        fs::write(dir.join("next"), text).unwrap();
        fs::rename(dir.join("next"), dir.join(name)).unwrap();
    }
    cert.der().to_vec()
}

pub(crate) async fn presented(by: SocketAddr) -> Vec<u8> {
    let stream = tls(by, &[b"http/1.1"]).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn a_changed_certificate_is_taken_over_and_a_broken_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let first = write_certificate(dir.path());
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let app = App::with(&[
        ("GATECAST_TLS_CERT", cert.to_str().unwrap()),
        ("GATECAST_TLS_KEY", key.to_str().unwrap()),
        ("GATECAST_ADMIN_TOKEN", "an-admin-token-for-tests"),
    ])
    .await;
    assert_eq!(presented(app.address).await, first);
    assert_eq!(expires_at(&app).await, "67090118400", "the year 4096");
    fs::write(&cert, "not a certificate").unwrap();
    let second = write_certificate_until(dir.path(), 2100);
    let taken = async { while presented(app.address).await != second {} };
    tokio::time::timeout(PATIENCE, taken).await.expect("the new certificate is presented");
    assert_eq!(expires_at(&app).await, "4102444800", "the year 2100");
}

/// When the certificate in use ends, as metrics tell.
async fn expires_at(app: &App) -> String {
    let (_, page) = app.get("/metrics").await;
    let mut lines = page.as_str().unwrap().lines();
    lines.find_map(|line| line.strip_prefix("gatecast_certificate_expiration_timestamp_seconds ")).unwrap().to_owned()
}
