//! Leases: a long-poll connection outlives each of its polls by the limit of silence.
//!
//! A lease holds its connection's registration, and one task ends what nobody came back for, at its deadline exactly. The
//! task looks at a lease when the deadline has come that it had when it was put in line; if polls have come since, that is
//! when it gets its new place. So a poll costs two additions and no move in the order of all leases. A poll finds its
//! connection by `connectionId`, or else by who asks: proof, instance and address; one that follows another on its socket,
//! by the [`Renewal`] which that has left.
//!
//! Polls that name their connection may come from wherever they like, as behind a pool of addresses. It is where its latest
//! one is: polls from elsewhere that are under way end then, so that nothing goes on where its gateway may be barred.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use gatecast_storage::{Clock, Deliveries};
use gatecast_transports::{Answered, CloseReason, Liveness, NOTICED_WITHIN, Sever};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info};

use crate::auth::{Proof, Proven, Validity};
use crate::registry::{ConnectionId, Full, Registration, Registry};
use crate::shortfall;

/// Polls of a connection under way at once: they overlap where a client's replicas look alike, of which a gateway has as
/// many by default, and each takes what a connection does.
const POLLS_MAX: usize = 64;

/// Who polls, when it doesn't say which connection it renews.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Client {
    pub(crate) proof: Proof,
    pub(crate) instance: Option<Box<str>>,
    pub(crate) address: IpAddr,
}

/// All long-poll connections.
pub struct Leases {
    limit: Duration,
    registry: Arc<Registry>,
    deliveries: Arc<Deliveries>,
    clock: Arc<dyn Clock>,
    table: Mutex<Table>,
    changed: tokio::sync::Notify,
}

#[derive(Default)]
struct Table {
    leases: HashMap<ConnectionId, Arc<Lease>>,
    /// The newest connection of each client, for polls that name none.
    by_client: HashMap<Client, ConnectionId>,
    /// When to look at which lease: every one without a poll under way is here, no later than it runs out.
    looks: BTreeSet<(Instant, ConnectionId)>,
}

struct Lease {
    registration: Registration,
    client: Client,
    /// Taken after the table, never before it.
    polls: Mutex<Polls>,
    /// Counts the polls that named the connection: the latest one is the one that counts.
    named: AtomicU64,
    /// How often it was polled from another address than before. Changed under the table's lock.
    moves: AtomicU64,
    /// It is in the table no more.
    is_over: AtomicBool,
}

struct Polls {
    under_way: usize,
    /// Until when it lives with none.
    until: Instant,
    /// It is among the looks of the table.
    in_line: bool,
    /// Where its polls were answered, of those from where it is.
    answered: Answered,
}

/// One poll of a connection. While it lives the lease does not run out.
pub(crate) struct Poll {
    leases: Arc<Leases>,
    lease: Arc<Lease>,
    /// Its number among those that named the connection; `None` if it named none and may overlap others.
    number: Option<u64>,
    /// How often the connection had moved before.
    moves: u64,
    /// How long it holds who its client is.
    valid: Validity,
}

/// Finds the lease of a poll that has ended, and does not keep it.
pub(crate) struct Renewal {
    leases: Arc<Leases>,
    lease: Weak<Lease>,
    names_it: bool,
    moves: u64,
    pub(crate) valid: Validity,
}

impl Leases {
    /// No leases yet. One runs out `limit` after its last poll; [`Leases::expire`] must run for that.
    #[must_use]
    pub fn new(
        limit: Duration,
        registry: Arc<Registry>,
        deliveries: Arc<Deliveries>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let changed = tokio::sync::Notify::new();
        Arc::new(Self { limit, registry, deliveries, clock, table: Mutex::default(), changed })
    }

    /// A new connection's first poll.
    pub(crate) fn open(self: &Arc<Self>, registration: Registration, client: Client, valid: Validity) -> Poll {
        let id = registration.connection.id;
        let lease = Arc::new(Lease {
            registration,
            client: client.clone(),
            polls: Mutex::new(Polls {
                under_way: 1,
                until: Instant::now(),
                in_line: false,
                answered: Answered::default(),
            }),
            named: AtomicU64::new(0),
            moves: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        });
        let mut table = self.table();
        table.leases.insert(id, lease.clone());
        table.by_client.insert(client, id);
        Poll { leases: self.clone(), lease, number: None, moves: 0, valid }
    }

