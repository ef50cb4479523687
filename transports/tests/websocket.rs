//! What only the WebSocket transport promises: RFC 6455, and what hostile peers get.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

use gatecast_transports::contract::cases::stage;
use gatecast_transports::contract::client::{Client, Got};
use gatecast_transports::contract::raw::Raw;
use gatecast_transports::contract::script::{ACK, Act, Script, ack, frame};
use gatecast_transports::contract::server::Server;
use gatecast_transports::contract::ws::{WsClient, WsFrame, masked};
use gatecast_transports::{CloseReason, Timing};

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
const LIMIT: usize = 64 * 1024;

async fn connected() -> (Script, Server, WsClient) {
    let (script, server) = stage::<WsClient>([ack()], Timing::default()).await;
    let mut client = WsClient::connect(server.addr).await.unwrap();
    assert_eq!(client.next().await, Got::Message(ACK.to_owned()));
    (script, server, client)
}

fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, u8::try_from(payload.len()).unwrap()], payload].concat()
}

fn announced(first: u8, len: u64) -> Vec<u8> {
    [&[first, 0xff][..], &len.to_be_bytes(), &[1, 2, 3, 4]].concat()
}

#[tokio::test]
async fn every_violation_gets_its_close_code_before_tcp_ends() {
    let two = |first: Vec<u8>, second: Vec<u8>| [first, second].concat();
    let violations: Vec<(&str, Vec<u8>, u16, CloseReason)> = vec![
        ("unmasked", unmasked(TEXT, b"hi"), 1002, CloseReason::Protocol),
        ("first reserved bit", masked(TEXT | 0x40, b"hi"), 1002, CloseReason::Protocol),
        ("second reserved bit", masked(TEXT | 0x20, b"hi"), 1002, CloseReason::Protocol),
        ("third reserved bit", masked(TEXT | 0x10, b"hi"), 1002, CloseReason::Protocol),
        ("reserved data opcode", masked(0x83, b"hi"), 1002, CloseReason::Protocol),
        ("reserved control opcode", masked(0x8b, b"hi"), 1002, CloseReason::Protocol),
        ("fragmented ping", masked(0x09, b"hi"), 1002, CloseReason::Protocol),
        ("fragmented close", masked(0x08, b""), 1002, CloseReason::Protocol),
        ("ping of 126 bytes", masked(PING, &[b'x'; 126]), 1002, CloseReason::Protocol),
        ("continuation of nothing", masked(0x80, b"hi"), 1002, CloseReason::Protocol),
        ("text within a text", two(masked(0x01, b"a"), masked(TEXT, b"b")), 1002, CloseReason::Protocol),
        ("close of one byte", masked(CLOSE, b"x"), 1002, CloseReason::Protocol),
        ("close with bad UTF-8", masked(CLOSE, b"\x03\xe8\xff"), 1007, CloseReason::BadUtf8),
        ("bad UTF-8", masked(TEXT, b"\xc3\x28"), 1007, CloseReason::BadUtf8),
        ("cut off UTF-8", masked(TEXT, b"\xc3"), 1007, CloseReason::BadUtf8),
        ("bad UTF-8 in a fragment", two(masked(0x01, b"a"), masked(0x80, b"\xff")), 1007, CloseReason::BadUtf8),
        ("binary", masked(BINARY, b"hi"), 1003, CloseReason::NotText),
        ("too big", masked(TEXT, &vec![b'x'; LIMIT + 1]), 1009, CloseReason::TooBig),
        ("announced too big", announced(TEXT, LIMIT as u64 + 1), 1009, CloseReason::TooBig),
        ("announced as 2^64 - 1", announced(TEXT, u64::MAX), 1009, CloseReason::TooBig),
        ("too big in fragments", two(masked(0x01, &vec![b'x'; LIMIT]), masked(0x80, b"x")), 1009, CloseReason::TooBig),
    ];
    for (what, bytes, code, reason) in violations {
        let (script, _server, mut client) = connected().await;
        client.0.send(&bytes).await;
        assert_eq!(client.close_code().await, Some(code), "{what}");
        assert_eq!(client.0.drain().await, 0, "{what}: something follows the close frame");
        script.until("the session is dropped", |state| state.alive == 0).await;
        assert_eq!(script.look(|state| state.ended.clone()), [reason], "{what}");
    }
}

#[tokio::test]
async fn a_close_frame_is_not_eaten_by_what_the_peer_goes_on_sending() {
    let (_script, _server, mut client) = connected().await;
    // A lot behind the violation: closing with this unread would reset the connection.
    let more = [unmasked(TEXT, b"hi"), vec![0xa5; 2 << 20]].concat();
    client.0.send(&more).await;
    assert_eq!(client.close_code().await, Some(1002));
    assert!(client.0.ends_cleanly().await, "reset");
}

#[tokio::test]
async fn a_socket_that_ends_without_a_close_frame_is_told_from_a_peer_that_closed() {
    let (script, _server, client) = connected().await;
    drop(client);
    script.until("the session is dropped", |state| state.alive == 0).await;
    assert_eq!(script.look(|state| state.ended.clone()), [CloseReason::SocketBroken]);
}

