//! What only the SSE transport promises.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

use gatecast_transports::contract::cases::stage;
use gatecast_transports::contract::client::Client;
use gatecast_transports::contract::raw::{Head, Raw};
use gatecast_transports::contract::script::{ACK, Act, Script, ack, frame};
use gatecast_transports::contract::server::Server;
use gatecast_transports::contract::sse::SseClient;
use gatecast_transports::{CloseReason, Sse, Timing};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio_util::task::TaskTracker;

fn assert_headers(head: &Head) {
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    assert_eq!(head.header("cache-control"), Some("no-store, no-transform"));
    assert_eq!(head.header("x-accel-buffering"), Some("no"));
    assert_eq!(head.header("content-encoding"), None);
}

#[tokio::test]
async fn retry_comes_first_and_every_event_is_spelled_out() {
    let acts = [
        ack(),
        Act::Ping("e-0".into()),
        Act::Deliver(vec![frame("e-1", "api.deployed", "{}"), frame("e-2", "api.deleted", "[]")]),
        Act::Deliver(vec![std::sync::Arc::new(gatecast_transports::Frame::position_only("e-7"))]),
        Act::Close(CloseReason::TokenExpired),
    ];
    let (_script, server) = stage::<SseClient>(acts, Timing::default()).await;
    let mut client = SseClient::connect(server.addr).await.unwrap();
    assert_headers(&client.head);
    let retry = client.block().await.unwrap();
    let ms: u32 = retry.strip_prefix("retry: ").unwrap().parse().unwrap();
    assert!((1000..=5000).contains(&ms));
    let expected = [
        format!("id: e-0\nevent: connection.ack\ndata: {ACK}"),
        ":".to_owned(),
        "id: e-1\nevent: api.deployed\ndata: {}".to_owned(),
        "id: e-2\nevent: api.deleted\ndata: []".to_owned(),
        "id: e-7".to_owned(),
        "event: error\ndata: {\"type\":\"error\",\"code\":\"TOKEN_EXPIRED\",\"payload\":{\"code\":\"TOKEN_EXPIRED\"}}"
            .to_owned(),
    ];
    for block in expected {
        assert_eq!(client.block().await, Some(block));
    }
    assert_eq!(client.block().await, None);
}

#[tokio::test]
async fn head_answers_the_same_headers_and_opens_nothing() {
    let (script, server) = stage::<SseClient>([ack()], Timing::default()).await;
    let mut raw = Raw::connect(server.addr).await;
    raw.request("HEAD", SseClient::PATH, SseClient::HEADERS).await;
    assert_headers(&raw.head().await);
    assert_eq!(raw.drain().await, 0, "a body follows");
    assert_eq!(script.look(|state| state.admitted), 0);
}

#[tokio::test]
async fn what_the_body_has_not_taken_is_taken_back_by_a_revocation() {
    let (script, server) = stage::<SseClient>([ack()], Timing::default()).await;
    let mut client = SseClient::connect(server.addr).await.unwrap();
    client.block().await.unwrap();
    client.block().await.unwrap();
    script.change(|state| {
        state.acts = [Act::Deliver(vec![frame("e-1", "secret", "{}")])].into();
        state.cut = Some(CloseReason::TokenRevoked);
    });
    let last = client.block().await.unwrap();
    assert!(last.starts_with("event: error\n") && last.contains("TOKEN_REVOKED"), "{last}");
    assert_eq!(client.block().await, None);
}

#[tokio::test]
async fn http_2_carries_the_same_and_notices_a_reset_stream() {
    let script = Script::new([ack(), Act::Deliver(vec![frame("e-1", "test", "{}")])]);
    let transport = Sse::new(Timing::default(), TaskTracker::new());
    let server = Server::start_version(&transport, &script, http::Version::HTTP_2).await;
    let socket = TokioIo::new(tokio::net::TcpStream::connect(server.addr).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), socket).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get(format!("http://localhost{}", SseClient::PATH)).body(Empty::<bytes::Bytes>::new());
    let mut answer = sender.send_request(request.unwrap()).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    while !text.ends_with("id: e-1\nevent: test\ndata: {}\n\n") {
        let piece = answer.frame().await.unwrap().unwrap().into_data().unwrap();
        text.push_str(std::str::from_utf8(&piece).unwrap());
    }
    assert!(text.starts_with("retry: "));
    // Only the stream ends, not the connection.
    drop(answer);
    script.until("the session is dropped", |state| state.alive == 0).await;
    assert_eq!(script.look(|state| state.ended.clone()), [CloseReason::PeerClosed]);
    assert!(!connection.is_finished());
}

#[tokio::test]
async fn http_2_peer_that_stops_reading_its_stream_is_severed() {
    let script = Script::new([Act::Deliver(vec![frame("e-1", "test", "x".repeat(4 << 20))])]);
    let transport = Sse::new(gatecast_transports::contract::short(), TaskTracker::new());
    let server = Server::start_version(&transport, &script, http::Version::HTTP_2).await;
    let socket = TokioIo::new(tokio::net::TcpStream::connect(server.addr).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), socket).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get(format!("http://localhost{}", SseClient::PATH)).body(Empty::<bytes::Bytes>::new());
    let _answer = sender.send_request(request.unwrap()).await.unwrap();
    script.until("the session is dropped", |state| state.alive == 0).await;
    assert_eq!(script.look(|state| state.ended.clone()), [CloseReason::WriteStalled]);
    let _ = tokio::time::timeout(gatecast_transports::contract::PATIENCE, connection).await.expect("the socket ends");
}
