//! gatecast pushes ordered, durable events from a control plane to each of its API gateways.
//!
//! One idea: every gateway has a log, and a connection is a cursor over it. Live delivery, catching up, slow readers,
//! transport switches and restarts are one path.
//!
//! # Layout
//! Start at [`publish`], the write path, then [`session`], the read path. Between them stands [`tail`]: what was
//! appended lately, sealed once; `rounds.rs` serves whoever waits for it.
//!
//! - [`gate`] admits connections ([`limits`], [`proxies`], [`auth`]); [`registry`] knows them; [`lease`] keeps those
//!   that come and go; [`heartbeat`] and [`pacing`] are their timing, as pure functions.
//! - What a connection has not handed over when it ends is its `shortfall.rs`, a failed delivery.
//! - A session whose cursor its log's ring has left behind is below it: `below.rs` leads it back.
//! - `reading.rs` is a read of a log and the pause before the next, of sessions and of who watches on the dashboard.
//! - [`envelope`] and [`control`] spell messages; [`traceparent`] is the member that carries a publisher's trace; [`event_types`] says which events there are.
//! - [`receipts`] is what gateways report: received, applied, failed, and what follows from it; [`gap`] foretells who will lose events.
//! - `descriptors.rs` raises the limit of open files.
//! - [`metrics`] is what Prometheus is shown of all that, [`traces`] what a collector of OpenTelemetry is.
//! - [`api`] is the platform's HTTP API; `dashboard` the page at `/` and what keeps it live; [`hub`] puts all parts together, [`server`] gives them sockets; [`config`], [`cli`], [`client`].
//!
//! The crates `gatecast-storage` (logs and records) and `gatecast-transports` (WebSocket, SSE, long-poll) know
//! nothing of each other; this one joins them and holds all policy.

pub mod api;
pub mod auth;
mod bell;
mod below;
pub mod certificate;
pub mod cli;
pub mod client;
pub mod config;
mod control;
mod dashboard;
mod descriptors;
pub mod envelope;
pub mod event_types;
pub mod gap;
pub mod gate;
pub mod heartbeat;
mod hold;
pub mod hub;
pub mod lease;
pub mod limits;
pub mod metrics;
mod network;
mod next_poll;
pub mod pacing;
pub mod proxies;
pub mod publish;
mod reading;
pub mod receipts;
mod refusal_log;
pub mod registry;
mod rounds;
pub mod server;
pub mod session;
mod shortfall;
mod sparse_log;
pub mod tail;
pub mod traceparent;
pub mod traces;
