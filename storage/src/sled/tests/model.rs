//! Random histories: the engine on disk and the model in memory give the same pages and bounds.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::TimeDelta;
use proptest::prelude::*;
use tokio::time::Instant;
use uuid::Uuid;

use super::contract::Host;
use crate::clock::{Clock, ManualClock};
use crate::compaction::{Compacted, Compaction};
use crate::contract::LogHost;
use crate::ids::{Cursor, Epoch, GatewayId, Seq};
use crate::log::{Budget, Draft, EventLog, NoFollower, Page, Retention};
use crate::memory::MemoryLog;

const RETENTION: Retention = Retention {
    max_events: 12,
    max_bytes: 20_000,
    max_age: Duration::from_secs(60),
    // Tight, so that all of its bounds are met.
    compaction: Compaction { max_keys: 9, max_bytes: 15_000, max_tombstone_age: Duration::from_secs(90) },
};

#[derive(Debug, Clone)]
enum Step {
    Append { of: u8, size: usize, key: Option<usize>, ends_key: bool, age_ms: i64, expect_head: bool },
    ReadCompacted { of: u8, after: u64, budget: (usize, usize) },
    Read { of: u8, back: u64, budget: (usize, usize) },
    ReadOldEpoch { of: u8 },
    Advance(u64),
    Forget(u8),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let append = (
        0..3u8,
        prop_oneof![3 => 0..400usize, 1 => 4_000..10_000usize],
        proptest::option::of(0..20usize),
        prop::bool::weighted(0.3),
        0..70_000i64,
        any::<bool>(),
    );
    let budget = (1..20usize, 0..20_000usize);
    prop_oneof![
        20 => append.prop_map(|(of, size, key, ends_key, age_ms, expect_head)| Step::Append {
            of, size, key, ends_key, age_ms, expect_head
        }),
        4 => (0..3u8, 0..60u64, budget.clone()).prop_map(|(of, after, budget)| Step::ReadCompacted { of, after, budget }),
        8 => (0..3u8, 0..20u64, budget).prop_map(|(of, back, budget)| Step::Read { of, back, budget }),
        1 => (0..3u8).prop_map(|of| Step::ReadOldEpoch { of }),
        3 => (0..30_000u64).prop_map(Step::Advance),
        1 => (0..3u8).prop_map(Step::Forget),
        1 => Just(Step::Reopen),
    ]
}

fn gateway(number: u8) -> GatewayId {
    GatewayId(Uuid::from_u128(u128::from(number)))
}

/// A page without the engine's own epochs.
fn picture(page: Page) -> Page {
    match page {
        Page::WrongEpoch { .. } => Page::WrongEpoch { now: Epoch(0) },
        page => page,
    }
}

struct Pair {
    host: Host,
    clock: Arc<ManualClock>,
    sled: Option<Arc<dyn EventLog>>,
    memory: MemoryLog,
}

impl Pair {
    async fn open() -> Self {
        let clock = Arc::new(ManualClock::default());
        let memory = MemoryLog::new(RETENTION, Arc::clone(&clock) as Arc<dyn Clock>, Arc::new(NoFollower));
        let mut pair = Self { host: Host::new(), clock, sled: None, memory };
        pair.reopen().await;
        pair
    }

    async fn reopen(&mut self) {
        self.sled = None;
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        self.sled = Some(LogHost::open(&self.host, RETENTION, clock, Arc::new(NoFollower)).await.0);
    }

    fn engines(&self) -> [&dyn EventLog; 2] {
        [&**self.sled.as_ref().unwrap(), &self.memory]
    }

