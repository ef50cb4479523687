//! The socket of an SSE stream leaves hyper (HTTP/1.1), or stays there, and the peer sees no difference.
//!
//! This is the test that fails when a hyper update breaks the hand-over.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use gatecast_transports::contract::PATIENCE;
use gatecast_transports::contract::script::{ACK, Act, Script, ack, frame};
use gatecast_transports::{BoxSocket, CloseReason, ConnInfo, HandOver, Http1, Sever, Sse, Timing, Transport};
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// Serves one connection over a pipe of so many bytes; the task ends when hyper has given the socket up.
fn serve(script: &Script, offered: bool, pipe_bytes: usize) -> (DuplexStream, JoinHandle<hyper::Result<()>>) {
    let (near, far) = tokio::io::duplex(pipe_bytes);
    let near: BoxSocket = Box::new(near);
    let routes = Sse::new(Timing::default(), TaskTracker::new()).routes(Arc::new(script.clone()));
    let hand_over = HandOver::new();
    let inserted = hand_over.clone();
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Arc::new(ConnInfo::of(([127, 0, 0, 1], 1).into())));
        if offered {
            request.extensions_mut().insert(inserted.clone());
        }
        let answer = TowerToHyperService::new(warp::service(routes.clone())).call(request);
        async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(hand_over.watch(near.into(), Sever::new())), service)
        .with_upgrades();
    (far, tokio::spawn(Http1::new(connection, hand_over)))
}

async fn read_until(peer: &mut DuplexStream, end: &str) -> String {
    let mut text = Vec::new();
    let whole = async {
        while !text.ends_with(end.as_bytes()) {
            assert!(peer.read_buf(&mut text).await.unwrap() > 0, "{}", String::from_utf8_lossy(&text));
        }
    };
    timeout(PATIENCE, whole).await.unwrap();
    String::from_utf8(text).unwrap()
}

/// A stream after its opening, without hyper, over a pipe of so many bytes.
async fn without_hyper(script: &Script, pipe_bytes: usize) -> DuplexStream {
    let (mut peer, hyper) = serve(script, true, pipe_bytes);
    peer.write_all(REQUEST).await.unwrap();
    read_until(&mut peer, "\n\n\r\n").await;
    // In time, unless hyper keeps the socket.
    timeout(PATIENCE, hyper).await.unwrap().unwrap().unwrap();
    peer
}

const REQUEST: &[u8] = b"GET /api/internal/v1/sse/gateways/connect HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn hyper_gives_the_socket_up_once_the_first_bytes_are_written() {
    // A pipe of a few bytes makes hyper wait for its writes: nothing that it still holds may be left behind.
    for pipe_bytes in [64 * 1024, 7] {
        let script = Script::new([ack()]);
        let (mut peer, hyper) = serve(&script, true, pipe_bytes);
        peer.write_all(REQUEST).await.unwrap();
        let opening = read_until(&mut peer, "\n\n\r\n").await;
        assert!(opening.starts_with("HTTP/1.1 200 OK\r\n") && opening.contains(ACK), "{opening}");
        timeout(PATIENCE, hyper).await.expect("hyper keeps the socket").unwrap().unwrap();
        script.change(|state| state.acts = [Act::Deliver(vec![frame("e-1", "test", "{}")])].into());
        assert_eq!(read_until(&mut peer, "\n\n\r\n").await, "1e\r\nid: e-1\nevent: test\ndata: {}\n\n\r\n");
        script.change(|state| state.acts = [Act::Close(CloseReason::TokenExpired)].into());
        let ending = read_until(&mut peer, "\r\n0\r\n\r\n").await;
        assert!(ending.contains("TOKEN_EXPIRED"), "{ending}");
        assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(script.look(|state| (state.alive, state.ended.clone())), (0, vec![CloseReason::TokenExpired]));
    }
}

