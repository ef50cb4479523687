//! A server that speaks just enough of the contract, one request after another.

use std::collections::HashMap;

use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::client::{ApiKey, BackoffBounds, Client, ClientConfig, Endpoint, Incoming, TransportChoice};
use std::time::Duration;

pub(super) struct Server {
    listener: TcpListener,
}

impl Server {
    pub(super) async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    /// A client of this server whose own waits are short.
    pub(super) fn client(&self, transport: TransportChoice, resume: Option<&str>) -> Client {
        let url = Endpoint::parse(&format!("http://{}", self.listener.local_addr().unwrap())).unwrap();
        let first = Duration::from_millis(2);
        Client::new(ClientConfig {
            transport,
            resume: resume.map(str::to_owned),
            instance: Some("replica-1".to_owned()),
            backoff: BackoffBounds { first, most: first * 4 },
            ..ClientConfig::new(url, ApiKey::parse("test-key").unwrap())
        })
        .unwrap()
    }

    /// The next request on a connection of its own.
    pub(super) async fn request(&self) -> Request {
        let (mut socket, _) = self.listener.accept().await.unwrap();
        // What is written is there at once, also where the clock is paused.
        socket.set_nodelay(true).unwrap();
        let (target, headers) = read_head(&mut socket).await.unwrap();
        Request { target, headers, socket }
    }
}

async fn read_head(socket: &mut TcpStream) -> Option<(String, HashMap<String, String>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.split("\r\n");
    let target = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    let headers =
        lines.filter_map(|line| line.split_once(": ")).map(|(n, v)| (n.to_lowercase(), v.to_owned())).collect();
    Some((target, headers))
}

pub(super) struct Request {
    pub(super) target: String,
    pub(super) headers: HashMap<String, String>,
    socket: TcpStream,
}

impl Request {
    pub(super) fn cursor(&self) -> Option<&str> {
        self.headers.get("last-event-id").map(String::as_str)
    }

    /// Answers once and closes.
    pub(super) async fn answer(mut self, status: &str, headers: &str, body: &str) {
        let length = body.len();
        let answer =
            format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}");
        self.socket.write_all(answer.as_bytes()).await.unwrap();
        self.socket.shutdown().await.ok();
        // Closing with unread bytes would reset the connection before the client reads the answer.
        let mut rest = Vec::new();
        self.socket.read_to_end(&mut rest).await.ok();
    }

    pub(super) async fn problem(self, status: u16, code: &str, headers: &str) {
        let headers = format!("content-type: application/problem+json\r\n{headers}");
        let body = format!(r#"{{"title":"t","status":{status},"detail":"because","code":"{code}"}}"#);
        self.answer(&format!("{status} x"), &headers, &body).await;
    }

    /// Answers a poll and waits for the next one on the same connection.
    pub(super) async fn reply(self, body: &str) -> Self {
        self.reply_in(&[body], Duration::ZERO).await
    }

    /// The same, as slowly as this.
    pub(super) async fn reply_by_bytes(self, body: &str, pace: Duration) -> Self {
        let bytes: Vec<_> = body.split("").collect();
        self.reply_in(&bytes, pace).await
    }

    async fn reply_in(mut self, pieces: &[&str], pace: Duration) -> Self {
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
        self.socket.write_all(head.as_bytes()).await.unwrap();
        for piece in pieces {
            tokio::time::sleep(pace).await;
            self.socket.write_all(piece.as_bytes()).await.unwrap();
        }
        let (target, headers) = read_head(&mut self.socket).await.unwrap();
        Self { target, headers, socket: self.socket }
    }

    pub(super) async fn websocket(mut self) -> Ws {
        let key = derive_accept_key(self.headers["sec-websocket-key"].as_bytes());
        let head = "HTTP/1.1 101 x\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: ";
        self.socket.write_all(format!("{head}{key}\r\n\r\n").as_bytes()).await.unwrap();
        Ws(WebSocketStream::from_raw_socket(self.socket, Role::Server, None).await)
    }

    /// Starts a stream; the socket is for its events.
    pub(super) async fn stream(mut self) -> TcpStream {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
        self.socket.write_all(head.as_bytes()).await.unwrap();
        self.socket
    }
}

pub(super) struct Ws(pub(super) WebSocketStream<TcpStream>);

impl Ws {
    pub(super) async fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    pub(super) async fn until_closed(mut self) {
        while let Some(Ok(_)) = self.0.next().await {}
    }
}

pub(super) fn ack(position: &str) -> String {
    let ids = r#""gatewayId":"g","connectionId":"c","timestamp":"t""#;
    format!(r#"{{"type":"connection.ack",{ids},"position":"{position}","resume":"live","transport":"x"}}"#)
}

pub(super) fn event(cursor: &str) -> String {
    format!(r#"{{"type":"api.deployed","eventId":"{cursor}","payload":{{}}}}"#)
}

pub(super) async fn connected(client: &mut Client) {
    let incoming = client.next().await;
    assert!(matches!(incoming, Incoming::Connected { .. }), "{incoming:?}");
}

pub(super) async fn event_of(client: &mut Client) -> String {
    match client.next().await {
        Incoming::Event { cursor, .. } => cursor,
        other => panic!("no event: {other:?}"),
    }
}

pub(super) async fn disconnected(client: &mut Client) -> (String, Duration) {
    match client.next().await {
        Incoming::Disconnected { reason, retry_in } => (reason, retry_in),
        other => panic!("still connected: {other:?}"),
    }
}
