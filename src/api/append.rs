use std::future::Future;
use std::time::Duration;

use gatecast_storage::Cursor;
use serde::Serialize;

use super::Api;
use super::error::ApiError;
use crate::publish::{Call, Outgoing, Published};

/// A call whose appends take longer is answered as unavailable; they may still be stored.
const APPEND_TIMEOUT: Duration = Duration::from_secs(10);
/// The same for a call that appends to many logs.
const APPEND_MANY_TIMEOUT: Duration = Duration::from_secs(60);

/// Appends events to the logs of gateways that exist, each once, and answers in their order.
///
/// A gateway that was deleted meanwhile must not keep a log: the append made it anew, so it is let go again.
pub(super) async fn append_each(
    api: &Api,
    events: Vec<Outgoing<'_>>,
    call: Option<&Call>,
) -> Vec<Result<Published, ApiError>> {
    let gateways: Vec<_> = events.iter().map(|outgoing| outgoing.to).collect();
    let mut results = Vec::with_capacity(gateways.len());
    for (to, result) in gateways.into_iter().zip(api.publisher.publish_all(events, call).await) {
        results.push(match result {
            Ok(_) if api.forget_if_gone(to).await => Err(ApiError::no_gateway()),
            result => result.map_err(ApiError::from),
        });
    }
    results
}

/// The code of an element that was refused, which counts as a call does.
pub(super) fn refused(api: &Api, error: &ApiError) -> &'static str {
    let code = error.logged_code();
    api.metrics.refusals.refused(code);
    code
}

/// What a call that appends to one log comes to, in time.
pub(super) async fn in_time<T>(work: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    tokio::time::timeout(APPEND_TIMEOUT, work).await.unwrap_or_else(|_| Err(ApiError::timeout()))
}

/// As [`in_time`], for many logs.
pub(super) async fn many_in_time<T>(work: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    tokio::time::timeout(APPEND_MANY_TIMEOUT, work).await.unwrap_or_else(|_| Err(ApiError::timeout()))
}

/// A cursor as JSON shows it: an eventId.
#[derive(Debug, Clone, Copy)]
pub(super) struct EventId(pub(super) Cursor);

impl Serialize for EventId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}
