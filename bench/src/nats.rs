//! NATS's client protocol over its WebSocket, as little as a subscriber and a publisher need.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::Result;
use crate::http::{Address, Http, Place, Socket, find, request};
use crate::peer::{UPGRADE, frame};

/// A connection to a NATS server.
pub(crate) struct Nats {
    socket: Box<dyn Socket>,
    /// What was read, in WebSocket frames, and what was in them; the first is taken off when it was looked at.
    framed: Vec<u8>,
    text: Vec<u8>,
    at: usize,
}

impl Nats {
    /// Connects, and is known to the server once this is done.
    pub(crate) async fn connect(to: &Address, place: Place) -> Result<Self> {
        let mut http = Http::over(to.dial(place).await?);
        let answer = http.call(&request("GET", "/", UPGRADE, "")).await?;
        if answer.status != 101 {
            return Err(format!("NATS: status {}", answer.status).into());
        }
        let (socket, framed) = http.into_parts();
        let mut nats = Self { socket, framed, text: Vec::new(), at: 0 };
        nats.say("CONNECT {\"verbose\":false,\"pedantic\":false}\r\n").await?;
        nats.settle().await?;
        Ok(nats)
    }

    /// Sends some lines.
    pub(crate) async fn say(&mut self, lines: &str) -> Result<()> {
        // Binary, final, masked with zeros: RFC 6455 § 5.2.
        let mut framed = vec![0x82];
        match u8::try_from(lines.len()) {
            Ok(len @ 0..=125) => framed.push(0x80 | len),
            _ => {
                framed.push(0x80 | 126);
                framed.extend(u16::try_from(lines.len())?.to_be_bytes());
            }
        }
        framed.extend([0; 4]);
        framed.extend(lines.as_bytes());
        Ok(self.socket.write_all(&framed).await?)
    }

    /// Waits until the server has done all that it was told.
    pub(crate) async fn settle(&mut self) -> Result<()> {
        self.say("PING\r\n").await?;
        while self.op().await?.is_some() {}
        Ok(())
    }

    /// The next message.
    pub(crate) async fn message(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some(message) = self.op().await? {
                return Ok(message);
            }
        }
    }

    /// The next message, or none if it was a PONG.
    async fn op(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let Some(end) = find(rest, b"\r\n") else {
                self.read().await?;
                continue;
            };
            let line = std::str::from_utf8(rest.get(..end).unwrap_or_default())?;
            let next = self.at + end + 2;
            if line.starts_with("MSG ") || line.starts_with("HMSG ") {
                let len: usize = line.rsplit(' ').next().unwrap_or_default().parse()?;
                let Some(message) = self.text.get(next..next + len) else {
                    self.read().await?;
                    continue;
                };
                let message = message.to_vec();
                // The line end behind it is read as an empty line.
                self.at = next + len;
                return Ok(Some(message));
            }
            let (is_pong, is_ping) = (line == "PONG", line == "PING");
            if line.starts_with("-ERR") {
                return Err(format!("NATS: {line}").into());
            }
            self.at = next;
            if is_pong {
                return Ok(None);
            }
            if is_ping {
                self.say("PONG\r\n").await?;
            }
        }
    }

    async fn read(&mut self) -> Result<()> {
        // Only when all before was used up, so what is moved is the little of an unfinished message.
        self.text.drain(..self.at);
        self.at = 0;
        if self.socket.read_buf(&mut self.framed).await? == 0 {
            return Err("NATS ended the connection".into());
        }
        let mut at = 0;
        while let Some((_, payload, length)) = self.framed.get(at..).and_then(frame) {
            self.text.extend_from_slice(payload);
            at += length;
        }
        self.framed.drain(..at);
        Ok(())
    }
}
