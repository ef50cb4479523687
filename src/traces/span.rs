//! A span as OTLP's JSON has it (opentelemetry-proto, trace.proto): ids in hex, 64-bit numbers as text.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use gatecast_storage::{Cursor, GatewayId};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::traceparent::TraceParent;

/// The `sampled` flag: nothing else is exported.
const SAMPLED: u32 = 1;
/// `STATUS_CODE_ERROR`.
const ERROR: u32 = 2;

/// 8 bytes of which one is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SpanId(u64);

/// `SpanKind`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Internal = 1,
    Server = 2,
    Producer = 4,
}

/// Something that took time.
#[derive(Debug)]
pub(super) struct Span {
    context: TraceParent,
    id: SpanId,
    parent: String,
    name: &'static str,
    kind: Kind,
    began: DateTime<Utc>,
    ended: DateTime<Utc>,
    attributes: Vec<(&'static str, String)>,
    pub(super) is_error: bool,
}

impl SpanId {
    pub(super) fn random() -> Self {
        Self(Uuid::new_v4().as_u64_pair().1 | 1)
    }

    /// That of the append of an event: whoever knows the event and its trace knows it.
    pub(super) fn of_append(context: &TraceParent, gateway: GatewayId, event: Cursor) -> Self {
        let hash = Sha256::digest(format!("append {} {gateway} {event}", context.trace_id()));
        Self(hash.iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte)) | 1)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Span {
    pub(super) fn new(context: &TraceParent, id: SpanId, parent: String, name: &'static str, kind: Kind) -> Self {
        let (context, began, ended) = (context.clone(), DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH);
        Self { context, id, parent, name, kind, began, ended, attributes: Vec::new(), is_error: false }
    }

    pub(super) fn attribute(&mut self, name: &'static str, value: String) {
        self.attributes.push((name, value));
    }

    pub(super) fn about_event(&mut self, gateway: GatewayId, event: Option<Cursor>, kind: &str) {
        self.attribute("gatecast.gateway.id", gateway.to_string());
        self.attribute("gatecast.event.type", kind.to_owned());
        if let Some(event) = event {
            self.attribute("gatecast.event.id", event.to_string());
        }
    }

    pub(super) fn ended(&mut self, at: DateTime<Utc>, took: Duration) {
        self.ended = at;
        self.began = at - TimeDelta::from_std(took).unwrap_or_default();
    }

    fn json(&self) -> Value {
        let mut span = json!({
            "traceId": self.context.trace_id(),
            "spanId": self.id.to_string(),
            "parentSpanId": self.parent,
            "flags": SAMPLED,
            "name": self.name,
            "kind": self.kind as u32,
            "startTimeUnixNano": nanos(self.began),
            "endTimeUnixNano": nanos(self.ended),
            "attributes": attributes(self.attributes.iter().map(|(name, value)| (*name, value.as_str()))),
        });
        if self.is_error {
            span["status"] = json!({ "code": ERROR });
        }
        span
    }
}

/// The body of a `POST …/v1/traces`.
pub(super) fn request(service: &str, spans: &[Span]) -> String {
    let version = env!("CARGO_PKG_VERSION");
    json!({
        "resourceSpans": [{
            "resource": { "attributes": attributes([("service.name", service), ("service.version", version)].into_iter()) },
            "scopeSpans": [{
                "scope": { "name": "gatecast", "version": version },
                "spans": spans.iter().map(Span::json).collect::<Vec<_>>(),
            }],
        }],
    })
    .to_string()
}

fn attributes<'a>(all: impl Iterator<Item = (&'static str, &'a str)>) -> Value {
    all.map(|(name, value)| json!({ "key": name, "value": { "stringValue": value } })).collect()
}

fn nanos(at: DateTime<Utc>) -> String {
    // Out of range only before 1677 and after 2262.
    at.timestamp_nanos_opt().unwrap_or_default().to_string()
}
