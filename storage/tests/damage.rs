//! Torn, truncated and bit-flipped stores: each file of a store is damaged at seeded places, then the store is opened,
//! read to the last row, opened again and repaired. Whatever the damage: a log is exactly as it was answered, or it
//! starts anew with another epoch; the directory is as it was answered, or it refuses; a read of what is damaged is an
//! error that says that a restart is needed, and the restart cures it; nothing panics out of its process or hangs.
//!
//! The binary runs itself as the child that opens the store (so it has no test harness), so that an end by a signal and
//! a hang are seen for what they are. `GATECAST_DAMAGE_SEEDS` sets how many bytes of each large file are flipped, one a
//! run (16).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test, if without a harness")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use gatecast_storage::{
    Budget, Change, Clock, Compaction, Condition, Cursor, Draft, Durability, Epoch, GatewayId, NoFollower, Page,
    Retention, Seq, StoreError, Stores, SystemClock, Table, check_store, open_sled, repair_store,
};
use uuid::Uuid;

/// Set for the child to what it shall do with the directory that follows.
const CHILD: &str = "GATECAST_DAMAGE_TEST_DO";
const DATA: &str = "GATECAST_DAMAGE_TEST_DATA";
/// No open, read or repair of so small a store takes a tenth of it.
const DEADLINE: Duration = Duration::from_secs(60);
const LOGS: usize = 4;
const EVENTS: u64 = 1_500;
const HELD: u64 = 600;
const KEYS: u64 = 20;
const ROWS: usize = 200;
const ALL: Budget = Budget { events: usize::MAX, bytes: usize::MAX };
const RETENTION: Retention = Retention {
    max_events: HELD,
    max_bytes: 1 << 30,
    max_age: Duration::from_secs(86_400),
    compaction: Compaction::DEFAULT,
};

#[tokio::main]
async fn main() {
    let data = std::env::var_os(DATA).map(PathBuf::from).unwrap_or_default();
    match std::env::var(CHILD).as_deref() {
        Ok("fill") => fill(&data).await,
        Ok("look") => println!("{}", look(&data).await),
        Ok("repair") => println!("{}", repair(&data).await),
        _ => damage_and_look(),
    }
}

fn gateway(number: usize) -> GatewayId {
    GatewayId(Uuid::from_u128(number as u128 + 1))
}

fn body(log: usize, seq: u64) -> Bytes {
    // Some of a size that sled puts into files of their own.
    let padding = if seq.is_multiple_of(100) { 150_000 } else { seq * 37 % 600 };
    Bytes::from(format!("{log}/{seq}/{}", "abcdefg".repeat(padding as usize / 7)))
}

fn row(number: usize) -> Option<Bytes> {
    Some(format!("{number} {}", "row".repeat(number)).into())
}

async fn open(data: &Path) -> Result<Stores, StoreError> {
    open_sled(data, RETENTION, Arc::new(SystemClock), Arc::new(NoFollower)).await
}

async fn append(stores: &Stores, to: GatewayId, key: Option<Bytes>, body: Bytes) -> Cursor {
    let draft = Draft { at: SystemClock.now(), key, ends_key: false, body, expect: None, beside: Vec::new() };
    stores.log.append(to, draft).await.unwrap()
}

async fn fill(data: &Path) {
    let stores = open(data).await.unwrap();
    for seq in 1..=EVENTS {
        for log in 0..LOGS {
            append(&stores, gateway(log), Some(format!("{}", seq % KEYS).into()), body(log, seq)).await;
        }
    }
    for number in 0..ROWS {
        let change = Change { table: Table::Meta, key: format!("{number}").into(), row: row(number) };
        stores.directory_records.commit(vec![change], Durability::Synced).await.unwrap();
    }
    for log in 0..LOGS {
        stores.log.compacted(gateway(log), Cursor { epoch: Epoch(0), seq: Seq(0) }, ALL).await.unwrap();
        println!("{}", stores.log.bounds(gateway(log)).await.unwrap().epoch);
    }
}

