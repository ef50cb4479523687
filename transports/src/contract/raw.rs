//! A socket with HTTP/1.1 spelled by hand.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;

/// A socket and what was read from it but not yet used.
#[derive(Debug)]
pub struct Raw {
    /// The socket.
    pub socket: TcpStream,
    /// Read and not yet used.
    pub buffer: Vec<u8>,
}

/// The head of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its status.
    pub status: u16,
    headers: Vec<(String, String)>,
}

impl Head {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Raw {
    /// Connects.
    pub async fn connect(addr: SocketAddr) -> Self {
        let socket = TcpStream::connect(addr).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self { socket, buffer: Vec::new() }
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: &[u8]) {
        timeout(PATIENCE, self.socket.write_all(bytes)).await.expect("the server takes bytes").unwrap();
    }

    /// Sends a request without a body; every line of `headers` ends with CR LF.
    pub async fn request(&mut self, method: &str, target: &str, headers: &str) {
        let text = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        self.send(text.as_bytes()).await;
    }

    /// Reads the head of an answer.
    pub async fn head(&mut self) -> Head {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.more().await, "the answer ends in its head: {:?}", String::from_utf8_lossy(&self.buffer));
        };
        let text = String::from_utf8(self.buffer.drain(..end).collect()).unwrap();
        let mut lines = text.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap().parse().unwrap();
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        Head { status, headers }
    }

    /// Reads `len` bytes; fewer at the end of the stream.
    pub async fn take(&mut self, len: usize) -> Vec<u8> {
        while self.buffer.len() < len && self.more().await {}
        let len = len.min(self.buffer.len());
        self.buffer.drain(..len).collect()
    }

    /// Reads a line and drops its end; `None` at the end of the stream.
    pub async fn line(&mut self) -> Option<String> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer.iter().skip(searched).position(|byte| *byte == b'\n') {
                let line = self.buffer.drain(..=searched + at).collect();
                return Some(String::from_utf8(line).unwrap().trim_end_matches(['\r', '\n']).to_owned());
            }
            searched = self.buffer.len();
            if !self.more().await {
                return None;
            }
        }
    }

    /// Reads one chunk of a chunked body; `None` for the last one, and at the end of the stream.
    pub async fn chunk(&mut self) -> Option<Vec<u8>> {
        let len = usize::from_str_radix(&self.line().await?, 16).unwrap();
        let chunk = self.take(len).await;
        self.take(2).await;
        if len == 0 || chunk.len() < len { None } else { Some(chunk) }
    }

    /// Reads the body that a head announces.
    pub async fn body(&mut self, head: &Head) -> Vec<u8> {
        let len = head.header("content-length").map_or(0, |len| len.parse().unwrap());
        self.take(len).await
    }

    /// Waits, without reading, until the server is in the middle of a large write.
    pub async fn until_written_to(&self) {
        let mut peeked = vec![0; MUCH];
        while timeout(PATIENCE, self.socket.peek(&mut peeked)).await.expect("the server writes").unwrap() < MUCH {
            tokio::task::yield_now().await;
        }
    }

    /// Reads until the server ends, by an end or by a reset. Gives the number of bytes.
    pub async fn drain(&mut self) -> usize {
        let mut total = self.buffer.len();
        self.buffer.clear();
        while self.more().await {
            total += self.buffer.len();
            self.buffer.clear();
        }
        total
    }

    /// Reads to the end of the stream; `false` if that is a reset.
    pub async fn ends_cleanly(&mut self) -> bool {
        loop {
            self.buffer.clear();
            match timeout(PATIENCE, self.socket.read_buf(&mut self.buffer)).await.expect("the server ends") {
                Ok(0) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }

    /// Reads something; `false` at the end of the stream.
    pub async fn more(&mut self) -> bool {
        self.buffer.reserve(64 * 1024);
        let read = timeout(PATIENCE, self.socket.read_buf(&mut self.buffer)).await.expect("the server says something");
        matches!(read, Ok(1..))
    }
}

/// Less than what a socket receives unread, more than any acknowledgement.
const MUCH: usize = 32 * 1024;
