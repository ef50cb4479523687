//! The read path: a cursor over a gateway's log, and what its connection shall do next.
//!
//! A [`CursorSession`] queues nothing. It looks, in this order, at whether it shall end, whether its peer is dead,
//! whether a ping is due, and what lies after its cursor, in front of which goes its opening (the ack); then it waits
//! for its gateway's channel or the next deadline. The cursor moves when the transport says that a step was
//! [`written`](Session::written), so a step that was cancelled is given again. Live delivery, catching up and slow
//! readers are this one path; they differ in where the events come from ([`Tail::hot`], [`Tail::cold`]).
//! A cursor that its log's ring has left behind is [`Below`] it, told so, and led back by the compacted state.

use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use gatecast_storage::deliveries::{Deliveries, FailureReason};
use gatecast_storage::{Clock, Cursor, LogError, Receipts, Seq};
use gatecast_transports::{
    Alarm, CloseReason, Frame, Frames, Heard, Liveness, NOTICED_WITHIN, Room, Served, Session, Sever, Step, Ticket,
};
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use crate::auth::{Authenticator, Validity};
use crate::bell::Listener;
use crate::below::{Below, Climb};
use crate::control::ResetReason;
use crate::heartbeat::{Beat, Timing, beat, life_at_ping, life_if_late};
use crate::hold::Hold;
use crate::metrics::Live;
use crate::next_poll::NextPoll;
use crate::pacing::Pacing;
use crate::reading::Reading;
use crate::receipts::{Reporter, Reports};
use crate::registry::Connection;
use crate::shortfall::{self, Shortfall};
use crate::tail::{Hot, Tail, Tailed};
use crate::traces::{Receiver, Tracer};

/// What all sessions work with.
pub(crate) struct Works {
    pub(crate) tail: Tail,
    pub(crate) deliveries: Arc<Deliveries>,
    pub(crate) receipts: Arc<Receipts>,
    pub(crate) reports: Arc<Reports>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) timing: Timing,
    pub(crate) tracer: Arc<Tracer>,
    pub(crate) authenticator: Arc<Authenticator>,
}

/// When a session ends as its proof does. Wall time is asked once; from here on the deadline is monotonic.
pub(crate) fn deadline(valid: Validity, now: DateTime<Utc>) -> Option<Instant> {
    valid.expires_at.map(|at| Instant::now() + (at - now).to_std().unwrap_or_default())
}

impl Works {
    /// A replica asks for what follows a cursor, so it has everything before that its connection was not known to skip.
    pub(crate) fn has_all_before(&self, connection: &Connection, cursor: Cursor, now: DateTime<Utc>) {
        if let Some(seat) = connection.seat() {
            let stretch = (connection.since(), cursor);
            self.deliveries.recovered(connection.channel.gateway, stretch, seat.replica(), now);
        }
    }
}

/// A connection's cursor and timing.
///
/// In this order, so that a delivery looks at its first three cache lines: with a thousand connections each line is one that
/// the others have pushed out of the core's cache, which takes 2 % of a delivery to fetch again (perf).
#[repr(C)]
pub(crate) struct CursorSession {
    position: Cursor,
    works: Arc<Works>,
    connection: Arc<Connection>,
    /// Told by its gateway's channel.
    listener: Listener,
    /// Nothing is due by the clock before this. Life and pings only move that back, so it may be known late.
    rests: Option<Instant>,
    handed: Handed,
    pacing: Pacing,
    /// A read under way outlives a cancelled `next`.
    reading: Reading,
    /// What is said before the first event, or alone if that is not at hand, until it was written. Boxed: it is no part of an idle session.
    opening: Option<Box<Frames>>,
    /// It is not in the ring. Boxed as well.
    below: Option<Box<Below>>,
    liveness: Liveness,
    alarm: Alarm,
    hold: Hold,
    life: Instant,
    pinged: Instant,
    expires: Option<Instant>,
}

/// The step that was given out and not yet written.
enum Handed {
    Nothing,
    Opening,
    Events {
        count: u32,
        bytes: u32,
        live: Option<Live>,
    },
    /// Boxed: no part of an idle session.
    Compacted {
        climbed: Box<Climbed>,
        bytes: u32,
    },
    Ping(Box<Bytes>),
}

/// Where the compacted state has led.
struct Climbed {
    events: Vec<Seq>,
    to: Cursor,
    below: Option<Below>,
    overwritten: Option<Shortfall>,
    reset: Option<(ResetReason, Option<u64>)>,
}

