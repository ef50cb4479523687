//! How long to wait before the next attempt. Pure but for the seed.

use std::time::Duration;

/// The longest that a server's own word (`Retry-After`, `reconnectAfterMs`) is obeyed: a typing error in a proxy must
/// not park a gateway for a day.
pub(super) const TOLD_MAX: Duration = Duration::from_secs(600);
/// A server that says "at once" to everyone is not taken at its word.
const TOLD_MIN: Duration = Duration::from_millis(100);

/// The ceilings of the waits between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffBounds {
    /// The ceiling after the first failure; it doubles with each.
    pub first: Duration,
    /// The highest ceiling.
    pub most: Duration,
}

impl Default for BackoffBounds {
    /// 1 s to 60 s.
    fn default() -> Self {
        Self { first: Duration::from_secs(1), most: Duration::from_secs(60) }
    }
}

/// Exponential waits with jitter: between half of the ceiling and the ceiling, so that clients spread.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    bounds: BackoffBounds,
    failures: u32,
    random: u64,
}

impl Backoff {
    pub(crate) fn new(bounds: BackoffBounds, seed: u64) -> Self {
        Self { bounds, failures: 0, random: seed }
    }

    /// Starts again from the first ceiling.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait after one more failure. `told` is the server's own word; it wins, stretched by up to a tenth because a
    /// constant one from a proxy would keep clients in step.
    pub(crate) fn wait(&mut self, told: Option<Duration>) -> Duration {
        let ceiling = ceiling(self.bounds, self.failures);
        self.failures = self.failures.saturating_add(1);
        let jitter = self.next_unit();
        match told {
            Some(told) if told >= TOLD_MIN => told.min(TOLD_MAX).mul_f64(1.0 + jitter / 10.0),
            _ => ceiling.mul_f64(0.5 + jitter / 2.0),
        }
    }

    /// The next number of `[0, 1)`: splitmix64, good enough to spread clients.
    fn next_unit(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // 53 bits fill an f64 exactly.
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn ceiling(bounds: BackoffBounds, failures: u32) -> Duration {
    let factor = 1u32.checked_shl(failures).unwrap_or(u32::MAX);
    bounds.first.saturating_mul(factor).min(bounds.most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    proptest! {
        #[test]
        fn every_wait_is_between_half_its_ceiling_and_its_ceiling(seed: u64, failures in 0u32..200) {
            let mut backoff = Backoff::new(BackoffBounds::default(), seed);
            for n in 0..failures {
                let top = (SECOND * 2u32.saturating_pow(n.min(6))).min(SECOND * 60);
                let wait = backoff.wait(None);
                prop_assert!(wait >= top / 2 && wait <= top, "{n}: {wait:?}");
            }
        }

        #[test]
        fn the_servers_word_is_never_undercut_and_bounded(seed: u64, told_ms in 100u64..10_000_000) {
            let told = Duration::from_millis(told_ms);
            let wait = Backoff::new(BackoffBounds::default(), seed).wait(Some(told));
            prop_assert!(wait >= told.min(TOLD_MAX) && wait <= TOLD_MAX.mul_f64(1.1));
        }
    }

    #[test]
    fn a_reset_starts_again() {
        let mut backoff = Backoff::new(BackoffBounds::default(), 7);
        for _ in 0..10 {
            backoff.wait(None);
        }
        assert!(backoff.wait(None) >= SECOND * 30);
        backoff.reset();
        assert!(backoff.wait(None) <= SECOND);
    }

    #[test]
    fn at_once_is_not_taken_at_its_word() {
        let wait = Backoff::new(BackoffBounds::default(), 1).wait(Some(Duration::ZERO));
        assert!(wait >= SECOND / 2);
    }

    #[test]
    fn clients_spread() {
        let waits: std::collections::BTreeSet<_> =
            (0..100).map(|seed| Backoff::new(BackoffBounds::default(), seed).wait(None)).collect();
        assert!(waits.len() > 95);
    }
}
