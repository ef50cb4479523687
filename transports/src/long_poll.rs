//! Long-poll: one request, one reply, for gateways behind firewalls that end whatever stays open.
//!
//! A reply is at most 1 MiB or one event, and 1000 events. The position is the client's: it sends back the
//! `lastEventId` of the reply that it read, so a reply that nobody read has lost nothing.
//!
//! - `reply`: what a poll is answered.
//! - `direct`: polls on a socket that begins with them, without hyper; `head` reads them. Over HTTP/2, and behind another
//!   request, a poll comes by hyper.

mod direct;
mod head;
mod reply;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Response as HttpResponse, StatusCode};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use warp::filters::BoxedFilter;
use warp::reply::{Reply as _, Response};

use self::direct::Polls;
use self::reply::Reply;
use crate::alarm::Alarm;
use crate::close::CloseReason;
use crate::date::Date;
use crate::handshake::{ConnInfo, Handshake, HandshakeError, Headers};
use crate::pipe::{PIECE_BYTES, pipe};
use crate::query::Query;
use crate::request::{self, ConnectRequest};
use crate::timing::Timing;
use crate::transport::{Direct, Frames, Gate, Liveness, Refusal, Room, Session, Step, Transport};

/// The long-poll transport: `GET /api/internal/v1/poll/gateways/connect`.
#[derive(Debug, Clone)]
pub struct LongPoll {
    timing: Timing,
    tasks: TaskTracker,
}

impl LongPoll {
    /// A transport. A poll lives in its request; only the sending of a long reply is a task of `tasks`.
    #[must_use]
    pub fn new(timing: Timing, tasks: TaskTracker) -> Self {
        Self { timing, tasks }
    }

    /// An answer through hyper: a long one piece by piece, so that a revocation can stop it.
    async fn connect(&self, gate: &dyn Gate, mut request: ConnectRequest) -> Response {
        let Some(info) = request.info() else { return request::refuse(request::nobody()) };
        let asked = Asked::read(info, &(&request.headers).into(), &request.query);
        let Answer { said, session } = Turn::new(gate, asked).answer(&mut Alarm::default()).await;
        let (head, body) = said.into_parts();
        match session.filter(|_| body.len() > PIECE_BYTES) {
            None => HttpResponse::from_parts(head, body.into()),
            Some(session) => {
                let (inlet, outlet) = pipe();
                drop(self.tasks.spawn(reply::send(body, inlet, session, self.timing, request.sever.take())));
                HttpResponse::from_parts(head, warp::reply::stream(outlet).into_response().into_body())
            }
        }
    }
}

/// What a request asks for.
#[derive(Debug)]
struct Asked {
    handshake: Handshake,
    wish: Wish,
}

impl Asked {
    fn read(info: &ConnInfo, headers: &Headers<'_>, query: &str) -> Result<Self, HandshakeError> {
        let query = Query::parse(query);
        let wish = Wish::read(&query)?;
        Ok(Self { handshake: Handshake::read_parsed(NAME, Liveness::Lease, info, headers, &query)?, wish })
    }
}

type Admission<'a> = BoxFuture<'a, Result<Box<dyn Session>, Refusal>>;

/// A poll's turn to be answered.
enum Turn<'a> {
    /// The gate is asked.
    Asked(Admission<'a>, Wish),
    /// It goes on where the one before it on its socket has ended.
    Resumed(Box<dyn Session>, Wish),
    Refused(Answer),
}

impl<'a> Turn<'a> {
    fn new(gate: &'a dyn Gate, asked: Result<Asked, HandshakeError>) -> Self {
        match asked {
            Ok(Asked { handshake, wish }) => Self::Asked(gate.admit(handshake), wish),
            Err(error) => Self::Refused(gate.reject(error).into()),
        }
    }

    /// What admission takes is let go of before the poll is parked: nothing that an arm of a `match` borrows from is held
    /// over a wait.
    async fn answer(self, alarm: &mut Alarm) -> Answer {
        let (session, wish) = match self {
            Self::Resumed(session, wish) => (session, wish),
            Self::Refused(answer) => return answer,
            Self::Asked(admission, wish) => match admission.await {
                Ok(session) => (session, wish),
                Err(refusal) => return refusal.into(),
            },
        };
        poll(session, wish, alarm).await
    }
}

