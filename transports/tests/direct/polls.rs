//! Polls.

use std::time::Duration;

use gatecast_transports::Timing;
use gatecast_transports::contract::cases::stage;
use gatecast_transports::contract::client::Client;
use gatecast_transports::contract::poll::{PollClient, events};
use gatecast_transports::contract::raw::Raw;
use gatecast_transports::contract::script::{Act, Script, ack, frame};
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use crate::line::Line;

fn line(script: &Script, pipe_bytes: usize) -> Line {
    Line::new::<PollClient>(script, pipe_bytes)
}

fn request(query: &str, headers: &str) -> String {
    format!("GET {}{query} HTTP/1.1\r\nHost: x\r\n{headers}\r\n", PollClient::PATH)
}

fn event(seq: usize) -> Act {
    Act::Deliver(vec![frame(&format!("e-{seq}"), "test", format!(r#"{{"n":{seq}}}"#))])
}

/// A poll that waits.
async fn parked() -> (Script, Line) {
    let script = Script::new([]);
    let mut line = line(&script, 64 * 1024);
    line.send(&request("?timeout=60", "")).await;
    script.until("the poll waits", |state| state.alive == 1).await;
    (script, line)
}

#[tokio::test]
async fn polls_follow_each_other_on_one_socket() {
    let script = Script::new([ack()]);
    let mut line = line(&script, 64 * 1024);
    line.send(&request("", "Api-Key: k\r\n")).await;
    let first = line.until(r#""lastEventId":"e-0"}"#).await;
    assert!(
        first.starts_with("HTTP/1.1 200 OK\r\n")
            && first.contains("\r\ndate: ")
            && first.contains("\r\ncontent-length: ")
    );
    script.play([event(1)]);
    line.send(&request("?lastEventId=e-0", "")).await;
    line.until(r#""lastEventId":"e-1"}"#).await;
    line.send(&request("?timeout=0", "Connection: close\r\n")).await;
    let last = line.until("\r\n\r\n").await;
    assert!(last.starts_with("HTTP/1.1 204 No Content\r\n") && last.contains("\r\nconnection: close\r\n"), "{last}");
    assert!(!last.contains("content-length"), "RFC 9110 § 8.6: {last}");
    line.peer.shutdown().await.unwrap();
    line.is_over().await;
    assert_eq!(script.look(|state| (state.admitted, state.alive)), (3, 0));
}

#[tokio::test]
async fn a_poll_that_goes_on_where_the_last_one_ended_asks_the_gate_nothing() {
    let script = Script::new([ack(), event(1), event(2), event(3)]);
    script.change(|state| state.tickets = true);
    let mut line = line(&script, 64 * 1024);
    let poll = |cursor: &str| request("?max=1", &format!("Api-Key: k\r\nLast-Event-ID: {cursor}\r\n"));
    let asked = || script.look(|state| (state.admitted, state.resumed));
    line.send(&poll("latest")).await;
    line.until(r#""lastEventId":"e-0"}"#).await;
    assert_eq!(asked(), (1, 0));
    line.send(&poll("e-0")).await;
    line.until(r#""lastEventId":"e-1"}"#).await;
    assert_eq!(asked(), (1, 1));
    // It has not read the answer, or does not believe it.
    line.send(&poll("e-0")).await;
    line.until(r#""lastEventId":"e-2"}"#).await;
    assert_eq!(asked(), (2, 1));
    script.change(|state| state.tickets = false);
    line.send(&poll("e-2")).await;
    line.until(r#""lastEventId":"e-3"}"#).await;
    assert_eq!(asked(), (3, 1), "something has happened to the connection");
    assert_eq!(script.look(|state| state.alive), 0);
}

#[tokio::test]
async fn a_request_that_comes_early_is_answered_in_turn() {
    let (script, mut line) = parked().await;
    line.send(&request("?timeout=0", "")).await;
    tokio::task::yield_now().await;
    script.play([event(1)]);
    line.until(r#""lastEventId":"e-1"}"#).await;
    assert!(line.until("\r\n\r\n").await.starts_with("HTTP/1.1 204 "));
}

#[tokio::test]
async fn what_is_no_poll_goes_to_hyper_unread_and_so_does_what_follows_it() {
    for before in [0, 1] {
        let script = Script::new([ack()]);
        let mut line = line(&script, 64 * 1024);
        for _ in 0..before {
            line.send(&request("", "")).await;
            line.until(r#""lastEventId":"e-0"}"#).await;
        }
        let rest = format!("GET /health HTTP/1.1\r\nHost: x\r\n\r\n{}", request("", ""));
        line.send(&rest).await;
        line.is_for_hyper(&rest).await;
    }
}

#[tokio::test]
async fn on_real_sockets_a_poll_may_be_followed_by_anything() {
    let (_script, server) = stage::<PollClient>([ack()], Timing::default()).await;
    let mut raw = Raw::connect(server.addr).await;
    raw.request("GET", PollClient::PATH, "").await;
    let head = raw.head().await;
    assert_eq!((head.status, events(&raw.body(&head).await).len()), (200, 1));
    for (method, status) in [("POST", 405), ("GET", 204)] {
        raw.request(method, &format!("{}?timeout=0", PollClient::PATH), "").await;
        let head = raw.head().await;
        let _ = raw.body(&head).await;
        assert_eq!(head.status, status, "{method}");
    }
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_read() {
    let script = Script::new([ack()]);
    let mut line = line(&script, 1);
    line.send(&request("", "Api-Key: k\r\n")).await;
    line.until(r#""lastEventId":"e-0"}"#).await;
}

#[tokio::test]
async fn a_peer_that_goes_ends_its_poll() {
    let (script, mut line) = parked().await;
    line.peer.shutdown().await.unwrap();
    line.is_over().await;
    assert_eq!(script.look(|state| (state.alive, state.ended.len())), (0, 0), "the lease lives on");
}

#[tokio::test]
async fn what_comes_early_and_is_much_waits_until_the_poll_is_answered() {
    let (script, mut line) = parked().await;
    let rest = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n{}", "x".repeat(50_000));
    line.send(&rest).await;
    tokio::task::yield_now().await;
    script.play([event(1)]);
    line.until(r#""lastEventId":"e-1"}"#).await;
    line.is_for_hyper(&rest).await;
}

#[tokio::test(start_paused = true)]
async fn a_head_has_30_seconds() {
    for begun in ["", "GET /api/internal/v1/poll/gateways/connect HT"] {
        let script = Script::new([]);
        let mut line = line(&script, 64 * 1024);
        line.send(begun).await;
        let since = Instant::now();
        line.is_over().await;
        assert_eq!(since.elapsed(), Duration::from_secs(30), "{begun}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_idle_sockets_at_once_and_others_after_their_answer() {
    let script = Script::new([]);
    let mut idle = line(&script, 64 * 1024);
    idle.drain.cancel();
    idle.is_over().await;
    let mut busy = line(&script, 64 * 1024);
    busy.send(&request("?timeout=20", "")).await;
    script.until("the poll waits", |state| state.alive == 1).await;
    busy.drain.cancel();
    assert!(busy.until("\r\n\r\n").await.contains("\r\nconnection: close\r\n"));
    busy.is_over().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_reads_is_dropped_with_its_socket() {
    let script = Script::new([event(1)]);
    let mut line = line(&script, 16);
    // The pipe takes the request only as it is read, and then nothing of the answer is.
    line.send(&request("", "")).await;
    line.is_over().await;
    assert!(line.sever.is_severed());
    assert_eq!(script.look(|state| (state.alive, state.ended.len())), (0, 0), "the lease lives on");
}

#[tokio::test(start_paused = true)]
async fn what_is_there_waits_for_what_takes_long_to_read_for_a_second() {
    let script = Script::new([event(1), Act::Read]);
    let mut line = line(&script, 64 * 1024);
    let since = Instant::now();
    line.send(&request("?timeout=60", "")).await;
    assert!(line.until(r#""lastEventId":"e-1"}"#).await.contains(r#"{"n":1}"#));
    assert_eq!(since.elapsed(), Duration::from_secs(1));
}
