//! Checking, repairing, carrying away and bringing back.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;

use super::before::spread;
use super::faults::{draft, fill, garble_all, set_aside, shorten, stores};
use crate::clock::ManualClock;
use crate::contract::{ALL, gateway};
use crate::ids::{Cursor, GatewayId, Seq};
use crate::log::Draft;
use crate::records::{Change, Durability, StoreError, Table};
use crate::sled::data::{DIRECTORY, DataDir, EVENTS};
use crate::sled::row::{Head, bytes_in_parts};
use crate::sled::{
    Checked, check_store, export_store, import_store, keys, portable, repair_store, second_copy, suspect,
};
use crate::stores::Stores;

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::default())
}

async fn faults(data: &Path) -> Vec<String> {
    check_store(data, clock()).await.unwrap().faults
}

fn row(n: usize) -> (Bytes, Bytes) {
    (format!("key {n}").into(), format!("row {n} {}", "x".repeat(n % 700)).into())
}

async fn put(stores: &Stores, n: usize) {
    let (key, row) = row(n);
    let change = Change { table: Table::Meta, key, row: Some(row) };
    stores.directory_records.commit(vec![change], Durability::Synced).await.unwrap();
}

/// Two logs, one with a compacted state, and some directory.
async fn filled(data: &Path) -> [(GatewayId, Cursor); 2] {
    let stores = stores(data).await.unwrap();
    let logs = [GatewayId(uuid::Uuid::from_u128(1)), GatewayId(uuid::Uuid::from_u128(2))];
    let mut heads = Vec::new();
    for (of, events) in logs.into_iter().zip([400, 30]) {
        let mut head = None;
        for n in 0..events {
            let key = (n % 3 > 0).then(|| Bytes::from(format!("{}", n % 40)));
            // Some are in parts.
            let body = format!("event {n}").repeat(if n % 7 == 0 { 1_000 } else { 1 });
            let draft = Draft { key, ends_key: n % 4 == 0, ..draft(&body) };
            head = Some(stores.log.append(of, draft).await.unwrap());
        }
        heads.push((of, head.unwrap()));
        stores.log.compacted(of, head.unwrap(), ALL).await.unwrap();
    }
    for n in 0..50 {
        put(&stores, n).await;
    }
    stores
        .events_records
        .commit(vec![Change { table: Table::Meta, key: "x".into(), row: Some("y".into()) }], Durability::Synced)
        .await
        .unwrap();
    [heads[0], heads[1]]
}

/// All that a reader can see of a log.
async fn seen(stores: &Stores, of: GatewayId, head: Cursor) -> String {
    let bounds = stores.log.bounds(of).await.unwrap();
    let page = stores.log.read(of, Cursor { seq: bounds.oldest.prev(), ..head }, ALL).await.unwrap();
    let state = stores.log.compacted(of, Cursor { seq: Seq(0), ..head }, ALL).await.unwrap();
    format!("{bounds:?} {page:?} {state:?} {:?}", stores.log.owner_of(head.epoch).await.unwrap())
}

fn change_row(data: &Path, name: &str, key: &[u8], row: Option<&[u8]>) {
    let db = DataDir::take(data).unwrap().open(name).unwrap();
    spread(&db);
    match row {
        Some(row) => db.put(key, row).unwrap(),
        None => db.remove(key).unwrap(),
    }
    db.sync().unwrap();
}

#[tokio::test]
async fn a_sound_store_has_no_faults_and_is_counted() {
    let data = TempDir::new().unwrap();
    filled(data.path()).await;
    let checked = check_store(data.path(), clock()).await.unwrap();
    assert_eq!(checked.faults, Vec::<String>::new());
    assert_eq!((checked.logs, checked.events, checked.directory_rows, checked.records), (2, 130, 50, 1));
    assert!(checked.compacted > 20);
    assert_eq!(check_store(data.path(), clock()).await.unwrap(), checked, "looking changes nothing");
    let open = stores(data.path()).await.unwrap();
    assert!(matches!(check_store(data.path(), clock()).await, Err(StoreError::InUse(_))));
    drop(open);
    assert!(check_store(data.path().join("nothing"), clock()).await.is_err());
}

