//! Server-sent events, incrementally: WHATWG HTML § 9.2.6, with bounds.
//!
//! Lines end with CR, LF or CRLF wherever chunks are cut; a byte order mark at the very start is skipped; bytes that
//! are not UTF-8 become U+FFFD. Work is linear in the bytes pushed.

use std::time::Duration;

/// The largest line and the largest event, in bytes: the largest event that a server can be configured for (16 MiB)
/// with room for its field name.
pub(super) const EVENT_BYTES_MAX: usize = 17 * 1024 * 1024;

/// What the stream said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SseItem {
    /// An event with data.
    Event {
        /// Its `event:` field, or `message`.
        event: String,
        /// Its `data:` lines, joined by line feeds.
        data: String,
    },
    /// A block with an `id:` and no data: only the position moved.
    Position(String),
    /// How long to wait before reconnecting.
    Retry(Duration),
    /// A comment: a sign of life.
    Comment,
}

/// The stream broke a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server sent an event of more than {EVENT_BYTES_MAX} bytes")]
pub(super) struct TooLong;

/// The state between two chunks.
#[derive(Debug)]
pub(super) struct SseParser {
    max: usize,
    line: Vec<u8>,
    /// The last byte was a CR: an LF that follows belongs to it.
    after_cr: bool,
    is_first_line: bool,
    event: String,
    data: Option<String>,
    /// The `id:` of the block under way.
    id: Option<String>,
}

impl SseParser {
    pub(super) fn new() -> Self {
        Self::with_max(EVENT_BYTES_MAX)
    }

    fn with_max(max: usize) -> Self {
        let (event, line) = (String::new(), Vec::new());
        Self { max, line, after_cr: false, is_first_line: true, event, data: None, id: None }
    }

