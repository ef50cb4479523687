//! An SSE client that knows bytes.

use std::net::SocketAddr;

use async_trait::async_trait;
use tokio_util::task::TaskTracker;

use super::client::{Client, Got};
use super::raw::{Head, Raw};
use crate::close::Ending;
use crate::sse::Sse;
use crate::timing::Timing;
use crate::transport::Transport;

/// An SSE client.
#[derive(Debug)]
pub struct SseClient {
    /// The socket.
    pub raw: Raw,
    /// The head of the answer.
    pub head: Head,
    text: String,
}

impl SseClient {
    /// The next block of lines, without the blank line; `None` at the end of the body.
    pub async fn block(&mut self) -> Option<String> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.text.get(searched..).and_then(|text| text.find("\n\n")) {
                let block = self.text.drain(..searched + at + 2).collect::<String>();
                return Some(block.trim_end().to_owned());
            }
            // A line feed may be there already; it is one byte, so this is a boundary.
            searched = self.text.len() - usize::from(self.text.ends_with('\n'));
            self.text.push_str(&String::from_utf8(self.raw.chunk().await?).unwrap());
        }
    }
}

#[async_trait]
impl Client for SseClient {
    const PATH: &'static str = "/api/internal/v1/sse/gateways/connect";
    const HEADERS: &'static str = "Accept: text/event-stream\r\nConnection: close\r\n";

    fn transport(timing: Timing, tasks: TaskTracker) -> Box<dyn Transport> {
        Box::new(Sse::new(timing, tasks))
    }

    async fn connect(addr: SocketAddr) -> Result<Self, (Head, Vec<u8>)> {
        let mut raw = Self::connect_and_ignore(addr).await;
        let head = raw.head().await;
        if head.status != 200 {
            let body = raw.body(&head).await;
            return Err((head, body));
        }
        Ok(Self { raw, head, text: String::new() })
    }

    async fn next(&mut self) -> Got {
        loop {
            let Some(block) = self.block().await else { return Got::End(None) };
            if block == ":" {
                return Got::Ping(Vec::new());
            }
            let data = block.lines().find_map(|line| line.strip_prefix("data: "));
            if let Some(data) = data {
                return Got::Message(data.to_owned());
            }
            assert!(block.starts_with("retry: ") || block.starts_with("id: "), "unexpected {block:?}");
        }
    }

    fn told(ending: &Ending) -> (Option<String>, Option<u16>) {
        (ending.last.as_ref().map(|frame| frame.text().to_string()), None)
    }
}