#[tokio::test]
async fn a_peer_that_goes_or_talks_without_end_is_noticed_without_hyper() {
    for talks in [false, true] {
        let script = Script::new([ack()]);
        let mut peer = without_hyper(&script, 64 * 1024).await;
        if talks {
            let _ = peer.write_all(&[b'x'; 128 * 1024]).await;
        } else {
            drop(peer);
        }
        script.until("the session is dropped", |state| state.alive == 0).await;
        assert_eq!(script.look(|state| state.ended.clone()), [CloseReason::PeerClosed]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_stalled_without_hyper() {
    let script = Script::new([ack()]);
    let _peer = without_hyper(&script, 1024).await;
    let before = tokio::time::Instant::now();
    script.change(|state| state.acts = [Act::Deliver(vec![frame("e-1", "test", "x".repeat(100_000))])].into());
    while script.look(|state| state.alive) > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(script.look(|state| (state.written, state.ended.clone())), (1, vec![CloseReason::WriteStalled]));
    assert!((Timing::default().write_stall..Timing::default().write_stall * 2).contains(&before.elapsed()));
}

/// As kernels take what waits for it: 10 KB/s, and nothing for longer than a peer may be that takes nothing.
#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_steadily_is_not_stalled_though_it_takes_lumps() {
    let script = Script::new([ack()]);
    let mut peer = without_hyper(&script, 128 * 1024).await;
    script.change(|state| state.acts = [Act::Deliver(vec![frame("e-1", "test", "x".repeat(1_000_000))])].into());
    let limit = Timing::default().write_stall;
    // Until the first lump its peer does not differ from one that reads nothing.
    for gap in [limit * 9 / 10].into_iter().chain([limit * 6 / 5; 7]) {
        tokio::time::sleep(gap).await;
        peer.read_exact(&mut vec![0; 120_000]).await.unwrap();
    }
    assert_eq!(script.look(|state| (state.alive, state.ended.len())), (1, 0));
}

#[tokio::test]
async fn without_hyper_it_is_served_on_the_spot_and_what_does_not_fit_by_its_task() {
    let script = Script::new([ack()]);
    let mut peer = without_hyper(&script, 1024).await;
    let event =
        |n: usize, bytes| Act::Deliver(vec![frame(&format!("e-{n}"), "test", format!("<{n}{}>", "x".repeat(bytes)))]);
    script.change(|state| (state.acts, state.written) = ([event(0, 0)].into(), 0));
    tokio::task::yield_now().await;
    read_until(&mut peer, "<0>\n\n\r\n").await;
    for act in [event(1, 0), Act::Ping("p".into())] {
        script.play([act]);
        assert!(script.serve());
    }
    assert_eq!(script.look(|state| state.written), 3, "its task has not run");
    script.play([event(2, 3_000), event(3, 0)]);
    for was_at_rest in [true, false, false] {
        assert_eq!(script.serve(), was_at_rest);
        assert_eq!(script.look(|state| state.written), 3);
    }
    let got = read_until(&mut peer, "<3>\n\n\r\n").await;
    assert_eq!([1, 2, 3].map(|n| got.matches(&format!("<{n}")).count()), [1; 3], "{got}");
    script.play([Act::Close(CloseReason::TokenExpired)]);
    assert!(script.serve(), "an end is its task's to find, which is woken");
    assert!(read_until(&mut peer, "\r\n0\r\n\r\n").await.contains("TOKEN_EXPIRED"));
}

#[tokio::test]
async fn without_an_offer_hyper_serves_the_stream_to_its_end() {
    let script = Script::new([ack(), Act::Deliver(vec![frame("e-1", "test", "{}")])]);
    let (mut peer, hyper) = serve(&script, false, 64 * 1024);
    peer.write_all(REQUEST).await.unwrap();
    read_until(&mut peer, "event: test\ndata: {}\n\n\r\n").await;
    assert!(!hyper.is_finished());
    script.change(|state| state.acts = [Act::Close(CloseReason::TokenExpired)].into());
    let ending = read_until(&mut peer, "\r\n0\r\n\r\n").await;
    assert!(ending.contains("TOKEN_EXPIRED"), "{ending}");
}
