//! The head of a poll, read without hyper, and the next one on the same socket, known from the one before.

use std::ops::Range;

use super::{Asked, PATH, Wish};
use crate::handshake::{CURSOR_BYTES_MAX, ConnInfo, Handshake, HandshakeError};
use crate::head::{self, Get, Head};

/// A poll's head.
pub(super) struct PollHead {
    pub(super) asked: Result<Asked, HandshakeError>,
    /// The client closes after the answer.
    pub(super) closes: bool,
    /// How many bytes the head has.
    pub(super) len: usize,
    /// Where among them its cursor is, if that is a header and there is one of it.
    cursor: Option<Range<usize>>,
}

/// A poll's head that was read. The next one on the same socket is the same but for the cursor, and is read in a sixth of
/// the time: nothing but the cursor is looked at, and the credential's digest is known. What it costs is 0.8 KB.
pub(super) struct Known {
    before: Box<[u8]>,
    after: Box<[u8]>,
    handshake: Handshake,
    wish: Wish,
}

impl Known {
    /// Of a head that these bytes begin with, if another may be the same but for the cursor.
    pub(super) fn of(bytes: &[u8], head: &PollHead) -> Option<Self> {
        let (cursor, asked) = (head.cursor.as_ref()?, head.asked.as_ref().ok()?);
        let (before, after) = (bytes.get(..cursor.start)?.into(), bytes.get(cursor.end..head.len)?.into());
        let handshake = Handshake { cursor: None, ..asked.handshake.clone() };
        Some(Self { before, after, handshake, wish: asked.wish })
    }

    /// The head that these bytes begin with, if it is the same but for the cursor, and that needs no second look.
    pub(super) fn again(&self, bytes: &[u8]) -> Option<PollHead> {
        let rest = bytes.strip_prefix(&*self.before)?;
        let len = rest.iter().position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'-')?;
        let (cursor, rest) = rest.split_at_checked(len).filter(|_| (1..=CURSOR_BYTES_MAX).contains(&len))?;
        rest.strip_prefix(&*self.after)?;
        let handshake =
            Handshake { cursor: Some(std::str::from_utf8(cursor).ok()?.to_owned()), ..self.handshake.clone() };
        let (start, asked) = (self.before.len(), Ok(Asked { handshake, wish: self.wish }));
        let cursor = Some(start..start + len);
        Some(PollHead { asked, closes: false, len: start + len + self.after.len(), cursor })
    }
}

/// Reads a head. What it asks for is read from the bytes as they came.
pub(super) fn read(bytes: &[u8], info: &ConnInfo) -> Head<PollHead> {
    head::read(PATH, bytes, |get| poll(get, bytes, info))
}

