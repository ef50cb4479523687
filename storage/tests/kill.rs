//! kill -9 in the middle of writing, several times over the same data: every answered entry is there afterwards, dense,
//! in order, with the body it was answered for, and no position is ever given twice. What left the ring is in the
//! compacted state exactly if no later entry of its key did. A row that an entry was to have beside it is there exactly if
//! the entry is.
//!
//! The binary runs itself as the child (so it has no test harness): the child appends and prints each answer, the
//! parent kills it after some of them and looks at what is on disk.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test, if without a harness")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gatecast_storage::{
    Beside, Bounds, Budget, Clock, Compaction, Cursor, Draft, EventLog, GatewayId, LogError, NoFollower, Page,
    Retention, Seq, Stores, SystemClock, Table, open_sled,
};
use tokio::time::Instant;
use uuid::Uuid;

/// Set for the child to the data directory.
const CHILD: &str = "GATECAST_KILL_TEST_DATA";
const ROUNDS: usize = 8;
const WRITERS: usize = 12;
const GATEWAYS: usize = 4;
/// The gateway whose log is forgotten now and then.
const FORGETFUL: usize = 3;
/// Small, so that rows are deleted all the time.
const RETENTION: Retention = Retention {
    max_events: 64,
    max_bytes: 1 << 30,
    max_age: Duration::from_secs(86_400),
    compaction: Compaction::DEFAULT,
};

type Answers = HashMap<(usize, Cursor), String>;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match std::env::var_os(CHILD) {
        Some(data) => runtime.block_on(append_for_ever(Path::new(&data))),
        None => runtime.block_on(kill_and_check()),
    }
}

/// Which of a few entities an entry is about: it can be told from the beginning of the body.
fn key(body: &str) -> Bytes {
    let number = body.split('/').nth(2).and_then(|number| number.parse::<usize>().ok()).unwrap();
    Bytes::from(format!("entity {}", number * number % 23))
}

fn gateway(number: usize) -> GatewayId {
    GatewayId(Uuid::from_u128(number as u128))
}

async fn open(data: &Path) -> Stores {
    open_sled(data, RETENTION, Arc::new(SystemClock), Arc::new(NoFollower)).await.unwrap()
}

