//! What is measured.

mod catch_up;
mod fan_out;
mod idle;
mod publish;
mod storm;

use std::path::PathBuf;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::task::LocalSet;
use tokio::time::timeout;

use crate::Result;
use crate::lab::Lab;
use crate::table;

/// No scenario takes longer, one way or the other.
const SCENARIO_WITHIN: Duration = Duration::from_secs(180);
/// Connections of idle and storm: enough for what one takes to stand out, few enough for any limit of descriptors.
const MANY: usize = 3_000;
/// Connections of a fan-out.
const FAN: usize = 1_000;
/// Rounds a figure; the median is shown.
const ROUNDS: usize = 5;
/// How long the peers of a fan-out let their sockets fill before they look again. Peers that sleep until their bytes come
/// are woken by whoever writes to them, at its cost: on loopback that was half of a delivery, and gateways on other
/// machines cost nothing of the kind.
const NAP: Duration = Duration::from_micros(200);

/// When the generator looks at its sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peers {
    /// As soon as bytes come: for rates and wall time.
    Alert,
    /// After a [`NAP`]: for what a delivery costs.
    Drowsy,
}

/// Runs the scenarios that are named, or all.
pub(crate) fn run(server: PathBuf, named: &[&str]) -> Result<()> {
    let wanted = |name| named.is_empty() || named.contains(&name);
    let lab = Lab::new(server)?;
    table::head();
    if wanted("idle") {
        within(Peers::Alert, idle::run(&lab))?;
    }
    if wanted("fan-out") {
        within(Peers::Drowsy, fan_out::one_at_a_time(&lab))?;
    }
    if wanted("saturation") {
        within(Peers::Drowsy, fan_out::saturated(&lab))?;
    }
    if wanted("publish") {
        within(Peers::Alert, publish::run(&lab))?;
    }
    if wanted("catch-up") {
        within(Peers::Alert, catch_up::run(&lab))?;
    }
    if wanted("storm") {
        within(Peers::Alert, storm::run(&lab))?;
    }
    Ok(())
}

/// Runs a scenario on one thread: the generator has one core.
fn within(peers: Peers, scenario: impl Future<Output = Result<()>>) -> Result<()> {
    let mut runtime = Builder::new_current_thread();
    runtime.enable_all();
    if peers == Peers::Drowsy {
        #[expect(clippy::disallowed_methods, reason = "nothing is waited for: the thread is about to block anyway")]
        runtime.on_thread_park(|| std::thread::sleep(NAP));
    }
    let local = LocalSet::new();
    let done = local.block_on(&runtime.build()?, async { timeout(SCENARIO_WITHIN, scenario).await });
    done.map_err(|_| "a scenario did not end in time")?
}
