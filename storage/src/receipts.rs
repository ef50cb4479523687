//! Receipts: how far each replica of each gateway is, and what it made of events.
//!
//! - Kept per (gateway, [`Replica`]): at most [`INSTANCES_PER_GATEWAY_MAX`] replicas of a gateway, and of each
//!   [`EVENT_OUTCOMES_PER_INSTANCE_MAX`] outcomes of events, [`DEPLOYMENT_OUTCOMES_PER_INSTANCE_MAX`] of deployments and
//!   [`LEFT_MAX`] positions of connections that ended.
//! - All are in memory and written behind once a second at most; a crash may lose the last second, so a position on
//!   disk is never further than the true one: what a crash costs is duplicates.
//! - A row on disk holds all positions of a replica as they were at one moment.
//! - A replica that does not ask to be caught up has a row once it has received an event: idle ones cost none (4 KB of
//!   resident memory each in the store's cache, measured at 3,000 connections).
//!
//! # The stored position
//! A replica begins, when it asks for what the server kept ([`Receipts::stored`]), at the lowest of
//! - the confirmed positions of its live connections (one of them may be its own, dead and not yet noticed), and
//! - the confirmed positions of its connections that ended and that are still kept.
//!
//! A name is one replica: when it has come back, what was kept of its last connection is let go of, and a connection that
//! nothing was heard on since another came was dead, so that nothing is kept of it. If both were heard, two give the same
//! name, and they are treated as any that look alike:
//!
//! When one has come, the furthest of the kept positions is marked as taken ([`Receipts::enter`]). Several replicas
//! that look alike are so never skipped over: whichever of them it is, the others are no further back than what stays
//! unmarked. When a connection ends that was there already when somebody came, the mark moves to its position: that may
//! have been its own peer, coming back before it was noticed. A taken position is kept [`TAKEN_KEPT`] longer, as it may have been somebody else who came; one that nobody
//! came back for is kept [`LEFT_KEPT`], and the last one for ever.
//!
//! Replicas that give no name are told apart by their address. One that comes from a new address may be any of them,
//! moved: it begins at the lowest position of those that are here or left within [`LEFT_KEPT`], or of the last one.
//!
//! So duplicates come after an unconfirmed delivery and after a crash of the server (up to a second's worth); and for a
//! replica without a name when it reconnects within [`TAKEN_KEPT`] of its last reconnect (what it confirmed in between),
//! when it reconnects while its dead connection is not yet noticed (once more at each reconnect within [`LEFT_KEPT`]), and
//! when it comes from a new address. A name whose dead connection was not yet noticed when the server crashed is treated so
//! as well: it may have been another's. An event can be skipped only for replicas that share an address and of which one
//! stays away longer than these times while another comes and goes, or that share a name and are not here at once.
//!
//! Who reports an outcome of every event, one after the other, has received them, whether it says so or not. What a replica
//! says between two connections is of what the last one was sent.

mod book;
mod marks;
mod outcome;
mod positions;
mod replica;
mod seat;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use uuid::Uuid;

pub use self::book::INSTANCES_PER_GATEWAY_MAX;
pub use self::outcome::{
    DEPLOYMENT_OUTCOMES_PER_INSTANCE_MAX, ERROR_CODE_CHARS_MAX, EVENT_OUTCOMES_PER_INSTANCE_MAX, MESSAGE_CHARS_MAX,
    Outcome, Reported, Subject,
};
pub use self::positions::{LEFT_KEPT, LEFT_MAX, TAKEN_KEPT};
pub use self::replica::{ANONYMOUS_INSTANCE, Replica};
pub use self::seat::Seat;

use self::book::OfGateway;
use self::seat::SeatState;
use crate::clock::Clock;
use crate::ids::{Cursor, Epoch, GatewayId, Seq};
use crate::records::{Change, Records, StoreError, Table, each_row};
use crate::write_behind::{Source, WriteBehind};

/// The pause between two rounds of writing.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// The receipts of all gateways.
pub struct Receipts {
    shared: Arc<Shared>,
    writer: Arc<WriteBehind<Shared>>,
}

/// Where a connection begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// After this: its replica has everything before, as it says or as is kept of it.
    After(Cursor),
    /// At the end of the log, which is there: what its replica has of what comes before is not known.
    AtTheEnd(Cursor),
}

impl Start {
    fn at(self) -> Cursor {
        let (Self::After(at) | Self::AtTheEnd(at)) = self;
        at
    }
}

