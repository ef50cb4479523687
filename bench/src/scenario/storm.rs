//! All connections are lost at once, each misses five events, and all come back at once with their cursors.

use tokio::time::{Instant, sleep};

use super::catch_up::before;
use super::{MANY, ROUNDS};
use crate::Result;
use crate::lab::{Lab, publish_all};
use crate::peer::{Peers, SETTLE, Transport};
use crate::table;

const MISSED: usize = 5;

pub(super) async fn run(lab: &Lab) -> Result<()> {
    let gateways = lab.gateways(MANY).await?;
    for tls in [false, true] {
        let server = lab.server(tls).await?;
        let (mut walls, mut costs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let last = publish_all(&server.address, gateways, MISSED).await?;
            let passes: Vec<_> = gateways
                .iter()
                .zip(&last)
                .map(|(gateway, last)| Ok(gateway.pass(Some(before(last, MISSED as u64)?))))
                .collect::<Result<_>>()?;
            let (cpu, began) = (server.process.cpu_us()?, Instant::now());
            let peers = Peers::connect(&server.address, Transport::WebSocket, &passes, MANY);
            peers.tally.until(MANY as u64, (MANY * MISSED) as u64).await?;
            walls.push(began.elapsed().as_secs_f64());
            costs.push((server.process.cpu_us()? - cpu) as f64 / MANY as f64);
            drop(peers);
            sleep(SETTLE).await;
        }
        let what = format!("storm: {MANY} {} come back, {MISSED} events missed each", if tls { "wss" } else { "ws" });
        table::row(&what, "s", &walls, &[])?;
        table::row(&what, "CPU µs/connection", &costs, &[])?;
        server.process.stop().await?;
    }
    Ok(())
}
