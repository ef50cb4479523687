//! The write path: check, append, answer.
//!
//! An event is checked against its type before anything is stored ([`Publisher::check`]); an answered event is
//! durable ([`EventLog::append`] answers after the flush). Delivery is not this module's work: sessions are woken by
//! the log's follower ([`crate::tail`]) and pull.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use gatecast_storage::deliveries::{Deliveries, Failure, FailureReason};
use gatecast_storage::{Clock, Cursor, Draft, EventLog, GatewayId, LogError};
use serde_json::value::RawValue;
use tokio::time::Instant;
use tracing::{debug, info};
use uuid::Uuid;

use crate::envelope;
use crate::event_types::{EventTypes, TypeName};
use crate::metrics::Histogram;
use crate::registry::Registry;
use crate::traceparent::TraceParent;

/// An append that takes longer is answered as unavailable; it may still be stored.
const APPEND_TIMEOUT: Duration = Duration::from_secs(10);
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
    kind: TypeName,
    payload: Arc<RawValue>,
    correlation_id: String,
    traceparent: Option<TraceParent>,
    key: Option<Bytes>,
    ends_key: bool,
}

/// An event that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Its position.
    pub event_id: Cursor,
    /// As given, or made.
    pub correlation_id: String,
    /// When it was published.
    pub timestamp: DateTime<Utc>,
    /// How many replicas of the gateway were connected when it was stored.
    pub connections: usize,
}

/// Why an event was not stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The type is not registered.
    #[error("event type {0} is not registered")]
    UnknownType(TypeName),
    /// The payload breaks its type's schema, or another member is out of bounds.
    #[error("the event is not valid")]
    Invalid(Vec<Fault>),
    /// The envelope would be too large.
    #[error("the event has {bytes} bytes; the limit is {limit}")]
    TooLarge {
        /// What its envelope would have.
        bytes: usize,
        /// What it may have.
        limit: usize,
    },
    /// The log did not take it.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log did not answer in time; the event may still be stored.
    #[error("the event log did not answer in time")]
    Timeout,
}

/// One thing that is wrong with an event, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// A JSON pointer into the request, such as `/payload/apiId`.
    pub pointer: String,
    /// What is wrong there.
    pub message: String,
}

/// Takes events from publishers to the log.
pub struct Publisher {
    log: Arc<dyn EventLog>,
    types: Arc<EventTypes>,
    registry: Arc<Registry>,
    deliveries: Arc<Deliveries>,
    clock: Arc<dyn Clock>,
    event_bytes_max: usize,
    append_seconds: Histogram,
}

impl Publisher {
    /// A publisher of events whose envelopes have at most `event_bytes_max` bytes.
    #[must_use]
    pub fn new(
        log: Arc<dyn EventLog>,
        types: Arc<EventTypes>,
        registry: Arc<Registry>,
        deliveries: Arc<Deliveries>,
        clock: Arc<dyn Clock>,
        event_bytes_max: usize,
    ) -> Self {
        let append_seconds = Histogram::default();
        Self { log, types, registry, deliveries, clock, event_bytes_max, append_seconds }
    }

    /// Checks an event against its type; nothing is stored.
    ///
    /// # Errors
    /// [`PublishError::UnknownType`], [`PublishError::Invalid`], [`PublishError::TooLarge`].
    pub fn check(&self, event: NewEvent) -> Result<CheckedEvent, PublishError> {
        if event.payload.get().len() > self.event_bytes_max {
            return Err(self.too_large(event.payload.get().len()));
        }
        let mut faults = out_of_bounds(&event);
        let payload = compact(&event.payload, &mut faults);
        let subject = self
            .types
            .check(&event.kind, &payload, &mut faults)
            .map_err(|_| PublishError::UnknownType(event.kind.clone()))?;
        if !faults.is_empty() {
            return Err(PublishError::Invalid(faults));
        }
        let checked = CheckedEvent {
            kind: event.kind,
            payload: payload.into(),
            correlation_id: event.correlation_id.unwrap_or_else(|| Uuid::new_v4().to_string()),
            traceparent: event.traceparent,
            key: event.key.or(subject.key).map(Bytes::from),
            ends_key: subject.ends_key,
        };
        let bytes = envelope::sealed_len_max(&checked.body(GatewayId(Uuid::nil()), DateTime::UNIX_EPOCH));
        if bytes > self.event_bytes_max { Err(self.too_large(bytes)) } else { Ok(checked) }
    }

    /// Appends a checked event to a gateway's log and answers once it is durable. With `expect`, only right after
    /// that position. A gateway without a connected replica also gets a failed delivery on record.
    ///
    /// Cancel safe: dropped, the event is stored or not stored.
    ///
    /// # Errors
    /// [`PublishError::Log`]; [`PublishError::Timeout`], after which the event may still be stored.
    pub async fn publish(
        &self,
        to: GatewayId,
        event: &CheckedEvent,
        expect: Option<Cursor>,
    ) -> Result<Published, PublishError> {
        let at = self.clock.now();
        let draft = Draft { at, key: event.key.clone(), ends_key: event.ends_key, body: event.body(to, at), expect };
        let began = Instant::now();
        let append = self.log.append(to, draft);
        let event_id = tokio::time::timeout(APPEND_TIMEOUT, append).await.map_err(|_| PublishError::Timeout)??;
        self.append_seconds.observe(began.elapsed(), 1);
        let connections = self.registry.connections_of(to);
        if connections == 0 {
            info!(gateway.id = %to, event.id = %event_id, event.kind = %event.kind, "Event stored; its gateway is not connected.");
            self.deliveries.record(Failure {
                gateway: to,
                event: event_id,
                event_type: event.kind.as_str().to_owned(),
                correlation_id: event.correlation_id.clone(),
                reason: FailureReason::NotConnected,
                at,
            });
        } else {
            debug!(gateway.id = %to, event.id = %event_id, event.kind = %event.kind, connections, "Event stored.");
        }
        Ok(Published { event_id, correlation_id: event.correlation_id.clone(), timestamp: at, connections })
    }

    /// How long appends took that were done.
    pub(crate) fn append_seconds(&self) -> &Histogram {
        &self.append_seconds
    }

    fn too_large(&self, bytes: usize) -> PublishError {
        PublishError::TooLarge { bytes, limit: self.event_bytes_max }
    }
}

impl CheckedEvent {
    fn body(&self, to: GatewayId, at: DateTime<Utc>) -> Bytes {
        envelope::body(&self.kind, to, at, &self.correlation_id, self.traceparent.as_ref(), &self.payload)
    }
}

fn out_of_bounds(event: &NewEvent) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut check = |pointer: &str, text: &Option<String>, max: usize| {
        if text.as_ref().is_some_and(|text| text.is_empty() || text.len() > max) {
            faults.push(Fault { pointer: pointer.to_owned(), message: format!("must have 1 to {max} bytes") });
        }
    };
    check("/correlationId", &event.correlation_id, CORRELATION_ID_BYTES_MAX);
    check("/key", &event.key, KEY_BYTES_MAX);
    faults
}

/// The payload without insignificant white space: a raw line break would split an SSE event. Numbers, strings and
/// the order of members stay as they were written.
fn compact(payload: &RawValue, faults: &mut Vec<Fault>) -> Box<RawValue> {
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
