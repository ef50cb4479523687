//! Many entries in one call, and rows that are stored with an entry.

use std::sync::Arc;

use bytes::Bytes;

use super::{LogHost, ROOMY, Rig, gateway};
use crate::ids::{Cursor, GatewayId, Seq};
use crate::log::{Beside, Draft, LogError};
use crate::records::{Durability, Table};

fn beside(key: &str, rest: &str) -> Beside {
    let [key, rest] = [key, rest].map(|text| Bytes::copy_from_slice(text.as_bytes()));
    Beside { table: Table::Answers, key, rest }
}

impl Rig<'_> {
    /// The position that the row of a key was stored with, and its rest.
    async fn row(&self, key: &str) -> Option<(Cursor, String)> {
        let row = self.records().get(Table::Answers, key.as_bytes()).await.unwrap()?;
        let (at, rest) = Beside::parse(&row).unwrap();
        Some((at, String::from_utf8(rest.to_vec()).unwrap()))
    }
}

/// Also several to one log; a conflict is its draft's alone, and sees what came before it in the batch.
pub async fn a_batch_is_appended_in_order_and_each_entry_has_its_result(host: &dyn LogHost) {
    let (rig, a, b) = (Rig::open(host, ROOMY).await, gateway(), gateway());
    assert!(rig.log().append_all(Vec::new()).await.is_empty());
    let first = rig.append(a, "a1").await;
    let stale = Draft { expect: Some(first), ..rig.draft("never") };
    let fresh = Draft { expect: Some(Cursor { seq: Seq(3), ..first }), ..rig.draft("a4") };
    let drafts = vec![
        (a, rig.draft("a2")),
        (b, rig.draft("b1")),
        (a, stale),
        (a, rig.draft("a3")),
        (b, rig.draft("b2")),
        (a, fresh),
    ];
    let results = rig.log().append_all(drafts).await;
    let seqs = results.iter().map(|result| match result {
        Ok(cursor) => Ok(cursor.seq.0),
        Err(LogError::Conflict { head }) => Err(head.seq.0),
        Err(error) => panic!("{error}"),
    });
    assert_eq!(seqs.collect::<Vec<_>>(), [Ok(2), Ok(1), Err(2), Ok(3), Ok(2), Ok(4)]);
    assert_eq!(rig.held(a).await, [(1, "a1"), (2, "a2"), (3, "a3"), (4, "a4")].map(|(n, t)| (n, t.to_owned())));
    assert_eq!(rig.held(b).await, [(1, "b1"), (2, "b2")].map(|(n, t)| (n, t.to_owned())));
}

/// More entries than an engine writes in one go.
pub async fn a_batch_is_told_and_readable_when_it_is_answered(host: &dyn LogHost) {
    const ENTRIES: usize = 5_000;
    let (rig, ids) = (Rig::open(host, ROOMY).await, [0; 50].map(|_| gateway()));
    let drafts = (0..ENTRIES).map(|n| (ids[n % ids.len()], rig.draft(&n.to_string()))).collect();
    let results = rig.log().append_all(drafts).await;
    assert_eq!(results.len(), ENTRIES);
    for (n, result) in results.into_iter().enumerate() {
        assert_eq!(result.unwrap().seq.0, (n / ids.len()) as u64 + 1);
    }
    for (first, id) in ids.into_iter().enumerate() {
        let expected: Vec<_> = (first..ENTRIES).step_by(ids.len()).map(|n| n.to_string()).collect();
        let heard = rig.ear.heard(id).into_iter().map(|(_, entry)| entry.body);
        assert_eq!(heard.collect::<Vec<_>>(), expected);
        assert!(rig.held(id).await.into_iter().map(|(_, body)| body).eq(expected));
    }
}

