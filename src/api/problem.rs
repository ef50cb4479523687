use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;
use uuid::Uuid;

/// An error as callers see it: RFC 9457, with members of our own (CONTRACT.md § 1).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Problem {
    /// `about:blank`: the status says it all, and `code` the rest.
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    /// Stable; the member to program against.
    code: &'static str,
    /// Names the log line of a 5xx.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tracking_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) errors: Vec<FieldError>,
    /// The newest event of the log, with `PRECONDITION_FAILED`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) head: Option<String>,
}

/// One thing that is wrong with a request, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// A JSON Pointer into the body, or the name of a parameter.
    pub field: String,
    /// What is wrong there.
    pub message: String,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: String) -> Self {
        // RFC 9457 § 4.2.1: with `about:blank`, the title is the status phrase.
        let title = status.canonical_reason().unwrap_or("Error");
        Self {
            kind: "about:blank",
            title,
            status: status.as_u16(),
            detail,
            code,
            tracking_id: None,
            errors: Vec::new(),
            head: None,
        }
    }

    pub(crate) fn into_response(self) -> Response<Bytes> {
        // Serialising strings and numbers cannot fail; an empty body would still have the right status.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}
