//! Instructions in user space that the server spends on a delivery, a publish and a reconnect, counted by callgrind. Unlike CPU
//! time they are the same on a busy machine, so that a change that makes a delivery dearer shows in one run.
//!
//! A figure is a difference of two runs of which one has twice as many events, so that whatever comes once is in
//! neither; and of two gateways, of which one has one connection and the other many. One event a write: the next is
//! published when everybody has the one before.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;
use tokio::runtime::Builder;
use tokio::task::LocalSet;

use crate::Result;
use crate::floor::EVENT_BYTES;
use crate::http::Http;
use crate::lab::{Keys, Lab, Server, make, publish, publish_all};
use crate::peer::{Pass, Peers, SETTLE, Transport};
use crate::scenario::before;

/// Events of the shorter run.
const EVENTS: u64 = 100;
/// Events before it: pacing is then at a width at which pings are rare.
const WARM_UP: u64 = 250;
/// Connections of the gateway that has many.
const MANY: usize = 50;
const AT_ONCE: usize = 8;
/// Connections of the shorter run that come back, and what each has missed.
const BACK: usize = 100;
const MISSED: usize = 5;
/// Above this share of what is kept, the run fails; below its inverse, what is kept is to be lowered.
const DEARER_MAX: f64 = 1.10;

/// Counts, and compares with the figures in the file `kept`: lines of a name, a tab and a number. The profiles are
/// left in `profiles`.
pub(crate) fn run(server: PathBuf, kept: &Path, profiles: &Path) -> Result<()> {
    let lab = Lab::new(server)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let counted = LocalSet::new().block_on(&runtime, count(&lab, profiles))?;
    compare(&counted, &fs::read_to_string(kept)?)
}

async fn count(lab: &Lab, profiles: &Path) -> Result<Vec<(&'static str, f64)>> {
    let mut counted = Vec::new();
    for (name, transport) in [
        ("WebSocket delivery", Transport::WebSocket),
        ("SSE delivery", Transport::Sse),
        ("long-poll delivery with the poll that follows", Transport::LongPoll),
    ] {
        let profile = profiles.join(format!("{transport:?}"));
        let server = lab.counted_server(&profile).await?;
        let mut taken = 0;
        let one = per_event(&server, transport, 1, &profile, &mut taken).await?;
        let many = per_event(&server, transport, MANY, &profile, &mut taken).await?;
        let delivery = (many - one) / (MANY - 1) as f64;
        if transport == Transport::WebSocket {
            counted.push(("publish", one - delivery));
        }
        counted.push((name, delivery));
        server.process.stop().await?;
    }
    let profile = profiles.join("Reconnect");
    let server = lab.counted_server(&profile).await?;
    counted.push(("WebSocket reconnect with 5 events missed", per_reconnect(&server, &profile).await?));
    server.process.stop().await?;
    Ok(counted)
}

/// Instructions per event to a gateway with so many connections.
async fn per_event(
    server: &Server,
    transport: Transport,
    connections: usize,
    profile: &Path,
    taken: &mut u32,
) -> Result<f64> {
    let gateway =
        make(&server.address, connections..connections + 1, Keys::OneEach).await?.pop().ok_or("no gateway")?;
    let peers = Peers::connect(&server.address, transport, &vec![gateway.pass(None); connections], AT_ONCE);
    peers.tally.until(connections as u64, 0).await?;
    let mut http = Http::connect(&server.address).await?;
    let event = gateway.event(EVENT_BYTES);
    let mut totals = Vec::new();
    let mut sent = 0;
    for events in [WARM_UP, EVENTS, 2 * EVENTS] {
        for _ in 0..events {
            publish(&mut http, &event).await?;
            sent += 1;
            peers.tally.until(0, sent * connections as u64).await?;
        }
        *taken += 1;
        totals.push(instructions(server, profile, *taken).await?);
    }
    let [_, shorter, longer] = totals[..] else { return Err("not three runs".into()) };
    Ok((longer - shorter) / EVENTS as f64)
}

/// Instructions per connection that comes back, catches up and goes.
async fn per_reconnect(server: &Server, profile: &Path) -> Result<f64> {
    let gateways = make(&server.address, 0..2 * BACK, Keys::OneEach).await?;
    let last = publish_all(&server.address, &gateways, MISSED).await?;
    let passes = gateways.iter().zip(&last);
    let passes = passes.map(|(gateway, last)| Ok(gateway.pass(Some(before(last, MISSED as u64)?))));
    let passes = passes.collect::<Result<Vec<Pass>>>()?;
    let mut totals = Vec::new();
    for (taken, connections) in (1..).zip([2 * BACK, BACK, 2 * BACK]) {
        let passes = passes.get(..connections).unwrap_or_default();
        let peers = Peers::connect(&server.address, Transport::WebSocket, passes, AT_ONCE);
        peers.tally.until(connections as u64, (connections * MISSED) as u64).await?;
        drop(peers);
        tokio::time::sleep(SETTLE).await;
        totals.push(instructions(server, profile, taken).await?);
    }
    let [_, shorter, longer] = totals[..] else { return Err("not three runs".into()) };
    Ok((longer - shorter) / BACK as f64)
}

/// Instructions since this was last asked; the how many-th time is `taken`.
async fn instructions(server: &Server, profile: &Path, taken: u32) -> Result<f64> {
    let mut control = Command::new("callgrind_control");
    control.arg("--dump").arg(server.process.pid().to_string()).stdout(Stdio::null()).stderr(Stdio::null());
    if !control.status().await?.success() {
        return Err("callgrind_control does not reach the server".into());
    }
    let dump = fs::read_to_string(format!("{}.{taken}", profile.display()))?;
    let totals = dump.lines().find_map(|line| line.strip_prefix("totals: ")).ok_or("a profile without totals")?;
    Ok(totals.trim().parse()?)
}

fn compare(counted: &[(&str, f64)], kept: &str) -> Result<()> {
    println!("| what | instructions | kept | ratio |");
    println!("|---|---|---|---|");
    let mut dearer = Vec::new();
    for (name, now) in counted {
        let line = kept.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
        let before: f64 = line.ok_or_else(|| format!("no line for {name}; it took {now:.0}"))?.trim().parse()?;
        let ratio = now / before;
        println!("| {name} | {now:.0} | {before:.0} | {ratio:.3} |");
        if ratio > DEARER_MAX {
            dearer.push(*name);
        }
        if ratio < DEARER_MAX.recip() {
            println!("{name} became cheaper: write {now:.0} where {before:.0} is kept.");
        }
    }
    if dearer.is_empty() { Ok(()) } else { Err(format!("dearer than kept: {}", dearer.join(", ")).into()) }
}
