//! Sockets that hyper has not seen, and the way from there to hyper.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

mod line;
mod on_the_spot;
mod polls;
mod upgrades;
