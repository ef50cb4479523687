//! Why a call of the platform API has no answer.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::super::problem::Problem;
use super::super::trouble::Refusal;

/// A call without an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// No server was reached, or the connection broke.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// The server refused.
    #[error("{status} {}", .problem.detail.as_deref().or(.problem.title.as_deref()).unwrap_or("refused"))]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The server's words.
        problem: Box<Problem>,
        /// When it may be worth trying again.
        retry_after: Option<Duration>,
    },
    /// The answer is not of the shape that the contract names.
    #[error("the answer is not what a gatecast server says: {0}")]
    Strange(String),
}

impl ApiError {
    pub(super) fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let refusal = Refusal::read(status, headers, body);
        let problem =
            if refusal.is_problem { serde_json::from_slice(body).unwrap_or_default() } else { Problem::default() };
        let problem =
            Problem { title: problem.title.or_else(|| status.canonical_reason().map(str::to_owned)), ..problem };
        Self::Refused { status: status.as_u16(), problem: Box::new(problem), retry_after: refusal.retry_after }
    }
}