    /// Takes a chunk and adds what it completes to `out`.
    pub(super) fn push(&mut self, mut chunk: &[u8], out: &mut Vec<SseItem>) -> Result<(), TooLong> {
        if self.after_cr && !chunk.is_empty() {
            chunk = chunk.strip_prefix(b"\n").unwrap_or(chunk);
            self.after_cr = false;
        }
        while let Some(end) = chunk.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            let (head, rest) = chunk.split_at(end);
            self.extend(head)?;
            self.end_line(out)?;
            chunk = match rest {
                [b'\r', b'\n', rest @ ..] => rest,
                [b'\r'] => {
                    self.after_cr = true;
                    &[]
                }
                [_, rest @ ..] => rest,
                [] => &[],
            };
        }
        self.extend(chunk)
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.line.len() + bytes.len() > self.max {
            return Err(TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self, out: &mut Vec<SseItem>) -> Result<(), TooLong> {
        let bytes = std::mem::take(&mut self.line);
        let mut line = bytes.as_slice();
        if std::mem::take(&mut self.is_first_line) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        let line = String::from_utf8_lossy(line);
        if line.is_empty() {
            out.extend(self.end_block());
            return Ok(());
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => out.push(SseItem::Comment),
            "event" => value.clone_into(&mut self.event),
            "data" => self.add_data(value)?,
            // The standard ignores an id with a NUL: it could not be sent back in a header.
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            "retry" => out.extend(retry(value)),
            _ => {}
        }
        Ok(())
    }

    fn add_data(&mut self, value: &str) -> Result<(), TooLong> {
        if let Some(data) = &mut self.data {
            if data.len() + value.len() + 1 > self.max {
                return Err(TooLong);
            }
            data.push('\n');
            data.push_str(value);
        } else {
            self.data = Some(value.to_owned());
        }
        Ok(())
    }

    fn end_block(&mut self) -> Option<SseItem> {
        let (event, data, id) = (std::mem::take(&mut self.event), self.data.take(), self.id.take());
        match data.filter(|data| !data.is_empty()) {
            Some(data) => {
                let event = if event.is_empty() { "message".to_owned() } else { event };
                Some(SseItem::Event { event, data })
            }
            None => id.map(SseItem::Position),
        }
    }
}

/// Digits only, else the field is ignored.
fn retry(value: &str) -> Option<SseItem> {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    let millis = value.parse().ok().filter(|_| digits)?;
    Some(SseItem::Retry(Duration::from_millis(millis)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<SseItem> {
        let (mut parser, mut out) = (SseParser::new(), Vec::new());
        for chunk in chunks {
            parser.push(chunk, &mut out).unwrap();
        }
        out
    }

    fn event(event: &str, data: &str) -> SseItem {
        SseItem::Event { event: event.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn the_standards_examples() {
        assert_eq!(parse([&b"data: YHOO\ndata: +2\ndata: 10\n\n"[..]]), [event("message", "YHOO\n+2\n10")]);
        let stream = ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n";
        assert_eq!(
            parse([stream.as_bytes()]),
            [
                SseItem::Comment,
                event("message", "first event"),
                event("message", "second event"),
                event("message", " third event")
            ]
        );
        // Two lines of empty data are one line feed; one is nothing; a block without its blank line is nothing.
        assert_eq!(parse([&b"data\n\ndata\ndata\n\ndata:"[..]]), [event("message", "\n")]);
        assert_eq!(parse([&b"data:test\n\ndata: test\n\n"[..]]), [event("message", "test"), event("message", "test")]);
    }

    #[test]
    fn line_ends_may_be_mixed_and_cut_anywhere() {
        let expected = [event("e", "1"), event("e", "2"), event("e", "3")];
        for stream in [
            "event:e\rdata:1\r\revent:e\r\ndata:2\r\n\r\nevent:e\ndata:3\n\n",
            "\u{feff}event:e\ndata:1\n\nevent:e\rdata:2\r\n\revent:e\ndata:3\n\n",
        ] {
            assert_eq!(parse(stream.as_bytes().chunks(1)), expected);
            assert_eq!(parse([stream.as_bytes()]), expected);
        }
    }

    #[test]
    fn retry_id_and_unknown_fields() {
        assert_eq!(
            parse([&b"retry: 1500\nretry: 1s\nretry: -1\nretry:\nother: x\n\n"[..]]),
            [SseItem::Retry(Duration::from_millis(1500))]
        );
        assert_eq!(parse([&b"id: a\n\nid: b\0\n\n"[..]]), [SseItem::Position("a".to_owned())]);
    }

    #[test]
    fn only_the_first_mark_is_skipped_and_broken_text_is_replaced() {
        assert_eq!(parse(["\u{feff}\u{feff}data: x\n\n".as_bytes()]), []);
        assert_eq!(parse([&b"data: \xff\n\n"[..]]), [event("message", "\u{fffd}")]);
    }

    #[test]
    fn lines_and_events_are_bounded() {
        let mut out = Vec::new();
        let mut parser = SseParser::with_max(16);
        assert_eq!(parser.push(&[b'x'; 17], &mut out), Err(TooLong));
        let mut parser = SseParser::with_max(16);
        assert_eq!(parser.push(b"data: 123456789\ndata: 123456789\n", &mut out), Err(TooLong));
        assert!(out.is_empty());
    }

    const PIECES: &[&[u8]] = &[
        b"data",
        b":",
        b" ",
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b"id: 1",
        b"event",
        b"retry:5",
        b"\xef\xbb\xbf",
        b"\xef",
        b"\0",
        b"\xf0\x9f\x98\x80",
        b"x",
    ];

    proptest! {
        #[test]
        fn any_chunking_yields_the_same_items(
            bytes in proptest::collection::vec(proptest::sample::select(PIECES), 0..60),
            cuts in proptest::collection::vec(0usize..200, 0..20),
        ) {
            let stream = bytes.concat();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
            prop_assert_eq!(parse(chunks), parse([&stream[..]]));
            prop_assert_eq!(parse(stream.chunks(1)), parse([&stream[..]]));
        }

        #[test]
        fn what_is_written_is_read(
            items in proptest::collection::vec(("[a-z.]{1,9}", "[^\r\n\0]{1,30}", "[0-9a-f-]{1,12}"), 0..9),
            end in prop_oneof![Just("\n"), Just("\r"), Just("\r\n")],
        ) {
            let mut stream = String::new();
            for (name, data, id) in &items {
                stream += &format!("id: {id}{end}event: {name}{end}data: {data}{end}{end}");
            }
            let expected: Vec<_> = items.iter().map(|(name, data, _)| event(name, data)).collect();
            prop_assert_eq!(parse([stream.as_bytes()]), expected);
        }
    }
}
