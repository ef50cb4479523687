//! Which deployments have their event stored: what makes the directory's row and the event one, whatever crashes.
//!
//! They are in two databases. The row comes first, marked as pending and with what it replaces
//! ([`Directory::begin_deployments`]): the gateway asks for the artifact as soon as the event arrives. The event is appended
//! with a row of [`Table::Orders`] beside it (deployment id → position). Then the directory is told how it ended
//! ([`Directory::end_deployments`]), and the row beside the event is deleted behind. A start ends what was left pending:
//! with a row here its event is stored, without one it never was, and what was before holds again.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::directory::{Directory, DirectoryError};
use crate::ids::Cursor;
use crate::log::Beside;
use crate::records::{Change, Durability, Records, StoreError, Table};

/// The orders whose events are stored and that the directory may not know of.
pub struct Orders {
    records: Arc<dyn Records>,
}

impl Orders {
    /// Ends what a crash left pending. `records` must be where the log puts its rows.
    ///
    /// # Errors
    /// If a store cannot be read or written, or holds a row that this version does not understand.
    pub async fn open(
        records: Arc<dyn Records>,
        directory: &Directory,
        now: DateTime<Utc>,
    ) -> Result<Self, DirectoryError> {
        let stored = Self::read(&*records).await?;
        let pending = directory.pending_deployments();
        let outcomes = pending.iter().map(|row| (row.id, stored.get(&row.id).copied())).collect();
        directory.end_deployments(outcomes, now).await?;
        for row in pending {
            let is_stored = stored.contains_key(&row.id);
            tracing::info!(gateway.id = %row.gateway, api.id = %row.api, is_stored, "A deployment was ended that a crash had left open.");
        }
        let orders = Self { records };
        orders.ended(stored.into_keys()).await?;
        Ok(orders)
    }

    /// All that are stored: the position of each deployment's event.
    pub(crate) async fn read(records: &dyn Records) -> Result<HashMap<Uuid, Cursor>, StoreError> {
        let malformed = || StoreError::Malformed("an order".to_owned());
        let parse = |key: &[u8], row| Some((Uuid::from_slice(key).ok()?, Beside::parse(row)?.0));
        let rows = records.scan(Table::Orders).await?;
        rows.iter().map(|(key, row)| parse(key, row).ok_or_else(malformed)).collect()
    }

    /// The row to store with the event of a deployment.
    #[must_use]
    pub fn beside(deployment: Uuid) -> Beside {
        Beside { table: Table::Orders, key: key(deployment), rest: Bytes::new() }
    }

    /// The directory knows (durably) how these ended; their rows are not needed any more.
    ///
    /// # Errors
    /// If the store cannot be written; the rows are deleted at the next start then.
    pub async fn ended(&self, deployments: impl IntoIterator<Item = Uuid>) -> Result<(), StoreError> {
        let drop_row = |id| Change { table: Table::Orders, key: key(id), row: None };
        let changes: Vec<_> = deployments.into_iter().map(drop_row).collect();
        if changes.is_empty() {
            return Ok(());
        }
        self.records.commit(changes, Durability::Lazy).await
    }
}

fn key(deployment: Uuid) -> Bytes {
    Bytes::copy_from_slice(deployment.as_bytes())
}