/// What a look at everything finds.
enum Due {
    Step(Step),
    /// A read of the log; something else may be due before it is done.
    Read(Room, Option<Instant>),
    Wait(Option<Instant>),
}

impl CursorSession {
    /// A session that begins after `position`, once `opening` was said.
    pub(crate) fn new(
        works: Arc<Works>,
        hold: Hold,
        liveness: Liveness,
        (position, below): (Cursor, Option<Below>),
        opening: Frames,
        expires: Option<Instant>,
    ) -> Self {
        let now = Instant::now();
        Self {
            position,
            works,
            connection: hold.connection().clone(),
            listener: Listener::new(hold.connection().channel.bell.clone()),
            rests: None,
            handed: Handed::Nothing,
            pacing: Pacing::new(),
            reading: Reading::default(),
            opening: (!opening.is_empty()).then(|| Box::new(opening)),
            below: below.map(Box::new),
            liveness,
            alarm: Alarm::default(),
            hold,
            life: now,
            pinged: now,
            expires,
        }
    }

    /// Looks at everything, in the order of the module's docs.
    fn look(&mut self, now: Instant, room: Room) -> Due {
        if let Some(reason) = self.told_to_end() {
            return Due::Step(Step::Close(reason));
        }
        let is_ping_due = match self.beat(now) {
            Ok(is_ping_due) => is_ping_due,
            Err(reason) => return Due::Step(Step::Close(reason)),
        };
        let paced = self.liveness == Liveness::PingPong;
        if self.opening.is_none() && (is_ping_due || (paced && self.pacing.ping_due())) {
            let payload = Bytes::from(String::from(self.position));
            self.handed = Handed::Ping(Box::new(payload.clone()));
            return Due::Step(Step::Ping(payload));
        }
        let room = self.beside_opening(room).and_then(|room| if paced { self.paced(room) } else { Some(room) });
        let read_again = self.reading.again().filter(|at| *at > now);
        if let Some(room) = room.filter(|_| self.behind() && read_again.is_none()) {
            return self.events(room, self.rests);
        }
        if self.opening.is_some() {
            return Due::Step(self.open());
        }
        Due::Wait([self.rests, read_again].into_iter().flatten().min())
    }

    /// Whether a sign of life is due.
    fn beat(&mut self, now: Instant) -> Result<bool, CloseReason> {
        if self.rests.is_some_and(|until| now < until) {
            return Ok(false);
        }
        if self.has_expired(now) {
            return Err(CloseReason::TokenExpired);
        }
        let next = match beat(&self.works.timing, self.liveness, now, self.life, self.pinged) {
            Beat::Dead => match life_if_late(&self.works.timing, self.life, now) {
                Some(life) => {
                    self.life = life;
                    Some(now + NOTICED_WITHIN)
                }
                None => return Err(CloseReason::NoLife),
            },
            Beat::Ping => return Ok(true),
            Beat::Wait(until) => Some(until),
            Beat::Never => None,
        };
        self.rests = [next, self.expires].into_iter().flatten().min();
        Ok(false)
    }

    fn events(&mut self, room: Room, until: Option<Instant>) -> Due {
        if !self.reading.is_under_way()
            && self.below.is_none()
            && let Some(Hot { frames, live }) =
                self.works.tail.hot(&self.connection.channel, self.position, room, self.live_from())
        {
            return Due::Step(self.deliver(frames, live));
        }
        Due::Read(room, until)
    }

    /// From when on events are live: they were not there when the connection began, nor are they written once more.
    fn live_from(&self) -> Option<Instant> {
        let is_new = self.liveness != Liveness::Lease || self.position.seq >= self.connection.furthest();
        is_new.then_some(self.connection.began)
    }

    fn deliver(&mut self, frames: Frames, live: Option<Live>) -> Step {
        self.handed = Handed::Events { count: count_of(frames.len()), bytes: bytes_of(&frames), live };
        self.opened(frames)
    }

    /// The opening alone.
    fn open(&mut self) -> Step {
        self.handed = Handed::Opening;
        self.opened(Frames::new())
    }

    /// The first step of all has the opening in front, in the same write: that is a tenth of a reconnect.
    fn opened(&self, frames: Frames) -> Step {
        Step::Deliver(match &self.opening {
            None => frames,
            Some(opening) => opening.iter().cloned().chain(frames).collect(),
        })
    }

