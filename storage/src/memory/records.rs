use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use crate::ids::Cursor;
use crate::log::Beside;
use crate::records::{Change, Durability, Records, StoreError, Table};

/// Tables in memory.
#[derive(Debug, Default)]
pub struct MemoryRecords {
    rows: Mutex<BTreeMap<(Table, Bytes), Bytes>>,
}

impl MemoryRecords {
    /// Empty tables.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn put_beside(&self, beside: &[Beside], at: Cursor) {
        if !beside.is_empty() {
            self.rows().extend(beside.iter().map(|row| ((row.table, row.key.clone()), row.row(at).into())));
        }
    }

    /// A poisoned lock is used on: no step under it can panic half-way.
    fn rows(&self) -> MutexGuard<'_, BTreeMap<(Table, Bytes), Bytes>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Records for MemoryRecords {
    async fn some(&self, table: Table, after: Option<&[u8]>, max: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let rows = self.rows();
        let from = after.map_or(Bound::Included((table, Bytes::new())), |key| {
            Bound::Excluded((table, Bytes::copy_from_slice(key)))
        });
        let of_table = rows.range((from, Bound::Unbounded)).take_while(|((of, _), _)| *of == table);
        Ok(of_table.take(max).map(|((_, key), row)| (key.clone(), row.clone())).collect())
    }

    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.rows().get(&(table, Bytes::copy_from_slice(key))).cloned())
    }

    async fn commit(&self, changes: Vec<Change>, _durability: Durability) -> Result<(), StoreError> {
        let mut rows = self.rows();
        for Change { table, key, row } in changes {
            match row {
                Some(row) => rows.insert((table, key), row),
                None => rows.remove(&(table, key)),
            };
        }
        Ok(())
    }
}
