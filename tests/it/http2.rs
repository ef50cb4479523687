//! HTTP/2 by the byte (RFC 9113), for peers that no client library would be.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::wire::Tls;

pub(crate) const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;
const END_STREAM_AND_HEADERS: u8 = 5;
/// A setting: how much of each stream the peer takes before it says that it takes more.
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;

/// A frame as it was read.
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) stream: u32,
    flags: u8,
    payload: Vec<u8>,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// What a client begins with: the preface and its settings.
pub(crate) fn opening(settings: &[(u16, u32)]) -> Vec<u8> {
    let settings: Vec<u8> =
        settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &*frame(SETTINGS, 0, 0, &settings)].concat()
}

/// A `GET` of a path.
pub(crate) fn get(stream: u32, path: &str) -> Vec<u8> {
    // HPACK (RFC 7541 appendix A): `:method GET` and `:scheme https` are in its table, `:path` and `:authority` named there.
    let path = [&[0x82, 0x87, 0x04, u8::try_from(path.len()).unwrap()], path.as_bytes(), b"\x01\x01x"].concat();
    frame(HEADERS, END_STREAM_AND_HEADERS, stream, &path)
}

/// The next frame, or nothing once the connection has ended. Settings and pings are answered.
pub(crate) async fn next(from: &mut Tls) -> Option<Frame> {
    let mut head = [0; 9];
    from.read_exact(&mut head).await.ok()?;
    let [a, b, c, kind, flags, rest @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    from.read_exact(&mut payload).await.ok()?;
    let read = Frame { kind, flags, stream: u32::from_be_bytes(rest), payload };
    if read.flags & ACK == 0 && [SETTINGS, PING].contains(&read.kind) {
        let answer: &[u8] = if read.kind == PING { &read.payload } else { &[] };
        from.write_all(&frame(read.kind, ACK, 0, answer)).await.ok()?;
        from.flush().await.ok()?;
    }
    Some(read)
}
