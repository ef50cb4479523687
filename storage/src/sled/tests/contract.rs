use std::sync::Arc;

use async_trait::async_trait;
use tempfile::TempDir;

use crate::clock::{Clock, SystemClock};
use crate::contract::{LogHost, Opened, ROOMY, RecordsHost};
use crate::log::{Follower, NoFollower, Retention};
use crate::records::Records;
use crate::sled::open_sled;

pub(super) struct Host {
    pub(super) data: TempDir,
}

impl Host {
    pub(super) fn new() -> Self {
        Self { data: TempDir::new().unwrap() }
    }
}

#[async_trait]
impl LogHost for Host {
    async fn open(&self, retention: Retention, clock: Arc<dyn Clock>, follower: Arc<dyn Follower>) -> Opened {
        let stores = open_sled(self.data.path(), retention, clock, follower).await.unwrap();
        (stores.log, stores.events_records)
    }
}

#[async_trait]
impl RecordsHost for Host {
    async fn open(&self) -> Arc<dyn Records> {
        let stores = open_sled(self.data.path(), ROOMY, Arc::new(SystemClock), Arc::new(NoFollower)).await;
        stores.unwrap().directory_records
    }
}

crate::log_contract!(Host::new());
crate::records_contract!(Host::new());
