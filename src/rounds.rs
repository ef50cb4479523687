//! Serves the connections that there is news for, some dozens in a row, instead of waking the task of each.

use std::mem::take;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::coop::unconstrained;

use crate::bell::{Bell, PART};

/// Has all who listen to these served, by tasks of the runtime, so that neither who has the news nor any other task waits
/// for all of them. Where there is no runtime, those who listen are woken.
pub(crate) fn serve(bells: &[Arc<Bell>]) {
    let Ok(runtime) = Handle::try_current() else { return bells.iter().for_each(|bell| bell.ring()) };
    let (mut round, mut places) = (Vec::new(), 0);
    for bell in bells {
        for (part, len) in bell.parts() {
            if places + len > PART {
                run(&runtime, take(&mut round));
                places = 0;
            }
            round.push((bell.clone(), part));
            places += len;
        }
    }
    run(&runtime, round);
}

/// Unconstrained, as Tokio's budget is for one connection's task; a round is bounded by [`PART`].
fn run(runtime: &Handle, round: Vec<(Arc<Bell>, usize)>) {
    if !round.is_empty() {
        drop(runtime.spawn(unconstrained(async move { round.iter().for_each(|(bell, part)| bell.serve(*part)) })));
    }
}
