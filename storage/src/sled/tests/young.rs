//! Entries on their way into the rows of their logs.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use tempfile::TempDir;

use super::before::without_bundles;
use super::faults::{SMALL, draft, engine, set_aside, stores};
use crate::contract::{ALL, ROOMY, gateway, texts};
use crate::ids::{Cursor, Epoch, GatewayId, Seq};
use crate::log::{Budget, Draft, EventLog, NoFollower, Page, Retention};
use crate::sled::bundle::Bundle;
use crate::sled::data::{DataDir, EVENTS};
use crate::sled::engine::Engine;
use crate::sled::mark::Mark;
use crate::sled::row::PART_BYTES;
use crate::sled::young::BUNDLES_MAX;
use crate::sled::{SledLog, block, check_store, keys};
use crate::stores::Stores;

/// Keys of rows of entries of a log.
fn rows(engine: &Engine, of: GatewayId, epoch: Epoch) -> usize {
    engine.shared.db.range(keys::entry(of, epoch, Seq(0))..=keys::entry(of, epoch, Seq(u64::MAX))).count()
}

async fn append(log: &dyn EventLog, of: GatewayId, bodies: std::ops::Range<usize>) -> Cursor {
    let mut head = None;
    for n in bodies {
        head = Some(log.append(of, draft(&n.to_string())).await.unwrap());
    }
    head.unwrap()
}

async fn read(log: &dyn EventLog, of: GatewayId, head: Cursor) -> Vec<(u64, String)> {
    texts(log.read(of, Cursor { seq: Seq(0), ..head }, ALL).await.unwrap())
}

/// Their positions begin at 1.
fn numbers(of: std::ops::Range<usize>) -> Vec<(u64, String)> {
    of.map(|n| (n as u64 + 1, n.to_string())).collect()
}

#[tokio::test]
async fn entries_of_many_batches_share_a_row_and_are_read_in_order() {
    let (data, logs) = (TempDir::new().unwrap(), [gateway(), gateway()]);
    let engine = engine(data.path(), ROOMY, Arc::new(NoFollower));
    let log = SledLog::new(Arc::clone(&engine));
    let mut heads = Vec::new();
    for n in 0..100 {
        heads = Vec::new();
        for of in logs {
            heads.push(append(&log, of, n..n + 1).await);
        }
    }
    for (of, head) in logs.into_iter().zip(heads) {
        assert_eq!(read(&log, of, head).await, numbers(0..100));
        let rows = rows(&engine, of, head.epoch);
        assert!(rows > 0 && rows <= 100 / (BUNDLES_MAX as usize / 4), "{rows} rows");
        for seq in 1..=100 {
            assert!(engine.shared.db.front(of, head.epoch, Seq(seq)).unwrap().is_some());
        }
    }
}

/// What is settled and what is not, from every position on.
#[tokio::test]
async fn a_store_goes_on_with_what_was_young_as_often_as_it_is_opened() {
    let (data, of) = (TempDir::new().unwrap(), gateway());
    let mut head = None;
    for life in 0..12 {
        let engine = engine(data.path(), ROOMY, Arc::new(NoFollower));
        let log = SledLog::new(Arc::clone(&engine));
        let now = append(&log, of, life * 5..life * 5 + 5).await;
        let epoch = head.replace(now).map_or(now.epoch, |head: Cursor| head.epoch);
        assert_eq!((now.epoch, now.seq), (epoch, Seq(life as u64 * 5 + 5)));
        for after in 0..now.seq.0 {
            let page = log.read(of, Cursor { seq: Seq(after), ..now }, ALL).await.unwrap();
            assert_eq!(texts(page), numbers(after as usize..life * 5 + 5));
        }
    }
    assert_eq!(set_aside(data.path()), 0);
}

