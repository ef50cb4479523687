//! Gateways: connect, are acknowledged, receive, answer pings with pongs. Each checks that its events come in order.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::Result;
use crate::http::{Address, Http, Place, Socket, find, read, request};
use crate::nats::Nats;
use crate::rival::{self, Rival};
use crate::tally::Tally;

/// How a peer connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    WebSocket,
    Sse,
    LongPoll,
    /// A WebSocket that reads nothing more once it is acknowledged, and whose socket takes little by itself.
    Stopped,
    /// To the floor: frames without a handshake.
    Bare,
    /// A WebSocket to another server.
    Rival(Rival),
    NchanSse,
    NchanLongPoll,
}

/// What a peer connects with: its key, and the cursor it resumes at; to another server, the channel.
#[derive(Debug, Clone)]
pub(crate) struct Pass {
    pub(crate) key: String,
    pub(crate) cursor: Option<String>,
}

/// Peers that are connected until dropped. To be used inside a `LocalSet`.
pub(crate) struct Peers {
    pub(crate) tally: Rc<Tally>,
    _tasks: JoinSet<()>,
}

impl Peers {
    /// Connects one peer for each pass, at most `at_once` at a time.
    pub(crate) fn connect(to: &Address, transport: Transport, passes: &[Pass], at_once: usize) -> Self {
        let tally = Tally::new();
        let turns = Rc::new(tokio::sync::Semaphore::new(at_once));
        let mut tasks = JoinSet::new();
        for (instance, pass) in passes.iter().enumerate() {
            let (to, pass, tally, turns) = (to.clone(), pass.clone(), tally.clone(), turns.clone());
            tasks.spawn_local(async move {
                let _ended: Result<()> = live(&to, transport, &pass, instance, &tally, &turns).await;
                tally.lost();
            });
        }
        Self { tally, _tasks: tasks }
    }
}

async fn live(
    to: &Address,
    transport: Transport,
    pass: &Pass,
    instance: usize,
    tally: &Tally,
    turns: &tokio::sync::Semaphore,
) -> Result<()> {
    let turn = turns.acquire().await?;
    let headers = format!("api-key: {}\r\ngateway-instance: {instance}\r\n", pass.key);
    let place = Place { number: instance, receives_little: transport == Transport::Stopped };
    let mut stream = Stream { tally, last: Cell::new(0) };
    if transport == Transport::Bare {
        let mut socket = to.dial(place).await?;
        socket.write_all(b".").await?;
        drop(turn);
        return stream.frames(socket, Vec::new()).await;
    }
    if let Transport::Rival(Rival::Nats | Rival::JetStream) = transport {
        let mut nats = Nats::connect(to, place).await?;
        rival::subscribe(&mut nats, transport == Transport::Rival(Rival::JetStream), &pass.key, instance).await?;
        drop(turn);
        if transport == Transport::Rival(Rival::Nats) {
            tally.acknowledged();
        }
        return stream.messages(nats).await;
    }
    let resuming = pass.cursor.as_ref().map_or(String::new(), |cursor| format!("last-event-id: {cursor}\r\n"));
    let mut http = Http::over(to.dial(place).await?);
    match transport {
        Transport::WebSocket | Transport::Stopped => {
            let headers = format!("{headers}{resuming}{UPGRADE}");
            let answer = http.call(&request("GET", "/api/internal/v1/ws/gateways/connect", &headers, "")).await?;
            drop(turn);
            expect(answer.status, 101)?;
            let (socket, read) = http.into_parts();
            if transport == Transport::Stopped {
                stream.stopped(socket, read).await
            } else {
                stream.frames(socket, read).await
            }
        }
        Transport::Rival(_) | Transport::NchanSse => {
            let (headers, status) =
                if transport == Transport::NchanSse { ("accept: text/event-stream\r\n", 200) } else { (UPGRADE, 101) };
            let answer = http.call(&request("GET", &format!("/sub/{}", pass.key), headers, "")).await?;
            drop(turn);
            expect(answer.status, status)?;
            tally.acknowledged();
            let (socket, read) = http.into_parts();
            if status == 101 { stream.frames(socket, read).await } else { stream.events(socket, read).await }
        }
        Transport::NchanLongPoll => {
            drop(turn);
            tally.acknowledged();
            poll_nchan(&mut http, &format!("/sub/{}", pass.key), &mut stream).await
        }
        Transport::Sse => {
            let answer =
                http.call(&request("GET", "/api/internal/v1/sse/gateways/connect", &(headers + &resuming), "")).await?;
            drop(turn);
            expect(answer.status, 200)?;
            let (socket, read) = http.into_parts();
            stream.events(socket, read).await
        }
        Transport::LongPoll | Transport::Bare => {
            drop(turn);
            poll(&mut http, &headers, pass.cursor.clone(), &mut stream).await
        }
    }
}

/// What one peer is sent.
struct Stream<'a> {
    tally: &'a Tally,
    /// The position of the event before; 0 if there was none, and for the floor, which counts none.
    last: Cell<u64>,
}

