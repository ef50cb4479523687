//! Torn, truncated and bit-flipped stores: each file of a store is damaged at seeded places, then the store is opened,
//! read to the last row, written to, opened again and repaired. Whatever the damage: a log is exactly as it was answered,
//! or it starts anew with another epoch; the directory is as it was answered, or it refuses; a read of what is damaged
//! is an error that says that a restart is needed, and the restart cures it; nothing panics out of its process or hangs.
//!
//! The binary runs itself as the child that opens the store (so it has no test harness), so that an end by a signal and
//! a hang are seen for what they are. All that is random comes of `GATECAST_DAMAGE_SEED` (1): how many logs and events
//! there are, what is forgotten, when the store is closed or killed meanwhile, what is damaged. `GATECAST_DAMAGE_SEEDS`
//! sets how many bytes of each large file are flipped, one a run (16). sled's own threads and the random epochs still
//! move rows on disk a little, so the store of a failing run is kept; `GATECAST_DAMAGE_SOURCE=<kept>/source` with the same
//! seed damages that very store again.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test, if without a harness")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use bytes::Bytes;
use gatecast_storage::{
    Budget, Change, Clock, Compaction, Condition, Cursor, Draft, Durability, Epoch, GatewayId, LogError, NoFollower,
    Page, Retention, Seq, StoreError, Stores, SystemClock, Table, check_store, open_sled, repair_store,
};
use tokio::time::Instant;
use uuid::Uuid;

/// Set for the child to what it shall do with the directory that follows.
const CHILD: &str = "GATECAST_DAMAGE_TEST_DO";
const DATA: &str = "GATECAST_DAMAGE_TEST_DATA";
/// And, while it is filled, which of its lives it is.
const LIFE: &str = "GATECAST_DAMAGE_TEST_LIFE";
/// No open, read or repair of so small a store takes a tenth of it.
const DEADLINE: Duration = Duration::from_secs(60);
/// Rows of logs that were forgotten are near those of logs that are not.
const FORGOTTEN: usize = 1_000;
/// Of the directory.
const ROWS: usize = 200;
const ALL: Budget = Budget { events: usize::MAX, bytes: usize::MAX };

#[tokio::main]
async fn main() {
    let data = std::env::var_os(DATA).map(PathBuf::from).unwrap_or_default();
    let shape = Shape::of(number("GATECAST_DAMAGE_SEED").unwrap_or(1));
    match std::env::var(CHILD).as_deref() {
        Ok("fill") => fill(&data, shape).await,
        Ok("look") => println!("{}", look(&data, shape).await),
        Ok("repair") => println!("{}", repair(&data).await),
        _ => damage_and_look(shape),
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|number| number.parse().unwrap())
}

/// What a store holds, all of it by the seed.
#[derive(Debug, Clone, Copy)]
struct Shape {
    seed: u64,
    logs: usize,
    events: u64,
    held: u64,
    keys: u64,
    /// How often it is opened while it is filled.
    lives: u64,
}

impl Shape {
    fn of(seed: u64) -> Self {
        let draw = |what: u64, min: u64, max: u64| min + random(seed ^ (what << 32)) % (max - min);
        let logs = draw(1, 1, 12);
        let events = draw(2, 200, 9_000) / logs;
        Self { seed, logs: logs as usize, events, held: draw(3, 20, 900), keys: draw(4, 1, 40), lives: draw(5, 1, 5) }
    }