#[tokio::test]
async fn a_peers_close_is_echoed() {
    let (script, _server, mut client) = connected().await;
    client.send(CLOSE, b"\x03\xe9bye").await;
    assert_eq!(client.frame().await, Some(WsFrame { first: CLOSE, payload: b"\x03\xe9bye".to_vec() }));
    assert_eq!(client.0.drain().await, 0);
    script.until("the session is dropped", |state| state.alive == 0).await;
    assert_eq!(script.look(|state| state.ended.clone()), [CloseReason::PeerClosed]);
}

#[tokio::test]
async fn what_the_peer_says_is_heard_and_its_pings_are_answered() {
    let (script, _server, mut client) = connected().await;
    client.send(PONG, b"e-0").await;
    client.send(TEXT, "päng".as_bytes()).await;
    client.send(PING, b"are you there").await;
    assert_eq!(client.frame().await, Some(WsFrame { first: PONG, payload: b"are you there".to_vec() }));
    client.send(0x01, b"in ").await;
    client.send(PING, b"").await;
    client.send(0x80, b"two").await;
    client.send(TEXT, &[b'x'; LIMIT]).await;
    script.until("all is heard", |state| state.heard.len() == 6).await;
    let large = format!("text {}", "x".repeat(LIMIT));
    assert_eq!(
        script.look(|state| state.heard.clone()),
        ["pong e-0", "text päng", "life", "life", "text in two", &large]
    );
}

#[tokio::test]
async fn a_ping_carries_the_sessions_payload() {
    let (script, _server, mut client) = connected().await;
    script.play([Act::Ping("6f3a9c21-42".into())]);
    assert_eq!(client.next().await, Got::Ping(b"6f3a9c21-42".to_vec()));
    script.until("it counts as written", |state| state.written == 2).await;
}

#[tokio::test]
async fn goodbye_comes_before_the_close_frame_of_a_shutdown() {
    let (script, _server, mut client) = connected().await;
    script.play([Act::Close(CloseReason::Shutdown { reconnect_after_ms: 5 })]);
    let Got::Message(goodbye) = client.next().await else { panic!("no goodbye") };
    assert!(goodbye.contains("server.goodbye"));
    let close = client.frame().await.unwrap();
    assert_eq!((close.first, close.payload.as_slice()), (CLOSE, &b"\x03\xe8server shutdown"[..]));
}

#[tokio::test]
async fn a_peer_that_writes_before_it_reads_does_not_lock_up() {
    let (script, _server, mut client) = connected().await;
    let text = format!(r#"{{"large":"{}"}}"#, "x".repeat(12 << 20));
    script.play([Act::Deliver(vec![frame("e-1", "test", text.as_str())])]);
    client.0.until_written_to().await;
    // 20 MiB of receipts, while the server is stuck in its own write.
    let receipt = masked(TEXT, &[b'r'; 60_000]);
    for _ in 0..350 {
        client.0.send(&receipt).await;
    }
    assert!(client.next().await == Got::Message(text));
    script.until("all is heard", |state| state.heard.len() == 350).await;
}

#[tokio::test]
async fn a_flood_of_any_kind_delays_neither_events_nor_the_end() {
    // Empty fragments never become a message: only the read limit of the outbox lets the session have its turn.
    let fragments = [masked(0x01, b"a"), masked(0x00, b"").repeat(20_000)].concat();
    let floods = [masked(PING, b"").repeat(20_000), masked(TEXT, b"x").repeat(20_000), fragments];
    for flood in floods {
        let (script, _server, client) = connected().await;
        let (mut reading, mut writing) = client.0.socket.into_split();
        let flooding =
            tokio::spawn(
                async move { while tokio::io::AsyncWriteExt::write_all(&mut writing, &flood).await.is_ok() {} },
            );
        let discarding = tokio::spawn(async move { tokio::io::copy(&mut reading, &mut tokio::io::sink()).await });
        script.play([Act::Deliver(vec![frame("e-1", "test", "{}")])]);
        script.until("the event is written", |state| state.written == 2).await;
        script.change(|state| state.cut = Some(CloseReason::TokenRevoked));
        script.until("the session is dropped", |state| state.alive == 0).await;
        assert_eq!(script.look(|state| state.ended.clone()), [CloseReason::TokenRevoked]);
        discarding.abort();
        flooding.abort();
    }
}

#[tokio::test]
async fn what_is_no_upgrade_is_answered_by_the_gate() {
    let (script, server) = stage::<WsClient>([ack()], Timing::default()).await;
    let good = WsClient::HEADERS;
    let cases = [
        ("", 426, "UPGRADE"),
        (&good.replace("Connection: Upgrade", "Connection: close"), 426, "UPGRADE"),
        (&good.replace("Version: 13", "Version: 8"), 426, "VERSION"),
        (&good.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), 400, "Sec-WebSocket-Key"),
    ];
    for (headers, status, body) in cases {
        let mut raw = Raw::connect(server.addr).await;
        raw.request("GET", WsClient::PATH, headers).await;
        let head = raw.head().await;
        assert_eq!((head.status, raw.body(&head).await.as_slice()), (status, body.as_bytes()), "{headers}");
    }
    assert_eq!(script.look(|state| state.admitted), 0);
}
