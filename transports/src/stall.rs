//! Whether a peer still takes what waits for it.
//!
//! What is between (kernels, TLS, hyper) takes more for a peer only once a part of what it holds has left. So a peer that
//! reads steadily seems to take nothing for seconds, and then tens of KiB at once: at 10 KB/s, nothing for 12.6 s and then
//! 110 KiB (Linux 6.18, with its smallest buffers). What is taken therefore pays for time, [`TAKEN_BYTES_MIN`] for the limit,
//! up to twice that:
//!
//! - A peer that takes nothing of what waits is stalled at the limit, whatever it took before that had to wait.
//! - One that takes at least so much never is, as long as its first lump comes within the limit (from some 13 KB/s on it does)
//!   and the others no further apart than what they pay for.
//! - One that stops is two limits after the last that it took at most, and one that takes half as much as it has to within
//!   four.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::alarm::Alarm;

/// Watches a peer while something waits for it.
pub struct Stall {
    limit: Duration,
    taken: u64,
    /// When what it took is used up.
    due: Instant,
    alarm: Alarm,
}

impl Stall {
    /// From now on something waits for a peer that has taken so many bytes before.
    #[must_use]
    pub fn new(limit: Duration, taken: u64) -> Self {
        Self::at(limit, taken, Instant::now())
    }

    fn at(limit: Duration, taken: u64, now: Instant) -> Self {
        Self { limit, taken, due: now + limit, alarm: Alarm::default() }
    }

    /// When the peer is stalled unless it takes more, of which it has taken so many bytes by now.
    fn due(&mut self, taken: u64, now: Instant) -> Instant {
        let fresh = u32::try_from(taken.saturating_sub(self.taken)).unwrap_or(u32::MAX);
        self.taken = taken;
        let paid = self.limit * fresh.min(LUMP_BYTES_MAX) / TAKEN_BYTES_MIN;
        self.due = (self.due + paid).min(now + self.limit * 2);
        self.due
    }

    /// Resolves when the peer is stalled that has taken so many bytes by now. Cancel safe.
    pub async fn stalled(&mut self, taken: u64) {
        poll_fn(|cx| self.poll_stalled(cx, taken)).await;
    }

    /// [`Self::stalled`], polled.
    pub(crate) fn poll_stalled(&mut self, cx: &mut Context<'_>, taken: u64) -> Poll<()> {
        let now = Instant::now();
        let mut due = self.due(taken, now);
        if now >= due + NOTICED_WITHIN {
            self.due = now + NOTICED_WITHIN;
            due = self.due;
        }
        self.alarm.poll_at(cx, now, Some(due))
    }
}

