//! A proxy with one fault: plain HTTP to its client, TLS to the server. One request a connection.

use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, sleep_until};

use crate::wire::{Tls, tls};

const PING: u8 = 9;
const PONG: u8 = 10;

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing; each request takes so much longer.
    Slow(Duration),
    /// A header of requests is taken away.
    Strips(&'static str),
    /// Requests whose head contains the first are answered with the second.
    Answers(&'static str, &'static str),
    /// Event streams are gathered for so long.
    Gathers(Duration),
    /// Event streams are gathered after their first message.
    GathersTheRest,
    /// What is silent for so long is cut.
    CutsIdle(Duration),
    /// What is so old is cut.
    CutsOld(Duration),
    /// A server that does not answer within this is answered for.
    TimesOut(Duration),
    /// The server's pings do not pass.
    DropsPings,
    /// The server's pings and pongs do not pass.
    DropsControlFrames,
    /// The client's pongs do not pass.
    DropsPongs,
    /// Messages are changed.
    Alters,
    /// The answers' `Date` is replaced.
    Dates(&'static str),
    /// Says that the stream is compressed.
    Compresses,
}

/// Starts one in front of a server.
pub(crate) async fn start(server: SocketAddr, fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(serve(client, server, fault));
        }
    });
    address
}

async fn serve(mut client: TcpStream, server: SocketAddr, fault: Fault) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    match fault {
        Fault::Slow(by) => sleep(by).await,
        Fault::Answers(part, answer) if head.to_ascii_lowercase().contains(part) => {
            let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            client.write_all(answer.as_bytes()).await.ok()?;
            return client.shutdown().await.ok();
        }
        _ => {}
    }
    let mut backend = tls(server, &[b"http/1.1"]).await.ok()?;
    backend.write_all(passed_on(&head, fault).as_bytes()).await.ok()?;
    Passing { fault, begun: Instant::now(), answer: Vec::new(), is_headed: false, held: Vec::new(), up: Vec::new() }
        .pump(client, backend)
        .await
}

/// The head as the server sees it.
fn passed_on(head: &str, fault: Fault) -> String {
    let named = |line: &str, name: &str| line.split(':').next().is_some_and(|n| n.eq_ignore_ascii_case(name));
    let stripped = if let Fault::Strips(name) = fault { name } else { "" };
    let lines = head.trim_end().split("\r\n").filter(|line| !named(line, stripped));
    let upgrades = head.to_ascii_lowercase().contains("upgrade: websocket") && stripped != "upgrade";
    let mut lines: Vec<_> = lines.filter(|line| upgrades || !named(line, "connection")).collect();
    if !upgrades {
        lines.push("Connection: close");
    }
    format!("{}\r\n\r\n", lines.join("\r\n"))
}

struct Passing {
    fault: Fault,
    begun: Instant,
    /// The head of the answer, as far as it has come.
    answer: Vec<u8>,
    is_headed: bool,
    /// What waits to go down.
    held: Vec<u8>,
    /// What waits to go up: half a frame.
    up: Vec<u8>,
}

