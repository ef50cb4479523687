//! Gateways, their tokens, API artifacts, deployments and event types.
//!
//! A [`Directory`] is a model in memory that is written through to [`Records`]: reads never touch the disk (but for
//! artifacts) and take one lock for a few look-ups, so admission does not depend on how many gateways there are.
//! A write is checked, committed and then applied, one after the other, so memory never holds what disk doesn't.
//!
//! - Start here for how a write runs; `edit.rs` has what a write consists of, `model.rs` the maps.
//! - One file per concept holds its type and its operations: `gateways.rs`, `tokens.rs`, `apis.rs`,
//!   `deployments.rs`, `event_types.rs`.

mod access;
mod apis;
mod by_age;
mod deployments;
mod edit;
mod error;
mod event_types;
mod gateways;
mod model;
mod tokens;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use tokio::sync::Mutex;

pub use self::access::Access;
pub use self::apis::{Api, ApiId, InvalidApiId};
pub use self::deployments::{DELETED_MAX, Deployment, DeploymentStatus, EARLIER_MAX, Earlier, Pending, Told};
pub use self::error::DirectoryError;
pub use self::event_types::EventType;
pub use self::gateways::{CatchUp, Gateway, GatewayUpdate, OrganizationId};
pub use self::tokens::{INACTIVE_TOKENS_MAX, Token, TokenHash, TokenId, TokenState};

use self::edit::Edit;
use self::model::Model;
use crate::records::{Durability, Records, StoreError};

/// What the platform knows about gateways: kept in memory, written through to [`Records`].
pub struct Directory {
    shared: Arc<Shared>,
    /// Held from the check of a write until it is applied. Fair, so writers go in the order in which they came.
    writer: Arc<Mutex<()>>,
}

struct Shared {
    model: RwLock<Model>,
    records: Arc<dyn Records>,
    /// Writes to gateways and tokens so far.
    generation: AtomicU64,
}

impl Directory {
    /// Loads the directory from `records`.
    ///
    /// # Errors
    /// If the store cannot be read, or holds a row that this version does not understand.
    pub async fn open(records: Arc<dyn Records>) -> Result<Self, StoreError> {
        let model = Model::load(&*records).await?;
        let shared = Arc::new(Shared { model: RwLock::new(model), records, generation: AtomicU64::new(0) });
        Ok(Self { shared, writer: Arc::new(Mutex::new(())) })
    }

    /// A small fact about this installation, such as the hash of the admin token.
    #[must_use]
    pub fn meta(&self, key: &str) -> Option<Bytes> {
        self.read().meta(key)
    }

    /// Keeps a small fact about this installation.
    ///
    /// # Errors
    /// If it may not have been stored.
    pub async fn put_meta(&self, key: &str, value: Bytes) -> Result<(), DirectoryError> {
        let edit = Edit::PutMeta(key.to_owned(), value);
        self.write(move |_| Ok((vec![edit], ()))).await
    }

    /// Another number after each write that may change who is known as which gateway. What is looked up after this was
    /// asked holds as long as it is the same.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    fn read(&self) -> RwLockReadGuard<'_, Model> {
        self.shared.read()
    }

    /// Runs one write: `check` looks at the model and says what to change; the changes are committed, then applied.
    ///
    /// The work runs in a task of its own that owns the writer's lock: a caller that goes away between commit and
    /// apply cannot make memory and disk differ.
    async fn write<T, F>(&self, check: F) -> Result<T, DirectoryError>
    where
        T: Send + 'static,
        F: FnOnce(&Model) -> Result<(Vec<Edit>, T), DirectoryError> + Send + 'static,
    {
        self.write_as(Durability::Synced, check).await
    }

    /// As [`Self::write`], also on a full disk as long as it is small: what shuts somebody out, or brings something to its end.
    async fn write_urgently<T, F>(&self, check: F) -> Result<T, DirectoryError>
    where
        T: Send + 'static,
        F: FnOnce(&Model) -> Result<(Vec<Edit>, T), DirectoryError> + Send + 'static,
    {
        self.write_as(Durability::Urgent, check).await
    }

    async fn write_as<T, F>(&self, durability: Durability, check: F) -> Result<T, DirectoryError>
    where
        T: Send + 'static,
        F: FnOnce(&Model) -> Result<(Vec<Edit>, T), DirectoryError> + Send + 'static,
    {
        let turn = Arc::clone(&self.writer).lock_owned().await;
        let shared = Arc::clone(&self.shared);
        let work = tokio::spawn(async move {
            let _turn = turn;
            shared.check_commit_apply(durability, check).await
        });
        // The task fails only if it panicked or the runtime shuts down: then nothing was applied.
        work.await.unwrap_or(Err(DirectoryError::Store(StoreError::Closed)))
    }
}

impl Shared {
    async fn check_commit_apply<T, F>(&self, durability: Durability, check: F) -> Result<T, DirectoryError>
    where
        F: FnOnce(&Model) -> Result<(Vec<Edit>, T), DirectoryError>,
    {
        let (edits, answer) = check(&self.read())?;
        if edits.is_empty() {
            return Ok(answer);
        }
        let mut changes = Vec::with_capacity(edits.len());
        for edit in &edits {
            edit.changes(&mut changes)?;
        }
        self.records.commit(changes, durability).await?;
        let mut model = self.model.write().unwrap_or_else(PoisonError::into_inner);
        let concerns_access = edits.iter().any(Edit::concerns_access);
        for edit in edits {
            model.apply(edit);
        }
        if concerns_access {
            // Under the lock: whoever sees the new number sees what is new.
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        Ok(answer)
    }

    /// A poisoned lock is used on: `apply` has no step that can panic half-way.
    fn read(&self) -> RwLockReadGuard<'_, Model> {
        self.model.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(crate) mod tests;
