//! What came from a WebSocket peer, or why nothing more will.

use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use crate::close::CloseReason;
use crate::transport::Heard;

/// Something from the peer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inbound {
    /// For the session.
    Heard(Said),
    /// The peer's close frame.
    Closed,
    /// The end, and whether the rest of the stream still parses as frames.
    Ended(CloseReason, Rest),
}

/// Owned form of [`Heard`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    Life,
    Pong(bytes::Bytes),
    Text(Utf8Bytes),
}

/// What to expect of the bytes after the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// Frames: a close frame can be waited for.
    Frames,
    /// Anything: only the end of the stream can be waited for.
    Garbage,
    /// There is none.
    Nothing,
}

impl Said {
    pub(super) fn as_heard(&self) -> Heard<'_> {
        match self {
            Self::Life => Heard::Life,
            Self::Pong(payload) => Heard::Pong(payload),
            Self::Text(text) => Heard::Text(text.as_str()),
        }
    }
}

impl From<Option<Result<Message, Error>>> for Inbound {
    fn from(read: Option<Result<Message, Error>>) -> Self {
        match read {
            Some(Ok(Message::Text(text))) => Self::Heard(Said::Text(text)),
            Some(Ok(Message::Pong(payload))) => Self::Heard(Said::Pong(payload)),
            Some(Ok(Message::Ping(_) | Message::Frame(_))) => Self::Heard(Said::Life),
            Some(Ok(Message::Binary(_))) => Self::Ended(CloseReason::NotText, Rest::Frames),
            Some(Ok(Message::Close(_))) => Self::Closed,
            Some(Err(error)) => failed(&error),
            None => Self::Ended(CloseReason::SocketBroken, Rest::Nothing),
        }
    }
}

fn failed(error: &Error) -> Inbound {
    let reason = match error {
        Error::Capacity(_) => CloseReason::TooBig,
        Error::Utf8(_) => CloseReason::BadUtf8,
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)
        | Error::Io(_)
        | Error::ConnectionClosed
        | Error::AlreadyClosed => return Inbound::Ended(CloseReason::SocketBroken, Rest::Nothing),
        _ => CloseReason::Protocol,
    };
    Inbound::Ended(reason, Rest::Garbage)
}
