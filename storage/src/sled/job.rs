use tokio::sync::{OwnedSemaphorePermit, oneshot};

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
            Self::Appended(to, results) => drop(to.send(poisoned(results.len()))),
            Self::Compacted(to, _) => drop(to.send(Err(StoreError::Poisoned.into()))),
            Self::Done(to, _) => drop(to.send(Err(StoreError::Poisoned))),
        }
    }
}

impl Job {
    /// What it counts in a batch: its entries, at least 1.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Append { drafts, .. } => drafts.len().max(1),
            _ => 1,
        }
    }

    pub(super) fn refuse(self) {
        match self {
            Self::Append { drafts, answer, .. } => drop(answer.send(poisoned(drafts.len()))),
            Self::Compacted { answer, .. } => drop(answer.send(Err(StoreError::Poisoned.into()))),
            Self::Touch { answer, .. }
            | Self::Forget { answer, .. }
            | Self::Commit { answer, .. }
            | Self::Flush { answer } => drop(answer.send(Err(StoreError::Poisoned))),
        }
    }
}

fn poisoned(entries: usize) -> Vec<Result<Cursor, LogError>> {
    std::iter::repeat_with(|| Err(StoreError::Poisoned.into())).take(entries).collect()
}
