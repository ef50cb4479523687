//! What is measured.

mod catch_up;
mod crowd;
mod fan;
mod fan_out;
mod growth;
mod idle;
mod latency;
mod publish;
mod scale;
mod storm;

pub(crate) use self::catch_up::before;

use std::path::PathBuf;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::task::LocalSet;
use tokio::time::timeout;

use crate::Result;
use crate::lab::Lab;
use crate::rival::Rival;
use crate::table;

/// The scenarios, in their order.
const NAMES: [&str; 12] = [
    "idle",
    "crowd",
    "fan-out",
    "saturation",
    "connections",
    "bytes",
    "latency",
    "stopped",
    "publish",
    "scale",
    "catch-up",
    "storm",
];
const FLAGS: [&str; 2] = ["--full", "--peers"];
/// No scenario takes longer, one way or the other.
const SCENARIO_WITHIN: Duration = Duration::from_secs(180);
/// Unless others are measured beside gatecast,
const BESIDE_WITHIN: Duration = Duration::from_secs(600);
/// or it is the one that `--full` makes long.
const FULL_WITHIN: Duration = Duration::from_secs(1_800);
/// Connections of idle and storm: enough for what one takes to stand out, few enough for any limit of descriptors.
const MANY: usize = 3_000;
/// Connections where as many as possible are wanted, and the descriptors allow it.
const CROWD: usize = 9_000;
/// How often all connections come anew where memory is watched.
const CYCLES: usize = 3;
/// Connections of a fan-out.
const FAN: usize = 1_000;
/// Rounds a figure; the median is shown.
const ROUNDS: usize = 5;
/// How long drowsy peers let their sockets fill before they look again. Peers that sleep until their bytes come
/// are woken by whoever writes to them, at its cost: on loopback that was half of a delivery, and gateways on other
/// machines cost nothing of the kind.
const NAP: Duration = Duration::from_micros(200);

/// When the generator looks at its sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peers {
    /// As soon as bytes come: for latencies, and where little is sent to peers.
    Alert,
    /// After a [`NAP`]: for what deliveries cost, and how many there can be.
    Drowsy,
}

/// Runs the scenarios that are named, or all. `--full`: with 100,000 gateways. `--peers`: beside Nchan and NATS.
pub(crate) fn run(server: PathBuf, asked: &[&str]) -> Result<()> {
    let (flags, named): (Vec<&str>, Vec<&str>) = asked.iter().partition(|word| word.starts_with("--"));
    let full = flags.contains(&"--full");
    if let Some(unknown) =
        flags.iter().find(|flag| !FLAGS.contains(flag)).or(named.iter().find(|name| !NAMES.contains(name)))
    {
        return Err(format!("{unknown} is neither of {} nor of {}", NAMES.join(", "), FLAGS.join(", ")).into());
    }
    let wanted = |name| named.is_empty() || named.contains(&name);
    let rivals: Vec<Rival> = if flags.contains(&"--peers") { Rival::ALL.to_vec() } else { Vec::new() };
    let (rivals, missing): (Vec<_>, Vec<_>) = rivals.into_iter().partition(|rival| rival.is_installed());
    for rival in missing {
        eprintln!("{} is not installed: apt-get install nginx libnginx-mod-nchan nats-server", rival.name());
    }
    let each_within = if rivals.is_empty() { SCENARIO_WITHIN } else { BESIDE_WITHIN };
    let lab = Lab::new(server.clone())?.beside(rivals);
    table::head();
    for name in NAMES.into_iter().filter(|name| wanted(name)) {
        let most = if full && name == "scale" { FULL_WITHIN } else { each_within };
        match name {
            "idle" => within(Peers::Alert, most, idle::run(&lab)),
            "crowd" => within(Peers::Alert, most, crowd::run(&lab)),
            "fan-out" => within(Peers::Drowsy, most, fan_out::one_at_a_time(&lab)),
            "saturation" => within(Peers::Drowsy, most, fan_out::saturated(&lab)),
            "connections" => within(Peers::Drowsy, most, growth::over_connections(&lab)),
            "bytes" => within(Peers::Drowsy, most, growth::over_bytes(&lab)),
            "latency" => within(Peers::Alert, most, latency::steady(&lab)),
            "stopped" => within(Peers::Alert, most, latency::stopped_readers(&lab)),
            "publish" => within(Peers::Alert, most, publish::run(&lab)),
            "scale" => within(Peers::Alert, most, scale::run(server.clone(), full)),
            "catch-up" => within(Peers::Drowsy, most, catch_up::run(&lab)),
            _ => within(Peers::Drowsy, most, storm::run(&lab)),
        }?;
    }
    Ok(())
}

/// Runs a scenario on one thread: the generator has one core.
fn within(peers: Peers, most: Duration, scenario: impl Future<Output = Result<()>>) -> Result<()> {
    let mut runtime = Builder::new_current_thread();
    runtime.enable_all();
    if peers == Peers::Drowsy {
        #[expect(clippy::disallowed_methods, reason = "nothing is waited for: the thread is about to block anyway")]
        runtime.on_thread_park(|| std::thread::sleep(NAP));
    }
    let local = LocalSet::new();
    let done = local.block_on(&runtime.build()?, async { timeout(most, scenario).await });
    done.map_err(|_| "a scenario did not end in time")?
}
