//! The reply to a poll.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, StatusCode};
use tokio::time::sleep;

use crate::close::CloseReason;
use crate::pipe::{Inlet, PIECE_BYTES};
use crate::sever::Sever;
use crate::timing::Timing;
use crate::transport::{Frame, Session};

/// What a poll is answered.
pub(super) enum Reply {
    /// 200 with this body.
    Events(Vec<u8>),
    /// 204 with the position in a header.
    Nothing(String),
}

impl Reply {
    pub(super) fn new(session: &dyn Session, frames: &[Arc<Frame>]) -> Self {
        let position = session.position();
        if frames.is_empty() {
            return Self::Nothing(position);
        }
        Self::Events(body(&session.connection_id(), frames, &position))
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Events(_) => StatusCode::OK,
            Self::Nothing(_) => StatusCode::NO_CONTENT,
        }
    }

    /// All but those that frame the body.
    pub(super) fn headers(&self) -> [(HeaderName, &str); 2] {
        let special = match self {
            Self::Events(_) => (CONTENT_TYPE, "application/json"),
            Self::Nothing(position) => (LAST_EVENT_ID, &**position),
        };
        [(CACHE_CONTROL, "no-store"), special]
    }

    pub(super) fn body(&self) -> &[u8] {
        match self {
            Self::Events(body) => body,
            Self::Nothing(_) => &[],
        }
    }

    pub(super) fn into_body(self) -> Bytes {
        match self {
            Self::Events(body) => body.into(),
            Self::Nothing(_) => Bytes::new(),
        }
    }
}

/// Sends a long reply, as long as the session lets it: a revocation stops it between two pieces.
pub(super) async fn send(
    mut body: Bytes,
    mut inlet: Inlet,
    mut session: Box<dyn Session>,
    timing: Timing,
    sever: Option<Sever>,
) {
    while !body.is_empty() {
        let piece = body.split_to(body.len().min(PIECE_BYTES));
        let failed = tokio::select! {
            biased;
            reason = session.cut() => reason,
            put = inlet.put(piece) => match put {
                Ok(()) => continue,
                // Nothing is lost: the position is the client's. The lease runs on.
                Err(_) => return,
            },
            () = sleep(timing.write_stall) => CloseReason::WriteStalled,
        };
        inlet.fail();
        if let Some(sever) = sever {
            sever.sever();
        }
        return cut_off(session, failed);
    }
}

/// A reply did not come to its end.
pub(super) fn cut_off(mut session: Box<dyn Session>, reason: CloseReason) {
    tracing::debug!(connection.id = session.connection_id(), ?reason, "Long-poll reply is cut off.");
    // A stalled reply ends the poll and not the connection: the client may come back within its lease.
    if reason.silences() {
        session.ended(reason);
    }
}

/// `{"connectionId":…,"events":[…],"lastEventId":…}` around the same bytes that the other transports send. Ids and
/// positions are visible ASCII without quotes, so they stand for themselves in JSON.
fn body(connection: &str, frames: &[Arc<Frame>], position: &str) -> Vec<u8> {
    let events: usize = frames.iter().map(|frame| frame.text().len() + 1).sum();
    let mut body = Vec::with_capacity(connection.len() + events + position.len() + MEMBERS_BYTES);
    body.extend_from_slice(br#"{"connectionId":""#);
    body.extend_from_slice(connection.as_bytes());
    body.extend_from_slice(br#"","events":["#);
    for (index, frame) in frames.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(frame.text().as_bytes());
    }
    body.extend_from_slice(br#"],"lastEventId":""#);
    body.extend_from_slice(position.as_bytes());
    body.extend_from_slice(br#""}"#);
    body
}

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// All of a body but its values.
const MEMBERS_BYTES: usize = 64;
