//! The frames of a peer as messages (RFC 6455 §§ 5 to 7): no extensions, masked, at most 64 KiB.
//!
//! A reader holds nothing while no frame and no message is begun. tungstenite's, with its context, its buffer and its
//! two proxies of wakers, held 0.9 KB of each idle connection, and a look at a silent socket through it was 5 % of what a
//! delivery takes. `tests` compare the two.

use bytes::{Buf, BytesMut};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::inbound::{Inbound, Rest, Said};
use super::wire;
use crate::close::CloseReason;

/// Understands what a peer says.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// What is not understood yet: less than a frame.
    input: BytesMut,
    /// A message whose last fragment is yet to come, as hardly ever.
    begun: Option<Box<Message>>,
}

#[derive(Debug)]
struct Message {
    is_text: bool,
    payload: BytesMut,
    /// Bytes of it that are known to be UTF-8.
    checked: usize,
}

/// What precedes a payload.
struct Head {
    is_last: bool,
    opcode: u8,
    len: usize,
    mask: [u8; 4],
    /// Its own bytes.
    bytes: usize,
}

impl Reader {
    /// Takes what was read.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// What comes next; `None` until more is read. Nothing comes after an end.
    pub(super) fn next(&mut self) -> Option<Inbound> {
        while !self.input.is_empty() {
            let understood = match head(&self.input) {
                Ok(Some(head)) if self.input.len() - head.bytes >= head.len => self.frame(&head),
                Ok(_) => return None,
                Err(reason) => Err(reason),
            };
            match understood {
                Ok(None) => {}
                Ok(Some(inbound)) => return Some(inbound),
                Err(reason) => return Some(Inbound::Ended(reason, Rest::Garbage)),
            }
        }
        self.input = BytesMut::new();
        None
    }

