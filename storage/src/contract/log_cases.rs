//! What a log does for one caller at a time.

use bytes::Bytes;
use chrono::TimeDelta;
use tokio::time::Instant;

use super::{ALL, LogHost, ROOMY, Rig, gateway, texts};
use crate::clock::Clock;
use crate::ids::{Cursor, Epoch, Seq};
use crate::log::{Budget, Draft, LogError, Page};

/// The first position is 1, and none is left out.
pub async fn positions_are_dense_from_one(host: &dyn LogHost) {
    let (rig, of) = (Rig::open(host, ROOMY).await, gateway());
    let epoch = rig.log().bounds(of).await.unwrap().epoch;
    for seq in 1..=20 {
        assert_eq!(rig.append(of, "x").await, Cursor { epoch, seq: Seq(seq) });
    }
    let held: Vec<_> = rig.held(of).await.into_iter().map(|(seq, _)| seq).collect();
    assert_eq!(held, (1..=20).collect::<Vec<_>>());
}

/// Time (to the millisecond), key and body come back, also where they are empty.
pub async fn an_entry_is_read_as_it_was_appended(host: &dyn LogHost) {
    let (rig, of) = (Rig::open(host, ROOMY).await, gateway());
    let at = rig.clock.now() + TimeDelta::microseconds(1_999);
    let keys = [None, Some(Bytes::new()), Some(Bytes::from_static(b"api-1")), Some(Bytes::from(vec![0xff; 300]))];
    let bodies = [Bytes::new(), Bytes::from_static(b"\0\xff"), Bytes::from(vec![7; 200_000])];
    for key in &keys {
        for body in &bodies {
            let draft = Draft {
                at,
                since: Instant::now(),
                key: key.clone(),
                ends_key: false,
                body: body.clone(),
                expect: None,
                beside: Vec::new(),
            };
            rig.log().append(of, draft).await.unwrap();
        }
    }
    let Page::Entries(entries) = rig.after(of, 0).await else { panic!("no entries") };
    let read: Vec<_> = entries.iter().map(|entry| (entry.key.clone(), entry.body.clone())).collect();
    let put: Vec<_> = keys.iter().flat_map(|key| bodies.iter().map(|body| (key.clone(), body.clone()))).collect();
    assert_eq!(read, put);
    assert!(entries.iter().all(|entry| entry.at == rig.clock.now() + TimeDelta::milliseconds(1)));
}

/// Gateways whose ids are neighbours have logs of their own.
pub async fn logs_do_not_mix(host: &dyn LogHost) {
    let rig = Rig::open(host, ROOMY).await;
    let ids = [0, 1, 255, 256, u128::MAX - 1, u128::MAX].map(|id| crate::GatewayId(uuid::Uuid::from_u128(id)));
    for round in ["a", "b"] {
        for id in ids {
            rig.append(id, &format!("{round} of {id}")).await;
        }
    }
    for id in ids {
        assert_eq!(rig.held(id).await, [(1, format!("a of {id}")), (2, format!("b of {id}"))]);
    }
}

/// Neither bound of a budget is passed, but for the first entry.
pub async fn a_read_stays_within_its_budget_but_gives_at_least_one_entry(host: &dyn LogHost) {
    let (rig, of) = (Rig::open(host, ROOMY).await, gateway());
    for body in ["aaaa", "bbbb", "cccc", "dddd"] {
        rig.append(of, body).await;
    }
    let start = Cursor { epoch: rig.log().bounds(of).await.unwrap().epoch, seq: Seq(0) };
    for (events, bytes, given) in [(1, 99, 1), (3, 99, 3), (9, 99, 4), (9, 12, 3), (9, 11, 2), (9, 4, 1), (9, 0, 1)] {
        let page = rig.log().read(of, start, Budget { events, bytes }).await.unwrap();
        assert_eq!(texts(page).len(), given, "{events} events, {bytes} bytes");
    }
}

/// Also in a log that never had an entry.
pub async fn a_read_at_the_newest_position_is_empty(host: &dyn LogHost) {
    let (rig, of) = (Rig::open(host, ROOMY).await, gateway());
    assert_eq!(rig.after(of, 0).await, Page::Entries(Vec::new()));
    rig.append(of, "x").await;
    assert_eq!(rig.after(of, 1).await, Page::Entries(Vec::new()));
}

