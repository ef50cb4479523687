//! Black box: a real server on real sockets and, unless a test says otherwise, a real disk.
//!
//! New tests go to the module of their theme; what they share stands in `app.rs` (a server in this process),
//! `process.rs` (the binary), `platform.rs` (calls to its API) and `wire.rs` (clients that read bytes as they come).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod access;
mod app;
mod architecture;
mod backup;
mod bad_input;
mod cli;
mod compaction;
mod crash;
mod dashboard;
mod dead_peer;
mod deploy;
mod descriptions;
mod descriptors;
mod disk_full;
mod doctor;
mod faulty_proxy;
mod http2;
mod listen;
mod logs;
mod metrics;
mod odd_requests;
mod once;
mod order;
mod platform;
mod process;
mod proxied;
mod quickstart;
mod random;
mod real_clients;
mod receipts;
mod refusals;
mod reload;
mod rotation;
mod serve;
mod silenced;
mod stats;
mod store;
mod streams;
mod tls;
mod tls_front;
mod traces;
mod walk_through;
mod wire;
