//! Gateways, their tokens, API artifacts, deployments and event types.
