//! Publishes to one of a thousand gateways each, from 64 keep-alive publishers, each answered once the event is durable.

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{FAN, MANY, ROUNDS};
use crate::Result;
use crate::lab::{Lab, PUBLISHERS, publish_all};
use crate::peer::{Pass, Peers, Transport};
use crate::rival::Rival;
use crate::table;

const EACH: usize = 20;

pub(super) async fn run(lab: &Lab) -> Result<()> {
    let gateways = lab.gateways(MANY).await?.get(..FAN).ok_or("too few gateways")?;
    for connected in [true, false] {
        let server = lab.server(false).await?;
        let passes: Vec<_> = gateways.iter().map(|gateway| gateway.pass(None)).collect();
        let passes = if connected { passes.as_slice() } else { &[] };
        let peers = Peers::connect(&server.address, Transport::WebSocket, passes, PUBLISHERS);
        peers.tally.until(passes.len() as u64, 0).await?;
        let (mut rates, mut costs) = (Vec::new(), Vec::new());
        for _ in 0..=ROUNDS {
            let (before, began) = (server.process.cpu_us()?, Instant::now());
            publish_all(&server.address, gateways, EACH).await?;
            let events = (FAN * EACH) as f64;
            rates.push(events / began.elapsed().as_secs_f64());
            costs.push((server.process.cpu_us()? - before) as f64 / events);
            let delivered = (passes.len() * EACH * rates.len()) as u64;
            peers.tally.until(0, delivered).await?;
        }
        // The first round warms up.
        let (rates, costs) = (rates.get(1..).unwrap_or_default(), costs.get(1..).unwrap_or_default());
        let who = if connected { "a connected WebSocket" } else { "nobody connected" };
        table::row(&format!("publish to 1 of {FAN} gateways, {who}"), "events/s", rates, &[])?;
        table::row(&format!("publish to 1 of {FAN} gateways, {who}"), "CPU µs/publish", costs, &[])?;
        server.process.stop().await?;
    }
    for rival in &lab.rivals {
        theirs(lab, *rival).await?;
    }
    Ok(())
}

/// As many publishers to as many channels of another server, each with a WebSocket. What its answer promises is less
/// ([`crate::rival`]).
async fn theirs(lab: &Lab, rival: Rival) -> Result<()> {
    let running = rival.start(lab, false).await?;
    let passes: Vec<_> = (0..FAN).map(|channel| Pass { key: channel.to_string(), cursor: None }).collect();
    let peers = Peers::connect(&running.address, Transport::Rival(rival), &passes, PUBLISHERS);
    peers.tally.until(FAN as u64, 0).await?;
    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let (before, began) = (running.process.cpu_us()?, Instant::now());
        let mut publishers = JoinSet::new();
        for number in 0..PUBLISHERS {
            let mut publisher = running.publisher(number).await?;
            publishers.spawn_local(async move {
                for channel in (number..FAN).step_by(PUBLISHERS) {
                    for event in 1..=EACH {
                        publisher.publish(&channel.to_string(), (round * EACH + event) as u64).await?;
                    }
                }
                Result::Ok(())
            });
        }
        while let Some(done) = publishers.join_next().await {
            done??;
        }
        let events = (FAN * EACH) as f64;
        rates.push(events / began.elapsed().as_secs_f64());
        costs.push((running.process.cpu_us()? - before) as f64 / events);
        peers.tally.until(0, (FAN * EACH * rates.len()) as u64).await?;
    }
    let (rates, costs) = (rates.get(1..).unwrap_or_default(), costs.get(1..).unwrap_or_default());
    let what = format!("publish to 1 of {FAN} channels, a connected WebSocket: {}", rival.name());
    table::row(&what, "events/s", rates, &[])?;
    table::row(&what, "CPU µs/publish", costs, &[])
}
