//! What an engine hands out when it is opened.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::Backup;
use crate::clock::Clock;
use crate::log::{EventLog, Follower, Retention};
use crate::memory::{MemoryLog, MemoryRecords};
use crate::records::Records;

/// The open stores of one server.
#[derive(Clone)]
pub struct Stores {
    /// The gateways' logs.
    pub log: Arc<dyn EventLog>,
    /// Records that may be lost with the logs: failed deliveries, receipts, and what is stored beside entries.
    pub events_records: Arc<dyn Records>,
    /// Records that must not be lost: [`Directory`](crate::Directory).
    pub directory_records: Arc<dyn Records>,
    /// Copies of all of it, if it is on disk.
    pub backup: Option<Arc<Backup>>,
    /// Where their files are, if they are on disk.
    pub dir: Option<PathBuf>,
    /// When the last of these handles has closed them, if they are on disk.
    pub closed: Option<Closed>,
}

/// Tells when stores are closed: all of them is on disk, and another may open them.
#[derive(Clone)]
pub struct Closed(Arc<Mutex<Receiver<Infallible>>>);

impl Closed {
    /// Once the sender of this is dropped.
    pub(crate) fn once_gone(open: Receiver<Infallible>) -> Self {
        Self(Arc::new(Mutex::new(open)))
    }

    /// Blocks until they are closed, or for `at_most`; whether they are.
    #[must_use]
    pub fn wait(&self, at_most: Duration) -> bool {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(open.recv_timeout(at_most), Err(RecvTimeoutError::Disconnected))
    }
}

/// Stores in memory: nothing survives the process.
#[must_use]
pub fn open_memory(retention: Retention, clock: Arc<dyn Clock>, follower: Arc<dyn Follower>) -> Stores {
    let log = MemoryLog::new(retention, clock, follower);
    Stores {
        events_records: log.records(),
        log: Arc::new(log),
        directory_records: Arc::new(MemoryRecords::new()),
        backup: None,
        dir: None,
        closed: None,
    }
}
