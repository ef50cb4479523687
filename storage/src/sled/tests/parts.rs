//! Entries with large bodies: nothing of them is left behind, and they are whole or not there.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::time::Instant;

use super::before::{spread, without_bundles};
use super::faults::{SMALL, draft, engine};
use crate::contract::{ALL, gateway};
use crate::ids::{Cursor, Epoch, GatewayId, Seq};
use crate::log::{Draft, EventLog, NoFollower, Page, Retention};
use crate::sled::data::{DataDir, EVENTS};
use crate::sled::engine::Engine;
use crate::sled::row::{PART_BYTES, bytes_in_parts, encode_entry};
use crate::sled::sweeps::{Sweep, Sweeps};
use crate::sled::young::BUNDLES_MAX;
use crate::sled::{SledLog, keys};

const TINY: Retention = Retention { max_events: 16, ..SMALL };

fn body(n: usize, bytes: usize) -> String {
    format!("{n} ").repeat(bytes / 2 + 1)[..bytes].to_owned()
}

/// How many parts there are, and how many there should be.
fn parts(engine: &Engine, of: GatewayId) -> (usize, usize) {
    let db = &engine.shared.db;
    let head = db.head(of).unwrap().unwrap();
    let entries = db.entry_rows(of, head.epoch, head.floor, Seq(u64::MAX));
    let rows = entries.chain(db.state_rows(of, head.epoch, Seq(0)));
    let wanted = rows.map(|row| bytes_in_parts(&row.unwrap().1).unwrap().div_ceil(PART_BYTES)).sum();
    let there = db.range(keys::part(of, head.epoch, Seq(0), 0)..=keys::part(of, head.epoch, Seq(u64::MAX), u32::MAX));
    (there.count(), wanted)
}

/// The files that sled has made.
fn files(data: &Path) -> usize {
    fs::read_dir(data.join(EVENTS).join("blobs")).unwrap().count()
}

/// A chunk is deleted after each batch, and the rest while there is nothing else to do.
async fn swept(engine: &Arc<Engine>) {
    let log = SledLog::new(Arc::clone(engine));
    for _ in 0..100 {
        log.flush().await.unwrap();
    }
}

#[tokio::test]
async fn large_entries_leave_nothing_behind() {
    let data = TempDir::new().unwrap();
    let logs: Vec<_> = (0..10).map(|_| gateway()).collect();
    for life in 0..3 {
        let engine = engine(data.path(), TINY, Arc::new(NoFollower));
        let log = SledLog::new(Arc::clone(&engine));
        for n in 0..400 {
            let key = (n % 3 > 0).then(|| Bytes::from(format!("{}", n % 7)));
            let bytes = [300, 10_000, 4_096, 4_097, 150_000][n / 10 % 5];
            log.append(logs[n % 10], Draft { key, ..draft(&body(n, bytes)) }).await.unwrap();
        }
        assert_eq!(files(data.path()), 0, "no page is so large that sled makes a file of it");
        if life == 1 {
            // As a crash: what is to be deleted is found again.
            continue;
        }
        for of in &logs {
            let bounds = log.bounds(*of).await.unwrap();
            log.compacted(*of, bounds.head(), ALL).await.unwrap();
        }
        swept(&engine).await;
        for of in &logs {
            let (there, wanted) = parts(&engine, *of);
            assert!(wanted > 0);
            assert_eq!(there, wanted);
        }
        assert_eq!(engine.shared.db.prefix(&keys::ALL_LEFT).count(), 0);
    }
    let engine = engine(data.path(), TINY, Arc::new(NoFollower));
    for of in logs {
        SledLog::new(Arc::clone(&engine)).forget(of).await.unwrap();
    }
    swept(&engine).await;
    // Format and syncs, and where bundles take each other's place.
    let bundles = engine.shared.db.prefix(keys::SETTLED).count();
    assert_eq!(engine.shared.db.prefix(&[]).count(), 2 + bundles);
    assert!(bundles <= 1 + BUNDLES_MAX as usize);
}

#[tokio::test]
async fn what_a_crash_left_of_an_entry_that_was_never_there_is_no_part_of_the_next() {
    let (data, of) = (TempDir::new().unwrap(), gateway());
    let mut head = {
        let engine = engine(data.path(), SMALL, Arc::new(NoFollower));
        let head = SledLog::new(Arc::clone(&engine)).append(of, draft("first")).await.unwrap();
        for (seq, number) in [(1, 0), (2, 0), (2, 1), (2, 2), (4, 0)] {
            engine.shared.db.put(&keys::part(of, head.epoch, Seq(seq), number), b"left").unwrap();
        }
        // The first one is of an entry that has left the compacted state.
        engine.shared.db.put(&keys::left(of, head.epoch, Seq(1)), b"").unwrap();
        head
    };
    let engine = engine(data.path(), SMALL, Arc::new(NoFollower));
    swept(&engine).await;
    assert_eq!(engine.shared.db.prefix(&keys::ALL_LEFT).count(), 0);
    let log = SledLog::new(Arc::clone(&engine));
    for bytes in [5_000, 10] {
        let from = head;
        head = log.append(of, draft(&body(1, bytes))).await.unwrap();
        let Page::Entries(read) = log.read(of, from, ALL).await.unwrap() else { panic!() };
        assert_eq!(read[0].body, body(1, bytes));
    }
    assert_eq!(parts(&engine, of), (2, 2));
}