fn poll(get: &Get<'_, '_>, bytes: &[u8], info: &ConnInfo) -> Option<PollHead> {
    if get.headers().any(|(name, _)| name.eq_ignore_ascii_case("upgrade")) {
        return None;
    }
    let (headers, closes) = (get.found(), get.closes);
    let cursor = headers.cursor().filter(|_| !closes).map(|cursor| {
        let start = cursor.as_ptr().addr() - bytes.as_ptr().addr();
        start..start + cursor.len()
    });
    Some(PollHead { asked: Asked::read(info, &headers, get.query), closes, len: get.len, cursor })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Head<PollHead> {
        super::read(bytes, &ConnInfo::of(([127, 0, 0, 1], 1).into()))
    }

    fn polled(text: &str) -> Option<PollHead> {
        match read(text.as_bytes()) {
            Head::Of(head) => Some(head),
            _ => None,
        }
    }

    #[test]
    fn a_poll_is_read_with_what_a_handshake_needs() {
        let text = format!(
            "GET {PATH}?timeout=5&max=1 HTTP/1.1\r\nHost: x\r\nApi-Key: k\r\nLast-Event-ID: e-1\r\nX-Other: y\r\n\r\nrest"
        );
        let head = polled(&text).unwrap();
        assert_eq!((head.closes, head.len), (false, text.len() - 4));
        let Asked { handshake, wish } = head.asked.unwrap();
        assert_eq!((wish.timeout.as_secs(), wish.events), (5, 1));
        assert_eq!(handshake.credential.unwrap().expose(), "k");
        assert_eq!(handshake.cursor.as_deref(), Some("e-1"));
        assert!(polled(&format!("GET {PATH} HTTP/1.1\r\nContent-Length: 0\r\n\r\n")).is_some());
        assert!(polled(&format!("GET {PATH} HTTP/1.1\r\nConnection: x, Close\r\n\r\n")).unwrap().closes);
    }

    #[test]
    fn an_upgrade_is_no_poll() {
        assert!(polled(&format!("GET {PATH} HTTP/1.1\r\nUpgrade: h2c\r\n\r\n")).is_none());
    }

    /// All that is read of a head.
    fn shown(head: Option<PollHead>) -> Option<String> {
        head.map(|PollHead { asked, closes, len, cursor }| {
            let credential = asked.as_ref().ok().and_then(|asked| asked.handshake.credential.clone());
            format!("{asked:?} {:?} {closes} {len} {cursor:?}", credential.as_ref().map(|secret| secret.expose()))
        })
    }

    #[test]
    fn the_next_head_is_known_if_it_differs_in_nothing_but_the_cursor() {
        let head = |key: &str, cursor: &str, more: &str| {
            format!("GET {PATH}?max=1 HTTP/1.1\r\nApi-Key: {key}\r\nLast-Event-ID:  {cursor} \r\n{more}\r\n")
        };
        let first = head("k", "6f3a9c21-9", "");
        let known = Known::of(first.as_bytes(), &polled(&first).unwrap()).unwrap();
        for cursor in ["6f3a9c21-10", "earliest", "6f3a9c21-9"] {
            let next = head("k", cursor, "");
            let again = known.again(format!("{next}GET").as_bytes());
            assert_eq!(again.as_ref().unwrap().asked.as_ref().unwrap().handshake.cursor.as_deref(), Some(cursor));
            assert_eq!(shown(again), shown(polled(&next)));
        }
        for other in [
            head("l", "6f3a9c21-9", ""),
            head("k", "6f3a9c21-9", "Gateway-Instance: a\r\n"),
            head("k", "6f3a9c21-9", "Last-Event-ID: 6f3a9c21-8\r\n"),
            head("k", "", ""),
            head("k", "6f3a9c21-9 x", ""),
            head("k", &"1".repeat(CURSOR_BYTES_MAX + 1), ""),
            first[..first.len() - 1].to_owned(),
            first.replace("max=1", "max=2"),
        ] {
            assert!(known.again(other.as_bytes()).is_none(), "{other}");
        }
        for odd in
            [head("k", "e-1", "Connection: close\r\n"), head("k", "e-1", "Last-Event-ID: e-2\r\n"), head("k", "", "")]
        {
            assert!(Known::of(odd.as_bytes(), &polled(&odd).unwrap()).is_none(), "{odd}");
        }
    }

    proptest! {
        #[test]
        fn what_is_known_is_what_would_be_read(
            before in "((Api-Key|X|Gateway-Instance|Connection|Last-Event-ID): ?[a-z1-9 ]{0,4}\r\n){0,3}",
            cursor in "[a-f0-9-]{0,6}",
            next in "[a-f0-9-]{0,6}|\\PC{0,3}",
            after in "((Api-Key|X|Gateway-Instance|Connection|Last-Event-ID): ?[a-z1-9 ]{0,4}\r\n){0,2}",
        ) {
            let head = |cursor: &str| format!("GET {PATH} HTTP/1.1\r\n{before}Last-Event-ID: {cursor}\r\n{after}\r\n");
            let first = head(&cursor);
            let known = polled(&first).and_then(|read| Known::of(first.as_bytes(), &read));
            if let Some(again) = known.and_then(|known| known.again(head(&next).as_bytes())) {
                prop_assert_eq!(shown(Some(again)), shown(polled(&head(&next))));
            }
        }
    }
}
