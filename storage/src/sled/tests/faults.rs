//! What the engine does when the disk, or what is on it, is not as it should be.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::time::Instant;

use super::before::spread;
use crate::clock::{Clock, ManualClock};
use crate::contract::{ALL, Ear, ROOMY, gateway, texts};
use crate::ids::{Cursor, Epoch, GatewayId, Seq};
use crate::log::{Appended, Draft, Entry, EventLog, Follower, LogError, NoFollower, Page, Retention};
use crate::records::{Change, Condition, Durability, Records, StoreError, Table};
use crate::sled::block::BLOCK_ENTRIES_MAX;
use crate::sled::data::{DIRECTORY, EVENTS};
use crate::sled::engine::Engine;
use crate::sled::lock::DataLock;
use crate::sled::{SledLog, SledRecords, keys, open, open_sled, replay, second_copy, segments};
use crate::stores::Stores;

pub(super) const SMALL: Retention = Retention { max_events: 100, ..ROOMY };

pub(super) fn engine(data: &Path, retention: Retention, follower: Arc<dyn Follower>) -> Arc<Engine> {
    engine_at(data, retention, Arc::new(ManualClock::default()), follower)
}

pub(super) fn engine_at(
    data: &Path,
    retention: Retention,
    clock: Arc<ManualClock>,
    follower: Arc<dyn Follower>,
) -> Arc<Engine> {
    let lock = Arc::new(DataLock::take(data).unwrap());
    let db = open::open(&data.join("events"), 1 << 20, lock).unwrap();
    Arc::new(Engine::start("test", db, retention, clock, follower).unwrap())
}

/// sled as it is, of a database that was closed just now.
pub(super) fn sled_alone(database: &Path, config: impl Fn(::sled::Config) -> ::sled::Config) -> ::sled::Db {
    let open = || config(::sled::Config::new()).path(database).open().map_err(|error| open::judge(database, error));
    open::once_free(database, open).unwrap()
}

pub(super) async fn stores(data: &Path) -> Result<Stores, StoreError> {
    open_sled(data, SMALL, Arc::new(ManualClock::default()), Arc::new(NoFollower)).await
}

pub(super) fn draft(body: &str) -> Draft {
    Draft {
        at: ManualClock::default().now(),
        since: Instant::now(),
        key: None,
        ends_key: false,
        body: body.to_owned().into(),
        expect: None,
        beside: Vec::new(),
    }
}

fn rows(engine: &Engine, of: GatewayId, epoch: Epoch) -> usize {
    engine.shared.db.fronts(of, epoch, Seq(0), Seq(u64::MAX)).count()
}

/// Sweeps run between batches, so enough batches see them done.
async fn rows_come_down_to(engine: &Arc<Engine>, of: GatewayId, epoch: Epoch, max: usize) {
    let log = SledLog::new(Arc::clone(engine));
    for _ in 0..1_000 {
        if rows(engine, of, epoch) <= max {
            return;
        }
        log.flush().await.unwrap();
    }
    panic!("{} rows are left", rows(engine, of, epoch));
}

#[tokio::test]
async fn a_failed_sync_poisons_the_engine_and_shows_nothing() {
    let (data, ear, of) = (TempDir::new().unwrap(), Arc::new(Ear::default()), gateway());
    let engine = engine(data.path(), ROOMY, Arc::clone(&ear) as Arc<dyn Follower>);
    let (log, records) = (SledLog::new(Arc::clone(&engine)), SledRecords::new(Arc::clone(&engine)));
    let first = log.append(of, draft("first")).await.unwrap();

    engine.shared.db.fail_sync.store(true, Ordering::SeqCst);
    let refused = |result| matches!(result, Err(LogError::Store(StoreError::Poisoned)));
    assert!(refused(log.append(of, draft("lost")).await));
    engine.shared.db.fail_sync.store(false, Ordering::SeqCst);
    assert!(refused(log.append(of, draft("refused")).await), "it does not guess what is on disk");
    assert!(matches!(log.flush().await, Err(LogError::Store(StoreError::Poisoned))));
    assert!(matches!(log.forget(of).await, Err(LogError::Store(StoreError::Poisoned))));
    let change = Change { table: Table::Meta, key: "k".into(), row: None };
    assert!(matches!(records.commit(vec![change], Durability::Lazy).await, Err(StoreError::Poisoned)));

    let start = Cursor { seq: Seq(0), ..first };
    assert_eq!(texts(log.read(of, start, ALL).await.unwrap()), [(1, "first".to_owned())]);
    assert_eq!(log.bounds(of).await.unwrap().head(), first);
    assert_eq!(ear.heard(of).len(), 1);
}