    /// The room that the opening leaves.
    fn beside_opening(&self, room: Room) -> Option<Room> {
        let Some(opening) = &self.opening else { return Some(room) };
        let frames = room.frames.saturating_sub(opening.len());
        let bytes = room.bytes.saturating_sub(opening.iter().map(|frame| frame.bytes().len()).sum());
        (frames > 0).then_some(Room { frames, bytes })
    }

    fn paced(&self, room: Room) -> Option<Room> {
        let (events, bytes) = self.pacing.room()?;
        let cap = |most: u32, room: usize| usize::try_from(most).map_or(room, |most| most.min(room));
        Some(Room { frames: cap(events, room.frames), bytes: cap(bytes, room.bytes) })
    }

    fn behind(&self) -> bool {
        self.below.is_some() || self.position.seq < self.connection.channel.head()
    }

    fn told_to_end(&self) -> Option<CloseReason> {
        let told = self.connection.closing();
        if self.liveness != Liveness::Lease {
            // The ack comes before a goodbye as before all else: without it a gateway takes the connection for none.
            return told.filter(|reason| self.opening.is_none() || reason.silences());
        }
        told.or_else(|| self.hold.is_superseded().then_some(CloseReason::Superseded))
    }

    fn has_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|at| now >= at)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, room: Room) -> Poll<Result<Tailed, LogError>> {
        let at = (self.connection.channel.gateway, self.position, self.below.as_deref().copied());
        self.reading.poll(cx, &self.works.tail, at, room)
    }

    /// What a read of the log gives; `None` to look again.
    fn take(&mut self, read: Result<Tailed, LogError>) -> Option<Step> {
        let (below, reason) = match read {
            Ok(Tailed::Frames(frames)) if !frames.is_empty() => return Some(self.deliver(frames.into(), None)),
            Ok(Tailed::Frames(_)) => {
                self.reading.had_nothing();
                return None;
            }
            Ok(Tailed::Compacted(page)) => {
                let gateway = self.connection.channel.gateway;
                let climb = self.below.as_deref()?.climb(gateway, self.works.clock.now(), self.position, *page);
                return self.climb(climb);
            }
            Ok(Tailed::Truncated { oldest }) => (Below::overwritten(oldest), ResetReason::Overwritten),
            Ok(Tailed::Lost) => (Below::reset(ResetReason::UnknownEpoch), ResetReason::UnknownEpoch),
            Err(error) => {
                if self.reading.failed() {
                    let gateway = self.connection.channel.gateway;
                    warn!(gateway.id = %gateway, connection.id = %self.connection.id, %error, "Event log is not readable; the connection waits.");
                }
                return None;
            }
        };
        let gateway = self.connection.channel.gateway;
        warn!(gateway.id = %gateway, connection.id = %self.connection.id, ?reason, "Stream reset in mid-stream: the reader was slower than the ring.");
        self.below = Some(Box::new(below));
        None
    }

    /// Gives what leads back to the ring; `None` if there is nothing to give on this stretch of the way.
    fn climb(&mut self, Climb { frames, events, to, below, reset, overwritten }: Climb) -> Option<Step> {
        if reset.is_some() {
            debug!(gateway.id = %self.connection.channel.gateway, connection.id = %self.connection.id, ?reset, "Stream reset told.");
        }
        let bytes = bytes_of(&frames);
        let climbed = Climbed { events, to, below, reset, overwritten };
        if frames.is_empty() {
            self.climbed(&climbed, bytes);
            return None;
        }
        self.handed = Handed::Compacted { climbed: Box::new(climbed), bytes };
        Some(self.opened(frames.into()))
    }

    fn climbed(&mut self, climbed: &Climbed, bytes: u32) {
        let Climbed { ref events, to, below, reset, ref overwritten } = *climbed;
        let count = count_of(events.len());
        let connection = &self.connection;
        self.led(events, to);
        (self.position, self.below) = (to, below.map(Box::new));
        self.pacing.delivered(count, bytes);
        connection.sent(count, to, self.works.clock.millis());
        connection.carried.written(count, bytes, None);
        if let Some((reason, lost)) = reset {
            connection.carried.reset(reason, lost.unwrap_or_default());
        }
        if self.liveness == Liveness::Lease {
            connection.set_below(below.map(|below| (to, below)));
        }
        for &seq in events {
            // One by one: what lies between them was not delivered.
            self.reached(seq.prev(), Cursor { seq, ..to });
        }
        if let Some(overwritten) = overwritten {
            let now = self.works.clock.now();
            overwritten.record(&self.works.deliveries, self.hold.registration(), FailureReason::Overwritten, now);
        }
    }

    /// Its peer is led to `to`, and on the way there given these events.
    fn led(&self, events: &[Seq], to: Cursor) {
        let connection = &self.connection;
        let is_other_life = to.epoch != self.position.epoch;
        let from = if is_other_life { Seq(0) } else { self.given().seq };
        if to.seq.0.saturating_sub(from.0) > events.len() as u64 {
            // What lies between was not delivered.
            connection.set_since(to.seq);
            let last = events.last().copied().unwrap_or(from);
            if let Some(seat) = connection.seat().filter(|_| last < to.seq) {
                seat.skipped(last, to);
            }
        } else if is_other_life {
            // Where it began was a position in another life of the log; of this one it has everything from its beginning.
            connection.set_since(Seq(0));
        }
    }

    /// The live events of a stretch were written.
    fn trace(&self, after: Seq, up_to: Seq) {
        let connection = &self.connection;
        let (gateway, transport) = (connection.channel.gateway, connection.identity.transport);
        let to = Receiver { gateway, connection: &connection.id.to_string(), transport };
        let written = connection.channel.stretch(after, up_to);
        for (frame, since) in written.iter().filter(|(_, since)| *since >= connection.began) {
            self.works.tracer.delivered(frame, *since, &to);
        }
    }

    /// Everything after `after` up to `up_to` has reached the peer.
    fn reached(&self, after: Seq, up_to: Cursor) {
        let (deliveries, gateway) = (&self.works.deliveries, self.connection.channel.gateway);
        if let Some(seat) = self.connection.seat().filter(|_| deliveries.may_recover(gateway)) {
            deliveries.recovered(gateway, (after, up_to), seat.replica(), self.works.clock.now());
        }
    }

    /// Where it is once so many events more were written.
    fn after(&self, count: u32) -> Cursor {
        Cursor { seq: Seq(self.position.seq.0 + u64::from(count)), ..self.position }
    }

    /// Up to where its peer was given what its log has.
    fn given(&self) -> Cursor {
        self.below.as_ref().map_or(self.position, |below| below.has(self.position))
    }

    /// A quick peer's report may be read before the transport says that the event was written.
    fn reported(&self, text: &str) {
        let Some(seat) = self.connection.seat() else { return };
        let sent = match &self.handed {
            Handed::Events { count, .. } => self.after(*count),
            Handed::Compacted { climbed, .. } => climbed.to,
            _ => self.given(),
        };
        let from = Reporter { gateway: self.connection.channel.gateway, replica: seat.replica(), sent };
        if let Some(to) = self.works.reports.hear(text, from) {
            seat.confirmed(to, self.works.clock.now());
        }
    }
}

