use std::sync::Arc;
use std::time::Duration;

use gatecast_storage::deliveries::{Deliveries, Failure, FailureReason};
use gatecast_storage::{
    Budget, Clock, Cursor, Directory, DirectoryError, EventLog, GatewayId, Page, Receipts, Replica, StoreError,
    Subject, forget_if_gone,
};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::envelope;
use crate::sparse_log::{Line, SparseLog};

/// How long one report may hold up those behind it.
const READ_TIMEOUT: Duration = Duration::from_secs(3);

/// A report that changed something.
pub(super) struct FollowUp {
    pub(super) gateway: GatewayId,
    pub(super) subject: Subject,
    pub(super) news: News,
}

/// What it changed.
pub(super) enum News {
    /// A replica has applied it.
    Applied,
    /// One could not, and that is on record under this number, without the event's type.
    Failed(u64),
}

/// Does what follows from reports: a deployment that a replica applied is deployed, an event that one could not apply is
/// a failed delivery until it does.
pub(super) struct Follower {
    pub(super) receipts: Arc<Receipts>,
    pub(super) directory: Arc<Directory>,
    pub(super) log: Arc<dyn EventLog>,
    pub(super) deliveries: Arc<Deliveries>,
    pub(super) clock: Arc<dyn Clock>,
    /// A gateway can report as much as it likes.
    pub(super) failure_log: SparseLog<GatewayId>,
}

/// What of an event is needed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    correlation_id: String,
    #[serde(default)]
    payload: Payload,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    deployment_id: Option<Uuid>,
}

impl Follower {
    pub(super) async fn run(self: Arc<Self>, mut queue: mpsc::Receiver<FollowUp>) {
        while let Some(follow_up) = queue.recv().await {
            self.follow(follow_up).await;
        }
    }

    async fn follow(&self, FollowUp { gateway, subject, news }: FollowUp) {
        // To read it would make its log anew.
        if self.directory.gateway(gateway).is_none() {
            return;
        }
        let cursor = match subject {
            Subject::Event(event) => Some(event),
            Subject::Deployment(id) => self.directory.told_of_deployment(id).and_then(|told| told.event),
        };
        let event = match cursor {
            Some(cursor) => self.event(gateway, cursor).await,
            None => None,
        };
        if forget_if_gone(gateway, &self.directory, &*self.log, &self.receipts, &self.deliveries).await {
            return;
        }
        if let News::Failed(number) = news {
            if let Some(Event { kind, correlation_id, .. }) = event {
                self.deliveries.describe(number, kind, correlation_id);
            }
            return;
        }
        let deployment = match subject {
            Subject::Deployment(id) => Some(id),
            Subject::Event(_) => event.and_then(|event| event.payload.deployment_id),
        };
        if let Some(id) = deployment {
            self.settle(gateway, id).await;
        }
    }

    /// Puts on record what a replica made of an event, in memory; what of it takes the disk is left.
    pub(super) fn put_on_record(
        &self,
        gateway: GatewayId,
        replica: &Replica,
        (subject, event): (Subject, Cursor),
        applied: bool,
    ) -> News {
        let now = self.clock.now();
        if applied {
            // It may have failed under its other name, or so long ago that its failure is forgotten.
            self.deliveries.applied(gateway, event, replica, now);
            return News::Applied;
        }
        if let Some(Line { unlogged }) = self.failure_log.line(gateway, GatewayId(Uuid::nil())) {
            warn!(gateway.id = %gateway, %replica, event.id = %event, unlogged, "A replica could not apply an event.");
        }
        let number = self.deliveries.record(Failure {
            gateway,
            replica: Some(replica.clone()),
            event,
            events: 1,
            event_type: None,
            correlation_id: None,
            reason: FailureReason::FailedByGateway,
            at: now,
        });
        // It may have been applied meanwhile, by a report that found nothing to recover yet.
        if self.receipts.has_applied(gateway, replica, &[subject, Subject::Event(event)]) {
            self.deliveries.applied(gateway, event, replica, now);
        }
        // Its gateway may have been deleted meanwhile, and what was kept of it forgotten.
        if self.directory.gateway(gateway).is_none() {
            self.deliveries.forget(gateway);
        }
        News::Failed(number)
    }

    async fn settle(&self, gateway: GatewayId, id: Uuid) {
        match self.directory.settle_deployment(gateway, id, self.clock.now()).await {
            Ok(Some(row)) => {
                info!(gateway.id = %gateway, api.id = %row.api, status = ?row.status, "A replica applied a deployment.");
            }
            Ok(None) => {}
            // It says so itself, once; and whoever looks next comes here again.
            Err(DirectoryError::Store(StoreError::Full)) => {
                debug!(gateway.id = %gateway, "There is no room for the status of a deployment.")
            }
            Err(error) => warn!(gateway.id = %gateway, %error, "The status of a deployment could not be stored."),
        }
    }

    /// The event, if it is still held.
    async fn event(&self, gateway: GatewayId, id: Cursor) -> Option<Event> {
        let before = Cursor { epoch: id.epoch, seq: id.seq.prev() };
        let read = timeout(READ_TIMEOUT, self.log.read(gateway, before, Budget { events: 1, bytes: 1 })).await;
        let entries = match read {
            Ok(Ok(Page::Entries(entries))) => entries,
            Ok(Ok(_)) => {
                debug!(gateway.id = %gateway, event.id = %id, "A receipt is of an event that is not held any more.");
                return None;
            }
            Ok(Err(error)) => {
                warn!(gateway.id = %gateway, event.id = %id, %error, "The event of a receipt could not be read.");
                return None;
            }
            Err(_) => {
                warn!(gateway.id = %gateway, event.id = %id, "The event of a receipt could not be read in time.");
                return None;
            }
        };
        let frame = envelope::seal(id.epoch, entries.first().filter(|entry| entry.seq == id.seq)?)?;
        serde_json::from_str(frame.text()).ok()
    }
}
