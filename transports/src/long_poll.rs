//! Long-poll: one request, one reply, for gateways behind firewalls that end whatever stays open.
//!
//! A reply is at most 1 MiB or one event, and 1000 events. The position is the client's: it sends back the
//! `lastEventId` of the reply that it read, so a reply that nobody read has lost nothing.
//!
//! - `reply`: what a poll is answered.
//! - `direct`: polls on a socket that begins with them, without hyper; `input` is what comes from it, and `head` reads
//!   that. Over HTTP/2, and behind another request, a poll comes by hyper.

mod direct;
mod head;
mod input;
mod reply;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Response as HttpResponse;
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
use crate::pipe::pipe;
use crate::query::Query;
use crate::request::{self, ConnectRequest};
use crate::timing::Timing;
use crate::transport::{Direct, Frames, Gate, Liveness, Room, Session, Step, Transport};

/// The long-poll transport: `GET /api/internal/v1/poll/gateways/connect`.
#[derive(Debug, Clone)]
pub struct LongPoll {
    manner: Arc<Manner>,
    tasks: TaskTracker,
}

/// How all polls are answered.
#[derive(Debug)]
struct Manner {
    timing: Timing,
    date: Date,
}

impl LongPoll {
    /// A transport. A poll lives in its request; only the sending of a reply through hyper is a task of `tasks`.
    #[must_use]
    pub fn new(timing: Timing, tasks: TaskTracker) -> Self {
        Self { manner: Arc::new(Manner { timing, date: Date::default() }), tasks }
    }

    /// An answer through hyper: piece by piece, so that a revocation can stop it.
    async fn connect(&self, gate: &dyn Gate, mut request: ConnectRequest) -> Response {
        let Some(info) = request.info() else { return request::refuse(request::nobody()) };
        let Asked { handshake, wish } = match Asked::read(info, &(&request.headers).into(), &request.query) {
            Ok(asked) => asked,
            Err(error) => return request::refuse(gate.reject(error)),
        };
        let (reply, session) = match gate.admit(handshake).await {
            Ok(session) => answer(session, wish).await,
            Err(refusal) => return request::refuse(refusal),
        };
        let (head, body) = reply.into_response().into_parts();
        match session.filter(|_| !body.is_empty()) {
            None => HttpResponse::from_parts(head, body.into()),
            Some(session) => {
                let (inlet, outlet) = pipe();
                drop(self.tasks.spawn(reply::send(body, inlet, session, self.manner.timing, request.sever.take())));
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

/// What a poll is answered, and the session that may still cut it off.
async fn answer(mut session: Box<dyn Session>, wish: Wish) -> (Reply, Option<Box<dyn Session>>) {
    let (mut gathering, mut alarm) = (Gathering::new(wish, session.ready()), Alarm::default());
    match poll_fn(|cx| gathering.poll(session.as_mut(), &mut alarm, cx)).await {
        Ok(()) => (Reply::new(session.as_ref(), gathering.into_frames()), Some(session)),
        Err(reason) => (last_reply(session, reason, gathering), None),
    }
}

/// Ends a connection; what the poll under way is answered. What was gathered and is not given moves nobody: a client takes
/// the position of an answer for its own.
fn last_reply(mut session: Box<dyn Session>, reason: CloseReason, gathering: Gathering) -> Reply {
    tracing::debug!(connection.id = session.connection_id(), ?reason, "Long-poll connection ends.");
    let Gathering { frames, since, .. } = gathering;
    let frames = last_frames(reason, frames);
    let position = since.filter(|_| frames.is_empty()).unwrap_or_else(|| session.position());
    let reply = Reply::at(position, session.as_ref(), frames);
    session.ended(reason);
    reply
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
        Some(Arc::new(Polls { gate, manner: self.manner.clone() }))
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
    /// Where the client is that is given none of them.
    since: Option<String>,
    room: Room,
    /// When the client's time is up.
    until: Instant,
}

impl Gathering {
    fn new(wish: Wish, is_ready: bool) -> Self {
        let now = Instant::now();
        let mut until = now + wish.timeout;
        if is_ready {
            // With `timeout=0` what is there is still given, even if the log takes a moment to read.
            until = until.max(now + READING);
        }
        Self { frames: Frames::new(), since: None, room: Room { frames: wish.events, bytes: REPLY_BYTES_MAX }, until }
    }

    /// Gathers until there is something and no more of it at hand, or until the time is up. `Err` if the connection ends.
    fn poll(
        &mut self,
        session: &mut dyn Session,
        alarm: &mut Alarm,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), CloseReason>> {
        while !self.is_full() && (self.frames.is_empty() || session.ready()) {
            match session.poll_next(cx, self.room) {
                Poll::Ready(Step::Deliver(frames)) => {
                    if !self.take(frames) {
                        break;
                    }
                    self.since.get_or_insert_with(|| session.position());
                    session.written();
                }
                // A lease has no signs of life but polls.
                Poll::Ready(Step::Ping(_)) => session.written(),
                Poll::Ready(Step::Close(reason)) => return Poll::Ready(Err(reason)),
                Poll::Pending => {
                    if !self.frames.is_empty() {
                        // Nor does what there is wait for long.
                        self.until = self.until.min(Instant::now() + READING);
                    }
                    ready!(alarm.poll_at(cx, Instant::now(), Some(self.until)));
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn into_frames(self) -> Frames {
        self.frames
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
        let wish = Wish { timeout: Duration::ZERO, events: 10 };
        let mut gathering = Gathering::new(wish, false);
        assert!(gathering.take(frames(&[REPLY_BYTES_MAX * 2])) && gathering.is_full());
        let mut gathering = Gathering::new(wish, false);
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