    /// A poll of a live connection: of the one it names, if that was opened with the same proof, or else of the client's.
    ///
    /// # Errors
    /// If that has as many as it may.
    pub(crate) fn renew(
        self: &Arc<Self>,
        named: Option<ConnectionId>,
        (proven, address): (&Proven, IpAddr),
        client: impl FnOnce() -> Client,
    ) -> Result<Option<Poll>, Full> {
        let table = self.table();
        let id = named.or_else(|| table.by_client.get(&client()).copied());
        let lease = id.and_then(|id| table.leases.get(&id)).filter(|lease| lease.client.proof == proven.proof);
        // Who names none has the one that is where it was opened.
        let lease = lease.filter(|lease| named.is_some() || lease.address() == address).cloned();
        lease.map_or(Ok(None), |lease| self.begin(table, lease, (named.is_some(), Some(address)), proven.valid))
    }

    /// A poll of a lease, unless it is over; from this address, or else from where it is.
    fn begin(
        self: &Arc<Self>,
        table: MutexGuard<'_, Table>,
        lease: Arc<Lease>,
        (names_it, address): (bool, Option<IpAddr>),
        valid: Validity,
    ) -> Result<Option<Poll>, Full> {
        // A drain is told to the poll; whoever is silenced has to pass the gate, which refuses it.
        let is_silenced = lease.silenced().is_some();
        // Under the table's lock, so that it does not run out meanwhile.
        if is_silenced || lease.is_over.load(Ordering::Acquire) {
            // Not under it: this may be the last who has the lease, and so its connection.
            drop(table);
            return Ok(None);
        }
        let overlaps = {
            let mut polls = lease.polls();
            if polls.under_way >= POLLS_MAX {
                return Err(Full::Polls);
            }
            polls.under_way += 1;
            if let Some(address) = address {
                lease.go(&mut polls, address);
            }
            polls.under_way > 1
        };
        let moves = lease.moves.load(Ordering::Acquire);
        let number = names_it.then(|| lease.named.fetch_add(1, Ordering::AcqRel) + 1);
        drop(table);
        if overlaps && number.is_some() {
            // The poll before this one looks at its number again. All of the gateway's connections are woken for it, so
            // not without need.
            lease.registration.connection.channel.bell.ring();
        }
        Ok(Some(Poll { leases: self.clone(), lease, number, moves, valid }))
    }

    /// Ends leases when they run out, or when their connection is silenced, for as long as it is polled.
    pub async fn expire(&self) {
        let mut next = None;
        let mut not_before = Instant::now();
        loop {
            let (changed, closing) = (self.changed.notified(), self.registry.closing.notified());
            let now = Instant::now();
            if next.is_some_and(|at| now >= at + NOTICED_WITHIN) {
                // Polls that came meanwhile are yet to be read, whatever else there is to do before.
                not_before = now + NOTICED_WITHIN;
            }
            next = if now < not_before { Some(not_before) } else { self.end_expired(now) };
            tokio::select! {
                () = changed => {}
                () = closing => self.end_silenced(),
                () = async { match next { Some(at) => sleep_until(at).await, None => std::future::pending().await } } => {}
            }
        }
    }

    /// Ends what has run out by `now`; returns when the next one will.
    fn end_expired(&self, now: Instant) -> Option<Instant> {
        let mut table = self.table();
        let mut ended = Vec::new();
        let next = loop {
            match table.looks.first().copied() {
                Some((at, id)) if at <= now => {
                    table.looks.pop_first();
                    ended.extend(table.look(id, now));
                }
                first => break first.map(|(at, _)| at),
            }
        };
        drop(table);
        ended.iter().for_each(|lease| self.ended(lease, CloseReason::NoLife));
        next
    }

    /// Ends idle leases whose token or gateway is gone; polls under way see it for themselves.
    fn end_silenced(&self) {
        let mut table = self.table();
        let looks: Vec<_> = table.looks.iter().copied().collect();
        let mut ended = Vec::new();
        for (at, id) in looks {
            let Some(lease) = table.leases.get(&id).filter(|lease| lease.polls().under_way == 0) else { continue };
            if let Some(reason) = lease.silenced() {
                table.looks.remove(&(at, id));
                ended.extend(table.remove(id).map(|lease| (lease, reason)));
            }
        }
        drop(table);
        ended.iter().for_each(|(lease, reason)| self.ended(lease, *reason));
    }

