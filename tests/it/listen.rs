//! `gatecast listen`, the quickstart's test client: its words, its resuming, its falling back, its end.

use std::fs;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_rustls::TlsAcceptor;

use crate::app::App;
use crate::process::{Process, Served, gatecast};
use crate::wire::{PATIENCE, tls};

const TRANSPORTS: [&str; 4] = ["ws", "sse", "poll", "auto"];

/// `listen` at an address.
fn listen(address: SocketAddr, token: &str, args: &[&str]) -> Process {
    let url = format!("https://{address}");
    Process::spawn(&mut gatecast(&[&["-k", "--url", &url, "listen", "--api-key", token], args].concat(), &[]))
}

/// The next line of JSON of a kind.
async fn kind(listener: &mut Process, kind: &str) -> Value {
    let of_kind = |line: &str| serde_json::from_str::<Value>(line).ok().filter(|line| line["kind"] == kind);
    listener.out.until(of_kind).await
}

/// Numbers of the events as they come.
async fn number(listener: &mut Process) -> u64 {
    kind(listener, "event").await["message"]["payload"]["n"].as_u64().unwrap()
}

async fn interrupted(listener: &mut Process) -> Vec<String> {
    listener.signal("INT").await;
    assert_eq!(listener.ended().await.code(), Some(0));
    listener.out.whole().await
}

#[tokio::test]
async fn listen_says_the_quickstarts_lines_on_every_transport_and_goodbye_on_ctrl_c() {
    let app = App::start().await;
    let gateway = app.register("test-gateway").await;
    for transport in TRANSPORTS {
        let mut listener = listen(app.address, &gateway.token, &["--transport", transport]);
        listener.out.containing("---").await;
        let id = app.publish(gateway.id, 7).await;
        listener.out.containing("\"n\": 7").await;
        listener.out.until(|line| (line == "}").then_some(())).await;
        let lines = interrupted(&mut listener).await;
        let over = if transport == "auto" { "ws" } else { transport };
        let scheme = if over == "ws" { "wss" } else { "https" };
        assert_eq!(
            lines[0],
            format!("Connecting to {scheme}://{}/api/internal/v1/{over}/gateways/connect...", app.address)
        );
        let expected = [
            "✓ Connected successfully!".to_owned(),
            "✓ Received connection ACK:".into(),
            format!("  Gateway ID: {}", gateway.id),
        ];
        assert_eq!(lines[1..4], expected);
        for (line, name) in lines[4..].iter().zip(["  Connection ID: ", "  Timestamp: "]) {
            assert!(line.starts_with(name) && line.len() > name.len(), "{line}");
        }
        let rest = lines.iter().position(|line| line.is_empty()).unwrap();
        let waiting = ["", "Connection established. Waiting for messages...", "Press Ctrl+C to disconnect", "---", "{"];
        assert_eq!(lines[rest..rest + 5], waiting);
        assert!(
            lines.contains(&"  \"type\": \"api.deployed\",".to_owned()) && lines.iter().any(|line| line.contains(&id)),
            "{lines:#?}"
        );
        let goodbye = ["", "Interrupt received, closing connection...", "Connection closed by server"];
        assert_eq!(lines[lines.len() - 3..], goodbye, "{transport}");
    }
    let refused = crate::process::run(&["-k", "--url", &app.url(""), "listen", "--api-key", "invalid-key"], &[]).await;
    assert_eq!(refused.exit, 77);
    assert!(refused.out.contains("✗ Connection rejected: 401"), "{refused:?}");
}

#[tokio::test]
async fn listen_shows_pings_and_pongs_and_stays_past_the_time_of_a_silent_peer() {
    let app = App::with(&[("WS_CONNECTION_TIMEOUT", "5")]).await;
    let gateway = app.register("one").await;
    let mut listener = listen(app.address, &gateway.token, &["--transport", "ws"]);
    // A ping comes every 3.3 s: the third one is later than the 5 s after which a silent peer is gone.
    for _ in 0..3 {
        listener.out.until(|line| (line == "← Received PING from server").then_some(())).await;
        assert_eq!(listener.out.line().await.unwrap(), "→ Sent PONG to server");
    }
    let lines = interrupted(&mut listener).await;
    assert_eq!(lines.iter().filter(|line| line.starts_with("✓ Connected")).count(), 1, "{lines:#?}");
}

#[tokio::test]
async fn a_listener_that_is_killed_misses_nothing_with_its_resume_file() {
    let app = App::start().await;
    let (gateway, dir) = (app.register("one").await, tempfile::tempdir().unwrap());
    let file = dir.path().join("cursor");
    let mut next = 0;
    for transport in TRANSPORTS {
        let args = ["--json", "--transport", transport, "--resume", file.to_str().unwrap()];
        let mut listener = listen(app.address, &gateway.token, &args);
        kind(&mut listener, "connected").await;
        for expected in next..next + 3 {
            if expected >= next + u64::from(next > 0) * 2 {
                app.publish(gateway.id, expected).await;
            }
            assert_eq!(number(&mut listener).await, expected, "{transport}");
        }
        next += 3;
        // Its last event is in the file before it is killed.
        let newest = app.bounds(gateway.id).await[1].as_str().unwrap().to_owned();
        let saved = async {
            while fs::read_to_string(&file).unwrap_or_default().trim() != newest {
                tokio::task::yield_now().await
            }
        };
        tokio::time::timeout(PATIENCE, saved).await.expect("saved");
        listener.kill().await;
        for n in next..next + 2 {
            app.publish(gateway.id, n).await;
        }
    }
}

