//! Many gateways that are registered and not connected: what a publish costs beside them, one call to thousands of
//! them, and how long a server with their stored events takes to start.

use std::path::PathBuf;

use tokio::time::Instant;

use super::{FAN, ROUNDS};
use crate::Result;
use crate::http::Http;
use crate::lab::{Gateway, Keys, Lab, Server, batch, make, publish_all};
use crate::plot::Series;
use crate::table::{self, median};

/// Gateways that are registered, one after the other on the same server's data.
const GATEWAYS: [usize; 2] = [1_000, 10_000];
/// With `--full`: takes some minutes more.
const GATEWAYS_FULL: [usize; 3] = [1_000, 10_000, 100_000];
/// Gateways that a call names; 10,000 are the most.
const BATCHES: [usize; 2] = [1_000, 10_000];
/// Events that every gateway has when the server starts.
const STORED_EACH: usize = 10;
/// Events each of a round of single publishes.
const EACH: usize = 5;

pub(super) async fn run(binary: PathBuf, full: bool) -> Result<()> {
    // Data of its own, as the others are measured without all these gateways.
    let lab = Lab::new(binary)?;
    let mut gateways: Vec<Gateway> = Vec::new();
    let (mut fewest, mut publishes, mut starts) = (Vec::new(), Vec::new(), Vec::new());
    let sizes = if full { GATEWAYS_FULL.as_slice() } else { GATEWAYS.as_slice() };
    for size in sizes.iter().copied() {
        let server = lab.server(false).await?;
        let fresh = make(&server.address, gateways.len()..size, Keys::None).await?;
        fill(&server, &fresh).await?;
        gateways.extend(fresh);
        server.process.stop().await?;

        let server = lab.server(false).await?;
        let (ready, resident) = (server.ready_after.as_secs_f64(), server.process.resident()? as f64 / 1e6);
        let what = format!("start with {size} gateways, {} events", size * STORED_EACH);
        table::row(&format!("{what}: until ready"), "s", &[ready], &[])?;
        table::row(&format!("{what}: resident"), "MB", &[resident], &[])?;
        starts.push((size as f64, ready));

        let costs = single(&server, gateways.get(..FAN).ok_or("too few gateways")?).await?;
        table::row(&format!("publish to 1 of {FAN} gateways, {size} registered"), "CPU µs/publish", &costs, &fewest)?;
        publishes.push((size as f64, median(&costs)));
        if fewest.is_empty() {
            fewest = costs;
        }
        for to in BATCHES.into_iter().filter(|to| *to <= size) {
            batches(&server, gateways.get(..to).ok_or("too few gateways")?, size).await?;
        }
        server.process.stop().await?;
    }
    let line = |name: &str, points| vec![Series { name: name.to_owned(), points }];
    table::growth("CPU time of a publish", "µs", "gateways", line("one event a call", publishes))?;
    table::growth("From start to ready", "s", "gateways with 10 events each", line("gatecast", starts))
}

/// Stores events for gateways that are new.
async fn fill(server: &Server, gateways: &[Gateway]) -> Result<()> {
    let mut http = Http::connect(&server.address).await?;
    for some in gateways.chunks(BATCH_MAX) {
        let request = batch(some);
        for _ in 0..STORED_EACH {
            publish_batch(&mut http, &request, some.len()).await?;
        }
    }
    Ok(())
}

/// CPU time of a publish in each round.
async fn single(server: &Server, gateways: &[Gateway]) -> Result<Vec<f64>> {
    let mut costs = Vec::new();
    for _ in 0..=ROUNDS {
        let before = server.process.cpu_us()?;
        publish_all(&server.address, gateways, EACH).await?;
        costs.push((server.process.cpu_us()? - before) as f64 / (gateways.len() * EACH) as f64);
    }
    // The first round warms up.
    Ok(costs.split_off(1))
}

async fn batches(server: &Server, gateways: &[Gateway], registered: usize) -> Result<()> {
    let mut http = Http::connect(&server.address).await?;
    let request = batch(gateways);
    // A round is long enough for CPU time, which comes in ticks of 10 ms.
    let calls = BATCH_MAX / gateways.len();
    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (before, began) = (server.process.cpu_us()?, Instant::now());
        for _ in 0..calls {
            publish_batch(&mut http, &request, gateways.len()).await?;
        }
        let events = (calls * gateways.len()) as f64;
        rates.push(events / began.elapsed().as_secs_f64());
        costs.push((server.process.cpu_us()? - before) as f64 / events);
    }
    let what = format!("one call to {} gateways, {registered} registered", gateways.len());
    table::row(&what, "events/s", &rates, &[])?;
    table::row(&what, "CPU µs/event", &costs, &[])
}

async fn publish_batch(http: &mut Http, request: &[u8], gateways: usize) -> Result<()> {
    let answer = http.call(request).await?;
    // An event that was not stored has a code instead of an eventId.
    let stored = answer.body.windows(STORED.len()).filter(|window| *window == STORED).count();
    if answer.status == 200 && stored == gateways {
        return Ok(());
    }
    Err(format!("one call: {}, {stored} of {gateways} stored", answer.status).into())
}

/// Gateways that one call may name.
const BATCH_MAX: usize = 10_000;
const STORED: &[u8] = br#""eventId":""#;
