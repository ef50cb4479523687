//! A server, or the floor, with many connections that all get the same events.

use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::MANY;
use crate::Result;
use crate::floor::EVENT_BYTES;
use crate::http::Http;
use crate::lab::{Gateway, Lab, Server, publish};
use crate::peer::{Pass, Peers, Transport};
use crate::process::Process;
use crate::rival::{Publisher, Rival, Running};

/// Events before the first round, so that pacing is at a width at which pings are rare.
const WARM_UP: u64 = 1_100;
/// Before each round an event and this pause. A socket that has just answered something (a ping, a handshake) acknowledges
/// every other segment only, when the next one comes, in the time of whoever writes that: on loopback 1.0 µs of a write's
/// 5.3. It does so until an event went without another one for as long as an acknowledgement may be late (200 ms in Linux).
/// So whether a round has that or not was chance.
const ACKNOWLEDGED: Duration = Duration::from_millis(300);
const RIVAL_WARM_UP: u64 = 40;
const AT_ONCE: usize = 64;
const CHANNEL: &str = "all";

/// A server with many connections of one gateway.
pub(super) struct Fan {
    server: Server,
    gateway: Gateway,
    event: Vec<u8>,
    peers: Peers,
    sent: u64,
    connections: u64,
}

impl Fan {
    pub(super) async fn start(lab: &Lab, transport: Transport, tls: bool, connections: usize) -> Result<Self> {
        let gateway = lab.gateways(MANY).await?.first().ok_or("no gateway")?;
        let server = lab.server(tls).await?;
        let passes = vec![gateway.pass(None); connections];
        let peers = Peers::connect(&server.address, transport, &passes, AT_ONCE);
        peers.tally.until(connections as u64, 0).await?;
        let mut fan = Self {
            event: gateway.event(EVENT_BYTES),
            gateway: gateway.clone(),
            server,
            peers,
            sent: 0,
            connections: connections as u64,
        };
        fan.round(WARM_UP, AT_ONCE).await?;
        Ok(fan)
    }

    /// From now on events have so many bytes.
    pub(super) fn resize(&mut self, bytes: usize) {
        self.event = self.gateway.event(bytes);
    }

    pub(super) async fn stop(self) -> Result<()> {
        self.server.process.stop().await
    }

    /// Publishes so many events from so many publishers; gives the CPU time per delivery. A single publisher waits
    /// until everybody has its event.
    pub(super) async fn round(&mut self, events: u64, publishers: usize) -> Result<f64> {
        let mut crowd = JoinSet::new();
        let mut http = Http::connect(&self.server.address).await?;
        self.one(&mut http).await?;
        sleep(ACKNOWLEDGED).await;
        let before = self.server.process.cpu_us()?;
        if publishers == 1 {
            for _ in 0..events {
                self.one(&mut http).await?;
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
            self.peers.tally.until(0, self.sent * self.connections).await?;
        }
        let spent = self.server.process.cpu_us()? - before;
        while let Some(done) = crowd.join_next().await {
            done??;
        }
        Ok(spent as f64 / (events * self.connections) as f64)
    }

    /// Publishes an event and waits until everybody has it.
    async fn one(&mut self, http: &mut Http) -> Result<()> {
        publish(http, &self.event).await?;
        self.sent += 1;
        self.peers.tally.until(0, self.sent * self.connections).await
    }
}

/// Another server with as many connections to one channel.
pub(super) struct RivalFan {
    running: Running,
    publisher: Publisher,
    peers: Peers,
    sent: u64,
    connections: u64,
}

impl RivalFan {
    /// All rivals that are asked for and have the like of a transport of ours.
    pub(super) async fn all(lab: &Lab, ours: Transport, tls: bool, connections: usize) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for rival in &lab.rivals {
            if let Some(theirs) = rival.like(ours) {
                all.push(Self::start(lab, *rival, theirs, tls, connections).await?);
            }
        }
        Ok(all)
    }

    async fn start(lab: &Lab, rival: Rival, transport: Transport, tls: bool, connections: usize) -> Result<Self> {
        let running = rival.start(lab, tls).await?;
        let passes = vec![Pass { key: CHANNEL.to_owned(), cursor: None }; connections];
        let peers = Peers::connect(&running.address, transport, &passes, AT_ONCE);
        peers.tally.until(connections as u64, 0).await?;
        let publisher = running.publisher(0).await?;
        let mut fan = Self { running, publisher, peers, sent: 0, connections: connections as u64 };
        fan.round(RIVAL_WARM_UP).await?;
        Ok(fan)
    }

    /// Whose it is.
    pub(super) fn name(&self) -> &'static str {
        self.running.rival.name()
    }

    /// Publishes so many events, each when everybody has the one before; gives the CPU time per delivery.
    pub(super) async fn round(&mut self, events: u64) -> Result<f64> {
        self.one().await?;
        sleep(ACKNOWLEDGED).await;
        let before = self.running.process.cpu_us()?;
        for _ in 0..events {
            self.one().await?;
        }
        Ok((self.running.process.cpu_us()? - before) as f64 / (events * self.connections) as f64)
    }

    /// Publishes an event and waits until everybody has it.
    async fn one(&mut self) -> Result<()> {
        self.sent += 1;
        self.publisher.publish(CHANNEL, self.sent).await?;
        self.peers.tally.until(0, self.sent * self.connections).await
    }
}

/// The bare writer with as many peers.
pub(super) struct Floor {
    process: Process,
    tell: ChildStdin,
    peers: Peers,
    sent: u64,
    connections: u64,
}

impl Floor {
    pub(super) async fn start(lab: &Lab, tls: bool, connections: usize) -> Result<Self> {
        Self::begin(lab, &["floor", if tls { "tls" } else { "plain" }], tls, connections).await
    }

    /// One that syncs each event to a file before it is written, and has one peer.
    pub(super) async fn durable(lab: &Lab, file: &Path) -> Result<Self> {
        Self::begin(lab, &["floor", "durable", &file.display().to_string()], false, 1).await
    }

    async fn begin(lab: &Lab, args: &[&str], tls: bool, connections: usize) -> Result<Self> {
        let mut process = Process::start(&std::env::current_exe()?, args, &[])?;
        let at = process.lines()?.next_line().await?.ok_or("the floor does not start")?;
        let passes = vec![Pass { key: String::new(), cursor: None }; connections];
        let peers = Peers::connect(&lab.address(at, tls), Transport::Bare, &passes, AT_ONCE);
        peers.tally.until(connections as u64, 0).await?;
        Ok(Self { tell: process.stdin()?, process, peers, sent: 0, connections: connections as u64 })
    }

    pub(super) async fn round(&mut self, events: u64) -> Result<f64> {
        self.event().await?;
        sleep(ACKNOWLEDGED).await;
        let before = self.process.cpu_us()?;
        for _ in 0..events {
            self.event().await?;
        }
        Ok((self.process.cpu_us()? - before) as f64 / (events * self.connections) as f64)
    }
    /// Writes one event and waits until all peers have it.
    pub(super) async fn event(&mut self) -> Result<()> {
        self.tell.write_all(b"\n").await?;
        self.sent += 1;
        self.peers.tally.until(0, self.sent * self.connections).await
    }
}
