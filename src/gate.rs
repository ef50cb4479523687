//! Admission: who may connect, checked in the order of CONTRACT.md § 3, before any upgrade.
//!
//! Draining, the address's rate, the key, the cursor's form, room, registered, and the key once more: a revoke that
//! came in between finds the connection in the registry, or the second look finds the revoke. A live connection
//! exists only as long as its [`Registration`](crate::registry::Registration).

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gatecast_storage::{Bounds, CatchUp, Cursor, GatewayId, Replica, Seq, receipts};
use gatecast_transports::{Gate, Handshake, HandshakeError, Liveness, Refusal, Session};
use tokio::time::timeout;
use tracing::{info, warn};
use uuid::Uuid;

use crate::api::error::{ApiError, problem};
use crate::auth::{AuthError, Authenticator, Claim, Proven};
use crate::below::Below;
use crate::control::{self, ResetReason, Resume};
use crate::hold::Hold;
use crate::lease::{Client, Leases, Poll};
use crate::limits::RateTable;
use crate::proxies::Proxies;
use crate::refusal_log::{RefusalLog, Refused};
use crate::registry::{Connection, ConnectionId, Full, Identity, Registry};
use crate::session::{CursorSession, Works, deadline};
use crate::sparse_log::{Line, SparseLog};

/// A log that does not say what it holds within this is unavailable: a real gateway client waits 5 s for its ack.
const BOUNDS_TIMEOUT: Duration = Duration::from_secs(3);

/// The codes of the refusals of CONTRACT.md § 3.
pub(crate) const REFUSALS: [&str; 6] =
    ["CAPACITY_EXCEEDED", "DRAINING", "INVALID_CURSOR", "RATE_LIMITED", "UNAUTHORIZED", "UNAVAILABLE"];

/// Decides who may connect and where each connection begins.
pub struct Admission {
    pub(crate) works: Arc<Works>,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) leases: Arc<Leases>,
    pub(crate) rate: Arc<RateTable>,
    pub(crate) refusal_log: Arc<RefusalLog>,
    /// Whoever polls can name a cursor that is of no use as often as it likes.
    pub(crate) reset_log: SparseLog<(GatewayId, ResetReason)>,
    pub(crate) proxies: Proxies,
    pub(crate) draining: Arc<AtomicBool>,
}

/// Where a peer asks to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    /// At the newest position: asked for, or the gateway's setting.
    Live,
    /// With everything that is held.
    Earliest,
    /// After the position that is kept of the replica.
    Stored,
    /// After a cursor.
    After(Cursor),
}

/// Where a session begins.
#[derive(Clone, Copy)]
struct Start {
    position: Cursor,
    resume: Resume,
    below: Option<Below>,
}

impl Start {
    /// Up to where its replica has what this log has: not what a cursor says that is ahead of it.
    fn known(&self) -> Cursor {
        self.below.map_or(self.position, |below| below.has(self.position))
    }

    /// As receipts keep it.
    fn kept(&self) -> receipts::Start {
        let at = self.known();
        if self.resume == Resume::Live { receipts::Start::AtTheEnd(at) } else { receipts::Start::After(at) }
    }
}

/// A peer that has passed all checks on its own.
struct Peer {
    proven: Proven,
    address: IpAddr,
    /// `None`: it named no cursor.
    from: Option<From>,
    now: DateTime<Utc>,
}

#[async_trait]
impl Gate for Admission {
    async fn admit(&self, handshake: Handshake) -> Result<Box<dyn Session>, Refusal> {
        self.try_admit(&handshake).await.map_err(|error| {
            self.registry.traffic.of(handshake.transport).refused(error.code());
            Refusal(problem(&error))
        })
    }

    fn reject(&self, error: HandshakeError) -> Refusal {
        not_a_handshake(error)
    }
}

/// What a log is asked for at an admission, of a gateway or an operator, or in the turn of a change; it has
/// [`BOUNDS_TIMEOUT`].
pub(crate) async fn in_time<T, E: Into<ApiError>>(asked: impl Future<Output = Result<T, E>>) -> Result<T, ApiError> {
    let answer = timeout(BOUNDS_TIMEOUT, asked).await.map_err(|late| ApiError::Unavailable(late.into()))?;
    answer.map_err(Into::into)
}

/// The answer to a request that is no handshake of its transport.
pub(crate) fn not_a_handshake(error: HandshakeError) -> Refusal {
    Refusal(problem(&match error {
        HandshakeError::UpgradeRequired => ApiError::UpgradeRequired,
        HandshakeError::MethodNotAllowed { allow } => ApiError::MethodNotAllowed { allow: allow.to_owned() },
        HandshakeError::UnsupportedVersion => ApiError::UnsupportedVersion,
        HandshakeError::InvalidParameter { name, expected } => {
            ApiError::InvalidParameter { name, expected: expected.to_owned() }
        }
        // A kind that this version of the transports crate does not have yet.
        other => {
            warn!(?other, "A handshake error has no answer of its own.");
            ApiError::InvalidParameter { name: "request", expected: "a handshake of this transport".to_owned() }
        }
    }))
}

