//! What was answered to calls with an idempotency key, so that a repeated call is given the first answer.
//!
//! - An answer is stored with its event ([`Answer::beside`]): after any crash both are there or neither.
//! - What a call that tells several gateways sets out to do is stored before the first of its events
//!   ([`Answers::begin`]): after any crash a repeated call goes on with that.
//! - Both count for [`ANSWER_AGE_MAX`]; at most [`ANSWERS_MAX`] of [`ANSWERS_BYTES_MAX`] are kept, the oldest going first.
//!   All are in memory, some 350 bytes each; what a call sets out to do has some 40 bytes for each gateway.
//! - On disk, in [`Table::Answers`]: gateway (16 bytes), key (16), time in ms (8) → position (12), what was asked (32),
//!   the rest. What a call sets out to do has zeros for gateway and position. The time is in the key, so that deleting a
//!   row that ran out never meets a later one of the same name. Rows are deleted behind, in bulk; a crash may leave some,
//!   which the next start deletes.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};

use crate::clock::Clock;
use crate::ids::{Cursor, Epoch, GatewayId, Seq};
use crate::log::Beside;
use crate::records::{Change, Durability, Records, StoreError, Table, each_row};
use crate::write_behind::{Source, WriteBehind};

/// How long an answer is kept.
pub const ANSWER_AGE_MAX: TimeDelta = TimeDelta::minutes(10);
/// Answers kept at once: one to each of 100,000 gateways, twice.
pub const ANSWERS_MAX: usize = 200_000;
/// Bytes of [`Answer::rest`] kept at once: more than so many answers have.
pub const ANSWERS_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Between two rounds of deleting.
const DELETE_PAUSE: Duration = Duration::from_secs(1);
/// In place of a gateway, for what a call as a whole sets out to do. No gateway has this id.
const NO_GATEWAY: GatewayId = GatewayId(uuid::Uuid::nil());
/// In place of its event. No event has this position.
const NO_EVENT: Cursor = Cursor { epoch: Epoch(0), seq: Seq(0) };

/// Names an answer: a gateway, and a hash of the publisher's key and of the kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AnswerName {
    /// The gateway.
    pub gateway: GatewayId,
    /// The hash.
    pub key: [u8; 16],
}

/// What a call for one gateway was answered; or what a call sets out to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// When; as [`Draft::at`](crate::Draft::at), with millisecond precision.
    pub at: DateTime<Utc>,
    /// The SHA-256 of what was asked.
    pub asked: [u8; 32],
    /// Opaque here.
    pub rest: Bytes,
}

/// The answers given lately.
pub struct Answers {
    shared: Arc<Shared>,
    records: Arc<dyn Records>,
    writer: WriteBehind<Shared>,
}

struct Shared {
    book: Mutex<Book>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct Book {
    answers: HashMap<AnswerName, (Cursor, Answer)>,
    /// Of what these say.
    bytes: usize,
    /// Oldest first. A name that was used anew after it ran out stands here once for each use.
    by_age: VecDeque<(DateTime<Utc>, AnswerName)>,
    /// Rows to be deleted.
    gone: VecDeque<Bytes>,
}

impl Answer {
    /// The row to store with the event.
    #[must_use]
    pub fn beside(&self, name: AnswerName) -> Beside {
        let mut rest = Vec::with_capacity(32 + self.rest.len());
        rest.extend_from_slice(&self.asked);
        rest.extend_from_slice(&self.rest);
        Beside { table: Table::Answers, key: row_key(name, self.at), rest: rest.into() }
    }
}

impl Answers {
    /// Loads what `records` holds, which must be where the log puts its rows.
    ///
    /// # Errors
    /// If the store cannot be read, or holds a row that this version does not understand.
    pub async fn open(records: Arc<dyn Records>, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let mut rows = Self::read(&*records).await?;
        rows.sort_by_key(|(_, _, answer)| answer.at);
        let mut book = Book::default();
        for (name, event, answer) in rows {
            book.keep(name, event, answer);
        }
        book.expire(clock.now());
        let shared = Arc::new(Shared { book: Mutex::new(book), clock });
        let writer =
            WriteBehind::start(Arc::clone(&shared), Arc::clone(&records), DELETE_PAUSE, "Answers that ran out");
        writer.wake();
        Ok(Self { shared, records, writer })
    }

    /// All that are stored.
    pub(crate) async fn read(records: &dyn Records) -> Result<Vec<(AnswerName, Cursor, Answer)>, StoreError> {
        let malformed = || StoreError::Malformed("an answer".to_owned());
        let mut answers = Vec::new();
        each_row(records, Table::Answers, |key, row| {
            answers.push(parse(&key, &row).ok_or_else(malformed)?);
            Ok(())
        })
        .await?;
        Ok(answers)
    }