/// What sled has done of a write in which it meets damage is not known: it must not last with the next sync, nor pass for
/// all that was asked.
#[tokio::test]
async fn damage_that_is_met_in_a_write_poisons_the_engine_and_costs_no_other_log() {
    for is_half_done in [false, true] {
        let (data, kept, of) = (TempDir::new().unwrap(), gateway(), gateway());
        let events = data.path().join(EVENTS);
        let (head, gone);
        {
            let engine = engine(data.path(), ROOMY, Arc::new(NoFollower));
            let log = SledLog::new(Arc::clone(&engine));
            head = log.append(kept, draft("kept")).await.unwrap();
            gone = log.append(of, draft("x")).await.unwrap();
            engine.shared.db.fail_batch.store(true, Ordering::SeqCst);
            let refused = log.forget(of).await;
            assert!(matches!(refused, Err(LogError::Store(StoreError::Poisoned))), "{refused:?}");
            engine.shared.db.fail_batch.store(false, Ordering::SeqCst);
            let refused = log.append(kept, draft("refused")).await;
            assert!(matches!(refused, Err(LogError::Store(StoreError::Poisoned))), "{refused:?}");
        }
        if is_half_done {
            let tree = sled_alone(&events, |config| config);
            tree.remove(keys::head(of)).unwrap();
            tree.flush().unwrap();
        }
        let opened = stores(data.path()).await.unwrap();
        assert_eq!(opened.log.bounds(kept).await.unwrap().head(), head);
        assert_eq!(opened.log.bounds(of).await.unwrap().head() == gone, !is_half_done);
    }
}

#[tokio::test]
async fn a_change_of_the_directory_in_which_damage_was_met_does_not_come_back_from_the_second_copy() {
    let data = TempDir::new().unwrap();
    let lock = Arc::new(DataLock::take(data.path()).unwrap());
    let db = open::open(&data.path().join(DIRECTORY), 1 << 20, lock).unwrap();
    db.start_copy(data.path()).unwrap();
    let clock = Arc::new(ManualClock::default());
    let engine = Arc::new(Engine::start("test", db, SMALL, clock, Arc::new(NoFollower)).unwrap());
    let records = SledRecords::new(Arc::clone(&engine));
    let put = |key: &'static str| vec![Change { table: Table::Meta, key: key.into(), row: Some("row".into()) }];
    records.commit(put("a"), Durability::Synced).await.unwrap();
    engine.shared.db.fail_batch.store(true, Ordering::SeqCst);
    assert!(matches!(records.commit(put("b"), Durability::Synced).await, Err(StoreError::Poisoned)));
    engine.shared.db.fail_batch.store(false, Ordering::SeqCst);
    assert!(matches!(records.commit(put("c"), Durability::Synced).await, Err(StoreError::Poisoned)));
    let copied = second_copy::rows(&data.path().join(second_copy::NAME)).unwrap();
    assert_eq!(copied.into_keys().collect::<Vec<_>>(), [keys::record(Table::Meta, b"a")]);
}

/// An append lets go of what is too old; its entry is stored then, but damage in that write is no matter of one log.
#[tokio::test]
async fn damage_that_is_met_in_the_writes_of_a_trim_poisons_the_engine() {
    let (data, of) = (TempDir::new().unwrap(), gateway());
    let engine = engine(data.path(), SMALL, Arc::new(NoFollower));
    let log = SledLog::new(Arc::clone(&engine));
    for _ in 0..112 {
        log.append(of, draft("x")).await.unwrap();
    }
    engine.shared.db.fail_batch.store(true, Ordering::SeqCst);
    let refused = log.append(of, draft("x")).await;
    assert!(matches!(refused, Err(LogError::Store(StoreError::Poisoned))), "{refused:?}");
}