/// `refused`, `error` (reads failed, and the store says that it needs a restart), or how many logs are exact and new.
async fn look(data: &Path) -> String {
    let stores = match open(data).await {
        Ok(stores) => stores,
        Err(StoreError::Damaged { path, .. }) if path.ends_with("directory") => return "refused".to_owned(),
        Err(error) => panic!("{error}"),
    };
    let (mut exact, mut new, mut failed) = (0, 0, Vec::new());
    for log in 0..LOGS {
        match look_at_log(&stores, data, log).await {
            Ok(true) => exact += 1,
            Ok(false) => new += 1,
            Err(error) => failed.push(error),
        }
    }
    let rows = match stores.directory_records.scan(Table::Meta).await {
        Ok(rows) => rows.into_iter().map(|(key, row)| (key, Some(row))).collect(),
        // As the server does, which loads them all.
        Err(_) => return "refused".to_owned(),
    };
    let expected: BTreeMap<Bytes, _> = (0..ROWS).map(|n| (format!("{n}").into(), row(n))).collect();
    assert!(expected == rows, "the directory is not what was answered");
    if !failed.is_empty() {
        assert_eq!(stores.events_records.condition(), Condition::Broken, "{failed:?}");
        return "error".to_owned();
    }
    append(&stores, gateway(LOGS), None, "x".into()).await;
    format!("{exact} exact, {new} new")
}

/// Whether the log is exactly what was answered; else it must be a new one.
async fn look_at_log(stores: &Stores, data: &Path, log: usize) -> Result<bool, String> {
    let epochs = fs::read_to_string(data.join("epochs")).unwrap();
    let of = gateway(log);
    let bounds = stores.log.bounds(of).await.map_err(|error| error.to_string())?;
    if epochs.lines().nth(log) != Some(&bounds.epoch.to_string()) {
        assert_eq!((bounds.newest, bounds.events()), (Seq(0), 0), "a new log is empty");
        return Ok(false);
    }
    assert_eq!((bounds.oldest, bounds.newest), (Seq(EVENTS - HELD + 1), Seq(EVENTS)), "in the same epoch");
    let from = Cursor { epoch: bounds.epoch, seq: bounds.oldest.prev() };
    // As a session reads: on from where a page ended.
    let mut at = from;
    while at.seq < bounds.newest {
        let entries = match stores.log.read(of, at, ALL).await.map_err(|error| error.to_string())? {
            Page::Entries(entries) => entries,
            // What is missing within a log is told, as a reset, and the store is no longer ready.
            _ => return Err("events are missing".to_owned()),
        };
        assert!(!entries.is_empty(), "a reader waits for ever at {}", at.seq);
        for entry in entries {
            at.seq = at.seq.next();
            assert!(entry.seq == at.seq && entry.body == body(log, at.seq.0), "{} is not what was answered", at.seq);
        }
    }
    let start = Cursor { seq: Seq(0), ..from };
    let state = stores.log.compacted(of, start, ALL).await.map_err(|error| error.to_string())?;
    let bodies = state.entries.iter().map(|entry| (entry.seq.0, entry.body.clone()));
    let latest = EVENTS - HELD - KEYS + 1..=EVENTS - HELD;
    assert!(bodies.eq(latest.map(|seq| (seq, body(log, seq)))), "another state than was answered");
    Ok(true)
}

async fn repair(data: &Path) -> String {
    repair_store(data, Arc::new(SystemClock)).await.unwrap();
    let checked = check_store(data, Arc::new(SystemClock)).await.unwrap();
    assert_eq!(checked.faults, Vec::<String>::new());
    "repaired".to_owned()
}

