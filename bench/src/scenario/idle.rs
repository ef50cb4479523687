//! Resident bytes per idle connection, fresh and after all have reconnected three times. Every connection is of a
//! gateway of its own.

use tokio::time::sleep;

use super::{CYCLES, MANY};
use crate::Result;
use crate::lab::Lab;
use crate::peer::{Pass, Peers, SETTLE, Transport};
use crate::rival::Rival;
use crate::table;

/// Dials under way at once: a start-up, not a storm.
const AT_ONCE: usize = 64;

pub(super) async fn run(lab: &Lab) -> Result<()> {
    let passes: Vec<_> = lab.gateways(MANY).await?.iter().map(|gateway| gateway.pass(None)).collect();
    for (name, transport) in
        [("WebSocket", Transport::WebSocket), ("SSE", Transport::Sse), ("parked long-poll", Transport::LongPoll)]
    {
        for tls in [true, false] {
            measure(lab, name, transport, tls, &passes).await?;
            if transport == Transport::WebSocket {
                for rival in &lab.rivals {
                    theirs(lab, *rival, tls).await?;
                }
            }
        }
    }
    Ok(())
}

/// What one of another server takes, fresh, each subscribed to a channel of its own.
async fn theirs(lab: &Lab, rival: Rival, tls: bool) -> Result<()> {
    let passes: Vec<_> = (0..MANY).map(|channel| Pass { key: channel.to_string(), cursor: None }).collect();
    let running = rival.start(lab, tls).await?;
    let before = running.process.resident()?;
    let peers = Peers::connect(&running.address, Transport::Rival(rival), &passes, AT_ONCE);
    peers.tally.until(MANY as u64, 0).await?;
    sleep(SETTLE).await;
    let each = running.process.resident()?.saturating_sub(before) as f64 / 1000.0 / MANY as f64;
    let tls = if tls { " over TLS" } else { "" };
    table::row(&format!("idle WebSocket{tls}, {MANY} connections, fresh: {}", rival.name()), "KB", &[each], &[])
}

async fn measure(lab: &Lab, name: &str, transport: Transport, tls: bool, passes: &[Pass]) -> Result<()> {
    let server = lab.server(tls).await?;
    let before = server.process.resident()?;
    let each = |now: u64| now.saturating_sub(before) as f64 / 1000.0 / passes.len() as f64;
    let mut fresh = 0.0;
    for cycle in 0..=CYCLES {
        let peers = Peers::connect(&server.address, transport, passes, AT_ONCE);
        peers.tally.until(passes.len() as u64, 0).await?;
        sleep(SETTLE).await;
        if cycle == 0 {
            fresh = each(server.process.resident()?);
        } else if cycle == CYCLES {
            let name = format!("idle {name}{}, {MANY} connections", if tls { " over TLS" } else { "" });
            table::row(&format!("{name}, fresh"), "KB", &[fresh], &[])?;
            table::row(
                &format!("{name}, after {CYCLES} reconnects"),
                "KB",
                &[each(server.process.resident()?)],
                &[fresh],
            )?;
        }
        drop(peers);
        sleep(SETTLE).await;
    }
    server.process.stop().await
}