async fn append_for_ever(data: &Path) {
    let log = open(data).await.log;
    let run = Uuid::new_v4();
    let writers = (0..WRITERS).map(|writer| {
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            for number in 0_usize.. {
                let to = (writer + number) % GATEWAYS;
                if to == FORGETFUL && writer == 0 && number % 40 == 3 {
                    println!("forget");
                    log.forget(gateway(to)).await.unwrap();
                    continue;
                }
                let padding = if number.is_multiple_of(97) { 150_000 } else { number * 31 % 900 };
                let body = format!("{run}/{writer}/{number}/{}", "x".repeat(padding));
                let draft = Draft {
                    at: SystemClock.now(),
                    since: Instant::now(),
                    key: Some(key(&body)),
                    ends_key: number.is_multiple_of(5),
                    beside: vec![beside(to, &body)],
                    body: Bytes::from(body),
                    expect: None,
                };
                let cursor = append(&*log, gateway(to), draft, number).await;
                if number % 40 == 7 {
                    log.compacted(gateway(to), cursor, Budget { events: 1, bytes: 1 }).await.unwrap();
                }
                println!("{to} {cursor} {run}/{writer}/{number}/");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

/// Alone, or as the last of a batch.
async fn append(log: &dyn EventLog, to: GatewayId, draft: Draft, number: usize) -> Cursor {
    if !number.is_multiple_of(3) {
        return log.append(to, draft).await.unwrap();
    }
    let others = (0..5).map(|n| {
        let body = format!("{}/{number}/{n}", Uuid::new_v4());
        let to = n % GATEWAYS;
        let beside = vec![beside(to, &body)];
        (gateway(to), Draft { key: Some(key(&body)), body: body.into(), beside, ..draft.clone() })
    });
    let others: Vec<_> = others.collect();
    log.append_all(others.into_iter().chain([(to, draft)]).collect()).await.pop().unwrap().unwrap()
}

/// A row that says which entry it is beside: its key is the beginning of the entry's body.
fn beside(to: usize, body: &str) -> Beside {
    let key = body.split('/').take(3).collect::<Vec<_>>().join("/");
    Beside { table: Table::Answers, key: Bytes::from(key), rest: Bytes::from(vec![u8::try_from(to).unwrap()]) }
}

async fn kill_and_check() {
    let data = tempfile::TempDir::new().unwrap();
    let mut answers = Answers::new();
    for round in 0..ROUNDS {
        let before = answers.len();
        let forgot = run_child_and_kill(data.path(), 300 + 137 * round, &mut answers);
        assert!(answers.len() > before);
        let stores = open(data.path()).await;
        for number in 0..GATEWAYS {
            check(&*stores.log, number, &answers, forgot).await;
            check_beside(&stores, number).await;
        }
        drop(stores);
        println!("round {round}: {} answers, all there", answers.len() - before);
    }
}

/// Says whether the child was about to forget a log, so that more than the answers say may be gone.
fn run_child_and_kill(data: &Path, lines_max: usize, answers: &mut Answers) -> bool {
    let this = std::env::current_exe().unwrap();
    let mut child = Command::new(this).env(CHILD, data).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut forgot = false;
    let mut line = String::new();
    for number in 0.. {
        line.clear();
        lines.read_line(&mut line).unwrap();
        // A line that the kill tore apart was not an answer yet.
        let Some(whole) = line.strip_suffix('\n') else { break };
        if whole == "forget" {
            forgot = true;
        } else {
            note(whole, answers);
        }
        if number == lines_max {
            // SIGKILL. What is in the pipe was answered too and is read on.
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    forgot
}

fn note(line: &str, answers: &mut Answers) {
    let mut parts = line.split(' ');
    let mut part = || parts.next().unwrap();
    let (to, cursor, body) = (part().parse().unwrap(), part().parse().unwrap(), part().to_owned());
    let before = answers.insert((to, cursor), body);
    assert_eq!(before, None, "{cursor} was given twice");
}

async fn check(log: &dyn EventLog, number: usize, answers: &Answers, forgot: bool) {
    let of = gateway(number);
    let bounds = log.bounds(of).await.unwrap();
    let last = answers.keys().filter(|(to, cursor)| *to == number && cursor.epoch == bounds.epoch);
    let last = last.map(|(_, cursor)| cursor.seq).max();
    match last {
        Some(last) => assert!(bounds.newest >= last, "{last} was answered, {} is the newest", bounds.newest),
        None => assert!(forgot && number == FORGETFUL, "the epoch is new"),
    }
    let expected_oldest = bounds.newest.next().0.saturating_sub(RETENTION.max_events).max(1);
    assert_eq!(bounds.oldest, Seq(expected_oldest));
    let from = Cursor { epoch: bounds.epoch, seq: bounds.oldest.prev() };
    let budget = Budget { events: usize::MAX, bytes: usize::MAX };
    let page: Result<Page, LogError> = log.read(of, from, budget).await;
    let Page::Entries(entries) = page.unwrap() else { panic!("the log is not readable from its oldest entry") };
    let seqs = entries.iter().map(|entry| entry.seq.0);
    assert!(seqs.eq(expected_oldest..=bounds.newest.0), "dense and in order");
    for entry in entries {
        let cursor = Cursor { seq: entry.seq, ..from };
        if let Some(body) = answers.get(&(number, cursor)) {
            assert!(entry.body.starts_with(body.as_bytes()), "{cursor} has another body than was answered");
        }
    }
    check_compacted(log, number, answers, bounds).await;
}

/// Of all that is held, entries and rows are the same.
async fn check_beside(stores: &Stores, number: usize) {
    let of = gateway(number);
    let bounds = stores.log.bounds(of).await.unwrap();
    let from = Cursor { epoch: bounds.epoch, seq: bounds.oldest.prev() };
    let budget = Budget { events: usize::MAX, bytes: usize::MAX };
    let Page::Entries(entries) = stores.log.read(of, from, budget).await.unwrap() else { panic!("not readable") };
    let mut held = HashMap::new();
    for entry in entries {
        let body = String::from_utf8(entry.body.to_vec()).unwrap();
        held.insert(beside(number, &body).key, Cursor { seq: entry.seq, ..from });
    }
    let mut rows = HashMap::new();
    for (key, row) in stores.events_records.scan(Table::Answers).await.unwrap() {
        let (at, rest) = Beside::parse(&row).unwrap();
        if rest == [u8::try_from(number).unwrap()] && at.epoch == bounds.epoch && at.seq >= bounds.oldest {
            rows.insert(key, at);
        }
    }
    assert_eq!(held, rows);
}

async fn check_compacted(log: &dyn EventLog, number: usize, answers: &Answers, bounds: Bounds) {
    let start = Cursor { epoch: bounds.epoch, seq: Seq(0) };
    let page = log.compacted(gateway(number), start, Budget { events: usize::MAX, bytes: usize::MAX }).await.unwrap();
    assert_eq!((page.oldest, page.newest, page.left), (bounds.oldest, bounds.newest, 0));
    let mut latest: HashMap<Bytes, Seq> = HashMap::new();
    for entry in page.entries {
        assert!(entry.seq < bounds.oldest);
        let body = String::from_utf8(entry.body.to_vec()).unwrap();
        if let Some(answered) = answers.get(&(number, Cursor { seq: entry.seq, ..start })) {
            assert!(body.starts_with(answered));
        }
        assert_eq!(entry.key, Some(key(&body)));
        assert_eq!(latest.insert(key(&body), entry.seq), None, "one entry a key");
    }
    let gone = answers
        .iter()
        .filter(|((to, cursor), _)| *to == number && cursor.epoch == bounds.epoch && cursor.seq < bounds.oldest);
    for ((_, cursor), body) in gone {
        assert!(latest[&key(body)] >= cursor.seq, "{cursor} is the latest of its key and not there");
    }
}
