use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::marks::Marks;
use super::outcome::{Outcome, Outcomes, Reported};
use super::positions::{Left, Positions, start_of_stranger};
use super::seat::SeatState;
use super::{Passage, Replica, ReplicaInfo, Start, Subject};
use crate::ids::{Cursor, Epoch, Seq};
use crate::records::StoreError;

/// Replicas of one gateway that are remembered; those that are gone longest go first.
pub const INSTANCES_PER_GATEWAY_MAX: usize = 64;
/// Connections that ended and whose passings are remembered, of one replica.
const HISTORY_MAX: usize = 4;

/// What is kept of one gateway.
#[derive(Default)]
pub(super) struct OfGateway {
    /// Where a replica begins of which nothing is known.
    pub(super) anchor: Option<Cursor>,
    replicas: Replicas,
}

/// Replicas in order. A gateway has one or a few, of which every connected gateway has a list: a map took 300 bytes more.
#[derive(Default)]
struct Replicas(Vec<(Replica, Box<Kept>)>);

/// What is kept of one replica.
#[derive(Default)]
struct Kept {
    positions: Positions,
    outcomes: Outcomes,
    history: VecDeque<(Marks, Marks)>,
    /// Boxed, as most have none.
    skipped: Option<Box<Skipped>>,
    last_receipt: Option<DateTime<Utc>>,
    /// Its positions were written once, so what becomes of them has to be.
    has_row: bool,
}

/// Events that were there when a connection began at the end of the log, after what its replica had, or that were gone
/// when it came to them: none of these were sent to it, unless it is known when. Several such stretches are kept as one, from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Skipped {
    after: Seq,
    up_to: Cursor,
}

/// A row of positions, as it is on disk.
#[derive(Serialize, Deserialize)]
struct Row {
    /// With the number of its arrival.
    live: Vec<(Cursor, u64)>,
    left: Vec<Left>,
    #[serde(default)]
    last_receipt: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    skipped: Option<Skipped>,
}

impl Replicas {
    fn place(&self, of: &Replica) -> Result<usize, usize> {
        self.0.binary_search_by(|(replica, _)| replica.cmp(of))
    }

    fn get(&self, of: &Replica) -> Option<&Kept> {
        self.0.get(self.place(of).ok()?).map(|(_, kept)| &**kept)
    }

    fn get_mut(&mut self, of: &Replica) -> Option<&mut Kept> {
        let place = self.place(of).ok()?;
        self.0.get_mut(place).map(|(_, kept)| &mut **kept)
    }

    /// What is kept of a replica, from now on if nothing was.
    fn entry(&mut self, of: &Replica) -> &mut Kept {
        let place = self.place(of).unwrap_or_else(|place| {
            self.0.reserve_exact(1);
            self.0.insert(place, (of.clone(), Box::default()));
            place
        });
        // There or just put there.
        &mut self.0[place].1
    }

    fn remove(&mut self, of: &Replica) {
        if let Ok(place) = self.place(of) {
            self.0.remove(place);
        }
    }

    fn iter(&self) -> impl Iterator<Item = (&Replica, &Kept)> {
        self.0.iter().map(|(replica, kept)| (replica, &**kept))
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = (&Replica, &mut Kept)> {
        self.0.iter_mut().map(|(replica, kept)| (&*replica, &mut **kept))
    }
}

impl OfGateway {
    pub(super) fn stored(&mut self, of: &Replica, epoch: Epoch, now: DateTime<Utc>) -> Option<Cursor> {
        if let Some(start) = self.replicas.get_mut(of).and_then(|kept| kept.positions.start(epoch, now)) {
            return Some(start);
        }
        let anonymous = |replica: &Replica| matches!(replica, Replica::Anonymous(_));
        if !anonymous(of) {
            return None;
        }
        let others = self.replicas.iter_mut().filter(|(replica, _)| anonymous(replica));
        start_of_stranger(others.map(|(_, kept)| &mut kept.positions), epoch, now)
    }

    /// Takes a seat; the second are the replicas that had to be forgotten for it, the third whether its row is on disk.
    pub(super) fn enter(
        &mut self,
        of: &Replica,
        start: Start,
        now: DateTime<Utc>,
    ) -> (Arc<SeatState>, Vec<Replica>, bool) {
        let forgotten = self.make_room(of);
        let kept = self.replicas.entry(of);
        kept.begin(start);
        // What is heard on them from now on tells that they live beside it.
        for seat in &kept.positions.live {
            kept.last_receipt = kept.last_receipt.max(seat.progress().last_receipt.take());
        }
        let Kept { positions, has_row, .. } = kept;
        let at = start.at();
        let arrival = match of {
            Replica::Named(_) => positions.take_named(at.epoch, now),
            Replica::Anonymous(_) => positions.take(at.epoch, now),
        };
        let state = Arc::new(SeatState::new(at, arrival));
        if positions.live.is_empty() {
            // Most have one connection.
            positions.live.reserve_exact(1);
        }
        positions.live.push(Arc::clone(&state));
        (state, forgotten, *has_row)
    }

