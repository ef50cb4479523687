//! SIGHUP: a running server takes over another configuration, all of it or nothing.

use std::fs;
use std::path::Path;

use reqwest::StatusCode;
use serde_json::json;

use crate::platform::Platform;
use crate::process::{Process, Served, gatecast};
use crate::tls::{presented, write_certificate};
use crate::wire::Ws;

const ADMIN: &str = "an-admin-token-for-tests";

/// Writes the configuration file in `dir`: the certificate in `certificate`, what every start here needs, and `more`.
fn write(dir: &Path, certificate: &Path, more: &str) -> String {
    let (path, at) = (dir.join("gatecast.env"), certificate.display());
    let tls = format!("GATECAST_TLS_CERT={at}/cert.pem\nGATECAST_TLS_KEY={at}/key.pem");
    fs::write(&path, format!("{tls}\nGATECAST_ADMIN_TOKEN={ADMIN}\n{more}\n")).unwrap();
    path.display().to_string()
}

/// A server with that file, and nothing in its environment that would win over it.
async fn serve(dir: &Path, more: &str) -> (Served, Platform) {
    let file = write(dir, dir, more);
    let mut command = gatecast(&["serve", "--config", &file, "--listen", "127.0.0.1:0"], &[]);
    command.args(["--data-dir", &dir.join("data").display().to_string()]);
    let served = Served::listening(Process::spawn(&mut command)).await;
    let platform = Platform { admin: Some(ADMIN.to_owned()), ..served.platform.clone() };
    (served, platform)
}

#[tokio::test]
async fn certificate_log_and_limits_are_taken_over_and_who_is_connected_stays() {
    let dir = tempfile::tempdir().unwrap();
    write_certificate(dir.path());
    let (mut served, platform) = serve(dir.path(), "WS_MAX_CONNECTIONS=1\nWS_RATE_LIMIT_PER_MINUTE=1000").await;
    let gateway = platform.register("one").await;
    let mut first = Ws::connect(platform.address, &gateway.token, None).await.unwrap();
    first.message().await.unwrap();
    assert_eq!(Ws::connect(platform.address, &gateway.token, None).await.err(), Some(503));

    let dir_two = dir.path().join("two");
    fs::create_dir(&dir_two).unwrap();
    let second = write_certificate(&dir_two);
    // Another path, so that only the setting says that there is another certificate.
    let more = "WS_MAX_CONNECTIONS=2\nWS_RATE_LIMIT_PER_MINUTE=1000\nGATECAST_LOG=debug\nGATECAST_MAX_EVENT_BYTES=1KiB\n\
                GATECAST_RING_MAX_EVENTS=77";
    write(dir.path(), &dir_two, more);
    served.process.signal("HUP").await;
    served.process.err.containing("GATECAST_RING_MAX_EVENTS changed in the configuration: needs a restart").await;
    served.process.err.containing("Configuration reloaded").await;

    assert_eq!(presented(platform.address).await, second);
    let mut other = Ws::connect(platform.address, &gateway.token, None).await.unwrap();
    other.message().await.unwrap();
    assert_eq!(Ws::connect(platform.address, &gateway.token, None).await.err(), Some(503));
    let large = json!({"type": "api.deployed", "payload": {"apiId": "x".repeat(2048)}});
    let path = format!("/api/internal/v1/gateways/{}/events", gateway.id);
    assert_eq!(platform.post(&path, large).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let id = platform.publish(gateway.id, 1).await;
    for connection in [&mut first, &mut other] {
        assert_eq!(connection.message().await.unwrap()["eventId"], id.as_str());
    }
    served.process.err.containing("DEBUG").await;
    served.process.signal("TERM").await;
    assert_eq!(served.process.ended().await.code(), Some(0));
}

#[tokio::test]
async fn tls_is_not_switched_off_and_no_certificate_is_said_to_have_changed() {
    let dir = tempfile::tempdir().unwrap();
    let first = write_certificate(dir.path());
    let (mut served, platform) = serve(dir.path(), "").await;
    let (file, two) = (dir.path().join("gatecast.env"), dir.path().join("two"));
    fs::write(&file, format!("GATECAST_TLS=off\nGATECAST_ADMIN_TOKEN={ADMIN}\n")).unwrap();
    served.process.signal("HUP").await;
    served.process.err.containing("GATECAST_TLS changed in the configuration: needs a restart").await;
    served.process.err.containing("Configuration reloaded").await;
    assert_eq!(presented(platform.address).await, first);
    // Back on, with the certificate that was there all along.
    write(dir.path(), dir.path(), "");
    served.process.signal("HUP").await;
    served.process.err.containing("Configuration reloaded").await;
    let told = served.process.err.so_far().join("\n");
    assert!(!told.contains("GATECAST_TLS_CERT changed") && !told.contains("GATECAST_TLS_KEY changed"), "{told}");

    fs::create_dir(&two).unwrap();
    let second = write_certificate(&two);
    write(dir.path(), &two, "");
    served.process.signal("HUP").await;
    served.process.err.containing("GATECAST_TLS_CERT changed").await;
    served.process.err.containing("Configuration reloaded").await;
    assert_eq!(presented(platform.address).await, second);
}

#[tokio::test]
async fn a_faulty_configuration_is_told_with_all_its_faults_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let certificate = write_certificate(dir.path());
    let limits = "WS_MAX_CONNECTIONS=1\nWS_RATE_LIMIT_PER_MINUTE=1000";
    let (mut served, platform) = serve(dir.path(), limits).await;
    let gateway = platform.register("one").await;
    let _first = Ws::connect(platform.address, &gateway.token, None).await.unwrap();

    write(dir.path(), dir.path(), "WS_MAX_CONNECTIONS=9\nWS_RATE_LIMIT_PER_MINUTE=0\nGATECAST_LOGG=debug");
    served.process.signal("HUP").await;
    let refused = "everything stays as it was";
    served.process.err.containing(refused).await;
    let told = served.process.err.so_far().join("\n");
    assert!(told.contains("WS_RATE_LIMIT_PER_MINUTE") && told.contains("did you mean GATECAST_LOG?"), "{told}");
    assert_eq!(Ws::connect(platform.address, &gateway.token, None).await.err(), Some(503));

    // No fault in the words, but the files cannot be used.
    write(dir.path(), &dir.path().join("nowhere"), "WS_MAX_CONNECTIONS=9\nWS_RATE_LIMIT_PER_MINUTE=1000");
    served.process.signal("HUP").await;
    served.process.err.containing("The certificate cannot be used; everything stays as it was").await;
    assert_eq!(Ws::connect(platform.address, &gateway.token, None).await.err(), Some(503));
    assert_eq!(presented(platform.address).await, certificate);
}
