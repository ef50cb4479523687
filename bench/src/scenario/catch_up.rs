//! Catching up: peers that come back with a cursor, and how fast they get what they missed.

use tokio::time::Instant;

use super::{MANY, ROUNDS};
use crate::Result;
use crate::lab::{Gateway, Lab, publish_all};
use crate::peer::{Pass, Peers, Transport};
use crate::rival::Rival;
use crate::table;

const AT_ONCE: usize = 100;
const REPLICAS: usize = 100;
/// Events that they have missed; a ring holds 10,000.
const BACKLOGS: [usize; 2] = [1_000, 9_000];
const ROUND_EVENTS: f64 = 100_000.0;

pub(super) async fn run(lab: &Lab) -> Result<()> {
    let gateways = lab.gateways(MANY).await?;
    let [long, replicated, rest @ ..] = gateways else { return Err("too few gateways".into()) };
    let many = rest.get(..100).ok_or("too few gateways")?;
    measure(lab, "one connection, 5,000 events", std::slice::from_ref(long), 5_000, 1).await?;
    measure(lab, "100 gateways, 1,000 events each", many, 1_000, 1).await?;
    measure(lab, "100 replicas of one gateway, 1,000 events each", std::slice::from_ref(replicated), 1_000, 100)
        .await?;
    for rival in lab.rivals.iter().filter(|rival| rival.keeps()) {
        theirs(lab, *rival, "one connection, 5,000 events", 1, 5_000, 1).await?;
        theirs(lab, *rival, "100 channels, 1,000 events each", 100, 1_000, 1).await?;
        theirs(lab, *rival, "100 subscribers to one channel, 1,000 events each", 1, 1_000, 100).await?;
    }
    memory(lab, replicated).await
}

/// The same of another server: all that its channels hold.
async fn theirs(lab: &Lab, rival: Rival, what: &str, channels: usize, events: usize, replicas: usize) -> Result<()> {
    let running = rival.start(lab, false).await?;
    let mut publisher = running.publisher(0).await?;
    let mut passes = Vec::new();
    for channel in (0..channels).map(|channel| channel.to_string()) {
        for event in 1..=events {
            publisher.publish(&channel, event as u64).await?;
        }
        passes.extend(vec![Pass { key: channel, cursor: None }; replicas]);
    }
    let total = passes.len() * events;
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let peers = Peers::connect(&running.address, Transport::Rival(rival), &passes, AT_ONCE);
        peers.tally.until(passes.len() as u64, total as u64).await?;
        rates.push(total as f64 / began.elapsed().as_secs_f64());
    }
    table::row(&format!("catch-up: {what}: {}", rival.name()), "events/s", &rates, &[])
}

/// How much memory it takes at most while 100 replicas catch up: as much with a long backlog as with a short one.
async fn memory(lab: &Lab, gateway: &Gateway) -> Result<()> {
    let mut short = Vec::new();
    for events in BACKLOGS {
        let server = lab.server(false).await?;
        let last = publish_all(&server.address, std::slice::from_ref(gateway), events).await?;
        let cursor = before(last.first().ok_or("no event")?, events as u64)?;
        let passes = vec![gateway.pass(Some(cursor)); REPLICAS];
        server.process.forget_peak()?;
        let resident = server.process.peak()?;
        let peers = Peers::connect(&server.address, Transport::WebSocket, &passes, AT_ONCE);
        peers.tally.until(REPLICAS as u64, (REPLICAS * events) as u64).await?;
        let grown = vec![server.process.peak()?.saturating_sub(resident) as f64 / 1e6];
        let what = format!("catch-up: {REPLICAS} replicas, {events} events each, resident at the peak");
        table::row(&what, "MB more", &grown, &short)?;
        short = grown;
        server.process.stop().await?;
    }
    Ok(())
}

async fn measure(lab: &Lab, what: &str, gateways: &[Gateway], events: usize, replicas: usize) -> Result<()> {
    let server = lab.server(false).await?;
    let last = publish_all(&server.address, gateways, events).await?;
    let mut passes: Vec<Pass> = Vec::new();
    for (gateway, last) in gateways.iter().zip(&last) {
        let cursor = before(last, events as u64)?;
        passes.extend(std::iter::repeat_n(gateway.pass(Some(cursor)), replicas));
    }
    let total = (passes.len() * events) as f64;
    // A round is long enough for CPU time, which comes in ticks of 10 ms.
    let times = if total < ROUND_EVENTS { 20 } else { 2 };
    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (before, began) = (server.process.cpu_us()?, Instant::now());
        for _ in 0..times {
            let peers = Peers::connect(&server.address, Transport::WebSocket, &passes, AT_ONCE);
            peers.tally.until(passes.len() as u64, total as u64).await?;
        }
        rates.push(total * f64::from(times) / began.elapsed().as_secs_f64());
        costs.push((server.process.cpu_us()? - before) as f64 / total / f64::from(times));
    }
    table::row(&format!("catch-up: {what}"), "events/s", &rates, &[])?;
    table::row(&format!("catch-up: {what}"), "CPU µs/event", &costs, &[])?;
    server.process.stop().await
}

/// The cursor that lies so many events before an event.
pub(crate) fn before(event: &str, events: u64) -> Result<String> {
    let (epoch, seq) = event.split_once('-').ok_or("not an eventId")?;
    Ok(format!("{epoch}-{}", seq.parse::<u64>()?.checked_sub(events).ok_or("too few events")?))
}
