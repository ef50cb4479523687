//! Where the file system has no room: what takes some is refused, what frees some is done, and nothing is broken.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;

use super::faults::{SMALL, draft, engine, engine_at, stores};
use crate::clock::ManualClock;
use crate::contract::{ALL, ROOMY, gateway, texts};
use crate::directory::tests::{at, deployment, gateway as registered, organization, tell, token};
use crate::directory::{Access, Api, CatchUp, Directory, DirectoryError, GatewayUpdate};
use crate::ids::{Cursor, GatewayId, Seq};
use crate::log::{Draft, EventLog, LogError, NoFollower, Retention};
use crate::records::{Change, Condition, Durability, Records, StoreError, Table};
use crate::sled::data::{DIRECTORY, DataDir};
use crate::sled::database::Database;
use crate::sled::engine::Engine;
use crate::sled::space::{LAST_RESERVE_BYTES, RESERVE_BYTES};
use crate::sled::{SledLog, SledRecords, check_store, second_copy};

#[tokio::test]
async fn a_full_file_system_refuses_what_takes_room_and_goes_on_when_there_is_some() {
    let (data, of) = (TempDir::new().unwrap(), gateway());
    let engine = engine(data.path(), SMALL, Arc::new(NoFollower));
    let (log, records) = (SledLog::new(Arc::clone(&engine)), SledRecords::new(Arc::clone(&engine)));
    let first = log.append(of, draft("first")).await.unwrap();
    let leave = |left: u64| engine.shared.db.room_max.store(left, Ordering::SeqCst);
    let put = |row: Option<Bytes>| vec![Change { table: Table::Meta, key: "k".into(), row }];
    assert_eq!(records.condition(), Condition::Serving);

    // Only what is small, or frees room.
    leave(RESERVE_BYTES);
    assert_eq!(records.condition(), Condition::Full);
    assert!(matches!(log.append(of, draft("refused")).await, Err(LogError::Store(StoreError::Full))));
    assert!(matches!(records.commit(put(Some("row".into())), Durability::Lazy).await, Err(StoreError::Full)));
    records.commit(put(None), Durability::Synced).await.unwrap();
    log.bounds(GatewayId(uuid::Uuid::from_u128(7))).await.unwrap();
    log.forget(GatewayId(uuid::Uuid::from_u128(7))).await.unwrap();
    // Nothing at all.
    leave(RESERVE_BYTES / 2);
    assert!(matches!(log.forget(of).await, Err(LogError::Store(StoreError::Full))));
    assert_eq!(texts(log.read(of, Cursor { seq: Seq(0), ..first }, ALL).await.unwrap()).len(), 1, "reads go on");
    // Room for a small one, not for a large one.
    leave(RESERVE_BYTES + 1_000_000);
    assert!(matches!(log.append(of, draft(&"x".repeat(200_000))).await, Err(LogError::Store(StoreError::Full))));
    assert_eq!(log.append(of, draft("second")).await.unwrap().seq, Seq(2));
}

/// A key must be revocable whatever the disk is like: that is a row in place of another.
#[tokio::test]
async fn a_small_row_that_takes_the_place_of_another_goes_with_what_frees_room() {
    let data = TempDir::new().unwrap();
    let engine = engine(data.path(), SMALL, Arc::new(NoFollower));
    let records = SledRecords::new(Arc::clone(&engine));
    let leave = |left: u64| engine.shared.db.room_max.store(left, Ordering::SeqCst);
    let put = async |key: &'static str, bytes: usize, durability| {
        let change = Change { table: Table::Meta, key: key.into(), row: Some(vec![b'x'; bytes].into()) };
        records.commit(vec![change], durability).await
    };
    put("k", 100, Durability::Urgent).await.unwrap();
    leave(RESERVE_BYTES);
    put("k", 140, Durability::Urgent).await.unwrap();
    for (key, bytes, durability) in [
        ("k", 100_000, Durability::Urgent),
        ("k", 100, Durability::Synced),
        ("k", 100, Durability::Lazy),
        ("new", 1, Durability::Urgent),
    ] {
        assert!(matches!(put(key, bytes, durability).await, Err(StoreError::Full)), "{key} {bytes} {durability:?}");
    }
    leave(RESERVE_BYTES / 2);
    assert!(matches!(put("k", 100, Durability::Urgent).await, Err(StoreError::Full)));
}

