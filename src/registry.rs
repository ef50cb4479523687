//! Who is connected: one map, one lock. A connection is in it as long as its [`Registration`] lives, so a count is
//! never out of step with what it counts; the limits are checked under the same lock that adds the entry.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use gatecast_storage::directory::TokenId;
use gatecast_storage::{Cursor, Epoch, Gateway, GatewayId, Replica, Seat, Seq};
use gatecast_transports::CloseReason;
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use crate::auth::Proof;
use crate::below::Below;
use crate::metrics::{Carried, Traffic};
use crate::tail::Channel;

/// A connection's id, made by us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(Uuid);

impl ConnectionId {
    pub(crate) fn random() -> Self {
        Self(Uuid::new_v4())
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Uuid::parse_str(text).ok().map(Self)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many may be connected.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    /// Connections at once, of all gateways.
    pub total: usize,
    /// Connections at once, of one gateway.
    pub per_gateway: usize,
}

/// There is no room for another connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The server has as many as it may.
    #[error("the server has as many connections as it may")]
    Server,
    /// The gateway has as many as it may.
    #[error("the gateway has as many connections as it may")]
    Gateway,
}

/// What a connection is, from its admission on.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) gateway: GatewayId,
    pub(crate) proof: Proof,
    pub(crate) instance: Option<Box<str>>,
    pub(crate) transport: &'static str,
    pub(crate) peer: IpAddr,
    pub(crate) connected_at: DateTime<Utc>,
}

impl Identity {
    /// Whether its gateway, as it is now, would let it come as it came.
    fn has_access(&self, gateway: &Gateway) -> bool {
        let is_known = match &self.proof {
            Proof::Token(_) => true,
            Proof::Certificate(name) => gateway.access.knows(name),
        };
        is_known && gateway.access.allows(self.peer)
    }
}

/// One live connection, as its session and the rest of the server see it.
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) identity: Identity,
    pub(crate) channel: Arc<Channel>,
    /// The counts of its transport.
    pub(crate) carried: Arc<Carried>,
    /// When it was registered.
    pub(crate) began: Instant,
    /// State, not a queue: why it shall end, the gravest reason told so far.
    closing: Mutex<Option<CloseReason>>,
    heard_ms: AtomicI64,
    epoch: AtomicU64,
    position: AtomicU64,
    /// From here to its position its peer was written everything; before, it is not known what the peer has.
    since: AtomicU64,
    events_sent: AtomicU64,
    /// The furthest that a poll was ever answered; a later poll may ask for the same again.
    furthest: AtomicU64,
    /// How far it is in the compacted state, while it is: for the next poll of a lease.
    below: Mutex<Option<Box<(Cursor, Below)>>>,
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
    /// Events after that which its gateway's log is known to hold.
    pub lag: u64,
    /// Events written to it.
    pub events_sent: u64,
}

/// The connection of a gateway that is furthest behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lowest {
    /// Up to where it was written.
    pub(crate) position: Cursor,
    /// Events after that.
    pub(crate) events: u64,
}

/// All live connections.
pub struct Registry {
    total_max: AtomicUsize,
    per_gateway_max: AtomicUsize,
    entries: Mutex<Entries>,
    /// What went over their transports.
    pub(crate) traffic: Traffic,
    /// Told when connections were told to end.
    pub(crate) closing: Notify,
}

#[derive(Default)]
struct Entries {
    connections: HashMap<ConnectionId, Arc<Connection>>,
    by_gateway: BTreeSet<(GatewayId, ConnectionId)>,
    by_token: BTreeSet<(TokenId, ConnectionId)>,
}

/// Keeps a connection registered while it lives.
pub(crate) struct Registration {
    pub(crate) connection: Arc<Connection>,
    /// How far its peer is; set once it is admitted.
    pub(crate) seat: Option<Seat>,
    registry: Arc<Registry>,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new(capacity: Capacity) -> Arc<Self> {
        Arc::new(Self {
            total_max: AtomicUsize::new(capacity.total),
            per_gateway_max: AtomicUsize::new(capacity.per_gateway),
            entries: Mutex::default(),
            traffic: Traffic::default(),
            closing: Notify::new(),
        })
    }

    /// Holds so many from now on. Those that are there stay.
    pub fn set_capacity(&self, capacity: Capacity) {
        self.total_max.store(capacity.total, Ordering::Relaxed);
        self.per_gateway_max.store(capacity.per_gateway, Ordering::Relaxed);
    }

