//! Connections that are served without their tasks: these run only where a test awaits.

use std::time::Duration;

use gatecast_transports::CloseReason;
use gatecast_transports::contract::client::Client;
use gatecast_transports::contract::poll::PollClient;
use gatecast_transports::contract::script::{ACK, Act, Script, ack, frame};
use gatecast_transports::contract::ws::{WsClient, masked};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout};

use crate::line::{Line, PATIENCE};

/// A connection at rest, over a pipe of so many bytes once it is acknowledged.
async fn at_rest(script: &Script, pipe_bytes: usize) -> Line {
    let mut line = Line::new::<WsClient>(script, pipe_bytes);
    let upgrade = format!("GET {} HTTP/1.1\r\nHost: x\r\n{}\r\n", WsClient::PATH, WsClient::HEADERS);
    line.send(upgrade).await;
    line.until(ACK).await;
    script.until("the acknowledgement is written", |state| state.written == 1).await;
    // Its task has nothing left to do.
    tokio::task::yield_now().await;
    line
}

fn event(n: usize, bytes: usize) -> Act {
    Act::Deliver(vec![frame(&format!("e-{n}"), "test", format!("<{n}{}>", "x".repeat(bytes)))])
}

fn written(script: &Script) -> usize {
    script.look(|state| state.written)
}

#[tokio::test]
async fn what_is_due_is_written_on_the_spot_and_once() {
    let script = Script::new([ack()]);
    let mut line = at_rest(&script, 64 * 1024).await;
    assert!(script.serve(), "nothing is due");
    for n in 0..3 {
        for act in [event(n, 0), Act::Ping("p".into())] {
            script.play([act]);
            assert!(script.serve());
        }
        assert_eq!(written(&script), 3 + 2 * n, "its task has not run");
    }
    script.play([event(3, 0), event(4, 0)]);
    assert!(script.serve(), "a second step is its task's, which is woken");
    assert_eq!(written(&script), 8);
    let got = line.until("<4>").await;
    assert_eq!([0, 1, 2, 3, 4].map(|n| got.matches(&format!("<{n}>")).count()), [1; 5], "{got}");
}

#[tokio::test]
async fn what_its_socket_does_not_take_at_once_is_its_tasks() {
    let script = Script::new([ack()]);
    let mut line = at_rest(&script, 1024).await;
    script.play([event(0, 3_000), event(1, 0)]);
    for was_at_rest in [true, false, false] {
        assert_eq!(script.serve(), was_at_rest);
        assert_eq!(written(&script), 1);
    }
    let got = line.until("<1>").await;
    assert_eq!(got.matches('<').count(), 2, "{got}");
    script.until("all is written", |state| state.written == 3).await;
    tokio::task::yield_now().await;
    script.play([event(2, 0)]);
    assert!(script.serve(), "it is at rest again");
    line.until("<2>").await;
}