impl Stream<'_> {
    async fn frames(&mut self, mut socket: Box<dyn Socket>, mut buffer: Vec<u8>) -> Result<()> {
        loop {
            let mut at = 0;
            let mut events = 0;
            while let Some((opcode, payload, length)) = buffer.get(at..).and_then(frame) {
                match opcode {
                    TEXT => events += self.note(payload),
                    PING => {
                        let pong = [&[0x8a, 0x80 | u8::try_from(payload.len())?, 0, 0, 0, 0], payload].concat();
                        socket.write_all(&pong).await?;
                    }
                    _ => return Err("the server closed".into()),
                }
                at += length;
            }
            buffer.drain(..at);
            self.tally.received(events);
            read(&mut socket, &mut buffer).await?;
        }
    }

    async fn events(&mut self, mut socket: Box<dyn Socket>, mut buffer: Vec<u8>) -> Result<()> {
        loop {
            let mut at = 0;
            let mut events = 0;
            while let Some((text, length)) = buffer.get(at..).and_then(data) {
                events += self.note(text);
                at += length;
            }
            buffer.drain(..at);
            self.tally.received(events);
            read(&mut socket, &mut buffer).await?;
        }
    }

    async fn messages(&mut self, mut nats: Nats) -> Result<()> {
        loop {
            let message = nats.message().await?;
            if rival::is_answer(&message)? {
                self.tally.acknowledged();
            } else {
                self.tally.received(self.note(&message));
            }
        }
    }

    /// Counts a message if it is an event.
    fn note(&self, text: &[u8]) -> u64 {
        if text.starts_with(ACK) {
            self.tally.acknowledged();
        }
        let Some(id) = find(text.get(..text.len().min(EVENT_ID_WITHIN)).unwrap_or(text), EVENT_ID) else { return 0 };
        let id = text.get(id + EVENT_ID.len()..).unwrap_or_default();
        let seq = id.iter().skip(EPOCH_DIGITS + 1).take_while(|byte| byte.is_ascii_digit());
        let seq = seq.fold(0, |seq, digit| seq * 10 + u64::from(digit - b'0'));
        let last = self.last.replace(seq);
        if last != 0 && seq != last + 1 {
            self.tally.out_of_order();
        }
        self.tally.arrived(seq);
        1
    }

    /// Reads until it is acknowledged, and then no more.
    async fn stopped(&mut self, mut socket: Box<dyn Socket>, mut buffer: Vec<u8>) -> Result<()> {
        while find(&buffer, ACK).is_none() {
            read(&mut socket, &mut buffer).await?;
        }
        self.tally.acknowledged();
        std::future::pending().await
    }
}

async fn poll(http: &mut Http, headers: &str, mut cursor: Option<String>, stream: &mut Stream<'_>) -> Result<()> {
    let mut connection = String::new();
    loop {
        let last = cursor.as_ref().map_or(String::new(), |cursor| format!("last-event-id: {cursor}\r\n"));
        let path = format!("/api/internal/v1/poll/gateways/connect?timeout=60{connection}");
        let answer = http.call(&request("GET", &path, &format!("{headers}{last}"), "")).await?;
        if answer.status == 204 {
            cursor = answer.header("last-event-id").map(str::to_owned);
            continue;
        }
        expect(answer.status, 200)?;
        let reply: HashMap<&str, &RawValue> = serde_json::from_slice(&answer.body)?;
        let member = |name| reply.get(name).map(|value| value.get()).ok_or("a reply without its members");
        connection = format!("&connectionId={}", member("connectionId")?.trim_matches('"'));
        cursor = Some(member("lastEventId")?.trim_matches('"').to_owned());
        let events: Vec<&RawValue> = serde_json::from_str(member("events")?)?;
        stream.tally.received(events.iter().map(|event| stream.note(event.get().as_bytes())).sum());
    }
}

/// Whose position is told by two headers of the answer before.
async fn poll_nchan(http: &mut Http, path: &str, stream: &mut Stream<'_>) -> Result<()> {
    let mut position = String::new();
    loop {
        let answer = http.call(&request("GET", path, &position, "")).await?;
        expect(answer.status, 200)?;
        let header = |name| answer.header(name).ok_or("an answer without its position");
        position = format!("if-modified-since: {}\r\nif-none-match: {}\r\n", header("last-modified")?, header("etag")?);
        stream.tally.received(stream.note(&answer.body));
    }
}

fn expect(status: u16, expected: u16) -> Result<()> {
    if status == expected { Ok(()) } else { Err(format!("status {status}").into()) }
}

/// The first frame: opcode, payload, length; RFC 6455 § 5.2.
pub(crate) fn frame(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (&[first, len], _) = bytes.split_first_chunk::<2>()?;
    let (start, len) = match len {
        126 => (4, usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?)).ok()?),
        short => (2, usize::from(short)),
    };
    Some((first & 0x0f, bytes.get(start..start + len)?, start + len))
}

/// The first `data` line: its text, and where it ends. Chunk sizes never stand inside one: an event is one chunk's.
fn data(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let start = find(bytes, DATA)? + DATA.len();
    let line = bytes.get(start..)?;
    let end = line.iter().position(|byte| *byte == b'\n')?;
    Some((line.get(..end)?, start + end))
}

/// The headers of a WebSocket handshake, but for the path.
pub(crate) const UPGRADE: &str = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const ACK: &[u8] = br#"{"type":"connection.ack""#;
const EVENT_ID: &[u8] = br#""eventId":""#;
/// An event names its id right after its type.
const EVENT_ID_WITHIN: usize = 160;
const EPOCH_DIGITS: usize = 8;
const DATA: &[u8] = b"\ndata: ";
const TEXT: u8 = 1;
const PING: u8 = 9;

/// For a server to notice that peers are gone.
pub(crate) const SETTLE: Duration = Duration::from_secs(1);
