//! The compacted state: exactly what [`crate::compaction`] says, whenever it is read.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::{ALL, LogHost, ROOMY, Rig, gateway};
use crate::compaction::{Compacted, Compaction};
use crate::ids::{Cursor, Epoch, GatewayId, Seq};
use crate::log::{Budget, Draft, Page, Retention};

const SHORT: Retention = Retention { max_events: 3, ..ROOMY };

impl Rig<'_> {
    async fn set(&self, of: GatewayId, key: &str, body: &str) -> Cursor {
        let draft = Draft { key: Some(Bytes::copy_from_slice(key.as_bytes())), ..self.draft(body) };
        self.log().append(of, draft).await.unwrap()
    }

    async fn end(&self, of: GatewayId, key: &str) -> Cursor {
        let key = Some(Bytes::copy_from_slice(key.as_bytes()));
        self.log().append(of, Draft { key, ends_key: true, ..self.draft("gone") }).await.unwrap()
    }

    async fn compacted(&self, of: GatewayId, after: u64, max: Budget) -> Compacted {
        let epoch = self.log().bounds(of).await.unwrap().epoch;
        self.log().compacted(of, Cursor { epoch, seq: Seq(after) }, max).await.unwrap()
    }

    /// Positions and keys of all compacted entries.
    async fn state(&self, of: GatewayId) -> Vec<(u64, String)> {
        let page = self.compacted(of, 0, ALL).await;
        assert_eq!(page.left, 0);
        assert_eq!(page.oldest, self.log().bounds(of).await.unwrap().oldest);
        let key = |key: Option<Bytes>| String::from_utf8(key.unwrap().to_vec()).unwrap();
        page.entries.into_iter().map(|entry| (entry.seq.0, key(entry.key))).collect()
    }
}

fn pairs(pairs: &[(u64, &str)]) -> Vec<(u64, String)> {
    pairs.iter().map(|(seq, key)| (*seq, (*key).to_owned())).collect()
}

/// Of each key the latest of those that have left the ring, as it was appended; entries without a key leave nothing.
pub async fn the_latest_entry_of_each_key_that_left_the_ring_is_kept(host: &dyn LogHost) {
    let (rig, of) = (Rig::open(host, SHORT).await, gateway());
    assert_eq!(rig.state(of).await, []);
    for key in ["a", "b", "a"] {
        rig.set(of, key, "in the ring").await;
    }
    assert_eq!(rig.state(of).await, []);
    rig.append(of, "no key").await;
    assert_eq!(rig.state(of).await, pairs(&[(1, "a")]));
    rig.append(of, "no key").await;
    assert_eq!(rig.state(of).await, pairs(&[(1, "a"), (2, "b")]));
    for _ in 0..3 {
        rig.append(of, "no key").await;
    }
    assert_eq!(rig.state(of).await, pairs(&[(2, "b"), (3, "a")]));
    let page = rig.compacted(of, 0, ALL).await;
    let heard: Vec<_> = rig.ear.heard(of).into_iter().map(|(_, entry)| entry).collect();
    assert_eq!(page.entries, heard[1..=2], "byte for byte");
    assert_eq!((page.lost_after(Seq(0)), rig.compacted(of, 2, ALL).await.lost_after(Seq(2))), (3, 2));
}

/// A page has what fits, and says how many follow; its last position is the cursor for the next.
pub async fn compacted_state_is_read_in_pages_from_any_position(host: &dyn LogHost) {
    let (rig, of) = (Rig::open(host, SHORT).await, gateway());
    for number in 0..20 {
        rig.set(of, &format!("{number}"), "four").await;
    }
    let size = |events, bytes| Budget { events, bytes };
    for (after, max, first, count) in
        [(0, size(5, 999), 1, 5), (5, size(99, 12), 6, 3), (9, size(99, 0), 10, 1), (10, size(99, 999), 11, 7)]
    {
        let page = rig.compacted(of, after, max).await;
        let seqs: Vec<_> = page.entries.iter().map(|entry| entry.seq.0).collect();
        assert_eq!(seqs, (first..first + count).collect::<Vec<_>>());
        assert_eq!(page.left, 17 - (first + count - 1));
        assert_eq!(page.lost_after(Seq(after)), 0);
    }
    for after in [17, 18, 20, u64::MAX] {
        let page = rig.compacted(of, after, ALL).await;
        assert_eq!((page.entries.len(), page.left, page.lost_after(Seq(after))), (0, 0, 0));
    }
    let elsewhere = Cursor { epoch: Epoch(rig.compacted(of, 0, ALL).await.epoch.0 ^ 1), seq: Seq(15) };
    assert_eq!(rig.log().compacted(of, elsewhere, ALL).await.unwrap().entries.len(), 17, "from the beginning");
}