    /// Adds a connection if there is room for it.
    pub(crate) fn register(
        self: &Arc<Self>,
        identity: Identity,
        channel: Arc<Channel>,
        at: Cursor,
    ) -> Result<Registration, Full> {
        let carried = self.traffic.of(identity.transport);
        let mut entries = self.entries();
        if entries.connections.len() >= self.total_max.load(Ordering::Relaxed) {
            return Err(Full::Server);
        }
        if entries.by_gateway.range(of(identity.gateway)).count() >= self.per_gateway_max.load(Ordering::Relaxed) {
            return Err(Full::Gateway);
        }
        let connection = Arc::new(Connection {
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
            furthest: AtomicU64::new(0),
            below: Mutex::default(),
        });
        entries.by_gateway.insert((connection.identity.gateway, connection.id));
        if let Proof::Token(token) = connection.identity.proof {
            entries.by_token.insert((token, connection.id));
        }
        entries.connections.insert(connection.id, connection.clone());
        Ok(Registration { connection, seat: None, registry: self.clone() })
    }

    /// How many connections a gateway has.
    #[must_use]
    pub fn connections_of(&self, gateway: GatewayId) -> usize {
        self.entries().by_gateway.range(of(gateway)).count()
    }

    /// How many connections there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries().connections.len()
    }

    /// Whether nobody is connected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The connections of one gateway, or all, oldest first.
    #[must_use]
    pub fn connections(&self, gateway: Option<GatewayId>) -> Vec<ConnectionInfo> {
        let mut all: Vec<_> = match gateway {
            Some(gateway) => self.of_gateway(gateway).iter().map(|c| c.info()).collect(),
            None => self.entries().connections.values().map(|c| c.info()).collect(),
        };
        all.sort_by_key(|c| (c.connected_at, c.connection));
        all
    }

    /// How many connections there are over each transport that has any.
    pub(crate) fn by_transport(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for connection in self.entries().connections.values() {
            *counts.entry(connection.identity.transport).or_default() += 1;
        }
        counts
    }

    /// Of each gateway that is connected, the connection that is furthest behind.
    pub(crate) fn positions(&self) -> HashMap<GatewayId, Lowest> {
        let mut lowest: HashMap<GatewayId, Lowest> = HashMap::new();
        for connection in self.entries().connections.values() {
            let position = connection.position();
            let of = Lowest { position, events: connection.channel.head().0.saturating_sub(position.seq.0) };
            let known = lowest.entry(connection.identity.gateway).or_insert(of);
            if known.events < of.events {
                *known = of;
            }
        }
        lowest
    }

    /// Events written to connections since the server started.
    #[must_use]
    pub fn events_sent_total(&self) -> u64 {
        self.traffic.all().values().map(|carried| carried.events_total()).sum()
    }

    /// Ends the connections of a token, which was revoked.
    pub fn close_token(&self, token: TokenId) {
        let all = (token, ConnectionId(Uuid::nil()))..=(token, ConnectionId(Uuid::max()));
        let closing: Vec<_> = {
            let entries = self.entries();
            entries.by_token.range(all).filter_map(|(_, id)| entries.connections.get(id).cloned()).collect()
        };
        self.close(&closing, |_| CloseReason::TokenRevoked);
    }

    /// Ends the connections of a gateway, which was deleted.
    pub fn close_gateway(&self, gateway: GatewayId) {
        self.close(&self.of_gateway(gateway), |_| CloseReason::GatewayDeleted);
    }

    /// Ends the connections of a gateway that it no longer gives access to.
    pub fn close_barred(&self, gateway: &Gateway) {
        let mut barred = self.of_gateway(gateway.id);
        barred.retain(|connection| !connection.identity.has_access(gateway));
        self.close(&barred, |_| CloseReason::AccessWithdrawn);
    }

    /// Ends every connection, each with what `slot` gives it: the reason that tells it when to come back.
    pub(crate) fn drain(&self, slot: impl Fn(usize) -> CloseReason) {
        let all: Vec<_> = self.entries().connections.values().cloned().collect();
        self.close(&all, slot);
    }

    fn of_gateway(&self, gateway: GatewayId) -> Vec<Arc<Connection>> {
        let entries = self.entries();
        entries.by_gateway.range(of(gateway)).filter_map(|(_, id)| entries.connections.get(id).cloned()).collect()
    }

    fn close(&self, connections: &[Arc<Connection>], reason: impl Fn(usize) -> CloseReason) {
        for (index, connection) in connections.iter().enumerate() {
            connection.close(reason(index));
        }
        self.closing.notify_waiters();
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        // Nothing that runs under the lock panics half way.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
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

    /// After `seq` its peer has everything that it is to have up to its position: it said so, or begins there.
    pub(crate) fn set_since(&self, seq: Seq) {
        self.since.store(seq.0, Ordering::Relaxed);
    }

    /// A poll was answered up to here.
    pub(crate) fn reached(&self, to: Seq) {
        self.furthest.fetch_max(to.0, Ordering::Relaxed);
    }

    /// Up to here events may be written once more, on a connection of polls.
    pub(crate) fn furthest(&self) -> Seq {
        Seq(self.furthest.load(Ordering::Relaxed))
    }

    pub(crate) fn position(&self) -> Cursor {
        #[expect(clippy::cast_possible_truncation, reason = "stored from a u32")]
        let epoch = Epoch(self.epoch.load(Ordering::Relaxed) as u32);
        Cursor { epoch, seq: Seq(self.position.load(Ordering::Relaxed)) }
    }

    /// Whether it is a connection of the replica that has everything after `after` up to `up_to`.
    fn has(&self, replica: &Replica, after: Seq, up_to: Cursor) -> bool {
        let (since, position) = (Seq(self.since.load(Ordering::Relaxed)), self.position());
        position.epoch == up_to.epoch
            && since <= after
            && position.seq >= up_to.seq
            && Replica::of(self.identity.instance.as_deref(), self.identity.peer) == *replica
    }

    /// Remembers how far it is in the compacted state, or that it no longer is.
    pub(crate) fn set_below(&self, below: Option<(Cursor, Below)>) {
        *self.below.lock().unwrap_or_else(PoisonError::into_inner) = below.map(Box::new);
    }

    /// What was remembered, if it is of this cursor.
    pub(crate) fn below(&self, at: Cursor) -> Option<Below> {
        let known = self.below.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().filter(|known| known.0 == at).map(|known| known.1)
    }

    fn info(&self) -> ConnectionInfo {
        let heard = DateTime::from_timestamp_millis(self.heard_ms.load(Ordering::Relaxed));
        let position = self.position();
        ConnectionInfo {
            gateway: self.identity.gateway,
            connection: self.id,
            instance: self.identity.instance.as_deref().unwrap_or("default").to_owned(),
            transport: self.identity.transport,
            peer: self.identity.peer,
            connected_at: self.identity.connected_at,
            last_heartbeat: heard.unwrap_or(self.identity.connected_at),
            position,
            lag: self.channel.head().0.saturating_sub(position.seq.0),
            events_sent: self.events_sent.load(Ordering::Relaxed),
        }
    }
}