impl Admission {
    async fn try_admit(&self, handshake: &Handshake) -> Result<Box<dyn Session>, ApiError> {
        let address = self.proxies.client(handshake);
        if handshake.liveness == Liveness::Lease
            && let Some((poll, peer)) = self.renew(handshake, address)?
        {
            return match at_the_end(&poll, &peer) {
                Some(start) => Ok(self.go_on(poll, start, start.position, &peer, handshake)),
                None => Box::pin(self.look_and_go_on(poll, &peer, handshake)).await,
            };
        }
        // Boxed, as it is far more than most polls need.
        Box::pin(self.admit_anew(handshake, address)).await
    }

    async fn admit_anew(&self, handshake: &Handshake, address: IpAddr) -> Result<Box<dyn Session>, ApiError> {
        if self.draining.load(Ordering::Acquire) {
            return Err(ApiError::Draining);
        }
        self.rate.attempt(address).map_err(|retry_after| {
            if let Some(Line { unlogged }) = self.refusal_log.line(address, Refused::Rate) {
                warn!(peer.ip = %address, unlogged, "Connection attempt refused: too many from this address.");
            }
            ApiError::RateLimited { retry_after }
        })?;
        let peer = self.identify(handshake, address)?;
        self.begin(&peer, handshake).await
    }

    /// A poll that renews a live connection. It is no attempt to connect, and a drain is told in its answer.
    fn renew(&self, handshake: &Handshake, address: IpAddr) -> Result<Option<(Poll, Peer)>, ApiError> {
        // A wrong key is counted and refused as an attempt.
        let Ok(peer) = self.authenticate(handshake, address) else { return Ok(None) };
        // So is what is no cursor, and it ends no poll that waits.
        let Ok(from) = from(handshake) else { return Ok(None) };
        let named = handshake.connection.as_deref().map(|id| {
            ConnectionId::parse(id).ok_or_else(|| {
                let expected = "a UUID, as in an earlier reply".to_owned();
                ApiError::InvalidParameter { name: "connectionId", expected }
            })
        });
        let named = named.transpose()?;
        let poll = self.leases.renew(named, (&peer.proven, peer.address), || peer.client(handshake));
        let poll = poll.map_err(|full| self.no_room(&peer, full))?;
        // If the connection was elsewhere until now, a bar that came in between has not found it here.
        let holds = self.works.authenticator.is_valid(peer.proven.valid, peer.now);
        let poll = poll.filter(|_| holds || self.authenticate(handshake, address).is_ok());
        Ok(poll.map(|poll| (poll, Peer { from, ..peer })))
    }

    fn identify(&self, handshake: &Handshake, address: IpAddr) -> Result<Peer, ApiError> {
        let peer = self.authenticate(handshake, address).map_err(|error| {
            if let Some(Line { unlogged }) = self.refusal_log.line(address, Refused::Connection(error)) {
                warn!(peer.ip = %address, %error, unlogged, "Connection attempt refused over {}.", handshake.transport);
            }
            ApiError::Unauthorized
        })?;
        Ok(Peer { from: from(handshake)?, ..peer })
    }

    fn authenticate(&self, handshake: &Handshake, address: IpAddr) -> Result<Peer, AuthError> {
        let now = self.works.clock.now();
        let credential = handshake.credential.as_ref();
        let claim = Claim { credential, certificate_names: &handshake.certificate_names, address };
        Ok(Peer { proven: self.authenticator.gateway(&claim, now)?, address, from: None, now })
    }

