//! Which deployments have their event stored: what makes the directory's row and the event one, whatever crashes.
//!
//! They are in two databases. The row comes first, marked as pending and with what it replaces
//! ([`Directory::begin_deployments`]): the gateway asks for the artifact as soon as the event arrives. The event is appended
//! with a row of [`Table::Orders`] beside it (deployment id → position). Then the directory is told how it ended
//! ([`Directory::end_deployments`]), and the row beside the event is deleted behind. A start ends what was left pending:
//! with a row here its event is stored, without one it never was, and what was before holds again. On a full disk that
//! waits until there is room ([`Orders::end_left`]), and the start does not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::clock::Clock;
use crate::directory::{Deployment, Directory, DirectoryError};
use crate::ids::Cursor;
use crate::log::Beside;
use crate::records::{Change, Durability, Records, StoreError, Table};

/// How soon what there was no room for is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The orders whose events are stored and that the directory may not know of.
pub struct Orders {
    records: Arc<dyn Records>,
    /// There was no room to end this.
    left: Mutex<Option<Left>>,
}

/// What a crash left pending, and what was stored then.
struct Left {
    pending: Vec<Arc<Deployment>>,
    stored: HashMap<Uuid, Cursor>,
}

impl Orders {
    /// Ends what a crash left pending, or leaves it to [`Self::end_left`] if there is no room. `records` must be where the
    /// log puts its rows.
    ///
    /// # Errors
    /// If a store cannot be read or, but for want of room, written, or holds a row that this version does not understand.
    pub async fn open(
        records: Arc<dyn Records>,
        directory: &Directory,
        now: DateTime<Utc>,
    ) -> Result<Self, DirectoryError> {
        let stored = Self::read(&*records).await?;
        let left = Left { pending: directory.pending_deployments(), stored };
        let orders = Self { records, left: Mutex::default() };
        match orders.end(&left, directory, now).await {
            Err(DirectoryError::Store(StoreError::Full)) => {
                let deployments = left.pending.len();
                tracing::warn!(
                    deployments,
                    "There is no room to end what a crash had left open; it is done once there is."
                );
                *orders.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(left);
            }
            ended => ended?,
        }
        Ok(orders)
    }

    /// Ends what [`Self::open`] had no room for, as soon as there is some. Cancelled, it is left to the next start.
    pub async fn end_left(&self, directory: &Directory, clock: &dyn Clock) {
        let Some(left) = self.left.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        while let Err(error) = self.end(&left, directory, clock.now()).await {
            if !matches!(
                error,
                DirectoryError::Store(StoreError::Full | StoreError::OutOfFiles | StoreError::Overloaded)
            ) {
                tracing::warn!(%error, "What a crash had left open cannot be ended; the next start does it.");
                return;
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    /// Changes nothing where that was done before. The rows go last: only they know which events are stored.
    async fn end(&self, left: &Left, directory: &Directory, now: DateTime<Utc>) -> Result<(), DirectoryError> {
        let Left { pending, stored } = left;
        let outcomes = pending.iter().map(|row| (row.id, stored.get(&row.id).copied())).collect();
        directory.end_deployments(outcomes, now).await?;
        self.ended(stored.keys().copied()).await?;
        for row in pending {
            let is_stored = stored.contains_key(&row.id);
            tracing::info!(gateway.id = %row.gateway, api.id = %row.api, is_stored, "A deployment was ended that a crash had left open.");
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use async_trait::async_trait;
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::clock::ManualClock;
    use crate::directory::tests::{deployment, gateway, organization};
    use crate::ids::{Epoch, Seq};
    use crate::memory::MemoryRecords;

    /// Tables that may have no room.
    #[derive(Default)]
    struct Disk {
        rows: MemoryRecords,
        is_full: AtomicBool,
    }

    #[async_trait]
    impl Records for Disk {
        async fn some(
            &self,
            table: Table,
            after: Option<&[u8]>,
            max: usize,
        ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
            self.rows.some(table, after, max).await
        }

        async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
            self.rows.get(table, key).await
        }

        async fn commit(&self, changes: Vec<Change>, durability: Durability) -> Result<(), StoreError> {
            if self.is_full.load(Ordering::SeqCst) {
                return Err(StoreError::Full);
            }
            self.rows.commit(changes, durability).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_crash_left_open_is_ended_by_the_start_or_once_there_is_room() {
        for (is_directory_full, are_events_full) in [(false, false), (true, true), (true, false), (false, true)] {
            let (of_directory, events, clock) =
                (Arc::new(Disk::default()), Arc::new(Disk::default()), ManualClock::default());
            let directory = Directory::open(of_directory.clone()).await.unwrap();
            let gateway = directory.create_gateway(gateway(organization(), "edge", 0)).await.unwrap().id;
            let [told, untold] = ["told", "untold"].map(|api| deployment(api, gateway));
            directory.begin_deployments(vec![told.clone(), untold]).await.unwrap();
            let (beside, at) = (Orders::beside(told.id), Cursor { epoch: Epoch(7), seq: Seq(42) });
            let row = Some(beside.row(at).into());
            let change = Change { table: beside.table, key: beside.key, row };
            events.commit(vec![change], Durability::Synced).await.unwrap();

            of_directory.is_full.store(is_directory_full, Ordering::SeqCst);
            events.is_full.store(are_events_full, Ordering::SeqCst);
            let directory = Directory::open(of_directory.clone()).await.unwrap();
            let orders = Orders::open(events.clone(), &directory, clock.now()).await.unwrap();
            let (is_full, begun) = (is_directory_full || are_events_full, Instant::now());
            let rows = async || events.scan(Table::Orders).await.unwrap().len();
            assert_eq!(directory.pending_deployments().len(), if is_directory_full { 2 } else { 0 });
            assert_eq!(rows().await, usize::from(is_full));
            let room = async {
                sleep(10 * RETRY_AFTER).await;
                assert_eq!(rows().await, usize::from(is_full), "it knows which event is stored");
                [&of_directory, &events].iter().for_each(|disk| disk.is_full.store(false, Ordering::SeqCst));
            };
            let settled = async {
                orders.end_left(&directory, &clock).await;
                begun.elapsed()
            };
            let (took, ()) = tokio::join!(settled, room);
            assert_eq!(took >= 10 * RETRY_AFTER, is_full, "{took:?}");
            let known: Vec<_> = directory.deployments().iter().map(|row| (row.id, row.event)).collect();
            assert_eq!((known, directory.pending_deployments().len()), (vec![(told.id, Some(at))], 0));
            assert_eq!(rows().await, 0);
        }
    }
}
