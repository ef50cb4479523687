use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::database::Database;
use super::row;
use crate::compaction::Compacted;
use crate::ids::{Cursor, GatewayId};
use crate::log::{Budget, Draft, LogError};
use crate::records::{Change, Durability, StoreError};

/// What the committer is asked to do.
pub(super) enum Job {
    /// Appends in this order, under one sync.
    Append {
        drafts: Vec<(GatewayId, Draft)>,
        /// Room in the queue by bytes, given back once the entries are written.
        room: OwnedSemaphorePermit,
        answer: oneshot::Sender<Vec<Result<Cursor, LogError>>>,
    },
    /// Fold all that has left the ring into the compacted state and read a page of it.
    Compacted {
        of: GatewayId,
        after: Cursor,
        max: Budget,
        answer: oneshot::Sender<Result<Compacted, LogError>>,
    },
    /// Load the log of a gateway, or create it.
    Touch {
        of: GatewayId,
        answer: Answer,
    },
    Forget {
        gateway: GatewayId,
        answer: Answer,
    },
    Commit {
        changes: Vec<Change>,
        durability: Durability,
        room: OwnedSemaphorePermit,
        answer: Answer,
    },
    Flush {
        answer: Answer,
    },
    /// Look at the database while nothing is written.
    Look(Look),
}

/// Looks, or is told why that cannot be.
pub(super) type Look = Box<dyn FnOnce(Result<&Database, StoreError>) + Send>;

/// What a job takes of the file system.
pub(super) enum Need {
    /// Rows are added.
    Room { bytes: u64, rows: u64 },
    /// A few bytes, or less than it frees.
    Little,
}

pub(super) type Answer = oneshot::Sender<Result<(), StoreError>>;

/// What to say once the batch is durable. A caller that went away is not told; what it asked for is done.
pub(super) enum Reply {
    Appended(oneshot::Sender<Vec<Result<Cursor, LogError>>>, Vec<Result<Cursor, LogError>>),
    Compacted(oneshot::Sender<Result<Compacted, LogError>>, Result<Compacted, LogError>),
    Done(Answer, Result<(), StoreError>),
}

impl Reply {
    pub(super) fn send(self) {
        match self {
            Self::Appended(to, results) => drop(to.send(results)),
            Self::Compacted(to, result) => drop(to.send(result)),
            Self::Done(to, result) => drop(to.send(result)),
        }
    }

    /// The batch failed, so what it was going to say does not hold.
    pub(super) fn refuse(self) {
        match self {
            Self::Appended(to, results) => drop(to.send(all(results.len(), || StoreError::Poisoned))),
            Self::Compacted(to, _) => drop(to.send(Err(StoreError::Poisoned.into()))),
            Self::Done(to, _) => drop(to.send(Err(StoreError::Poisoned))),
        }
    }
}

impl Job {
    /// What it counts in a batch: the rows of its entries, at least 1.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Append { drafts, .. } => {
                drafts.iter().map(|(_, draft)| row::rows(draft.body.len())).sum::<usize>().max(1)
            }
            _ => 1,
        }
    }

    pub(super) fn refuse(self) {
        self.answer(|| StoreError::Poisoned);
    }

    /// It is not done.
    pub(super) fn answer(self, error: fn() -> StoreError) {
        match self {
            Self::Append { drafts, answer, .. } => drop(answer.send(all(drafts.len(), error))),
            Self::Compacted { answer, .. } => drop(answer.send(Err(error().into()))),
            Self::Touch { answer, .. }
            | Self::Forget { answer, .. }
            | Self::Commit { answer, .. }
            | Self::Flush { answer } => drop(answer.send(Err(error()))),
            Self::Look(look) => look(Err(error())),
        }
    }

    /// Whether it may make files: records may be large, or be in a page with large ones, also those that are stored with
    /// entries; these are in parts.
    pub(super) fn opens_files(&self) -> bool {
        match self {
            Self::Commit { .. } => true,
            Self::Append { drafts, .. } => drafts.iter().any(|(_, draft)| !draft.beside.is_empty()),
            _ => false,
        }
    }

    pub(super) fn need(&self) -> Need {
        match self {
            Self::Append { drafts, .. } => Need::Room {
                bytes: drafts.iter().map(|(_, draft)| draft.size()).sum::<usize>() as u64,
                rows: drafts.iter().map(|(_, draft)| row::rows(draft.body.len()) + draft.beside.len()).sum::<usize>()
                    as u64,
            },
            Self::Commit { changes, .. } if changes.iter().any(|change| change.row.is_some()) => {
                let size = |change: &Change| change.key.len() + change.row.as_ref().map_or(0, Bytes::len);
                let bytes = changes.iter().map(size).sum::<usize>() as u64;
                Need::Room { bytes, rows: changes.len() as u64 }
            }
            Self::Commit { .. }
            | Self::Compacted { .. }
            | Self::Touch { .. }
            | Self::Forget { .. }
            | Self::Flush { .. }
            | Self::Look(_) => Need::Little,
        }
    }
}

/// The same error for each entry.
fn all(entries: usize, error: fn() -> StoreError) -> Vec<Result<Cursor, LogError>> {
    std::iter::repeat_with(|| Err(error().into())).take(entries).collect()
}