/// An answer, and the session that may still cut it off.
struct Answer {
    said: Said,
    session: Option<Box<dyn Session>>,
}

enum Said {
    Reply(Reply),
    /// Boxed: a parked poll has room for its answer.
    Refusal(Box<HttpResponse<Bytes>>),
}

impl Said {
    fn into_parts(self) -> (http::response::Parts, Bytes) {
        match self {
            Self::Refusal(refusal) => refusal.into_parts(),
            Self::Reply(reply) => {
                let (mut head, ()) = HttpResponse::new(()).into_parts();
                head.status = reply.status();
                for (name, value) in reply.headers() {
                    head.headers.extend(HeaderValue::try_from(value).map(|value| (name, value)));
                }
                let mut body = Vec::with_capacity(reply.body_bytes());
                reply.put_body(&mut body);
                if head.status != StatusCode::NO_CONTENT {
                    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
                }
                (head, body.into())
            }
        }
    }
}

impl From<Refusal> for Answer {
    fn from(Refusal(refusal): Refusal) -> Self {
        Self { said: Said::Refusal(Box::new(refusal)), session: None }
    }
}

async fn poll(mut session: Box<dyn Session>, wish: Wish, alarm: &mut Alarm) -> Answer {
    let reply = |session: &dyn Session, frames| Said::Reply(Reply::new(session, frames));
    match gather(session.as_mut(), wish, alarm).await {
        Ok(frames) => Answer { said: reply(session.as_ref(), frames), session: Some(session) },
        Err((reason, gathered)) => {
            tracing::debug!(connection.id = session.connection_id(), ?reason, "Long-poll connection ends.");
            let said = reply(session.as_ref(), last_frames(reason, gathered));
            session.ended(reason);
            Answer { said, session: None }
        }
    }
}

impl Transport for LongPoll {
    fn name(&self) -> &'static str {
        NAME
    }

    fn routes(&self, gate: Arc<dyn Gate>) -> BoxedFilter<(Response,)> {
        let transport = self.clone();
        request::get(request::path(PATH), gate, move |gate, request| {
            let transport = transport.clone();
            async move { transport.connect(gate.as_ref(), request).await }
        })
    }

    fn direct(&self, gate: Arc<dyn Gate>) -> Option<Arc<dyn Direct>> {
        Some(Arc::new(Polls { transport: self.clone(), gate, date: Date::default() }))
    }
}

/// How long and how much the client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wish {
    timeout: Duration,
    events: usize,
}

impl Wish {
    /// More than the maximum is the maximum: the client learns from the reply. Anything but a number is an error.
    fn read(query: &Query<'_>) -> Result<Self, HandshakeError> {
        let seconds = query.number("timeout", TIMEOUT_S, "whole seconds, 0 to 60")?;
        let events = query.number("max", EVENTS, "a whole number, 1 to 1000")?;
        Ok(Self { timeout: Duration::from_secs(seconds.into()), events: events as usize })
    }
}

/// Gathers a reply.
#[derive(Debug)]
struct Gathering {
    frames: Frames,
    room: Room,
}

impl Gathering {
    fn new(events: usize) -> Self {
        Self { frames: Frames::new(), room: Room { frames: events, bytes: REPLY_BYTES_MAX } }
    }

    /// Adds a step, unless it makes the reply too large: a session gives one frame however large it is, and only the
    /// first of a reply may be larger than the room.
    fn take(&mut self, frames: Frames) -> bool {
        let mut frames = frames;
        frames.retain(|frame| !frame.is_position_only());
        let bytes: usize = frames.iter().map(|frame| frame.bytes().len() + SEPARATOR_BYTES).sum();
        if bytes > self.room.bytes && !self.frames.is_empty() {
            return false;
        }
        self.room.frames = self.room.frames.saturating_sub(frames.len());
        self.room.bytes = self.room.bytes.saturating_sub(bytes);
        if self.frames.is_empty() {
            // What one step gives is mostly all.
            self.frames = frames;
        } else {
            self.frames.extend(frames);
        }
        true
    }

    fn is_full(&self) -> bool {
        self.room.frames == 0 || self.room.bytes == 0
    }
}

