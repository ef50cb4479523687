//! What is damaged of what sled replays when it opens a database: it passes over that without a word.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;

use super::before::spread;
use super::faults::{draft, engine, fill, set_aside, sled_alone, stores};
use crate::clock::ManualClock;
use crate::contract::{ALL, ROOMY, gateway, texts};
use crate::ids::{Cursor, GatewayId, Seq};
use crate::log::{Draft, EventLog, NoFollower, Page};
use crate::records::{Change, Durability, StoreError, Table};
use crate::sled::data::{DIRECTORY, DataDir, EVENTS};
use crate::sled::{SledLog, check_store, export_store, keys, repair_store, replay, second_copy, segments};
use crate::stores::Stores;

/// Changes rows of a database that is closed, as a replay that passes over something leaves them.
fn change(database: &Path, change: impl FnOnce(&::sled::Db)) {
    let tree = sled_alone(database, |config| config);
    change(&tree);
    tree.flush().unwrap();
}

/// Gives each entry of a store that is closed a row of its own, to be changed.
fn spread_out(data: &Path) {
    let db = DataDir::take(data).unwrap().open(EVENTS).unwrap();
    spread(&db);
    db.sync().unwrap();
}

/// The segments of the log are no longer what they were when it was closed.
fn make_doubtful(database: &Path) {
    let clean = database.join("clean");
    assert!(clean.exists());
    fs::write(clean, [1, 2, 3, 4]).unwrap();
}

async fn append(stores: &Stores, of: GatewayId, events: u32) -> Cursor {
    let mut head = None;
    for _ in 0..events {
        head = Some(stores.log.append(of, draft("x")).await.unwrap());
    }
    head.unwrap()
}

/// Its positions would be given a second time.
#[tokio::test]
async fn a_forgotten_log_that_is_back_does_not_make_up_for_an_end_that_is_lost() {
    for comes_back in [false, true] {
        let (data, kept, forgotten) = (TempDir::new().unwrap(), gateway(), gateway());
        let events = data.path().join(EVENTS);
        let opened = stores(data.path()).await.unwrap();
        let (head, gone) = (append(&opened, kept, 20).await, append(&opened, forgotten, 5).await);
        drop(opened);
        spread_out(data.path());
        let mut rows = vec![keys::head(forgotten).to_vec(), keys::owner(gone.epoch).to_vec()];
        rows.extend((1..=5).map(|seq| keys::entry(forgotten, gone.epoch, Seq(seq)).to_vec()));
        let mut before = ::sled::Batch::default();
        change(&events, |tree| rows.iter().for_each(|key| before.insert(&**key, tree.get(key).unwrap().unwrap())));
        let opened = stores(data.path()).await.unwrap();
        opened.log.forget(forgotten).await.unwrap();
        drop(opened);
        fs::remove_file(events.join("clean")).unwrap();
        change(&events, |tree| {
            if comes_back {
                tree.apply_batch(before).unwrap();
                (16..=20).for_each(|seq| drop(tree.remove(keys::entry(kept, head.epoch, Seq(seq))).unwrap()));
            }
        });
        let opened = stores(data.path()).await.unwrap();
        assert_eq!(set_aside(data.path()), usize::from(comes_back));
        let bounds = opened.log.bounds(kept).await.unwrap();
        assert_eq!(bounds.head() == head, !comes_back, "{bounds:?}");
    }
}

#[tokio::test]
async fn a_log_that_is_gone_is_damage_though_it_had_no_event() {
    let (data, of, empty) = (TempDir::new().unwrap(), gateway(), gateway());
    let opened = stores(data.path()).await.unwrap();
    append(&opened, of, 3).await;
    let epoch = opened.log.bounds(empty).await.unwrap().epoch;
    drop(opened);
    let events = data.path().join(EVENTS);
    fs::remove_file(events.join("clean")).unwrap();
    change(&events, |tree| drop(tree.remove(keys::head(empty)).unwrap()));
    let opened = stores(data.path()).await.unwrap();
    assert_eq!(set_aside(data.path()), 1);
    assert_ne!(opened.log.bounds(empty).await.unwrap().epoch, epoch);
}

