use std::sync::atomic::{AtomicBool, Ordering};

use http::StatusCode;
use serde_json::json;

use super::Api;
use super::error::{ApiError, problem};
use super::reply::{self, Answer};

/// What `/ready` says. A server that is built is not ready; it is when its store is open and it listens.
#[derive(Debug, Default)]
pub struct Health {
    ready: AtomicBool,
    draining: AtomicBool,
}

impl Health {
    /// The store is open and the server listens.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// The server is about to stop; it is not ready any more.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether the server is about to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Whether the server takes calls.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire) && !self.is_draining()
    }
}

/// The process is alive; nothing more is looked at.
pub(super) fn health() -> Answer {
    reply::json(StatusCode::OK, &json!({ "status": "alive" }))
}

pub(super) fn ready(api: &Api) -> Answer {
    if api.health.is_ready() {
        return reply::json(StatusCode::OK, &json!({ "status": "ready" }));
    }
    let draining = api.health.is_draining();
    let status = if draining { "draining" } else { "starting" };
    let mut response = reply::json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": status }))?;
    // The same `Retry-After` as every other answer that says "not now".
    let refusal = problem(&ApiError::Draining);
    if let Some(retry_after) = refusal.headers().get(http::header::RETRY_AFTER) {
        response.headers_mut().insert(http::header::RETRY_AFTER, retry_after.clone());
    }
    Ok(response)
}
