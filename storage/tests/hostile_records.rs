//! Records that nobody of us wrote: what is built from them opens, or says that they are malformed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::sync::Arc;

use bytes::Bytes;
use gatecast_storage::{
    Change, Deliveries, DeliveryLimits, Directory, Durability, ManualClock, MemoryRecords, Receipts, Records as _,
    StoreError, Table,
};
use proptest::prelude::*;

const TABLES: [Table; 9] = [
    Table::Gateways,
    Table::Tokens,
    Table::Apis,
    Table::Deployments,
    Table::EventTypes,
    Table::Meta,
    Table::Deliveries,
    Table::Positions,
    Table::Outcomes,
];

/// Bytes, JSON, or JSON that is close to a row.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let member = "(id|gateway|organization|name|epoch|seq|at|created_at|hash|reason|status|sent|received|last)";
    let value = "(null|true|-?[0-9]{1,20}|\"\\PC{0,6}\"|\\[\\]|\\{\\}|\"b0a7d4c6-52a1-4b3f-8a55-2f1f5a3f7c10\"|\"2026-11-20T17:00:00Z\")";
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..60),
        prop::collection::vec((member, value), 0..8).prop_map(|pairs| {
            let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
            format!("{{{}}}", pairs.join(",")).into_bytes()
        }),
        value.prop_map(String::into_bytes),
    ]
}

fn opened<T>(result: Result<T, StoreError>) {
    if let Err(error) = result {
        assert!(matches!(error, StoreError::Malformed(_)), "{error:?}");
    }
}

async fn meet(rows: Vec<(usize, Vec<u8>, Vec<u8>)>) {
    let records = Arc::new(MemoryRecords::new());
    let changes = rows.into_iter().map(|(table, key, row)| Change {
        table: TABLES[table],
        key: Bytes::from(key),
        row: Some(Bytes::from(row)),
    });
    records.commit(changes.collect(), Durability::Synced).await.unwrap();
    let clock = Arc::new(ManualClock::default());
    opened(Directory::open(records.clone()).await);
    opened(Receipts::open(records.clone(), clock.clone()).await);
    opened(Deliveries::open(records, clock, DeliveryLimits::default()).await);
}

proptest! {
    #[test]
    fn any_records_open_or_are_malformed(rows in prop::collection::vec((0..TABLES.len(), bytes(), bytes()), 1..6)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(meet(rows));
    }
}