    /// A new connection.
    async fn begin(&self, peer: &Peer, handshake: &Handshake) -> Result<Box<dyn Session>, ApiError> {
        let gateway = peer.proven.gateway.id;
        let (channel, bounds) = self.open(gateway).await?;
        let identity = Identity {
            proof: peer.proven.proof.clone(),
            instance: handshake.instance.as_deref().map(Box::from),
            transport: handshake.transport,
            peer: peer.address,
            connected_at: peer.now,
        };
        let start = self.start(peer, &peer.replica(handshake), bounds, None).await?;
        let registration = self.registry.register(identity, channel, start.known());
        let registration = registration.map_err(|full| self.no_room(peer, full))?;
        self.authenticate(handshake, peer.address).map_err(|_| ApiError::Unauthorized)?;
        if self.draining.load(Ordering::Acquire) {
            return Err(ApiError::Draining);
        }
        // A reset that is not received yet must be told again, so a replica stays where it was.
        let seat = self.works.receipts.enter(gateway, peer.replica(handshake), start.kept(), peer.is_kept());
        registration.connection.take_seat(seat);
        self.keep_beginning(peer, &start).await?;
        if let Some(cursor) = peer.has(bounds.head()) {
            // Whatever became of the connections that brought it there, but for what none of them brought.
            let skipped = self.works.receipts.skipped(gateway, &peer.replica(handshake), cursor.epoch);
            registration.connection.set_since(skipped.unwrap_or(Seq(0)));
            self.works.has_all_before(&registration.connection, cursor, peer.now);
        }
        registration.connection.carried.admitted();
        let id = registration.connection.id;
        info!(
            gateway.id = %gateway, connection.id = %id, peer.ip = %peer.address, resume = ?start.resume, position = %start.position,
            "Gateway connected over {}.", handshake.transport,
        );
        let hold = if handshake.liveness == Liveness::Lease {
            Hold::Leased(Box::new(self.leases.open(registration, peer.client(handshake), peer.proven.valid)))
        } else {
            Hold::Own(registration)
        };
        Ok(self.session(hold, start, true, peer, handshake))
    }

    /// Where a replica begins that asks for what is kept of it, and nothing is, is kept before it is told: whatever follows
    /// is behind that in the store, so no crash lets it begin at the end once more, which is further then.
    async fn keep_beginning(&self, peer: &Peer, start: &Start) -> Result<(), ApiError> {
        if peer.from != Some(From::Stored) || start.resume != Resume::Live {
            return Ok(());
        }
        match in_time(self.works.receipts.flush()).await {
            // No event has any, either.
            Err(ApiError::StoreFull) => Ok(()),
            kept => kept,
        }
    }

    fn no_room(&self, peer: &Peer, full: Full) -> ApiError {
        if let Some(Line { unlogged }) = self.refusal_log.line(peer.address, Refused::Full(full)) {
            let gateway = peer.proven.gateway.id;
            warn!(gateway.id = %gateway, peer.ip = %peer.address, %full, unlogged, "Connection attempt refused.");
        }
        match full {
            Full::Server | Full::Gateway | Full::Polls => ApiError::CapacityExceeded,
        }
    }

    /// A later poll of a connection that asks for what the log has to be asked for.
    async fn look_and_go_on(
        &self,
        poll: Poll,
        peer: &Peer,
        handshake: &Handshake,
    ) -> Result<Box<dyn Session>, ApiError> {
        let (_, bounds) = self.open(peer.proven.gateway.id).await?;
        let connection = &poll.registration().connection;
        let start = self.start(peer, &connection.replica(), bounds, Some(connection)).await?;
        Ok(self.go_on(poll, start, bounds.head(), peer, handshake))
    }

    /// A later poll of a connection; `head` is the log's.
    fn go_on(&self, poll: Poll, start: Start, head: Cursor, peer: &Peer, handshake: &Handshake) -> Box<dyn Session> {
        let connection = &poll.registration().connection;
        connection.heard(peer.now.timestamp_millis());
        connection.goes_on(start.known());
        if start.resume == Resume::Live {
            connection.set_since(start.position.seq);
        }
        if let Some(cursor) = peer.has(head) {
            self.works.has_all_before(connection, cursor, peer.now);
        }
        if start.resume == Resume::Resumed && matches!(peer.from, Some(From::After(_))) {
            connection.confirmed(start.position, peer.now);
        }
        self.session(Hold::Leased(Box::new(poll)), start, peer.from.is_none(), peer, handshake)
    }

    async fn open(&self, gateway: GatewayId) -> Result<(Arc<crate::tail::Channel>, Bounds), ApiError> {
        in_time(self.works.tail.open(gateway)).await
    }

    fn session(&self, hold: Hold, start: Start, acked: bool, peer: &Peer, handshake: &Handshake) -> Box<dyn Session> {
        let connection = &hold.registration().connection;
        if let (Hold::Leased(_), Some(below)) = (&hold, start.below) {
            // A poll that is answered with the ack alone leaves the rest to the next one.
            connection.set_below(Some((start.position, below)));
        }
        let id = connection.id;
        let ack = acked.then(|| {
            control::ack(peer.proven.gateway.id, id, peer.now, start.position, start.resume, handshake.transport)
        });
        let opening = ack.into_iter().collect();
        let expires = deadline(peer.proven.valid, peer.now);
        Box::new(CursorSession::new(
            self.works.clone(),
            hold,
            handshake.liveness,
            (start.position, start.below),
            opening,
            expires,
        ))
    }