impl Passing {
    async fn pump(mut self, mut client: TcpStream, mut server: Tls) -> Option<()> {
        let mut heard = Instant::now();
        let (mut from_client, mut from_server) = ([0; 4096], [0; 4096]);
        loop {
            let deadline = self.deadline(heard);
            tokio::select! {
                biased;
                () = async { match deadline { Some(at) => sleep_until(at).await, None => pending().await } } => {
                    if let Fault::TimesOut(_) = self.fault {
                        client.write_all(b"HTTP/1.1 504 Gateway Timeout\r\nServer: faulty/1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await.ok()?;
                    }
                    if !matches!(self.fault, Fault::Gathers(_)) {
                        return client.shutdown().await.ok();
                    }
                    client.write_all(&std::mem::take(&mut self.held)).await.ok()?;
                }
                read = server.read(&mut from_server) => {
                    let read = read.ok()?;
                    heard = Instant::now();
                    let down = self.down(&from_server[..read]);
                    client.write_all(&down).await.ok()?;
                    if read == 0 {
                        return client.shutdown().await.ok();
                    }
                }
                read = client.read(&mut from_client) => {
                    let read = read.ok().filter(|read| *read > 0)?;
                    heard = Instant::now();
                    let up = self.up(&from_client[..read]);
                    server.write_all(&up).await.ok()?;
                }
            }
        }
    }

    fn deadline(&self, heard: Instant) -> Option<Instant> {
        match self.fault {
            Fault::CutsIdle(limit) => Some(heard + limit),
            Fault::CutsOld(limit) => Some(self.begun + limit),
            Fault::TimesOut(limit) if self.answer.is_empty() => Some(self.begun + limit),
            Fault::Gathers(time) if !self.held.is_empty() => Some(self.begun + time),
            _ => None,
        }
    }

    fn up(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.fault != Fault::DropsPongs {
            return bytes.to_vec();
        }
        self.up.extend_from_slice(bytes);
        without(&mut self.up, &[PONG])
    }

    /// What goes to the client of what the server wrote.
    fn down(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.is_headed {
            return self.body(bytes);
        }
        self.answer.extend_from_slice(bytes);
        let Some(end) = self.answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Vec::new() };
        let rest = self.answer.split_off(end + 4);
        self.is_headed = true;
        let head = self.head().into_bytes();
        if let Fault::Gathers(_) = self.fault {
            // With the head, as those do that gather.
            self.held = head;
            return self.body(&rest);
        }
        [head, self.body(&rest)].concat()
    }

    fn head(&self) -> String {
        let head = String::from_utf8(self.answer.clone()).unwrap();
        let lines = head.trim_end().split("\r\n").map(|line| match self.fault {
            Fault::Dates(date) if line.to_ascii_lowercase().starts_with("date:") => format!("Date: {date}"),
            _ => line.to_owned(),
        });
        let mut lines: Vec<_> = lines.collect();
        if self.fault == Fault::Compresses && self.is_stream() {
            lines.push("Content-Encoding: gzip".to_owned());
        }
        format!("{}\r\n\r\n", lines.join("\r\n"))
    }

    fn is_stream(&self) -> bool {
        String::from_utf8_lossy(&self.answer).contains("text/event-stream")
    }

    fn body(&mut self, bytes: &[u8]) -> Vec<u8> {
        let is_upgraded = self.answer.starts_with(b"HTTP/1.1 101");
        let is_stream = self.is_stream();
        self.held.extend_from_slice(bytes);
        match self.fault {
            Fault::DropsPings if is_upgraded => return without(&mut self.held, &[PING]),
            Fault::DropsControlFrames if is_upgraded => return without(&mut self.held, &[PING, PONG]),
            Fault::Gathers(time) if is_stream && self.begun.elapsed() < time => return Vec::new(),
            Fault::GathersTheRest if is_stream && self.begun.elapsed() > Duration::from_secs(1) => return Vec::new(),
            _ => {}
        }
        let mut body = std::mem::take(&mut self.held);
        if self.fault == Fault::Alters
            && let Some(at) = body.windows(7).position(|seven| seven == b"{\"type\"")
        {
            body[at] = b'<';
        }
        body
    }
}

/// Whole frames out of `bytes`, without those of these kinds.
fn without(bytes: &mut Vec<u8>, kinds: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(length) = frame(bytes).filter(|length| *length <= bytes.len()) {
        let frame: Vec<_> = bytes.drain(..length).collect();
        if !kinds.contains(&(frame[0] & 0x0f)) {
            out.extend(frame);
        }
    }
    out
}

/// The length of the frame that begins here.
fn frame(bytes: &[u8]) -> Option<usize> {
    let second = *bytes.get(1)?;
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    Some(match second & 0x7f {
        126 => 4 + mask + usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])),
        127 => panic!("no test sends so much"),
        short => 2 + mask + usize::from(short),
    })
}
