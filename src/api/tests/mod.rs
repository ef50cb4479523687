//! The API over the engine in memory, through the same filter that serves it.

mod access;
mod any_input;
mod deployments;
mod descriptions;
mod event_types;
mod events;
mod fetching;
mod gateways;
mod metrics;
mod operations;
mod receipts;
mod tokens;
pub(crate) mod world;
