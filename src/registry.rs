//! Who is connected: one map, one lock. A connection is in it as long as its [`Registration`] lives, so a count is
//! never out of step with what it counts; the limits are checked under the same lock that adds the entry.

mod connection;
mod moved;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gatecast_storage::directory::TokenId;
use gatecast_storage::{Cursor, Gateway, GatewayId, Replica, Seq};
use gatecast_transports::CloseReason;
use tokio::sync::Notify;

pub(crate) use self::connection::{Connection, Identity};
pub use self::connection::{ConnectionId, ConnectionInfo};

use crate::auth::Proof;
use crate::metrics::Traffic;
use crate::tail::Channel;

/// How many may be connected.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    /// Connections at once, of all gateways.
    pub total: usize,
    /// Connections at once, of one gateway.
    pub per_gateway: usize,
}

/// There is no room for another connection, or for another poll of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Full {
    /// The server has as many as it may.
    #[error("the server has as many connections as it may")]
    Server,
    /// The gateway has as many as it may.
    #[error("the gateway has as many connections as it may")]
    Gateway,
    /// The connection has as many polls as it may.
    #[error("the connection has as many polls under way as it may")]
    Polls,
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
    /// Told when connections were told to end; one listens.
    pub(crate) closing: Notify,
}

#[derive(Default)]
struct Entries {
    connections: HashMap<ConnectionId, Arc<Connection>>,
    by_gateway: BTreeSet<(GatewayId, ConnectionId)>,
    /// How many of these each gateway has: asked at each publish and each connect.
    counts: HashMap<GatewayId, usize>,
    by_token: BTreeSet<(TokenId, ConnectionId)>,
}

/// Keeps a connection registered while it lives.
pub(crate) struct Registration {
    pub(crate) connection: Arc<Connection>,
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
        if entries.count(channel.gateway) >= self.per_gateway_max.load(Ordering::Relaxed) {
            return Err(Full::Gateway);
        }
        let connection = Arc::new(Connection::new(identity, channel, carried, at));
        entries.by_gateway.insert((connection.channel.gateway, connection.id));
        *entries.counts.entry(connection.channel.gateway).or_default() += 1;
        if let Proof::Token(token) = connection.identity.proof {
            entries.by_token.insert((token, connection.id));
        }
        entries.connections.insert(connection.id, connection.clone());
        Ok(Registration { connection, registry: self.clone() })
    }

    /// How many connections a gateway has.
    #[must_use]
    pub fn connections_of(&self, gateway: GatewayId) -> usize {
        self.entries().count(gateway)
    }

    /// Whether a replica of a gateway is here that is given this event.
    pub(crate) fn gives(&self, gateway: GatewayId, event: Cursor) -> bool {
        self.entries().of_gateway(gateway).any(|connection| connection.is_given(event))
    }

    /// The replicas of a gateway that are here and were sent this event.
    pub(crate) fn replicas_with(&self, gateway: GatewayId, event: Cursor) -> Vec<Replica> {
        let entries = self.entries();
        let connections = entries.of_gateway(gateway);
        connections.filter(|one| one.was_sent(event.seq.prev(), event)).map(|one| one.replica()).collect()
    }

    /// How many connections there may be.
    #[must_use]
    pub fn connections_max(&self) -> usize {
        self.total_max.load(Ordering::Relaxed)
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
            let known = lowest.entry(connection.channel.gateway).or_insert(of);
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
        let all = (token, ConnectionId::LEAST)..=(token, ConnectionId::GREATEST);
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

    /// Ends the connections of a gateway that it no longer gives access to; of others, what was answered where it no longer
    /// gives access.
    pub fn close_barred(&self, gateway: &Gateway) {
        let mut barred = self.of_gateway(gateway.id);
        barred.retain(|connection| {
            let has_access = connection.has_access(gateway);
            if has_access {
                connection.silence_elsewhere(|address| !gateway.access.allows(address));
            }
            !has_access
        });
        self.close(&barred, |_| CloseReason::AccessWithdrawn);
    }

    /// Ends every connection, each with what `slot` gives it: the reason that tells it when to come back.
    pub(crate) fn drain(&self, slot: impl Fn(usize) -> CloseReason) {
        let all: Vec<_> = self.entries().connections.values().cloned().collect();
        self.close(&all, slot);
    }

    fn of_gateway(&self, gateway: GatewayId) -> Vec<Arc<Connection>> {
        self.entries().of_gateway(gateway).cloned().collect()
    }

    fn close(&self, connections: &[Arc<Connection>], reason: impl Fn(usize) -> CloseReason) {
        for (index, connection) in connections.iter().enumerate() {
            connection.close(reason(index));
        }
        // Kept for the one who listens, should it be busy with the ones before.
        self.closing.notify_one();
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        // Nothing that runs under the lock panics half way.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn count(&self, gateway: GatewayId) -> usize {
        self.counts.get(&gateway).copied().unwrap_or_default()
    }

    fn of_gateway(&self, gateway: GatewayId) -> impl Iterator<Item = &Arc<Connection>> {
        self.by_gateway.range(of(gateway)).filter_map(|(_, id)| self.connections.get(id))
    }

    fn remove(&mut self, connection: &Connection) {
        let gateway = connection.channel.gateway;
        self.connections.remove(&connection.id);
        self.by_gateway.remove(&(gateway, connection.id));
        if let Proof::Token(token) = connection.identity.proof {
            self.by_token.remove(&(token, connection.id));
        }
        match self.counts.get_mut(&gateway) {
            Some(count @ 2..) => *count -= 1,
            _ => drop(self.counts.remove(&gateway)),
        }
    }
}

