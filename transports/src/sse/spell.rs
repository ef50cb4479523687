//! How a frame looks as a server-sent event (WHATWG HTML § 9.2.5).

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::transport::Frame;

/// All frames of a step as one chunk.
pub(super) fn events(frames: &[Arc<Frame>]) -> Bytes {
    let size = frames.iter().map(|frame| size(frame)).sum();
    let mut chunk = BytesMut::with_capacity(size);
    for frame in frames {
        put(&mut chunk, frame);
    }
    chunk.freeze()
}

/// One frame as a chunk.
pub(super) fn event(frame: &Frame) -> Bytes {
    let mut chunk = BytesMut::with_capacity(size(frame));
    put(&mut chunk, frame);
    chunk.freeze()
}

/// A comment: a sign of life that no client shows to anybody.
pub(super) fn ping() -> Bytes {
    Bytes::from_static(b":\n\n")
}

/// How long the client waits before it comes back. Jittered, so that those who lost one server don't find the next
/// one all at once.
pub(super) fn retry() -> String {
    format!("retry: {}\n\n", fastrand::u32(RETRY_MS))
}

fn put(chunk: &mut BytesMut, frame: &Frame) {
    let mut line = |field: &[u8], value: &[u8]| {
        chunk.put_slice(field);
        chunk.put_slice(value);
        chunk.put_u8(b'\n');
    };
    if let Some(id) = frame.id() {
        line(b"id: ", id.as_bytes());
    }
    if !frame.is_position_only() {
        line(b"event: ", frame.name().as_bytes());
        line(b"data: ", frame.bytes());
    }
    chunk.put_u8(b'\n');
}

fn size(frame: &Frame) -> usize {
    frame.id().map_or(0, str::len) + frame.name().len() + frame.bytes().len() + FIELDS_BYTES_MAX
}

const RETRY_MS: std::ops::RangeInclusive<u32> = 1000..=5000;
/// `id: `, `event: `, `data: ` and four line feeds.
const FIELDS_BYTES_MAX: usize = 21;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_spelled_as_events() {
        let frames = [
            Arc::new(Frame::new(Some("e-1".into()), "api.deployed", r#"{"a":1}"#)),
            Arc::new(Frame::new(None, "stream.reset", "{}")),
            Arc::new(Frame::position_only("e-2")),
        ];
        let expected = "id: e-1\nevent: api.deployed\ndata: {\"a\":1}\n\nevent: stream.reset\ndata: {}\n\nid: e-2\n\n";
        assert_eq!(events(&frames), expected);
        assert_eq!(ping(), ":\n\n");
    }

    #[test]
    fn retry_is_between_one_and_five_seconds() {
        let retry = retry();
        let ms: u32 = retry.strip_prefix("retry: ").and_then(|rest| rest.trim_end().parse().ok()).unwrap();
        assert!((1000..=5000).contains(&ms));
    }
}