impl Session for CursorSession {
    fn connection_id(&self) -> String {
        self.connection.id.into()
    }

    fn position(&self) -> String {
        self.position.into()
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, room: Room) -> Poll<Step> {
        // Before the look: what happens after it wakes us, what happened before it is seen.
        self.listener.listen(cx);
        loop {
            let now = Instant::now();
            let until = match self.look(now, room) {
                Due::Step(step) => return Poll::Ready(step),
                Due::Wait(until) => until,
                Due::Read(room, until) => {
                    if let Poll::Ready(read) = self.poll_read(cx, room) {
                        if let Some(step) = self.take(read) {
                            return Poll::Ready(step);
                        }
                        continue;
                    }
                    if self.opening.is_some() {
                        return Poll::Ready(self.open());
                    }
                    until
                }
            };
            ready!(self.alarm.poll_at(cx, now, until));
        }
    }

    fn lend(&mut self, connection: Weak<dyn Served>) {
        self.listener.lend(connection);
    }

    fn ready(&self) -> bool {
        let is_behind = self.behind() && self.reading.again().is_none();
        self.opening.is_some() || is_behind || (self.liveness == Liveness::PingPong && self.pacing.ping_due())
    }

    fn written(&mut self) {
        let handed = std::mem::replace(&mut self.handed, Handed::Nothing);
        if self.opening.is_some() && !matches!(handed, Handed::Nothing) {
            self.opening = None;
        }
        match handed {
            Handed::Nothing | Handed::Opening => {}
            Handed::Events { count, bytes, live } => {
                let after = self.position.seq;
                self.position = self.after(count);
                self.pacing.delivered(count, bytes);
                self.connection.carried.written(count, bytes, live);
                if live.is_some() && self.works.tracer.is_on() {
                    self.trace(after, self.position.seq);
                }
                if self.liveness == Liveness::Lease {
                    self.connection.reached(self.position.seq);
                }
                self.connection.sent(count, self.position, self.works.clock.millis());
                debug!(gateway.id = %self.connection.channel.gateway, connection.id = %self.connection.id, events = count, position = %self.position, "Events delivered.");
                self.reached(after, self.position);
            }
            Handed::Compacted { climbed, bytes } => self.climbed(&climbed, bytes),
            Handed::Ping(payload) => {
                let before = std::mem::replace(&mut self.pinged, Instant::now());
                self.life = life_at_ping(&self.works.timing, self.life, (before, self.pinged));
                debug!(connection.id = %self.connection.id, position = %self.position, "Ping sent.");
                self.pacing.pinged(*payload, self.pinged);
            }
        }
        if self.liveness == Liveness::WriteOnly {
            // All the life that can be seen of its peer.
            self.connection.heard(self.works.clock.millis());
        }
    }