/// The rows of the failed batch may be in sled's cache and not on disk, so a log that was not looked at before cannot be
/// told from one that the batch wrote to.
#[tokio::test]
async fn after_a_failed_sync_open_logs_are_read_as_they_were_and_others_are_not_guessed_at() {
    let (data, gateways) = (TempDir::new().unwrap(), [gateway(), gateway(), gateway()]);
    let [written, open, closed] = gateways;
    let mut starts = Vec::new();
    {
        let engine = engine(data.path(), ROOMY, Arc::new(NoFollower));
        let log = SledLog::new(Arc::clone(&engine));
        for of in gateways {
            starts.push(Cursor { seq: Seq(0), ..log.append(of, draft("durable")).await.unwrap() });
        }
    }
    let engine = engine(data.path(), ROOMY, Arc::new(NoFollower));
    let log = SledLog::new(Arc::clone(&engine));
    log.bounds(open).await.unwrap();
    engine.shared.db.fail_sync.store(true, Ordering::SeqCst);
    log.append(written, draft("lost")).await.unwrap_err();
    for (of, start) in [(written, starts[0]), (open, starts[1])] {
        assert_eq!(texts(log.read(of, start, ALL).await.unwrap()), [(1, "durable".to_owned())]);
        assert_eq!(log.compacted(of, start, ALL).await.unwrap().newest, Seq(1));
    }
    let refused = log.read(closed, starts[2], ALL).await;
    assert!(matches!(refused, Err(LogError::Store(StoreError::Poisoned))), "{refused:?}");
}

#[tokio::test]
async fn rows_on_disk_are_bounded_by_the_retention_and_its_slack() {
    let (data, of) = (TempDir::new().unwrap(), gateway());
    let engine = engine(data.path(), SMALL, Arc::new(NoFollower));
    let log = SledLog::new(Arc::clone(&engine));
    let mut epoch = Epoch(0);
    for _ in 0..1_000 {
        epoch = log.append(of, draft("x")).await.unwrap().epoch;
    }
    rows_come_down_to(&engine, of, epoch, 100 + 100 / 8).await;
    assert_eq!(log.bounds(of).await.unwrap().events(), 100);
}

#[tokio::test]
async fn rows_on_disk_are_bounded_by_bytes() {
    let (data, of) = (TempDir::new().unwrap(), gateway());
    let engine = engine(data.path(), Retention { max_bytes: 10_000, ..ROOMY }, Arc::new(NoFollower));
    let log = SledLog::new(Arc::clone(&engine));
    let mut epoch = Epoch(0);
    for _ in 0..300 {
        epoch = log.append(of, draft(&"x".repeat(1_000))).await.unwrap().epoch;
    }
    rows_come_down_to(&engine, of, epoch, 12).await;
    assert_eq!(log.bounds(of).await.unwrap().bytes, 10_000);
}

#[tokio::test]
async fn a_forgotten_log_frees_its_rows_also_when_the_process_ends_before() {
    let (data, of) = (TempDir::new().unwrap(), gateway());
    let mut epochs = Vec::new();
    {
        let engine = engine(data.path(), ROOMY, Arc::new(NoFollower));
        let log = SledLog::new(Arc::clone(&engine));
        for body in ["a", "b"] {
            let mut last = None;
            for _ in 0..700 {
                last = Some(log.append(of, draft(body)).await.unwrap());
            }
            epochs.push(last.unwrap().epoch);
            log.forget(of).await.unwrap();
        }
        rows_come_down_to(&engine, of, epochs[0], 0).await;
    }
    let engine = engine(data.path(), ROOMY, Arc::new(NoFollower));
    rows_come_down_to(&engine, of, epochs[1], 0).await;
    SledLog::new(Arc::clone(&engine)).flush().await.unwrap();
    assert_eq!(engine.shared.db.prefix(&keys::ALL_FORGOTTEN).count(), 0);
}

fn state_rows(engine: &Engine, of: GatewayId, epoch: Epoch) -> usize {
    keys::all_state(of, epoch).iter().map(|prefix| engine.shared.db.prefix(prefix).count()).sum()
}

