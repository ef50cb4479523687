use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::{MemoryLog, MemoryRecords};
use crate::clock::Clock;
use crate::contract::{LogHost, RecordsHost};
use crate::log::{EventLog, Follower, Retention};
use crate::records::Records;

/// Keeps the engine itself over a reopen: it has nowhere else to keep anything.
#[derive(Default)]
struct Host {
    log: Mutex<Option<Arc<MemoryLog>>>,
    records: Arc<MemoryRecords>,
}

#[async_trait]
impl LogHost for Host {
    async fn open(
        &self,
        retention: Retention,
        clock: Arc<dyn Clock>,
        follower: Arc<dyn Follower>,
    ) -> Arc<dyn EventLog> {
        let mut log = self.log.lock().unwrap();
        Arc::clone(log.get_or_insert_with(|| Arc::new(MemoryLog::new(retention, clock, follower)))) as Arc<dyn EventLog>
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