/// Runs the child; what it says.
fn child(what: &str, data: &Path) -> Result<String, String> {
    let this = std::env::current_exe().unwrap();
    let mut child = Command::new(this);
    let child = child.env(CHILD, what).env(DATA, data).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (done, ended) = mpsc::channel();
    let crying = std::thread::spawn(move || {
        let mut cried = String::new();
        err.read_to_string(&mut cried).map(|_| cried).unwrap()
    });
    std::thread::spawn(move || {
        let mut said = String::new();
        out.read_to_string(&mut said).unwrap();
        let cried = crying.join().unwrap();
        // Nobody waits any more after the deadline.
        let _ = done.send((said, cried));
    });
    let said = ended.recv_timeout(DEADLINE);
    if said.is_err() {
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    match said {
        Err(_) => Err(format!("{what} hangs")),
        Ok((said, _)) if status.success() => Ok(said.trim().to_owned()),
        Ok((_, cried)) => Err(format!("{what} ended with {status}: {cried}")),
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// splitmix64: the damage of a seed is the same everywhere.
fn random(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What is done to the bytes of a file.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Flip(u64),
    /// A block of zeros, as a lost write leaves it.
    Zeros(u64),
    /// Cut to so many eighths.
    Cut(u64),
}

impl Damage {
    fn apply(self, bytes: &mut Vec<u8>) {
        let len = bytes.len() as u64;
        match self {
            Self::Flip(seed) => {
                let at = (random(seed) % len) as usize;
                bytes[at] ^= 1 << (random(seed ^ 0xb17) % 8);
            }
            Self::Zeros(seed) => {
                let at = (random(seed) % len) as usize & !0xfff;
                bytes.iter_mut().skip(at).take(4_096).for_each(|byte| *byte = 0);
            }
            Self::Cut(eighths) => bytes.truncate((len * eighths / 8) as usize),
        }
    }
}

fn damage_and_look() {
    let seeds = std::env::var("GATECAST_DAMAGE_SEEDS").map_or(16, |seeds| seeds.parse().unwrap());
    let dir = tempfile::TempDir::new().unwrap();
    let source = dir.path().join("source");
    let epochs = child("fill", &source).unwrap();
    fs::write(source.join("epochs"), epochs).unwrap();
    let blob = fs::read_dir(source.join("events/blobs")).unwrap().next().unwrap().unwrap().file_name();
    let blob = format!("events/blobs/{}", blob.to_str().unwrap());
    let cuts = || (0..8).map(Damage::Cut);
    let large = || (0..seeds).map(Damage::Flip).chain((0..seeds / 4).map(Damage::Zeros)).chain(cuts());
    let small = || (0..seeds / 8).map(Damage::Flip).chain([Damage::Cut(0), Damage::Cut(4)]);
    let mut plan: Vec<(&str, Damage)> = Vec::new();
    for file in ["events/db", "directory/db"] {
        plan.extend(large().map(|damage| (file, damage)));
    }
    for file in [&blob, "events/conf", "events/mark", "directory/conf", "directory/mark", "directory.copy"] {
        plan.extend(small().map(|damage| (file, damage)));
    }
    let mut verdicts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for (file, damage) in plan {
        let data = dir.path().join("data");
        copy(&source, &data);
        let mut bytes = fs::read(data.join(file)).unwrap();
        damage.apply(&mut bytes);
        fs::write(data.join(file), bytes).unwrap();
        let story = story(&data).unwrap_or_else(|error| panic!("{file}, {damage:?}: {error}"));
        let kind = format!("{damage:?}").split('(').next().unwrap_or_default().to_owned();
        let file = if file == blob { "events/blobs" } else { file };
        *verdicts.entry((format!("{kind} {file}"), story)).or_default() += 1;
        fs::remove_dir_all(&data).unwrap();
    }
    for ((what, story), times) in verdicts {
        println!("{times:4} {what}: {story}");
    }
}

/// What happens to a store from the damage until it is whole again.
fn story(data: &Path) -> Result<String, String> {
    let mut story = child("look", data)?;
    for _ in 0..2 {
        let again = match story.rsplit(", then ").next() {
            Some("refused") => child("repair", data).and_then(|_| child("look", data))?,
            Some("error") => child("look", data)?,
            _ => break,
        };
        story = format!("{story}, then {again}");
    }
    let last = story.rsplit(", then ").next().unwrap_or_default();
    if ["refused", "error"].contains(&last) {
        return Err(format!("it is never whole again: {story}"));
    }
    child("repair", data)?;
    Ok(story)
}
