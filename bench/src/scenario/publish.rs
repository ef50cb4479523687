//! Publishes to one of a thousand gateways each, from 64 keep-alive publishers, each answered once the event is durable.

use tokio::time::Instant;

use super::{FAN, MANY, ROUNDS};
use crate::Result;
use crate::lab::{Lab, PUBLISHERS, publish_all};
use crate::peer::{Peers, Transport};
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
    Ok(())
}
