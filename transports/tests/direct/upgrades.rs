//! Upgrades.

use std::time::Duration;

use gatecast_transports::contract::client::Client;
use gatecast_transports::contract::script::{ACK, Act, Script, ack, frame};
use gatecast_transports::contract::ws::{WsClient, masked};
use gatecast_transports::{CloseReason, Timing};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep, timeout};

use crate::line::{Line, PATIENCE};

fn line(script: &Script) -> Line {
    Line::new::<WsClient>(script, 64 * 1024)
}

fn upgrade(more: &str) -> String {
    format!("GET {} HTTP/1.1\r\nHost: x\r\n{}{more}\r\n", WsClient::PATH, WsClient::HEADERS)
}

#[tokio::test]
async fn an_upgrade_is_answered_and_what_follows_its_head_is_heard() {
    let script = Script::new([ack()]);
    let mut line = line(&script);
    line.send(&[upgrade("").as_bytes(), &masked(0x81, b"early")].concat()).await;
    let answer = line.until(ACK).await;
    for part in [
        "HTTP/1.1 101 Switching Protocols\r\n",
        "\r\nconnection: Upgrade\r\n",
        "\r\nupgrade: websocket\r\n",
        "\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
        "\r\ndate: ",
    ] {
        assert!(answer.contains(part), "{part} in {answer}");
    }
    assert!(!answer.contains("content-length"), "RFC 9110 § 8.6: {answer}");
    line.is_over().await;
    script.until("the early message is heard", |state| state.heard.iter().any(|heard| heard.contains("early"))).await;
    script.play([Act::Deliver(vec![frame("e-1", "test", r#"{"n":1}"#)])]);
    line.until(br#"{"n":1}"#).await;
}

#[tokio::test]
async fn what_is_no_whole_upgrade_goes_to_hyper_unread() {
    let whole = upgrade("");
    let half = whole.get(..whole.len() / 2).unwrap();
    let poll = "GET /api/internal/v1/poll/gateways/connect HTTP/1.1\r\nHost: x\r\n\r\n";
    let plain = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", WsClient::PATH);
    let old = whole.replace("Version: 13", "Version: 8");
    let closes = upgrade("Connection: close\r\n");
    let twice = upgrade("Gateway-Instance: a\r\nGateway-Instance: b\r\n");
    for bytes in [half, poll, &plain, &old, &closes, &twice] {
        let script = Script::new([]);
        let mut line = line(&script);
        line.send(bytes.as_bytes()).await;
        line.is_for_hyper(bytes).await;
        assert_eq!(script.look(|state| state.admitted), 0, "{bytes}");
    }
}

#[tokio::test]
async fn a_refusal_is_answered_and_what_follows_goes_to_hyper() {
    let script = Script::new([]);
    script.change(|state| state.refuse = Some((503, ("retry-after", "7"), "full")));
    let mut line = line(&script);
    let next = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    line.send((upgrade("") + next).as_bytes()).await;
    let answer = line.until("\r\n\r\nfull").await;
    for part in ["HTTP/1.1 503 Service Unavailable\r\n", "\r\nretry-after: 7\r\n", "\r\ncontent-length: 4\r\n"] {
        assert!(answer.contains(part), "{part} in {answer}");
    }
    line.is_for_hyper(next).await;
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_gone_after_30_seconds_and_at_a_drain() {
    let script = Script::new([]);
    let mut silent = line(&script);
    let since = Instant::now();
    silent.is_over().await;
    assert_eq!(since.elapsed(), Duration::from_secs(30));
    let mut line = line(&script);
    line.drain.cancel();
    line.is_over().await;
    assert_eq!(since.elapsed(), Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_the_answer_is_dropped_and_no_connection_is_left() {
    let script = Script::new([ack()]);
    let ((asking, near), (_unread, narrow)) = (tokio::io::duplex(64 * 1024), tokio::io::duplex(16));
    let mut line = Line::over::<WsClient>(Box::new(tokio::io::join(near, narrow)), asking, &script);
    line.send(upgrade("").as_bytes()).await;
    line.is_over().await;
    line.tasks.close();
    timeout(PATIENCE, line.tasks.wait()).await.unwrap();
    assert_eq!(script.look(|state| (state.alive, state.ended.clone())), (0, vec![CloseReason::WriteStalled]));
    // What is written in part is thrown away with the socket.
    assert!(line.sever.is_severed());
}

/// A client that reads no answer cannot know what the last words are.
#[tokio::test]
async fn who_is_revoked_meanwhile_is_told_of_the_upgrade_before_the_end() {
    let script = Script::new([Act::Close(CloseReason::TokenRevoked)]);
    let mut line = line(&script);
    line.send(upgrade("").as_bytes()).await;
    let mut read = Vec::new();
    timeout(PATIENCE, line.peer.read_to_end(&mut read)).await.unwrap().unwrap();
    let head = read.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
    let (head, frames) = read.split_at(head);
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(head));
    assert!(frames[0] == 0x88 && frames.windows(2).any(|code| code == 1008_u16.to_be_bytes()), "{frames:?}");
}

#[tokio::test(start_paused = true)]
async fn who_is_revoked_and_reads_slowly_has_less_than_a_second_in_all() {
    let script = Script::new([ack()]);
    let mut line = Line::new::<WsClient>(&script, PIPE_BYTES);
    line.send(upgrade("").as_bytes()).await;
    line.until(ACK).await;
    // With its header it fills the pipe, so that the close frame has to wait.
    let text = "x".repeat(PIPE_BYTES - 4);
    script.play([Act::Deliver(vec![frame("e-1", "test", text.clone())])]);
    script.until("the event is written", |state| state.written == 2).await;
    let since = Instant::now();
    script.play([Act::Close(CloseReason::TokenRevoked)]);
    sleep(Duration::from_millis(400)).await;
    line.until(text).await;
    line.sever.severed().await;
    assert_eq!(since.elapsed(), Timing::default().close_answer);
    assert!(since.elapsed() < Duration::from_secs(1));
}

const PIPE_BYTES: usize = 4 * 1024;