/// Also those whose rows an engine still has: by age, by bytes and by count.
pub async fn compacted_state_and_ring_are_of_one_moment(host: &dyn LogHost) {
    let retention = Retention { max_events: 300, max_bytes: 2_000, max_age: Duration::from_secs(60), ..ROOMY };
    let (rig, of) = (Rig::open(host, retention).await, gateway());
    for step in 0..400_usize {
        rig.set(of, &format!("{}", step * step % 31), &"x".repeat(step * 7 % 23)).await;
        rig.clock.advance(Duration::from_millis((step as u64 * 37) % 900));
        if step % 7 != 0 {
            continue;
        }
        let page = rig.compacted(of, 0, ALL).await;
        let mut latest = BTreeMap::new();
        for (_, entry) in rig.ear.heard(of).into_iter().filter(|(_, entry)| entry.seq < page.oldest) {
            latest.insert(entry.key.clone(), entry);
        }
        let mut latest: Vec<_> = latest.into_values().collect();
        latest.sort_by_key(|entry| entry.seq);
        assert_eq!(page.entries, latest);
        let Page::Entries(ring) = rig.after(of, page.oldest.prev().0).await else { panic!("not held") };
        assert_eq!(page.lost_after(Seq(0)) + page.entries.len() as u64 + ring.len() as u64, page.newest.0);
    }
    rig.clock.advance(Duration::from_secs(61));
    assert_eq!(rig.compacted(of, 0, ALL).await.oldest, Seq(401), "the ring is empty");
    assert_eq!(rig.state(of).await.len(), rig.compacted(of, 0, ALL).await.entries.len());
}

/// A deletion is the latest entry of its key, until the key begins anew.
pub async fn a_tombstone_is_kept_as_the_latest_of_its_key(host: &dyn LogHost) {
    let (rig, of) = (Rig::open(host, Retention { max_events: 1, ..ROOMY }).await, gateway());
    rig.set(of, "a", "1").await;
    rig.end(of, "a").await;
    rig.append(of, "x").await;
    assert_eq!(rig.state(of).await, pairs(&[(2, "a")]));
    assert!(rig.compacted(of, 0, ALL).await.entries[0].ends_key);
    rig.set(of, "a", "2").await;
    rig.append(of, "x").await;
    assert_eq!(rig.state(of).await, pairs(&[(4, "a")]));
    assert!(!rig.compacted(of, 0, ALL).await.entries[0].ends_key);
}

/// The oldest tombstones go first, then the oldest entries; what goes is counted as lost, and it is said how far.
pub async fn compacted_state_is_bounded_by_keys(host: &dyn LogHost) {
    let compaction = Compaction { max_keys: 3, ..Compaction::DEFAULT };
    let (rig, of) = (Rig::open(host, Retention { max_events: 1, compaction, ..ROOMY }).await, gateway());
    rig.set(of, "a", "").await;
    rig.set(of, "b", "").await;
    rig.end(of, "c").await;
    rig.append(of, "x").await;
    assert_eq!(rig.state(of).await, pairs(&[(1, "a"), (2, "b"), (3, "c")]));
    rig.set(of, "d", "").await;
    rig.append(of, "x").await;
    assert_eq!(rig.state(of).await, pairs(&[(1, "a"), (2, "b"), (5, "d")]));
    assert_eq!(rig.compacted(of, 0, ALL).await.let_go, Seq(3));
    rig.set(of, "e", "").await;
    rig.append(of, "x").await;
    assert_eq!(rig.state(of).await, pairs(&[(2, "b"), (5, "d"), (7, "e")]));
    let page = rig.compacted(of, 0, ALL).await;
    // Position 8 is in the ring; 1, 3, 4 and 6 will never come.
    assert_eq!((page.let_go, page.lost_after(Seq(0))), (Seq(3), 4));
    rig.set(of, "b", "").await;
    rig.append(of, "x").await;
    assert_eq!(rig.state(of).await, pairs(&[(5, "d"), (7, "e"), (9, "b")]), "no new key, nothing goes");
}

/// Keys and bodies count.
pub async fn compacted_state_is_bounded_by_bytes(host: &dyn LogHost) {
    let compaction = Compaction { max_bytes: 100, ..Compaction::DEFAULT };
    let (rig, of) = (Rig::open(host, Retention { max_events: 1, compaction, ..ROOMY }).await, gateway());
    let big = "x".repeat(49);
    for key in ["a", "b"] {
        rig.set(of, key, &big).await;
    }
    rig.append(of, "x").await;
    assert_eq!(rig.state(of).await.len(), 2);
    rig.set(of, "c", "").await;
    rig.append(of, "x").await;
    assert_eq!(rig.state(of).await, pairs(&[(2, "b"), (4, "c")]));
    rig.set(of, "d", &"x".repeat(200)).await;
    rig.append(of, "x").await;
    assert_eq!(rig.state(of).await, [], "larger than all that may be kept");
    assert_eq!(rig.compacted(of, 0, ALL).await.let_go, Seq(6));
}