/// Who notices a deadline so much too late stood still itself (it was stopped, its machine asleep): what the peer has said or
/// taken meanwhile is not known yet, and is waited for that long.
pub const NOTICED_WITHIN: Duration = Duration::from_secs(1);
/// What a peer takes at least of what waits for it, each limit.
pub const TAKEN_BYTES_MIN: u32 = 64 * 1024;
/// More pays for no more.
const LUMP_BYTES_MAX: u32 = 2 * TAKEN_BYTES_MIN;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);
    /// What is not to be cut off reads at this rate, a second.
    const STEADY_BYTES_MIN: u64 = 10_000;
    /// What takes less than the half of what it has to is cut off by then.
    const TRICKLE_ENDS: Duration = Duration::from_secs(40);

    /// When a peer is stalled that takes so many bytes so long after the lump before; `None` if it never is.
    fn stalled(lumps: impl IntoIterator<Item = (Duration, u64)>) -> Option<Duration> {
        let start = Instant::now();
        let mut stall = Stall::at(LIMIT, 0, start);
        let (mut now, mut taken, mut due) = (start, 0, start + LIMIT);
        for (after, bytes) in lumps {
            now += after;
            if now >= due {
                return Some(due - start);
            }
            taken += bytes;
            due = stall.due(taken, now);
        }
        None
    }

    /// Lumps that come when their bytes were read at this rate, which is when there is room for them.
    fn read_at(rate: u64, lumps: Vec<u64>) -> Vec<(Duration, u64)> {
        let gap = |bytes: u64| Duration::from_secs(bytes) / u32::try_from(rate).unwrap();
        lumps.into_iter().map(|bytes| (gap(bytes), bytes)).collect()
    }

    #[test]
    fn who_takes_nothing_is_stalled_at_the_limit() {
        assert_eq!(stalled([(LIMIT * 9, 1)]), Some(LIMIT));
    }

    #[test]
    fn what_is_taken_pays_for_time() {
        let second = Duration::from_secs(1);
        let half = u64::from(TAKEN_BYTES_MIN) / 2;
        assert_eq!(stalled([(3 * second, half), (LIMIT * 9, 1)]), Some(15 * second));
        assert_eq!(stalled([(8 * second, half), (4 * second, half), (LIMIT * 9, 1)]), Some(20 * second));
        assert_eq!(stalled([(second, u64::MAX), (LIMIT * 9, 1)]), Some(21 * second), "but not for ever");
    }

    #[tokio::test(start_paused = true)]
    async fn it_resolves_then_however_often_it_was_asked_before() {
        let (start, mut stall) = (Instant::now(), Stall::new(LIMIT, 7));
        for _ in 0..3 {
            assert!(tokio::time::timeout(LIMIT / 4, stall.stalled(7)).await.is_err());
        }
        let taken = 7 + u64::from(TAKEN_BYTES_MIN);
        stall.stalled(taken).await;
        assert_eq!(start.elapsed(), 2 * LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_that_is_noticed_late_is_one_only_if_nothing_is_taken_then() {
        for (taken, after) in [(0, NOTICED_WITHIN), (1, NOTICED_WITHIN + LIMIT / TAKEN_BYTES_MIN)] {
            let mut stall = Stall::new(LIMIT, 0);
            tokio::time::advance(LIMIT * 3).await;
            let back = Instant::now();
            assert!(tokio::time::timeout(NOTICED_WITHIN / 2, stall.stalled(0)).await.is_err());
            stall.stalled(taken).await;
            // To the millisecond of the runtime's clock.
            assert!(
                back.elapsed() >= after && back.elapsed() < after + Duration::from_millis(2),
                "{:?}",
                back.elapsed()
            );
        }
    }

    proptest! {
        #[test]
        fn a_steady_reader_is_never_stalled_however_uneven_its_lumps(
            rate in STEADY_BYTES_MIN..10_000_000,
            lumps in prop::collection::vec(1..=96_u64 * 1024, 1..200),
        ) {
            prop_assert_eq!(stalled(read_at(rate, lumps)), None);
        }

        #[test]
        fn nor_is_one_whose_lumps_take_longer_than_the_limit(
            rate in STEADY_BYTES_MIN..10_000_000,
            (lump, count) in (1..=128_u64 * 1024, 1..200_usize),
        ) {
            let mut read = read_at(rate, vec![lump; count]);
            // The wait begins amid a lump: until the first its peer does not differ from one that reads nothing.
            read[0].0 = read[0].0.min(LIMIT - Duration::from_millis(1));
            prop_assert_eq!(stalled(read), None);
        }

        #[test]
        fn whoever_stops_is_stalled_two_limits_later_at_most(
            rate in STEADY_BYTES_MIN..10_000_000,
            lumps in prop::collection::vec(1..=96_u64 * 1024, 1..50),
        ) {
            let mut read = read_at(rate, lumps);
            let last: Duration = read.iter().map(|lump| lump.0).sum();
            read.push((LIMIT * 9, 1));
            let at = stalled(read).unwrap();
            prop_assert!(at > last && at <= last + 2 * LIMIT);
        }

        #[test]
        fn a_trickle_is_stalled_in_time_also_behind_a_flood(
            flood in 0..10_000_000_u64,
            rate in 1..u64::from(TAKEN_BYTES_MIN) / LIMIT.as_secs() / 2,
            lumps in prop::collection::vec(1..=128_u64 * 1024, 200),
        ) {
            let read = read_at(rate, lumps);
            let at = stalled([(Duration::ZERO, flood)].into_iter().chain(read));
            prop_assert!(at.is_some_and(|at| at <= TRICKLE_ENDS), "{:?}", at);
        }
    }
}