#[tokio::test]
async fn a_listener_survives_a_restart_and_a_kill_of_the_server_and_misses_nothing() {
    let data = tempfile::tempdir().unwrap();
    let mut served = Served::dev(data.path(), &[]).await;
    let (address, gateway) = (served.platform.address, served.platform.register("one").await);
    let mut listeners: Vec<_> = TRANSPORTS
        .iter()
        .map(|transport| listen(address, &gateway.token, &["--json", "--transport", transport]))
        .collect();
    for listener in &mut listeners {
        kind(listener, "connected").await;
    }
    let listen_there = address.to_string();
    for (round, signal) in (0..).zip(["TERM", "KILL"]) {
        served.platform.publish(gateway.id, 2 * round).await;
        for listener in &mut listeners {
            assert_eq!(number(listener).await, 2 * round);
        }
        served.process.signal(signal).await;
        served.process.ended().await;
        served = Served::dev(data.path(), &[("GATECAST_LISTEN", &listen_there)]).await;
        // Published before anyone may be back.
        served.platform.publish(gateway.id, 2 * round + 1).await;
        for listener in &mut listeners {
            assert_eq!(kind(listener, "connected").await["message"]["resume"], "resumed");
            assert_eq!(number(listener).await, 2 * round + 1);
        }
    }
    for listener in &mut listeners {
        interrupted(listener).await;
    }
}

#[tokio::test]
async fn a_signal_ends_a_listener_whose_output_nobody_takes() {
    let app = App::start().await;
    let gateway = app.register("one").await;
    for (transport, signal) in [("ws", "INT"), ("sse", "TERM"), ("poll", "INT")] {
        let args = ["-k", "--url", &app.url(""), "listen", "--api-key", &gateway.token, "--transport", transport];
        let mut listener = gatecast(&args, &[]);
        let mut listener = listener.kill_on_drop(true).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let output = listener.stdout.take().unwrap();
        let waiting = || rustix::io::ioctl_fionread(&output).unwrap();
        let becomes = async |enough: u64| {
            while waiting() < enough {
                tokio::task::yield_now().await;
            }
        };
        // It says that it is connected, and then is told more than a pipe holds.
        tokio::time::timeout(PATIENCE, becomes(300)).await.expect("a connection");
        for n in 0..20 {
            let event = json!({"type": "gateway.config.updated", "payload": {"n": n, "text": "x".repeat(10_000)}});
            app.post(&format!("/api/internal/v1/gateways/{}/events", gateway.id), event).await;
        }
        tokio::time::timeout(PATIENCE, becomes(40_000)).await.expect("a full pipe");
        let pid = listener.id().unwrap().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().await.unwrap().success());
        let ended = tokio::time::timeout(Duration::from_secs(5), listener.wait()).await;
        assert_eq!(ended.expect("an end").unwrap().code(), Some(0), "{transport}");
    }
}

/// A proxy that ends TLS and answers 403 to every request that `refuses` names by a part of its head.
async fn proxy(server: SocketAddr, refuses: &'static [&'static str]) -> SocketAddr {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(signing_key.serialize_der()).into();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut client = acceptor.accept(stream).await.ok()?;
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(client.read_u8().await.ok()?);
                }
                let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
                if refuses.iter().any(|part| text.contains(part)) {
                    let refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                    client.write_all(refusal).await.ok()?;
                    return client.shutdown().await.ok();
                }
                let mut server = tls(server, &[b"http/1.1"]).await.ok()?;
                server.write_all(&head).await.ok()?;
                copy_bidirectional(&mut client, &mut server).await.ok().map(drop)
            });
        }
    });
    address
}

#[tokio::test]
async fn auto_falls_back_when_a_proxy_refuses_websocket_and_then_sse_and_misses_nothing() {
    let app = App::start().await;
    let gateway = app.register("one").await;
    let first = app.publish(gateway.id, 0).await;
    let cases: [(&'static [&'static str], &str); 2] =
        [(&["upgrade: websocket"], "sse"), (&["upgrade: websocket", "/sse/"], "long-poll")];
    for (round, (refuses, transport)) in (1..).zip(cases) {
        let proxy = proxy(app.address, refuses).await;
        let mut listener = listen(proxy, &gateway.token, &["--json", "--resume", &first]);
        let connected = kind(&mut listener, "connected").await;
        assert_eq!((&connected["transport"], &connected["message"]["resume"]), (&transport.into(), &"resumed".into()));
        app.publish(gateway.id, round).await;
        for expected in 1..=round {
            assert_eq!(number(&mut listener).await, expected);
        }
        interrupted(&mut listener).await;
    }
}
