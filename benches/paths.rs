//! What a delivery and a publish are made of, step by step: sealing an event, reading the newest from the window of its
//! gateway, appending. `cargo bench --bench paths`; `scripts/bench` measures the whole over sockets.

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to say")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::future::join_all;
use gatecast::envelope;
use gatecast::tail::{Tail, Tails};
use gatecast_storage::{
    Clock, Compaction, Cursor, Draft, Entry, Epoch, GatewayId, Retention, Seq, SystemClock, open_memory, open_sled,
};
use gatecast_transports::Room;
use serde_json::value::RawValue;
use tokio::time::Instant;
use uuid::Uuid;

/// As in the window of a connected gateway when it is full.
const EVENTS: u64 = 256;
/// Publishers that append at once.
const AT_ONCE: usize = 64;

const RETENTION: Retention = Retention {
    max_events: 1_000,
    max_bytes: 16 << 20,
    max_age: Duration::from_secs(86_400),
    compaction: Compaction { max_keys: 0, max_bytes: 0, max_tombstone_age: Duration::ZERO },
};

fn gateway(n: usize) -> GatewayId {
    GatewayId(Uuid::from_u128(n as u128 + 1))
}

/// An event of some 300 bytes.
fn body() -> Bytes {
    let payload = RawValue::from_string(format!(r#"{{"apiId":"orders","revision":7,"notes":"{}"}}"#, "x".repeat(90)));
    let (kind, at) = ("api.deployed".parse().expect("a type"), envelope::timestamp(SystemClock.now()));
    envelope::body(&kind, gateway(0), &at, "c0ffee", None, &payload.expect("JSON"))
}

fn draft(body: &Bytes) -> Draft {
    let (at, since, body) = (SystemClock.now(), Instant::now(), body.clone());
    Draft { at, since, key: None, ends_key: false, body, expect: None, beside: Vec::new() }
}

fn seal(c: &mut Criterion) {
    let entry = Entry { seq: Seq(1_234_567), at: SystemClock.now(), key: None, ends_key: false, body: body() };
    c.bench_function("seal", |b| b.iter(|| envelope::seal(Epoch(7), black_box(&entry))));
}

fn tail(c: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let tails = Tails::new();
    let stores = open_memory(RETENTION, Arc::new(SystemClock), Arc::clone(&tails) as _);
    let tail = Tail::new(tails, Arc::clone(&stores.log));
    let (channel, head) = runtime.block_on(async {
        let (channel, _) = tail.open(gateway(0)).await.expect("a log");
        for _ in 1..EVENTS {
            stores.log.append(gateway(0), draft(&body())).await.expect("room");
        }
        (channel, stores.log.append(gateway(0), draft(&body())).await.expect("room"))
    });
    let room = Room { frames: 32, bytes: usize::MAX };
    for behind in [1, 32] {
        let from = Cursor { seq: Seq(head.seq.0 - behind), ..head };
        assert!(tail.hot(&channel, from, room, None).is_some_and(|hot| hot.frames.len() as u64 == behind));
        c.bench_function(&format!("tail read of {behind}"), |b| {
            b.iter(|| tail.hot(&channel, black_box(from), room, None));
        });
    }
}

fn append(c: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let data = tempfile::tempdir().expect("a directory");
    let sled = open_sled(data.path(), RETENTION, Arc::new(SystemClock), Tails::new());
    let logs = [
        ("memory", open_memory(RETENTION, Arc::new(SystemClock), Tails::new()).log),
        ("sled", runtime.block_on(sled).expect("a store").log),
    ];
    let body = body();
    let mut group = c.benchmark_group("append");
    group.throughput(Throughput::Elements(AT_ONCE as u64)).sample_size(30);
    for (engine, log) in logs {
        let all = || join_all((0..AT_ONCE).map(|n| log.append(gateway(n), draft(&body))));
        group.bench_function(format!("{engine}, {AT_ONCE} at once"), |b| {
            b.iter(|| assert!(runtime.block_on(all()).iter().all(Result::is_ok)));
        });
    }
}

criterion_group!(paths, seal, tail, append);
criterion_main!(paths);
