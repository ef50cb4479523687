use std::sync::atomic::Ordering;

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

/// Whether to send calls here. The server listens only once its store is open, so all that is looked at is the drain.
pub(super) fn ready(api: &Api) -> Answer {
    if !api.draining.load(Ordering::Acquire) {
        return reply::json(StatusCode::OK, &json!({ "status": "ready" }));
    }
    let mut response = reply::json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "draining" }))?;
    // The same `Retry-After` as every other answer that says "not now".
    if let Some(retry_after) = problem(&ApiError::Draining).headers().get(RETRY_AFTER) {
        response.headers_mut().insert(RETRY_AFTER, retry_after.clone());
    }
    Ok(response)
}