#[tokio::test]
async fn compacted_rows_are_bounded_by_the_keys_and_freed_when_the_log_is_forgotten() {
    let (data, of) = (TempDir::new().unwrap(), gateway());
    let engine = engine(data.path(), SMALL, Arc::new(NoFollower));
    let log = SledLog::new(Arc::clone(&engine));
    let mut last = None;
    for number in 0..3_000 {
        let key = Some(Bytes::from(format!("{}", number % 400)));
        last = Some(log.append(of, Draft { key, ends_key: number % 2 == 0, ..draft("x") }).await.unwrap());
    }
    let page = log.compacted(of, last.unwrap(), ALL).await.unwrap();
    assert_eq!(page.oldest, Seq(2_901));
    // Per key its entry and its position, and of every second one that it is a tombstone.
    assert_eq!(state_rows(&engine, of, page.epoch), 400 + 400 + 200);
    let head = engine.shared.db.head(of).unwrap().unwrap();
    assert_eq!((head.keys, head.floor), (400, Seq(2_901)));
    log.forget(of).await.unwrap();
    for _ in 0..1_000 {
        log.flush().await.unwrap();
    }
    assert_eq!(state_rows(&engine, of, page.epoch) + rows(&engine, of, page.epoch), 0);
    assert_eq!(engine.shared.db.prefix(&keys::ALL_FORGOTTEN).count(), 0);
}

#[tokio::test]
async fn a_row_that_cannot_be_understood_does_not_stop_the_log() {
    let (data, of) = (TempDir::new().unwrap(), gateway());
    let engine = engine(data.path(), SMALL, Arc::new(NoFollower));
    let log = SledLog::new(Arc::clone(&engine));
    let keyed = |key: &'static str| Draft { key: Some(Bytes::from_static(key.as_bytes())), ..draft("x") };
    for key in ["a", "b", "c"] {
        log.append(of, keyed(key)).await.unwrap();
    }
    let epoch = log.bounds(of).await.unwrap().epoch;
    spread(&engine.shared.db);
    engine.shared.db.put(&keys::entry(of, epoch, Seq(2)), b"?").unwrap();
    for _ in 0..300 {
        log.append(of, draft("x")).await.unwrap();
    }
    let page = log.compacted(of, Cursor { epoch, seq: Seq(0) }, ALL).await.unwrap();
    let seqs: Vec<_> = page.entries.iter().map(|entry| entry.seq.0).collect();
    assert_eq!((seqs, page.lost_after(Seq(0))), (vec![1, 3], page.oldest.prev().0 - 2));
}

#[tokio::test]
async fn rows_below_the_floor_are_neither_seen_nor_kept() {
    let (data, of) = (TempDir::new().unwrap(), gateway());
    let (epoch, bounds);
    {
        let engine = engine(data.path(), SMALL, Arc::new(NoFollower));
        let log = SledLog::new(Arc::clone(&engine));
        for _ in 0..150 {
            log.append(of, draft("x")).await.unwrap();
        }
        bounds = log.bounds(of).await.unwrap();
        epoch = bounds.epoch;
        // Those that the newest below the floor shares a row with are the last to go.
        rows_come_down_to(&engine, of, epoch, 112 + BLOCK_ENTRIES_MAX - 1).await;
        // What a crash amid a sweep may leave.
        let stray =
            Entry { seq: Seq(3), at: ManualClock::default().now(), key: None, ends_key: false, body: "stray".into() };
        let row = crate::sled::row::encode_entry(&stray, 3);
        engine.shared.db.put(&keys::entry(of, epoch, stray.seq), row).unwrap();
    }
    let engine = engine(data.path(), SMALL, Arc::new(NoFollower));
    let log = SledLog::new(Arc::clone(&engine));
    assert_eq!(log.bounds(of).await.unwrap(), bounds);
    let page = log.read(of, Cursor { epoch, seq: Seq(2) }, ALL).await.unwrap();
    assert_eq!(page, Page::Truncated { oldest: bounds.oldest });
    log.flush().await.unwrap();
    log.flush().await.unwrap();
    assert_eq!(engine.shared.db.front(of, epoch, Seq(3)).unwrap(), None);
}

#[tokio::test]
async fn a_hole_is_told_as_truncation_and_never_skipped() {
    let (data, of) = (TempDir::new().unwrap(), gateway());
    let engine = engine(data.path(), ROOMY, Arc::new(NoFollower));
    let log = SledLog::new(Arc::clone(&engine));
    let mut head = None;
    for number in 1..=9 {
        head = Some(log.append(of, draft(&number.to_string())).await.unwrap());
    }
    let epoch = head.unwrap().epoch;
    spread(&engine.shared.db);
    for hole in [4, 5] {
        engine.shared.db.remove(&keys::entry(of, epoch, Seq(hole))).unwrap();
    }
    let after = async |seq| log.read(of, Cursor { epoch, seq: Seq(seq) }, ALL).await.unwrap();
    assert_eq!(texts(after(0).await).len(), 3, "up to the hole");
    assert_eq!(after(3).await, Page::Truncated { oldest: Seq(6) });
    assert_eq!(log.bounds(of).await.unwrap().oldest, Seq(6));
    assert_eq!(after(0).await, Page::Truncated { oldest: Seq(6) });
    assert_eq!(texts(after(5).await).len(), 4);
}

