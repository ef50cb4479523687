//! One view of the three transports' streams.

use std::net::SocketAddr;

use async_trait::async_trait;
use tokio_util::task::TaskTracker;

use super::raw::{Head, Raw};
use crate::close::Ending;
use crate::timing::Timing;
use crate::transport::Transport;

/// What a client got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Got {
    /// A message.
    Message(String),
    /// A ping with its payload (none over SSE).
    Ping(Vec<u8>),
    /// The end, with a close code if the transport has such.
    End(Option<u16>),
}

/// A raw client of a transport.
#[async_trait]
pub trait Client: Sized + Send {
    /// The transport that it talks to.
    fn transport(timing: Timing, tasks: TaskTracker) -> Box<dyn Transport>;

    /// Whether a connection is one long stream, whose writes move the session's position; else it is many replies.
    const STREAMS: bool = true;

    /// The path that it asks for.
    const PATH: &'static str;

    /// Headers that make its request a handshake, each with CR LF.
    const HEADERS: &'static str;

    /// Connects, or gives the refusal.
    async fn connect(addr: SocketAddr) -> Result<Self, (Head, Vec<u8>)>;

    /// The next thing; a poll that answers 204 is an end.
    async fn next(&mut self) -> Got;

    /// What this client gets when a connection ends: the last message, and the close code.
    fn told(ending: &Ending) -> (Option<String>, Option<u16>);

    /// Asks and never reads.
    async fn connect_and_ignore(addr: SocketAddr) -> Raw {
        let mut raw = Raw::connect(addr).await;
        raw.request("GET", Self::PATH, Self::HEADERS).await;
        raw
    }
}