/// A crash may leave rows of logs that bundles have as well.
#[tokio::test]
async fn what_is_settled_and_said_to_be_young_is_settled_once() {
    let (data, of, other) = (TempDir::new().unwrap(), gateway(), gateway());
    let head = {
        let engine = engine(data.path(), ROOMY, Arc::new(NoFollower));
        let log = SledLog::new(Arc::clone(&engine));
        append(&log, other, 0..2).await;
        let head = append(&log, of, 0..4).await;
        log.forget(other).await.unwrap();
        log.flush().await.unwrap();
        let db = &engine.shared.db;
        let row = |seq| db.young_row((of, head.epoch), Seq(seq)).unwrap().map(|row| (Seq(seq), row)).unwrap();
        db.put(&keys::entry(of, head.epoch, Seq(1)), block::encode(&[row(1), row(2)])).unwrap();
        head
    };
    let engine = engine(data.path(), ROOMY, Arc::new(NoFollower));
    let log = SledLog::new(Arc::clone(&engine));
    assert_eq!(engine.shared.db.young_row((of, head.epoch), Seq(2)).unwrap(), None);
    assert!(engine.shared.db.young_row((of, head.epoch), Seq(3)).unwrap().is_some());
    append(&log, of, 4..30).await;
    assert_eq!(read(&log, of, head).await, numbers(0..30));
    drop((log, engine));
    let faults = check_store(data.path(), Arc::new(crate::ManualClock::default())).await.unwrap().faults;
    // There is no directory.
    assert!(!faults.iter().any(|fault| fault.contains("events")), "{faults:?}");
}

/// The writer comes to it before any reader does.
#[tokio::test]
async fn what_only_seems_young_is_not_settled_though_nobody_asked_for_it() {
    let (data, of, forgotten, third) = (TempDir::new().unwrap(), gateway(), gateway(), gateway());
    let (head, gone) = {
        let engine = engine(data.path(), ROOMY, Arc::new(NoFollower));
        let log = SledLog::new(Arc::clone(&engine));
        let gone = append(&log, forgotten, 0..2).await;
        let head = append(&log, of, 0..4).await;
        log.forget(forgotten).await.unwrap();
        log.flush().await.unwrap();
        let db = &engine.shared.db;
        let rows = db.some_young((of, head.epoch), (Seq(1), Seq(3)), 3).unwrap();
        db.put(&keys::entry(of, head.epoch, Seq(1)), block::encode(&rows[..2])).unwrap();
        db.put(&keys::entry(of, head.epoch, Seq(3)), block::encode(&rows[2..])).unwrap();
        (head, gone)
    };
    let engine = engine(data.path(), ROOMY, Arc::new(NoFollower));
    let (log, db) = (SledLog::new(Arc::clone(&engine)), &engine.shared.db);
    assert!(db.young.has((of, head.epoch)) && db.young.has((forgotten, gone.epoch)), "opening looks at no log");
    append(&log, third, 0..30).await;
    assert!(!db.young.has((of, head.epoch)) && !db.young.has((forgotten, gone.epoch)));
    assert_eq!(rows(&engine, forgotten, gone.epoch), 0);
    let blocks = db.range(keys::entry(of, head.epoch, Seq(0))..=keys::entry(of, head.epoch, Seq(u64::MAX)));
    let blocks = blocks.map(|row| row.map(|(key, row)| block::split(keys::seq_of(&key).unwrap(), &row)).unwrap());
    let seqs: Vec<_> = blocks.flatten().map(|(seq, _)| seq.0).collect();
    assert_eq!(seqs, [1, 2, 3, 4]);
    assert_eq!(read(&log, of, head).await, numbers(0..4));
}

/// Readers find out what of a log only seems young while the writer settles it.
#[tokio::test(flavor = "multi_thread")]
async fn logs_are_dense_for_whoever_reads_them_first_after_an_opening_while_they_are_settled() {
    let (data, logs) = (TempDir::new().unwrap(), std::array::from_fn::<_, 8, _>(|_| gateway()));
    for life in 0..6 {
        let engine = engine(data.path(), ROOMY, Arc::new(NoFollower));
        let log = Arc::new(SledLog::new(engine));
        let readers = logs.map(|of| {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                for _ in 0..20 {
                    let head = log.bounds(of).await.unwrap().head();
                    assert!(read(&*log, of, head).await.starts_with(&numbers(0..life * 5)));
                }
            })
        });
        for n in life * 5..life * 5 + 5 {
            for of in logs {
                append(&*log, of, n..n + 1).await;
            }
        }
        for reader in readers {
            reader.await.unwrap();
        }
    }
    let faults = check_store(data.path(), Arc::new(crate::ManualClock::default())).await.unwrap().faults;
    assert!(!faults.iter().any(|fault| fault.contains("events")), "{faults:?}");
}

