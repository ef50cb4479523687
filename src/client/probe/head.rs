//! What an answer says of itself, and of who wrote it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderName, StatusCode, header};

use crate::client::trouble::Refusal;

/// The head of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// The status.
    pub status: u16,
    /// `Server`: whoever answered. gatecast sends none.
    pub server: Option<String>,
    /// `Via`: whoever passed it on.
    pub via: Option<String>,
    /// `Location`, of a redirect.
    pub location: Option<String>,
    /// `Content-Encoding`.
    pub encoding: Option<String>,
    /// `Date`.
    pub date: Option<DateTime<Utc>>,
    /// From the request to the end of a refusal.
    pub took: Duration,
    /// `Retry-After`.
    pub retry_after: Option<Duration>,
    /// The code, if gatecast itself refused, in problem+json.
    pub code: Option<String>,
    /// The refusal in words.
    pub detail: String,
}

impl Head {
    pub(super) fn read(status: StatusCode, headers: &HeaderMap) -> Self {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let date = text(header::DATE).and_then(|date| DateTime::parse_from_rfc2822(&date).ok());
        Self {
            status: status.as_u16(),
            server: text(header::SERVER),
            via: text(header::VIA),
            location: text(header::LOCATION),
            encoding: text(header::CONTENT_ENCODING),
            date: date.map(|date| date.to_utc()),
            ..Self::default()
        }
    }

    /// The same with what a refusal says.
    pub(super) fn refusing(self, refusal: Refusal, took: Duration) -> Self {
        let code = refusal.is_problem.then_some(refusal.code);
        Self { took, retry_after: refusal.retry_after, code, detail: refusal.detail, ..self }
    }
}

/// `Content-Type`.
pub(super) fn kind(headers: &HeaderMap) -> &str {
    headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default()
}