    /// The replica is led past what comes after `after` up to `up_to`.
    pub(super) fn skip(&mut self, of: &Replica, after: Seq, up_to: Cursor) {
        if let Some(kept) = self.replicas.get_mut(of) {
            kept.skip(after, up_to);
        }
    }

    /// Up to where it is known that a replica was not sent everything.
    pub(super) fn skipped(&self, of: &Replica, epoch: Epoch) -> Option<Seq> {
        let skipped = self.replicas.get(of)?.skipped.as_ref()?;
        (skipped.up_to.epoch == epoch).then_some(skipped.up_to.seq)
    }

    /// Whether its row has to be written.
    pub(super) fn leave(&mut self, of: &Replica, seat: &Arc<SeatState>, now: DateTime<Utc>) -> bool {
        let Some(kept) = self.replicas.get_mut(of) else { return false };
        let Some(index) = kept.positions.live.iter().position(|live| Arc::ptr_eq(live, seat)) else { return false };
        kept.positions.live.swap_remove(index);
        let mut progress = seat.progress();
        let (position, is_heard) = (progress.received.end(), progress.last_receipt.is_some());
        match of {
            Replica::Named(_) => kept.positions.leave_named(position, seat.arrival, is_heard, now),
            Replica::Anonymous(_) => kept.positions.leave(position, seat.arrival, now),
        }
        kept.last_receipt = kept.last_receipt.max(progress.last_receipt);
        let none = || Marks::new(Cursor { epoch: Epoch(0), seq: Seq(0) });
        let sent = std::mem::replace(&mut progress.sent, none());
        let received = std::mem::replace(&mut progress.received, none());
        if !sent.is_empty() || !received.is_empty() {
            kept.history.push_back((sent, received));
        }
        if kept.history.len() > HISTORY_MAX {
            kept.history.pop_front();
        }
        // One that moved is about to be written for the first time.
        kept.has_row || progress.is_dirty
    }

    /// The replica says on another way than a connection that it received everything up to `to`. Whether its row has to be
    /// written; `None` if it cannot be taken at its word: it was not sent that, or it is not known who of several it is.
    pub(super) fn confirm(&mut self, of: &Replica, to: Cursor, now: DateTime<Utc>) -> Option<bool> {
        let kept = self.replicas.get_mut(of)?;
        kept.last_receipt = kept.last_receipt.max(Some(now));
        Speaker::of(of, &mut kept.positions, &mut kept.history)?.confirm(to, now)
    }

    /// Up to where a report of this event, and those of before, say that a replica has received everything, beyond what it
    /// confirmed: who reports of an event has it.
    pub(super) fn reported_up_to(&mut self, of: &Replica, reported: Cursor) -> Option<Cursor> {
        let kept = self.replicas.get_mut(of)?;
        let is_known = |event: Cursor| kept.outcomes.of(&[Subject::Event(event)]).is_some();
        let speaker = Speaker::of(of, &mut kept.positions, &mut kept.history)?;
        let after = speaker.position();
        let next = (1..).map(|more| Cursor { seq: Seq(after.seq.0 + more), ..after });
        next.take_while(|event| speaker.was_sent(*event) && (*event == reported || is_known(*event))).last()
    }

    /// Keeps an outcome, of replicas only that are here or were: a report alone makes none, or reports could push out
    /// the positions of others.
    pub(super) fn report(&mut self, of: &Replica, subject: Subject, outcome: Outcome) -> Reported {
        let Some(kept) = self.replicas.get_mut(of) else { return Reported::Unknown };
        kept.last_receipt = kept.last_receipt.max(Some(outcome.at));
        kept.outcomes.report(subject, outcome)
    }

    pub(super) fn outcomes(&self, of: &[Subject]) -> Vec<(Replica, bool, Option<Outcome>)> {
        let all = self
            .replicas
            .iter()
            .map(|(replica, kept)| (replica.clone(), !kept.positions.live.is_empty(), kept.outcomes.of(of).cloned()));
        all.filter(|(_, is_live, outcome)| *is_live || outcome.is_some()).collect()
    }

