//! The suite that every transport passes, over real sockets, with clients that know nothing but bytes.
//!
//! - [`script`]: a [`Gate`](crate::Gate) whose sessions do what the test says, and which remembers what they were told.
//! - [`server`]: a loopback HTTP server over a transport's routes.
//! - [`raw`]: a socket, an HTTP request, an HTTP answer. [`client`]: one view of the three transports' streams.
//! - [`ws`], [`sse`], [`poll`]: the raw clients.
//! - [`cases`]: the contract, one function a promise.
//!
//! A new transport writes a [`client::Client`] and runs `contract::all::<ItsClient>()`.
//!
//! This is test code: whatever goes wrong panics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::missing_panics_doc)]

pub mod by_hyper;
pub mod cases;
pub mod client;
pub mod poll;
pub mod raw;
pub mod script;
pub mod server;
pub mod sse;
pub mod ws;

use std::time::Duration;

use crate::timing::Timing;

/// Runs every case against a transport.
pub async fn all<C: client::Client>() {
    cases::first_message_is_the_acknowledgement_and_bytes_and_order_are_kept::<C>().await;
    cases::an_event_of_three_mebibytes_arrives_whole::<C>().await;
    cases::every_close_reason_is_told_as_the_table_says::<C>().await;
    cases::a_refusal_passes_through_untouched::<C>().await;
    cases::a_malformed_handshake_is_the_gates_to_answer::<C>().await;
    cases::a_session_is_dropped_when_its_peer_goes::<C>().await;
    cases::a_peer_that_does_not_read_ends_and_loses_nothing::<C>().await;
    cases::a_cut_stops_a_stalled_write::<C>().await;
}

/// Deadlines for tests: short where a test waits for them to pass, and nowhere else.
#[must_use]
pub fn short() -> Timing {
    Timing { write_stall: Duration::from_millis(300), ..Timing::default() }
}

/// The most that a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(5);
