//! Control messages: what is said beside events (CONTRACT.md §§ 3, 5). They have a `type` and no `eventId`.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use gatecast_storage::{Bounds, Cursor, GatewayId};
use gatecast_transports::Frame;
use serde_json::json;

use crate::envelope::timestamp;
use crate::registry::ConnectionId;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    fn as_str(self) -> &'static str {
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

/// `stream.reset`: events after `requested` will not be delivered; what is still held follows.
pub(crate) fn reset(
    gateway: GatewayId,
    at: DateTime<Utc>,
    reason: ResetReason,
    requested: Cursor,
    bounds: &Bounds,
) -> Arc<Frame> {
    let before_oldest = bounds.oldest.prev();
    let lost = match reason {
        ResetReason::Overwritten => Some(before_oldest.0.saturating_sub(requested.seq.0)),
        ResetReason::UnknownEpoch => None,
        ResetReason::Ahead => Some(0),
        // All that this gateway's log ever had and no longer has.
        ResetReason::Foreign => Some(before_oldest.0),
    };
    let oldest = (bounds.events() > 0).then(|| Cursor { epoch: bounds.epoch, seq: bounds.oldest }.to_string());
    let text = json!({
        "type": "stream.reset",
        "gatewayId": gateway,
        "timestamp": timestamp(at),
        "payload": {
            "reason": reason.as_str(),
            "requested": requested.to_string(),
            "oldest": oldest,
            "newest": bounds.head().to_string(),
            "lost": lost,
        },
    });
    Arc::new(Frame::new(None, "stream.reset", text.to_string()))
}