/// Callers repeat what is refused, so only what has to go takes of what is left.
#[tokio::test]
async fn deploying_again_and_again_uses_up_none_of_what_is_left_for_revoking_keys() {
    let data = TempDir::new().unwrap();
    drop(stores(data.path()).await.unwrap());
    let db = with_room(data.path(), u64::MAX);
    db.start_copy(data.path()).unwrap();
    let clock = Arc::new(ManualClock::default());
    let engine = Arc::new(Engine::start("test", db, SMALL, clock, Arc::new(NoFollower)).unwrap());
    let directory = Directory::open(Arc::new(SledRecords::new(Arc::clone(&engine)))).await.unwrap();
    let of = directory.create_gateway(registered(organization(), "edge", 0)).await.unwrap().id;
    let token = directory.create_token(token(of, 1, 0), 2, at(0)).await.unwrap().id;
    let [first, again, begun] = ["a", "a", "b"].map(|api| deployment(api, of));
    let api = Api { id: "a".parse().unwrap(), revision: None, updated_at: at(0), size: 0 };
    directory.put_api(api.clone(), "artifact".into()).await.unwrap();
    tell(&directory, vec![first.clone(), deployment("b", of)]).await;
    directory.begin_deployments(vec![begun.clone()]).await.unwrap();
    engine.shared.db.room_max.store(RESERVE_BYTES, Ordering::SeqCst);

    let copied = || fs::metadata(data.path().join(second_copy::NAME)).unwrap().len();
    let before = copied();
    let is_full = |error| matches!(error, Some(DirectoryError::Store(StoreError::Full)));
    for _ in 0..100 {
        assert!(is_full(directory.begin_deployments(vec![again.clone()]).await.err()));
        assert!(is_full(directory.settle_deployment(of, first.id, at(1)).await.err()), "its replicas' reports say it");
        assert!(is_full(directory.put_api(api.clone(), "another".into()).await.err()));
    }
    assert_eq!(copied(), before);
    directory.end_deployments(vec![(begun.id, None)], at(1)).await.unwrap();
    let (description, vhost, catch_up, access) = (None, None, CatchUp::Live, Access::default());
    let update = GatewayUpdate { display_name: "edge".into(), description, vhost, catch_up, access };
    directory.update_gateway(of, update, at(1)).await.unwrap();
    directory.revoke_token(of, token, at(1)).await.unwrap();
    assert!(directory.delete_api("a".parse().unwrap(), at(1)).await.unwrap());
    assert!(copied() > before);
}

#[tokio::test]
async fn a_log_that_is_there_is_loaded_without_any_room() {
    let (data, of) = (TempDir::new().unwrap(), gateway());
    let first = {
        let log = SledLog::new(engine(data.path(), SMALL, Arc::new(NoFollower)));
        log.append(of, draft("first")).await.unwrap()
    };
    let engine = engine(data.path(), SMALL, Arc::new(NoFollower));
    engine.shared.db.room_max.store(0, Ordering::SeqCst);
    let log = SledLog::new(Arc::clone(&engine));
    assert_eq!(log.bounds(of).await.unwrap().newest, Seq(1));
    assert_eq!(texts(log.read(of, Cursor { seq: Seq(0), ..first }, ALL).await.unwrap()).len(), 1);
    let new = log.bounds(GatewayId(uuid::Uuid::from_u128(7))).await;
    assert!(matches!(new, Err(LogError::Store(StoreError::Full))), "one would have to be made");
}

#[tokio::test]
async fn a_flush_of_what_is_on_disk_already_needs_no_room() {
    let (data, of) = (TempDir::new().unwrap(), gateway());
    let engine = engine(data.path(), SMALL, Arc::new(NoFollower));
    let (log, records) = (SledLog::new(Arc::clone(&engine)), SledRecords::new(Arc::clone(&engine)));
    let leave = |left: u64| engine.shared.db.room_max.store(left, Ordering::SeqCst);
    log.append(of, draft("first")).await.unwrap();
    leave(0);
    log.flush().await.unwrap();
    leave(u64::MAX);
    let change = Change { table: Table::Meta, key: "k".into(), row: Some("row".into()) };
    records.commit(vec![change], Durability::Lazy).await.unwrap();
    leave(0);
    assert!(matches!(log.flush().await, Err(LogError::Store(StoreError::Full))), "the row is not on disk");
    leave(u64::MAX);
    log.flush().await.unwrap();
}

fn keyed(n: usize) -> Draft {
    Draft { key: Some(Bytes::from(format!("key {n}"))), ..draft("x") }
}

fn floor(engine: &Engine, of: GatewayId) -> Seq {
    engine.shared.db.head(of).unwrap().unwrap().floor
}

/// It may have to fold a whole ring first. Who reads is told to come again.
#[tokio::test]
async fn what_a_reader_of_compacted_state_has_the_log_write_is_refused_where_there_is_no_room_for_it() {
    let (data, of, clock) = (TempDir::new().unwrap(), gateway(), Arc::new(ManualClock::default()));
    let retention = Retention { max_age: Duration::from_secs(60), ..ROOMY };
    let engine = engine_at(data.path(), retention, Arc::clone(&clock), Arc::new(NoFollower));
    let log = SledLog::new(Arc::clone(&engine));
    let mut head = None;
    for n in 0..600 {
        head = Some(log.append(of, keyed(n)).await.unwrap());
    }
    let start = Cursor { seq: Seq(0), ..head.unwrap() };
    clock.advance(Duration::from_secs(61));
    engine.shared.db.room_max.store(RESERVE_BYTES + 1_000_000, Ordering::SeqCst);
    for _ in 0..2 {
        let refused = log.compacted(of, start, ALL).await;
        assert!(matches!(refused, Err(LogError::Store(StoreError::Full))), "{refused:?}");
        assert_eq!(floor(&engine, of), Seq(1));
    }
    // Far less than for all of it at once: what was written is looked at.
    engine.shared.db.room_max.store(RESERVE_BYTES + 8_000_000, Ordering::SeqCst);
    let page = log.compacted(of, start, ALL).await.unwrap();
    assert_eq!((page.entries.len(), page.let_go, floor(&engine, of)), (600, Seq(0), Seq(601)));
    log.append(of, keyed(0)).await.unwrap();
}