#[tokio::test]
async fn a_directory_in_use_is_not_taken_for_damage() {
    let data = TempDir::new().unwrap();
    let open = stores(data.path()).await.unwrap();
    let second = stores(data.path()).await.err().unwrap();
    assert!(matches!(second, StoreError::InUse(_)), "{second:?}");
    assert_eq!(set_aside(data.path()), 0);
    drop(open);
    stores(data.path()).await.unwrap();
}

pub(super) fn set_aside(data: &Path) -> usize {
    let names = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("events.damaged-")).count()
}

/// Opens the stores once, writes something to both, and closes them.
pub(super) async fn fill(data: &Path, of: GatewayId) -> Cursor {
    let stores = stores(data).await.unwrap();
    let row = Some("row".into());
    let change = Change { table: Table::Gateways, key: "g".into(), row };
    stores.directory_records.commit(vec![change], Durability::Synced).await.unwrap();
    let mut head = stores.log.append(of, draft("x")).await.unwrap();
    for _ in 0..200 {
        head = stores.log.append(of, draft(&"x".repeat(500))).await.unwrap();
    }
    head
}

/// Flips bits in every byte.
fn garble(file: &Path) {
    let bytes: Vec<u8> = fs::read(file).unwrap().into_iter().map(|byte| byte ^ 0x5a).collect();
    fs::write(file, bytes).unwrap();
}

pub(super) fn garble_all(database: &Path) {
    for entry in fs::read_dir(database).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && path.file_name().unwrap() != "conf" && path.file_name().unwrap() != "mark" {
            garble(&path);
        }
    }
}

/// sled opens a file that lacks its end as a database that lacks its newest rows, without a word: positions would be
/// given a second time in the same epoch.
#[tokio::test]
async fn a_file_that_lacks_its_end_is_damaged_however_little_is_missing() {
    for missing in [1, 4_096, 100_000, 400_000] {
        let (data, of) = (TempDir::new().unwrap(), gateway());
        let before = fill(data.path(), of).await;
        shorten(&data.path().join("events/db"), missing);
        let stores = stores(data.path()).await.unwrap();
        assert_eq!(set_aside(data.path()), 1, "{missing} bytes");
        let page = stores.log.read(of, before, ALL).await.unwrap();
        assert!(matches!(page, Page::WrongEpoch { now } if now != before.epoch));
        assert_eq!(stores.log.append(of, draft("x")).await.unwrap().seq, Seq(1));
        assert_eq!(stores.directory_records.get(Table::Gateways, b"g").await.unwrap().unwrap(), "row");
    }
}

