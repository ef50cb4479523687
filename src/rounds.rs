//! Serves the connections that there is news for, one after the other, instead of waking the task of each.

use std::mem::take;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::coop::unconstrained;
use tokio::task::yield_now;

use crate::bell::{Bell, PART};

/// Connections that are served in a row, before other tasks have their turn: some 100 µs, unless events are large.
const IN_A_ROW: usize = 16;

/// Has all who listen to these served, by tasks of the runtime, so that neither who has the news nor any other task waits
/// for all of them. Where there is no runtime, those who listen are woken.
pub(crate) fn serve(bells: &[Arc<Bell>]) {
    let Ok(runtime) = Handle::try_current() else { return bells.iter().for_each(|bell| bell.ring()) };
    let (mut round, mut places) = (Vec::new(), 0);
    for bell in bells {
        for (part, len) in bell.parts() {
            if places + len > PART {
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
        // Tokio's budget is for what one connection's task does in a row.
        drop(runtime.spawn(unconstrained(run(round))));
    }
}

async fn run(round: Vec<(Arc<Bell>, usize)>) {
    let mut served = 0;
    for (bell, part) in round {
        for turn in bell.turns(part) {
            if served == IN_A_ROW {
                yield_now().await;
                served = 0;
            }
            bell.serve(&turn);
            served += 1;
        }
    }
}
