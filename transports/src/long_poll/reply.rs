//! The reply to a poll.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response, StatusCode};

use crate::close::CloseReason;
use crate::pipe::{Inlet, PIECE_BYTES};
use crate::sever::Sever;
use crate::stall::Stall;
use crate::timing::Timing;
use crate::transport::{Frames, Session};

/// What a poll is answered.
pub(super) struct Reply {
    /// Where the client is once it has it.
    position: String,
    /// 200 with these, or 204 with the position in a header.
    events: Option<Events>,
}

struct Events {
    connection: String,
    frames: Frames,
}

impl Reply {
    pub(super) fn new(session: &dyn Session, frames: Frames) -> Self {
        Self::at(session.position(), session, frames)
    }

    pub(super) fn at(position: String, session: &dyn Session, frames: Frames) -> Self {
        let events = (!frames.is_empty()).then(|| Events { connection: session.connection_id(), frames });
        Self { position, events }
    }

    pub(super) fn status(&self) -> StatusCode {
        if self.events.is_some() { StatusCode::OK } else { StatusCode::NO_CONTENT }
    }

    /// All but those that frame the body.
    pub(super) fn headers(&self) -> [(HeaderName, &str); 2] {
        let special = match self.events {
            Some(_) => (CONTENT_TYPE, "application/json"),
            None => (LAST_EVENT_ID, &*self.position),
        };
        [(CACHE_CONTROL, "no-store"), special]
    }

    pub(super) fn body_bytes(&self) -> usize {
        let Some(Events { connection, frames }) = &self.events else { return 0 };
        // A comma between two.
        let events = frames.iter().map(|frame| frame.bytes().len() + 1).sum::<usize>() - 1;
        MEMBERS.iter().map(|member| member.len()).sum::<usize>() + connection.len() + events + self.position.len()
    }

    /// `{"connectionId":…,"events":[…],"lastEventId":…}` around the same bytes that the other transports send. Ids and
    /// positions are visible ASCII without quotes, so they stand for themselves in JSON.
    pub(super) fn put_body(&self, into: &mut Vec<u8>) {
        let Some(Events { connection, frames }) = &self.events else { return };
        let [before, between, behind, end] = MEMBERS;
        into.extend_from_slice(before.as_bytes());
        into.extend_from_slice(connection.as_bytes());
        into.extend_from_slice(between.as_bytes());
        for (index, frame) in frames.iter().enumerate() {
            if index > 0 {
                into.push(b',');
            }
            into.extend_from_slice(frame.bytes());
        }
        into.extend_from_slice(behind.as_bytes());
        into.extend_from_slice(self.position.as_bytes());
        into.extend_from_slice(end.as_bytes());
    }

    /// As hyper sends it.
    pub(super) fn into_response(self) -> Response<Bytes> {
        let (mut head, ()) = Response::new(()).into_parts();
        head.status = self.status();
        for (name, value) in self.headers() {
            head.headers.extend(HeaderValue::try_from(value).map(|value| (name, value)));
        }
        let mut body = Vec::with_capacity(self.body_bytes());
        self.put_body(&mut body);
        if head.status != StatusCode::NO_CONTENT {
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        Response::from_parts(head, body.into())
    }

    pub(super) fn into_position(self) -> String {
        self.position
    }
}

/// Sends a reply, as long as the session lets it: what hyper has not taken, or holds for a peer that has no room for it, is
/// stopped by a revocation.
pub(super) fn send(
    body: Bytes,
    inlet: Inlet,
    mut session: Box<dyn Session>,
    timing: Timing,
    sever: Option<Sever>,
) -> impl Future<Output = ()> + Send {
    let mut sending = Sending { body, inlet };
    // Before hyper has any of it, which may end the socket as soon as it has all.
    sever.iter().for_each(|sever| session.answered(sever));
    // Now, so that it goes out with its head.
    sending.offer();
    async move {
        let failed = tokio::select! {
            biased;
            reason = session.cut() => reason,
            is_sent = sending.run(timing.write_stall) => match is_sent {
                Ok(()) => return,
                Err(reason) => reason,
            },
        };
        sending.inlet.fail();
        if let Some(sever) = sever {
            sever.sever();
        }
        cut_off(session, failed);
    }
}

struct Sending {
    /// What was not offered yet.
    body: Bytes,
    inlet: Inlet,
}

impl Sending {
    fn offer(&mut self) {
        self.inlet.offer(self.body.split_to(self.body.len().min(PIECE_BYTES)));
        if self.body.is_empty() {
            self.inlet.finish();
        }
    }

    /// Ready when the body was dropped: at its end, for which it asks only once all before may go out, or with its request.
    /// Then nothing is lost: the position is the client's, and the lease runs on.
    async fn run(&mut self, limit: Duration) -> Result<(), CloseReason> {
        let (bytes, mut stall) = (self.body.len(), Stall::new(limit, 0));
        loop {
            let taken = bytes - self.body.len();
            tokio::select! {
                biased;
                _ = self.inlet.stopped() => return Ok(()),
                _ = self.inlet.taken(), if !self.body.is_empty() => self.offer(),
                () = stall.stalled(taken as u64) => return Err(CloseReason::WriteStalled),
            }
        }
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

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// All of a body but its values.
const MEMBERS: [&str; 4] = [r#"{"connectionId":""#, r#"","events":["#, r#"],"lastEventId":""#, r#""}"#];