/// sled writes a page anew now and then: an end that says nothing new may be missing.
#[tokio::test]
async fn a_directory_that_lacks_its_end_refuses_to_start_unless_nothing_is_lost() {
    let mut refused = 0;
    for missing in [1, 100, 1_000, 100_000] {
        let data = TempDir::new().unwrap();
        fill(data.path(), gateway()).await;
        shorten(&data.path().join("directory/db"), missing);
        match stores(data.path()).await {
            Ok(stores) => {
                assert_eq!(stores.directory_records.get(Table::Gateways, b"g").await.unwrap().unwrap(), "row");
            }
            Err(StoreError::Damaged { .. }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 0);
}

/// Takes away as much of the end of what was written; after that sled may have filled the segment with one byte.
pub(super) fn shorten(file: &Path, by: u64) {
    let content = fs::read(file).unwrap();
    let written = content.iter().rposition(|byte| Some(byte) != content.last()).unwrap();
    let bytes = written as u64 + 1;
    fs::File::options().write(true).open(file).unwrap().set_len(bytes.saturating_sub(by)).unwrap();
}

/// `DAMAGE_SEED=70024`.
#[tokio::test]
async fn a_file_of_a_large_record_that_was_cut_off_is_damage_when_it_is_read() {
    let data = TempDir::new().unwrap();
    let opened = stores(data.path()).await.unwrap();
    let key = |n: u32| Bytes::copy_from_slice(&n.to_be_bytes());
    for n in 0..90 {
        // In a page that is not read when the store is opened, nor in the segment in which it ends.
        let row = Some(Bytes::from(vec![7; if n == 30 { 200_000 } else { 5_000 }]));
        let change = Change { table: Table::Meta, key: key(n), row };
        opened.events_records.commit(vec![change], Durability::Synced).await.unwrap();
    }
    drop(opened);
    // What was written is in sled's snapshot then.
    drop(stores(data.path()).await.unwrap());
    for blob in fs::read_dir(data.path().join(EVENTS).join("blobs")).unwrap() {
        fs::write(blob.unwrap().path(), "").unwrap();
    }
    let opened = stores(data.path()).await.unwrap();
    let read = opened.events_records.get(Table::Meta, &key(30)).await;
    if set_aside(data.path()) == 1 {
        // Where a snapshot ends is a matter of sled's threads: here before the message, so that it was met at the opening.
        assert!(matches!(read, Ok(None)), "{read:?}");
        return;
    }
    assert!(matches!(read, Err(StoreError::Damaged { .. })), "{read:?}");
    assert_eq!(opened.events_records.condition(), Condition::Broken);
}

#[tokio::test]
async fn events_of_which_nothing_is_readable_are_set_aside() {
    let (data, of) = (TempDir::new().unwrap(), gateway());
    let before = fill(data.path(), of).await;
    garble_all(&data.path().join("events"));
    let stores = stores(data.path()).await.unwrap();
    assert_eq!(set_aside(data.path()), 1);
    assert_ne!(stores.log.bounds(of).await.unwrap().epoch, before.epoch);
}

#[tokio::test]
async fn a_damaged_directory_refuses_to_start_and_leaves_the_events_alone() {
    let (data, of) = (TempDir::new().unwrap(), gateway());
    fill(data.path(), of).await;
    garble_all(&data.path().join("directory"));
    let error = stores(data.path()).await.err().unwrap();
    assert!(matches!(&error, StoreError::Damaged { path, .. } if path.ends_with("directory")), "{error:?}");
    assert_eq!(set_aside(data.path()), 0);
}

#[tokio::test]
async fn a_store_of_a_later_format_is_neither_read_nor_set_aside() {
    let data = TempDir::new().unwrap();
    engine(data.path(), ROOMY, Arc::new(NoFollower)).shared.db.put(keys::FORMAT, &[4]).unwrap();
    let error = stores(data.path()).await.err().unwrap();
    assert!(matches!(error, StoreError::Malformed(_)), "{error:?}");
    assert_eq!(set_aside(data.path()), 0);
}

/// Holds up the committer until it is let go.
struct Gate(Mutex<mpsc::Receiver<()>>);

impl Follower for Gate {
    fn appended(&self, _: GatewayId, _: Epoch, _: &[Appended]) {
        // The sender is gone once all may pass.
        let _ = self.0.lock().unwrap().recv();
    }
}

#[tokio::test(start_paused = true)]
async fn appends_to_a_stuck_store_are_refused_after_a_deadline() {
    let (data, of) = (TempDir::new().unwrap(), gateway());
    let (open_gate, gate) = mpsc::channel();
    let log = Arc::new(SledLog::new(engine(data.path(), ROOMY, Arc::new(Gate(Mutex::new(gate))))));
    let appends = (0..8_000).map(|_| {
        let log = Arc::clone(&log);
        tokio::spawn(async move { log.append(of, draft("x")).await })
    });
    let (mut stored, mut refused) = (Vec::new(), 0);
    let appends: Vec<_> = appends.collect();
    // Time is paused: it jumps to the deadline once all appends wait.
    tokio::time::sleep(crate::sled::engine::QUEUE_WAIT_MAX * 2).await;
    drop(open_gate);
    for append in appends {
        match append.await.unwrap() {
            Ok(cursor) => stored.push(cursor.seq.0),
            Err(LogError::Store(StoreError::Overloaded)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 0 && stored.len() >= 4_096, "{} stored, {refused} refused", stored.len());
    assert_eq!(log.bounds(of).await.unwrap().events(), stored.len() as u64);
}

/// The look at every log is left out only if the last end was clean and sled finds all of its log.
#[tokio::test]
async fn how_a_store_ended_and_what_is_damaged_of_it_decide_how_closely_it_is_looked_at() {
    let data = TempDir::new().unwrap();
    let of = gateway();
    fill(data.path(), of).await;
    let opened = stores(data.path()).await.unwrap();
    for _ in 0..500 {
        opened.log.append(of, draft(&"x".repeat(4_000))).await.unwrap();
    }
    drop(opened);
    let events = data.path().join(EVENTS);
    assert!(events.join("clean").exists() && replay::is_intact(&events, None).unwrap());
    let opened = stores(data.path()).await.unwrap();
    assert!(!events.join("clean").exists(), "while it is open, it may end in any way");
    drop(opened);
    assert!(events.join("clean").exists());
    // Anywhere in what is replayed but in the last segment, whose end the number of syncs tells.
    let sound = fs::read(events.join("db")).unwrap();
    for file in fs::read_dir(&events).unwrap().map(|file| file.unwrap().path()) {
        if file.to_string_lossy().contains("snap.") {
            fs::remove_file(file).unwrap();
        }
    }
    assert!(replay::is_intact(&events, None).unwrap());
    assert!(sound.len() > 1 << 20, "{}", sound.len());
    let heads = segments::heads(&fs::File::open(events.join("db")).unwrap()).unwrap();
    let number = |head: &segments::Head| if let segments::Head::Number(number) = head { *number } else { u64::MAX };
    let first = heads.iter().min_by_key(|(head, _)| number(head)).unwrap().1 as usize;
    for at in [0, 10, 19, 20, 30, 4_000, 300_000] {
        let mut damaged = sound.clone();
        damaged[first + at] ^= 4;
        fs::write(events.join("db"), &damaged).unwrap();
        assert!(!replay::is_intact(&events, None).unwrap(), "{at}");
    }
}

/// Seen in one of 150 losses of power: of the last batch, which nobody was answered, the number of entries was on disk
/// and one of the entries was not.
#[tokio::test]
async fn what_a_sync_that_was_not_done_says_of_the_ends_is_no_promise() {
    for (is_done, is_damage) in [(false, false), (true, true)] {
        let data = TempDir::new().unwrap();
        fill(data.path(), gateway()).await;
        let events = data.path().join(EVENTS);
        fs::remove_file(events.join("clean")).unwrap();
        let tree = sled_alone(&events, |config| config);
        let row = tree.get(keys::SYNCS).unwrap().unwrap();
        let number = |at: usize| u64::from_be_bytes(row[at..at + 8].try_into().unwrap());
        let (syncs, ends) = (number(0) + u64::from(!is_done), number(8) + 1);
        tree.insert(keys::SYNCS, [syncs.to_be_bytes(), ends.to_be_bytes()].concat()).unwrap();
        drop(tree);
        drop(stores(data.path()).await.unwrap());
        assert_eq!(set_aside(data.path()), usize::from(is_damage));
    }
}

#[tokio::test]
async fn a_store_is_closed_once_its_last_handle_is_gone() {
    let data = TempDir::new().unwrap();
    let Stores { log, closed, .. } = stores(data.path()).await.unwrap();
    let closed = closed.unwrap();
    assert!(!closed.wait(Duration::ZERO), "the log is open");
    drop(log);
    assert!(closed.wait(Duration::from_secs(60)));
    assert!([DIRECTORY, EVENTS].iter().all(|database| data.path().join(database).join("clean").exists()));
}

/// sled's threads let go of its file some time after it was closed, and tell nobody.
#[tokio::test]
async fn a_database_that_is_still_being_closed_is_opened_once_its_file_is_free() {
    let data = TempDir::new().unwrap();
    drop(stores(data.path()).await.unwrap());
    let events = data.path().join(EVENTS);
    let closing = fs::File::open(events.join(segments::NAME)).unwrap();
    while closing.try_lock().is_err() {
        thread::yield_now();
    }
    let closing = Cell::new(Some(closing));
    let opened = open::once_free(&events, || {
        let opened = ::sled::open(&events).map_err(|error| open::judge(&events, error));
        assert_eq!(matches!(opened, Err(StoreError::InUse(_))), closing.take().is_some());
        opened
    });
    assert!(opened.is_ok());
}
