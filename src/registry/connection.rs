//! One connection: who it is, how far it is, and whether it shall end. What changes is atomic or under a lock of its
//! own, so a session that moves on does not take the registry's lock.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use chrono::{DateTime, Utc};
use gatecast_storage::{Cursor, Epoch, Gateway, GatewayId, Replica, Seat, Seq};
use gatecast_transports::{Answered, CloseReason};
use tokio::time::Instant;
use uuid::Uuid;

use super::moved::Moved;
use crate::auth::Proof;
use crate::below::Below;
use crate::metrics::Carried;
use crate::tail::Channel;

/// One live connection, as its session and the rest of the server see it. In this order, so that a delivery looks at the
/// first two cache lines, as with [`crate::session::CursorSession`].
#[repr(C)]
pub(crate) struct Connection {
    /// State, not a queue: why it shall end, the gravest reason told so far.
    closing: Mutex<Option<CloseReason>>,
    pub(crate) channel: Arc<Channel>,
    /// The counts of its transport.
    pub(crate) carried: Arc<Carried>,
    position: AtomicU64,
    epoch: AtomicU64,
    events_sent: AtomicU64,
    /// How far its peer is, once it is admitted.
    seat: OnceLock<Seat>,
    /// When it was registered.
    pub(crate) began: Instant,
    heard_ms: AtomicI64,
    pub(crate) identity: Identity,
    pub(crate) id: ConnectionId,
    /// From here to its position its peer was written everything; before, it is not known what the peer has.
    since: AtomicU64,
    /// What a poll leaves for the next ones. Boxed: most connections have none.
    polled: Mutex<Option<Box<Polled>>>,
}

#[derive(Default)]
struct Polled {
    /// The furthest that a poll was ever answered; a later poll may ask for the same again.
    furthest: Seq,
    /// How far it is in the compacted state, while it is.
    below: Option<(Cursor, Below)>,
    /// Boxed once more: few are polled from more than one address.
    moved: Option<Box<Moved>>,
}

/// What a connection is, from its admission on.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) proof: Proof,
    pub(crate) instance: Option<Box<str>>,
    pub(crate) transport: &'static str,
    /// Where it began, which is what an anonymous replica is known by.
    pub(crate) peer: IpAddr,
    pub(crate) connected_at: DateTime<Utc>,
}

/// A connection's id, made by us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(Uuid);

impl ConnectionId {
    /// No id is before it.
    pub(super) const LEAST: Self = Self(Uuid::nil());
    /// No id is after it.
    pub(super) const GREATEST: Self = Self(Uuid::max());

    pub(crate) fn random() -> Self {
        Self(Uuid::new_v4())
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Uuid::parse_str(text).ok().map(Self)
    }
}

impl From<ConnectionId> for String {
    /// As it is displayed; a third of what `to_string` takes, which lets it grow.
    fn from(ConnectionId(id): ConnectionId) -> Self {
        let mut text = Uuid::encode_buffer();
        id.hyphenated().encode_lower(&mut text).to_owned()
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A connection as stats show it.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// Its gateway.
    pub gateway: GatewayId,
    /// Its id.
    pub connection: ConnectionId,
    /// Which replica of the gateway it is; `default` if it did not say.
    pub instance: String,
    /// The transport's name.
    pub transport: &'static str,
    /// Where it comes from.
    pub peer: IpAddr,
    /// When it was admitted.
    pub connected_at: DateTime<Utc>,
    /// Its last sign of life: anything heard, or for SSE a write that the socket took.
    pub last_heartbeat: DateTime<Utc>,
    /// Up to where it was written.
    pub position: Cursor,
    /// Events after that which its gateway's log is known to hold: all, if it is in another life of the log.
    pub lag: u64,
    /// Events written to it.
    pub events_sent: u64,
}

impl Connection {
    pub(super) fn new(identity: Identity, channel: Arc<Channel>, carried: Arc<Carried>, at: Cursor) -> Self {
        Self {
            id: ConnectionId::random(),
            heard_ms: AtomicI64::new(identity.connected_at.timestamp_millis()),
            identity,
            channel,
            carried,
            began: Instant::now(),
            closing: Mutex::default(),
            epoch: AtomicU64::new(u64::from(at.epoch.0)),
            position: AtomicU64::new(at.seq.0),
            since: AtomicU64::new(at.seq.0),
            events_sent: AtomicU64::new(0),
            seat: OnceLock::new(),
            polled: Mutex::default(),
        }
    }

