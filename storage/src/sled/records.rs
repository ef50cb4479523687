use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

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
    async fn scan(&self, table: Table) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.engine
            .blocking(move |shared| {
                let prefix = keys::record(table, &[]);
                let rows = shared.db.prefix(&prefix);
                rows.map(|row| {
                    let (key, row) = row?;
                    // The first byte is the table's tag.
                    let key = Bytes::copy_from_slice(key.get(1..).unwrap_or_default());
                    Ok((key, Bytes::copy_from_slice(&row)))
                })
                .collect()
            })
            .await
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
