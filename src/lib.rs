//! Ordered, durable events from a control plane to its API gateways.

pub mod api;
pub mod auth;
pub mod envelope;
pub mod event_types;
pub mod publish;
pub mod registry;