    fn heard(&mut self, heard: Heard<'_>) {
        self.life = Instant::now();
        self.connection.heard(self.works.clock.millis());
        match heard {
            Heard::Life => {}
            Heard::Pong(payload) => {
                // A quick peer's pong may be read before the transport reports its ping as written.
                if matches!(&self.handed, Handed::Ping(sent) if **sent == payload) {
                    self.written();
                }
                debug!(connection.id = %self.connection.id, "Pong heard.");
                self.pacing.pong(payload, self.life);
                // Before the opening was written the peer does not know yet where it is.
                if self.opening.is_none() {
                    self.connection.pong(payload, self.given(), self.works.clock.now());
                }
            }
            Heard::Text(text) => self.reported(text),
        }
    }

    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        self.listener.listen(cx);
        loop {
            let now = Instant::now();
            let expired = self.has_expired(now).then_some(CloseReason::TokenExpired);
            // Who asks again from elsewhere reads this no more, and where it came from may be barred alone.
            let left = || self.hold.is_left().then_some(CloseReason::Superseded);
            if let Some(reason) = self.told_to_end().or(expired).filter(|reason| reason.silences()).or_else(left) {
                return Poll::Ready(reason);
            }
            ready!(self.alarm.poll_at(cx, now, self.expires));
        }
    }

    fn answered(&mut self, over: &Sever) {
        self.hold.answered(over);
    }

    fn rest(self: Box<Self>) -> Option<Box<dyn Ticket>> {
        let Hold::Leased(poll) = &self.hold else { return None };
        let goes_on = self.opening.is_none() && self.below.is_none() && matches!(self.handed, Handed::Nothing);
        goes_on.then(|| -> Box<dyn Ticket> {
            let (works, renewal) = (self.works.clone(), poll.renewal());
            Box::new(NextPoll::new(works, renewal, self.position))
        })
    }

    fn ended(&mut self, reason: CloseReason) {
        // What ends it is told of once, whichever of its polls that comes to first.
        if reason == CloseReason::Superseded || !self.hold.end(reason) {
            return;
        }
        let (works, state) = (&self.works, (self.liveness, self.given()));
        let registration = self.hold.registration();
        let undelivered = shortfall::at_the_end(&works.deliveries, registration, state, reason, works.clock.now());
        self.connection.carried.ended(reason);
        let identity = &self.connection.identity;
        if reason == CloseReason::WriteStalled {
            error!(
                gateway.id = %self.connection.channel.gateway, connection.id = %self.connection.id, ?reason, position = %self.position, undelivered,
                "Gateway cut off from {}: it does not take what is sent.", identity.transport,
            );
            return;
        }
        info!(
            gateway.id = %self.connection.channel.gateway, connection.id = %self.connection.id, ?reason, position = %self.position, undelivered,
            "Gateway disconnected from {}.", identity.transport,
        );
    }
}

/// Bytes of the messages of a step: they fit, as one message alone does and several only where there is room for them.
fn bytes_of(frames: &[Arc<Frame>]) -> u32 {
    count_of(frames.iter().map(|frame| frame.bytes().len()).sum())
}

fn count_of(many: usize) -> u32 {
    u32::try_from(many).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_takes_five_cache_lines() {
        assert!(size_of::<CursorSession>() <= 320, "{}", size_of::<CursorSession>());
    }
}
