//! The head of a request, read without hyper: a plain poll, or something for hyper.

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::handshake;

/// What a socket's next bytes are.
#[derive(Debug)]
pub(super) enum Head {
    /// Not told yet.
    Partial,
    /// A poll.
    Poll(PollHead),
    /// Anything else, also a poll that is unusual in any way: hyper knows what to do about it.
    Other,
}

/// A poll's head.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PollHead {
    /// The headers that a handshake is read from, and no others.
    pub(super) headers: HeaderMap,
    /// As it stood after the question mark.
    pub(super) query: String,
    /// The client closes after the answer.
    pub(super) closes: bool,
    /// How many bytes the head has.
    pub(super) len: usize,
}

/// Reads a head: `GET` of the poll path over HTTP/1.1, without a body (RFC 9112 § 3, § 6.3).
pub(super) fn read(bytes: &[u8]) -> Head {
    let known = bytes.len().min(START.len());
    if bytes.get(..known) != START.get(..known) {
        return Head::Other;
    }
    let mut space = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut space);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => poll(&request, len).map_or(Head::Other, Head::Poll),
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => Head::Partial,
        _ => Head::Other,
    }
}

fn poll(request: &httparse::Request<'_, '_>, len: usize) -> Option<PollHead> {
    let query = match request.path?.strip_prefix(PATH)? {
        "" => "",
        rest => rest.strip_prefix('?')?,
    };
    if request.version != Some(1) {
        return None;
    }
    let mut head = PollHead { headers: HeaderMap::new(), query: query.to_owned(), closes: false, len };
    for header in request.headers.iter() {
        let name = HeaderName::try_from(header.name).ok()?;
        if FOR_HYPER.contains(&name) && !(name == CONTENT_LENGTH && header.value == b"0") {
            return None;
        }
        if name == CONNECTION {
            let options = std::str::from_utf8(header.value).ok()?;
            head.closes |= options.split(',').any(|option| option.trim().eq_ignore_ascii_case("close"));
        } else if handshake::HEADERS.contains(&name.as_str()) {
            head.headers.append(name, HeaderValue::from_bytes(header.value).ok()?);
        }
    }
    Some(head)
}

const PATH: &str = "/api/internal/v1/poll/gateways/connect";
const START: &[u8] = b"GET /api/internal/v1/poll/gateways/connect";
/// They announce a body, or ask for something that is not ours to give.
const FOR_HYPER: [HeaderName; 4] = [CONTENT_LENGTH, TRANSFER_ENCODING, EXPECT, UPGRADE];
/// Larger heads are for hyper to judge.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn polled(text: &str) -> Option<PollHead> {
        match read(text.as_bytes()) {
            Head::Poll(head) => Some(head),
            _ => None,
        }
    }

    #[test]
    fn a_poll_is_read_with_what_a_handshake_needs() {
        let text = format!(
            "GET {PATH}?timeout=5&max=1 HTTP/1.1\r\nHost: x\r\nApi-Key: k\r\nLast-Event-ID: e-1\r\nX-Other: y\r\n\r\nrest"
        );
        let head = polled(&text).unwrap();
        assert_eq!((&*head.query, head.closes, head.len), ("timeout=5&max=1", false, text.len() - 4));
        assert_eq!(head.headers.len(), 2);
        assert_eq!(head.headers["api-key"], "k");
        assert!(polled(&format!("GET {PATH} HTTP/1.1\r\nContent-Length: 0\r\n\r\n")).is_some());
        assert!(polled(&format!("GET {PATH} HTTP/1.1\r\nConnection: x, Close\r\n\r\n")).unwrap().closes);
    }

    #[test]
    fn until_its_end_a_head_is_partial() {
        let text = format!("GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n");
        for len in 0..text.len() {
            assert!(matches!(read(&text.as_bytes()[..len]), Head::Partial), "{len}");
        }
    }

    #[test]
    fn whatever_is_unusual_is_for_hyper() {
        let with = |line: &str| format!("GET {PATH} HTTP/1.1\r\n{line}\r\n\r\n");
        let heads = [
            "POST / HTTP/1.1\r\n\r\n".to_owned(),
            format!("HEAD {PATH} HTTP/1.1\r\n\r\n"),
            format!("GET {PATH}/ HTTP/1.1\r\n\r\n"),
            format!("GET {PATH}x HTTP/1.1\r\n\r\n"),
            format!("GET {PATH} HTTP/1.0\r\n\r\n"),
            with("Content-Length: 3"),
            with("Transfer-Encoding: chunked"),
            with("Expect: 100-continue"),
            with("Upgrade: h2c"),
            with("no header"),
            with("Api-Key: a\u{1}b"),
            with(&"A: b\r\n".repeat(HEADERS_MAX + 1)),
            format!("GET {PATH} HTTP/1.1\r\nA: {}", "b".repeat(HEAD_BYTES_MAX)),
        ];
        for head in heads {
            assert!(matches!(read(head.as_bytes()), Head::Other), "{}", &head[..head.len().min(99)]);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much_for_it(tail in prop::collection::vec(any::<u8>(), 0..256)) {
            for start in [&b""[..], START, b"GET /api/internal/v1/poll/gateways/connect?a=b HTTP/1.1\r\n"] {
                let bytes = [start, &tail].concat();
                if let Head::Poll(head) = read(&bytes) {
                    prop_assert!(head.len <= bytes.len());
                }
            }
        }
    }
}
