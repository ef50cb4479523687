//! Why a call of the platform API has no answer.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::super::problem::Problem;
use super::super::trouble::{Refusal, causes, is_no_http};

/// A call without an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// No server was reached.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// A server was reached, and no whole answer came.
    #[error("{reason}")]
    Unanswered {
        /// What was seen instead.
        reason: String,
        /// Whether the call was to change something, which may have been done.
        changes: bool,
    },
    /// The server refused.
    #[error("{status} {}", .problem.detail.as_deref().or(.problem.title.as_deref()).unwrap_or("refused"))]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The server's words.
        problem: Box<Problem>,
        /// When it may be worth trying again.
        retry_after: Option<Duration>,
        /// Whether the call was to change something.
        changes: bool,
    },
    /// The answer is not of the shape that the contract names.
    #[error("the answer is not what a gatecast server says: {0}")]
    Strange(String),
}

impl ApiError {
    /// No whole answer came to a call that may take so long.
    pub(super) fn without_answer(error: reqwest::Error, within: Duration, changes: bool) -> Self {
        if error.is_connect() || is_no_http(&error) {
            return Self::Unreachable(causes(&error.without_url()));
        }
        let reason = match error.is_timeout() {
            true => format!("no answer within {} s", within.as_secs()),
            false => format!("no answer: {}", causes(&error.without_url())),
        };
        Self::Unanswered { reason, changes }
    }

    /// Whether what the call was to change may have been changed: neither a server that waited in vain for its store nor a
    /// proxy that did for its server knows what became of it.
    pub(crate) fn may_be_done(&self) -> bool {
        matches!(self, Self::Unanswered { changes: true, .. } | Self::Refused { status: 500.., changes: true, .. })
    }

    pub(super) fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8], changes: bool) -> Self {
        let refusal = Refusal::read(status, headers, body);
        let problem = match refusal.is_problem {
            true => serde_json::from_slice(body).unwrap_or_default(),
            false => Problem { detail: Some(refusal.detail), ..Problem::default() },
        };
        let problem =
            Problem { title: problem.title.or_else(|| status.canonical_reason().map(str::to_owned)), ..problem };
        Self::Refused { status: status.as_u16(), problem: Box::new(problem), retry_after: refusal.retry_after, changes }
    }
}
