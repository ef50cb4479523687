//! What an engine hands out when it is opened.

use std::path::PathBuf;
use std::sync::Arc;

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
    }
}
