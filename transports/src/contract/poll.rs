//! A long-poll client that knows bytes.

use std::collections::VecDeque;
use std::net::SocketAddr;

use async_trait::async_trait;
use serde_json::value::RawValue;
use tokio_util::task::TaskTracker;

use super::client::{Client, Got};
use super::raw::{Head, Raw};
use crate::close::Ending;
use crate::long_poll::LongPoll;
use crate::timing::Timing;
use crate::transport::Transport;

/// A long-poll client: polls again whenever it has read all that it got.
#[derive(Debug)]
pub struct PollClient {
    addr: SocketAddr,
    events: VecDeque<String>,
}

/// Polls once.
pub async fn poll(addr: SocketAddr, query: &str) -> (Head, Vec<u8>) {
    let mut raw = Raw::connect(addr).await;
    raw.request("GET", &format!("{}?{query}", PollClient::PATH), PollClient::HEADERS).await;
    let head = raw.head().await;
    let body = raw.body(&head).await;
    (head, body)
}

/// The events of a reply, byte by byte.
#[must_use]
pub fn events(body: &[u8]) -> VecDeque<String> {
    let text = std::str::from_utf8(body).unwrap();
    serde_json::from_str::<&RawValue>(text).expect("a reply is JSON");
    let start = text.find(r#""events":["#).unwrap() + r#""events":"#.len();
    let end = text.rfind(r#","lastEventId":"#).unwrap();
    let events: Vec<&RawValue> = serde_json::from_str(text.get(start..end).unwrap()).unwrap();
    events.into_iter().map(|event| event.get().to_owned()).collect()
}

#[async_trait]
impl Client for PollClient {
    const STREAMS: bool = false;
    const PATH: &'static str = "/api/internal/v1/poll/gateways/connect";
    const HEADERS: &'static str = "Accept: application/json\r\nConnection: close\r\n";

    fn transport(timing: Timing, tasks: TaskTracker) -> Box<dyn Transport> {
        Box::new(LongPoll::new(timing, tasks))
    }

    async fn connect(addr: SocketAddr) -> Result<Self, (Head, Vec<u8>)> {
        match poll(addr, "").await {
            (head, body) if head.status == 200 => Ok(Self { addr, events: events(&body) }),
            refused => Err(refused),
        }
    }

    async fn next(&mut self) -> Got {
        if self.events.is_empty() {
            let (head, body) = poll(self.addr, "").await;
            if head.status == 204 {
                return Got::End(None);
            }
            self.events = events(&body);
        }
        Got::Message(self.events.pop_front().expect("a 200 holds an event"))
    }

    fn told(ending: &Ending) -> (Option<String>, Option<u16>) {
        (ending.last.as_ref().filter(|_| ending.spoken).map(|frame| frame.text().to_string()), None)
    }
}