    async fn start(
        &self,
        peer: &Peer,
        replica: &Replica,
        bounds: Bounds,
        known: Option<&Connection>,
    ) -> Result<Start, ApiError> {
        let before = Cursor { epoch: bounds.epoch, seq: bounds.oldest.prev() };
        let at = |position, resume| Start { position, resume, below: None };
        let catches_up = peer.proven.gateway.catch_up == CatchUp::Stored;
        let requested = match peer.from.unwrap_or(if catches_up { From::Stored } else { From::Live }) {
            From::Live => return Ok(at(bounds.head(), Resume::Live)),
            From::Earliest => return self.earliest(peer, &bounds, before).await,
            From::After(cursor) => cursor,
            From::Stored => match self.works.receipts.stored(peer.proven.gateway.id, replica, bounds.epoch) {
                Some(cursor) => cursor,
                // Owed everything since the gateway asked to be caught up, which is all there ever was if it was
                // registered so.
                None if catches_up => {
                    let anchor = self.works.receipts.anchor(peer.proven.gateway.id);
                    anchor.unwrap_or(Cursor { epoch: bounds.epoch, seq: Seq(0) })
                }
                None => return Ok(at(bounds.head(), Resume::Live)),
            },
        };
        let reason = match ResetReason::of(requested, &bounds) {
            None => return Ok(at(requested, Resume::Resumed)),
            Some(ResetReason::UnknownEpoch) => {
                let owner = in_time(self.works.tail.owner_of(requested.epoch)).await?;
                if owner.is_some() { ResetReason::Foreign } else { ResetReason::UnknownEpoch }
            }
            Some(reason) => {
                // A poll that goes on in the middle of the compacted state was told of the reset by an earlier one.
                let below =
                    known.filter(|_| reason == ResetReason::Overwritten).and_then(|known| known.below(requested));
                if below.is_some() {
                    return Ok(Start { position: requested, resume: Resume::Resumed, below });
                }
                reason
            }
        };
        let gateway = peer.proven.gateway.id;
        if let Some(Line { unlogged }) = self.reset_log.line((gateway, reason), (GatewayId(Uuid::nil()), reason)) {
            warn!(gateway.id = %gateway, peer.ip = %peer.address, ?reason, %requested, unlogged, "Stream reset at connect.");
        }
        Ok(Start { position: requested, resume: Resume::Reset, below: Some(Below::reset(reason)) })
    }

    /// Everything held: the compacted state, if there is any, then the ring.
    async fn earliest(&self, peer: &Peer, bounds: &Bounds, before: Cursor) -> Result<Start, ApiError> {
        let tail = &self.works.tail;
        let is_compacted = before.seq > Seq(0) && in_time(tail.is_compacted(peer.proven.gateway.id, bounds)).await?;
        let (position, below) =
            if is_compacted { (Cursor { seq: Seq(0), ..before }, Some(Below::earliest())) } else { (before, None) };
        Ok(Start { position, resume: Resume::Resumed, below })
    }
}

impl Peer {
    /// Whether it asks to be caught up from what is kept of it, so that where it begins has to be.
    fn is_kept(&self) -> bool {
        self.from == Some(From::Stored) || self.proven.gateway.catch_up == CatchUp::Stored
    }

    /// Up to where its cursor says that it has everything, unless that is of nothing that the log has.
    fn has(&self, head: Cursor) -> Option<Cursor> {
        let Some(From::After(cursor)) = self.from else { return None };
        (cursor.epoch == head.epoch && cursor.seq <= head.seq).then_some(cursor)
    }

    fn replica(&self, handshake: &Handshake) -> Replica {
        Replica::of(handshake.instance.as_deref(), self.address)
    }

    fn client(&self, handshake: &Handshake) -> Client {
        let instance = handshake.instance.as_deref().map(Box::from);
        Client { proof: self.proven.proof.clone(), instance, address: self.address }
    }
}

/// Where a poll goes on that has all that its log is known to hold, as nearly every poll has: the log need not be asked.
fn at_the_end(poll: &Poll, peer: &Peer) -> Option<Start> {
    let Some(From::After(position)) = peer.from else { return None };
    let connection = &poll.registration().connection;
    let is_there = connection.channel.ends_at(position) && connection.below(position).is_none();
    is_there.then_some(Start { position, resume: Resume::Resumed, below: None })
}

fn from(handshake: &Handshake) -> Result<Option<From>, ApiError> {
    Ok(match handshake.cursor.as_deref() {
        None => None,
        Some("latest") => Some(From::Live),
        Some("stored") => Some(From::Stored),
        Some("earliest") => Some(From::Earliest),
        Some(text) => Some(From::After(text.parse().map_err(|_| ApiError::InvalidCursor)?)),
    })
}
