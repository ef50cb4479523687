//! What a log does for many callers at once.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use super::{ALL, LogHost, ROOMY, Rig, gateway, texts};
use crate::ids::{Cursor, Seq};
use crate::log::{Budget, Draft, LogError, Page, Retention};

/// That of the follower, of readers and of each writer.
pub async fn concurrent_appends_to_one_gateway_have_one_order(host: &dyn LogHost) {
    const WRITERS: usize = 16;
    const EACH: usize = 25;
    let (rig, of) = (Rig::open(host, ROOMY).await, gateway());
    let writers = (0..WRITERS).map(|writer| {
        let (log, draft) = (Arc::clone(rig.log()), rig.draft(""));
        tokio::spawn(async move {
            let mut seqs = Vec::new();
            for number in 0..EACH {
                let draft = Draft { body: format!("{writer} {number}").into(), ..draft.clone() };
                seqs.push((log.append(of, draft).await.unwrap().seq.0, format!("{writer} {number}")));
            }
            assert!(seqs.is_sorted());
            seqs
        })
    });
    let mut answered = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        answered.extend(writer.await.unwrap());
    }
    answered.sort_unstable();
    let held = rig.held(of).await;
    assert_eq!(held.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), (1..=400).collect::<Vec<_>>());
    assert_eq!(held, answered);
    let heard = rig.ear.heard(of).into_iter().map(|(_, entry)| entry).collect();
    assert_eq!(texts(Page::Entries(heard)), held);
}

/// Each log has what was appended to it, in the order of its writer.
pub async fn concurrent_appends_to_many_gateways_do_not_mix(host: &dyn LogHost) {
    let rig = Rig::open(host, ROOMY).await;
    let writers = (0..40).map(|_| {
        let (log, draft, of) = (Arc::clone(rig.log()), rig.draft(""), gateway());
        tokio::spawn(async move {
            for number in 1..=20 {
                let draft = Draft { body: format!("{of} {number}").into(), ..draft.clone() };
                assert_eq!(log.append(of, draft).await.unwrap().seq, Seq(number));
            }
            of
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        let of = writer.await.unwrap();
        let expected: Vec<_> = (1..=20).map(|number| (number, format!("{of} {number}"))).collect();
        assert_eq!(rig.held(of).await, expected);
        let heard = rig.ear.heard(of).into_iter().map(|(_, entry)| entry).collect();
        assert_eq!(texts(Page::Entries(heard)), expected);
    }
}

/// The others conflict with it.
pub async fn one_of_many_appends_with_the_same_expectation_wins(host: &dyn LogHost) {
    let (rig, of) = (Rig::open(host, ROOMY).await, gateway());
    for round in 0..10 {
        let head = rig.log().bounds(of).await.unwrap().head();
        let next = Cursor { seq: head.seq.next(), ..head };
        let tries = (0..8).map(|_| {
            let (log, draft) = (Arc::clone(rig.log()), Draft { expect: Some(head), ..rig.draft("x") });
            tokio::spawn(async move { log.append(of, draft).await })
        });
        let mut won = 0;
        for attempt in tries.collect::<Vec<_>>() {
            match attempt.await.unwrap() {
                Ok(cursor) => {
                    assert_eq!(cursor, next);
                    won += 1;
                }
                Err(LogError::Conflict { head }) => assert_eq!(head, next),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(won, 1, "round {round}");
    }
}

/// A reader that is woken by the follower never finds less than it was told of.
pub async fn an_entry_is_readable_when_the_follower_hears_of_it(host: &dyn LogHost) {
    let (rig, of) = (Rig::open(host, ROOMY).await, gateway());
    let mut told = rig.ear.listen();
    let (log, draft) = (Arc::clone(rig.log()), rig.draft("x"));
    let writer = tokio::spawn(async move {
        for _ in 0..100 {
            log.append(of, draft.clone()).await.unwrap();
        }
    });
    for seq in 1..=100 {
        let (gateway, cursor) = told.recv().await.unwrap();
        assert_eq!((gateway, cursor.seq), (of, Seq(seq)));
        let before = Cursor { seq: cursor.seq.prev(), ..cursor };
        let page = rig.log().read(of, before, Budget { events: 1, bytes: 1 }).await.unwrap();
        assert_eq!(texts(page), [(seq, "x".to_owned())]);
    }
    writer.await.unwrap();
}

/// While a small ring is overwritten under them, they get entries in order, or are told where the log begins.
pub async fn readers_beside_writers_miss_nothing_silently(host: &dyn LogHost) {
    const LAST: u64 = 600;
    let (rig, of) = (Rig::open(host, Retention { max_events: 16, ..ROOMY }).await, gateway());
    let start = rig.log().bounds(of).await.unwrap().head();
    let readers = (0..4).map(|_| {
        let log = Arc::clone(rig.log());
        tokio::spawn(async move {
            let mut at = start;
            while at.seq < Seq(LAST) {
                match log.read(of, at, Budget { events: 7, bytes: 1_000 }).await.unwrap() {
                    Page::Entries(entries) => {
                        for entry in entries {
                            assert_eq!(entry.seq, at.seq.next());
                            assert_eq!(entry.body, entry.seq.to_string());
                            at.seq = entry.seq;
                        }
                    }
                    Page::Truncated { oldest } => {
                        assert!(oldest > at.seq.next());
                        at.seq = oldest.prev();
                    }
                    page => panic!("{page:?}"),
                }
                tokio::task::yield_now().await;
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    for seq in 1..=LAST {
        rig.append(of, &seq.to_string()).await;
    }
    for reader in readers {
        reader.await.unwrap();
    }
}

/// Each is stored or not, and what follows is dense.
pub async fn abandoned_appends_leave_the_log_dense(host: &dyn LogHost) {
    let (rig, of) = (Rig::open(host, ROOMY).await, gateway());
    let mut kept = BTreeSet::new();
    for number in 0..50 {
        let text = number.to_string();
        let mut append = Box::pin(rig.log().append(of, rig.draft(&text)));
        if number % 2 == 0 {
            // One poll is enough to hand the entry over; then the caller goes away.
            let polled = append.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            drop((polled.is_ready(), append));
        } else {
            append.await.unwrap();
            kept.insert(text);
        }
    }
    rig.log().flush().await.unwrap();
    let held = rig.held(of).await;
    assert!(held.iter().map(|(seq, _)| *seq).eq(1..=held.len() as u64));
    let texts: Vec<_> = held.into_iter().map(|(_, text)| text).collect();
    assert!(texts.iter().map(|text| text.parse::<u32>().unwrap()).is_sorted());
    assert!(kept.iter().all(|text| texts.contains(text)));
}

/// Also for appends whose callers are not waiting.
pub async fn a_flush_waits_for_what_was_accepted(host: &dyn LogHost) {
    let (rig, of) = (Rig::open(host, ROOMY).await, gateway());
    let head = rig.append(of, "1").await;
    {
        let mut append = pin!(rig.log().append(of, rig.draft("2")));
        let _ = append.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        rig.log().flush().await.unwrap();
    }
    let page = rig.log().read(of, head, ALL).await.unwrap();
    assert_eq!(texts(page), [(2, "2".to_owned())]);
}
