//! Below the ring: what a session does whose cursor lies before the oldest event that its log's ring still holds.
//!
//! It is told so by a `stream.reset`, is given the compacted state after its cursor ([`gatecast_storage::compaction`]
//! says why that is all it needs, whoever it is), and goes on in the ring. All of it is decided page by page from what
//! the log says at that moment, so nothing is kept but [`Below`]:
//! - `lost` is what lies between the cursor and the ring and is not in the compacted state. Should the log let go of
//!   more while the state is being read, a new reset in front of the next page says so.
//! - A reset speaks of everything after its `requested`: it replaces what an earlier one has said about that.
//! - A peer that is cut off in the middle comes back with the last event it has, is told what is lost after that, and
//!   goes on right there.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use gatecast_storage::{Cursor, GatewayId, Seq};
use gatecast_transports::Frame;

use crate::control::{self, Reset, ResetReason};
use crate::shortfall::Shortfall;
use crate::tail::CompactedPage;

/// What a session below the ring has been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Below {
    told: Told,
    /// The ring begins after this, even if it seems to have it: an event that cannot be read.
    gone: Seq,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// It asked for everything that is held, so it is told of losses after this only.
    Nothing,
    /// It is yet to be told why it cannot go on.
    Due(ResetReason),
    /// It knows that this many events after its cursor will not come.
    Lost(u64),
}

/// The next thing that a session below the ring is given, and where it is then.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Climb {
    /// A reset if one is due, then events of the compacted state.
    pub(crate) frames: Vec<Arc<Frame>>,
    /// The positions of these events.
    pub(crate) events: Vec<Seq>,
    pub(crate) to: Cursor,
    /// `None` once it is in the ring.
    pub(crate) below: Option<Below>,
    /// Why the reset was due, if there is one, and how many events it says are lost, if that can be known.
    pub(crate) reset: Option<(ResetReason, Option<u64>)>,
    /// What it says to have been overwritten.
    pub(crate) overwritten: Option<Shortfall>,
}

impl Below {
    /// It asked for everything that is held.
    pub(crate) fn earliest() -> Self {
        Self { told: Told::Nothing, gone: Seq(0) }
    }

    /// It cannot go on at its cursor, for this reason.
    pub(crate) fn reset(reason: ResetReason) -> Self {
        Self { told: Told::Due(reason), gone: Seq(0) }
    }

    /// The ring was found to begin at `oldest`.
    pub(crate) fn overwritten(oldest: Seq) -> Self {
        Self { told: Told::Due(ResetReason::Overwritten), gone: oldest.prev() }
    }

    /// Up to where its peer has what the log has, so after which the compacted state is to be read: nothing, if it is
    /// ahead. A cursor of another epoch is before all of it.
    pub(crate) fn has(&self, position: Cursor) -> Cursor {
        let ahead = self.told == Told::Due(ResetReason::Ahead);
        if ahead { Cursor { seq: Seq(0), ..position } } else { position }
    }

    /// What a page that was read after what it [has](Below::has) leads to.
    pub(crate) fn climb(self, gateway: GatewayId, at: DateTime<Utc>, position: Cursor, page: CompactedPage) -> Climb {
        let begins_anew = position.epoch != page.epoch;
        let from = if begins_anew { Seq(0) } else { self.has(position).seq };
        let gone = if begins_anew { Seq(0) } else { self.gone };
        let ring = page.oldest.prev().max(gone);
        let follow = page.frames.len() as u64 + page.left;
        let lost = ring.0.saturating_sub(from.0).saturating_sub(follow);
        let reset = match self.told {
            Told::Due(ResetReason::Foreign) => Some(ResetReason::Foreign),
            _ if begins_anew => Some(ResetReason::UnknownEpoch),
            Told::Due(reason) => Some(reason),
            Told::Lost(told) if told != lost => Some(ResetReason::Overwritten),
            Told::Nothing | Told::Lost(_) => None,
        };
        let reset =
            reset.map(|reason| Reset { reason, requested: position, from, lost, compacted: follow, log: &page });
        let reset_frame = reset.as_ref().map(|reset| control::reset(gateway, at, reset));
        let reset = reset.map(|reset| (reset.reason, reset.lost_after_requested()));
        let (seq, below) = match page.last.filter(|_| page.left > 0) {
            None => (ring.max(from), None),
            Some(last) => {
                let lost = ring.0.saturating_sub(last.0).saturating_sub(page.left);
                (last, Some(Self { told: Told::Lost(lost), gone }))
            }
        };
        Climb {
            to: Cursor { epoch: page.epoch, seq },
            below,
            reset,
            overwritten: (reset.is_some_and(|(reason, _)| reason == ResetReason::Overwritten) && lost > 0)
                .then(|| Shortfall { first: first_lost(Cursor { seq: from, ..position }, &page.events), events: lost }),
            frames: reset_frame.into_iter().chain(page.frames).collect(),
            events: page.events,
        }
    }
}

