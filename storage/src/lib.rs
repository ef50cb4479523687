//! Event logs and records of gatecast.
//!
//! This crate knows logs and records. It knows no HTTP, no frames and no event types: bodies are opaque bytes.
//!
//! # Layout
//! Start at [`log`], then [`memory`] (the model in 150 lines), then [`sled`].
//! - [`ids`]: the newtypes everything else speaks in; [`ids::Cursor`] is the one position on every transport.
//! - [`log`]: [`EventLog`], one bounded durable ring per gateway, and [`Follower`], which hears of every append.
//! - [`compaction`]: [`Compacted`], what the entries that left a ring leave behind: the latest of every key.
//! - [`records`]: [`Records`], small tables with atomic commits; engines implement it and [`EventLog`], nothing else.
//! - [`directory`]: gateways, tokens, APIs, deployments and event types, on top of [`Records`].
//! - [`deliveries`]: failed deliveries, bounded and written behind, on top of [`Records`].
//! - [`receipts`]: how far replicas are and what they reported, bounded and written behind likewise (`write_behind`).
//! - [`answers`]: what calls with an idempotency key were answered, stored with their events; [`orders`]: which events of
//!   deployments are stored, until the directory knows.
//! - [`gone`]: what deletions have left that did not come to their end.
//! - [`memory`] and [`sled`]: the engines; [`stores`] is what both hand out. `contract` (feature `contract`) is the
//!   suite that every engine passes.
//! - [`clock`]: wall time, injected.

pub mod answers;
pub mod clock;
pub mod compaction;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod deliveries;
pub mod directory;
pub mod gone;
pub mod ids;
pub mod log;
pub mod memory;
pub mod orders;
pub mod receipts;
pub mod records;
pub mod sled;
pub mod stores;
mod write_behind;

pub use answers::{Answer, AnswerName, Answers};
pub use clock::{Clock, ManualClock, SystemClock};
pub use compaction::{Compacted, Compaction};
pub use deliveries::{
    Deliveries, DeliveryFilter, DeliveryLimits, DeliveryTotals, FailedDelivery, Failure, FailureReason,
};
pub use directory::{
    Access, Api, ApiId, CatchUp, DELETED_MAX, Deployment, DeploymentStatus, Directory, DirectoryError, EARLIER_MAX,
    Earlier, EventType, Gateway, GatewayUpdate, OrganizationId, Pending, Token, TokenHash, TokenId, TokenState, Told,
};
pub use gone::{forget_gone, forget_if_gone};
pub use ids::{Cursor, Epoch, GatewayId, Seq};
pub use log::{
    Appended, Beside, Bounds, Budget, Draft, Entry, EventLog, Follower, LogError, NoFollower, Page, Retention,
};
pub use memory::{MemoryLog, MemoryRecords};
pub use orders::Orders;
pub use receipts::{Outcome, Passage, Receipts, Replica, ReplicaInfo, Reported, Seat, Start, Subject};
pub use records::{Change, Condition, Durability, Records, StoreError, Table};
pub use sled::{
    Backup, Checked, Repaired, SledLog, SledRecords, check_export, check_store, export_store, import_store, open_sled,
    repair_store,
};
pub use stores::{Closed, Stores, open_memory};
