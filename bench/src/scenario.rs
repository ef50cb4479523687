//! What is measured.

mod catch_up;
mod fan_out;
mod idle;
mod publish;
mod storm;

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::LocalSet;

use crate::Result;
use crate::lab::Lab;
use crate::table;

/// The whole bench ends within this, one way or the other.
pub(crate) const ALL_WITHIN: Duration = Duration::from_secs(600);
/// Connections of idle and storm: enough for what one takes to stand out, few enough for any limit of descriptors.
const MANY: usize = 3_000;
/// Connections of a fan-out.
const FAN: usize = 1_000;
/// Rounds a figure; the median is shown.
const ROUNDS: usize = 5;

/// Runs the scenarios that are named, or all.
pub(crate) async fn run(server: PathBuf, named: &[&str]) -> Result<()> {
    let wanted = |name| named.is_empty() || named.contains(&name);
    let lab = Lab::new(server)?;
    let all = async {
        table::head();
        if wanted("idle") {
            idle::run(&lab).await?;
        }
        if wanted("fan-out") {
            fan_out::one_at_a_time(&lab).await?;
        }
        if wanted("saturation") {
            fan_out::saturated(&lab).await?;
        }
        if wanted("publish") {
            publish::run(&lab).await?;
        }
        if wanted("catch-up") {
            catch_up::run(&lab).await?;
        }
        if wanted("storm") {
            storm::run(&lab).await?;
        }
        Ok(())
    };
    LocalSet::new().run_until(all).await
}
