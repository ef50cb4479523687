//! The suite that every engine passes: what [`EventLog`] and [`Records`] promise, as runnable cases.
//!
//! An engine implements [`LogHost`] and [`RecordsHost`], then mounts the cases as tests of its own:
//! ```text
//! gatecast_storage::log_contract!(MyHost::new());
//! gatecast_storage::records_contract!(MyHost::new());
//! ```
//! A case panics where the engine breaks its promise. Nothing here sleeps or depends on wall time.

#![allow(clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc, reason = "the cases are tests")]

pub mod compaction_cases;
pub mod log_batches;
pub mod log_cases;
pub mod log_limits;
pub mod log_races;
pub mod records_cases;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use crate::clock::{Clock, ManualClock};
use crate::compaction::Compaction;
use crate::ids::{Cursor, Epoch, GatewayId, Seq};
use crate::log::{Appended, Budget, Draft, Entry, EventLog, Follower, Page, Retention};
use crate::records::Records;

/// The data of one engine, empty when made.
#[async_trait]
pub trait LogHost: Send + Sync {
    /// Opens the engine on the host's data: what earlier opens left, all handles of which were dropped. A host whose
    /// engine keeps nothing returns the log of the first open again. With the records that hold what is stored beside
    /// entries.
    async fn open(&self, retention: Retention, clock: Arc<dyn Clock>, follower: Arc<dyn Follower>) -> Opened;
}

/// A log, and the records of [`Draft::beside`].
pub type Opened = (Arc<dyn EventLog>, Arc<dyn Records>);

/// As [`LogHost`], for records.
#[async_trait]
pub trait RecordsHost: Send + Sync {
    /// As [`LogHost::open`].
    async fn open(&self) -> Arc<dyn Records>;
}

/// Hears of appends and keeps what it heard.
#[derive(Default)]
pub struct Ear {
    heard: Mutex<Vec<(GatewayId, Epoch, Entry)>>,
    /// How much of it was there when all was told.
    told: AtomicUsize,
    tell: Mutex<Option<mpsc::UnboundedSender<(GatewayId, Cursor)>>>,
}

impl Ear {
    /// What was heard of a gateway's log, in order.
    #[must_use]
    pub fn heard(&self, of: GatewayId) -> Vec<(Epoch, Entry)> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.iter().filter(|(gateway, ..)| *gateway == of).map(|(_, epoch, entry)| (*epoch, entry.clone())).collect()
    }

    /// How many entries were heard, of all logs, when those who wait were last to be woken.
    #[must_use]
    pub fn told(&self) -> usize {
        self.told.load(Ordering::SeqCst)
    }

    /// From now on, the position of every entry at the moment it is heard of.
    pub fn listen(&self) -> mpsc::UnboundedReceiver<(GatewayId, Cursor)> {
        let (tell, told) = mpsc::unbounded_channel();
        *self.tell.lock().unwrap_or_else(PoisonError::into_inner) = Some(tell);
        told
    }
}

impl Follower for Ear {
    fn appended(&self, gateway: GatewayId, epoch: Epoch, appended: &[Appended]) {
        let entries = || appended.iter().map(|appended| &appended.entry);
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.extend(entries().map(|entry| (gateway, epoch, entry.clone())));
        if let Some(tell) = &*self.tell.lock().unwrap_or_else(PoisonError::into_inner) {
            for entry in entries() {
                // The listener may be gone.
                let _ = tell.send((gateway, Cursor { epoch, seq: entry.seq }));
            }
        }
    }

    fn told(&self) {
        self.told.store(self.heard.lock().unwrap_or_else(PoisonError::into_inner).len(), Ordering::SeqCst);
    }
}

/// An open engine with its clock and follower.
pub struct Rig<'a> {
    host: &'a dyn LogHost,
    retention: Retention,
    /// The engine's clock.
    pub clock: Arc<ManualClock>,
    /// The engine's follower.
    pub ear: Arc<Ear>,
    opened: Option<Opened>,
}

/// Bounds that no case reaches by chance.
pub const ROOMY: Retention = Retention {
    max_events: 100_000,
    max_bytes: 1 << 30,
    max_age: Duration::from_secs(24 * 60 * 60),
    compaction: Compaction::DEFAULT,
};
/// A budget that no case reaches by chance.
pub const ALL: Budget = Budget { events: usize::MAX, bytes: usize::MAX };

impl<'a> Rig<'a> {
    /// Opens the host's data.
    pub async fn open(host: &'a dyn LogHost, retention: Retention) -> Self {
        let (clock, ear) = (Arc::new(ManualClock::default()), Arc::new(Ear::default()));
        let mut rig = Self { host, retention, clock, ear, opened: None };
        rig.reopen().await;
        rig
    }

    /// Closes the engine and opens it again.
    pub async fn reopen(&mut self) {
        self.opened = None;
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let ear = Arc::clone(&self.ear) as Arc<dyn Follower>;
        self.opened = Some(self.host.open(self.retention, clock, ear).await);
    }

    /// The engine.
    #[must_use]
    pub fn log(&self) -> &Arc<dyn EventLog> {
        &self.opened.as_ref().unwrap().0
    }

    /// What is stored beside entries.
    #[must_use]
    pub fn records(&self) -> &Arc<dyn Records> {
        &self.opened.as_ref().unwrap().1
    }