    /// The event of an earlier call of this name and what it was answered, unless that is too long ago.
    #[must_use]
    pub fn find(&self, name: AnswerName) -> Option<(Cursor, Answer)> {
        let now = self.shared.clock.now();
        self.shared.book().answers.get(&name).filter(|(_, answer)| !is_over(answer.at, now)).cloned()
    }

    /// Stores what a call of this key sets out to do, durably.
    ///
    /// # Errors
    /// If it may not have been stored.
    pub async fn begin(&self, key: [u8; 16], plan: Answer) -> Result<(), StoreError> {
        let name = AnswerName { gateway: NO_GATEWAY, key };
        let beside = plan.beside(name);
        let row = Some(beside.row(NO_EVENT).into());
        let change = Change { table: beside.table, key: beside.key, row };
        self.records.commit(vec![change], Durability::Synced).await?;
        self.keep(name, NO_EVENT, plan);
        Ok(())
    }

    /// What an earlier call of this key set out to do, unless that is too long ago.
    #[must_use]
    pub fn begun(&self, key: [u8; 16]) -> Option<Answer> {
        self.find(AnswerName { gateway: NO_GATEWAY, key }).map(|(_, plan)| plan)
    }

    /// An answer was stored with this event.
    pub fn keep(&self, name: AnswerName, event: Cursor, answer: Answer) {
        let now = self.shared.clock.now();
        let mut book = self.shared.book();
        book.keep(name, event, answer);
        book.expire(now);
        if !book.gone.is_empty() {
            self.writer.wake();
        }
    }
}

impl Book {
    fn keep(&mut self, name: AnswerName, event: Cursor, answer: Answer) {
        self.by_age.push_back((answer.at, name));
        self.bytes += answer.rest.len();
        if let Some((_, before)) = self.answers.insert(name, (event, answer)) {
            self.bytes -= before.rest.len();
        }
    }

    fn expire(&mut self, now: DateTime<Utc>) {
        while let Some((at, name)) = self.by_age.front().copied()
            && (is_over(at, now) || self.by_age.len() > ANSWERS_MAX || self.bytes > ANSWERS_BYTES_MAX)
        {
            self.by_age.pop_front();
            if let Entry::Occupied(kept) = self.answers.entry(name)
                && kept.get().1.at == at
            {
                let (_, gone) = kept.remove();
                self.bytes -= gone.rest.len();
            }
            self.gone.push_back(row_key(name, at));
        }
    }
}

impl Shared {
    /// A poisoned lock is used on: no step under it can panic half-way.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Shared {
    type Row = ();

    fn dirty_rows(&self, max: usize) -> Result<(Vec<()>, Vec<Change>), StoreError> {
        let book = self.book();
        let changes = book.gone.iter().take(max);
        let changes: Vec<_> =
            changes.map(|key| Change { table: Table::Answers, key: key.clone(), row: None }).collect();
        Ok((vec![(); changes.len()], changes))
    }

