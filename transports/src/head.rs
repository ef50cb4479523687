//! The head of a request, read without hyper: a plain `GET` of one path, or something for hyper.

use std::mem::MaybeUninit;

use crate::handshake::Headers;
use crate::host;

/// What a socket's next bytes are.
pub(crate) enum Head<T> {
    /// Not told yet.
    Partial,
    /// What was looked for.
    Of(T),
    /// Anything else, also what is unusual in any way: hyper knows what to do about it.
    Other,
}

/// A `GET` over HTTP/1.1 without a body (RFC 9112 § 3, § 6.3), to a host.
pub(crate) struct Get<'h, 'b> {
    /// As it stood after the question mark.
    pub(crate) query: &'b str,
    headers: &'h [httparse::Header<'b>],
    /// The client closes after the answer.
    pub(crate) closes: bool,
    /// How many bytes the head has.
    pub(crate) len: usize,
}

impl<'h, 'b> Get<'h, 'b> {
    /// Names and values, as they came.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&'b str, &'b [u8])> + use<'h, 'b> {
        self.headers.iter().map(|header| (header.name, header.value))
    }

    /// Those that a handshake is read from. A map of headers took as long as all the rest.
    pub(crate) fn found(&self) -> Headers<'b> {
        Headers::find(self.headers())
    }
}

/// Reads a head. If it is a `GET` of this path, `of` says what it is, or that it is for hyper after all.
pub(crate) fn read<T>(path: &str, bytes: &[u8], of: impl FnOnce(&Get<'_, '_>) -> Option<T>) -> Head<T> {
    if !begins(path, bytes) {
        return Head::Other;
    }
    let mut space = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut space) {
        Ok(httparse::Status::Complete(len)) => {
            get(path, &request, len).and_then(|get| of(&get)).map_or(Head::Other, Head::Of)
        }
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => Head::Partial,
        _ => Head::Other,
    }
}

/// Whether the bytes, as many as there are, are the beginning of a `GET` of this path.
fn begins(path: &str, bytes: &[u8]) -> bool {
    let (method, target) = bytes.split_at(bytes.len().min(METHOD.len()));
    let known = target.len().min(path.len());
    METHOD.starts_with(method) && target.get(..known) == path.as_bytes().get(..known)
}

fn get<'h, 'b>(path: &str, request: &'h httparse::Request<'h, 'b>, len: usize) -> Option<Get<'h, 'b>> {
    let query = match request.path?.strip_prefix(path)? {
        "" => "",
        rest => rest.strip_prefix('?')?,
    };
    if request.version != Some(1) {
        return None;
    }
    let hosts = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    if !host::is_named(hosts.map(|header| header.value)) {
        return None;
    }
    let mut closes = false;
    for header in request.headers.iter() {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if FOR_HYPER.into_iter().any(is) && !(is(CONTENT_LENGTH) && header.value == b"0") {
            return None;
        }
        if is("connection") {
            let options = std::str::from_utf8(header.value).ok()?;
            closes |= options.split(',').any(|option| option.trim().eq_ignore_ascii_case("close"));
        }
    }
    Some(Get { query, headers: request.headers, closes, len })
}

const METHOD: &[u8] = b"GET ";
/// They announce a body, or ask for something that is not ours to give.
const FOR_HYPER: [&str; 3] = [CONTENT_LENGTH, "transfer-encoding", "expect"];
const CONTENT_LENGTH: &str = "content-length";
/// Larger heads are for hyper to judge.
pub(crate) const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATH: &str = "/a/b";

    fn read(bytes: &[u8]) -> Head<(String, bool, usize)> {
        super::read(PATH, bytes, |get| Some((get.query.to_owned(), get.closes, get.len)))
    }

    #[test]
    fn a_plain_get_is_read() {
        let text = format!("GET {PATH}?c=d HTTP/1.1\r\nHost: x\r\nConnection: y, Close\r\n\r\nrest");
        assert!(
            matches!(read(text.as_bytes()), Head::Of((query, true, len)) if query == "c=d" && len == text.len() - 4)
        );
        let text = format!("GET {PATH} HTTP/1.1\r\nhost: \r\nContent-Length: 0\r\nUpgrade: x\r\n\r\n");
        assert!(matches!(read(text.as_bytes()), Head::Of((query, false, _)) if query.is_empty()));
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
        let with = |line: &str| format!("GET {PATH} HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n");
        let heads = [
            "POST / HTTP/1.1\r\n\r\n".to_owned(),
            "GE".to_owned() + "X",
            format!("HEAD {PATH} HTTP/1.1\r\n\r\n"),
            format!("GET {PATH}/ HTTP/1.1\r\n\r\n"),
            format!("GET {PATH}x HTTP/1.1\r\n\r\n"),
            format!("GET {PATH} HTTP/1.0\r\n\r\n"),
            format!("GET {PATH} HTTP/1.1\r\n\r\n"),
            format!("GET {PATH} HTTP/1.1\r\nHost: x y\r\n\r\n"),
            with("Host: x"),
            with("Content-Length: 3"),
            with("Transfer-Encoding: chunked"),
            with("Expect: 100-continue"),
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
            for start in ["", "GET /a/b", "GET /a/b?a=b HTTP/1.1\r\nHost: x\r\n"] {
                let bytes = [start.as_bytes(), &tail].concat();
                if let Head::Of((_, _, len)) = read(&bytes) {
                    prop_assert!(len <= bytes.len());
                }
            }
        }
    }
}
