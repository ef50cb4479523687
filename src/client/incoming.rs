//! What a client hears.

use std::time::Duration;

use super::message::{Ack, Reset};
use super::picker::Transport;

/// What [`super::Client::next`] answers.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Incoming {
    /// A connection stands and was acknowledged.
    Connected {
        /// The acknowledgement.
        ack: Ack,
        /// How events travel.
        transport: Transport,
    },
    /// An event. The client's cursor is at this event from now on.
    Event {
        /// `eventId`.
        cursor: String,
        /// `type`.
        event_type: String,
        /// The bytes as they came.
        raw: String,
    },
    /// Events are lost; the compacted state follows.
    Reset(Reset),
    /// The server is about to end the connection.
    Goodbye {
        /// This client's slot for coming back, counted from now.
        reconnect_after: Option<Duration>,
    },
    /// The server asked for a sign of life (WebSocket).
    Ping,
    /// The sign of life was written to the socket (WebSocket).
    PongSent,
    /// The server reports an error about this connection.
    Error {
        /// Its stable code.
        code: String,
        /// Its words.
        detail: String,
    },
    /// There is no connection now; the next call of `next` waits and tries again.
    Disconnected {
        /// Why.
        reason: String,
        /// How long the wait is.
        retry_in: Duration,
    },
    /// Trying again is pointless. `next` answers this from now on, at once.
    Fatal {
        /// The HTTP status, if the server refused with one.
        status: Option<u16>,
        /// The stable code.
        code: String,
        /// The server's words.
        detail: String,
    },
}

/// How [`super::Client::close`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The server confirmed, or the transport needs no confirmation.
    ByServer,
    /// The server did not confirm in time.
    Abandoned,
    /// There was no connection.
    NotOpen,
}
