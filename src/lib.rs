//! Ordered, durable events from a control plane to its API gateways.

pub mod cli;
pub mod client;
pub mod config;