/// The first event after a cursor that is not among those that follow.
fn first_lost(after: Cursor, follow: &[Seq]) -> Cursor {
    let known = follow.iter().zip(1..).take_while(|(seq, nth)| seq.0 == after.seq.0 + nth).count();
    Cursor { seq: Seq(after.seq.0 + 1 + known as u64), ..after }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatecast_storage::Epoch;
    use uuid::Uuid;

    const EPOCH: Epoch = Epoch(1);

    fn at(seq: u64) -> Cursor {
        Cursor { epoch: EPOCH, seq: Seq(seq) }
    }

    /// A log with the ring 101 to 120, and of its compacted state these and `left` more.
    fn page(events: &[u64], left: u64) -> CompactedPage {
        let frame = |seq: &u64| Arc::new(Frame::new(Some(at(*seq).to_string()), "t", "{}".to_owned()));
        CompactedPage {
            epoch: EPOCH,
            oldest: Seq(101),
            newest: Seq(120),
            let_go: Seq(0),
            frames: events.iter().map(frame).collect(),
            events: events.iter().copied().map(Seq).collect(),
            last: events.last().copied().map(Seq),
            left,
        }
    }

    fn climb(below: Below, from: Cursor, page: CompactedPage) -> (Climb, Option<serde_json::Value>) {
        let climb = below.climb(GatewayId(Uuid::nil()), DateTime::UNIX_EPOCH, from, page);
        let told = climb.reset.map(|_| serde_json::from_str(climb.frames[0].text()).unwrap());
        (climb, told)
    }

    #[test]
    fn the_reset_is_told_once_and_again_when_more_is_lost() {
        let (first, told) = climb(Below::reset(ResetReason::Overwritten), at(40), page(&[50, 60], 2));
        let payload = &told.unwrap()["payload"];
        assert_eq!((&payload["lost"], &payload["compacted"]), (&56.into(), &4.into()));
        assert_eq!((first.to, first.frames.len(), &first.events[..]), (at(60), 3, &[Seq(50), Seq(60)][..]));
        assert_eq!(first.overwritten, Some(Shortfall { first: at(41), events: 56 }));

        let below = first.below.unwrap();
        let (second, told) = climb(below, first.to, page(&[70], 1));
        assert_eq!((told, second.to, second.frames.len()), (None, at(70), 1));
        assert_eq!(second.overwritten, None, "once");
        let (less, told) = climb(below, first.to, page(&[70], 0));
        let payload = &told.unwrap()["payload"];
        assert_eq!((&payload["requested"], &payload["lost"]), (&at(60).to_string().into(), &39.into()));
        assert_eq!((less.to, less.below), (at(100), None), "in the ring");
    }

    #[test]
    fn earliest_is_told_nothing_unless_something_is_lost_meanwhile() {
        let (first, told) = climb(Below::earliest(), at(0), page(&[50], 1));
        assert_eq!(told, None);
        assert_eq!(climb(first.below.unwrap(), first.to, page(&[], 0)).1.unwrap()["payload"]["lost"], 50);
    }

    #[test]
    fn the_first_lost_event_is_none_that_follows() {
        let (climb, _) = climb(Below::reset(ResetReason::Overwritten), at(40), page(&[41, 42, 44], 0));
        assert_eq!(climb.overwritten, Some(Shortfall { first: at(43), events: 57 }));
    }

    #[test]
    fn a_log_that_began_anew_is_told_in_the_middle() {
        let (first, _) = climb(Below::reset(ResetReason::Overwritten), at(40), page(&[50], 1));
        let anew = CompactedPage { epoch: Epoch(2), ..page(&[7], 0) };
        let (climb, told) = climb(first.below.unwrap(), first.to, anew);
        let payload = &told.unwrap()["payload"];
        assert_eq!((&payload["reason"], &payload["lost"]), (&"unknown-epoch".into(), &serde_json::Value::Null));
        assert_eq!(climb.to, Cursor { epoch: Epoch(2), seq: Seq(100) });
    }

    #[test]
    fn an_event_of_the_ring_that_cannot_be_read_is_lost_and_passed() {
        let (climb, told) = climb(Below::overwritten(Seq(112)), at(110), page(&[], 0));
        assert_eq!((told.unwrap()["payload"]["lost"].as_u64(), climb.to, climb.below), (Some(1), at(111), None));
    }
}