    /// An entry to be, published now, without a key.
    #[must_use]
    pub fn draft(&self, body: &str) -> Draft {
        Draft {
            at: self.clock.now(),
            since: Instant::now(),
            key: None,
            ends_key: false,
            body: Bytes::copy_from_slice(body.as_bytes()),
            expect: None,
            beside: Vec::new(),
        }
    }

    /// Appends an entry.
    pub async fn append(&self, to: GatewayId, body: &str) -> Cursor {
        self.log().append(to, self.draft(body)).await.unwrap()
    }

    /// Everything after `seq` in the present epoch.
    pub async fn after(&self, of: GatewayId, seq: u64) -> Page {
        let epoch = self.log().bounds(of).await.unwrap().epoch;
        self.log().read(of, Cursor { epoch, seq: Seq(seq) }, ALL).await.unwrap()
    }

    /// Positions and bodies of everything held.
    pub async fn held(&self, of: GatewayId) -> Vec<(u64, String)> {
        let bounds = self.log().bounds(of).await.unwrap();
        let from = Cursor { epoch: bounds.epoch, seq: bounds.oldest.prev() };
        texts(self.log().read(of, from, ALL).await.unwrap())
    }
}

/// Positions and bodies of a page of entries.
#[must_use]
pub fn texts(page: Page) -> Vec<(u64, String)> {
    let Page::Entries(entries) = page else { panic!("expected entries, got {page:?}") };
    entries.into_iter().map(|entry| (entry.seq.0, String::from_utf8(entry.body.to_vec()).unwrap())).collect()
}

/// A gateway that no other case has.
#[must_use]
pub fn gateway() -> GatewayId {
    GatewayId(Uuid::new_v4())
}

/// Mounts the cases of [`EventLog`] as tests. The expression makes a fresh [`LogHost`].
#[macro_export]
macro_rules! log_contract {
    ($host:expr) => {
        $crate::log_contract!(@mount $host, log_cases:
            positions_are_dense_from_one
            an_entry_is_read_as_it_was_appended
            logs_do_not_mix
            a_read_stays_within_its_budget_but_gives_at_least_one_entry
            a_read_at_the_newest_position_is_empty
            a_cursor_of_another_epoch_is_told_so
            a_cursor_ahead_is_told_so
            an_append_that_expects_another_head_conflicts
            a_forgotten_log_starts_anew
            an_epoch_has_its_owner_until_it_is_over
            every_gateway_that_has_a_log_is_listed_once
            answered_entries_survive_a_reopen
            a_forgotten_log_stays_forgotten_after_a_reopen
            bounds_create_a_log_that_survives_a_reopen
            the_follower_hears_each_entry_once_before_the_answer
        );
        $crate::log_contract!(@mount $host, log_batches:
            a_batch_is_appended_in_order_and_each_entry_has_its_result
            a_batch_is_told_and_readable_when_it_is_answered
            batches_beside_single_appends_leave_every_log_dense
            rows_beside_an_entry_hold_its_position
            a_refused_entry_leaves_no_row
            rows_beside_entries_survive_a_reopen_as_the_entries_do
        );
        $crate::log_contract!(@mount $host, log_limits:
            the_count_is_bounded_exactly
            the_bytes_are_bounded_exactly
            the_newest_entry_is_kept_whatever_its_size
            the_age_is_bounded_exactly
            an_old_entry_behind_a_young_one_waits_for_it
            all_bounds_hold_after_a_reopen
            positions_go_on_after_everything_aged_out
            bounds_agree_with_reads_all_the_way
        );
        $crate::log_contract!(@mount $host, compaction_cases:
            the_latest_entry_of_each_key_that_left_the_ring_is_kept
            compacted_state_is_read_in_pages_from_any_position
            compacted_state_and_ring_are_of_one_moment
            a_tombstone_is_kept_as_the_latest_of_its_key
            compacted_state_is_bounded_by_keys
            compacted_state_is_bounded_by_bytes
            old_tombstones_are_let_go
            compacted_state_survives_a_reopen
            a_forgotten_log_leaves_no_compacted_state
            readers_of_compacted_state_beside_writers_reach_the_state
        );
        $crate::log_contract!(@mount $host, log_races:
            concurrent_appends_to_one_gateway_have_one_order
            concurrent_appends_to_many_gateways_do_not_mix
            one_of_many_appends_with_the_same_expectation_wins
            an_entry_is_readable_when_the_follower_hears_of_it
            readers_beside_writers_miss_nothing_silently
            abandoned_appends_leave_the_log_dense
            a_flush_waits_for_what_was_accepted
        );
    };
    (@mount $host:expr, $module:ident: $($case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let host = $host;
                $crate::contract::$module::$case(&host).await;
            }
        )*
    };
}

/// Mounts the cases of [`Records`] as tests. The expression makes a fresh [`RecordsHost`].
#[macro_export]
macro_rules! records_contract {
    ($host:expr) => {
        $crate::log_contract!(@mount $host, records_cases:
            a_row_is_read_as_it_was_put
            a_table_is_scanned_in_key_order_and_alone
            a_table_is_read_in_parts_of_any_size
            one_commit_may_put_and_delete_in_many_tables
            the_last_change_of_a_row_in_a_commit_counts
            commits_survive_a_reopen
            large_rows_survive_a_reopen
            concurrent_commits_are_applied_whole
        );
    };
}
