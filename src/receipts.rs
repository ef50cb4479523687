//! What gateways report of events: received, applied, failed (CONTRACT.md § 6).
//!
//! A report is heard where it arrives ([`Reports::hear`] from a connection, [`Reports::take`] from a call), checked
//! against what its gateway was sent, and kept ([`gatecast_storage::receipts`]); failures are put on record, and recover,
//! with it: all of that is memory only. What follows from it and takes the disk is done behind, by one task
//! ([`follow_up`]): the status of a deployment, and the type of an event that failed. That is a queue of
//! [`FOLLOW_UPS_MAX`] for all gateways, which drops what does not fit: the status that is shown is derived from the
//! outcomes anyway, and a failure says which event it is of.

mod follow_up;
mod message;
pub mod standing;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gatecast_storage::deliveries::Deliveries;
use gatecast_storage::{
    Clock, Cursor, Directory, EventLog, GatewayId, Outcome, Receipts, Replica, Reported, Subject, Told,
};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::debug;
use uuid::Uuid;

pub(crate) use self::message::{Report, Status, report};

use self::follow_up::{FollowUp, Follower, News};
use crate::sparse_log::SparseLog;

/// Reports whose consequences wait to be written.
const FOLLOW_UPS_MAX: usize = 1_024;

/// Takes reports.
pub struct Reports {
    receipts: Arc<Receipts>,
    directory: Arc<Directory>,
    clock: Arc<dyn Clock>,
    follow_ups: mpsc::Sender<FollowUp>,
    follower: Arc<Follower>,
    /// Ends with this value.
    following: JoinHandle<()>,
    received: AtomicU64,
    applied: AtomicU64,
    failed: AtomicU64,
    ignored: AtomicU64,
}

/// Reports taken since the start of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) received: u64,
    pub(crate) applied: u64,
    pub(crate) failed: u64,
}

/// Who reports.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reporter<'a> {
    pub(crate) gateway: GatewayId,
    pub(crate) replica: &'a Replica,
    /// The furthest event that it can know of.
    pub(crate) sent: Cursor,
}

/// What becomes of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is kept, or says what is known.
    Kept,
    /// Everything up to here was received; where that is kept is the caller's to know.
    Received(Cursor),
    /// It is of nothing that this gateway was sent, or of a replica that is not known.
    Foreign,
}

impl Reports {
    /// Keeps reports in `receipts`.
    #[must_use]
    pub fn new(
        receipts: Arc<Receipts>,
        directory: Arc<Directory>,
        log: Arc<dyn EventLog>,
        deliveries: Arc<Deliveries>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (follow_ups, queue) = mpsc::channel(FOLLOW_UPS_MAX);
        let follower = Arc::new(Follower {
            receipts: receipts.clone(),
            directory: directory.clone(),
            log,
            deliveries,
            clock: clock.clone(),
            failure_log: SparseLog::default(),
        });
        let following = tokio::spawn(follower.clone().run(queue));
        let [received, applied, failed, ignored] = [const { AtomicU64::new(0) }; 4];
        Self { receipts, directory, clock, follow_ups, follower, following, received, applied, failed, ignored }
    }

    /// Takes a text message of a connection; returns up to where the peer says to have received everything. What is no
    /// report, or a wrong one, is counted and ignored: a gateway must not lose its connection over it.
    pub(crate) fn hear(&self, text: &str, from: Reporter<'_>) -> Option<Cursor> {
        let heard = match serde_json::from_str::<Value>(text).map(|message| report(&message, "")) {
            Ok(Ok(heard)) => heard,
            Ok(Err(faults)) => {
                let fault = faults.first().map(|fault| format!("{} {}", fault.field, fault.message));
                return self.ignore(from, fault.as_deref().unwrap_or_default());
            }
            Err(_) => return self.ignore(from, "not JSON"),
        };
        match self.take(heard, from) {
            Taken::Received(to) => Some(to),
            Taken::Kept => None,
            Taken::Foreign => self.ignore(from, "of nothing that it was sent"),
        }
    }