/// A write that was lost leaves zeros, or what was there before.
#[tokio::test]
async fn a_segment_that_is_gone_or_is_one_of_before_is_not_taken_for_one_that_never_was() {
    let (data, of) = (TempDir::new().unwrap(), gateway());
    let opened = stores(data.path()).await.unwrap();
    for _ in 0..500 {
        opened.log.append(of, draft(&"x".repeat(4_000))).await.unwrap();
    }
    drop(opened);
    let events = data.path().join(EVENTS);
    let file = events.join(segments::NAME);
    let closed = segments::fingerprint(&fs::File::open(&file).unwrap()).unwrap();
    assert_eq!(fs::read(events.join("clean")).unwrap(), closed.to_be_bytes());
    assert!(replay::is_intact(&events, Some(closed)).unwrap());
    let sound = fs::read(&file).unwrap();
    assert!(sound.len() > 2 * segments::SEGMENT_BYTES, "{}", sound.len());
    let (first, rest) = sound.split_at(segments::SEGMENT_BYTES);
    let before = &rest[..segments::SEGMENT_BYTES];
    for instead in [vec![0; first.len()].as_slice(), before] {
        fs::write(&file, [instead, rest].concat()).unwrap();
        assert!(!replay::is_intact(&events, Some(closed)).unwrap());
    }
}

/// sled removes the file of a large record that was replaced: that is no damage, and a crash leaves no doubt.
#[tokio::test]
async fn files_of_records_that_were_replaced_are_not_missed() {
    let data = TempDir::new().unwrap();
    let opened = stores(data.path()).await.unwrap();
    for n in 0..30 {
        let row = Some(vec![n; 200_000].into());
        let change = Change { row, ..row_of(n % 3) };
        opened.directory_records.commit(vec![change], Durability::Synced).await.unwrap();
    }
    drop(opened);
    let directory = data.path().join(DIRECTORY);
    assert!(replay::is_intact(&directory, None).unwrap());
    // Those of what is there are.
    for blob in fs::read_dir(directory.join("blobs")).unwrap() {
        fs::write(blob.unwrap().path(), "").unwrap();
    }
    assert!(!replay::is_intact(&directory, None).unwrap());
}

#[tokio::test]
async fn what_was_not_replayed_is_looked_for_in_every_row_before_anyone_reads() {
    let (data, whole, holed) = (TempDir::new().unwrap(), gateway(), gateway());
    let opened = stores(data.path()).await.unwrap();
    let (kept, lost) = (append(&opened, whole, 20).await, append(&opened, holed, 20).await);
    drop(opened);
    let events = data.path().join(EVENTS);
    // Nothing is wrong with the rows: all goes on, and is not looked at again.
    make_doubtful(&events);
    drop(stores(data.path()).await.unwrap());
    assert!(set_aside(data.path()) == 0 && events.join("clean").exists() && !events.join("doubtful").exists());

    spread_out(data.path());
    change(&events, |tree| drop(tree.remove(keys::entry(holed, lost.epoch, Seq(7))).unwrap()));
    make_doubtful(&events);
    let opened = stores(data.path()).await.unwrap();
    assert_eq!(set_aside(data.path()), 1);
    let page = opened.log.read(whole, Cursor { seq: Seq(0), ..kept }, ALL).await.unwrap();
    assert_eq!(texts(page).len(), 20);
    let page = opened.log.read(holed, lost, ALL).await.unwrap();
    assert!(matches!(page, Page::WrongEpoch { now } if now != lost.epoch), "{page:?}");
}

