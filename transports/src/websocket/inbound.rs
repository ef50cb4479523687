//! What came from a WebSocket peer, or why nothing more will.

use bytes::Bytes;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::close::CloseReason;
use crate::transport::Heard;

/// Something from the peer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inbound {
    /// For the session.
    Heard(Said),
    /// The peer's close frame; the frame to answer with.
    Closed(Bytes),
    /// The end, and whether the rest of the stream still parses as frames.
    Ended(CloseReason, Rest),
}

/// Owned form of [`Heard`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// To be answered by a pong with the same payload.
    Ping(Bytes),
    Pong(Bytes),
    Text(Utf8Bytes),
}

/// What to expect of the bytes after the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rest {
    /// Frames: a close frame can be waited for.
    Frames,
    /// Nothing more: the peer has closed and waits for this answer.
    Closed(Bytes),
    /// Anything: only the end of the stream can be waited for.
    Garbage,
    /// There is none.
    Nothing,
}

impl Said {
    pub(super) fn as_heard(&self) -> Heard<'_> {
        match self {
            Self::Ping(_) => Heard::Life,
            Self::Pong(payload) => Heard::Pong(payload),
            Self::Text(text) => Heard::Text(text.as_str()),
        }
    }
}