#[tokio::test]
async fn a_bundle_that_is_missing_or_none_or_comes_twice_is_damage() {
    let of = gateway();
    let twice = {
        let mut bundle = Bundle::new();
        for seq in [5, 4] {
            let entry = draft("x").at_seq(Seq(seq)).0.entry;
            assert!(bundle.add((of, Epoch(1)), &entry, 1));
        }
        bundle.numbered(2).0
    };
    for (slot, row) in [(1, None), (2, Some(&b"?"[..])), (2, Some(&[1; 12][..])), (2, Some(&twice[..]))] {
        let (data, of) = (TempDir::new().unwrap(), gateway());
        let head = {
            let stores = stores(data.path()).await.unwrap();
            let head = append(&*stores.log, of, 0..5).await;
            stores.log.flush().await.unwrap();
            head
        };
        let db = DataDir::take(data.path()).unwrap().open(EVENTS).unwrap();
        match row {
            Some(row) => db.put(&keys::bundle(slot), row).unwrap(),
            None => db.remove(&keys::bundle(slot)).unwrap(),
        }
        db.sync().unwrap();
        drop(db);
        let stores = stores(data.path()).await.unwrap();
        assert_eq!(set_aside(data.path()), 1, "{slot} {row:?}");
        assert_ne!(stores.log.bounds(of).await.unwrap().epoch, head.epoch);
    }
}

/// As by a version that has more places, or fewer.
#[tokio::test]
async fn bundles_that_are_not_in_their_places_are_settled_before_others_take_these() {
    let (data, of) = (TempDir::new().unwrap(), gateway());
    let head = {
        let stores = stores(data.path()).await.unwrap();
        append(&*stores.log, of, 0..5).await
    };
    let db = DataDir::take(data.path()).unwrap().open(EVENTS).unwrap();
    let row = db.get(&keys::bundle(1)).unwrap().unwrap();
    db.remove(&keys::bundle(1)).unwrap();
    db.put(&keys::bundle(BUNDLES_MAX + 1), row).unwrap();
    db.sync().unwrap();
    drop(db);
    let engine = engine(data.path(), ROOMY, Arc::new(NoFollower));
    assert!(!engine.shared.db.young.has((of, head.epoch)));
    let log = SledLog::new(Arc::clone(&engine));
    append(&log, of, 5..30).await;
    assert_eq!(read(&log, of, head).await, numbers(0..30));
}

/// All that a reader can see of a log.
async fn seen(stores: &Stores, of: GatewayId, head: Cursor) -> String {
    let bounds = stores.log.bounds(of).await.unwrap();
    let page = stores.log.read(of, Cursor { seq: bounds.oldest.prev(), ..head }, ALL).await.unwrap();
    let state = stores.log.compacted(of, Cursor { seq: Seq(0), ..head }, ALL).await.unwrap();
    format!("{bounds:?} {page:?} {state:?}")
}

#[tokio::test]
async fn a_store_of_before_there_were_bundles_is_read_and_goes_on() {
    let (data, of) = (TempDir::new().unwrap(), gateway());
    let keyed =
        |n: usize| Draft { key: Some(Bytes::from(format!("{}", n % 30))), ..draft(&"x".repeat(n * 67 % 9_000)) };
    let (before, mut head) = {
        let stores = stores(data.path()).await.unwrap();
        let mut head = None;
        for n in 0..300 {
            head = Some(stores.log.append(of, keyed(n)).await.unwrap());
        }
        (seen(&stores, of, head.unwrap()).await, head.unwrap())
    };
    without_bundles(data.path());
    let opened = stores(data.path()).await.unwrap();
    assert_eq!(seen(&opened, of, head).await, before);
    for n in 300..600 {
        let next = opened.log.append(of, keyed(n)).await.unwrap();
        assert_eq!(next, Cursor { seq: head.seq.next(), ..head });
        head = next;
    }
    let after = seen(&opened, of, head).await;
    drop(opened);
    let checked = check_store(data.path(), Arc::new(crate::ManualClock::default())).await.unwrap();
    assert_eq!((checked.faults, checked.events), (Vec::new(), u64::from(SMALL.max_events as u32)));
    assert_eq!(seen(&stores(data.path()).await.unwrap(), of, head).await, after);
}