/// The look may be cut short by a kill: it is made up for.
#[tokio::test]
async fn a_doubt_stays_until_all_rows_were_looked_at() {
    let (data, of) = (TempDir::new().unwrap(), gateway());
    let head = fill(data.path(), of).await;
    let events = data.path().join(EVENTS);
    spread_out(data.path());
    change(&events, |tree| drop(tree.remove(keys::entry(of, head.epoch, Seq(150))).unwrap()));
    make_doubtful(&events);
    drop(engine(data.path(), ROOMY, Arc::new(NoFollower)));
    assert!(events.join("clean").exists() && events.join("doubtful").exists());
    let opened = stores(data.path()).await.unwrap();
    assert_ne!(opened.log.bounds(of).await.unwrap().epoch, head.epoch);
}

fn row_of(n: u8) -> Change {
    Change { table: Table::Meta, key: vec![n].into(), row: Some(vec![n; 100].into()) }
}

/// A directory of nine rows that was closed; where it is.
async fn nine_rows(data: &Path) -> PathBuf {
    let opened = stores(data).await.unwrap();
    for n in 0..9 {
        opened.directory_records.commit(vec![row_of(n)], Durability::Synced).await.unwrap();
    }
    data.join(DIRECTORY)
}

async fn rows_of(stores: &Stores) -> Vec<Bytes> {
    stores.directory_records.scan(Table::Meta).await.unwrap().into_iter().map(|(key, _)| key).collect()
}

#[tokio::test]
async fn a_directory_that_was_not_replayed_whole_refuses_and_is_rebuilt_from_its_copy() {
    let data = TempDir::new().unwrap();
    let directory = nine_rows(data.path()).await;
    change(&directory, |tree| drop(tree.remove(keys::record(Table::Meta, &[4])).unwrap()));
    make_doubtful(&directory);
    for _ in 0..2 {
        let refused = stores(data.path()).await.err().unwrap();
        assert!(matches!(&refused, StoreError::Damaged { path, .. } if path.ends_with(DIRECTORY)), "{refused:?}");
    }
    let repaired = repair_store(data.path(), Arc::new(ManualClock::default())).await.unwrap();
    assert!(repaired.directory_rebuilt, "{repaired:?}");
    assert_eq!(rows_of(&stores(data.path()).await.unwrap()).await.len(), 9);
}

/// It was not answered, and the second copy has all that was.
#[tokio::test]
async fn what_a_crash_has_left_of_a_change_is_in_the_second_copy_as_well_or_in_neither() {
    let data = TempDir::new().unwrap();
    let opened = stores(data.path()).await.unwrap();
    opened.directory_records.commit(vec![row_of(1)], Durability::Synced).await.unwrap();
    drop(opened);
    let directory = data.path().join(DIRECTORY);
    fs::remove_file(directory.join("clean")).unwrap();
    // Written by sled's own thread, and no sync came any more.
    let unsynced = row_of(2);
    change(&directory, |tree| {
        drop(tree.insert(keys::record(Table::Meta, &unsynced.key), &*unsynced.row.unwrap()).unwrap());
    });
    assert_eq!(rows_of(&stores(data.path()).await.unwrap()).await, [Bytes::from(vec![1])]);
    let checked = check_store(data.path(), Arc::new(ManualClock::default())).await.unwrap();
    assert_eq!(checked.faults, Vec::<String>::new());
}

/// Of a kill before the sync nothing is in the second copy; of one after it the copy lacks what is on disk.
#[tokio::test]
async fn a_store_that_was_killed_has_no_faults_and_is_exported_as_it_would_be_started() {
    for (is_synced, rows) in [(false, 9), (true, 10)] {
        let data = TempDir::new().unwrap();
        let (directory, copy) = (nine_rows(data.path()).await, data.path().join(second_copy::NAME));
        let copied = fs::read(&copy).unwrap();
        if is_synced {
            let opened = stores(data.path()).await.unwrap();
            opened.directory_records.commit(vec![row_of(9)], Durability::Synced).await.unwrap();
            drop(opened);
            fs::write(&copy, copied).unwrap();
        } else {
            change(&directory, |tree| drop(tree.insert(keys::record(Table::Meta, &[9]), &[9]).unwrap()));
        }
        fs::remove_file(directory.join("clean")).unwrap();
        let (clock, export) = (Arc::new(ManualClock::default()), data.path().join("export"));
        for _ in 0..2 {
            let checked = check_store(data.path(), clock.clone()).await.unwrap();
            assert_eq!((checked.faults, checked.directory_rows), (Vec::new(), rows));
        }
        assert_eq!(export_store(data.path(), export, clock).await.unwrap().directory_rows, rows);
        assert_eq!(rows_of(&stores(data.path()).await.unwrap()).await.len() as u64, rows);
    }
}