    /// Takes a report.
    pub(crate) fn take(&self, report: Report, from: Reporter<'_>) -> Taken {
        let Some(event) = self.event_of(report.subject, from.gateway) else { return Taken::Foreign };
        // A deployment's row may not name its event yet: a quick gateway answers before the publisher is answered.
        let is_sent = |event: Cursor| event.epoch == from.sent.epoch && event.seq <= from.sent.seq && event.seq.0 > 0;
        if event.is_some_and(|event| !is_sent(event)) {
            return Taken::Foreign;
        }
        let applied = match (report.status, event) {
            (Status::Received, Some(event)) => {
                self.received.fetch_add(1, Ordering::Relaxed);
                return Taken::Received(event);
            }
            (Status::Received, None) => return Taken::Foreign,
            (Status::Applied, _) => true,
            (Status::Failed, _) => false,
        };
        let Report { subject, error_code, message, .. } = report;
        let at = self.clock.now();
        let outcome = Outcome { applied, at, error_code, message };
        let reported = self.receipts.report(from.gateway, from.replica, (subject, event), outcome);
        debug!(gateway.id = %from.gateway, replica = %from.replica, ?subject, applied, ?reported, "Receipt heard.");
        if reported == Reported::Unknown {
            return Taken::Foreign;
        }
        let count = if applied { &self.applied } else { &self.failed };
        count.fetch_add(1, Ordering::Relaxed);
        // It may have become known meanwhile, by who did not see this report yet.
        let event = event.or_else(|| self.event_of(subject, from.gateway).flatten());
        // A success that is known is put on record once more: a crash may have kept it and lost that.
        if applied || reported == Reported::New {
            let news = match event {
                Some(event) => self.follower.put_on_record(from.gateway, from.replica, (subject, event), applied),
                None if applied => News::Applied,
                // On record once it is known.
                None => return Taken::Kept,
            };
            if reported == Reported::New {
                self.follow_up(FollowUp { gateway: from.gateway, subject, news });
            }
        }
        Taken::Kept
    }

    /// The event that a report is about, which a deployment's row may not name yet; `None` if its gateway was told of no such.
    fn event_of(&self, subject: Subject, gateway: GatewayId) -> Option<Option<Cursor>> {
        match subject {
            Subject::Event(event) => Some(Some(event)),
            // Also one that another has replaced since: what became of it stands on its event's timeline.
            Subject::Deployment(id) => {
                let told = self.directory.told_of_deployment(id).filter(|told| told.gateway == gateway)?;
                Some(told.event)
            }
        }
    }

    /// The directory names the event of a deployment from now on: who could not apply it and said so before is put on record.
    pub(crate) fn told(&self, deployment: Uuid) {
        let Some(Told { gateway, event: Some(event) }) = self.directory.told_of_deployment(deployment) else { return };
        let subject = Subject::Deployment(deployment);
        for (replica, outcome) in self.receipts.outcomes(gateway, &[subject]) {
            if outcome.is_some_and(|outcome| !outcome.applied) {
                let news = self.follower.put_on_record(gateway, &replica, (subject, event), false);
                self.follow_up(FollowUp { gateway, subject, news });
            }
        }
    }

    /// A deployment whose row says less than its outcomes: the row is brought up to them.
    pub(crate) fn settle(&self, gateway: GatewayId, deployment: Uuid) {
        let subject = Subject::Deployment(deployment);
        // Whoever looks next finds the same, should there be no room.
        self.follow_up(FollowUp { gateway, subject, news: News::Applied });
    }

    fn follow_up(&self, follow_up: FollowUp) {
        let gateway = follow_up.gateway;
        if self.follow_ups.try_send(follow_up).is_err() {
            debug!(gateway.id = %gateway, "Too many receipts at once; what of this one takes the disk is not done.");
        }
    }

    /// How many reports were taken.
    pub(crate) fn heard(&self) -> Heard {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Heard { received: count(&self.received), applied: count(&self.applied), failed: count(&self.failed) }
    }

    /// How many messages from gateways were ignored since the start.
    #[must_use]
    pub fn ignored(&self) -> u64 {
        self.ignored.load(Ordering::Relaxed)
    }

    fn ignore(&self, from: Reporter<'_>, why: &str) -> Option<Cursor> {
        self.ignored.fetch_add(1, Ordering::Relaxed);
        debug!(gateway.id = %from.gateway, replica = %from.replica, why, "A message of a gateway is ignored.");
        None
    }
}

impl Drop for Reports {
    fn drop(&mut self) {
        self.following.abort();
    }
}
