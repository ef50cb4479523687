//! The head of a poll, read without hyper, and what the next one on the same socket is expected to be.

use std::ops::Range;

use super::{Asked, PATH, Wish};
use crate::handshake::{ConnInfo, HandshakeError};
use crate::head::{self, Get, Head};
use crate::transport::{Session, Ticket};

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

/// A poll's head that was read. The next one on the same socket mostly is the same but for the cursor, and that is the
/// position that the answer gave. Then nothing of it is read, and the gate is not asked who it is: that took two fifths of
/// what a poll took in all. Whoever may not come any more has lost the connection, and the [`Ticket`] with it.
pub(super) struct Known {
    before: Box<[u8]>,
    after: Box<[u8]>,
    wish: Wish,
    next: Option<Expected>,
}

/// What follows an answer.
struct Expected {
    cursor: String,
    ticket: Box<dyn Ticket>,
}

impl Known {
    /// Of a head that these bytes begin with, if another may be the same but for the cursor.
    pub(super) fn of(bytes: &[u8], head: &PollHead) -> Option<Self> {
        let (cursor, asked) = (head.cursor.as_ref()?, head.asked.as_ref().ok()?);
        let (before, after) = (bytes.get(..cursor.start)?.into(), bytes.get(cursor.end..head.len)?.into());
        Some(Self { before, after, wish: asked.wish, next: None })
    }

    /// The poll was answered, and its client is at `cursor`.
    pub(super) fn expect(&mut self, cursor: String, ticket: Option<Box<dyn Ticket>>) {
        self.next = ticket.map(|ticket| Expected { cursor, ticket });
    }

    /// How long the head is that these bytes begin with, if it is the same and has the expected cursor.
    fn again(&self, bytes: &[u8]) -> Option<usize> {
        let cursor = self.next.as_ref()?.cursor.as_bytes();
        let rest = bytes.strip_prefix(&*self.before)?.strip_prefix(cursor)?;
        rest.strip_prefix(&*self.after)?;
        Some(self.before.len() + cursor.len() + self.after.len())
    }

    /// The poll that these bytes begin with, if it goes on where the last one ended: its session, what it wishes, and how
    /// long its head is.
    pub(super) fn resume(&mut self, bytes: &[u8]) -> Option<(Box<dyn Session>, Wish, usize)> {
        let len = self.again(bytes)?;
        // What is not resumed is read as any other, and its gate asked.
        let session = self.next.take()?.ticket.resume()?;
        Some((session, self.wish, len))
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
    use crate::handshake::Handshake;

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
        assert!(polled(&format!("GET {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")).is_some());
        assert!(polled(&format!("GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: x, Close\r\n\r\n")).unwrap().closes);
    }

    #[test]
    fn an_upgrade_is_no_poll() {
        assert!(polled(&format!("GET {PATH} HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\n\r\n")).is_none());
    }

    /// Of nobody.
    struct Void;

    impl Ticket for Void {
        fn resume(self: Box<Self>) -> Option<Box<dyn Session>> {
            None
        }
    }

    /// What is known of a head that was answered up to a cursor.
    fn known(head: &str, cursor: &str) -> Option<Known> {
        let mut known = polled(head).and_then(|read| Known::of(head.as_bytes(), &read))?;
        known.expect(cursor.to_owned(), Some(Box::new(Void)));
        Some(known)
    }

    #[test]
    fn the_next_head_is_known_if_it_differs_in_nothing_but_the_cursor_and_that_is_the_answers() {
        let head = |key: &str, cursor: &str, more: &str| {
            format!("GET {PATH}?max=1 HTTP/1.1\r\nHost: x\r\nApi-Key: {key}\r\nLast-Event-ID:  {cursor} \r\n{more}\r\n")
        };
        let first = head("k", "6f3a9c21-9", "");
        let mut known = known(&first, "6f3a9c21-10").unwrap();
        let next = head("k", "6f3a9c21-10", "");
        assert_eq!(known.again(format!("{next}GET").as_bytes()), Some(next.len()));
        for other in [
            first.clone(),
            head("k", "6f3a9c21-100", ""),
            head("k", "6f3a9c21-1", ""),
            head("l", "6f3a9c21-10", ""),
            head("k", "6f3a9c21-10", "Gateway-Instance: a\r\n"),
            head("k", "6f3a9c21-10", "Last-Event-ID: 6f3a9c21-8\r\n"),
            head("k", "", ""),
            head("k", "6f3a9c21-10 x", ""),
            next[..next.len() - 1].to_owned(),
            next.replace("max=1", "max=2"),
        ] {
            assert!(known.again(other.as_bytes()).is_none(), "{other}");
        }
        assert!(known.resume(next.as_bytes()).is_none() && known.again(next.as_bytes()).is_none(), "it is asked once");
        known.expect("6f3a9c21-10".to_owned(), None);
        assert!(known.again(next.as_bytes()).is_none(), "there is nothing to go on from");
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
            next in "[a-f0-9-]{1,6}",
            after in "((Api-Key|X|Gateway-Instance|Connection|Last-Event-ID): ?[a-z1-9 ]{0,4}\r\n){0,2}",
        ) {
            let head = |cursor: &str| format!("GET {PATH} HTTP/1.1\r\nHost: x\r\n{before}Last-Event-ID: {cursor}\r\n{after}\r\n");
            let (first, then) = (head(&cursor), head(&next));
            if let Some(len) = known(&first, &next).and_then(|known| known.again(then.as_bytes())) {
                let (first, then) = (polled(&first).unwrap(), polled(&then).unwrap());
                prop_assert_eq!((then.len, then.closes), (len, false));
                let asked = |head: PollHead, cursor: Option<&str>| {
                    let Asked { handshake, wish } = head.asked.unwrap();
                    prop_assert_eq!(handshake.cursor.as_deref(), cursor);
                    let key = handshake.credential.as_ref().map(|secret| secret.expose().to_owned());
                    let rest = Handshake { cursor: None, ..handshake };
                    Ok((key, format!("{rest:?} {wish:?}")))
                };
                let cursor = first.asked.as_ref().unwrap().handshake.cursor.clone();
                prop_assert_eq!(asked(first, cursor.as_deref())?, asked(then, Some(&next))?);
            }
        }
    }
}