/// Else the next one would take for answered what was not.
#[tokio::test]
async fn a_directory_that_was_not_held_against_its_copy_after_a_crash_is_not_said_to_be_closed() {
    let data = TempDir::new().unwrap();
    let directory = nine_rows(data.path()).await;
    for was_closed in [true, false] {
        if !was_closed {
            fs::remove_file(directory.join("clean")).unwrap();
        }
        drop(DataDir::take(data.path()).unwrap().open(DIRECTORY).unwrap());
        assert_eq!(directory.join("clean").exists(), was_closed);
    }
    drop(stores(data.path()).await.unwrap());
    assert!(directory.join("clean").exists());
}

/// What sled has not replayed may be a row, its newest change, or that it is deleted, as a token that was revoked: all
/// of it was answered. It may also be how far the second copy goes.
#[tokio::test]
async fn what_a_directory_lacks_after_a_crash_that_damaged_something_is_taken_from_its_second_copy() {
    for knows_its_copy in [true, false] {
        let data = TempDir::new().unwrap();
        let directory = nine_rows(data.path()).await;
        fs::remove_file(directory.join("clean")).unwrap();
        let key = |n: u8| keys::record(Table::Meta, &[n]);
        change(&directory, |tree| {
            tree.remove(key(4)).unwrap();
            tree.insert(key(5), b"of before").unwrap();
            tree.insert(key(9), b"revoked").unwrap();
            if !knows_its_copy {
                tree.remove(keys::COPY).unwrap();
            }
        });
        let mut log = fs::read(directory.join(segments::NAME)).unwrap();
        log.resize(log.len().next_multiple_of(segments::SEGMENT_BYTES), 0);
        log.extend_from_slice(&[7; segments::SEGMENT_BYTES]);
        fs::write(directory.join(segments::NAME), log).unwrap();
        for _ in 0..2 {
            let opened = stores(data.path()).await.unwrap();
            let rows = opened.directory_records.scan(Table::Meta).await.unwrap();
            let answered: Vec<_> = (0..9).map(row_of).map(|change| (change.key, change.row.unwrap())).collect();
            assert_eq!(rows, answered);
        }
        assert!(!directory.join("doubtful").exists());
        let checked = check_store(data.path(), Arc::new(ManualClock::default())).await.unwrap();
        assert_eq!(checked.faults, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_state_that_was_folded_over_lost_events_says_that_it_is_not_complete() {
    let (data, of) = (TempDir::new().unwrap(), gateway());
    let engine = engine(data.path(), super::faults::SMALL, Arc::new(NoFollower));
    let log = SledLog::new(Arc::clone(&engine));
    let keyed = |n: u32| Draft { key: Some(Bytes::from(format!("{}", n % 4))), ..draft("x") };
    let mut head = None;
    for n in 1..=100 {
        head = Some(log.append(of, keyed(n)).await.unwrap());
    }
    let epoch = head.unwrap().epoch;
    let state = async || log.compacted(of, Cursor { epoch, seq: Seq(0) }, ALL).await.unwrap();
    assert_eq!(state().await.let_go, Seq(0));
    spread(&engine.shared.db);
    for lost in [11, 12] {
        engine.shared.db.remove(&keys::entry(of, epoch, Seq(lost))).unwrap();
    }
    engine.shared.db.put(&keys::entry(of, epoch, Seq(20)), b"?").unwrap();
    for (events, let_go) in [(9, 0), (5, 12), (10, 20), (100, 20)] {
        for n in 0..events {
            log.append(of, keyed(n)).await.unwrap();
        }
        assert_eq!(state().await.let_go, Seq(let_go));
    }
}
