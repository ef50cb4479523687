//! What the API says of itself: OpenAPI for its calls, AsyncAPI for the streams. Written by hand beside the code, and
//! held to it: tests compare the calls with the router's table, and the answers of a running server with the schemas.

use bytes::Bytes;
use http::StatusCode;

use super::reply::{self, Answer};

/// OpenAPI 3.1.
pub(super) const OPENAPI: &str = include_str!("openapi.json");
/// AsyncAPI 3.0.
pub(super) const ASYNCAPI: &str = include_str!("asyncapi.json");

/// A description as it was written.
pub(super) fn read(description: &'static str) -> Answer {
    Ok(reply::bytes(StatusCode::OK, "application/json", Bytes::from_static(description.as_bytes())))
}