/// Against the time of what is folded, so that a log at rest forgets nothing.
pub async fn old_tombstones_are_let_go(host: &dyn LogHost) {
    let compaction = Compaction { max_tombstone_age: Duration::from_secs(100), ..Compaction::DEFAULT };
    let (rig, of) = (Rig::open(host, Retention { max_events: 1, compaction, ..ROOMY }).await, gateway());
    rig.end(of, "a").await;
    rig.set(of, "b", "").await;
    rig.append(of, "x").await;
    rig.clock.advance(Duration::from_secs(100));
    assert_eq!(rig.state(of).await, pairs(&[(1, "a"), (2, "b")]));
    rig.set(of, "c", "").await;
    rig.append(of, "x").await;
    assert_eq!(rig.state(of).await, pairs(&[(1, "a"), (2, "b"), (4, "c")]), "exactly of that age");
    rig.clock.advance(Duration::from_millis(1));
    rig.set(of, "d", "").await;
    rig.append(of, "x").await;
    assert_eq!(rig.state(of).await, pairs(&[(2, "b"), (4, "c"), (6, "d")]));
    assert_eq!(rig.compacted(of, 0, ALL).await.let_go, Seq(1));
}

/// With what it counts, and it goes on exactly there.
pub async fn compacted_state_survives_a_reopen(host: &dyn LogHost) {
    let compaction = Compaction { max_keys: 25, ..Compaction::DEFAULT };
    let (mut rig, of) = (Rig::open(host, Retention { max_events: 16, compaction, ..ROOMY }).await, gateway());
    let mut step = 0_u64;
    for _ in 0..4 {
        for _ in 0..90 {
            step += 1;
            let key = format!("{}", step * step % 61);
            if step.is_multiple_of(5) {
                rig.end(of, &key).await
            } else {
                rig.set(of, &key, "x").await
            };
        }
        let before = rig.compacted(of, 0, ALL).await;
        assert!(before.entries.len() <= 25 && before.let_go > Seq(0));
        rig.reopen().await;
        assert_eq!(rig.compacted(of, 0, ALL).await, before);
        let half = before.entries[before.entries.len() / 2].seq;
        let rest = before.entries.iter().filter(|entry| entry.seq > half).cloned().collect::<Vec<_>>();
        assert_eq!(rig.compacted(of, half.0, ALL).await.entries, rest);
    }
}

/// And not that of its neighbour.
pub async fn a_forgotten_log_leaves_no_compacted_state(host: &dyn LogHost) {
    let (mut rig, of, neighbour) = (Rig::open(host, SHORT).await, gateway(), gateway());
    for log in [of, neighbour] {
        for number in 0..400 {
            rig.set(log, &format!("{number}"), "x").await;
        }
        assert_eq!(rig.state(log).await.len(), 397);
    }
    rig.log().forget(of).await.unwrap();
    assert_eq!(rig.state(of).await, []);
    rig.reopen().await;
    assert_eq!(rig.state(of).await, []);
    for _ in 0..8 {
        rig.append(of, "x").await;
    }
    assert_eq!(rig.state(of).await, []);
    assert_eq!(rig.compacted(of, 0, ALL).await.lost_after(Seq(0)), 5);
    assert_eq!(rig.state(neighbour).await.len(), 397);
}

/// While the log goes on under them: the map that a reader makes is that of one that has read everything.
pub async fn readers_of_compacted_state_beside_writers_reach_the_state(host: &dyn LogHost) {
    const LAST: u64 = 900;
    let (rig, of) = (Rig::open(host, Retention { max_events: 8, ..ROOMY }).await, gateway());
    let start = rig.log().bounds(of).await.unwrap().head();
    let readers = (0..3).map(|reader| {
        let log = std::sync::Arc::clone(rig.log());
        tokio::spawn(async move {
            let max = Budget { events: 3 + reader, bytes: 1_000 };
            let (mut at, mut map) = (start, BTreeMap::new());
            while at.seq < Seq(LAST) {
                let page = log.compacted(of, at, max).await.unwrap();
                let is_all = page.left == 0;
                for entry in page.entries {
                    assert!(entry.seq > at.seq && entry.seq < page.oldest);
                    at.seq = entry.seq;
                    map.insert(entry.key.unwrap(), entry.body);
                }
                if !is_all {
                    continue;
                }
                at.seq = at.seq.max(page.oldest.prev());
                while let Page::Entries(entries) = log.read(of, at, max).await.unwrap() {
                    for entry in entries {
                        assert_eq!(entry.seq, at.seq.next());
                        at.seq = entry.seq;
                        map.insert(entry.key.unwrap(), entry.body);
                    }
                    if at.seq >= Seq(LAST) {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            }
            map
        })
    });
    let readers: Vec<_> = readers.collect();
    let mut all = BTreeMap::new();
    for seq in 1..=LAST {
        let key = format!("{}", seq * seq % 97);
        rig.set(of, &key, &seq.to_string()).await;
        all.insert(Bytes::from(key), Bytes::from(seq.to_string()));
    }
    for reader in readers {
        assert_eq!(reader.await.unwrap(), all);
    }
}