/// Else a loss of power after it could leave the log torn, and nobody would look: it is said to be all on disk.
#[tokio::test]
async fn what_is_swept_or_settled_at_last_is_synced_before_a_store_is_closed() {
    let (data, of) = (TempDir::new().unwrap(), gateway());
    let engine = engine(data.path(), ROOMY, Arc::new(NoFollower));
    let log = SledLog::new(Arc::clone(&engine));
    log.append(of, draft("x")).await.unwrap();
    engine.shared.db.put(b"zswept", b"or settled").unwrap();
    let written = engine.shared.db.flush().unwrap();
    let synced = || Mark::read(&data.path().join(EVENTS)).unwrap().unwrap().synced.unwrap();
    assert!(synced() < written);
    drop((log, engine));
    assert!(data.path().join(EVENTS).join("clean").exists() && synced() >= written);
}

/// What a reader that was away for a moment has missed costs no turn of a blocking thread.
#[tokio::test]
async fn what_is_young_is_read_on_the_spot_and_nothing_else() {
    let (data, of) = (TempDir::new().unwrap(), gateway());
    let engine = engine(data.path(), ROOMY, Arc::new(NoFollower));
    let log = SledLog::new(Arc::clone(&engine));
    let head = append(&log, of, 0..BUNDLES_MAX as usize / 2).await;
    let start = Cursor { seq: Seq(0), ..head };
    let bounds = log.bounds(of).now_or_never().expect("on the spot").unwrap();
    assert_eq!((bounds.oldest, bounds.newest), (Seq(1), head.seq));
    for after in 0..=head.seq.0 {
        let page = log.read(of, Cursor { seq: Seq(after), ..head }, ALL).now_or_never().expect("on the spot").unwrap();
        assert_eq!(texts(page), numbers(after as usize..head.seq.0 as usize));
    }
    let page = log.read(of, start, Budget { events: 2, ..ALL }).now_or_never().expect("on the spot").unwrap();
    assert_eq!(texts(page), numbers(0..2));
    let foreign = Cursor { epoch: Epoch(head.epoch.0 ^ 1), ..start };
    assert!(matches!(log.read(of, foreign, ALL).await.unwrap(), Page::WrongEpoch { .. }));

    let end = append(&log, of, head.seq.0 as usize..3 * BUNDLES_MAX as usize).await;
    // What a batch makes surplus is settled once it is answered, and before the next.
    log.flush().await.unwrap();
    // No blocking thread has its turn, so that a read which needs one cannot be done at once.
    let turns = engine.reads.available_permits() as u32;
    let turns = async || Arc::clone(&engine.reads).acquire_many_owned(turns).await.unwrap();
    let none = turns().await;
    assert!(log.read(of, start, ALL).now_or_never().is_none(), "its first entry is settled");
    drop(none);
    assert_eq!(read(&log, of, end).await, numbers(0..3 * BUNDLES_MAX as usize));
    let large = "x".repeat(PART_BYTES + 1);
    log.append(of, draft(&large)).await.unwrap();
    let none = turns().await;
    assert!(log.read(of, end, ALL).now_or_never().is_none(), "its body is in rows of its own");
    drop(none);
    assert_eq!(texts(log.read(of, end, ALL).await.unwrap()), [(end.seq.0 + 1, large)]);
}

/// Young or not, what the ring has let go is not read.
#[tokio::test]
async fn a_young_entry_that_left_the_ring_is_gone() {
    let (data, of) = (TempDir::new().unwrap(), gateway());
    let retention = Retention { max_events: 2, ..ROOMY };
    let engine = engine(data.path(), retention, Arc::new(NoFollower));
    let log = SledLog::new(Arc::clone(&engine));
    let head = append(&log, of, 0..4).await;
    let from = |seq| Cursor { seq: Seq(seq), ..head };
    assert!(matches!(log.read(of, from(1), ALL).await.unwrap(), Page::Truncated { oldest: Seq(3) }));
    assert_eq!(texts(log.read(of, from(2), ALL).await.unwrap()), [(3, "2".to_owned()), (4, "3".to_owned())]);
}