/// How far a replica is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaInfo {
    /// Which.
    pub replica: Replica,
    /// How many connections it has.
    pub connections: usize,
    /// Up to here it is known to have received everything.
    pub position: Option<Cursor>,
    /// When it last said anything of that kind.
    pub last_receipt: Option<DateTime<Utc>>,
}

/// What is known of one event at one replica. A time may be forgotten where the fact is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    /// Which replica.
    pub replica: Replica,
    /// Whether it is connected.
    pub is_connected: bool,
    /// Whether the event was written to it.
    pub is_sent: bool,
    /// When, first.
    pub sent_at: Option<DateTime<Utc>>,
    /// Whether it confirmed to have received it.
    pub is_received: bool,
    /// When.
    pub received_at: Option<DateTime<Utc>>,
    /// What it made of it.
    pub outcome: Option<Outcome>,
}

struct Shared {
    gateways: RwLock<HashMap<GatewayId, Arc<Mutex<OfGateway>>>>,
    /// Rows to be written, each with how often it was soiled: one that was soiled again is not clean after a commit.
    dirty: Mutex<BTreeMap<RowKey, u64>>,
    clock: Arc<dyn Clock>,
    /// Set right after the start; seats must not keep the writer alive.
    writer: OnceLock<Weak<WriteBehind<Shared>>>,
}

/// A row; without a replica a gateway's anchor.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct RowKey {
    gateway: GatewayId,
    replica: Option<Replica>,
    table: Table,
}

impl Receipts {
    /// Loads what `records` holds and starts to write behind.
    ///
    /// # Errors
    /// If the store cannot be read, or holds a row that this version does not understand.
    pub async fn open(records: Arc<dyn Records>, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let gateways = load(&*records, clock.now()).await?;
        let shared = Arc::new(Shared {
            gateways: RwLock::new(gateways),
            dirty: Mutex::default(),
            clock,
            writer: OnceLock::new(),
        });
        let writer = Arc::new(WriteBehind::start(Arc::clone(&shared), records, WRITE_EVERY, "Receipts"));
        // Nobody else has it yet, so it is not set.
        let _ = shared.writer.set(Arc::downgrade(&writer));
        Ok(Self { shared, writer })
    }

    /// Where the replica begins if it asks for what is kept of it; `epoch` is the present life of the log. `None` if
    /// nothing is known of it, nor, for an anonymous one, of any that it might be.
    #[must_use]
    pub fn stored(&self, gateway: GatewayId, of: &Replica, epoch: Epoch) -> Option<Cursor> {
        let now = self.shared.clock.now();
        self.shared.look(gateway, |kept| kept.stored(of, epoch, now))?
    }

    /// Up to where it is known that the replica was not sent everything; `epoch` is the present life of the log.
    #[must_use]
    pub fn skipped(&self, gateway: GatewayId, of: &Replica, epoch: Epoch) -> Option<Seq> {
        self.shared.look(gateway, |kept| kept.skipped(of, epoch))?
    }

    /// Where a replica begins of which nothing is known, if that was set.
    #[must_use]
    pub fn anchor(&self, gateway: GatewayId) -> Option<Cursor> {
        self.shared.look(gateway, |kept| kept.anchor)?
    }

    /// Sets where replicas begin of which nothing is known.
    pub fn set_anchor(&self, gateway: GatewayId, at: Cursor) {
        lock(&self.shared.gateway(gateway)).anchor = Some(at);
        self.shared.soil(RowKey { gateway, replica: None, table: Table::Positions });
    }

    /// Unsets it.
    pub fn clear_anchor(&self, gateway: GatewayId) {
        if self.shared.look(gateway, |kept| kept.anchor.take()).flatten().is_some() {
            self.shared.soil(RowKey { gateway, replica: None, table: Table::Positions });
        }
    }

    /// A connection of a replica begins. With `keep` that is on disk within a second; without, for a replica
    /// that does not ask to be caught up, once it has received an event: most that idle then cost no row.
    #[must_use]
    pub fn enter(&self, gateway: GatewayId, replica: Replica, start: Start, keep: bool) -> Seat {
        let now = self.shared.clock.now();
        let (state, forgotten, has_row) = lock(&self.shared.gateway(gateway)).enter(&replica, start, now);
        for forgotten in forgotten {
            self.shared.soil_all(gateway, forgotten);
        }
        if keep || has_row {
            self.shared.moved(gateway, &replica, &state);
        }
        Seat::new(Arc::clone(&self.shared), gateway, replica, state)
    }