/// Whatever its position.
pub async fn a_cursor_of_another_epoch_is_told_so(host: &dyn LogHost) {
    let (rig, of) = (Rig::open(host, ROOMY).await, gateway());
    let now = rig.append(of, "x").await.epoch;
    for seq in [0, 1, 2] {
        let cursor = Cursor { epoch: Epoch(now.0.wrapping_add(1)), seq: Seq(seq) };
        assert_eq!(rig.log().read(of, cursor, ALL).await.unwrap(), Page::WrongEpoch { now });
    }
}

/// By one, and by as much as there is.
pub async fn a_cursor_ahead_is_told_so(host: &dyn LogHost) {
    let (rig, of) = (Rig::open(host, ROOMY).await, gateway());
    rig.append(of, "x").await;
    for seq in [2, u64::MAX] {
        assert_eq!(rig.after(of, seq).await, Page::Ahead { newest: Seq(1) });
    }
}

/// And stores nothing; the right expectation holds, also for an empty log.
pub async fn an_append_that_expects_another_head_conflicts(host: &dyn LogHost) {
    let (rig, of) = (Rig::open(host, ROOMY).await, gateway());
    let empty = rig.log().bounds(of).await.unwrap().head();
    let expecting = |expect| Draft { expect: Some(expect), ..rig.draft("x") };
    let first = rig.log().append(of, expecting(empty)).await.unwrap();
    let other_epoch = Cursor { epoch: Epoch(first.epoch.0.wrapping_add(1)), ..first };
    for wrong in [empty, other_epoch, Cursor { seq: Seq(2), ..first }] {
        let refused = rig.log().append(of, expecting(wrong)).await;
        assert!(matches!(refused, Err(LogError::Conflict { head }) if head == first), "{refused:?}");
    }
    assert_eq!(rig.log().append(of, expecting(first)).await.unwrap().seq, Seq(2));
    assert_eq!(rig.held(of).await.len(), 2);
}

/// Another epoch, no entries, positions from 1; forgetting is idempotent.
pub async fn a_forgotten_log_starts_anew(host: &dyn LogHost) {
    let (rig, of, neighbour) = (Rig::open(host, ROOMY).await, gateway(), gateway());
    rig.append(neighbour, "kept").await;
    rig.log().forget(gateway()).await.unwrap();
    for round in 0..3 {
        for _ in 0..600 {
            // More than an engine deletes in one go, so that leftovers would show.
            let _ = rig.append(of, "old").await;
            if round > 0 {
                break;
            }
        }
        let before = rig.append(of, "old").await;
        rig.log().forget(of).await.unwrap();
        rig.log().forget(of).await.unwrap();
        let bounds = rig.log().bounds(of).await.unwrap();
        assert_ne!(bounds.epoch, before.epoch);
        assert_eq!((bounds.oldest, bounds.newest, bounds.bytes), (Seq(1), Seq(0), 0));
        let page = rig.log().read(of, before, ALL).await.unwrap();
        assert_eq!(page, Page::WrongEpoch { now: bounds.epoch });
    }
    rig.append(of, "new").await;
    assert_eq!(rig.held(of).await, [(1, "new".to_owned())]);
    assert_eq!(rig.held(neighbour).await, [(1, "kept".to_owned())]);
}

/// Page by page, also over a reopen.
pub async fn every_gateway_that_has_a_log_is_listed_once(host: &dyn LogHost) {
    let (mut rig, mut all) = (Rig::open(host, ROOMY).await, Vec::new());
    assert_eq!(rig.log().gateways(None, 9).await.unwrap(), []);
    for _ in 0..7 {
        let of = gateway();
        rig.log().bounds(of).await.unwrap();
        all.push(of);
    }
    rig.log().forget(all.pop().unwrap()).await.unwrap();
    rig.append(all[0], "x").await;
    all.sort();
    rig.reopen().await;
    for at_once in 1..9 {
        let (mut found, mut last) = (Vec::new(), None);
        loop {
            let page = rig.log().gateways(last, at_once).await.unwrap();
            assert!(page.len() <= at_once);
            let Some(of) = page.last() else { break };
            last = Some(*of);
            found.extend(page);
        }
        assert_eq!(found, all, "{at_once} at once");
    }
}