/// Positions are dense, each answer is the position of its own body, and a batch keeps its order within a log.
pub async fn batches_beside_single_appends_leave_every_log_dense(host: &dyn LogHost) {
    let (rig, ids) = (Rig::open(host, ROOMY).await, [0; 3].map(|_| gateway()));
    let draft = rig.draft("");
    let writers = (0..8).map(|writer| {
        let (log, draft) = (Arc::clone(rig.log()), draft.clone());
        tokio::spawn(async move {
            let mut told: Vec<(GatewayId, u64, String)> = Vec::new();
            for round in 0..20 {
                let of_round = (0..if writer % 2 == 0 { 1 } else { 30 }).map(|n| {
                    let body = format!("{writer} {round} {n}");
                    (ids[(writer + n) % ids.len()], Draft { body: body.into(), ..draft.clone() })
                });
                let drafts: Vec<_> = of_round.collect();
                let results = log.append_all(drafts.clone()).await;
                for ((to, draft), result) in drafts.into_iter().zip(results) {
                    told.push((to, result.unwrap().seq.0, String::from_utf8(draft.body.to_vec()).unwrap()));
                }
            }
            told
        })
    });
    let mut told = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        let of_writer = writer.await.unwrap();
        for id in ids {
            let seqs = of_writer.iter().filter(|(to, ..)| *to == id).map(|(_, seq, _)| seq);
            assert!(seqs.is_sorted(), "a writer's own order");
        }
        told.extend(of_writer);
    }
    for id in ids {
        let mut of_log: Vec<_> = told.iter().filter(|(to, ..)| *to == id).collect();
        of_log.sort_by_key(|(_, seq, _)| *seq);
        let expected: Vec<_> = of_log.into_iter().map(|(_, seq, body)| (*seq, body.clone())).collect();
        assert!(expected.iter().map(|(seq, _)| *seq).eq(1..=expected.len() as u64));
        assert_eq!(rig.held(id).await, expected);
    }
}

/// Once the append is answered; a later row of the same key replaces it, deleting it is a commit like any other.
pub async fn rows_beside_an_entry_hold_its_position(host: &dyn LogHost) {
    let (rig, of) = (Rig::open(host, ROOMY).await, gateway());
    rig.append(of, "without").await;
    let draft = Draft { beside: vec![beside("k", "1"), beside("", "")], ..rig.draft("x") };
    let second = rig.log().append(of, draft).await.unwrap();
    assert_eq!(rig.row("k").await, Some((second, "1".to_owned())));
    assert_eq!(rig.row("").await, Some((second, String::new())));
    let drafts = ["1", "2"].map(|rest| (of, Draft { beside: vec![beside("k", rest)], ..rig.draft("x") }));
    let fourth = rig.log().append_all(drafts.into()).await.pop().unwrap().unwrap();
    assert_eq!(rig.row("k").await, Some((fourth, "2".to_owned())));
    let change = crate::records::Change { table: Table::Answers, key: Bytes::from_static(b"k"), row: None };
    rig.records().commit(vec![change], Durability::Lazy).await.unwrap();
    assert_eq!(rig.row("k").await, None);
    assert_eq!(rig.held(of).await.len(), 4);
}

/// Whether it is alone or one of a batch.
pub async fn a_refused_entry_leaves_no_row(host: &dyn LogHost) {
    let (rig, of) = (Rig::open(host, ROOMY).await, gateway());
    let first = rig.append(of, "x").await;
    let elsewhere = Cursor { seq: Seq(7), ..first };
    let refused = |key| Draft { expect: Some(elsewhere), beside: vec![beside(key, "")], ..rig.draft("never") };
    assert!(rig.log().append(of, refused("alone")).await.is_err());
    let taken = Draft { beside: vec![beside("taken", "")], ..rig.draft("y") };
    let results = rig.log().append_all(vec![(of, refused("first")), (of, taken), (of, refused("last"))]).await;
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true, false]);
    for key in ["alone", "first", "last"] {
        assert_eq!(rig.row(key).await, None);
    }
    assert_eq!(rig.row("taken").await, Some((Cursor { seq: Seq(2), ..first }, String::new())));
}

/// And stay when the log is forgotten: who put them deletes them.
pub async fn rows_beside_entries_survive_a_reopen_as_the_entries_do(host: &dyn LogHost) {
    let (mut rig, of) = (Rig::open(host, ROOMY).await, gateway());
    let draft = |n: u64| Draft { beside: vec![beside(&n.to_string(), "row")], ..rig.draft("x") };
    let results = rig.log().append_all((1..=300).map(|n| (of, draft(n))).collect()).await;
    rig.reopen().await;
    for (n, result) in (1..=300).zip(results) {
        assert_eq!(rig.row(&n.to_string()).await, Some((result.unwrap(), "row".to_owned())));
    }
    assert_eq!(rig.held(of).await.len(), 300);
    rig.log().forget(of).await.unwrap();
    assert!(rig.row("1").await.is_some());
}