    /// The replica says on another way than a connection that it received everything up to `to`. `false` if that is not
    /// taken: neither its connection nor, if it has none, its last one was sent so much, as far as is known (a restart
    /// forgets that); or it gives no name and has several, so that it is not known whose word it is.
    pub fn received(&self, gateway: GatewayId, of: &Replica, to: Cursor) -> bool {
        let now = self.shared.clock.now();
        let confirmed = self.shared.look(gateway, |kept| kept.confirm(of, to, now)).flatten();
        self.shared.soil_confirmed(gateway, of, confirmed);
        confirmed.is_some()
    }

    /// Keeps what a replica made of an event, which is known by this name. A success stands. Whoever reports of one event
    /// after the other has received them.
    pub fn report(
        &self,
        gateway: GatewayId,
        of: &Replica,
        (subject, event): (Subject, Option<Cursor>),
        outcome: Outcome,
    ) -> Reported {
        let now = self.shared.clock.now();
        let reported = self.shared.look(gateway, |kept| {
            let reported = kept.report(of, subject, outcome);
            let received = event.and_then(|event| kept.reported_up_to(of, event));
            (reported, received.and_then(|to| kept.confirm(of, to, now)))
        });
        let (reported, confirmed) = reported.unwrap_or((Reported::Unknown, None));
        self.shared.soil_confirmed(gateway, of, confirmed);
        if reported == Reported::New {
            self.shared.soil(RowKey { gateway, replica: Some(of.clone()), table: Table::Outcomes });
        }
        reported
    }

    /// What each replica made of one thing that has these names: those that are connected or reported.
    #[must_use]
    pub fn outcomes(&self, gateway: GatewayId, of: &[Subject]) -> Vec<(Replica, Option<Outcome>)> {
        let all = self.shared.look(gateway, |kept| kept.outcomes(of)).unwrap_or_default();
        all.into_iter().map(|(replica, _, outcome)| (replica, outcome)).collect()
    }

    /// Whether a replica has applied one thing that has these names.
    #[must_use]
    pub fn has_applied(&self, gateway: GatewayId, replica: &Replica, of: &[Subject]) -> bool {
        self.shared.look(gateway, |kept| kept.has_applied(replica, of)).unwrap_or(false)
    }

    /// The replicas of a gateway that are known.
    #[must_use]
    pub fn replicas(&self, gateway: GatewayId, epoch: Epoch) -> Vec<ReplicaInfo> {
        let now = self.shared.clock.now();
        self.shared.look(gateway, |kept| kept.replicas(epoch, now)).unwrap_or_default()
    }

    /// How far one event has come at each replica; `deployment` is the one it is about.
    #[must_use]
    pub fn timeline(&self, gateway: GatewayId, event: Cursor, deployment: Option<Uuid>) -> Vec<Passage> {
        let subjects: Vec<_> = [Subject::Event(event)].into_iter().chain(deployment.map(Subject::Deployment)).collect();
        self.shared.look(gateway, |kept| kept.timeline(event, &subjects)).unwrap_or_default()
    }

    /// The gateways of which something is kept.
    #[must_use]
    pub fn gateways(&self) -> Vec<GatewayId> {
        self.shared.gateways.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Drops what is kept of a gateway.
    pub fn forget(&self, gateway: GatewayId) {
        let gone = self.shared.map_mut().remove(&gateway);
        let Some(gone) = gone else { return };
        let replicas: Vec<_> = lock(&gone).known().cloned().collect();
        replicas.into_iter().for_each(|replica| self.shared.soil_all(gateway, replica));
        self.shared.soil(RowKey { gateway, replica: None, table: Table::Positions });
    }

    /// Returns once everything so far is handed to the store; for shutdown, before the store's own flush.
    ///
    /// # Errors
    /// If the store cannot be written now.
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.writer.flush().await
    }
}

impl Shared {
    fn gateway(&self, id: GatewayId) -> Arc<Mutex<OfGateway>> {
        let known = self.gateways.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        known.unwrap_or_else(|| Arc::clone(self.map_mut().entry(id).or_default()))
    }

    fn look<T>(&self, id: GatewayId, look: impl FnOnce(&mut OfGateway) -> T) -> Option<T> {
        let known = self.gateways.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        known.map(|kept| look(&mut lock(&kept)))
    }