    fn retention(self) -> Retention {
        Retention {
            max_events: self.held,
            max_bytes: 1 << 30,
            max_age: Duration::from_secs(86_400),
            compaction: Compaction::DEFAULT,
        }
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

async fn open(data: &Path, shape: Shape) -> Result<Stores, StoreError> {
    open_sled(data, shape.retention(), Arc::new(SystemClock), Arc::new(NoFollower)).await
}

/// Appends what the log has at this position if it was filled from its beginning.
async fn append(stores: &Stores, shape: Shape, log: usize, seq: u64) -> Result<Cursor, LogError> {
    let key = Some(format!("{}", seq % shape.keys).into());
    let draft = Draft {
        at: SystemClock.now(),
        since: Instant::now(),
        key,
        ends_key: false,
        body: body(log, seq),
        expect: None,
        beside: vec![],
    };
    stores.log.append(gateway(log), draft).await
}

/// One life of the store while it is filled: some of it ends amid the work.
async fn fill(data: &Path, shape: Shape) {
    let life = number(LIFE).unwrap_or_default();
    let stores = open(data, shape).await.unwrap();
    let share = |of: u64, life: u64| of * life / shape.lives;
    for seq in share(shape.events, life) + 1..=share(shape.events, life + 1) {
        for log in 0..shape.logs {
            append(&stores, shape, log, seq).await.unwrap();
        }
        let dice = random(shape.seed ^ (seq << 8));
        if dice.is_multiple_of(64) {
            let doomed = FORGOTTEN + (dice >> 32) as usize % 3;
            for seq in 1..=dice >> 8 & 63 {
                append(&stores, shape, doomed, seq).await.unwrap();
            }
        }
        if dice.is_multiple_of(97) {
            stores.log.forget(gateway(FORGOTTEN + (dice >> 32) as usize % 3)).await.unwrap();
        }
    }
    for number in share(ROWS as u64, life) as usize..share(ROWS as u64, life + 1) as usize {
        let change = Change { table: Table::Meta, key: format!("{number}").into(), row: row(number) };
        stores.directory_records.commit(vec![change], Durability::Synced).await.unwrap();
    }
    let mut known = Vec::new();
    for log in 0..shape.logs {
        stores.log.compacted(gateway(log), Cursor { epoch: Epoch(0), seq: Seq(0) }, ALL).await.unwrap();
        let bounds = stores.log.bounds(gateway(log)).await.unwrap();
        known.push(Known { epoch: bounds.epoch.to_string(), newest: bounds.newest.0, is_open: false });
    }
    Known::write(data, &known);
    if random(shape.seed ^ life).is_multiple_of(2) {
        std::process::abort();
    }
}

/// What was answered of a log.
#[derive(Clone)]
struct Known {
    epoch: String,
    newest: u64,
    /// The event after it was not refused for sure.
    is_open: bool,
}

impl Known {
    fn read(data: &Path) -> Vec<Self> {
        let lines = fs::read_to_string(data.join("known")).unwrap();
        let parse = |line: &str| {
            let mut words = line.split(' ');
            let (epoch, newest) = (words.next().unwrap().to_owned(), words.next().unwrap().parse().unwrap());
            Self { epoch, newest, is_open: words.next() == Some("open") }
        };
        lines.lines().map(parse).collect()
    }

    fn write(data: &Path, known: &[Self]) {
        let line =
            |known: &Self| format!("{} {}{}\n", known.epoch, known.newest, if known.is_open { " open" } else { "" });
        fs::write(data.join("known"), known.iter().map(line).collect::<String>()).unwrap();
    }
}

/// `refused`, `error` (reads or writes failed, and the store says that it needs a restart), or how many logs are exact
/// and new. Something is appended to each log meanwhile.
async fn look(data: &Path, shape: Shape) -> String {
    let stores = match open(data, shape).await {
        Ok(stores) => stores,
        Err(StoreError::Damaged { path, .. }) if path.ends_with("directory") => return "refused".to_owned(),
        Err(error) => panic!("{error}"),
    };
    let (mut exact, mut new, mut failed) = (0, 0, Vec::new());
    let mut known = Known::read(data);
    for (log, known) in known.iter_mut().enumerate() {
        match look_at_log(&stores, shape, known, log).await {
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
    for (log, known) in known.iter_mut().enumerate() {
        match append(&stores, shape, log, known.newest + 1).await {
            Ok(cursor) => {
                assert_eq!((cursor.epoch.to_string(), cursor.seq.0), (known.epoch.clone(), known.newest + 1));
                (known.newest, known.is_open) = (cursor.seq.0, false);
            }
            Err(error) => {
                known.is_open = true;
                failed.push(error.to_string());
            }
        }
    }
    Known::write(data, &known);
    if !failed.is_empty() {
        assert_eq!(stores.events_records.condition(), Condition::Broken, "{failed:?}");
        return "error".to_owned();
    }
    format!("{exact} exact, {new} new")
}

/// Whether the log is exactly what was answered; else it must be a new one, of which the next look knows.
async fn look_at_log(stores: &Stores, shape: Shape, known: &mut Known, log: usize) -> Result<bool, String> {
    let of = gateway(log);
    let bounds = stores.log.bounds(of).await.map_err(|error| error.to_string())?;
    if known.epoch != bounds.epoch.to_string() {
        assert_eq!((bounds.newest, bounds.events()), (Seq(0), 0), "a new log is empty");
        *known = Known { epoch: bounds.epoch.to_string(), newest: 0, is_open: false };
        return Ok(false);
    }
    if known.is_open && bounds.newest.0 == known.newest + 1 {
        (known.newest, known.is_open) = (bounds.newest.0, false);
    }
    let oldest = (known.newest + 1).saturating_sub(shape.held).max(1);
    assert_eq!(bounds.newest, Seq(known.newest), "in the same epoch");
    let from = Cursor { epoch: bounds.epoch, seq: Seq(oldest - 1) };
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
    let latest = oldest.saturating_sub(shape.keys).max(1)..oldest;
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
fn child(what: &str, data: &Path, life: u64) -> Result<String, String> {
    let this = std::env::current_exe().unwrap();
    let mut child = Command::new(this);
    let child = child
        .env(CHILD, what)
        .env(DATA, data)
        .env(LIFE, format!("{life}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
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

fn damage_and_look(shape: Shape) {
    println!("GATECAST_DAMAGE_SEED={}: {shape:?}", shape.seed);
    let dir = tempfile::TempDir::new().unwrap();
    let source = std::env::var_os("GATECAST_DAMAGE_SOURCE").map(PathBuf::from).unwrap_or_else(|| {
        let source = dir.path().join("source");
        for life in 0..shape.lives {
            let filled = child("fill", &source, life);
            // Half of the lives end by a signal.
            assert!(source.join("known").exists(), "{filled:?}");
        }
        source
    });
    let plan = plan(&source, shape.seed);
    let verdicts = BTreeMap::<(String, String), usize>::new();
    let (next, done) = (AtomicUsize::new(0), Mutex::new((verdicts, 0)));
    let work = |worker: usize| {
        while let Some((file, damage)) = plan.get(next.fetch_add(1, Ordering::Relaxed)) {
            let data = dir.path().join(format!("data-{worker}"));
            copy(&source, &data);
            let mut bytes = fs::read(data.join(file)).unwrap();
            damage.apply(&mut bytes);
            fs::write(data.join(file), bytes).unwrap();
            let told = story(&data);
            let (verdicts, failures) = &mut *done.lock().unwrap_or_else(PoisonError::into_inner);
            match told {
                Ok(story) => {
                    let kind = format!("{damage:?}").split('(').next().unwrap_or_default().to_owned();
                    let file = file.rsplit_once("blobs/").map_or(&**file, |_| "events/blobs");
                    let key = (format!("{kind} {file}"), story);
                    *verdicts.entry(key).or_default() += 1;
                    fs::remove_dir_all(&data).unwrap();
                }
                Err(error) => {
                    *failures += 1;
                    let kept = dir.path().join(format!("failed-{failures}"));
                    fs::rename(&data, &kept).unwrap();
                    println!("FAILED: {file}, {damage:?}, kept as {}: {error}", kept.display());
                }
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let work = &work;
    std::thread::scope(|scope| (0..workers).for_each(|worker| drop(scope.spawn(move || work(worker)))));
    let (verdicts, failures) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    for ((what, story), times) in verdicts {
        println!("{times:4} {what}: {story}");
    }
    if failures > 0 {
        let kept = dir.keep();
        println!("{failures} of {} runs failed; again:", plan.len());
        println!("GATECAST_DAMAGE_SEED={} GATECAST_DAMAGE_SOURCE={}/source", shape.seed, kept.display());
        std::process::exit(1);
    }
}

/// Which file is damaged, and how, one a run.
fn plan(source: &Path, seed: u64) -> Vec<(String, Damage)> {
    let seeds = number("GATECAST_DAMAGE_SEEDS").unwrap_or(16);
    let from = random(seed) >> 16;
    let cuts = || (0..8).map(Damage::Cut);
    let flips = |count: u64| (from..from + count).map(Damage::Flip);
    let large = || flips(seeds).chain((from..from + seeds / 4).map(Damage::Zeros)).chain(cuts());
    let small = || flips(seeds / 8).chain([Damage::Cut(0), Damage::Cut(4)]);
    let mut plan = Vec::new();
    for file in ["events/db", "directory/db"] {
        plan.extend(large().map(|damage| (file.to_owned(), damage)));
    }
    let mut files: Vec<_> =
        ["events/conf", "events/mark", "directory/conf", "directory/mark", "directory.copy"].map(str::to_owned).into();
    let names =
        |of: &str| fs::read_dir(source.join(of)).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    files.extend(names("events/blobs").min().map(|name| format!("events/blobs/{name}")));
    for database in ["events", "directory"] {
        files.extend(names(database).filter(|name| name.starts_with("snap.")).map(|name| format!("{database}/{name}")));
    }
    for file in files {
        plan.extend(small().map(|damage| (file.clone(), damage)));
    }
    plan
}

/// What happens to a store from the damage until it is whole again.
fn story(data: &Path) -> Result<String, String> {
    let child = |what: &str| child(what, data, 0);
    let mut last = child("look")?;
    let mut story = last.clone();
    for _ in 0..2 {
        last = match &*last {
            "refused" => child("repair").and_then(|_| child("look"))?,
            "error" => child("look")?,
            _ => break,
        };
        story = format!("{story}, then {last}");
    }
    if ["refused", "error"].contains(&&*last) {
        return Err(format!("it is never whole again: {story}"));
    }
    // What it was written since is there as well, and nothing more is found.
    for what in ["look", "repair", "look"] {
        let again = child(what).map_err(|error| format!("{story}, then {error}"))?;
        if again != "repaired" && !again.ends_with(" 0 new") {
            story = format!("{story}, then {again}");
        }
    }
    Ok(story)
}
