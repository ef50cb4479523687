//! Frames of our own as bytes: final and unmasked (RFC 6455 § 5.2), and the numbers of the protocol.

use bytes::{BufMut, Bytes, BytesMut};

/// A text message, of a text in parts.
pub(crate) fn text(text: &[&str]) -> Bytes {
    frame(TEXT, text)
}

/// What is in a frame of ours.
pub(crate) fn payload(frame: &[u8]) -> &[u8] {
    let head = match frame.get(1) {
        Some(&LENGTH_16) => 4,
        Some(&LENGTH_64) => 10,
        _ => 2,
    };
    frame.get(head..).unwrap_or_default()
}

/// A ping. The payload is cut at 125 bytes, the most that a control frame holds (RFC 6455 § 5.5).
pub(super) fn ping(payload: &[u8]) -> Bytes {
    frame(PING, &[payload.get(..CONTROL_BYTES_MAX).unwrap_or(payload)])
}

/// The answer to a ping.
pub(super) fn pong(payload: &[u8]) -> Bytes {
    frame(PONG, &[payload])
}

/// A close frame, with a code and a text of at most 123 bytes if there is something to say.
pub(super) fn close(said: Option<(u16, &str)>) -> Bytes {
    match said {
        Some((code, text)) => frame(CLOSE, &[&code.to_be_bytes()[..], text.as_bytes()]),
        None => frame(CLOSE, &[[]]),
    }
}

/// The bytes of a frame that come before a payload of this length.
fn head_len(len: usize) -> usize {
    match len {
        0..=CONTROL_BYTES_MAX => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

fn frame(opcode: u8, payload: &[impl AsRef<[u8]>]) -> Bytes {
    let len = payload.iter().map(|part| part.as_ref().len()).sum();
    let mut frame = BytesMut::with_capacity(head_len(len) + len);
    frame.put_u8(FINAL | opcode);
    if let (true, Ok(short)) = (len <= CONTROL_BYTES_MAX, u8::try_from(len)) {
        frame.put_u8(short);
    } else if let Ok(medium) = u16::try_from(len) {
        frame.put_u8(LENGTH_16);
        frame.put_u16(medium);
    } else {
        frame.put_u8(LENGTH_64);
        frame.put_u64(len as u64);
    }
    payload.iter().for_each(|part| frame.put_slice(part.as_ref()));
    frame.freeze()
}

pub(super) const FINAL: u8 = 0x80;
pub(super) const CONTINUATION: u8 = 0x0;
pub(super) const TEXT: u8 = 0x1;
pub(super) const BINARY: u8 = 0x2;
pub(super) const CLOSE: u8 = 0x8;
pub(super) const PING: u8 = 0x9;
pub(super) const PONG: u8 = 0xa;
pub(super) const LENGTH_16: u8 = 126;
pub(super) const LENGTH_64: u8 = 127;
/// The most that a control frame holds (RFC 6455 § 5.5).
pub(super) const CONTROL_BYTES_MAX: usize = 125;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_told_in_their_shortest_form() {
        let heads: [(usize, &[u8]); 6] = [
            (0, &[0x81, 0]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (65_535, &[0x81, 126, 0xff, 0xff]),
            (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
            (70_000, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70]),
        ];
        for (len, head) in heads {
            let frame = text(&[&"x".repeat(len / 2), &"y".repeat(len - len / 2)]);
            assert_eq!((&frame[..head.len()], payload(&frame).len()), (head, len));
        }
        assert_eq!(ping(&[7; 200]).len(), 2 + 125);
    }
}
