//! All connections are lost at once, each misses five events, and all come back at once with their cursors: as many as the
//! descriptors allow, at most 9,000, three replicas of a gateway each.

use tokio::time::{Instant, sleep};

use super::catch_up::before;
use super::{MANY, ROUNDS, crowd};
use crate::Result;
use crate::lab::{Lab, publish_all};
use crate::peer::{Peers, SETTLE, Transport};
use crate::table;

const MISSED: usize = 5;

pub(super) async fn run(lab: &Lab) -> Result<()> {
    let (gateways, size) = (lab.gateways(MANY).await?, crowd::size()?);
    for tls in [false, true] {
        let server = lab.server(tls).await?;
        let (mut walls, mut costs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let last = publish_all(&server.address, gateways, MISSED).await?;
            let passes: Vec<_> = gateways
                .iter()
                .zip(&last)
                .cycle()
                .take(size)
                .map(|(gateway, last)| Ok(gateway.pass(Some(before(last, MISSED as u64)?))))
                .collect::<Result<_>>()?;
            let (cpu, began) = (server.process.cpu_us()?, Instant::now());
            let peers = Peers::connect(&server.address, Transport::WebSocket, &passes, size);
            peers.tally.until(size as u64, (size * MISSED) as u64).await?;
            walls.push(began.elapsed().as_secs_f64());
            costs.push((server.process.cpu_us()? - cpu) as f64 / size as f64);
            drop(peers);
            sleep(SETTLE).await;
        }
        let what = format!("storm: {size} {} come back, {MISSED} events missed each", if tls { "wss" } else { "ws" });
        table::row(&what, "s", &walls, &[])?;
        table::row(&what, "CPU µs/connection", &costs, &[])?;
        server.process.stop().await?;
    }
    Ok(())
}
