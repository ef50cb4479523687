use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::database::Database;
use super::engine::Engine;
use super::job::Job;
use super::keys;
use crate::records::{Change, Condition, Durability, Records, StoreError, Table};

/// Tables in a sled database.
///
/// `get` and `scan` may show a commit shortly before it is durable, and a scan that runs beside a commit may show a
/// part of it: [`Directory`](crate::Directory) scans before it writes and reads its own memory after.
pub struct SledRecords {
    engine: Arc<Engine>,
}

impl SledRecords {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }
}

#[async_trait]
impl Records for SledRecords {
    async fn some(&self, table: Table, after: Option<&[u8]>, max: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let after = after.map(<[u8]>::to_vec);
        self.engine.blocking(move |shared| shared.db.records(table, after.as_deref(), max)).await
    }

    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let key = keys::record(table, key);
        self.engine.blocking(move |shared| Ok(shared.db.get(&key)?.map(|row| Bytes::copy_from_slice(&row)))).await
    }

    async fn commit(&self, changes: Vec<Change>, durability: Durability) -> Result<(), StoreError> {
        let size = |change: &Change| change.key.len() + change.row.as_ref().map_or(0, Bytes::len);
        let room = self.engine.room(changes.iter().map(size).sum()).await?;
        self.engine.ask(|answer| Job::Commit { changes, durability, room, answer }).await
    }

    fn condition(&self) -> Condition {
        self.engine.condition()
    }
}

impl Database {
    /// Up to `max` rows of a table, after a key if there is one.
    pub(super) fn records(
        &self,
        table: Table,
        after: Option<&[u8]>,
        max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let mut first = keys::record(table, after.unwrap_or_default());
        if after.is_some() {
            // The next key that there can be.
            first.push(0);
        }
        let rows = self.range(first..=vec![table as u8 + 1]).map(|row| {
            let (key, row) = row?;
            // The first byte is the table's tag; the key that is that of the next one alone is not of the table.
            let key = key.strip_prefix(&[table as u8]).map(Bytes::copy_from_slice);
            Ok(key.map(|key| (key, Bytes::copy_from_slice(&row))))
        });
        rows.filter_map(Result::transpose).take(max).collect()
    }
}
