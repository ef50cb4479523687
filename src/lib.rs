//! Ordered, durable events from a control plane to its API gateways.

pub mod client;
pub mod config;
