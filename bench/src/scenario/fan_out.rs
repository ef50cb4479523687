//! CPU time per delivery when one gateway has a thousand connections.

use std::path::PathBuf;

use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::task::JoinSet;

use super::{FAN, MANY, ROUNDS};
use crate::Result;
use crate::http::Http;
use crate::lab::{Lab, Server, publish};
use crate::peer::{Pass, Peers, Transport};
use crate::process::Process;
use crate::table;

/// Events a round, each on its own: the next is published when all peers have the one before.
const ONE_AT_A_TIME: u64 = 200;
/// The same over long-poll, where each costs a request and an answer.
const POLLED: u64 = 40;
/// Events a round that pile up.
const SATURATED: u64 = 1_000;
/// Publishers that make them pile up.
const CROWD: usize = 32;
/// Events before the first round, so that pacing is at full width.
const WARM_UP: u64 = 40;
const AT_ONCE: usize = 64;

/// One event a write, beside the floor.
pub(super) async fn one_at_a_time(lab: &Lab) -> Result<()> {
    for (name, transport, tls) in [
        ("WebSockets", Transport::WebSocket, false),
        ("WebSockets over TLS", Transport::WebSocket, true),
        ("SSE", Transport::Sse, false),
        ("SSE over TLS", Transport::Sse, true),
        ("long-poll, with the poll that follows", Transport::LongPoll, false),
    ] {
        let mut floor = Floor::start(lab, tls).await?;
        let mut fan = Fan::start(lab, transport, tls).await?;
        let (mut rounds, mut floors) = (Vec::new(), Vec::new());
        let events = if transport == Transport::LongPoll { POLLED } else { ONE_AT_A_TIME };
        for _ in 0..ROUNDS {
            floors.push(floor.round(ONE_AT_A_TIME).await?);
            rounds.push(fan.round(events, 1).await?);
        }
        table::row(&format!("fan-out to {FAN} {name}, one event a write"), "CPU µs/delivery", &rounds, &floors);
        fan.server.process.stop().await?;
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
        let mut floor = Floor::start(lab, tls).await?;
        let mut fan = Fan::start(lab, transport, tls).await?;
        let (mut rounds, mut floors) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            floors.push(floor.round(ONE_AT_A_TIME).await?);
            rounds.push(fan.round(SATURATED, CROWD).await?);
        }
        table::row(&format!("fan-out to {FAN} {name}, saturated"), "CPU µs/delivery", &rounds, &floors);
        fan.server.process.stop().await?;
    }
    Ok(())
}

/// A server with a thousand connections of one gateway.
struct Fan {
    server: Server,
    event: Vec<u8>,
    peers: Peers,
    sent: u64,
}

impl Fan {
    async fn start(lab: &Lab, transport: Transport, tls: bool) -> Result<Self> {
        let gateway = lab.gateways(MANY).await?.first().ok_or("no gateway")?;
        let server = lab.server(tls).await?;
        let passes = vec![gateway.pass(None); FAN];
        let peers = Peers::connect(&server.address, transport, &passes, AT_ONCE);
        peers.tally.until(FAN as u64, 0).await?;
        let mut fan = Self { event: gateway.event(), server, peers, sent: 0 };
        fan.round(WARM_UP, 1).await?;
        Ok(fan)
    }

    /// Publishes so many events from so many publishers; gives the CPU time per delivery. A single publisher waits
    /// until everybody has its event.
    async fn round(&mut self, events: u64, publishers: usize) -> Result<f64> {
        let mut crowd = JoinSet::new();
        let before = self.server.process.cpu_us()?;
        if publishers == 1 {
            let mut http = Http::connect(&self.server.address).await?;
            for _ in 0..events {
                publish(&mut http, &self.event).await?;
                self.sent += 1;
                self.peers.tally.until(0, self.sent * FAN as u64).await?;
            }
        } else {
            for publisher in 0..publishers as u64 {
                let share = events / publishers as u64 + u64::from(publisher < events % publishers as u64);
                let (to, event) = (self.server.address.clone(), self.event.clone());
                crowd.spawn_local(async move {
                    let mut http = Http::connect(&to).await?;
                    for _ in 0..share {
                        publish(&mut http, &event).await?;
                    }
                    Result::Ok(())
                });
            }
            self.sent += events;
            self.peers.tally.until(0, self.sent * FAN as u64).await?;
        }
        let spent = self.server.process.cpu_us()? - before;
        while let Some(done) = crowd.join_next().await {
            done??;
        }
        Ok(spent as f64 / (events * FAN as u64) as f64)
    }
}

/// The bare writer with as many peers.
struct Floor {
    process: Process,
    tell: ChildStdin,
    peers: Peers,
    sent: u64,
}

impl Floor {
    async fn start(lab: &Lab, tls: bool) -> Result<Self> {
        let this: PathBuf = std::env::current_exe()?;
        let mut process = Process::start(&this, &["floor", if tls { "tls" } else { "plain" }], &[])?;
        let at = process.lines()?.next_line().await?.ok_or("the floor does not start")?;
        let passes = vec![Pass { key: String::new(), cursor: None }; FAN];
        let peers = Peers::connect(&lab.address(at, tls), Transport::Bare, &passes, AT_ONCE);
        peers.tally.until(FAN as u64, 0).await?;
        Ok(Self { tell: process.stdin()?, process, peers, sent: 0 })
    }

    async fn round(&mut self, events: u64) -> Result<f64> {
        let before = self.process.cpu_us()?;
        for _ in 0..events {
            self.tell.write_all(b"\n").await?;
            self.sent += 1;
            self.peers.tally.until(0, self.sent * FAN as u64).await?;
        }
        Ok((self.process.cpu_us()? - before) as f64 / (events * FAN as u64) as f64)
    }
}
