//! Rows that nobody of us wrote: what a log makes of them is an answer, not a panic. Other logs do not notice, unless it
//! cannot be said which of all logs lacks its end.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::time::Instant;

use super::faults::{set_aside, sled_alone};
use crate::clock::{Clock, ManualClock};
use crate::contract::{ALL, ROOMY, gateway};
use crate::ids::{Cursor, Epoch, GatewayId, Seq};
use crate::log::{Appended, Draft, LogError, NoFollower, Page};
use crate::records::StoreError;
use crate::sled::row::{Head, encode_entry};
use crate::sled::young::BUNDLES_MAX;
use crate::sled::{keys, open_sled};

/// Where one is put, in the log of a gateway, and with how much sense.
#[derive(Debug, Clone)]
struct Row {
    place: usize,
    seq: u64,
    bytes: Vec<u8>,
    /// How the row of an entry, or a head, is changed; otherwise the bytes are the row.
    flips: Option<usize>,
}

fn row() -> impl Strategy<Value = Row> {
    let seq = prop_oneof![0..12_u64, any::<u64>()];
    let bytes = prop::collection::vec(any::<u8>(), 0..60);
    (0..8_usize, seq, bytes, prop::option::of(0..50_usize)).prop_map(|(place, seq, bytes, flips)| Row {
        place,
        seq,
        bytes,
        flips,
    })
}

impl Row {
    fn key(&self, of: GatewayId, epoch: Epoch) -> Vec<u8> {
        let seq = Seq(self.seq);
        match self.place {
            0 => keys::head(of).to_vec(),
            1 => keys::owner(epoch).to_vec(),
            2 => keys::state(of, epoch, seq).to_vec(),
            3 => keys::tombstone(of, epoch, seq).to_vec(),
            4 => keys::state_key(of, epoch, &self.bytes),
            6 => keys::bundle(self.seq as u32 % 12).to_vec(),
            5 => [&keys::forgotten(of, epoch)[..], &self.bytes[..self.bytes.len() / 8]].concat(),
            _ => keys::entry(of, epoch, seq).to_vec(),
        }
    }

    fn row(&self, epoch: Epoch) -> Vec<u8> {
        let Some(flip) = self.flips else { return self.bytes.clone() };
        let at = ManualClock::default().now();
        let body = Bytes::from(self.bytes.clone());
        let (Appended { entry, .. }, _) = draft(body).at_seq(Seq(self.seq));
        let mut row = if self.place == 0 {
            Head { floor: Seq(self.seq), ..Head::new(epoch) }.encode().to_vec()
        } else {
            encode_entry(&crate::log::Entry { at, ..entry }, self.seq)
        };
        let len = row.len();
        row[flip % len] ^= 1 << (flip % 8);
        row
    }
}

fn draft(body: Bytes) -> Draft {
    Draft {
        at: ManualClock::default().now(),
        since: Instant::now(),
        key: Some(Bytes::from_static(b"k")),
        ends_key: false,
        body,
        expect: None,
        beside: Vec::new(),
    }
}

/// An answer, or that the rows are not ours or damaged: never that a thread of the store is gone or refuses everything.
fn answered<T>(result: Result<T, LogError>) {
    match result {
        Ok(_)
        | Err(LogError::Conflict { .. } | LogError::Store(StoreError::Malformed(_) | StoreError::Damaged { .. })) => {}
        Err(error) => panic!("{error:?}"),
    }
}

async fn meet(rows: Vec<Row>) {
    let (data, of, other) = (TempDir::new().unwrap(), gateway(), gateway());
    let open = || open_sled(data.path(), ROOMY, Arc::new(ManualClock::default()), Arc::new(NoFollower));
    let stores = open().await.unwrap();
    let mut head = Cursor { epoch: Epoch(0), seq: Seq(0) };
    for n in 0..5 {
        head = stores.log.append(of, draft(Bytes::from(vec![b'x'; n]))).await.unwrap();
    }
    let untouched = stores.log.append(other, draft(Bytes::from_static(b"mine"))).await.unwrap();
    drop(stores);
    let tree = sled_alone(&data.path().join("events"), |config| config);
    for row in &rows {
        tree.insert(row.key(of, head.epoch), row.row(head.epoch)).unwrap();
    }
    drop(tree);
    let stores = match open().await {
        Ok(stores) => stores,
        Err(error) => return assert!(matches!(error, StoreError::Malformed(_)), "{error:?}"),
    };
    let (log, start) = (stores.log, Cursor { seq: Seq(0), ..head });
    answered(log.bounds(of).await);
    answered(log.read(of, start, ALL).await);
    answered(log.read(of, head, ALL).await);
    answered(log.compacted(of, start, ALL).await);
    answered(log.owner_of(head.epoch).await);
    answered(log.append(of, draft(Bytes::from_static(b"more"))).await);
    answered(log.compacted(of, start, ALL).await);
    answered(log.forget(of).await);
    match log.read(other, Cursor { seq: Seq(0), ..untouched }, ALL).await.unwrap() {
        Page::Entries(entries) => assert_eq!(entries.len(), 1),
        // Logs ended too early, and nobody can say which: all start anew.
        page => assert!(set_aside(data.path()) > 0, "{page:?}"),
    }
    // So many that what was young is settled.
    for _ in 0..=BUNDLES_MAX {
        log.append(other, draft(Bytes::from_static(b"more"))).await.unwrap();
    }
}

/// Its young entries are swept, or settled, by the thread that writes for all.
#[tokio::test]
async fn a_log_whose_head_is_none_keeps_nobody_elses_from_being_written() {
    let row = |place| Row { place, seq: 0, bytes: Vec::new(), flips: None };
    meet(vec![row(0)]).await;
    meet(vec![row(5), row(0)]).await;
}

/// Each case opens a store twice.
const CASES: u32 = 24;

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases * CASES / 256, ..ProptestConfig::default() })]

    #[test]
    fn any_rows_are_met_without_a_panic(rows in prop::collection::vec(row(), 1..8)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        runtime.block_on(meet(rows));
    }
}