    pub(super) fn has_applied(&self, replica: &Replica, of: &[Subject]) -> bool {
        let outcome = self.replicas.get(replica).and_then(|kept| kept.outcomes.of(of));
        outcome.is_some_and(|outcome| outcome.applied)
    }

    pub(super) fn replicas(&mut self, epoch: Epoch, now: DateTime<Utc>) -> Vec<ReplicaInfo> {
        let info = |(replica, kept): (&Replica, &mut Kept)| {
            let live = kept.positions.live.iter();
            let heard = live.filter_map(|seat| seat.progress().last_receipt).max();
            ReplicaInfo {
                replica: replica.clone(),
                connections: kept.positions.live.len(),
                position: kept.positions.known(epoch, now),
                last_receipt: kept.last_receipt.max(heard),
            }
        };
        self.replicas.iter_mut().map(info).collect()
    }

    pub(super) fn timeline(&self, event: Cursor, subjects: &[Subject]) -> Vec<Passage> {
        self.replicas.iter().filter_map(|(replica, kept)| kept.passage(replica, event, subjects)).collect()
    }

    /// Makes room for one more replica; says which are gone for it. Who is connected stays, so there may be too many of
    /// those for a while.
    fn make_room(&mut self, of: &Replica) -> Vec<Replica> {
        let mut forgotten = Vec::new();
        if self.replicas.get(of).is_some() {
            return forgotten;
        }
        while self.replicas.0.len() >= INSTANCES_PER_GATEWAY_MAX
            && let Some(longest) = self.gone_longest().cloned()
        {
            self.replicas.remove(&longest);
            forgotten.push(longest);
        }
        forgotten
    }

    fn gone_longest(&self) -> Option<&Replica> {
        let gone = self.replicas.iter().filter_map(|(replica, kept)| Some((kept.positions.gone_since()?, replica)));
        gone.min_by_key(|(since, _)| *since).map(|(_, replica)| replica)
    }

    pub(super) fn known(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().map(|(replica, _)| replica)
    }

    pub(super) fn positions_row(&mut self, of: &Replica) -> Result<Option<Bytes>, StoreError> {
        let Some(kept) = self.replicas.get_mut(of) else { return Ok(None) };
        kept.has_row = true;
        // Clean before it is read: what moves from here on soils the row again.
        let live = kept.positions.live.iter().map(|seat| {
            let mut progress = seat.progress();
            progress.is_dirty = false;
            (progress.received.end(), seat.arrival)
        });
        let (live, left) = (live.collect(), kept.positions.left.clone());
        let row = Row { live, left, last_receipt: kept.last_receipt, skipped: kept.skipped.as_deref().copied() };
        to_row(&row).map(Some)
    }

    pub(super) fn outcomes_row(&self, of: &Replica) -> Result<Option<Bytes>, StoreError> {
        let kept = self.replicas.get(of).filter(|kept| !kept.outcomes.is_empty());
        kept.map(|kept| to_row(&kept.outcomes)).transpose()
    }

    /// Takes in a row from disk. Whoever was connected then has left by now.
    pub(super) fn load_positions(&mut self, of: Replica, row: &[u8], now: DateTime<Utc>) -> Result<(), StoreError> {
        let row: Row = serde_json::from_slice(row).map_err(malformed)?;
        let kept = self.replicas.entry(&of);
        kept.last_receipt = row.last_receipt;
        kept.skipped = row.skipped.map(Box::new);
        kept.has_row = true;
        kept.positions.load(row.left, row.live, now);
        Ok(())
    }

    pub(super) fn load_outcomes(&mut self, of: Replica, row: &[u8]) -> Result<(), StoreError> {
        self.replicas.entry(&of).outcomes = serde_json::from_slice(row).map_err(malformed)?;
        Ok(())
    }
}

impl Kept {
    /// A connection begins: whether it goes on where its replica was or not.
    fn begin(&mut self, start: Start) {
        let at = start.at();
        let furthest = self.positions.furthest(at.epoch);
        match start {
            Start::AtTheEnd(_) if furthest < at.seq => self.skip(furthest, at),
            Start::AtTheEnd(_) => self.skipped = self.skipped_of(at.epoch),
            // What comes after it is given.
            Start::After(_) => {
                self.skipped = self.skipped_of(at.epoch).filter(|before| before.after < at.seq).map(|mut before| {
                    before.up_to.seq = before.up_to.seq.min(at.seq);
                    before
                });
            }
        }
    }

