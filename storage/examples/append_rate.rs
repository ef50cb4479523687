//! Measures durable appends of the sled engine, and how long it takes to open a large store:
//! `cargo run --release -p gatecast-storage --example append_rate [data directory]`.
//! A directory that an earlier run has filled is only opened, so that the memory shown is that of a fresh process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gatecast_storage::{
    Beside, Budget, Clock, Compaction, Cursor, Draft, EventLog, GatewayId, NoFollower, Retention, Seq, Stores,
    SystemClock, Table, open_sled,
};
use tokio::time::Instant;
use uuid::Uuid;

const RETENTION: Retention = Retention {
    max_events: 10_000,
    max_bytes: 64 << 20,
    max_age: Duration::from_secs(7 * 86_400),
    compaction: Compaction::DEFAULT,
};
const MEASURE: Duration = Duration::from_secs(4);
const BODY_BYTES: usize = 300;
const MANY_GATEWAYS: u128 = 100_000;
const EVENTS_OF_EACH: u128 = 10;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let given = std::env::args().nth(1).map(std::path::PathBuf::from);
    let scratch = tempfile::TempDir::new()?;
    let data = given.unwrap_or_else(|| scratch.path().to_owned());
    let is_filled = data.join("many").exists();
    for writers in if is_filled { &[][..] } else { &[1, 64, 512] } {
        let writers = *writers;
        let stores = open(&data.join(format!("rate-{writers}"))).await?;
        let done = append(&stores.log, writers, MEASURE).await?;
        println!("{writers:>4} writers: {:>8.0} durable appends/s", done as f64 / MEASURE.as_secs_f64());
    }
    for (gateways, has_rows) in if is_filled { &[][..] } else { &[(1_000, false), (10_000, false), (10_000, true)] } {
        let stores = open(&data.join(format!("batch-{gateways}-{has_rows}"))).await?;
        batches(&stores.log, *gateways, *has_rows).await?;
    }
    let data = data.join("many");
    if !is_filled {
        fill(&open(&data).await?.log).await?;
    }
    let start = Instant::now();
    let stores = open(&data).await?;
    println!("opening {MANY_GATEWAYS} logs of {EVENTS_OF_EACH} events: {:?}", start.elapsed());
    println!("{}", resident());
    let start = Instant::now();
    touch(&stores.log).await?;
    println!("first bounds and read of each, 256 at a time: {:?}", start.elapsed());
    println!("{}", resident());
    Ok(())
}

async fn open(data: &std::path::Path) -> Result<Stores, Failure> {
    Ok(open_sled(data, RETENTION, Arc::new(SystemClock), Arc::new(NoFollower)).await?)
}

fn draft() -> Draft {
    Draft {
        at: SystemClock.now(),
        since: Instant::now(),
        key: None,
        ends_key: false,
        body: Bytes::from_static(&[b'x'; BODY_BYTES]),
        expect: None,
        beside: Vec::new(),
    }
}

/// Appends to 1,000 gateways for a while; says how many were answered.
async fn append(log: &Arc<dyn EventLog>, writers: u128, how_long: Duration) -> Result<u64, Failure> {
    let (end, done) = (Instant::now() + how_long, Arc::new(AtomicU64::new(0)));
    let tasks = (0..writers).map(|writer| {
        let (log, done) = (Arc::clone(log), Arc::clone(&done));
        tokio::spawn(async move {
            let mut number = writer;
            while Instant::now() < end {
                log.append(GatewayId(Uuid::from_u128(number * 7 % 1_000)), draft()).await?;
                done.fetch_add(1, Ordering::Relaxed);
                number += 1;
            }
            Ok::<_, Failure>(())
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await??;
    }
    Ok(done.load(Ordering::Relaxed))
}

/// One entry to each of many gateways, as a batch publish does it: 1,024 entries a call, two calls under way.
async fn batches(log: &Arc<dyn EventLog>, gateways: u128, has_rows: bool) -> Result<(), Failure> {
    let draft = |to: u128, round: u128| {
        let row = || Beside {
            table: Table::Answers,
            key: Bytes::copy_from_slice(spread(to * 64 + round).as_bytes()),
            rest: Bytes::from_static(&[b'x'; 90]),
        };
        Draft { beside: has_rows.then(row).into_iter().collect(), ..draft() }
    };
    for round in 0..6 {
        let (start, cpu) = (Instant::now(), cpu_us());
        let ids: Vec<_> = (0..gateways).collect();
        let half = |first: usize| {
            let chunks = ids.chunks(1_024).skip(first).step_by(2);
            async move {
                for chunk in chunks {
                    let drafts = chunk.iter().map(|to| (GatewayId(spread(*to)), draft(*to, round)));
                    log.append_all(drafts.collect()).await.into_iter().collect::<Result<Vec<_>, _>>()?;
                }
                Ok::<_, Failure>(())
            }
        };
        let (even, odd) = tokio::join!(half(0), half(1));
        even.and(odd)?;
        let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_us() - cpu);
        println!(
            "batch to {gateways} gateways{}: {:>8.0} entries/s, {:.1} us CPU each",
            if has_rows { " with rows" } else { "" },
            gateways as f64 / seconds,
            cpu as f64 / gateways as f64
        );
    }
    Ok(())
}

/// CPU time of this process, at the kernel's resolution of 10 ms.
fn cpu_us() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
    ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10_000
}

async fn fill(log: &Arc<dyn EventLog>) -> Result<(), Failure> {
    let tasks = (0..512).map(|writer| {
        let log = Arc::clone(log);
        tokio::spawn(async move {
            for round in 0..EVENTS_OF_EACH {
                for gateway in (writer..MANY_GATEWAYS).step_by(512) {
                    let _ = round;
                    log.append(GatewayId(spread(gateway)), draft()).await?;
                }
            }
            Ok::<_, Failure>(())
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await??;
    }
    Ok(log.flush().await?)
}

async fn touch(log: &Arc<dyn EventLog>) -> Result<(), Failure> {
    let tasks = (0..256).map(|reader| {
        let log = Arc::clone(log);
        tokio::spawn(async move {
            for gateway in (reader..MANY_GATEWAYS).step_by(256) {
                let of = GatewayId(spread(gateway));
                let bounds = log.bounds(of).await?;
                let from = Cursor { epoch: bounds.epoch, seq: Seq(0) };
                log.read(of, from, Budget { events: 256, bytes: 1 << 20 }).await?;
            }
            Ok::<_, Failure>(())
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await??;
    }
    Ok(())
}

/// Ids as random ones are: all over the key space.
fn spread(number: u128) -> Uuid {
    Uuid::from_u128(number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    line.unwrap_or("VmRSS: unknown").to_owned()
}