#[tokio::test]
async fn an_append_for_which_there_is_room_lets_go_of_nothing_for_which_there_is_none() {
    let (data, of) = (TempDir::new().unwrap(), gateway());
    let engine = engine(data.path(), SMALL, Arc::new(NoFollower));
    let log = SledLog::new(Arc::clone(&engine));
    let leave = |left: u64| engine.shared.db.room_max.store(left, Ordering::SeqCst);
    for (left, appends, trimmed) in [(RESERVE_BYTES + 100_000, 150, Seq(1)), (u64::MAX, 1, Seq(52))] {
        leave(left);
        for n in 0..appends {
            log.append(of, keyed(n)).await.unwrap();
        }
        assert_eq!((log.bounds(of).await.unwrap().events(), floor(&engine, of)), (100, trimmed));
    }
    let start = Cursor { seq: Seq(0), epoch: log.bounds(of).await.unwrap().epoch };
    assert_eq!(log.compacted(of, start, ALL).await.unwrap().entries.len(), 51);
}

/// A directory of 3 MB that was closed, and where its second copy is.
async fn large_directory(data: &Path) -> PathBuf {
    let opened = stores(data).await.unwrap();
    for n in 0..30 {
        put(&*opened.directory_records, n).await;
    }
    data.join(second_copy::NAME)
}

async fn put(records: &dyn Records, n: u8) {
    let change = Change { table: Table::Meta, key: vec![n].into(), row: Some(vec![n; 100_000].into()) };
    records.commit(vec![change], Durability::Synced).await.unwrap();
}

/// The directory on a file system with so much room.
fn with_room(data: &Path, left: u64) -> Database {
    let db = DataDir::take(data).unwrap().open(DIRECTORY).unwrap();
    db.room_max.store(left, Ordering::SeqCst);
    db
}

/// What a kill between the two leaves, whole or half written.
#[tokio::test]
async fn a_copy_that_lacks_the_last_change_is_given_that_and_takes_no_room_for_another_copy() {
    for (half_written, room) in [(0, RESERVE_BYTES + 300_000), (500, LAST_RESERVE_BYTES)] {
        let data = TempDir::new().unwrap();
        let copy = large_directory(data.path()).await;
        let before = fs::read(&copy).unwrap();
        let opened = stores(data.path()).await.unwrap();
        put(&*opened.directory_records, 30).await;
        let delete = Change { table: Table::Meta, key: vec![7].into(), row: None };
        opened.directory_records.commit(vec![delete], Durability::Synced).await.unwrap();
        drop(opened);
        let after = fs::read(&copy).unwrap();
        fs::write(&copy, &after[..before.len() + half_written]).unwrap();
        fs::remove_file(data.path().join(DIRECTORY).join("clean")).unwrap();

        let refused = with_room(data.path(), 50_000).start_copy(data.path());
        assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
        with_room(data.path(), room).start_copy(data.path()).unwrap();
        let then = fs::read(&copy).unwrap();
        assert!(then.len() <= after.len() && then.starts_with(&before), "{} {}", then.len(), after.len());
        assert_eq!(second_copy::rows(&copy).unwrap().len(), 30);
        with_room(data.path(), 0).start_copy(data.path()).unwrap();
        assert_eq!(fs::read(&copy).unwrap(), then, "it is what the directory says it is");
        let checked = check_store(data.path(), Arc::new(ManualClock::default())).await.unwrap();
        assert_eq!(checked.faults, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_copy_for_which_there_is_no_room_is_refused_and_leaves_nothing() {
    let data = TempDir::new().unwrap();
    let copy = large_directory(data.path()).await;
    fs::remove_file(&copy).unwrap();
    let unfinished = second_copy::fresh(&copy);
    // Of a process that was killed.
    fs::write(&unfinished, vec![0; 1_000_000]).unwrap();
    for left in [0, LAST_RESERVE_BYTES + 100_000] {
        let db = with_room(data.path(), left);
        assert!(!unfinished.exists(), "it takes room that sled may need to open");
        let refused = db.start_copy(data.path());
        assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
        assert!(!unfinished.exists() && !copy.exists());
    }
    with_room(data.path(), LAST_RESERVE_BYTES + 4_000_000).start_copy(data.path()).unwrap();
    assert_eq!(second_copy::rows(&copy).unwrap().len(), 30);
}