/// Gathers until there is something and no more of it at hand, or until the time is up. `Err` if the connection ends.
async fn gather(session: &mut dyn Session, wish: Wish, alarm: &mut Alarm) -> Result<Frames, (CloseReason, Frames)> {
    let mut deadline = Instant::now() + wish.timeout;
    if session.ready() {
        // With `timeout=0` what is there is still given, even if the log takes a moment to read.
        deadline = deadline.max(Instant::now() + READING);
    }
    let mut gathering = Gathering::new(wish.events);
    loop {
        let room = gathering.room;
        // One closure, for what a `select!` of two futures holds is held by every parked poll.
        let step = poll_fn(|cx| match session.poll_next(cx, room) {
            Poll::Ready(step) => Poll::Ready(Some(step)),
            Poll::Pending => alarm.poll_at(cx, Instant::now(), Some(deadline)).map(|()| None),
        });
        match step.await {
            None => break,
            Some(Step::Deliver(frames)) => {
                if !gathering.take(frames) {
                    break;
                }
                session.written();
            }
            // A lease has no signs of life but polls.
            Some(Step::Ping(_)) => session.written(),
            Some(Step::Close(reason)) => return Err((reason, gathering.frames)),
        }
        if gathering.is_full() || (!gathering.frames.is_empty() && !session.ready()) {
            break;
        }
    }
    Ok(gathering.frames)
}

/// What a poll that is under way answers to the end of its connection (CONTRACT.md § 7): the events so far and the
/// goodbye, or 204. A revoked one is not given what was gathered; the 401 is the next poll's, from the same check as
/// every other.
fn last_frames(reason: CloseReason, gathered: Frames) -> Frames {
    let ending = reason.ending();
    match (ending.last, ending.spoken) {
        (Some(last), true) => gathered.into_iter().chain([Arc::new(last)]).collect(),
        _ => Frames::new(),
    }
}

const NAME: &str = "long-poll";
const PATH: &str = "/api/internal/v1/poll/gateways/connect";
const TIMEOUT_S: (u32, u32, u32) = (0, 25, 60);
const EVENTS: (u32, u32, u32) = (1, 256, 1000);
const REPLY_BYTES_MAX: usize = 1024 * 1024;
/// The comma between two events.
const SEPARATOR_BYTES: usize = 1;
/// For a session that has something at hand to give it.
const READING: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Frame;

    fn frames(lens: &[usize]) -> Frames {
        lens.iter().map(|len| Arc::new(Frame::new(None, "t", "x".repeat(*len)))).collect()
    }

    #[test]
    fn a_reply_is_at_most_a_mebibyte_but_always_one_event() {
        let mut gathering = Gathering::new(10);
        assert!(gathering.take(frames(&[REPLY_BYTES_MAX * 2])) && gathering.is_full());
        let mut gathering = Gathering::new(10);
        assert!(gathering.take(frames(&[REPLY_BYTES_MAX / 2])) && !gathering.is_full());
        assert!(!gathering.take(frames(&[REPLY_BYTES_MAX / 2])));
        assert_eq!(gathering.frames.len(), 1);
    }

    #[test]
    fn wishes_are_clamped_or_refused() {
        let read = |raw| Wish::read(&Query::parse(raw)).ok().map(|wish| (wish.timeout.as_secs(), wish.events));
        assert_eq!(read(""), Some((25, 256)));
        assert_eq!(read("timeout=0&max=1"), Some((0, 1)));
        assert_eq!(read("timeout=3600&max=5000"), Some((60, 1000)));
        assert_eq!(read("timeout=soon"), None);
        assert_eq!(read("max=0"), None);
    }

    #[test]
    fn only_the_goodbye_is_spoken_in_a_reply() {
        let goodbye = last_frames(CloseReason::Shutdown { reconnect_after_ms: 1 }, frames(&[1]));
        assert_eq!(goodbye.iter().map(|frame| frame.name()).collect::<Vec<_>>(), ["t", "server.goodbye"]);
        for reason in [CloseReason::TokenRevoked, CloseReason::Superseded, CloseReason::NoLife] {
            assert!(last_frames(reason, frames(&[1])).is_empty());
        }
    }
}