#[tokio::test]
async fn every_kind_of_fault_is_found_and_repaired_at_the_cost_of_that_log_alone() {
    let probe = TempDir::new().unwrap();
    let [(of, head), _] = filled(probe.path()).await;
    let epoch = head.epoch;
    let db = DataDir::take(probe.path()).unwrap().open(EVENTS).unwrap();
    spread(&db);
    let state = db.state_rows(of, epoch, Seq(0)).next().unwrap().unwrap().0;
    let (tombstone, _) = db.tombstones(of, epoch, Seq(0)).next().unwrap().unwrap();
    let on_disk = db.head(of).unwrap().unwrap();
    let entry = db.get(&keys::entry(of, epoch, Seq(350))).unwrap().unwrap().to_vec();
    let [_, state_keys, _] = keys::all_state(of, epoch);
    let state_key = db.prefix(&state_keys).next().unwrap().unwrap().0.to_vec();
    let mut compacted = db.state_rows(of, epoch, Seq(0)).map(Result::unwrap);
    let (large_state, _) = compacted.find(|(_, row)| bytes_in_parts(row).unwrap() > 0).unwrap();
    drop(compacted);
    drop(db);
    let mut other_total = entry.clone();
    other_total[16] ^= 1;
    let other_head = Head { keys: on_disk.keys + 1, ..on_disk }.encode();
    let broken: [(Vec<u8>, Option<Vec<u8>>); 11] = [
        (keys::part(of, epoch, Seq(351), 1).to_vec(), None),
        (keys::part(of, epoch, Seq(351), 9).to_vec(), Some(b"too many".to_vec())),
        (keys::part(of, epoch, large_state, 0).to_vec(), Some(b"short".to_vec())),
        (keys::entry(of, epoch, Seq(350)).to_vec(), None),
        (keys::entry(of, epoch, Seq(350)).to_vec(), Some(other_total)),
        (keys::entry(of, epoch, Seq(350)).to_vec(), Some(b"?".to_vec())),
        (keys::owner(epoch).to_vec(), None),
        (keys::state(of, epoch, state).to_vec(), None),
        (keys::tombstone(of, epoch, tombstone).to_vec(), None),
        (state_key, None),
        (keys::head(of).to_vec(), Some(other_head)),
    ];
    for (key, row) in broken {
        let data = TempDir::new().unwrap();
        let [(of, head), (other, other_head)] = filled(data.path()).await;
        // Of this store's own epoch.
        let key: Vec<u8> = match key.len() {
            5 => keys::owner(head.epoch).to_vec(),
            17 => key,
            _ => [&key[..17], &head.epoch.0.to_be_bytes(), &key[21..]].concat(),
        };
        let row = row.map(|row| match key.len() {
            17 => Head { epoch: head.epoch, ..Head::decode(&row).unwrap() }.encode(),
            _ => row,
        });
        let kept = {
            let stores = stores(data.path()).await.unwrap();
            seen(&stores, other, other_head).await
        };
        change_row(data.path(), EVENTS, &key, row.as_deref());
        let found = faults(data.path()).await;
        assert!(found.iter().any(|fault| fault.contains(&of.to_string())), "{key:02x?}: {found:?}");
        let repaired = repair_store(data.path(), clock()).await.unwrap();
        assert_eq!((repaired.logs_kept, &repaired.logs_reset[..], repaired.aside.len()), (1, &[of][..], 1));
        assert!(repaired.aside[0].join("db").exists(), "what was there is kept");
        assert_eq!(faults(data.path()).await, Vec::<String>::new());
        let again = repair_store(data.path(), clock()).await.unwrap();
        assert!(again.aside.is_empty() && !again.events_rebuilt, "a second repair does nothing");
        let stores = stores(data.path()).await.unwrap();
        assert_eq!(seen(&stores, other, other_head).await, kept);
        assert_ne!(stores.log.bounds(of).await.unwrap().epoch, head.epoch);
    }
}

