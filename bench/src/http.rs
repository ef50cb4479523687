//! HTTP/1.1 with keep-alive, as little as a publisher needs.

use std::net::Ipv4Addr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

use crate::Result;

/// Either kind of socket.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Socket for S {}

/// Where a server is and how it is spoken to.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) at: String,
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

impl Address {
    pub(crate) async fn dial(&self, from: Place) -> Result<Box<dyn Socket>> {
        let socket = TcpSocket::new_v4()?;
        // From many addresses: one has some 28,000 ports, of which those that were closed lately are taken for a minute.
        // None is the server's, or who dials before it listens may reach itself.
        let address = Ipv4Addr::new(127, 0, 0, u8::try_from(2 + from.number % ADDRESSES)?);
        socket.bind((address, 0).into())?;
        if from.receives_little {
            socket.set_recv_buffer_size(4_096)?;
        }
        let stream = socket.connect(self.at.parse()?).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        // A name for each, so that each has a session of its own to resume, as gateways do. Whose certificate it is nobody asks.
        let name = ServerName::try_from(format!("g{}.localhost", from.number))?;
        Ok(Box::new(TlsConnector::from(tls.clone()).connect(name, stream).await?))
    }
}

/// Who dials.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Place {
    /// The how many-th of its kind.
    pub(crate) number: usize,
    /// Whether its kernel is to hold little of what it does not read.
    pub(crate) receives_little: bool,
}

/// An answer: its head as it came, and its body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The value of a header, whose name is given in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// A connection that carries one request after the other.
pub(crate) struct Http {
    socket: Box<dyn Socket>,
    buffer: Vec<u8>,
}

impl Http {
    pub(crate) async fn connect(to: &Address) -> Result<Self> {
        Ok(Self::over(to.dial(Place::default()).await?))
    }

    /// A connection over a socket that was dialled.
    pub(crate) fn over(socket: Box<dyn Socket>) -> Self {
        Self { socket, buffer: Vec::new() }
    }

    /// Sends a request, which is given whole, and reads its answer.
    pub(crate) async fn call(&mut self, request: &[u8]) -> Result<Answer> {
        self.socket.write_all(request).await?;
        self.answer().await
    }

    /// Reads an answer of declared length.
    pub(crate) async fn answer(&mut self) -> Result<Answer> {
        let head = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let rest = self.buffer.split_off(end + 4);
                break String::from_utf8(std::mem::replace(&mut self.buffer, rest))?;
            }
            self.read().await?;
        };
        let status = head.split(' ').nth(1).ok_or("no status")?.parse()?;
        let mut answer = Answer { status, head, body: Vec::new() };
        let length = answer.header("content-length").map_or(Ok(0), str::parse)?;
        while self.buffer.len() < length {
            self.read().await?;
        }
        let rest = self.buffer.split_off(length);
        answer.body = std::mem::replace(&mut self.buffer, rest);
        Ok(answer)
    }

    /// The socket and what was read of it beyond the last answer.
    pub(crate) fn into_parts(self) -> (Box<dyn Socket>, Vec<u8>) {
        (self.socket, self.buffer)
    }

    async fn read(&mut self) -> Result<()> {
        read(&mut self.socket, &mut self.buffer).await
    }
}

/// Reads what is there, with room for some. A `Vec` alone would have room for 64 bytes at first, and the generator four reads
/// for an answer.
pub(crate) async fn read(socket: &mut Box<dyn Socket>, buffer: &mut Vec<u8>) -> Result<()> {
    buffer.reserve(READ_BYTES);
    match socket.read_buf(buffer).await? {
        0 => Err("the server ended the connection".into()),
        _ => Ok(()),
    }
}

/// A request with a JSON body, or none.
pub(crate) fn request(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let kind = if body.is_empty() { "" } else { "content-type: application/json\r\n" };
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{headers}{kind}content-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// Where a pattern first stands.
pub(crate) fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}

/// What a read has room for at least; a page of it that nothing comes to is never touched.
const READ_BYTES: usize = 32 * 1024;
/// Loopback addresses to dial from.
const ADDRESSES: usize = 100;
