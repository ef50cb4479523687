//! The envelope of an event (CONTRACT.md § 2): how it is stored, and how it is sealed into the bytes that go out.
//!
//! A log entry's body is `type length (1 byte) ‖ type ‖ rest`, where `rest` is the envelope from `gatewayId` on. All
//! that is not known before the append is the `eventId`, so sealing is one copy; it happens once per event and the
//! frame is shared by all connections of the gateway on every transport.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use chrono::{DateTime, Datelike, SecondsFormat, Timelike, Utc};
use gatecast_storage::{Cursor, Entry, Epoch, GatewayId};
use gatecast_transports::{Frame, Text};
use serde_json::value::RawValue;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::event_types::TypeName;
use crate::traceparent::TraceParent;

/// What `{"type":"","eventId":"",` and the longest cursor add to the stored body.
const SEALING_BYTES_MAX: usize = 24 + 8 + 1 + 20;

/// The body to append for an event. `at` is spelled by [`timestamp`]; `payload` must be compact JSON (no raw line break).
#[must_use]
pub fn body(
    kind: &TypeName,
    gateway: GatewayId,
    at: &str,
    correlation_id: &str,
    traceparent: Option<&TraceParent>,
    payload: &RawValue,
) -> Bytes {
    let (kind, payload) = (kind.as_str(), payload.get());
    // Text always has a JSON form.
    let (correlation_id, mut id) = (serde_json::to_string(correlation_id).unwrap_or_default(), [0; Hyphenated::LENGTH]);
    let gateway: &str = gateway.0.as_hyphenated().encode_lower(&mut id);
    let traceparent = traceparent.map(|of| format!(r#""traceparent":"{of}","#)).unwrap_or_default();
    let rest = [
        BEFORE_GATEWAY,
        gateway,
        BEFORE_TIMESTAMP,
        at,
        r#"","correlationId":"#,
        &correlation_id,
        ",",
        &traceparent,
        r#""payload":"#,
        payload,
        "}",
    ];
    let mut body = BytesMut::with_capacity(1 + kind.len() + rest.iter().map(|part| part.len()).sum::<usize>());
    #[expect(clippy::cast_possible_truncation, reason = "a TypeName has at most 128 bytes")]
    body.put_u8(kind.len() as u8);
    body.put_slice(kind.as_bytes());
    for part in rest {
        body.put_slice(part.as_bytes());
    }
    body.freeze()
}

/// The body of an event for whatever gateways: one call to ten thousand of them spells it once.
#[derive(Debug, Clone)]
pub(crate) struct Mould {
    body: Bytes,
    /// Where the gateway is.
    gateway: usize,
}

impl Mould {
    /// As [`body`].
    pub(crate) fn new(
        kind: &TypeName,
        correlation_id: &str,
        traceparent: Option<&TraceParent>,
        payload: &RawValue,
    ) -> Self {
        let body = body(kind, GatewayId(Uuid::nil()), SOME_TIMESTAMP, correlation_id, traceparent, payload);
        Self { body, gateway: 1 + kind.as_str().len() + BEFORE_GATEWAY.len() }
    }

    /// The body for a gateway. `at` is spelled by [`timestamp`].
    pub(crate) fn body(&self, gateway: GatewayId, at: &str) -> Bytes {
        let mut id = [0; Hyphenated::LENGTH];
        let id: &str = gateway.0.as_hyphenated().encode_lower(&mut id);
        let (before, rest) = self.body.split_at_checked(self.gateway).unwrap_or_default();
        let rest = rest.get(id.len() + BEFORE_TIMESTAMP.len() + SOME_TIMESTAMP.len()..).unwrap_or_default();
        let mut body = BytesMut::with_capacity(self.body.len() + at.len());
        for part in [before, id.as_bytes(), BEFORE_TIMESTAMP.as_bytes(), at.as_bytes(), rest] {
            body.put_slice(part);
        }
        body.freeze()
    }

    /// Bytes of the body.
    pub(crate) fn len(&self) -> usize {
        self.body.len()
    }

    /// The most bytes that it can have as an envelope.
    pub(crate) fn sealed_len_max(&self) -> usize {
        // The byte that says how long the type is does not go out.
        self.body.len().saturating_sub(1) + SEALING_BYTES_MAX
    }
}

/// What stands before the gateway in an envelope's rest.
const BEFORE_GATEWAY: &str = r#""gatewayId":""#;
/// What stands between it and the time.
const BEFORE_TIMESTAMP: &str = r#"","timestamp":""#;

/// An event's type and its envelope from `gatewayId` on; `None` for a body that [`body`] did not make.
fn parts(body: &[u8]) -> Option<(&str, &str)> {
    let (&len, rest) = body.split_first()?;
    let (kind, rest) = rest.split_at_checked(usize::from(len))?;
    // Nor has it made one of several lines. Without a way out, so that many bytes are looked at in one instruction.
    let breaks = |bytes: &[u8]| bytes.iter().fold(false, |breaks, byte| breaks | matches!(byte, b'\n' | b'\r' | b'\0'));
    let line = |bytes| std::str::from_utf8(bytes).ok().filter(|_| !breaks(bytes));
    Some((line(kind)?, line(rest)?))
}

/// The frame of a stored entry: the same bytes every time. `None` for a body that [`body`] did not make.
#[must_use]
pub fn seal(epoch: Epoch, entry: &Entry) -> Option<Arc<Frame>> {
    let (kind, rest) = parts(&entry.body)?;
    let id = String::from(Cursor { epoch, seq: entry.seq });
    let text = Text::joined(&[r#"{"type":""#, kind, r#"","eventId":""#, &id, r#"","#, rest]);
    Some(Arc::new(Frame::new(Some(id), kind, text)))
}

/// As long as every [`timestamp`].
pub(crate) const SOME_TIMESTAMP: &str = "1970-01-01T00:00:00.000Z";

/// The publisher's trace in an event's envelope. Only what stands before the payload is looked at.
pub(crate) fn traceparent(envelope: &str) -> Option<TraceParent> {
    // Nothing that stands before it can hold a quote.
    let (_, rest) = envelope.split_once(r#","correlationId":""#)?;
    let mut escaped = false;
    let end = rest.bytes().position(|b| {
        let is_end = b == b'"' && !escaped;
        escaped = b == b'\\' && !escaped;
        is_end
    })?;
    rest.get(end..)?.strip_prefix(r#"","traceparent":""#)?.split('"').next()?.parse().ok()
}

/// A time as it stands in every message: RFC 3339 UTC with milliseconds.
#[must_use]
pub fn timestamp(at: DateTime<Utc>) -> String {
    let millis = at.timestamp_subsec_millis();
    let at = at.naive_utc();
    // A leap second, or a year that is not spelled so.
    let Ok(year @ 0..=9999) = u32::try_from(at.year()) else {
        return at.and_utc().to_rfc3339_opts(SecondsFormat::Millis, true);
    };
    if millis > 999 {
        return at.and_utc().to_rfc3339_opts(SecondsFormat::Millis, true);
    }
    // chrono takes 2,000 instructions for it, and every publish spells two.
    let mut text = *b"YYYY-MM-DDThh:mm:ss.mmmZ";
    let [y3, y2, y1, y0, _, o1, o0, _, d1, d0, _, h1, h0, _, m1, m0, _, s1, s0, _, f2, f1, f0, _] = &mut text;
    // Always a digit.
    let digit = |number: u32| char::from_digit(number % 10, 10).map_or(b'0', |digit| digit as u8);
    let spell = |[tens, ones]: [&mut u8; 2], number| (*tens, *ones) = (digit(number / 10), digit(number));
    spell([y3, y2], year / 100);
    spell([y1, y0], year);
    spell([o1, o0], at.month());
    spell([d1, d0], at.day());
    spell([h1, h0], at.hour());
    spell([m1, m0], at.minute());
    spell([s1, s0], at.second());
    spell([f2, f1], millis / 10);
    spell([&mut 0, f0], millis);
    std::str::from_utf8(&text).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatecast_storage::Seq;
    use proptest::prelude::*;

    const AT: &str = SOME_TIMESTAMP;

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn sealed(kind: &str, correlation: &str, payload: &str, seq: u64) -> Arc<Frame> {
        traced(kind, correlation, None, payload, seq)
    }

    fn traced(kind: &str, correlation: &str, trace: Option<&TraceParent>, payload: &str, seq: u64) -> Arc<Frame> {
        let gateway = "6f2c1f2e-8d5c-4a8e-9d0a-0c8e5d2f7b11".parse().unwrap();
        let payload: Box<RawValue> = serde_json::from_str(payload).unwrap();
        let at = DateTime::UNIX_EPOCH;
        let kind = kind.parse().unwrap();
        let mould = Mould::new(&kind, correlation, trace, &payload);
        let (body, longest) = (mould.body(gateway, AT), mould.sealed_len_max());
        assert_eq!(body, super::body(&kind, gateway, AT, correlation, trace, &payload));
        let frame = seal(Epoch(0x6f3a_9c21), &Entry { seq: Seq(seq), at, key: None, ends_key: false, body }).unwrap();
        assert!(frame.bytes().len() <= longest);
        frame
    }

    #[test]
    fn an_envelope_has_the_contract_members_in_order() {
        let frame = sealed("api.deployed", "c-1", r#"{"apiId":"a"}"#, 42);
        assert_eq!(
            frame.text(),
            r#"{"type":"api.deployed","eventId":"6f3a9c21-42","gatewayId":"6f2c1f2e-8d5c-4a8e-9d0a-0c8e5d2f7b11","timestamp":"1970-01-01T00:00:00.000Z","correlationId":"c-1","payload":{"apiId":"a"}}"#
        );
        assert_eq!((frame.id(), frame.name()), (Some("6f3a9c21-42"), "api.deployed"));
    }

    #[test]
    fn the_most_bytes_are_those_with_the_longest_cursor_and_not_one_more() {
        let kind: TypeName = "api.deployed".parse().unwrap();
        let payload: Box<RawValue> = serde_json::from_str("{}").unwrap();
        let longest = Mould::new(&kind, "c-1", None, &payload).sealed_len_max();
        assert_eq!(sealed("api.deployed", "c-1", "{}", u64::MAX).bytes().len(), longest);
    }

    proptest! {
        #[test]
        fn a_time_is_spelled_as_rfc_3339_has_it(seconds in -70_000_000_000..260_000_000_000_i64, nanos in 0..2_000_000_000_u32) {
            if let Some(at) = DateTime::from_timestamp(seconds, nanos) {
                prop_assert_eq!(timestamp(at), at.to_rfc3339_opts(SecondsFormat::Millis, true));
            }
        }

        #[test]
        fn any_correlation_id_and_position_make_valid_json(correlation in "\\PC{0,40}|[\\x00-\\x1f\"\\\\]{0,9}", seq: u64) {
            let frame = sealed("x", &correlation, "[1,{\"a\":null}]", seq);
            let json: serde_json::Value = serde_json::from_str(frame.text()).unwrap();
            prop_assert_eq!(json["correlationId"].as_str(), Some(correlation.as_str()));
            prop_assert_eq!(json["eventId"].as_str(), frame.id());
            prop_assert_eq!(&json["payload"], &serde_json::json!([1, { "a": null }]));
        }

        #[test]
        fn the_trace_of_an_envelope_is_its_own_whatever_its_texts_say(
            correlation in "\\PC{0,40}|[\\x00-\\x1f\"\\\\]{0,9}", lures in 0_usize..3, is_traced: bool,
        ) {
            let lure = format!(r#"","correlationId":"x","traceparent":"{}"#, TRACE.replace('4', "5"));
            let correlation = format!("{correlation}{}", lure.repeat(lures));
            let payload = format!(r#"{{"traceparent":"{TRACE}","correlationId":"","b":1}}"#);
            let trace = is_traced.then(|| TRACE.parse::<TraceParent>().unwrap());
            let frame = traced("x", &correlation, trace.as_ref(), &payload, 1);
            prop_assert_eq!(traceparent(frame.text()), trace);
        }

        #[test]
        fn a_body_of_any_bytes_is_sealed_in_one_line_or_not_at_all(bytes: Vec<u8>, text in "[\x00\n\ra-c]{0,6}") {
            for body in [Bytes::from(bytes), Bytes::from([&[0], text.as_bytes()].concat())] {
                let entry = Entry { seq: Seq(1), at: DateTime::UNIX_EPOCH, key: None, ends_key: false, body };
                let frame = seal(Epoch(1), &entry);
                prop_assert!(frame.is_none_or(|frame| frame.text().lines().count() == 1));
            }
        }
    }
}
