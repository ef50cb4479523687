//! Simulation: a whole hub over the memory engine, peers without sockets, paused time. One file per invariant.
//!
//! New tests go where their invariant is; what they share stands in `world.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod ack_first;
mod compaction;
mod elsewhere;
mod everything;
mod failed_deliveries;
mod faults;
mod faulty_log;
mod faulty_records;
mod gap;
mod heartbeat;
mod limits;
mod lost_wake_up;
mod on_the_spot;
mod pacing;
#[path = "../it/random.rs"]
mod random;
mod receipts;
mod reset;
mod resume;
mod revocation;
mod same_socket;
mod slow_reader;
mod stored;
mod world;