    /// The last poll of a lease has ended, which is not in line, or was silenced meanwhile: that is then for nobody else to
    /// see. Another poll may have come by now.
    fn settle(&self, lease: &Lease) {
        let id = lease.registration.connection.id;
        let mut table = self.table();
        let mut polls = lease.polls();
        if polls.under_way > 0 || !table.leases.contains_key(&id) {
            return;
        }
        // Under the table's lock: whoever is silenced later is in line by the time that this is looked for there.
        if let Some(reason) = lease.silenced() {
            table.remove(id);
            drop((polls, table));
            return self.ended(lease, reason);
        }
        if polls.in_line {
            return;
        }
        polls.in_line = true;
        // Leases all last equally long, so only the first one in line changes when the next look is.
        if table.looks.is_empty() {
            self.changed.notify_waiters();
        }
        table.looks.insert((polls.until, id));
    }

    /// A connection has ended between two polls.
    fn ended(&self, lease: &Lease, reason: CloseReason) {
        let (connection, now) = (&lease.registration.connection, self.clock.now());
        let state = (Liveness::Lease, connection.position());
        connection.carried.ended(reason);
        lease.ended(Some(reason));
        let undelivered = shortfall::at_the_end(&self.deliveries, &lease.registration, state, reason, now);
        info!(
            gateway.id = %connection.channel.gateway, connection.id = %connection.id, ?reason, undelivered,
            "Gateway disconnected from {}.", connection.identity.transport,
        );
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// A lease's look has come: gives it if it has run out, or else its next place in line, unless a poll is under way.
    fn look(&mut self, id: ConnectionId, now: Instant) -> Option<Arc<Lease>> {
        let mut polls = self.leases.get(&id)?.polls();
        polls.in_line = polls.under_way == 0 && polls.until > now;
        if polls.in_line {
            self.looks.insert((polls.until, id));
            return None;
        }
        let is_over = polls.under_way == 0;
        drop(polls);
        if is_over { self.remove(id) } else { None }
    }

    fn remove(&mut self, id: ConnectionId) -> Option<Arc<Lease>> {
        let lease = self.leases.remove(&id)?;
        lease.is_over.store(true, Ordering::Release);
        if self.by_client.get(&lease.client) == Some(&id) {
            self.by_client.remove(&lease.client);
        }
        Some(lease)
    }
}

impl Lease {
    /// Why nothing more may reach its peer.
    fn silenced(&self) -> Option<CloseReason> {
        self.registration.connection.closing().filter(|reason| reason.silences())
    }

    /// Where its latest poll came from.
    fn address(&self) -> IpAddr {
        self.registration.connection.address()
    }

    /// It is polled from here now.
    fn go(&self, polls: &mut Polls, to: IpAddr) {
        if self.address() != to {
            self.moves.fetch_add(1, Ordering::AcqRel);
            let connection = &self.registration.connection;
            polls.answered = connection.go(to, std::mem::take(&mut polls.answered));
            debug!(connection.id = %connection.id, peer.ip = %to, "Connection is polled from another address.");
        }
    }

    /// What its peer has not taken yet of answers goes with it.
    fn ended(&self, reason: Option<CloseReason>) {
        if reason.is_some_and(CloseReason::silences) {
            self.polls().answered.silence();
            self.registration.connection.silence_elsewhere(|_| true);
        }
    }

