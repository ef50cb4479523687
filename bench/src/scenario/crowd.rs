//! As many connections as the descriptors allow, at most 9,000: what they take over TLS when nothing happens, how much
//! is left of three rounds of reconnects, and what the heartbeats cost.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{CROWD, CYCLES, MANY};
use crate::Result;
use crate::lab::Lab;
use crate::peer::{Peers, SETTLE, Transport};
use crate::{process, table};

/// Two rounds of pings and a half.
const QUIET: Duration = Duration::from_secs(50);
const AT_ONCE: usize = 64;
/// Descriptors that are not connections.
const OTHER_DESCRIPTORS: usize = 500;

/// How many connections there may be.
pub(super) fn size() -> Result<usize> {
    Ok(CROWD.min(process::descriptors()?.saturating_sub(OTHER_DESCRIPTORS)))
}

pub(super) async fn run(lab: &Lab) -> Result<()> {
    let size = size()?;
    let gateways = lab.gateways(MANY).await?;
    let passes: Vec<_> = gateways.iter().cycle().take(size).map(|gateway| gateway.pass(None)).collect();
    let server = lab.server(true).await?;
    let before = server.process.resident()?;
    let each = |now: u64| now.saturating_sub(before) as f64 / 1000.0 / size as f64;
    let mut fresh = 0.0;
    for cycle in 0..=CYCLES {
        let peers = Peers::connect(&server.address, Transport::WebSocket, &passes, AT_ONCE);
        peers.tally.until(size as u64, 0).await?;
        sleep(SETTLE).await;
        let now = each(server.process.resident()?);
        if cycle == 0 {
            fresh = now;
            table::row(&format!("idle: {size} wss, fresh"), "KB", &[fresh], &[])?;
            let (cpu, began) = (server.process.cpu_us()?, Instant::now());
            sleep(QUIET).await;
            let share = (server.process.cpu_us()? - cpu) as f64 / 1e4 / began.elapsed().as_secs_f64();
            table::row(&format!("idle: {size} wss with heartbeats"), "% of a core", &[share], &[])?;
        } else if cycle == CYCLES {
            table::row(&format!("idle: {size} wss, after {CYCLES} reconnects"), "KB", &[now], &[fresh])?;
        }
        drop(peers);
        sleep(SETTLE).await;
    }
    server.process.stop().await
}
