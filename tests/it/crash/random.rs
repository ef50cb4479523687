/// splitmix64: the kills of a seed are the same everywhere.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From `CRASH_SEED`, or another one each time; printed, so that a failure can be repeated.
    pub(super) fn printed() -> Self {
        let seed = uuid::Uuid::new_v4().as_u64_pair().0;
        let seed = std::env::var("CRASH_SEED").map_or(seed, |seed| seed.parse().unwrap());
        println!("CRASH_SEED={seed}");
        Self(seed)
    }

    pub(super) fn in_range(&mut self, range: std::ops::Range<u64>) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        range.start + (z ^ (z >> 31)) % (range.end - range.start)
    }

    /// Below `count`.
    pub(super) fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.in_range(0..count as u64)).unwrap()
    }

    /// Another one, for a task of its own.
    pub(super) fn split(&mut self) -> Self {
        Self(self.in_range(0..u64::MAX))
    }
}