    /// Nothing of what comes after `after` up to `up_to` is sent.
    fn skip(&mut self, after: Seq, up_to: Cursor) {
        let skipped = match self.skipped_of(up_to.epoch) {
            None => Skipped { after, up_to },
            Some(before) => {
                let seq = before.up_to.seq.max(up_to.seq);
                Skipped { after: before.after.min(after), up_to: Cursor { seq, ..up_to } }
            }
        };
        self.skipped = Some(Box::new(skipped));
    }

    /// Takes out what was skipped in this life of the log.
    fn skipped_of(&mut self, epoch: Epoch) -> Option<Box<Skipped>> {
        self.skipped.take().filter(|before| before.up_to.epoch == epoch)
    }

    /// What is known of one event; `None` if it has not come near the replica.
    fn passage(&self, replica: &Replica, event: Cursor, subjects: &[Subject]) -> Option<Passage> {
        let is_skipped = self.skipped.as_ref().is_some_and(|skipped| skipped.has(event));
        let reaches = |position: Cursor| !is_skipped && position.epoch == event.epoch && position.seq >= event.seq;
        let mut passage = Passage {
            replica: replica.clone(),
            is_connected: !self.positions.live.is_empty(),
            is_sent: false,
            sent_at: None,
            is_received: self.positions.left.iter().any(|left| reaches(left.position)),
            received_at: None,
            outcome: self.outcomes.of(subjects).cloned(),
        };
        let mut sent: Vec<_> = self.history.iter().filter_map(|(sent, _)| sent.when(event)).collect();
        let mut received: Vec<_> = self.history.iter().filter_map(|(_, received)| received.when(event)).collect();
        for seat in &self.positions.live {
            let progress = seat.progress();
            sent.extend(progress.sent.when(event));
            received.extend(progress.received.when(event));
            passage.is_sent |= reaches(progress.sent.end());
            passage.is_received |= reaches(progress.received.end());
        }
        passage.sent_at = sent.into_iter().min();
        passage.received_at = received.into_iter().min();
        passage.is_received |= passage.received_at.is_some() || passage.outcome.is_some();
        passage.is_sent |= passage.sent_at.is_some() || passage.is_received;
        (passage.is_connected || passage.is_sent).then_some(passage)
    }
}

/// What a replica speaks of on another way than a connection.
enum Speaker<'k> {
    /// Of this one, which it has.
    Connection(&'k SeatState),
    /// Of its last one, which has ended, and what is remembered of it.
    Ended(&'k mut Left, Option<&'k mut (Marks, Marks)>),
}

impl<'k> Speaker<'k> {
    /// Of a name the connection that came last, else one that is alone, as it is not known who of several it is.
    fn of(of: &Replica, positions: &'k mut Positions, history: &'k mut VecDeque<(Marks, Marks)>) -> Option<Self> {
        if positions.live.is_empty() {
            return positions.left_alone().map(|left| Self::Ended(left, history.back_mut()));
        }
        let live = &positions.live;
        let seat = match of {
            Replica::Named(_) => live.iter().max_by_key(|seat| seat.arrival),
            Replica::Anonymous(_) => live.first().filter(|_| live.len() == 1),
        };
        seat.map(|seat| Self::Connection(seat))
    }

    fn position(&self) -> Cursor {
        match self {
            Self::Connection(seat) => seat.confirmed(),
            Self::Ended(left, _) => left.position,
        }
    }

    /// After a restart it is not known what was sent before.
    fn was_sent(&self, to: Cursor) -> bool {
        match self {
            Self::Connection(seat) => seat.was_sent(to),
            Self::Ended(_, passings) => passings.as_ref().is_some_and(|(sent, _)| sent.reach(to)),
        }
    }

    fn confirm(self, to: Cursor, now: DateTime<Utc>) -> Option<bool> {
        let position = self.position();
        if position.epoch == to.epoch && position.seq >= to.seq {
            return Some(false);
        }
        if !self.was_sent(to) {
            return None;
        }
        match self {
            Self::Connection(seat) => Some(seat.confirm(to, now) && seat.soil()),
            Self::Ended(left, passings) => {
                left.position = to;
                passings.into_iter().for_each(|(_, received)| received.pass(to, now.timestamp_millis()));
                Some(true)
            }
        }
    }
}

impl Skipped {
    fn has(&self, event: Cursor) -> bool {
        event.epoch == self.up_to.epoch && self.after < event.seq && event.seq <= self.up_to.seq
    }
}

fn to_row(value: &impl Serialize) -> Result<Bytes, StoreError> {
    serde_json::to_vec(value).map(Bytes::from).map_err(malformed)
}

fn malformed(error: serde_json::Error) -> StoreError {
    StoreError::Malformed(format!("receipts: {error}"))
}
