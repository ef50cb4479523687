//! How long an event takes from its publisher to a gateway's socket, at a steady rate; and what that does to the others
//! when some gateways stop reading.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tempfile::NamedTempFile;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::fan::Floor;
use super::{MANY, ROUNDS};
use crate::Result;
use crate::floor::EVENT_BYTES;
use crate::http::{Address, Http};
use crate::lab::{Lab, publish, seq_of};
use crate::peer::{Peers, Transport};
use crate::table::{self, quantile};
use crate::tally::Tally;

/// Events a second, and events a round.
const STEADY: Pace = Pace { events_per_s: 1_000, events: 2_000 };
/// Publishers that share the events: more than are ever under way at once.
const PUBLISHERS: usize = 16;

const READERS: usize = 200;
const STOPPED: usize = 20;
/// A round is over before the server has given up on who does not read (10 s).
const HEAVY: Pace = Pace { events_per_s: 250, events: 500 };
/// More than what is kept of the newest events.
const FILLING: Pace = Pace { events_per_s: 10_000, events: 5_000 };
const HEAVY_BYTES: usize = 3_000;
const HEAVY_ROUNDS: usize = 3;
const AT_ONCE: usize = 64;

#[derive(Clone, Copy)]
struct Pace {
    events_per_s: u64,
    events: usize,
}

/// Beside a floor that does what cannot be left out: the event comes, it is synced to the same disk, it is written.
pub(super) async fn steady(lab: &Lab) -> Result<()> {
    let gateway = lab.gateways(MANY).await?.first().ok_or("no gateway")?;
    let server = lab.server(false).await?;
    let peers = Peers::connect(&server.address, Transport::WebSocket, &[gateway.pass(None)], 1);
    peers.tally.until(1, 0).await?;
    let file = NamedTempFile::new()?;
    let mut floor = Floor::durable(lab, file.path()).await?;
    let event = Rc::new(gateway.event(EVENT_BYTES));
    let (mut p50, mut p99, mut floor_p50, mut floor_p99) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let took = bare(&mut floor, STEADY).await?;
        floor_p50.push(quantile(&took, 0.5));
        floor_p99.push(quantile(&took, 0.99));
        let took = paced(&server.address, &event, STEADY, &peers.tally, 1).await?;
        p50.push(quantile(&took, 0.5));
        p99.push(quantile(&took, 0.99));
    }
    let what = format!("latency at {} events/s, publish to socket", STEADY.events_per_s);
    table::row(&format!("{what}, p50"), "µs", &p50, &floor_p50)?;
    table::row(&format!("{what}, p99"), "µs", &p99, &floor_p99)?;
    server.process.stop().await
}

/// The same events with and without readers that stop; the figure is of those that read.
pub(super) async fn stopped_readers(lab: &Lab) -> Result<()> {
    let gateway = lab.gateways(MANY).await?.first().ok_or("no gateway")?;
    let event = Rc::new(gateway.event(HEAVY_BYTES));
    let (mut without, mut beside, mut held) = (Vec::new(), Vec::new(), Vec::new());
    // What a server keeps of the newest events is in memory, also of those before its start: both have as much.
    let server = lab.server(false).await?;
    paced(&server.address, &event, FILLING, &Tally::new(), 0).await?;
    server.process.stop().await?;
    for _ in 0..HEAVY_ROUNDS {
        let mut resident = Vec::new();
        for stopped in [0, STOPPED] {
            let server = lab.server(false).await?;
            let reading = READERS - stopped;
            let peers =
                Peers::connect(&server.address, Transport::WebSocket, &vec![gateway.pass(None); reading], AT_ONCE);
            let idle = Peers::connect(&server.address, Transport::Stopped, &vec![gateway.pass(None); stopped], AT_ONCE);
            peers.tally.until(reading as u64, 0).await?;
            idle.tally.until(stopped as u64, 0).await?;
            let took = paced(&server.address, &event, HEAVY, &peers.tally, reading).await?;
            if stopped == 0 { &mut without } else { &mut beside }.push(quantile(&took, 0.99) / 1_000.0);
            resident.push(server.process.resident()? as f64);
            server.process.stop().await?;
        }
        let [all, some] = resident[..] else { return Err("not two runs".into()) };
        held.push((some - all) / 1_000.0 / STOPPED as f64);
    }
    let what = format!("{STOPPED} of {READERS} stop reading, {} events/s of {HEAVY_BYTES} bytes", HEAVY.events_per_s);
    table::row(&format!("{what}: p99 of the others, with and without"), "ms", &beside, &without)?;
    table::row(&format!("{what}: held for each"), "KB", &held, &[])
}

/// Publishes at a pace, whatever the answers take; gives the microseconds of each delivery.
async fn paced(to: &Address, event: &Rc<Vec<u8>>, pace: Pace, tally: &Tally, readers: usize) -> Result<Vec<f64>> {
    tally.note_arrivals();
    let mut publishers = JoinSet::new();
    let start = Instant::now() + Duration::from_millis(50);
    for publisher in 0..PUBLISHERS {
        let (to, event) = (to.clone(), event.clone());
        publishers.spawn_local(async move {
            let mut http = Http::connect(&to).await?;
            let mut sent = Vec::new();
            for index in (publisher..pace.events).step_by(PUBLISHERS) {
                sleep_until(start + Duration::from_micros(index as u64 * 1_000_000 / pace.events_per_s)).await;
                let began = Instant::now();
                sent.push((seq_of(&publish(&mut http, &event).await?)?, began));
            }
            Result::Ok(sent)
        });
    }
    let mut sent = HashMap::new();
    while let Some(done) = publishers.join_next().await {
        sent.extend(done??);
    }
    let arrivals = tally.take_arrivals(pace.events * readers).await?;
    Ok(arrivals.iter().filter_map(|(seq, at)| Some(us(at.duration_since(*sent.get(seq)?)))).collect())
}

async fn bare(floor: &mut Floor, pace: Pace) -> Result<Vec<f64>> {
    let start = Instant::now();
    let mut took = Vec::new();
    for index in 0..pace.events {
        sleep_until(start + Duration::from_micros(index as u64 * 1_000_000 / pace.events_per_s)).await;
        let began = Instant::now();
        floor.event().await?;
        took.push(us(began.elapsed()));
    }
    Ok(took)
}

fn us(took: Duration) -> f64 {
    took.as_secs_f64() * 1e6
}
