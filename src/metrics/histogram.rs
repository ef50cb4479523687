//! A histogram of durations that may be fed on the hottest path: two relaxed additions, no lock, no allocation.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets, in seconds; one more takes the rest.
pub(crate) const BOUNDS_SECONDS: [f64; 15] =
    [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// How often each range of durations was seen, and their sum.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// Each with what fell between the bound before it and its own.
    buckets: [AtomicU64; BOUNDS_SECONDS.len() + 1],
    sum_nanos: AtomicU64,
}

/// A histogram at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Snapshot {
    /// For each bound, how many were at most that.
    pub(crate) cumulative: [u64; BOUNDS_SECONDS.len()],
    pub(crate) count: u64,
    pub(crate) sum_seconds: f64,
}

impl Histogram {
    /// Counts `times` events that all took this long.
    pub(crate) fn observe(&self, took: Duration, times: u64) {
        let seconds = took.as_secs_f64();
        let index = BOUNDS_SECONDS.iter().take_while(|bound| seconds > **bound).count();
        if let Some(bucket) = self.buckets.get(index) {
            bucket.fetch_add(times, Ordering::Relaxed);
        }
        // 584 years of waiting fit.
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).saturating_mul(times);
        self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// How many were counted.
    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let (mut cumulative, mut count) = ([0; BOUNDS_SECONDS.len()], 0);
        for (index, bucket) in self.buckets.iter().enumerate() {
            count += bucket.load(Ordering::Relaxed);
            if let Some(at_most) = cumulative.get_mut(index) {
                *at_most = count;
            }
        }
        let sum_seconds = Duration::from_nanos(self.sum_nanos.load(Ordering::Relaxed)).as_secs_f64();
        Snapshot { cumulative, count, sum_seconds }
    }
}

impl Snapshot {
    /// Several histograms as one.
    pub(crate) fn sum(all: &[Self]) -> Self {
        all.iter().fold(Self::default(), |sum, one| Self {
            cumulative: std::array::from_fn(|at| at_most(&sum, at) + at_most(one, at)),
            count: sum.count + one.count,
            sum_seconds: sum.sum_seconds + one.sum_seconds,
        })
    }

    /// What was counted after an earlier snapshot of the same histogram.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            cumulative: std::array::from_fn(|at| at_most(self, at).saturating_sub(at_most(before, at))),
            count: self.count.saturating_sub(before.count),
            sum_seconds: self.sum_seconds - before.sum_seconds,
        }
    }

    /// How many seconds this share of what was counted took at most, evenly spread within a bucket; `None` if nothing
    /// was counted. What took longer than the last bound counts as that.
    #[expect(clippy::cast_precision_loss, reason = "counts of one second")]
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        let rank = share * self.count as f64;
        let (mut below, mut from) = (0, 0.0);
        for (bound, at_most) in BOUNDS_SECONDS.into_iter().zip(self.cumulative) {
            if at_most as f64 >= rank && at_most > below {
                return Some(from + (bound - from) * (rank - below as f64) / (at_most - below) as f64);
            }
            (below, from) = (at_most, bound);
        }
        Some(from)
    }
}

fn at_most(snapshot: &Snapshot, at: usize) -> u64 {
    snapshot.cumulative.get(at).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_within_its_bucket_and_counts_what_came_since() {
        let histogram = Histogram::default();
        assert_eq!(histogram.snapshot().quantile(0.5), None);
        histogram.observe(Duration::from_secs(5), 1_000);
        let before = histogram.snapshot();
        histogram.observe(Duration::from_micros(800), 98);
        histogram.observe(Duration::from_millis(30), 2);
        let since = Snapshot::sum(&[histogram.snapshot().since(&before), Snapshot::default()]);
        assert_eq!(since.count, 100);
        let half = since.quantile(0.5).unwrap();
        assert!((0.0005..=0.001).contains(&half), "{half}");
        assert!((since.quantile(0.99).unwrap() - 0.0375).abs() < 1e-9, "half way from 25 to 50 ms");
        histogram.observe(Duration::from_secs(60), 1);
        assert_eq!(histogram.snapshot().quantile(1.0), Some(10.0));
    }

    #[test]
    fn a_bound_belongs_to_its_own_bucket_and_the_rest_only_to_the_count() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_micros(100), 1);
        histogram.observe(Duration::from_micros(101), 2);
        histogram.observe(Duration::from_secs(60), 1);
        let seen = histogram.snapshot();
        assert_eq!((seen.cumulative[0], seen.cumulative[1], seen.cumulative[14]), (1, 3, 3));
        assert_eq!((seen.count, histogram.count()), (4, 4));
        assert!((seen.sum_seconds - 60.000_302).abs() < 1e-9, "{}", seen.sum_seconds);
    }
}
