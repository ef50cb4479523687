//! What a connection has not handed over when it ends, kept on record as one failed delivery (CONTRACT.md § 9).
//!
//! - A row names the first event and says how many; it is made from what is in memory, without a read of the log, so
//!   that thousands of connections that drop at once cost thousands of short locks.
//! - A WebSocket peer has what its pongs and receipts confirm, and a long-poll client what its cursors do. A peer that
//!   says goodbye itself was reading until then, and one over SSE cannot say: these have what their sockets took.
//! - Nothing fails if another connection of the same replica has it all, as after a line that was cut: the replica is
//!   back long before its dead connection is noticed. A replica that comes back with a cursor has all before it, after
//!   what it is known to have skipped, where it began at the end of the log or was led past what is gone.
//! - Not on record: a drain, after which everyone comes back, and a deleted gateway, of which nothing is kept.

use chrono::{DateTime, Utc};
use gatecast_storage::deliveries::{Deliveries, Failure, FailureReason};
use gatecast_storage::{Cursor, Seq};
use gatecast_transports::{CloseReason, Liveness};

use crate::registry::Registration;

/// What did not reach a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shortfall {
    pub(crate) first: Cursor,
    pub(crate) events: u64,
}

impl Shortfall {
    /// Everything after `arrived` up to `head`, if that is anything.
    fn between(arrived: Cursor, head: Seq) -> Option<Self> {
        let events = head.0.checked_sub(arrived.seq.0).filter(|events| *events > 0)?;
        Some(Self { first: Cursor { seq: arrived.seq.next(), ..arrived }, events })
    }

    fn last(&self) -> Cursor {
        Cursor { seq: Seq(self.first.seq.0 + self.events - 1), ..self.first }
    }

    pub(crate) fn record(self, deliveries: &Deliveries, of: &Registration, reason: FailureReason, at: DateTime<Utc>) {
        deliveries.record(Failure {
            gateway: of.connection.channel.gateway,
            replica: of.connection.seat().map(|seat| seat.replica().clone()),
            event: self.first,
            events: self.events,
            event_type: None,
            correlation_id: None,
            reason,
            at,
        });
    }
}

/// Keeps on record what a connection that was written everything up to `position` has not handed over when it ends;
/// says how many events that is.
pub(crate) fn at_the_end(
    deliveries: &Deliveries,
    of: &Registration,
    (liveness, position): (Liveness, Cursor),
    reason: CloseReason,
    at: DateTime<Utc>,
) -> u64 {
    let (Some(seat), Some(failure)) = (of.connection.seat(), failure(reason)) else { return 0 };
    let confirmed = Some(seat.position()).filter(|to| confirms(liveness, reason) && to.epoch == position.epoch);
    let arrived = confirmed.unwrap_or(position);
    let channel = &of.connection.channel;
    // In another life of the log it counts other events; its peer is yet to be told of the reset.
    if channel.epoch() != Some(arrived.epoch) {
        return 0;
    }
    let Some(shortfall) = Shortfall::between(arrived, channel.head()) else { return 0 };
    let is_made_up_for = || of.is_made_up_for(seat.replica(), arrived.seq, shortfall.last());
    if is_made_up_for() {
        return 0;
    }
    shortfall.record(deliveries, of, failure, at);
    if is_made_up_for() {
        // By a write that found nothing to recover yet.
        deliveries.recovered(of.connection.channel.gateway, (arrived.seq, shortfall.last()), seat.replica(), at);
    }
    shortfall.events
}

fn failure(reason: CloseReason) -> Option<FailureReason> {
    match reason {
        CloseReason::Shutdown { .. } | CloseReason::GatewayDeleted | CloseReason::Superseded => None,
        CloseReason::TokenRevoked | CloseReason::TokenExpired | CloseReason::AccessWithdrawn => {
            Some(FailureReason::Revoked)
        }
        CloseReason::NoLife => Some(FailureReason::NoSignOfLife),
        CloseReason::WriteStalled => Some(FailureReason::WriteStalled),
        _ => Some(FailureReason::ConnectionLost),
    }
}

/// Whether what the peer confirmed, rather than what its socket took, is what it has.
fn confirms(liveness: Liveness, reason: CloseReason) -> bool {
    match liveness {
        Liveness::PingPong => reason != CloseReason::PeerClosed,
        Liveness::Lease => true,
        Liveness::WriteOnly => false,
    }
}

#[cfg(test)]
mod tests {
    use gatecast_storage::Epoch;

    use super::*;

    #[test]
    fn nothing_is_missing_at_the_head_or_beyond() {
        let at = |seq| Cursor { epoch: Epoch(7), seq: Seq(seq) };
        for (arrived, head, missing) in [(3, 3, None), (4, 3, None), (0, 1, Some((1, 1))), (3, 9, Some((4, 6)))] {
            let found = Shortfall::between(at(arrived), Seq(head));
            assert_eq!(found, missing.map(|(first, events)| Shortfall { first: at(first), events }));
            assert!(found.is_none_or(|found| found.last() == at(head)));
        }
    }
}