impl Registration {
    /// A pong is a receipt of everything up to the position that its ping carried, if that was sent.
    pub(crate) fn pong(&self, payload: &[u8], sent: Cursor, now: DateTime<Utc>) {
        let to = std::str::from_utf8(payload).ok().and_then(|text| text.parse::<Cursor>().ok());
        if let Some(to) = to.filter(|to| to.epoch == sent.epoch && to.seq <= sent.seq) {
            self.confirmed(to, now);
        }
    }

    /// The peer has received everything up to here.
    pub(crate) fn confirmed(&self, to: Cursor, now: DateTime<Utc>) {
        self.connection.carried.confirmed();
        if let Some(seat) = &self.seat {
            seat.confirmed(to, now);
        }
    }

    /// Whether another connection of the replica has everything after `after` up to `up_to`.
    pub(crate) fn is_made_up_for(&self, replica: &Replica, after: Seq, up_to: Cursor) -> bool {
        let entries = self.registry.entries();
        let siblings = entries.by_gateway.range(of(self.connection.identity.gateway));
        let siblings = siblings.filter(|(_, id)| *id != self.connection.id);
        siblings.filter_map(|(_, id)| entries.connections.get(id)).any(|other| other.has(replica, after, up_to))
    }

    /// Something was written to the peer: so many events, and it is up to here now.
    pub(crate) fn sent(&self, events: usize, to: Cursor, now_ms: i64) {
        self.connection.moved(to);
        if let Some(seat) = &self.seat {
            seat.sent(to, now_ms);
        }
        self.connection.events_sent.fetch_add(events as u64, Ordering::Relaxed);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut entries = self.registry.entries();
        let connection = &self.connection;
        entries.connections.remove(&connection.id);
        entries.by_gateway.remove(&(connection.identity.gateway, connection.id));
        if let Proof::Token(token) = connection.identity.proof {
            entries.by_token.remove(&(token, connection.id));
        }
    }
}

/// All connections of a gateway in an index by gateway.
fn of(gateway: GatewayId) -> RangeInclusive<(GatewayId, ConnectionId)> {
    (gateway, ConnectionId(Uuid::nil()))..=(gateway, ConnectionId(Uuid::max()))
}