/// Also over a reopen; an epoch that never was has none.
pub async fn an_epoch_has_its_owner_until_it_is_over(host: &dyn LogHost) {
    let (mut rig, logs) = (Rig::open(host, ROOMY).await, [gateway(), gateway()]);
    let first = rig.append(logs[0], "x").await.epoch;
    let second = rig.log().bounds(logs[1]).await.unwrap().epoch;
    rig.reopen().await;
    assert_eq!(rig.log().owner_of(first).await.unwrap(), Some(logs[0]));
    assert_eq!(rig.log().owner_of(second).await.unwrap(), Some(logs[1]));
    let never = Epoch::unused(|epoch| epoch == first || epoch == second);
    assert_eq!(rig.log().owner_of(never).await.unwrap(), None);
    rig.log().forget(logs[0]).await.unwrap();
    let third = rig.append(logs[0], "x").await.epoch;
    assert_eq!(rig.log().owner_of(first).await.unwrap(), None);
    assert_eq!(rig.log().owner_of(third).await.unwrap(), Some(logs[0]));
}

/// With epoch, bounds, times and keys; positions go on.
pub async fn answered_entries_survive_a_reopen(host: &dyn LogHost) {
    let (mut rig, logs) = (Rig::open(host, ROOMY).await, [gateway(), gateway()]);
    for round in 0..3 {
        for of in logs {
            for number in 0..40 {
                let key = (number % 2 == 0).then(|| Bytes::from(format!("key {number}")));
                let draft = Draft { key, ..rig.draft(&"x".repeat(number * 300)) };
                rig.log().append(of, draft).await.unwrap();
            }
        }
        let mut before = Vec::new();
        for of in logs {
            before.push((rig.log().bounds(of).await.unwrap(), rig.after(of, 0).await));
        }
        rig.reopen().await;
        for (of, (bounds, page)) in logs.into_iter().zip(before) {
            assert_eq!(rig.log().bounds(of).await.unwrap(), bounds, "round {round}");
            assert_eq!(rig.after(of, 0).await, page, "round {round}");
            assert_eq!(rig.append(of, "next").await, Cursor { seq: bounds.newest.next(), ..bounds.head() });
        }
    }
}

/// Its leftovers do not come back, whether or not a new log was begun.
pub async fn a_forgotten_log_stays_forgotten_after_a_reopen(host: &dyn LogHost) {
    let (mut rig, of, begun) = (Rig::open(host, ROOMY).await, gateway(), gateway());
    let mut epochs = Vec::new();
    for gateway in [of, begun] {
        for _ in 0..400 {
            let _ = rig.append(gateway, "old").await;
        }
        epochs.push(rig.append(gateway, "old").await.epoch);
        rig.log().forget(gateway).await.unwrap();
    }
    rig.append(begun, "new").await;
    rig.reopen().await;
    assert_eq!(rig.held(of).await, []);
    assert_eq!(rig.held(begun).await, [(1, "new".to_owned())]);
    for (gateway, old) in [of, begun].into_iter().zip(epochs) {
        assert_ne!(rig.log().bounds(gateway).await.unwrap().epoch, old);
    }
}

/// A gateway's first cursor holds although nothing was published yet.
pub async fn bounds_create_a_log_that_survives_a_reopen(host: &dyn LogHost) {
    let (mut rig, of) = (Rig::open(host, ROOMY).await, gateway());
    let before = rig.log().bounds(of).await.unwrap();
    assert_eq!(before.events(), 0);
    rig.reopen().await;
    assert_eq!(rig.log().bounds(of).await.unwrap(), before);
    assert_eq!(rig.append(of, "x").await, Cursor { seq: Seq(1), ..before.head() });
}

/// In order, with what readers see.
pub async fn the_follower_hears_each_entry_once_before_the_answer(host: &dyn LogHost) {
    let (rig, of) = (Rig::open(host, ROOMY).await, gateway());
    for number in 1..=20 {
        let cursor = rig.append(of, &format!("{number}")).await;
        let heard = rig.ear.heard(of);
        assert_eq!(heard.len(), number);
        assert_eq!(rig.ear.told(), number, "who waits for it is woken before it is answered");
        assert!(heard.last().is_some_and(|(epoch, last)| (*epoch, last.seq) == (cursor.epoch, cursor.seq)));
    }
    let heard: Vec<_> = rig.ear.heard(of).into_iter().map(|(_, entry)| entry).collect();
    assert_eq!(rig.after(of, 0).await, Page::Entries(heard));
}