#[tokio::test(start_paused = true)]
async fn an_end_is_its_tasks_to_find_and_nothing_is_served_after_it() {
    let script = Script::new([ack()]);
    let mut line = at_rest(&script, 64 * 1024).await;
    // A peer that is dead by the clock has said something that nobody has read yet.
    line.send(masked(0x81, b"alive")).await;
    script.play([Act::Close(CloseReason::NoLife)]);
    assert!(script.serve());
    assert_eq!(script.look(|state| state.ended.len()), 0);
    script.until("it has ended", |state| state.ended == [CloseReason::NoLife]).await;
    assert_eq!(script.look(|state| state.heard.clone()), ["text alive"], "the peer is heard first");
    script.change(|state| state.acts.clear());
    script.play([event(0, 0)]);
    assert!(!script.serve());
    line.send(masked(0x88, &[0x0f, 0xa0])).await;
    let mut rest = Vec::new();
    timeout(Duration::from_secs(60), line.peer.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(!String::from_utf8_lossy(&rest).contains('<'), "{rest:?}");
}

#[tokio::test]
async fn what_waits_in_front_goes_first() {
    let script = Script::new([ack()]);
    let mut line = at_rest(&script, 1024).await;
    // Pongs that the pipe has no room for.
    for _ in 0..12 {
        line.send(masked(0x89, &[b'o'; 120])).await;
    }
    script.until("the pings are heard", |state| state.heard.len() == 12).await;
    script.play([event(0, 0)]);
    assert!(script.serve(), "a pong is on its way");
    assert_eq!(written(&script), 1);
    line.until("<0>").await;
}

fn poll(query: &str) -> String {
    format!("GET {}?timeout=60{query} HTTP/1.1\r\nHost: x\r\n\r\n", PollClient::PATH)
}

/// A poll that waits, over a pipe of so many bytes.
async fn parked(script: &Script, pipe_bytes: usize) -> Line {
    let mut line = Line::new::<PollClient>(script, pipe_bytes);
    line.send(poll("")).await;
    script.until("the poll waits", |state| state.alive == 1).await;
    tokio::task::yield_now().await;
    line
}

#[tokio::test]
async fn a_parked_poll_is_answered_on_the_spot_and_once() {
    let script = Script::new([]);
    let mut line = parked(&script, 64 * 1024).await;
    assert!(script.serve(), "nothing is due");
    for n in 0..3 {
        script.play([event(n, 0)]);
        assert!(script.serve());
        assert_eq!(script.look(|state| (state.written, state.alive)), (n + 1, 0), "its task has not run");
        script.play([event(9, 0)]);
        assert!(script.serve(), "between two polls there is nobody to tell");
        assert_eq!(written(&script), n + 1);
        script.change(|state| state.acts.clear());
        let answer = line.until(format!(r#""lastEventId":"e-{n}"}}"#)).await;
        assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 1, "{answer}");
        line.send(poll("")).await;
        script.until("the next poll waits", |state| state.alive == 1).await;
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_answer_that_its_socket_does_not_take_at_once_is_its_tasks() {
    let script = Script::new([]);
    let mut line = parked(&script, 1024).await;
    script.play([event(0, 3_000)]);
    for was_at_rest in [true, false, false] {
        assert_eq!(script.serve(), was_at_rest);
    }
    let answer = line.until(r#""lastEventId":"e-0"}"#).await;
    assert_eq!(answer.matches("<0").count(), 1, "{answer}");
    line.send(poll("")).await;
    script.until("the next poll waits", |state| state.alive == 1).await;
    tokio::task::yield_now().await;
    script.play([event(1, 0)]);
    assert!(script.serve(), "it is at rest again");
    line.until(r#""lastEventId":"e-1"}"#).await;
}

#[tokio::test]
async fn a_request_that_came_early_is_read_once_the_one_before_is_answered_on_the_spot() {
    let script = Script::new([]);
    let mut line = parked(&script, 64 * 1024).await;
    line.send(poll("&max=1")).await;
    tokio::task::yield_now().await;
    script.play([event(0, 0)]);
    assert!(script.serve(), "its task has something to do");
    assert_eq!(written(&script), 1);
    line.until(r#""lastEventId":"e-0"}"#).await;
    script.until("the early poll waits", |state| (state.admitted, state.alive) == (2, 1)).await;
    script.play([event(1, 0)]);
    line.until(r#""lastEventId":"e-1"}"#).await;
}

#[tokio::test]
async fn the_end_of_a_parked_polls_connection_is_its_tasks_to_tell() {
    let script = Script::new([]);
    let mut line = parked(&script, 64 * 1024).await;
    script.play([Act::Close(CloseReason::Shutdown { reconnect_after_ms: 1 })]);
    assert!(script.serve());
    assert_eq!(script.look(|state| state.ended.len()), 0);
    let answer = line.until(r#""lastEventId":"e-0"}"#).await;
    assert!(answer.contains("server.goodbye"), "{answer}");
    assert_eq!(script.look(|state| (state.ended.len(), state.alive)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_was_answered_on_the_spot_has_30_seconds_for_its_next_head() {
    let script = Script::new([]);
    let mut line = parked(&script, 64 * 1024).await;
    script.play([event(0, 0)]);
    assert!(script.serve());
    let since = tokio::time::Instant::now();
    line.is_over().await;
    assert_eq!(since.elapsed(), Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_closes_after_its_answer_is_closed_though_it_was_answered_on_the_spot() {
    let script = Script::new([]);
    let mut line = Line::new::<PollClient>(&script, 64 * 1024);
    line.send(poll("").replace("Host: x\r\n", "Host: x\r\nConnection: close\r\n")).await;
    script.until("the poll waits", |state| state.alive == 1).await;
    tokio::task::yield_now().await;
    script.play([event(0, 0)]);
    assert!(script.serve(), "the close is its task's");
    let mut answer = String::new();
    timeout(PATIENCE, line.peer.read_to_string(&mut answer)).await.expect("closed").unwrap();
    assert!(answer.contains("\r\nconnection: close\r\n") && answer.ends_with(r#""lastEventId":"e-0"}"#), "{answer}");
    let since = Instant::now();
    line.is_over().await;
    assert_eq!(since.elapsed(), Duration::from_secs(30), "who does not close has this to read it");
}
