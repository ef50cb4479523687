//! The reply to a poll.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response as HttpResponse, StatusCode};
use tokio::time::sleep;

use crate::close::CloseReason;
use crate::pipe::{Inlet, PIECE_BYTES};
use crate::sever::Sever;
use crate::timing::Timing;
use crate::transport::{Frame, Session};

/// 200 with events, or 204 with the position in a header.
pub(super) fn make(session: &dyn Session, frames: &[Arc<Frame>]) -> (HttpResponse<()>, Bytes) {
    let position = session.position();
    let mut head = HttpResponse::new(());
    head.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    if frames.is_empty() {
        *head.status_mut() = StatusCode::NO_CONTENT;
        if let Ok(position) = HeaderValue::try_from(position) {
            head.headers_mut().insert(LAST_EVENT_ID, position);
        }
        return (head, Bytes::new());
    }
    let body = body(session.connection_id(), frames, &position);
    head.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    head.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    (head, body)
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

/// `{"connectionId":…,"events":[…],"lastEventId":…}` around the same bytes that the other transports send.
fn body(connection: &str, frames: &[Arc<Frame>], position: &str) -> Bytes {
    let head = format!(r#"{{"connectionId":{},"events":["#, serde_json::Value::from(connection));
    let tail = format!(r#"],"lastEventId":{}}}"#, serde_json::Value::from(position));
    let events: usize = frames.iter().map(|frame| frame.text().len() + 1).sum();
    let mut body = BytesMut::with_capacity(head.len() + events + tail.len());
    body.put_slice(head.as_bytes());
    for (index, frame) in frames.iter().enumerate() {
        if index > 0 {
            body.put_u8(b',');
        }
        body.put_slice(frame.text().as_bytes());
    }
    body.put_slice(tail.as_bytes());
    body.freeze()
}

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
