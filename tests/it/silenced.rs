//! Peers that do not read: what the kernel holds for them does not reach them after they were silenced, and waits for them
//! while they are busy.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::time::Instant;

use crate::app::App;
use crate::http2;
use crate::wire::{PATIENCE, Tls, raw, tls, tls_over};

/// What a peer may still read: its own receive buffer, and what TCP had on the way to it.
const OWN_BYTES_MAX: usize = 512 * 1024;

/// How long a gateway may be busy that is silent for at most 6 s.
const BUSY: Duration = Duration::from_millis(4_500);

/// A connection whose kernel takes little for it, so that the rest stays with the server's.
async fn narrow(app: &App) -> Tls {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    tls_over(socket.connect(app.address).await.unwrap(), &[b"http/1.1"]).await.unwrap()
}

#[tokio::test]
async fn megabytes_on_their_way_are_thrown_away_with_the_token() {
    let app = App::start().await;
    let gateway = app.register("one").await;
    let mut stream = narrow(&app).await;
    let connect = format!(
        "GET /api/internal/v1/sse/gateways/connect HTTP/1.1\r\nHost: localhost\r\napi-key: {}\r\n\r\n",
        gateway.token
    );
    stream.write_all(connect.as_bytes()).await.unwrap();
    let registered = async {
        while app.hub.registry.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, registered).await.unwrap();
    let filler = "x".repeat(900 * 1024);
    for n in 0..8 {
        let event = json!({"type": "api.deployed", "payload": {"apiId": format!("a{n}"), "filler": filler}});
        assert!(app.post(&format!("/api/internal/v1/gateways/{}/events", gateway.id), event).await.0.is_success());
    }
    let path = format!("/api/v1/gateways/{}/tokens/{}", gateway.id, gateway.token_id);
    assert!(app.call(Method::DELETE, &path, None).await.0.is_success());
    let gone = async {
        while !app.hub.registry.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("ended though it does not read");
    let mut seen = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut seen)).await.expect("the socket has ended");
    assert!(seen.len() < OWN_BYTES_MAX, "{} bytes", seen.len());
}

/// A gateway may be busy for long with an event that it was sent (CONTRACT.md § 4): TCP does not give it up for the rest that
/// waits, before its silence does.
#[tokio::test]
async fn a_gateway_that_is_busy_keeps_its_connection_though_it_takes_nothing_meanwhile() {
    // TCP alone gives up after 2 s then.
    let app = App::with(&[("WS_CONNECTION_TIMEOUT", "6")]).await;
    let gateway = app.register("one").await;
    let mut stream = narrow(&app).await;
    let connect = format!(
        "GET /api/internal/v1/ws/gateways/connect HTTP/1.1\r\nHost: localhost\r\napi-key: {}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        gateway.token
    );
    raw(&mut stream, &connect, "connection.ack").await;
    let filler = "x".repeat(30 * 1024);
    for n in 0..4 {
        let event = json!({"type": "api.deployed", "payload": {"apiId": format!("a{n}"), "filler": filler}});
        assert!(app.post(&format!("/api/internal/v1/gateways/{}/events", gateway.id), event).await.0.is_success());
    }
    let gone = async {
        while !app.hub.registry.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(BUSY, gone).await.is_err(), "it is given up");
    let mut seen = vec![0; 4 * filler.len()];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut seen)).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_http_2_peer_that_takes_none_of_its_answers_is_cut_off_whatever_it_says_to_pings() {
    let app = App::start().await;
    let mut stream = tls(app.address, &[b"h2"]).await.unwrap();
    let opening = http2::opening(&[(http2::INITIAL_WINDOW_SIZE, 0)]);
    let ask = [opening, http2::get(1, "/nope"), http2::get(3, "/nope")].concat();
    stream.write_all(&ask).await.unwrap();
    stream.flush().await.unwrap();
    let before = Instant::now();
    let mut answered = Vec::new();
    let end = async {
        while let Some(frame) = http2::next(&mut stream).await {
            assert_ne!(frame.kind, http2::DATA, "there is no window");
            answered.extend((frame.stream > 0).then_some(frame.stream));
        }
    };
    tokio::time::timeout(PATIENCE, end).await.expect("it takes nothing");
    answered.sort_unstable();
    assert_eq!(answered, [1, 3], "the heads of its answers");
    // Before hyper has ended what is idle.
    assert!(before.elapsed() < Duration::from_secs(40), "{:?}", before.elapsed());
}
