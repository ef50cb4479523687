//! Black box: a real server on real sockets and, unless a test says otherwise, a real disk.
//!
//! New tests go to the module of their theme; what they share stands in `app.rs` (a server in this process) and
//! `wire.rs` (clients that read bytes as they come).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod app;
mod architecture;
mod order;
mod quickstart;
mod receipts;
mod streams;
mod tls;
mod wire;
