use std::sync::atomic::Ordering;

use gatecast_storage::Condition;
use http::StatusCode;
use http::header::RETRY_AFTER;
use serde_json::json;

use super::Api;
use super::error::{ApiError, problem};
use super::reply::{self, Answer};

/// The process is alive; nothing more is looked at.
pub(super) fn health() -> Answer {
    reply::json(StatusCode::OK, &json!({ "status": "alive" }))
}

/// Whether to send calls here. A full store is ready, since gateways connect and catch up as ever: to take the server
/// out of a balancer would cut them off as well. One that refuses writes until a restart is not. Why it does stands in
/// the log, where it began.
pub(super) fn ready(api: &Api) -> Answer {
    if api.draining.load(Ordering::Acquire) {
        return not_ready("draining");
    }
    match api.metrics.condition() {
        Condition::Broken => not_ready("unavailable"),
        Condition::Full => reply::json(StatusCode::OK, &json!({ "status": "read-only" })),
        Condition::Serving => reply::json(StatusCode::OK, &json!({ "status": "ready" })),
    }
}

fn not_ready(status: &str) -> Answer {
    let mut response = reply::json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": status }))?;
    // The same `Retry-After` as every other answer that says "not now".
    if let Some(retry_after) = problem(&ApiError::Draining).headers().get(RETRY_AFTER) {
        response.headers_mut().insert(RETRY_AFTER, retry_after.clone());
    }
    Ok(response)
}
