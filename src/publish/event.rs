//! An event before it is stored: as its publisher states it, what may be wrong with it, and as it is checked.

use std::sync::Arc;

use bytes::Bytes;
use gatecast_storage::GatewayId;
use serde_json::value::RawValue;

use crate::envelope::Mould;
use crate::event_types::TypeName;
use crate::traceparent::TraceParent;
use crate::traces::Publishing;

/// The longest correlation id, in bytes.
const CORRELATION_ID_BYTES_MAX: usize = 256;
/// The longest entity key, in bytes.
const KEY_BYTES_MAX: usize = 512;

/// An event as a publisher states it.
#[derive(Debug)]
pub struct NewEvent {
    /// Its type, which must be registered.
    pub kind: TypeName,
    /// Its payload, as it was written.
    pub payload: Box<RawValue>,
    /// For tracing; a UUID is made when there is none.
    pub correlation_id: Option<String>,
    /// The entity it is about; when absent, taken from where the type says it is.
    pub key: Option<String>,
    /// The publisher's trace, if it has one.
    pub traceparent: Option<TraceParent>,
}

/// An event that may be appended: its type is registered, its payload valid and compact.
#[derive(Debug, Clone)]
pub struct CheckedEvent {
    pub(super) kind: TypeName,
    pub(super) correlation_id: String,
    pub(super) mould: Mould,
    pub(super) key: Option<Bytes>,
    pub(super) ends_key: bool,
    pub(super) trace: Option<Arc<Publishing>>,
}

/// One thing that is wrong with an event, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// A JSON pointer into the request, such as `/payload/apiId`.
    pub pointer: String,
    /// What is wrong there.
    pub message: String,
}

impl NewEvent {
    /// What is too long or empty in it; its payload is [`compact`]'s and its type's to judge.
    pub(super) fn out_of_bounds(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut check = |pointer: &str, text: &Option<String>, max: usize| {
            if text.as_ref().is_some_and(|text| text.is_empty() || text.len() > max) {
                faults.push(Fault { pointer: pointer.to_owned(), message: format!("must have 1 to {max} bytes") });
            }
        };
        check("/correlationId", &self.correlation_id, CORRELATION_ID_BYTES_MAX);
        check("/key", &self.key, KEY_BYTES_MAX);
        faults
    }
}

impl CheckedEvent {
    /// As given, or made.
    #[must_use]
    pub fn correlation_id(&self) -> &str {
        &self.correlation_id
    }

    /// The event in the log of a gateway.
    pub(super) fn body(&self, to: GatewayId, timestamp: &str) -> Bytes {
        self.mould.body(to, timestamp)
    }
}

/// The payload without insignificant white space: a raw line break would split an SSE event. Numbers, strings and
/// the order of members stay as they were written.
pub(super) fn compact(payload: Box<RawValue>, faults: &mut Vec<Fault>) -> Box<RawValue> {
    // Byte by byte, which is ten times as quick as to look for characters.
    if !payload.get().bytes().any(|b| matches!(b, b' ' | b'\n' | b'\r' | b'\t')) {
        return payload;
    }
    let mut text = String::with_capacity(payload.get().len());
    let (mut quoted, mut escaped) = (false, false);
    for c in payload.get().chars() {
        if quoted || !matches!(c, ' ' | '\n' | '\r' | '\t') {
            text.push(c);
        }
        match c {
            '"' if !escaped => quoted = !quoted,
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            _ => {}
        }
        escaped = false;
    }
    RawValue::from_string(text).unwrap_or_else(|_| {
        faults.push(Fault { pointer: "/payload".to_owned(), message: "is not JSON".to_owned() });
        RawValue::NULL.to_owned()
    })
}
