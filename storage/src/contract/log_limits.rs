//! What retention lets go of: exactly what the bounds say, for readers at once.

use std::time::Duration;

use bytes::Bytes;

use super::{ALL, LogHost, ROOMY, Rig, gateway};
use crate::clock::Clock;
use crate::ids::{Cursor, GatewayId, Seq};
use crate::log::{Draft, Page, Retention};

/// What the bounds say is what reads say, from every position.
async fn check(rig: &Rig<'_>, of: GatewayId, oldest: u64, newest: u64, bytes: u64) {
    let bounds = rig.log().bounds(of).await.unwrap();
    assert_eq!((bounds.oldest.0, bounds.newest.0, bounds.bytes), (oldest, newest, bytes));
    for seq in oldest.saturating_sub(3)..=newest {
        let cursor = Cursor { epoch: bounds.epoch, seq: Seq(seq) };
        let page = rig.log().read(of, cursor, ALL).await.unwrap();
        if seq + 1 < oldest {
            assert_eq!(page, Page::Truncated { oldest: Seq(oldest) }, "after {seq}");
        } else {
            let Page::Entries(entries) = page else { panic!("after {seq}: {page:?}") };
            let seqs: Vec<_> = entries.iter().map(|entry| entry.seq.0).collect();
            assert_eq!(seqs, (seq + 1..=newest).collect::<Vec<_>>());
        }
    }
}

/// Far beyond the point where an engine deletes rows.
pub async fn the_count_is_bounded_exactly(host: &dyn LogHost) {
    let (rig, of) = (Rig::open(host, Retention { max_events: 5, ..ROOMY }).await, gateway());
    for seq in 1..=40_u64 {
        rig.append(of, "xxx").await;
        check(&rig, of, seq.saturating_sub(4).max(1), seq, 3 * seq.min(5)).await;
    }
}

/// Keys count, and an entry that fits exactly is kept.
pub async fn the_bytes_are_bounded_exactly(host: &dyn LogHost) {
    let (rig, of) = (Rig::open(host, Retention { max_bytes: 100, ..ROOMY }).await, gateway());
    let append = async |size: usize| {
        let draft = Draft { key: Some(Bytes::from_static(b"1234")), ..rig.draft(&"x".repeat(size - 4)) };
        rig.log().append(of, draft).await.unwrap()
    };
    append(40).await;
    append(40).await;
    append(20).await;
    check(&rig, of, 1, 3, 100).await;
    append(4).await;
    check(&rig, of, 2, 4, 64).await;
    append(90).await;
    check(&rig, of, 4, 5, 94).await;
    for seq in 6..60 {
        append(50).await;
        check(&rig, of, seq - u64::from(seq > 6), seq, if seq > 6 { 100 } else { 50 }).await;
    }
}

/// It alone then.
pub async fn the_newest_entry_is_kept_whatever_its_size(host: &dyn LogHost) {
    let (rig, of) = (Rig::open(host, Retention { max_bytes: 10, ..ROOMY }).await, gateway());
    for seq in 1..=20 {
        rig.append(of, &"x".repeat(1_000)).await;
        check(&rig, of, seq, seq, 1_000).await;
    }
    rig.append(of, "small").await;
    check(&rig, of, 21, 21, 5).await;
}

/// An entry of exactly the age is kept, a millisecond later it is gone, without any append.
pub async fn the_age_is_bounded_exactly(host: &dyn LogHost) {
    let (rig, of) = (Rig::open(host, Retention { max_age: Duration::from_secs(60), ..ROOMY }).await, gateway());
    for _ in 0..3 {
        rig.append(of, "xx").await;
        rig.clock.advance(Duration::from_secs(20));
    }
    check(&rig, of, 1, 3, 6).await;
    rig.clock.advance(Duration::from_millis(1));
    check(&rig, of, 2, 3, 4).await;
    rig.clock.advance(Duration::from_secs(20));
    check(&rig, of, 3, 3, 2).await;
    rig.clock.advance(Duration::from_secs(20));
    check(&rig, of, 4, 3, 0).await;
    rig.append(of, "x").await;
    check(&rig, of, 4, 4, 1).await;
}

/// What is held is dense, so it cannot go before what comes before it.
pub async fn an_old_entry_behind_a_young_one_waits_for_it(host: &dyn LogHost) {
    let (rig, of) = (Rig::open(host, Retention { max_age: Duration::from_secs(60), ..ROOMY }).await, gateway());
    for at in [rig.clock.now(), rig.clock.now() - chrono::TimeDelta::seconds(90)] {
        rig.log().append(of, Draft { at, ..rig.draft("x") }).await.unwrap();
    }
    check(&rig, of, 1, 2, 2).await;
    rig.clock.advance(Duration::from_millis(60_001));
    check(&rig, of, 3, 2, 0).await;
}

/// Whatever the engine had deleted by then.
pub async fn all_bounds_hold_after_a_reopen(host: &dyn LogHost) {
    let retention = Retention { max_events: 50, max_bytes: 1_000, max_age: Duration::from_secs(100), ..ROOMY };
    let (mut rig, of) = (Rig::open(host, retention).await, gateway());
    for size in (0..130).map(|n| n % 40) {
        rig.append(of, &"x".repeat(size)).await;
        rig.clock.advance(Duration::from_secs(1));
    }
    for _ in 0..4 {
        let before = rig.log().bounds(of).await.unwrap();
        assert!(before.events() <= 50 && before.bytes <= 1_000 && before.events() > 0);
        rig.reopen().await;
        check(&rig, of, before.oldest.0, before.newest.0, before.bytes).await;
        rig.clock.advance(Duration::from_secs(20));
        rig.append(of, "xx").await;
    }
}

/// The empty log still knows where it was, also when reopened.
pub async fn positions_go_on_after_everything_aged_out(host: &dyn LogHost) {
    let retention = Retention { max_events: 4, max_age: Duration::from_secs(60), ..ROOMY };
    let (mut rig, of) = (Rig::open(host, retention).await, gateway());
    let mut newest = 0;
    for _ in 0..3 {
        for _ in 0..9 {
            rig.append(of, "x").await;
            newest += 1;
        }
        rig.clock.advance(Duration::from_secs(61));
        check(&rig, of, newest + 1, newest, 0).await;
        rig.reopen().await;
        check(&rig, of, newest + 1, newest, 0).await;
    }
}

/// At every step of a long run under all bounds.
pub async fn bounds_agree_with_reads_all_the_way(host: &dyn LogHost) {
    let retention = Retention { max_events: 8, max_bytes: 60, max_age: Duration::from_secs(10), ..ROOMY };
    let (rig, of) = (Rig::open(host, retention).await, gateway());
    for step in 0..120_usize {
        rig.append(of, &"x".repeat(step * 7 % 23)).await;
        rig.clock.advance(Duration::from_secs((step as u64 * 5) % 4));
        let bounds = rig.log().bounds(of).await.unwrap();
        let Page::Entries(entries) = rig.after(of, bounds.oldest.prev().0).await else { panic!("not held") };
        assert_eq!(entries.len() as u64, bounds.events());
        assert_eq!(entries.iter().map(crate::Entry::size).sum::<u64>(), bounds.bytes);
        assert!(bounds.events() <= 8 && bounds.bytes <= 60);
        if let Some(missed) = bounds.oldest.0.checked_sub(2) {
            assert_eq!(rig.after(of, missed).await, Page::Truncated { oldest: bounds.oldest });
        }
    }
}
