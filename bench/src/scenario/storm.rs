//! All connections are lost at once, each misses five events, and all come back at once with their cursors: as many as the
//! descriptors allow, at most 9,000, three replicas of a gateway each.

use tokio::time::{Instant, sleep};

use super::catch_up::before;
use super::{MANY, ROUNDS, crowd};
use crate::Result;
use crate::http::Address;
use crate::lab::{Lab, publish_all};
use crate::peer::{Pass, Peers, SETTLE, Transport};
use crate::process::Process;
use crate::rival::Rival;
use crate::table;

const MISSED: usize = 5;

/// What the rounds took: seconds, and CPU of the server a connection.
#[derive(Default)]
struct Rounds {
    walls: Vec<f64>,
    costs: Vec<f64>,
}

pub(super) async fn run(lab: &Lab) -> Result<()> {
    let (gateways, size) = (lab.gateways(MANY).await?, crowd::size()?);
    for tls in [false, true] {
        let server = lab.server(tls).await?;
        let mut rounds = Rounds::default();
        for _ in 0..ROUNDS {
            let last = publish_all(&server.address, gateways, MISSED).await?;
            let passes: Vec<_> = gateways
                .iter()
                .zip(&last)
                .cycle()
                .take(size)
                .map(|(gateway, last)| Ok(gateway.pass(Some(before(last, MISSED as u64)?))))
                .collect::<Result<_>>()?;
            rounds.add(&server.process, &server.address, Transport::WebSocket, &passes).await?;
        }
        server.process.stop().await?;
        let what = format!("storm: {size} {} come back, {MISSED} events missed each", if tls { "wss" } else { "ws" });
        rounds.print(&what)?;
        if lab.rivals.contains(&Rival::Nchan) {
            theirs(lab, size, tls).await?.print(&format!("{what}: Nchan"))?;
        }
    }
    Ok(())
}

/// The same of Nchan, which gives them all that its channels hold. JetStream took a minute for this.
async fn theirs(lab: &Lab, size: usize, tls: bool) -> Result<Rounds> {
    let running = Rival::Nchan.start(lab, tls).await?;
    let mut publisher = running.publisher(0).await?;
    let channels: Vec<_> = (0..MANY).map(|channel| Pass { key: channel.to_string(), cursor: None }).collect();
    for channel in &channels {
        for event in 1..=MISSED {
            publisher.publish(&channel.key, event as u64).await?;
        }
    }
    let passes: Vec<_> = channels.iter().cycle().take(size).cloned().collect();
    let mut rounds = Rounds::default();
    for _ in 0..ROUNDS {
        rounds.add(&running.process, &running.address, Transport::Rival(Rival::Nchan), &passes).await?;
    }
    Ok(rounds)
}

impl Rounds {
    async fn add(&mut self, server: &Process, to: &Address, transport: Transport, passes: &[Pass]) -> Result<()> {
        let (cpu, began, size) = (server.cpu_us()?, Instant::now(), passes.len());
        let peers = Peers::connect(to, transport, passes, size);
        peers.tally.until(size as u64, (size * MISSED) as u64).await?;
        self.walls.push(began.elapsed().as_secs_f64());
        self.costs.push((server.cpu_us()? - cpu) as f64 / size as f64);
        drop(peers);
        sleep(SETTLE).await;
        Ok(())
    }

    fn print(&self, what: &str) -> Result<()> {
        table::row(what, "s", &self.walls, &[])?;
        table::row(what, "CPU µs/connection", &self.costs, &[])
    }
}
