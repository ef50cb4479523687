use http::StatusCode;

use super::Api;
use super::reply::{self, Answer};
use crate::metrics::MEDIA_TYPE;

/// What Prometheus scrapes.
pub(super) async fn read(api: &Api) -> Answer {
    Ok(reply::bytes(StatusCode::OK, MEDIA_TYPE, api.metrics.page().await.into()))
}
