//! Control messages: what is said beside events (CONTRACT.md §§ 3, 5). They have a `type` and no `eventId`.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use gatecast_storage::{Bounds, Cursor, GatewayId, Page, Seq};
use gatecast_transports::Frame;
use serde_json::json;

use crate::envelope::timestamp;
use crate::registry::ConnectionId;
use crate::tail::CompactedPage;

/// The types of control messages: events of such a type would be taken for one.
pub(crate) const TYPES: [&str; 4] = ["connection.ack", "stream.reset", "server.goodbye", "error"];

/// How a connection begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resume {
    /// At the newest position.
    Live,
    /// Right after the cursor that was asked for.
    Resumed,
    /// Not where it was asked to: a [`reset`] follows.
    Reset,
}

/// Why a stream cannot go on at the cursor that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ResetReason {
    /// Events after it were trimmed.
    Overwritten,
    /// It counts in a life of the log that is over.
    UnknownEpoch,
    /// It lies after the newest event.
    Ahead,
    /// It is a cursor of another gateway.
    Foreign,
}

impl ResetReason {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Overwritten, Self::UnknownEpoch, Self::Ahead, Self::Foreign];

    /// Why a log cannot be read from a cursor on, if so. Whether a cursor of another epoch is another gateway's is not the
    /// log's to say.
    pub(crate) fn of(cursor: Cursor, log: &Bounds) -> Option<Self> {
        match log.refuses(cursor)? {
            Page::WrongEpoch { .. } => Some(Self::UnknownEpoch),
            Page::Ahead { .. } => Some(Self::Ahead),
            Page::Truncated { .. } => Some(Self::Overwritten),
            Page::Entries(_) => None,
        }
    }

    /// The public text.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Overwritten => "overwritten",
            Self::UnknownEpoch => "unknown-epoch",
            Self::Ahead => "ahead",
            Self::Foreign => "foreign",
        }
    }
}

/// `connection.ack`, the first message of every connection. `position` is its id: a peer that is cut off right after
/// it comes back with it. For a reset that is the cursor it asked for, so that the reset is told again.
pub(crate) fn ack(
    gateway: GatewayId,
    connection: ConnectionId,
    at: DateTime<Utc>,
    position: Cursor,
    resume: Resume,
    transport: &str,
) -> Arc<Frame> {
    let resume = match resume {
        Resume::Live => "live",
        Resume::Resumed => "resumed",
        Resume::Reset => "reset",
    };
    let text = format!(
        r#"{{"type":"connection.ack","gatewayId":"{gateway}","connectionId":"{connection}","timestamp":"{}","position":"{position}","resume":"{resume}","transport":"{transport}"}}"#,
        timestamp(at),
    );
    Arc::new(Frame::new(Some(position.to_string()), "connection.ack", text))
}

/// What a `stream.reset` says.
pub(crate) struct Reset<'a> {
    pub(crate) reason: ResetReason,
    pub(crate) requested: Cursor,
    /// What follows begins after this.
    pub(crate) from: Seq,
    /// How many events between there and the ring will not come.
    pub(crate) lost: u64,
    /// How many events of compacted state follow.
    pub(crate) compacted: u64,
    pub(crate) log: &'a CompactedPage,
}

impl Reset<'_> {
    /// Of the events after the cursor that was asked for, how many will not come; `None` if nobody can know.
    pub(crate) fn lost_after_requested(&self) -> Option<u64> {
        match self.reason {
            // For a foreign cursor, all that this gateway's log ever had and no longer has.
            ResetReason::Overwritten | ResetReason::Foreign => Some(self.lost),
            ResetReason::UnknownEpoch => None,
            ResetReason::Ahead => Some(0),
        }
    }
}

/// `stream.reset`: events after `requested` will not be delivered; the compacted state follows, then the ring.
///
/// `complete` says whether that leads to the state of a gateway that never left: not if the log that the cursor counts
/// in is gone, or if compacted state after the cursor had to be let go by its bounds.
pub(crate) fn reset(gateway: GatewayId, at: DateTime<Utc>, reset: &Reset<'_>) -> Arc<Frame> {
    let Reset { reason, requested, from, log, .. } = *reset;
    let lost = reset.lost_after_requested();
    let cursor = |seq| Cursor { epoch: log.epoch, seq }.to_string();
    let text = json!({
        "type": "stream.reset",
        "gatewayId": gateway,
        "timestamp": timestamp(at),
        "payload": {
            "reason": reason.as_str(),
            "requested": requested.to_string(),
            "oldest": (log.oldest <= log.newest).then(|| cursor(log.oldest)),
            "newest": cursor(log.newest),
            "lost": lost,
            "compacted": reset.compacted,
            "complete": reason != ResetReason::UnknownEpoch && from >= log.let_go,
        },
    });
    Arc::new(Frame::new(None, "stream.reset", text.to_string()))
}
