//! What the transports have in common.

use std::time::Duration;

use async_trait::async_trait;

use super::trouble::Trouble;

/// One step of a connection.
#[derive(Debug)]
pub(super) enum Signal {
    /// A message.
    Message(String),
    /// The position moved without an event.
    Position(String),
    /// The server asked for a sign of life.
    Ping,
    /// It was given.
    PongSent,
    /// How long to wait, at least, once this connection is lost.
    Retry(Duration),
    /// It is over.
    Ended(Trouble),
}

/// An established connection of any transport.
#[async_trait]
pub(super) trait Connection: Send {
    /// The next step. Cancel safe; after [`Signal::Ended`] it is not called again.
    async fn next(&mut self) -> Signal;

    /// Ends it cleanly; whether the server confirmed, for transports that can.
    async fn close(&mut self) -> bool;
}