    /// Takes a whole frame; `None` for a fragment that is not the last.
    fn frame(&mut self, head: &Head) -> Result<Option<Inbound>, CloseReason> {
        self.input.advance(head.bytes);
        let mut payload = self.input.split_to(head.len);
        payload.iter_mut().zip(head.mask.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
        let message = match (head.opcode, self.begun.take()) {
            (wire::PING, begun) => {
                self.begun = begun;
                return Ok(Some(Inbound::Heard(Said::Ping(payload.freeze()))));
            }
            (wire::PONG, begun) => {
                self.begun = begun;
                return Ok(Some(Inbound::Heard(Said::Pong(payload.freeze()))));
            }
            (wire::CLOSE, _) => return closed(&payload).map(Some),
            (wire::CONTINUATION, Some(mut begun)) => {
                if begun.payload.len() + payload.len() > INBOUND_BYTES_MAX {
                    return Err(CloseReason::TooBig);
                }
                begun.payload.extend_from_slice(&payload);
                *begun
            }
            (wire::TEXT | wire::BINARY, None) => Message { is_text: head.opcode == wire::TEXT, payload, checked: 0 },
            // A fragment of nothing, or a message within another.
            _ => return Err(CloseReason::Protocol),
        };
        if head.is_last {
            return whole(message).map(Some);
        }
        self.begun = Some(Box::new(checked(message)?));
        Ok(None)
    }
}

/// Reads what precedes a payload, as far as it is there, and refuses what no peer may say.
fn head(input: &[u8]) -> Result<Option<Head>, CloseReason> {
    let Some((&[first, second], rest)) = input.split_first_chunk::<2>() else { return Ok(None) };
    let (is_last, opcode, short) = (first & wire::FINAL != 0, first & OPCODE, second & !MASKED);
    let is_control = opcode >= wire::CLOSE;
    if first & RESERVED != 0
        || second & MASKED == 0
        || !OPCODES.contains(&opcode)
        || (is_control && (!is_last || usize::from(short) > wire::CONTROL_BYTES_MAX))
    {
        return Err(CloseReason::Protocol);
    }
    let Some((len, rest)) = len(short, rest) else { return Ok(None) };
    let len = usize::try_from(len).ok().filter(|len| *len <= INBOUND_BYTES_MAX).ok_or(CloseReason::TooBig)?;
    let Some((&mask, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
    Ok(Some(Head { is_last, opcode, len, mask, bytes: input.len() - rest.len() }))
}

fn len(short: u8, rest: &[u8]) -> Option<(u64, &[u8])> {
    match short {
        wire::LENGTH_16 => rest.split_first_chunk().map(|(len, rest)| (u16::from_be_bytes(*len).into(), rest)),
        wire::LENGTH_64 => rest.split_first_chunk().map(|(len, rest)| (u64::from_be_bytes(*len), rest)),
        short => Some((short.into(), rest)),
    }
}

/// Refuses text that is wrong already, whatever follows (RFC 6455 § 8.1).
fn checked(mut message: Message) -> Result<Message, CloseReason> {
    let unchecked = message.payload.get(message.checked..).filter(|_| message.is_text).unwrap_or_default();
    message.checked += match std::str::from_utf8(unchecked) {
        Ok(text) => text.len(),
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        Err(_) => return Err(CloseReason::BadUtf8),
    };
    Ok(message)
}

fn whole(Message { is_text, payload, .. }: Message) -> Result<Inbound, CloseReason> {
    if !is_text {
        return Ok(Inbound::Ended(CloseReason::NotText, Rest::Frames));
    }
    let text = Utf8Bytes::try_from(payload.freeze()).map_err(|_| CloseReason::BadUtf8)?;
    Ok(Inbound::Heard(Said::Text(text)))
}

/// A close frame, and the frame to answer it with.
fn closed(payload: &[u8]) -> Result<Inbound, CloseReason> {
    let answer = match payload.split_first_chunk::<2>() {
        None if payload.is_empty() => wire::close(None),
        None => return Err(CloseReason::Protocol),
        Some((code, text)) => {
            let text = std::str::from_utf8(text).map_err(|_| CloseReason::BadUtf8)?;
            let code = u16::from_be_bytes(*code);
            wire::close(Some(if may_be_said(code) { (code, text) } else { (PROTOCOL_ERROR, "Protocol violation") }))
        }
    };
    Ok(Inbound::Closed(answer))
}

/// Whether a code may stand in a close frame (RFC 6455 § 7.4; IANA has registered 1012 to 1014 since).
fn may_be_said(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Largest inbound message and frame (CONTRACT.md § 4).
const INBOUND_BYTES_MAX: usize = 64 * 1024;
const OPCODES: [u8; 6] = [wire::CONTINUATION, wire::TEXT, wire::BINARY, wire::CLOSE, wire::PING, wire::PONG];
const OPCODE: u8 = 0x0f;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
/// RFC 6455 § 7.4.1.
const PROTOCOL_ERROR: u16 = 1002;

#[cfg(all(test, feature = "contract"))]
mod tests {
    use std::io::{self, Read, Write};

    use proptest::prelude::*;
    use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
    use tokio_tungstenite::tungstenite::{Error, Message};

    use super::*;
    use crate::contract::ws::masked;

    /// How it goes on after what was said.
    #[derive(Debug, PartialEq, Eq)]
    enum Then {
        /// More is to be read.
        More,
        Closed(Vec<u8>),
        NotText,
        Violation,
    }

    fn ours(bytes: &[u8], cut_into: usize) -> (Vec<Said>, Then) {
        let (mut reader, mut said) = (Reader::default(), Vec::new());
        for piece in bytes.chunks(cut_into) {
            reader.push(piece);
            while let Some(inbound) = reader.next() {
                let then = match inbound {
                    Inbound::Heard(heard) => {
                        said.push(heard);
                        continue;
                    }
                    Inbound::Closed(answer) => Then::Closed(answer.to_vec()),
                    Inbound::Ended(CloseReason::NotText, _) => Then::NotText,
                    Inbound::Ended(..) => Then::Violation,
                };
                return (said, then);
            }
        }
        (said, Then::More)
    }

    struct Wire<'a> {
        input: &'a [u8],
        output: Vec<u8>,
    }

    impl Read for Wire<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.input.read(buf)
        }
    }

    impl Write for Wire<'_> {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.output = buf.to_vec();
            Ok(buf.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn tungstenites(bytes: &[u8]) -> (Vec<Said>, Then) {
        let config = WebSocketConfig::default().write_buffer_size(0).max_message_size(Some(INBOUND_BYTES_MAX));
        let mut context = WebSocketContext::new(Role::Server, Some(config.max_frame_size(Some(INBOUND_BYTES_MAX))));
        let (mut wire, mut said) = (Wire { input: bytes, output: Vec::new() }, Vec::new());
        loop {
            let then = match context.read(&mut wire) {
                Ok(Message::Text(text)) => {
                    said.push(Said::Text(text));
                    continue;
                }
                Ok(Message::Ping(payload)) => {
                    said.push(Said::Ping(payload));
                    continue;
                }
                Ok(Message::Pong(payload)) => {
                    said.push(Said::Pong(payload));
                    continue;
                }
                Ok(Message::Close(_)) => {
                    assert!(context.read(&mut wire).is_err());
                    Then::Closed(wire.output)
                }
                Ok(_) => Then::NotText,
                Err(Error::Capacity(_) | Error::Utf8(_)) => Then::Violation,
                Err(Error::Protocol(error)) if !error.to_string().contains("without closing") => Then::Violation,
                Err(_) => Then::More,
            };
            return (said, then);
        }
    }

    /// Frames, of which most are right.
    fn frames() -> impl Strategy<Value = Vec<u8>> {
        let first = prop_oneof![
            8 => prop::sample::select(vec![0x81_u8, 0x01, 0x00, 0x80, 0x89, 0x8a]),
            1 => prop::sample::select(vec![0x88_u8, 0x82, 0x02, 0x83, 0x8b, 0xc1, 0x09]),
        ];
        let payload = prop_oneof![
            8 => "[a-zä€]{0,40}".prop_map(String::into_bytes),
            1 => prop::collection::vec(any::<u8>(), 0..140),
            1 => (any::<u16>(), "[a-z]{0,9}").prop_map(|(code, text)| [&code.to_be_bytes(), text.as_bytes()].concat()),
            1 => prop::sample::select(vec![INBOUND_BYTES_MAX, INBOUND_BYTES_MAX + 1]).prop_map(|len| vec![b'x'; len]),
        ];
        let payload = payload
            .prop_filter("a code that tungstenite does not know", |said| !said.starts_with(&1014_u16.to_be_bytes()));
        prop::collection::vec((first, payload), 0..12)
            .prop_map(|frames| frames.iter().flat_map(|(first, payload)| masked(*first, payload)).collect())
    }

    proptest! {
        #[test]
        fn what_tungstenite_understands_is_understood_the_same_however_it_is_cut(
            bytes in prop_oneof![4 => frames(), 1 => prop::collection::vec(any::<u8>(), 0..200)],
            cut_into in 1_usize..200,
        ) {
            let (said, then) = ours(&bytes, cut_into);
            let (expected, expected_then) = tungstenites(&bytes);
            prop_assert_eq!(said, expected);
            // A violation is seen at its first bytes, where tungstenite waits for the whole frame.
            prop_assert!(then == expected_then || (then, expected_then) == (Then::Violation, Then::More));
        }
    }

    #[test]
    fn a_close_code_that_may_be_said_is_said_back() {
        let answered = |code: u16| {
            let (_, then) = ours(&masked(0x88, &code.to_be_bytes()), 200);
            let Then::Closed(answer) = then else { unreachable!("{code}: {then:?}") };
            u16::from_be_bytes(answer[2..4].try_into().unwrap())
        };
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999] {
            assert_eq!(answered(code), code);
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, u16::MAX] {
            assert_eq!(answered(code), 1002, "{code}");
        }
    }

    #[test]
    fn nothing_is_held_between_messages() {
        let mut reader = Reader::default();
        for _ in 0..2 {
            let message = [masked(0x01, b"begun "), masked(0x89, b"between"), masked(0x80, b"and done")].concat();
            let said: Vec<_> = message
                .iter()
                .filter_map(|byte| {
                    reader.push(&[*byte]);
                    reader.next()
                })
                .collect();
            let ping = Inbound::Heard(Said::Ping(b"between".as_slice().into()));
            assert_eq!(said, [ping, Inbound::Heard(Said::Text("begun and done".into()))]);
            assert_eq!(reader.next(), None);
            assert_eq!((reader.input.capacity(), reader.begun.is_none()), (0, true));
        }
    }
}