    fn map_mut(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<GatewayId, Arc<Mutex<OfGateway>>>> {
        self.gateways.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, gateway: GatewayId, replica: &Replica, seat: &Arc<SeatState>) {
        let now = self.clock.now();
        if self.look(gateway, |kept| kept.leave(replica, seat, now)).is_some_and(|has_row| has_row) {
            self.soil(RowKey { gateway, replica: Some(replica.clone()), table: Table::Positions });
        }
    }

    /// A position moved. Most find their row dirty already and are done.
    fn moved(&self, gateway: GatewayId, replica: &Replica, seat: &SeatState) {
        if seat.soil() {
            self.soil(RowKey { gateway, replica: Some(replica.clone()), table: Table::Positions });
        }
    }

    /// As [`OfGateway::confirm`] says.
    fn soil_confirmed(&self, gateway: GatewayId, replica: &Replica, confirmed: Option<bool>) {
        if confirmed == Some(true) {
            self.soil(RowKey { gateway, replica: Some(replica.clone()), table: Table::Positions });
        }
    }

    fn soil_all(&self, gateway: GatewayId, replica: Replica) {
        self.soil(RowKey { gateway, replica: Some(replica.clone()), table: Table::Positions });
        self.soil(RowKey { gateway, replica: Some(replica), table: Table::Outcomes });
    }

    fn soil(&self, row: RowKey) {
        *lock(&self.dirty).entry(row).or_default() += 1;
        if let Some(writer) = self.writer.get().and_then(Weak::upgrade) {
            writer.wake();
        }
    }
}

impl Source for Shared {
    type Row = (RowKey, u64);

    fn dirty_rows(&self, max: usize) -> Result<(Vec<Self::Row>, Vec<Change>), StoreError> {
        let rows: Vec<_> = lock(&self.dirty).iter().take(max).map(|(key, times)| (key.clone(), *times)).collect();
        let mut changes = Vec::with_capacity(rows.len());
        for (key, _) in &rows {
            let row = self.look(key.gateway, |kept| match (&key.replica, key.table) {
                (None, _) => Ok(kept.anchor.map(|at| Bytes::from(at.to_string()))),
                (Some(replica), Table::Outcomes) => kept.outcomes_row(replica),
                (Some(replica), _) => kept.positions_row(replica),
            });
            let row = row.transpose()?.flatten();
            changes.push(Change { table: key.table, key: key.bytes(), row });
        }
        Ok((rows, changes))
    }

    fn written(&self, rows: &[Self::Row]) {
        let mut dirty = lock(&self.dirty);
        for (key, times) in rows {
            if dirty.get(key) == Some(times) {
                dirty.remove(key);
            }
        }
    }
}

impl RowKey {
    /// The gateway first: its length is fixed, so the key is unambiguous.
    fn bytes(&self) -> Bytes {
        let mut key = self.gateway.0.as_bytes().to_vec();
        if let Some(replica) = &self.replica {
            key.extend_from_slice(replica.key().as_bytes());
        }
        key.into()
    }

    fn parse(table: Table, key: &[u8]) -> Option<Self> {
        let (gateway, replica) = key.split_at_checked(16)?;
        let gateway = GatewayId(Uuid::from_slice(gateway).ok()?);
        if replica.is_empty() {
            return Some(Self { gateway, replica: None, table });
        }
        let replica = Some(Replica::parse(std::str::from_utf8(replica).ok()?)?);
        Some(Self { gateway, replica, table })
    }
}

async fn load(
    records: &dyn Records,
    now: DateTime<Utc>,
) -> Result<HashMap<GatewayId, Arc<Mutex<OfGateway>>>, StoreError> {
    let mut gateways: HashMap<GatewayId, OfGateway> = HashMap::new();
    let malformed = || StoreError::Malformed("receipts: a key".to_owned());
    for table in [Table::Positions, Table::Outcomes] {
        each_row(records, table, |key, row| {
            let key = RowKey::parse(table, &key).ok_or_else(malformed)?;
            let kept = gateways.entry(key.gateway).or_default();
            match (key.replica, table) {
                (Some(replica), Table::Outcomes) => kept.load_outcomes(replica, &row)?,
                (Some(replica), _) => kept.load_positions(replica, &row, now)?,
                (None, _) => {
                    kept.anchor = std::str::from_utf8(&row).ok().and_then(|text| text.parse().ok());
                }
            }
            Ok(())
        })
        .await?;
    }
    Ok(gateways.into_iter().map(|(id, kept)| (id, Arc::new(Mutex::new(kept)))).collect())
}

/// A poisoned lock is used on: no step under it can panic half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