    /// Keys are only added behind, so these are the first.
    fn written(&self, rows: &[()]) {
        self.book().gone.drain(..rows.len());
    }
}

fn is_over(at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    now - at >= ANSWER_AGE_MAX
}

fn row_key(name: AnswerName, at: DateTime<Utc>) -> Bytes {
    let mut key = Vec::with_capacity(40);
    key.extend_from_slice(name.gateway.0.as_bytes());
    key.extend_from_slice(&name.key);
    key.extend_from_slice(&at.timestamp_millis().to_be_bytes());
    key.into()
}

fn parse(key: &[u8], row: &[u8]) -> Option<(AnswerName, Cursor, Answer)> {
    let (gateway, key) = key.split_first_chunk::<16>()?;
    let (key, at) = key.split_first_chunk::<16>()?;
    let at = DateTime::from_timestamp_millis(i64::from_be_bytes(at.try_into().ok()?))?;
    let (event, rest) = Beside::parse(row)?;
    let (asked, rest) = rest.split_first_chunk::<32>()?;
    let name = AnswerName { gateway: GatewayId(uuid::Uuid::from_bytes(*gateway)), key: *key };
    Some((name, event, Answer { at, asked: *asked, rest: Bytes::copy_from_slice(rest) }))
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::clock::ManualClock;
    use crate::log::{Draft, NoFollower};
    use crate::stores::{Stores, open_memory};

    fn name(key: u32) -> AnswerName {
        let mut hash = [0; 16];
        hash[..4].copy_from_slice(&key.to_be_bytes());
        AnswerName { gateway: GatewayId(uuid::Uuid::from_u128(7)), key: hash }
    }

    async fn store(stores: &Stores, answers: &Answers, key: u32, clock: &ManualClock) -> (Cursor, Answer) {
        let answer = Answer { at: clock.now(), asked: [9; 32], rest: Bytes::from(format!("{key}")) };
        let draft = Draft {
            at: answer.at,
            since: Instant::now(),
            key: None,
            ends_key: false,
            body: Bytes::new(),
            expect: None,
            beside: vec![answer.beside(name(key))],
        };
        let event = stores.log.append(name(key).gateway, draft).await.unwrap();
        answers.keep(name(key), event, answer.clone());
        (event, answer)
    }

    fn stores(clock: &Arc<ManualClock>) -> Stores {
        open_memory(crate::contract::ROOMY, clock.clone(), Arc::new(NoFollower))
    }

    #[tokio::test]
    async fn answers_survive_a_restart_until_they_run_out() {
        let clock = Arc::new(ManualClock::default());
        let stores = stores(&clock);
        let open = || Answers::open(stores.events_records.clone(), clock.clone());
        let answers = open().await.unwrap();
        let first = store(&stores, &answers, 1, &clock).await;
        clock.advance(Duration::from_secs(599));
        let second = store(&stores, &answers, 2, &clock).await;
        drop(answers);
        let answers = open().await.unwrap();
        assert_eq!((answers.find(name(1)), answers.find(name(2))), (Some(first), Some(second.clone())));
        assert_eq!(answers.find(AnswerName { gateway: GatewayId(uuid::Uuid::nil()), ..name(1) }), None);
        clock.advance(Duration::from_secs(1));
        assert_eq!((answers.find(name(1)), answers.find(name(2))), (None, Some(second)));
    }

    #[tokio::test]
    async fn rows_that_ran_out_are_deleted_and_a_name_used_anew_keeps_its_row() {
        let clock = Arc::new(ManualClock::default());
        let stores = stores(&clock);
        let answers = Answers::open(stores.events_records.clone(), clock.clone()).await.unwrap();
        for key in 0..3_000 {
            store(&stores, &answers, key, &clock).await;
        }
        clock.advance(Duration::from_secs(600));
        let anew = store(&stores, &answers, 5, &clock).await;
        answers.writer.flush().await.unwrap();
        assert_eq!(stores.events_records.scan(Table::Answers).await.unwrap().len(), 1);
        drop(answers);
        let answers = Answers::open(stores.events_records.clone(), clock.clone()).await.unwrap();
        assert_eq!(answers.find(name(5)), Some(anew));
    }

    #[tokio::test]
    async fn what_a_call_sets_out_to_do_survives_a_restart_and_runs_out() {
        let clock = Arc::new(ManualClock::default());
        let stores = stores(&clock);
        let open = || Answers::open(stores.events_records.clone(), clock.clone());
        let plan = Answer { at: clock.now(), asked: [9; 32], rest: Bytes::from_static(b"whom") };
        let answers = open().await.unwrap();
        answers.begin([1; 16], plan.clone()).await.unwrap();
        assert_eq!(answers.begun([1; 16]), Some(plan.clone()));
        drop(answers);
        let answers = open().await.unwrap();
        assert_eq!((answers.begun([1; 16]), answers.begun([2; 16])), (Some(plan), None));
        clock.advance(Duration::from_secs(600));
        assert_eq!(answers.begun([1; 16]), None);
    }

    const EVENT: Cursor = Cursor { epoch: Epoch(1), seq: Seq(1) };

    #[test]
    fn what_is_kept_is_bounded_by_bytes() {
        let mut book = Book::default();
        let at = ManualClock::default().now();
        let answer = Answer { at, asked: [0; 32], rest: vec![0; ANSWERS_BYTES_MAX / 4].into() };
        for key in [0, 1, 1, 2, 3, 4] {
            book.keep(name(key), EVENT, answer.clone());
            book.expire(at);
        }
        assert_eq!((book.answers.len(), book.bytes), (4, ANSWERS_BYTES_MAX));
        assert!(!book.answers.contains_key(&name(0)) && book.answers.contains_key(&name(1)));
    }

    #[test]
    fn what_is_kept_is_bounded_by_count() {
        let mut book = Book::default();
        let at = ManualClock::default().now();
        let answer = Answer { at, asked: [0; 32], rest: Bytes::new() };
        for key in 0..u32::try_from(ANSWERS_MAX).unwrap() + 10 {
            book.keep(name(key), EVENT, answer.clone());
            book.expire(at);
        }
        assert_eq!((book.answers.len(), book.by_age.len(), book.gone.len()), (ANSWERS_MAX, ANSWERS_MAX, 10));
        assert!(!book.answers.contains_key(&name(9)) && book.answers.contains_key(&name(10)));
    }
}
