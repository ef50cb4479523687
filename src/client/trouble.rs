//! Why there is no connection, and what that means for the next attempt.

use std::error::Error;
use std::iter::successors;
use std::time::Duration;

use http::{HeaderMap, StatusCode, header};

use super::problem::Problem;

/// Why a connection could not be opened or ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The server's own word.
    #[error("{0}")]
    Refused(Refusal),
    /// This transport cannot be established here; another one may.
    #[error("{reason}")]
    Unsuited {
        /// What was seen.
        reason: String,
        /// The HTTP answer, if there was one.
        refusal: Option<Refusal>,
    },
    /// The network, or the server's end of it.
    #[error("{0}")]
    Lost(String),
    /// The server ended the connection for good (token revoked, gateway deleted).
    #[error("{detail} ({code})")]
    Expelled {
        /// The server's code.
        code: String,
        /// The server's words.
        detail: String,
    },
}

/// An HTTP answer that is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{status} {code}: {detail}")]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// The stable code of the problem, or one made from the status.
    pub(super) code: String,
    pub(super) detail: String,
    pub(super) retry_after: Option<Duration>,
    /// Whether the server itself said so, in problem+json, rather than something in between.
    pub(super) is_problem: bool,
}

impl Refusal {
    pub(super) fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_problem = content_type.starts_with("application/problem+json");
        let problem = serde_json::from_slice::<Problem>(body).ok().filter(|_| is_problem).unwrap_or_default();
        let reason = status.canonical_reason().unwrap_or("refused");
        let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
        let reason = match location.filter(|_| status.is_redirection()) {
            Some(location) => format!("{reason}, to {location}"),
            None => reason.to_owned(),
        };
        Self {
            status: status.as_u16(),
            code: problem.code.clone().unwrap_or_else(|| format!("HTTP_{}", status.as_u16())),
            detail: problem.detail.or(problem.title).unwrap_or(reason),
            retry_after: retry_after(headers),
            is_problem,
        }
    }

    /// Whether asking again is pointless. 401 always; 403 and 404 from the server itself, or when there never was a
    /// connection (a proxy whose server is being replaced says 404 too); other 4xx only from the server itself.
    pub(super) fn is_final(&self, was_connected: bool) -> bool {
        match self.status {
            401 => true,
            403 | 404 => self.is_problem || !was_connected,
            408 | 425 | 429 => false,
            400..500 => self.is_problem,
            _ => false,
        }
    }

    /// Whether the answer is about the service (its key, load, health) and not about the transport. A 426 is about the
    /// transport even from the server itself: something in between took the upgrade away.
    pub(super) fn is_about_service(&self) -> bool {
        match self.status {
            426 => false,
            401 | 429 | 502 | 503 | 504 => true,
            _ => self.is_problem,
        }
    }
}

/// `Retry-After` in seconds, or as a date against the answer's own `Date`: no clock of ours has a say.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    let written = text(header::RETRY_AFTER)?.trim();
    if let Ok(seconds) = written.parse::<u32>() {
        return Some(Duration::from_secs(u64::from(seconds)));
    }
    let date = |text| chrono::DateTime::parse_from_rfc2822(text).ok();
    (date(written)? - date(text(header::DATE)?)?).to_std().ok()
}

/// An error with all its causes on one line.
pub(super) fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    // rustls adds a link for programmers to "peer closed connection".
    if let Some(link) = text.find(": https://docs.rs/") {
        text.truncate(link);
    }
    let advice = advice(&text).unwrap_or_default();
    text + advice
}

/// webpki's word for a certificate that may sign others, as `openssl req -x509` makes one unless told otherwise.
pub(super) const IS_OF_AUTHORITY: &str = "CaUsedAsEndEntity";

/// What to say beside the words of rustls, hyper and tungstenite, which name neither an option nor a scheme.
fn advice(text: &str) -> Option<&'static str> {
    let has = |part| text.contains(part);
    if has(IS_OF_AUTHORITY) {
        Some(
            " (it is an authority's and no server's: make another, with openssl by \
             -addext basicConstraints=critical,CA:FALSE)",
        )
    } else if has("UnknownIssuer") {
        Some(" (a self-signed server needs --insecure, a private authority --ca FILE)")
    } else if has("received corrupt message") {
        Some(" (it does not speak TLS: without TLS the address starts with http://)")
    } else if has("invalid HTTP version") {
        Some(" (it does not speak plain HTTP: with TLS the address starts with https://)")
    } else {
        None
    }
}

/// Whether what answers does not speak HTTP.
pub(super) fn is_no_http(error: &reqwest::Error) -> bool {
    let mut causes = successors(error.source(), |&cause| cause.source());
    causes.any(|cause| cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after(&headers(&[("retry-after", "7")])), Some(Duration::from_secs(7)));
        let date =
            headers(&[("date", "Sun, 06 Nov 1994 08:49:37 GMT"), ("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT")]);
        assert_eq!(retry_after(&date), Some(Duration::from_secs(60)));
        for text in ["-1", "soon", "1e9", "99999999999"] {
            assert_eq!(retry_after(&headers(&[("retry-after", text)])), None, "{text}");
        }
    }

    #[test]
    fn the_servers_problem_is_read_and_a_proxys_page_is_not() {
        let body = br#"{"title":"T","detail":"D","code":"DRAINING","status":503}"#;
        let ours = Refusal::read(
            StatusCode::SERVICE_UNAVAILABLE,
            &headers(&[("content-type", "application/problem+json")]),
            body,
        );
        assert_eq!((ours.code.as_str(), ours.detail.as_str(), ours.is_problem), ("DRAINING", "D", true));
        let page = Refusal::read(StatusCode::NOT_FOUND, &headers(&[("content-type", "text/html")]), b"<html>");
        assert_eq!((page.code.as_str(), page.detail.as_str(), page.is_problem), ("HTTP_404", "Not Found", false));
    }

    #[test]
    fn what_is_final_depends_on_who_says_it() {
        let refusal = |status, is_problem| Refusal {
            status,
            code: String::new(),
            detail: String::new(),
            retry_after: None,
            is_problem,
        };
        assert!(refusal(401, false).is_final(true));
        assert!(refusal(404, false).is_final(false) && !refusal(404, false).is_final(true));
        assert!(refusal(404, true).is_final(true) && refusal(400, true).is_final(true));
        assert!(!refusal(400, false).is_final(false));
        for status in [408, 429, 500, 502, 503] {
            assert!(!refusal(status, true).is_final(false), "{status}");
        }
    }
}
