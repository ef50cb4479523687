//! Reads of a log by whoever follows it at a cursor: the one under way, and the pause before the next where the log could
//! not be read, or had nothing though its head says otherwise.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::BoxFuture;
use gatecast_storage::{Cursor, GatewayId, LogError};
use gatecast_transports::Room;
use tokio::time::Instant;

use crate::below::Below;
use crate::tail::{Tail, Tailed};

/// How long to wait before reading a log again that could not be read; doubled for each time in a row.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// The longest such wait.
const READ_AGAIN_AFTER_MAX: Duration = Duration::from_secs(8);

/// Reads of one log, one at a time. Takes next to no memory while there is none to be done.
#[derive(Default)]
pub(crate) struct Reading(Option<Box<State>>);

#[derive(Default)]
struct State {
    under_way: Option<BoxFuture<'static, Result<Tailed, LogError>>>,
    again: Option<Instant>,
    /// Reads in a row that failed.
    failures: u32,
}

impl Reading {
    /// Whether a read was begun whose outcome nobody has seen yet.
    pub(crate) fn is_under_way(&self) -> bool {
        self.0.as_ref().is_some_and(|state| state.under_way.is_some())
    }

    /// Until when to wait with the next read, if the last one said so; it may be over.
    pub(crate) fn again(&self) -> Option<Instant> {
        self.0.as_ref()?.again
    }

    /// Reads what lies after a cursor, in the ring or below it, for as long as that takes. A read under way outlives
    /// whoever waits for it.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        tail: &Tail,
        (gateway, position, below): (GatewayId, Cursor, Option<Below>),
        room: Room,
    ) -> Poll<Result<Tailed, LogError>> {
        let state = self.0.get_or_insert_default();
        let under_way = state.under_way.get_or_insert_with(|| match below {
            Some(below) => Box::pin(tail.compacted(gateway, below.has(position), room)),
            None => Box::pin(tail.cold(gateway, position, room)),
        });
        let read = ready!(under_way.as_mut().poll(cx));
        (state.under_way, state.again) = (None, None);
        if read.is_ok() {
            self.0 = None;
        }
        Poll::Ready(read)
    }

    /// The log was read, and had nothing.
    pub(crate) fn had_nothing(&mut self) {
        self.0.get_or_insert_default().again = Some(Instant::now() + read_again_after(0));
    }

    /// The log could not be read; whether that is news.
    pub(crate) fn failed(&mut self) -> bool {
        let state = self.0.get_or_insert_default();
        state.again = Some(Instant::now() + read_again_after(state.failures));
        state.failures = state.failures.saturating_add(1);
        state.failures == 1
    }
}

/// The wait after the next failure when so many came before it.
fn read_again_after(failures: u32) -> Duration {
    READ_AGAIN_AFTER.saturating_mul(2_u32.saturating_pow(failures)).min(READ_AGAIN_AFTER_MAX)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use gatecast_storage::{Clock, Draft, Epoch, EventLog, ManualClock, MemoryLog, NoFollower, Retention, Seq};
    use uuid::Uuid;

    use super::*;
    use crate::api::tests::world::FragileLog;
    use crate::tail::Tails;

    #[tokio::test(start_paused = true)]
    async fn a_failure_after_a_read_that_gave_events_is_the_first_again() {
        let clock = Arc::new(ManualClock::default());
        let (max_age, compaction) = (Duration::from_secs(60), gatecast_storage::Compaction::default());
        let retention = Retention { max_events: 9, max_bytes: 99, max_age, compaction };
        let log = Arc::new(FragileLog::new(MemoryLog::new(retention, clock.clone(), Arc::new(NoFollower))));
        let (of, at, since) = (GatewayId(Uuid::from_u128(1)), clock.now(), Instant::now());
        let draft =
            Draft { at, since, key: None, ends_key: false, body: "\x01t{}".into(), expect: None, beside: vec![] };
        let from = Cursor { seq: Seq(0), ..log.append(of, draft).await.unwrap() };
        assert_ne!(from.epoch, Epoch(0));
        let tail = Tail::new(Tails::new(), log.clone());
        let mut reading = Reading::default();
        let room = Room { frames: 9, bytes: 99 };
        for _ in 0..2 {
            log.is_down.store(true, Ordering::SeqCst);
            assert!(poll_fn(|cx| reading.poll(cx, &tail, (of, from, None), room)).await.is_err());
            assert!(reading.failed(), "that is news");
            assert!(poll_fn(|cx| reading.poll(cx, &tail, (of, from, None), room)).await.is_err());
            assert!(!reading.failed());
            assert_eq!(reading.again(), Some(Instant::now() + 2 * READ_AGAIN_AFTER));
            log.is_down.store(false, Ordering::SeqCst);
            let read = poll_fn(|cx| reading.poll(cx, &tail, (of, from, None), room)).await.unwrap();
            assert!(matches!(read, Tailed::Frames(frames) if frames.len() == 1));
        }
    }
}
