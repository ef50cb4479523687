//! What tables do.

use std::sync::Arc;

use bytes::Bytes;

use super::RecordsHost;
use crate::records::{Change, Durability, Records, Table};

fn put(table: Table, key: &str, row: &str) -> Change {
    let row = Some(Bytes::copy_from_slice(row.as_bytes()));
    Change { table, key: Bytes::copy_from_slice(key.as_bytes()), row }
}

fn delete(table: Table, key: &str) -> Change {
    Change { row: None, ..put(table, key, "") }
}

async fn commit(records: &dyn Records, changes: Vec<Change>) {
    records.commit(changes, Durability::Synced).await.unwrap();
}

async fn rows(records: &dyn Records, table: Table) -> Vec<(String, String)> {
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    records.scan(table).await.unwrap().into_iter().map(|(key, row)| (text(key), text(row))).collect()
}

/// Empty keys and rows too; a row put again is replaced; one deleted is gone, and deleting is idempotent.
pub async fn a_row_is_read_as_it_was_put(host: &dyn RecordsHost) {
    let records = host.open().await;
    commit(&*records, vec![put(Table::Meta, "", "1"), put(Table::Meta, "k", "")]).await;
    assert_eq!(records.get(Table::Meta, b"").await.unwrap().unwrap(), "1");
    assert_eq!(records.get(Table::Meta, b"k").await.unwrap().unwrap(), "");
    assert_eq!(records.get(Table::Meta, b"other").await.unwrap(), None);
    assert_eq!(records.get(Table::Gateways, b"k").await.unwrap(), None);
    commit(&*records, vec![put(Table::Meta, "k", "2")]).await;
    assert_eq!(records.get(Table::Meta, b"k").await.unwrap().unwrap(), "2");
    for _ in 0..2 {
        commit(&*records, vec![delete(Table::Meta, "k")]).await;
        assert_eq!(records.get(Table::Meta, b"k").await.unwrap(), None);
    }
}

/// In the order of the keys' bytes.
pub async fn a_table_is_scanned_in_key_order_and_alone(host: &dyn RecordsHost) {
    let records = host.open().await;
    let tables = [Table::Meta, Table::Gateways, Table::Tokens, Table::Apis, Table::Artifacts, Table::Deliveries];
    for table in tables {
        let keys = [&[0xff, 0xff][..], b"b", b"a", &[], b"aa", &[0]];
        let change = |key: &&[u8]| Change { table, key: Bytes::copy_from_slice(key), row: Some(Bytes::new()) };
        commit(&*records, keys.iter().map(change).collect()).await;
    }
    for table in tables {
        let keys: Vec<_> = records.scan(table).await.unwrap().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, [&[][..], &[0], b"a", b"aa", b"b", &[0xff, 0xff]], "{table:?}");
    }
    assert_eq!(records.scan(Table::EventTypes).await.unwrap(), []);
}

/// The rows after a key, also one that is not there, up to where the table ends.
pub async fn a_table_is_read_in_parts_of_any_size(host: &dyn RecordsHost) {
    let records = host.open().await;
    let keys = [&[][..], &[0], b"a", b"a\0", b"aa", &[0xff], &[0xff, 0xff, 0]];
    for table in [Table::Gateways, Table::Deliveries] {
        // The empty key of a table comes right after the table before it, in sled's one tree.
        let change = |key: &&[u8]| Change { table, key: Bytes::copy_from_slice(key), row: Some(Bytes::new()) };
        commit(&*records, keys.iter().map(change).collect()).await;
    }
    for table in [Table::EventTypes, Table::Deliveries, Table::Gateways] {
        for max in 1..=keys.len() + 1 {
            let (mut found, mut last): (Vec<Bytes>, Option<Bytes>) = (Vec::new(), None);
            loop {
                let rows = records.some(table, last.as_deref(), max).await.unwrap();
                assert!(rows.len() <= max);
                found.extend(rows.iter().map(|(key, _)| key.clone()));
                last = rows.into_iter().last().map(|(key, _)| key);
                if last.is_none() {
                    break;
                }
            }
            assert_eq!(found, if table == Table::EventTypes { &[][..] } else { &keys[..] });
        }
    }
    let after = records.some(Table::Gateways, Some(b"b"), 9).await.unwrap();
    assert_eq!(after.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), keys[5..]);
}

/// As the deletion of a gateway does.
pub async fn one_commit_may_put_and_delete_in_many_tables(host: &dyn RecordsHost) {
    let records = host.open().await;
    commit(&*records, vec![put(Table::Gateways, "g", "1"), put(Table::Tokens, "t", "1")]).await;
    let changes = vec![delete(Table::Gateways, "g"), put(Table::Deployments, "d", "2"), delete(Table::Tokens, "t")];
    commit(&*records, changes).await;
    assert_eq!(rows(&*records, Table::Gateways).await, []);
    assert_eq!(rows(&*records, Table::Tokens).await, []);
    assert_eq!(rows(&*records, Table::Deployments).await, [("d".to_owned(), "2".to_owned())]);
    commit(&*records, Vec::new()).await;
}

/// Changes apply in their order.
pub async fn the_last_change_of_a_row_in_a_commit_counts(host: &dyn RecordsHost) {
    let records = host.open().await;
    let changes = vec![put(Table::Meta, "a", "1"), delete(Table::Meta, "a"), put(Table::Meta, "a", "2")];
    commit(&*records, changes).await;
    assert_eq!(records.get(Table::Meta, b"a").await.unwrap().unwrap(), "2");
    commit(&*records, vec![put(Table::Meta, "a", "3"), delete(Table::Meta, "a")]).await;
    assert_eq!(records.get(Table::Meta, b"a").await.unwrap(), None);
}

/// Lazy ones too, when the engine is closed in order.
pub async fn commits_survive_a_reopen(host: &dyn RecordsHost) {
    for round in 0..3 {
        let records = host.open().await;
        assert_eq!(rows(&*records, Table::Meta).await.len(), round * 2);
        commit(&*records, vec![put(Table::Meta, &format!("synced {round}"), "x")]).await;
        let lazy = vec![put(Table::Meta, &format!("lazy {round}"), "x")];
        records.commit(lazy, Durability::Lazy).await.unwrap();
    }
}

/// Artifacts of some MiB.
pub async fn large_rows_survive_a_reopen(host: &dyn RecordsHost) {
    let row = "0123456789abcdef".repeat(200_000);
    let records = host.open().await;
    commit(&*records, vec![put(Table::Artifacts, "a", &row), put(Table::Apis, "a", "meta")]).await;
    drop(records);
    let records = host.open().await;
    assert_eq!(records.get(Table::Artifacts, b"a").await.unwrap().unwrap(), row);
}

/// All rows of a commit come from one writer, however many write.
pub async fn concurrent_commits_are_applied_whole(host: &dyn RecordsHost) {
    let records = host.open().await;
    let writers = (0..16).map(|writer: u32| {
        let records = Arc::clone(&records);
        tokio::spawn(async move {
            for _ in 0..10 {
                let text = writer.to_string();
                let change = |key: u32| put(Table::Meta, &key.to_string(), &text);
                commit(&*records, (0..8).map(change).collect()).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let rows = rows(&*records, Table::Meta).await;
    assert_eq!(rows.len(), 8);
    assert!(rows.windows(2).all(|pair| pair[0].1 == pair[1].1), "{rows:?}");
}
