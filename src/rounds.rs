//! Serves the connections that there is news for, one after the other, instead of waking the task of each.

use std::mem::take;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::coop::unconstrained;
use tokio::task::yield_now;

use crate::bell::{Bell, PART};

/// Places of one round, at most: what it takes to spawn its task is shared by so many.
const PLACES_MAX: usize = 4 * PART;

/// Has all who listen to these served, by tasks of the runtime, so that neither who has the news nor any other task waits
/// for all of them. Where there is no runtime, those who listen are woken.
pub(crate) fn serve(bells: &[Arc<Bell>]) {
    let Ok(runtime) = Handle::try_current() else { return bells.iter().for_each(|bell| bell.ring()) };
    let (mut round, mut places) = (Vec::new(), 0);
    for bell in bells {
        for (part, len) in bell.parts() {
            if places + len > PLACES_MAX {
                begin(&runtime, take(&mut round));
                places = 0;
            }
            round.push((bell.clone(), part));
            places += len;
        }
    }
    begin(&runtime, round);
}

fn begin(runtime: &Handle, round: Vec<(Arc<Bell>, usize)>) {
    if !round.is_empty() {
        // Tokio's budget is for what one connection's task does in a row; a round yields for itself.
        drop(runtime.spawn(unconstrained(run(round))));
    }
}

async fn run(round: Vec<(Arc<Bell>, usize)>) {
    let mut served = 0;
    for (bell, part) in round {
        if served >= PART {
            yield_now().await;
            served = 0;
        }
        // Not all turns of the round at once: what was looked at for a turn is to be in the core's cache when it comes.
        let turns = bell.turns(part);
        turns.iter().for_each(|turn| bell.serve(turn));
        served += turns.len();
    }
}
