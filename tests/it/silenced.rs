//! What the kernel holds for a peer that does not read does not reach it after it was silenced.

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use crate::app::App;
use crate::wire::{PATIENCE, Tls, tls_over};

/// What a peer may still read: its own receive buffer, and what TCP had on the way to it.
const OWN_BYTES_MAX: usize = 512 * 1024;

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