    async fn run(&mut self, step: Step) {
        match step {
            Step::Append { of, size, key, ends_key, age_ms, expect_head } => {
                let at = self.clock.now() - TimeDelta::milliseconds(age_ms);
                let key = key.map(|len| Bytes::from(vec![b'k'; len]));
                let body = Bytes::from(vec![b'b'; size]);
                let mut seqs = Vec::new();
                for engine in self.engines() {
                    let head = engine.bounds(gateway(of)).await.unwrap().head();
                    let expect = expect_head.then_some(head);
                    let draft = Draft {
                        at,
                        since: Instant::now(),
                        key: key.clone(),
                        ends_key,
                        body: body.clone(),
                        expect,
                        beside: Vec::new(),
                    };
                    seqs.push(engine.append(gateway(of), draft).await.unwrap().seq);
                }
                assert_eq!(seqs[0], seqs[1]);
            }
            Step::Read { of, back, budget: (events, bytes) } => {
                let mut pages = Vec::new();
                for engine in self.engines() {
                    let head = engine.bounds(gateway(of)).await.unwrap().head();
                    let from = Cursor { seq: Seq((head.seq.0 + 1).saturating_sub(back)), ..head };
                    pages.push(picture(engine.read(gateway(of), from, Budget { events, bytes }).await.unwrap()));
                }
                assert_eq!(pages[0], pages[1]);
            }
            Step::ReadCompacted { of, after, budget: (events, bytes) } => {
                let [left, right] = self.compacted(gateway(of), Seq(after), Budget { events, bytes }).await;
                assert_eq!(left, right);
            }
            Step::ReadOldEpoch { of } => {
                for engine in self.engines() {
                    let before = engine.bounds(gateway(of)).await.unwrap().head();
                    engine.forget(gateway(of)).await.unwrap();
                    let page = engine.read(gateway(of), before, Budget { events: 1, bytes: 1 }).await.unwrap();
                    assert_eq!(picture(page), Page::WrongEpoch { now: Epoch(0) });
                }
            }
            Step::Advance(ms) => self.clock.advance(Duration::from_millis(ms)),
            Step::Forget(of) => {
                for engine in self.engines() {
                    engine.forget(gateway(of)).await.unwrap();
                }
            }
            Step::Reopen => self.reopen().await,
        }
    }

    /// Without the engines' own epochs.
    async fn compacted(&self, of: GatewayId, after: Seq, max: Budget) -> [Compacted; 2] {
        let mut pages = Vec::new();
        for engine in self.engines() {
            let epoch = engine.bounds(of).await.unwrap().epoch;
            let page = engine.compacted(of, Cursor { epoch, seq: after }, max).await.unwrap();
            pages.push(Compacted { epoch: Epoch(0), ..page });
        }
        pages.try_into().unwrap()
    }

    /// Every entry is in the compacted state or in the ring, or counted as lost.
    async fn compare_compacted(&self, of: GatewayId) {
        let [left, right] = self.compacted(of, Seq(0), crate::contract::ALL).await;
        assert_eq!(left, right);
        let in_ring = left.newest.next().0 - left.oldest.0;
        assert_eq!(left.lost_after(Seq(0)) + left.entries.len() as u64 + in_ring, left.newest.0);
    }

    async fn compare(&self) {
        for of in (0..3).map(gateway) {
            let [sled, memory] = self.engines();
            let (left, right) = (sled.bounds(of).await.unwrap(), memory.bounds(of).await.unwrap());
            let facts = |bounds: crate::Bounds| (bounds.oldest, bounds.newest, bounds.bytes);
            assert_eq!(facts(left), facts(right));
            let from = |epoch| Cursor { epoch, seq: left.oldest.prev() };
            let left = sled.read(of, from(left.epoch), crate::contract::ALL).await.unwrap();
            assert_eq!(left, memory.read(of, from(right.epoch), crate::contract::ALL).await.unwrap());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn any_history_reads_the_same_on_disk_and_in_memory(steps in proptest::collection::vec(step(), 1..120)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        runtime.block_on(async {
            let mut pair = Pair::open().await;
            for step in steps {
                // Looking at the compacted state makes an engine catch up with it, so it is not always looked at.
                let look = matches!(step, Step::ReadCompacted { .. } | Step::Reopen);
                pair.run(step).await;
                pair.compare().await;
                if look {
                    for of in (0..3).map(gateway) {
                        pair.compare_compacted(of).await;
                    }
                }
            }
        });
    }
}
