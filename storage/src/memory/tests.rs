use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::{MemoryLog, MemoryRecords};
use crate::clock::Clock;
use crate::contract::{LogHost, Opened, RecordsHost};
use crate::log::{Follower, Retention};
use crate::records::Records;

/// Keeps the engine itself over a reopen: it has nowhere else to keep anything.
#[derive(Default)]
struct Host {
    log: Mutex<Option<Arc<MemoryLog>>>,
    records: Arc<MemoryRecords>,
}

#[async_trait]
impl LogHost for Host {
    async fn open(&self, retention: Retention, clock: Arc<dyn Clock>, follower: Arc<dyn Follower>) -> Opened {
        let mut log = self.log.lock().unwrap();
        let log = Arc::clone(log.get_or_insert_with(|| Arc::new(MemoryLog::new(retention, clock, follower))));
        let records = log.records();
        (log, records)
    }
}

#[async_trait]
impl RecordsHost for Host {
    async fn open(&self) -> Arc<dyn Records> {
        Arc::clone(&self.records) as Arc<dyn Records>
    }
}

crate::log_contract!(Host::default());
crate::records_contract!(Host::default());