#[tokio::test]
async fn a_stray_row_is_a_fault() {
    let data = TempDir::new().unwrap();
    filled(data.path()).await;
    change_row(data.path(), EVENTS, b"?strange", Some(b"row"));
    assert_eq!(faults(data.path()).await.len(), 1);
    repair_store(data.path(), clock()).await.unwrap();
    assert_eq!(faults(data.path()).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_damaged_directory_is_rebuilt_from_its_second_copy_with_all_that_was_answered() {
    let data = TempDir::new().unwrap();
    for round in 0..3 {
        // In several lives, so that the copy has rows and changes.
        let stores = stores(data.path()).await.unwrap();
        for n in 0..60 {
            put(&stores, round * 40 + n).await;
        }
        let delete = Change { table: Table::Meta, key: row(round * 40).0, row: None };
        stores.directory_records.commit(vec![delete], Durability::Synced).await.unwrap();
    }
    let before = stores(data.path()).await.unwrap().directory_records.scan(Table::Meta).await.unwrap();
    for damage in [garble_all, |path: &Path| fs::remove_dir_all(path).unwrap()] {
        damage(&data.path().join(DIRECTORY));
        let error = stores(data.path()).await.err().unwrap();
        assert!(matches!(&error, StoreError::Damaged { path, .. } if path.ends_with(DIRECTORY)), "{error:?}");
        assert!(error.to_string().contains("gatecast store repair"), "{error}");
        let repaired = repair_store(data.path(), clock()).await.unwrap();
        assert!(repaired.directory_rebuilt && !repaired.events_rebuilt);
        assert_eq!(faults(data.path()).await, Vec::<String>::new());
        let stores = stores(data.path()).await.unwrap();
        assert_eq!(stores.directory_records.scan(Table::Meta).await.unwrap(), before);
    }
}

#[tokio::test]
async fn a_directory_and_a_copy_that_are_both_damaged_are_left_alone() {
    let data = TempDir::new().unwrap();
    fill(data.path(), gateway()).await;
    garble_all(&data.path().join(DIRECTORY));
    let copy = data.path().join(second_copy::NAME);
    let mut bytes = fs::read(&copy).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&copy, &bytes).unwrap();
    let error = repair_store(data.path(), clock()).await.unwrap_err();
    assert!(matches!(&error, StoreError::Damaged { .. }) && error.to_string().contains("gatecast store import"));
    assert_eq!(fs::read(&copy).unwrap(), bytes);
    assert_eq!(fs::read_dir(data.path()).unwrap().count(), 4, "lock, directory, directory.copy, events");
}

#[tokio::test]
async fn a_copy_that_is_lost_or_lags_behind_is_whole_after_a_start() {
    let data = TempDir::new().unwrap();
    filled(data.path()).await;
    let copy = data.path().join(second_copy::NAME);
    let damages: [&dyn Fn(); 4] = [
        &|| fs::remove_file(&copy).unwrap(),
        &|| shorten(&copy, 1),
        // What a crash between the database and the copy leaves.
        &|| change_row(data.path(), DIRECTORY, keys::COPY, None),
        &|| {
            let mut bytes = fs::read(&copy).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(&copy, bytes).unwrap();
        },
    ];
    for damage in damages {
        damage();
        drop(stores(data.path()).await.unwrap());
        assert_eq!(faults(data.path()).await, Vec::<String>::new());
    }
    // Damage in its middle is found by a check, and repaired.
    let mut bytes = fs::read(&copy).unwrap();
    bytes[100] ^= 1;
    fs::write(&copy, bytes).unwrap();
    assert_eq!(faults(data.path()).await.len(), 1);
    assert!(repair_store(data.path(), clock()).await.unwrap().copy_rebuilt);
    assert_eq!(faults(data.path()).await, Vec::<String>::new());
}

#[tokio::test]
async fn the_copy_does_not_grow_without_bound() {
    let data = TempDir::new().unwrap();
    let stores = stores(data.path()).await.unwrap();
    let row: Bytes = "x".repeat(100_000).into();
    for n in 0..200 {
        let change = Change { table: Table::Meta, key: format!("{}", n % 3).into(), row: Some(row.clone()) };
        stores.directory_records.commit(vec![change], Durability::Synced).await.unwrap();
    }
    let bytes = fs::metadata(data.path().join(second_copy::NAME)).unwrap().len();
    assert!(bytes < 5 * 1024 * 1024, "{bytes}");
    drop(stores);
    assert_eq!(faults(data.path()).await, Vec::<String>::new());
}

#[tokio::test]
async fn logs_of_a_store_in_which_damage_was_met_are_kept_if_they_are_exact() {
    let data = TempDir::new().unwrap();
    let [(of, head), (other, other_head)] = filled(data.path()).await;
    change_row(data.path(), EVENTS, &keys::entry(of, head.epoch, Seq(350)), None);
    suspect::note(&data.path().join(EVENTS)).unwrap();
    let stores = stores(data.path()).await.unwrap();
    assert_eq!(set_aside(data.path()), 1);
    assert_ne!(stores.log.bounds(of).await.unwrap().epoch, head.epoch);
    assert_eq!(stores.log.bounds(other).await.unwrap().head(), other_head);
    drop(stores);
    super::faults::stores(data.path()).await.unwrap();
    assert_eq!(set_aside(data.path()), 1, "once");
}

/// The three steps of putting a rebuilt store in place are renames: fresh to whole, the old one aside, whole to its place.
#[tokio::test]
async fn a_repair_that_was_killed_between_its_renames_loses_no_log() {
    let data = TempDir::new().unwrap();
    let [(of, head), _] = filled(data.path()).await;
    let (events, whole) = (data.path().join(EVENTS), data.path().join("events.whole"));
    // Before the last one; one that was never whole is no store.
    fs::rename(&events, &whole).unwrap();
    fs::create_dir(data.path().join("events.fresh")).unwrap();
    let opened = stores(data.path()).await.unwrap();
    assert!(!whole.exists());
    assert_eq!(opened.log.bounds(of).await.unwrap().head(), head);
    drop(opened);
    // Before the second one: the old store is there, and what was to replace it is never newer.
    let older = data.path().join("older");
    copy(&events, &older);
    let newer = stores(data.path()).await.unwrap().log.append(of, draft("since")).await.unwrap();
    fs::rename(older, &whole).unwrap();
    let opened = stores(data.path()).await.unwrap();
    assert!(!whole.exists());
    assert_eq!(opened.log.bounds(of).await.unwrap().head(), newer);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// As many entries as the head says, but one of them older: as when sled lost the newest change of a page.
#[tokio::test]
async fn a_compacted_state_with_a_stale_entry_is_damage() {
    let data = TempDir::new().unwrap();
    let [(of, head), _] = filled(data.path()).await;
    {
        let db = DataDir::take(data.path()).unwrap().open(EVENTS).unwrap();
        let (seq, row) = db.state_rows(of, head.epoch, Seq(0)).next().unwrap().unwrap();
        db.remove(&keys::state(of, head.epoch, seq)).unwrap();
        db.put(&keys::state(of, head.epoch, seq.prev()), &row[..]).unwrap();
        db.sync().unwrap();
    }
    let stores = stores(data.path()).await.unwrap();
    let read = stores.log.compacted(of, Cursor { seq: Seq(0), ..head }, ALL).await;
    assert!(matches!(read, Err(crate::log::LogError::Store(StoreError::Damaged { .. }))), "{read:?}");
}

async fn exported(data: &Path) -> (Checked, PathBuf, TempDir) {
    let to = TempDir::new().unwrap();
    let file = to.path().join("export");
    (export_store(data, &file, clock()).await.unwrap(), file, to)
}

#[tokio::test]
async fn an_export_brings_everything_elsewhere_and_cursors_stay_valid() {
    let data = TempDir::new().unwrap();
    let logs = filled(data.path()).await;
    let (checked, file, other) = exported(data.path()).await;
    assert!(matches!(export_store(data.path(), &file, clock()).await, Err(StoreError::NotEmpty(_))));
    let target = other.path().join("data");
    assert_eq!(import_store(&target, &file, clock()).await.unwrap(), checked);
    assert!(matches!(import_store(&target, &file, clock()).await, Err(StoreError::NotEmpty(_))));
    let (before, after) = (stores(data.path()).await.unwrap(), stores(&target).await.unwrap());
    for (of, head) in logs {
        assert_eq!(seen(&after, of, head).await, seen(&before, of, head).await);
        assert_eq!(after.log.append(of, draft("next")).await.unwrap(), Cursor { seq: head.seq.next(), ..head });
    }
    let all = |stores: &Stores| stores.directory_records.clone();
    assert_eq!(all(&after).scan(Table::Meta).await.unwrap(), all(&before).scan(Table::Meta).await.unwrap());
}

fn mode(of: &fs::Metadata) -> u32 {
    of.permissions().mode() & 0o777
}

#[tokio::test]
async fn what_holds_all_of_a_store_is_its_owners_alone() {
    let dir = TempDir::new().unwrap();
    let (above, data, file) = (dir.path().join("above"), dir.path().join("above/data"), dir.path().join("export"));
    let stores = stores(&data).await.unwrap();
    assert_eq!(mode(&fs::metadata(&data).unwrap()), 0o700);
    assert_ne!(mode(&fs::metadata(above).unwrap()), 0o700, "others may have something there");
    // As an older version left them.
    let (unfinished, partial) = (data.join("backup.unfinished"), dir.path().join("export.partial"));
    for left in [&unfinished, &partial] {
        fs::write(left, "").unwrap();
        fs::set_permissions(left, fs::Permissions::from_mode(0o644)).unwrap();
    }
    let backup = stores.backup.as_ref().unwrap().collect().await.unwrap();
    assert_eq!((mode(&backup.metadata().unwrap()), unfinished.exists()), (0o600, false));
    drop(stores);
    export_store(&data, &file, clock()).await.unwrap();
    assert_eq!((mode(&fs::metadata(file).unwrap()), partial.exists()), (0o600, false));
}

#[tokio::test]
async fn a_store_with_faults_is_not_exported() {
    let data = TempDir::new().unwrap();
    let [(of, head), _] = filled(data.path()).await;
    change_row(data.path(), EVENTS, &keys::entry(of, head.epoch, Seq(350)), None);
    let file = data.path().join("export");
    assert!(matches!(export_store(data.path(), &file, clock()).await, Err(StoreError::Damaged { .. })));
    assert!(!file.exists());
}

/// Wherever it was killed: amid its rows, amid the second copy, or when all is there and is looked at.
#[tokio::test]
async fn an_unfinished_import_is_no_store_and_can_be_repeated() {
    let data = TempDir::new().unwrap();
    let [(of, head), _] = filled(data.path()).await;
    let (checked, file, other) = exported(data.path()).await;
    let half = |dir: &DataDir| {
        fs::create_dir(dir.path().join("events.new")).unwrap();
        dir.open_or_create(DIRECTORY).unwrap().put(b"zhalf", b"row").unwrap();
    };
    let half_a_copy = |dir: &DataDir| {
        portable::fill(dir, &file).unwrap();
        let copy = dir.path().join(second_copy::NAME);
        fs::rename(&copy, copy.with_file_name("directory.copy-new")).unwrap();
    };
    let all = |dir: &DataDir| portable::fill(dir, &file).unwrap();
    let killed_at: [&dyn Fn(&DataDir); 3] = [&half, &half_a_copy, &all];
    for (n, make) in killed_at.into_iter().enumerate() {
        let target = other.path().join(format!("data {n}"));
        {
            let dir = DataDir::take(&target).unwrap();
            dir.begin_import().unwrap();
            make(&dir);
        }
        let error = stores(&target).await.err().unwrap();
        assert!(error.to_string().contains("gatecast store import"), "{error}");
        assert!(check_store(&target, clock()).await.is_err());
        assert_eq!(import_store(&target, &file, clock()).await.unwrap(), checked);
        assert_eq!(stores(&target).await.unwrap().log.bounds(of).await.unwrap().head(), head);
    }
}

#[tokio::test]
async fn what_an_unfinished_import_has_not_made_is_kept_and_no_store_until_it_is_moved() {
    let data = TempDir::new().unwrap();
    filled(data.path()).await;
    let (checked, file, other) = exported(data.path()).await;
    let target = other.path().join("data");
    {
        let dir = DataDir::take(&target).unwrap();
        dir.begin_import().unwrap();
        portable::fill(&dir, &file).unwrap();
    }
    let notes = target.join("notes");
    fs::write(&notes, "of somebody").unwrap();
    for _ in 0..2 {
        let refused = import_store(&target, &file, clock()).await;
        assert!(matches!(&refused, Err(StoreError::NotEmpty(_))), "{refused:?}");
        assert_eq!(fs::read(&notes).unwrap(), b"of somebody");
        assert!(matches!(stores(&target).await.err(), Some(StoreError::Damaged { .. })));
    }
    fs::rename(&notes, other.path().join("notes")).unwrap();
    assert_eq!(import_store(&target, &file, clock()).await.unwrap(), checked);
}

#[test]
fn whatever_is_done_to_an_export_it_is_imported_whole_or_not_at_all() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let data = TempDir::new().unwrap();
    let (_, file, _other) = runtime.block_on(async {
        filled(data.path()).await;
        exported(data.path()).await
    });
    let bytes = fs::read(file).unwrap();
    let config = ProptestConfig { cases: 64, ..ProptestConfig::default() };
    proptest!(config, |(at in any::<prop::sample::Index>(), by in 0..=255_u8, cut in any::<bool>(), more in prop::collection::vec(any::<u8>(), 0..20))| {
        let mut changed = bytes.clone();
        let at = at.index(bytes.len());
        changed[at] ^= by;
        if cut { changed.truncate(at); }
        changed.extend(&more);
        prop_assume!(changed != bytes);
        let dir = TempDir::new().unwrap();
        let (file, target) = (dir.path().join("export"), dir.path().join("data"));
        fs::File::create(&file).unwrap().write_all(&changed).unwrap();
        let error = runtime.block_on(import_store(&target, &file, clock())).unwrap_err();
        prop_assert!(matches!(error, StoreError::Unreadable { .. }), "{}", error);
        prop_assert!(!target.exists());
    });
}

#[tokio::test]
async fn a_directory_row_of_an_unknown_form_is_a_fault() {
    let data = TempDir::new().unwrap();
    let stores = stores(data.path()).await.unwrap();
    let change = Change { table: Table::Gateways, key: "g".into(), row: Some("{}".into()) };
    stores.directory_records.commit(vec![change], Durability::Synced).await.unwrap();
    drop(stores);
    let found = faults(data.path()).await;
    assert!(found.len() == 1 && found[0].starts_with("directory: "), "{found:?}");
}

#[tokio::test]
async fn a_row_beside_an_event_that_would_stop_the_start_is_a_fault() {
    for (table, what) in [(Table::Answers, "an answer"), (Table::Orders, "an order")] {
        let data = TempDir::new().unwrap();
        let stores = stores(data.path()).await.unwrap();
        let change = Change { table, key: "k".into(), row: Some("?".into()) };
        stores.events_records.commit(vec![change], Durability::Synced).await.unwrap();
        drop(stores);
        let found = faults(data.path()).await;
        assert!(found.len() == 1 && found[0].contains(what), "{found:?}");
    }
}
