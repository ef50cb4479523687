//! Upgrades on a socket that hyper has not seen, and the way from there to hyper.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

use std::sync::Arc;
use std::time::Duration;

use gatecast_transports::contract::client::Client;
use gatecast_transports::contract::script::{ACK, Act, Script, ack, frame};
use gatecast_transports::contract::ws::{WsClient, masked};
use gatecast_transports::{BoxSocket, CloseReason, ConnInfo, Newcomer, Rewound, Sever, Timing, Transport, WebSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// More than any deadline that is under test: in paused time it costs nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// Serves one socket; the task gives what is for hyper.
struct Line {
    peer: DuplexStream,
    served: JoinHandle<Option<Rewound>>,
    sever: Sever,
    drain: CancellationToken,
    /// The connections.
    tasks: TaskTracker,
}

impl Line {
    fn new(script: &Script) -> Self {
        let (peer, near) = tokio::io::duplex(64 * 1024);
        Self::over(Box::new(near), peer, script)
    }

    fn over(near: BoxSocket, peer: DuplexStream, script: &Script) -> Self {
        let (sever, drain) = (Sever::new(), CancellationToken::new());
        let tasks = TaskTracker::new();
        let transport = WebSocket::new(Timing::default(), tasks.clone());
        let direct = transport.direct(Arc::new(script.clone())).unwrap();
        let socket = Rewound::from(near);
        let info = Arc::new(ConnInfo::of(([127, 0, 0, 1], 1).into()));
        let newcomer = Newcomer { socket, info, sever: sever.clone(), drain: drain.clone() };
        Self { peer, served: tokio::spawn(async move { direct.serve(newcomer).await }), sever, drain, tasks }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.peer.write_all(bytes).await.unwrap();
    }

    /// Reads until what came ends so.
    async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        let mut read = Vec::new();
        let whole = async {
            while !read.ends_with(end) {
                assert!(self.peer.read_buf(&mut read).await.unwrap() > 0, "{}", String::from_utf8_lossy(&read));
            }
        };
        timeout(PATIENCE, whole).await.unwrap();
        read
    }

    async fn served(&mut self) -> Option<Rewound> {
        timeout(PATIENCE, &mut self.served).await.unwrap().unwrap()
    }

    /// Hyper gets these bytes and no others.
    async fn is_for_hyper(&mut self, bytes: &str) {
        let mut rewound = self.served().await.unwrap();
        let mut read = vec![0; bytes.len()];
        timeout(PATIENCE, rewound.read_exact(&mut read)).await.unwrap().unwrap();
        assert_eq!(String::from_utf8(read).unwrap(), bytes);
    }
}

fn upgrade(more: &str) -> String {
    format!("GET {} HTTP/1.1\r\nHost: x\r\n{}{more}\r\n", WsClient::PATH, WsClient::HEADERS)
}

#[tokio::test]
async fn an_upgrade_is_answered_and_what_follows_its_head_is_heard() {
    let script = Script::new([ack()]);
    let mut line = Line::new(&script);
    line.send(&[upgrade("").as_bytes(), &masked(0x81, b"early")].concat()).await;
    let answer = line.until(ACK.as_bytes()).await;
    let answer = String::from_utf8_lossy(&answer);
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
    assert!(line.served().await.is_none());
    script.until("the early message is heard", |state| state.heard.iter().any(|heard| heard.contains("early"))).await;
    script.play([Act::Deliver(vec![frame("e-1", "test", r#"{"n":1}"#)])]);
    line.until(br#"{"n":1}"#).await;
}

#[tokio::test]
async fn what_is_no_whole_upgrade_goes_to_hyper_unread() {
    let whole = upgrade("");
    let half = whole.get(..whole.len() / 2).unwrap();
    let poll = "GET /api/internal/v1/poll/gateways/connect HTTP/1.1\r\n\r\n";
    let plain = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", WsClient::PATH);
    let old = whole.replace("Version: 13", "Version: 8");
    let closes = upgrade("Connection: close\r\n");
    let twice = upgrade("Last-Event-ID: a\r\nLast-Event-ID: b\r\n");
    for bytes in [half, poll, &plain, &old, &closes, &twice] {
        let script = Script::new([]);
        let mut line = Line::new(&script);
        line.send(bytes.as_bytes()).await;
        line.is_for_hyper(bytes).await;
        assert_eq!(script.look(|state| state.admitted), 0, "{bytes}");
    }
}

#[tokio::test]
async fn a_refusal_is_answered_and_what_follows_goes_to_hyper() {
    let script = Script::new([]);
    script.change(|state| state.refuse = Some((503, ("retry-after", "7"), "full")));
    let mut line = Line::new(&script);
    let next = "GET /health HTTP/1.1\r\n\r\n";
    line.send((upgrade("") + next).as_bytes()).await;
    let answer = String::from_utf8(line.until(b"\r\n\r\nfull").await).unwrap();
    for part in ["HTTP/1.1 503 Service Unavailable\r\n", "\r\nretry-after: 7\r\n", "\r\ncontent-length: 4\r\n"] {
        assert!(answer.contains(part), "{part} in {answer}");
    }
    line.is_for_hyper(next).await;
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_gone_after_30_seconds_and_at_a_drain() {
    let script = Script::new([]);
    let mut line = Line::new(&script);
    let since = Instant::now();
    assert!(line.served().await.is_none());
    assert_eq!(since.elapsed(), Duration::from_secs(30));
    let mut line = Line::new(&script);
    line.drain.cancel();
    assert!(line.served().await.is_none());
    assert_eq!(since.elapsed(), Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_the_answer_is_dropped_and_no_connection_is_left() {
    let script = Script::new([ack()]);
    let ((asking, near), (_unread, narrow)) = (tokio::io::duplex(64 * 1024), tokio::io::duplex(16));
    let mut line = Line::over(Box::new(tokio::io::join(near, narrow)), asking, &script);
    line.send(upgrade("").as_bytes()).await;
    assert!(line.served().await.is_none());
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
    let mut line = Line::new(&script);
    line.send(upgrade("").as_bytes()).await;
    let mut read = Vec::new();
    timeout(PATIENCE, line.peer.read_to_end(&mut read)).await.unwrap().unwrap();
    let head = read.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
    let (head, frames) = read.split_at(head);
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(head));
    assert!(frames[0] == 0x88 && frames.windows(2).any(|code| code == 1008_u16.to_be_bytes()), "{frames:?}");
}