/// Else what is to be deleted piles up while there is more than one log to a batch.
#[tokio::test]
async fn what_one_chunk_leaves_is_deleted_though_nobody_writes_any_more() {
    let (data, of) = (TempDir::new().unwrap(), gateway());
    let engine = engine(data.path(), SMALL, Arc::new(NoFollower));
    let log = SledLog::new(Arc::clone(&engine));
    for n in 0..20 {
        log.append(of, draft(&body(n, 40 * PART_BYTES))).await.unwrap();
    }
    let epoch = log.bounds(of).await.unwrap().epoch;
    let parts = || {
        let all = keys::part(of, epoch, Seq(0), 0)..=keys::part(of, epoch, Seq(u64::MAX), u32::MAX);
        engine.shared.db.range(all).count()
    };
    assert!(parts() >= 20 * 40);
    log.forget(of).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while parts() > 0 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(parts(), 0);
}

#[tokio::test]
async fn one_chunk_is_of_as_many_sweeps_as_it_has_room_for() {
    let data = TempDir::new().unwrap();
    let engine = engine(data.path(), SMALL, Arc::new(NoFollower));
    let db = &engine.shared.db;
    let logs: Vec<_> = (0..20).map(|_| gateway()).collect();
    let mut sweeps = Sweeps::default();
    for of in &logs {
        for seq in 1..=10 {
            db.put(&keys::entry(*of, Epoch(1), Seq(seq)), b"row").unwrap();
        }
        sweeps.add(vec![
            Sweep::Entries(*of, Epoch(1), (Seq(1), Seq(6))),
            Sweep::Entries(*of, Epoch(1), (Seq(6), Seq(9))),
        ]);
    }
    sweeps.step(db, 0).unwrap();
    assert!(sweeps.is_empty());
    assert!(logs.iter().all(|of| db.entry_rows(*of, Epoch(1), Seq(0), Seq(99)).count() == 2));
}

#[tokio::test]
async fn an_entry_that_lacks_a_part_is_a_hole_and_damage() {
    let (data, of) = (TempDir::new().unwrap(), gateway());
    let engine = engine(data.path(), SMALL, Arc::new(NoFollower));
    let log = SledLog::new(Arc::clone(&engine));
    let mut head = None;
    for n in 0..3 {
        head = Some(log.append(of, draft(&body(n, 9_000))).await.unwrap());
    }
    let start = Cursor { seq: Seq(0), ..head.unwrap() };
    engine.shared.db.remove(&keys::part(of, start.epoch, Seq(2), 1)).unwrap();
    let Page::Entries(read) = log.read(of, start, ALL).await.unwrap() else { panic!() };
    assert_eq!(read.len(), 1, "up to the hole");
    assert!(!engine.shared.db.is_damaged());
    let page = log.read(of, Cursor { seq: Seq(1), ..start }, ALL).await.unwrap();
    assert_eq!(page, Page::Truncated { oldest: Seq(3) });
    assert!(engine.shared.db.is_damaged());
}

#[tokio::test]
async fn a_compacted_entry_that_lacks_a_part_is_damage() {
    let (data, of) = (TempDir::new().unwrap(), gateway());
    let engine = engine(data.path(), TINY, Arc::new(NoFollower));
    let log = SledLog::new(Arc::clone(&engine));
    let first = log.append(of, Draft { key: Some("k".into()), ..draft(&body(1, 9_000)) }).await.unwrap();
    for _ in 0..40 {
        log.append(of, draft("x")).await.unwrap();
    }
    let start = Cursor { seq: Seq(0), ..first };
    let whole = log.compacted(of, start, ALL).await.unwrap();
    assert_eq!(whole.entries[0].body, body(1, 9_000));
    engine.shared.db.put(&keys::part(of, first.epoch, Seq(1), 2), b"short").unwrap();
    assert!(log.compacted(of, start, ALL).await.is_err());
    assert!(engine.shared.db.is_damaged());
}

#[tokio::test]
async fn large_entries_of_before_there_were_parts_are_read_and_compacted() {
    let (data, of) = (TempDir::new().unwrap(), gateway());
    let head = {
        let engine = engine(data.path(), TINY, Arc::new(NoFollower));
        let log = SledLog::new(Arc::clone(&engine));
        let head = log.append(of, Draft { key: Some("k".into()), ..draft(&body(1, 9_000)) }).await.unwrap();
        let Page::Entries(read) = log.read(of, Cursor { seq: Seq(0), ..head }, ALL).await.unwrap() else { panic!() };
        let mut entry = read[0].clone();
        let large = std::mem::take(&mut entry.body);
        let row = [encode_entry(&entry, 9_001), large.to_vec()].concat();
        spread(&engine.shared.db);
        engine.shared.db.remove_parts(of, head.epoch, Seq(1), Seq(1), usize::MAX).unwrap();
        engine.shared.db.put(&keys::entry(of, head.epoch, Seq(1)), row).unwrap();
        head
    };
    without_bundles(data.path());
    DataDir::take(data.path()).unwrap().open(EVENTS).unwrap().put(keys::FORMAT, &[1]).unwrap();
    let engine = engine(data.path(), TINY, Arc::new(NoFollower));
    let log = SledLog::new(Arc::clone(&engine));
    let start = Cursor { seq: Seq(0), ..head };
    let Page::Entries(read) = log.read(of, start, ALL).await.unwrap() else { panic!() };
    assert_eq!(read[0].body, body(1, 9_000));
    for n in 0..80 {
        log.append(of, draft(&body(n, 5_000))).await.unwrap();
    }
    assert_eq!(log.compacted(of, start, ALL).await.unwrap().entries[0].body, body(1, 9_000));
    // It leaves the state.
    for _ in 0..40 {
        log.append(of, Draft { key: Some("k".into()), ..draft("x") }).await.unwrap();
    }
    assert_eq!(log.compacted(of, start, ALL).await.unwrap().entries[0].body, "x");
    swept(&engine).await;
    let (there, wanted) = parts(&engine, of);
    assert_eq!(there, wanted);
}