    /// Why the connection shall end, if it shall.
    pub(crate) fn closing(&self) -> Option<CloseReason> {
        *self.closing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn close(&self, reason: CloseReason) {
        {
            let mut closing = self.closing.lock().unwrap_or_else(PoisonError::into_inner);
            // A revocation overrides a drain: from then on not one more byte may go out.
            if closing.is_none_or(|now| matches!(now, CloseReason::Shutdown { .. })) {
                *closing = Some(reason);
            }
        }
        self.channel.bell.ring();
    }

    pub(crate) fn heard(&self, at_ms: i64) {
        self.heard_ms.store(at_ms, Ordering::Relaxed);
    }

    pub(crate) fn moved(&self, to: Cursor) {
        self.epoch.store(u64::from(to.epoch.0), Ordering::Relaxed);
        self.position.store(to.seq.0, Ordering::Relaxed);
    }

    /// A poll asks for what follows `at`, and is given that. From another life of the log nothing is known of this one.
    pub(crate) fn goes_on(&self, at: Cursor) {
        let since = if self.position().epoch == at.epoch { self.since().min(at.seq) } else { Seq(0) };
        self.set_since(since);
        self.moved(at);
    }

    /// It is admitted: what is known of its peer from now on.
    pub(crate) fn take_seat(&self, seat: Seat) {
        // It is admitted once.
        let _ = self.seat.set(seat);
    }

    pub(crate) fn seat(&self) -> Option<&Seat> {
        self.seat.get()
    }

    /// Something was written to its peer: so many events, and it is up to here now.
    pub(crate) fn sent(&self, events: u32, to: Cursor, now_ms: i64) {
        self.moved(to);
        if let Some(seat) = self.seat() {
            seat.sent(to, now_ms);
        }
        self.events_sent.fetch_add(u64::from(events), Ordering::Relaxed);
    }

    /// A pong is a receipt of everything up to the position that its ping carried, if that was sent.
    pub(crate) fn pong(&self, payload: &[u8], sent: Cursor, now: DateTime<Utc>) {
        let to = std::str::from_utf8(payload).ok().and_then(|text| text.parse::<Cursor>().ok());
        if let Some(to) = to.filter(|to| to.epoch == sent.epoch && to.seq <= sent.seq) {
            self.confirmed(to, now);
        }
    }

    /// Its peer has received everything up to here.
    pub(crate) fn confirmed(&self, to: Cursor, now: DateTime<Utc>) {
        self.carried.confirmed();
        if let Some(seat) = self.seat() {
            seat.confirmed(to, now);
        }
    }

    /// After `seq` its peer has everything that it is to have up to its position: it said so, or begins there.
    pub(crate) fn set_since(&self, seq: Seq) {
        self.since.store(seq.0, Ordering::Relaxed);
    }

    /// Where what its peer is known to have up to its position begins.
    pub(crate) fn since(&self) -> Seq {
        Seq(self.since.load(Ordering::Relaxed))
    }

    /// A poll was answered up to here.
    pub(crate) fn reached(&self, to: Seq) {
        let mut polled = self.polled();
        let polled = polled.get_or_insert_default();
        polled.furthest = polled.furthest.max(to);
    }

    /// Up to here events may be written once more, on a connection of polls.
    pub(crate) fn furthest(&self) -> Seq {
        self.polled().as_ref().map_or(Seq(0), |polled| polled.furthest)
    }

    pub(crate) fn position(&self) -> Cursor {
        #[expect(clippy::cast_possible_truncation, reason = "stored from a u32")]
        let epoch = Epoch(self.epoch.load(Ordering::Relaxed) as u32);
        Cursor { epoch, seq: Seq(self.position.load(Ordering::Relaxed)) }
    }

    /// Whether it is a connection of the replica that has everything after `after` up to `up_to`.
    pub(super) fn has(&self, replica: &Replica, after: Seq, up_to: Cursor) -> bool {
        self.was_sent(after, up_to) && self.replica() == *replica
    }

    /// Whether its peer is given an event: it was sent it, or is not as far yet. In another life of the log it is led to
    /// this one.
    pub(super) fn is_given(&self, event: Cursor) -> bool {
        let position = self.position();
        position.epoch != event.epoch || position.seq < event.seq || self.was_sent(event.seq.prev(), event)
    }

    /// Whether it was sent everything after `after` up to `up_to`.
    pub(super) fn was_sent(&self, after: Seq, up_to: Cursor) -> bool {
        let (since, position) = (self.since(), self.position());
        position.epoch == up_to.epoch && since <= after && position.seq >= up_to.seq
    }

    /// Which replica it is, from its beginning to its end.
    pub(crate) fn replica(&self) -> Replica {
        Replica::of(self.identity.instance.as_deref(), self.identity.peer)
    }

    /// Where it comes from; if it is polled, where its latest poll did.
    pub(crate) fn address(&self) -> IpAddr {
        let polled = self.polled();
        let moved = polled.as_ref().and_then(|polled| polled.moved.as_ref());
        moved.map_or(self.identity.peer, |moved| moved.to)
    }

    /// From here it is polled now, after this was answered where it was until now; what was answered here before.
    pub(crate) fn go(&self, to: IpAddr, answered: Answered) -> Answered {
        let mut polled = self.polled();
        let moved = &mut polled.get_or_insert_default().moved;
        moved.get_or_insert_with(|| Box::new(Moved::from(self.identity.peer))).go(to, answered)
    }

    /// What was answered where it is polled from no more is thrown away, if it was one of these addresses.
    pub(crate) fn silence_elsewhere(&self, whose: impl Fn(IpAddr) -> bool) {
        if let Some(moved) = self.polled().as_mut().and_then(|polled| polled.moved.as_mut()) {
            moved.silence(whose);
        }
    }

    /// Whether its gateway, as it is now, would let it come as it comes.
    pub(super) fn has_access(&self, gateway: &Gateway) -> bool {
        let is_known = match &self.identity.proof {
            Proof::Token(_) => true,
            Proof::Certificate(name) => gateway.access.knows(name),
        };
        is_known && gateway.access.allows(self.address())
    }

    /// Remembers how far it is in the compacted state, or that it no longer is.
    pub(crate) fn set_below(&self, below: Option<(Cursor, Below)>) {
        self.polled().get_or_insert_default().below = below;
    }

    /// What was remembered, if it is of this cursor.
    pub(crate) fn below(&self, at: Cursor) -> Option<Below> {
        let known = self.polled().as_ref()?.below;
        known.filter(|known| known.0 == at).map(|known| known.1)
    }

    fn polled(&self) -> MutexGuard<'_, Option<Box<Polled>>> {
        self.polled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn info(&self) -> ConnectionInfo {
        let heard = DateTime::from_timestamp_millis(self.heard_ms.load(Ordering::Relaxed));
        let (position, head) = (self.position(), self.channel.head().0);
        ConnectionInfo {
            gateway: self.channel.gateway,
            connection: self.id,
            instance: self.identity.instance.as_deref().unwrap_or("default").to_owned(),
            transport: self.identity.transport,
            peer: self.address(),
            connected_at: self.identity.connected_at,
            last_heartbeat: heard.unwrap_or(self.identity.connected_at),
            position,
            lag: if self.channel.epoch() == Some(position.epoch) { head.saturating_sub(position.seq.0) } else { head },
            events_sent: self.events_sent.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_takes_four_cache_lines() {
        // An `Arc` adds its two counts.
        assert_eq!(size_of::<Connection>() + 2 * size_of::<usize>(), 256);
    }
}