impl Registration {
    /// Whether another connection of the replica has everything after `after` up to `up_to`.
    pub(crate) fn is_made_up_for(&self, replica: &Replica, after: Seq, up_to: Cursor) -> bool {
        let entries = self.registry.entries();
        let mut siblings = entries.of_gateway(self.connection.channel.gateway);
        siblings.any(|other| other.id != self.connection.id && other.has(replica, after, up_to))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.entries().remove(&self.connection);
    }
}

/// All connections of a gateway in an index by gateway.
fn of(gateway: GatewayId) -> RangeInclusive<(GatewayId, ConnectionId)> {
    (gateway, ConnectionId::LEAST)..=(gateway, ConnectionId::GREATEST)
}

#[cfg(test)]
mod tests {
    use gatecast_storage::Epoch;
    use uuid::Uuid;

    use super::*;
    use crate::tail::Tails;

    fn identity() -> Identity {
        Identity {
            proof: Proof::Token(TokenId(Uuid::nil())),
            instance: None,
            transport: "websocket",
            peer: "127.0.0.1".parse().unwrap(),
            connected_at: chrono::DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_gateway_has_as_many_connections_as_are_registered_and_room_again_once_they_are_gone() {
        let (registry, tails) = (Registry::new(Capacity { total: 9, per_gateway: 2 }), Tails::new());
        let gateways = [1, 2].map(|id| GatewayId(Uuid::from_u128(id)));
        let at = Cursor { epoch: Epoch(1), seq: Seq(0) };
        let enter = |gateway| registry.register(identity(), tails.channel(gateway), at);
        let counts = || gateways.map(|gateway| registry.connections_of(gateway));
        for _ in 0..3 {
            let [first, second, other] = [0, 0, 1].map(|of: usize| enter(gateways[of]).ok().unwrap());
            assert_eq!((counts(), enter(gateways[0]).err()), ([2, 1], Some(Full::Gateway)));
            drop(first);
            assert_eq!(counts(), [1, 1]);
            assert!(enter(gateways[0]).is_ok());
            drop((second, other));
            assert_eq!((counts(), registry.entries().counts.len()), ([0, 0], 0), "nothing is kept of who left");
        }
    }

    #[test]
    fn an_event_is_given_to_who_began_before_it_and_to_nobody_else() {
        let (registry, tails) = (Registry::new(Capacity { total: 9, per_gateway: 9 }), Tails::new());
        let [gateway, other] = [1, 2].map(|id| GatewayId(Uuid::from_u128(id)));
        let at = |seq| Cursor { epoch: Epoch(1), seq: Seq(seq) };
        let enter = |gateway, began| registry.register(identity(), tails.channel(gateway), began).ok().unwrap();
        let event = at(5);
        let _elsewhere = enter(other, at(4));
        assert!(!registry.gives(gateway, event));
        for (began, is_given) in [(at(0), true), (at(4), true), (at(5), false), (at(9), false)] {
            let of = enter(gateway, began);
            assert_eq!(registry.gives(gateway, event), is_given, "{began}");
            of.connection.moved(at(9));
            assert_eq!(registry.gives(gateway, event), is_given, "{began}");
            of.connection.set_since(Seq(0));
            assert!(registry.gives(gateway, event), "it came with a cursor, so it has all before");
        }
        let _of_another_life = enter(gateway, Cursor { epoch: Epoch(2), seq: Seq(9) });
        assert!(registry.gives(gateway, event), "it is led to this one");
    }
}
