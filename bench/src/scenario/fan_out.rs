//! CPU time per delivery when one gateway has a thousand connections.

use super::fan::{Fan, Floor, RivalFan};
use super::{FAN, ROUNDS};
use crate::Result;
use crate::lab::Lab;
use crate::peer::Transport;
use crate::table;

/// Events a round, each on its own: the next is published when all peers have the one before.
const ONE_AT_A_TIME: u64 = 200;
/// The same over long-poll, where each costs a request and an answer.
const POLLED: u64 = 40;
/// Events a round that pile up.
const SATURATED: u64 = 1_000;
/// Publishers that make them pile up.
const CROWD: usize = 32;

/// One event a write, beside the floor.
pub(super) async fn one_at_a_time(lab: &Lab) -> Result<()> {
    for (name, transport, tls) in [
        ("WebSockets", Transport::WebSocket, false),
        ("WebSockets over TLS", Transport::WebSocket, true),
        ("SSE", Transport::Sse, false),
        ("SSE over TLS", Transport::Sse, true),
        ("long-poll, with the poll that follows", Transport::LongPoll, false),
    ] {
        let mut floor = Floor::start(lab, tls, FAN).await?;
        let mut fan = Fan::start(lab, transport, tls, FAN).await?;
        let mut rivals = RivalFan::all(lab, transport, tls, FAN).await?;
        let mut theirs = vec![Vec::new(); rivals.len()];
        let (mut rounds, mut floors) = (Vec::new(), Vec::new());
        let events = if transport == Transport::LongPoll { POLLED } else { ONE_AT_A_TIME };
        for _ in 0..ROUNDS {
            floors.push(floor.round(ONE_AT_A_TIME).await?);
            rounds.push(fan.round(events, 1).await?);
            for (rival, rounds) in rivals.iter_mut().zip(&mut theirs) {
                rounds.push(rival.round(events).await?);
            }
        }
        let what = format!("fan-out to {FAN} {name}, one event a write");
        table::row(&what, "CPU µs/delivery", &rounds, &floors)?;
        for (rival, rounds) in rivals.iter().zip(&theirs) {
            table::row(&format!("{what}: {}", rival.name()), "CPU µs/delivery", rounds, &floors)?;
        }
        drop(rivals);
        fan.stop().await?;
    }
    Ok(())
}

/// Events pile up, and what is pending goes out in one write.
pub(super) async fn saturated(lab: &Lab) -> Result<()> {
    for (name, transport, tls) in [
        ("WebSockets", Transport::WebSocket, false),
        ("WebSockets over TLS", Transport::WebSocket, true),
        ("SSE", Transport::Sse, false),
    ] {
        let mut floor = Floor::start(lab, tls, FAN).await?;
        let mut fan = Fan::start(lab, transport, tls, FAN).await?;
        let (mut rounds, mut floors) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            floors.push(floor.round(ONE_AT_A_TIME).await?);
            rounds.push(fan.round(SATURATED, CROWD).await?);
        }
        table::row(&format!("fan-out to {FAN} {name}, saturated"), "CPU µs/delivery", &rounds, &floors)?;
        fan.stop().await?;
    }
    Ok(())
}
