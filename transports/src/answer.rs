//! An answer as HTTP/1.1 spells it (RFC 9112 § 4), where hyper does not.

use http::header::{CONNECTION, CONTENT_LENGTH, DATE};
use http::{HeaderName, Response, StatusCode};

use crate::date::Date;

/// The head of an answer, with room for its body of so many bytes. `headers` are all but those that frame the body, say
/// who closes, and what time it is.
pub(crate) fn head<'a>(
    status: StatusCode,
    headers: impl Iterator<Item = (&'a HeaderName, &'a [u8])>,
    body_bytes: usize,
    closes: bool,
    date: &Date,
) -> Vec<u8> {
    let mut text = Vec::with_capacity(HEAD_BYTES + body_bytes);
    text.extend_from_slice(b"HTTP/1.1 ");
    text.extend_from_slice(status.as_str().as_bytes());
    text.push(b' ');
    text.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    text.extend_from_slice(b"\r\n");
    let mut line = |name: &HeaderName, value: &[u8]| {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value);
        text.extend_from_slice(b"\r\n");
    };
    for (name, value) in headers.filter(|(name, _)| *name != CONTENT_LENGTH) {
        line(name, value);
    }
    // RFC 9110 § 8.6: a 1xx or 204 has none.
    if status != StatusCode::NO_CONTENT && !status.is_informational() {
        line(&CONTENT_LENGTH, body_bytes.to_string().as_bytes());
    }
    if closes {
        line(&CONNECTION, b"close");
    }
    date.with(|date| line(&DATE, date.as_bytes()));
    text.extend_from_slice(b"\r\n");
    text
}

/// The bytes of an answer that was made for hyper.
pub(crate) fn spelled<B: AsRef<[u8]>>(answer: &Response<B>, closes: bool, date: &Date) -> Vec<u8> {
    let headers = answer.headers().iter().map(|(name, value)| (name, value.as_bytes()));
    let body = answer.body().as_ref();
    let mut text = head(answer.status(), headers, body.len(), closes, date);
    text.extend_from_slice(body);
    text
}

/// A head is mostly smaller.
const HEAD_BYTES: usize = 256;