    fn polls(&self) -> MutexGuard<'_, Polls> {
        self.polls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Poll {
    pub(crate) fn registration(&self) -> &Registration {
        &self.lease.registration
    }

    /// Whether a later poll named the connection as this one did, or from elsewhere.
    pub(crate) fn superseded(&self) -> bool {
        self.is_left() || self.number.is_some_and(|number| number < self.lease.named.load(Ordering::Acquire))
    }

    /// Whether the connection is polled from another address since.
    pub(crate) fn is_left(&self) -> bool {
        self.moves < self.lease.moves.load(Ordering::Acquire)
    }

    /// It was answered over a socket.
    pub(crate) fn answered(&self, over: &Sever) {
        {
            let mut polls = self.lease.polls();
            polls.answered.over(over);
            if self.is_left() {
                // It is not among those of its address.
                over.silence();
            }
        }
        // Looked up behind that: whoever silences it later finds the socket.
        self.lease.ended(self.lease.silenced());
    }

    /// Ends the connection with this poll. `false` if another that overlaps it has done so.
    pub(crate) fn end(&self, reason: CloseReason) -> bool {
        let removed = self.leases.table().remove(self.lease.registration.connection.id);
        self.lease.ended(Some(reason));
        removed.is_some()
    }

    /// For the same client's next poll.
    pub(crate) fn renewal(&self) -> Renewal {
        Renewal {
            leases: self.leases.clone(),
            lease: Arc::downgrade(&self.lease),
            names_it: self.number.is_some(),
            moves: self.moves,
            valid: self.valid,
        }
    }
}

impl Renewal {
    /// The next poll; `None` if the connection has ended or is silenced or elsewhere, or has as many as it may.
    pub(crate) fn poll(&self) -> Option<Poll> {
        let lease = self.lease.upgrade()?;
        let table = self.leases.table();
        if self.moves != lease.moves.load(Ordering::Acquire) {
            return None;
        }
        self.leases.begin(table, lease, (self.names_it, None), self.valid).ok().flatten()
    }
}

impl Drop for Poll {
    fn drop(&mut self) {
        let is_settled = {
            let mut polls = self.lease.polls();
            polls.under_way -= 1;
            polls.until = Instant::now() + self.leases.limit;
            // Looked up behind that: whoever is silenced later has no poll under way.
            polls.under_way > 0 || (polls.in_line && self.lease.silenced().is_none())
        };
        if !is_settled {
            self.leases.settle(&self.lease);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use gatecast_storage::{Cursor, DeliveryLimits, Epoch, GatewayId, ManualClock, MemoryRecords, Seq, TokenId};
    use uuid::Uuid;

    use super::*;
    use crate::registry::{Capacity, Identity};
    use crate::tail::Tails;

    const LIMIT: Duration = Duration::from_secs(30);
    const TOKEN: TokenId = TokenId(Uuid::nil());

    /// The first poll of a connection, which is the only one.
    async fn first() -> (Arc<Leases>, Poll) {
        let clock = Arc::new(ManualClock::default());
        let registry = Registry::new(Capacity { total: 1, per_gateway: 1 });
        let deliveries =
            Deliveries::open(Arc::new(MemoryRecords::new()), clock.clone(), DeliveryLimits::default()).await.unwrap();
        let leases = Leases::new(LIMIT, registry.clone(), Arc::new(deliveries), clock.clone());
        let (gateway, proof) = (GatewayId(Uuid::nil()), Proof::Token(TOKEN));
        let (instance, address) = (None, "127.0.0.1".parse().unwrap());
        let identity = Identity {
            proof: proof.clone(),
            instance: None,
            transport: "long-poll",
            peer: address,
            connected_at: clock.now(),
        };
        let at = Cursor { epoch: Epoch(1), seq: Seq(0) };
        let registration = registry.register(identity, Tails::new().channel(gateway), at).unwrap();
        let valid = Validity { generation: 0, expires_at: None };
        let poll = leases.open(registration, Client { proof, instance, address }, valid);
        (leases, poll)
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_ran_out_is_not_renewed_though_somebody_still_holds_it() {
        let (leases, first) = first().await;
        // As the task does that is just ending it.
        let (held, renewal) = (first.lease.clone(), first.renewal());
        drop(first);
        tokio::time::advance(LIMIT / 2).await;
        let second = renewal.poll().expect("it is within its time");
        let next = leases.end_expired(Instant::now() + LIMIT);
        let is_there = leases.table().leases.contains_key(&second.registration().connection.id);
        assert!(next.is_none() && is_there, "a poll is under way");
        drop(second);
        assert!(leases.end_expired(Instant::now() + LIMIT).is_none());
        assert!(renewal.poll().is_none());
        drop(held);
        assert!(leases.registry.is_empty() && renewal.poll().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_revocation_is_heard_that_comes_while_others_are_being_ended() {
        let (leases, poll) = first().await;
        drop(poll);
        // Nobody listens now.
        leases.registry.close_token(TOKEN);
        assert!(leases.expire().now_or_never().is_none() && leases.registry.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_revocation_is_heard_that_comes_while_the_last_poll_ends() {
        let (leases, poll) = first().await;
        // Half of the end of a poll.
        let lease = poll.lease.clone();
        lease.polls().under_way -= 1;
        leases.registry.close_token(TOKEN);
        leases.end_silenced();
        assert!(!leases.registry.is_empty(), "it is not in line yet");
        // The other half.
        leases.settle(&lease);
        lease.polls().under_way += 1;
        drop((lease, poll));
        assert!(leases.registry.is_empty());
    }
}
