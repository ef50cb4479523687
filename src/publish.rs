//! The write path: check, append, answer.
//!
//! An event is checked against its type before anything is stored ([`Publisher::check`]); an answered event is
//! durable ([`gatecast_storage::EventLog::append_all`] answers after the flush). Delivery is not this module's work: sessions are woken by
//! the log's follower ([`crate::tail`]) and pull.
//!
//! A call with an idempotency key has its answer stored with each event, all or nothing, and one that tells several
//! gateways what it sets out to do before all events: a publisher that repeats a call it got no answer to, after a crash
//! too, gets the first answer for what is stored and publishes what is not.

mod appending;
mod call;
mod event;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use gatecast_storage::{Answer, Answers, Beside, Clock, Cursor, Draft, GatewayId, LogError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::time::Instant;
use uuid::Uuid;

pub use self::call::Call;
pub use self::event::{CheckedEvent, Fault, NewEvent};

pub(crate) use self::appending::Recorder;
use self::appending::{Appending, Sent};
use self::call::Note;
use self::event::compact;
use crate::envelope::{self, Mould};
use crate::event_types::{EventTypes, TypeName};
use crate::metrics::Histogram;
use crate::traces::Tracer;

/// Events under one sync: who publishes one event meanwhile waits for no more than twice these.
const CHUNK_EVENTS_MAX: usize = 1_024;
/// Bytes of these, about.
const CHUNK_BYTES: usize = 4 * 1024 * 1024;
/// Chunks of a call under way: one is written while the next is made.
const CHUNKS_AT_ONCE: usize = 2;

/// An event on its way to one gateway.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// The gateway.
    pub to: GatewayId,
    /// The event.
    pub event: &'a CheckedEvent,
    /// As [`Draft::expect`].
    pub expect: Option<Cursor>,
    /// Comes back in [`Published::about`], also when the call is repeated.
    pub about: Option<Box<RawValue>>,
    /// As [`Draft::beside`].
    pub beside: Vec<Beside>,
}

impl<'a> Outgoing<'a> {
    /// An event and nothing else.
    #[must_use]
    pub fn new(to: GatewayId, event: &'a CheckedEvent) -> Self {
        Self { to, event, expect: None, about: None, beside: Vec::new() }
    }
}

/// An event that is stored.
#[derive(Debug, Clone)]
pub struct Published {
    /// Its position.
    pub event_id: Cursor,
    /// As given, or made.
    pub correlation_id: String,
    /// When it was published.
    pub timestamp: DateTime<Utc>,
    /// How many replicas of the gateway were connected right before it was stored.
    pub connections: usize,
    /// As [`Outgoing::about`].
    pub about: Option<Box<RawValue>>,
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
    /// An earlier call with the same key asked for something else.
    #[error("the key was used for another call")]
    KeyReused,
}

/// Takes events from publishers to the log.
pub struct Publisher {
    types: Arc<EventTypes>,
    recorder: Recorder,
    answers: Arc<Answers>,
    clock: Arc<dyn Clock>,
    event_bytes_max: AtomicUsize,
    append_seconds: Histogram,
    tracer: Arc<Tracer>,
}

impl Publisher {
    /// A publisher of events whose envelopes have at most `event_bytes_max` bytes.
    #[must_use]
    pub(crate) fn new(
        types: Arc<EventTypes>,
        recorder: Recorder,
        answers: Arc<Answers>,
        clock: Arc<dyn Clock>,
        event_bytes_max: usize,
    ) -> Self {
        let append_seconds = Histogram::default();
        let event_bytes_max = AtomicUsize::new(event_bytes_max);
        Self { types, recorder, answers, clock, event_bytes_max, append_seconds, tracer: Arc::default() }
    }

    /// Its calls are traced.
    #[must_use]
    pub fn with_tracer(self, tracer: Arc<Tracer>) -> Self {
        Self { tracer, ..self }
    }

    /// The largest envelope, in bytes.
    #[must_use]
    pub fn event_bytes_max(&self) -> usize {
        self.event_bytes_max.load(Ordering::Relaxed)
    }

    /// Takes envelopes of so many bytes from now on.
    pub fn set_event_bytes_max(&self, bytes: usize) {
        self.event_bytes_max.store(bytes, Ordering::Relaxed);
    }

    /// Whether a check of the event may take more than some milliseconds.
    #[must_use]
    pub fn may_take_long(&self, event: &NewEvent) -> bool {
        self.types.may_take_long(&event.kind, event.payload.get().len())
    }

    /// Checks an event against its type; nothing is stored.
    ///
    /// # Errors
    /// [`PublishError::UnknownType`], [`PublishError::Invalid`], [`PublishError::TooLarge`].
    pub fn check(&self, event: NewEvent) -> Result<CheckedEvent, PublishError> {
        let trace = self.tracer.publishing(event.traceparent.as_ref(), &event.kind);
        if event.payload.get().len() > self.event_bytes_max() {
            return Err(self.too_large(event.payload.get().len()));
        }
        let mut faults = event.out_of_bounds();
        let payload = compact(event.payload, &mut faults);
        let subject = self
            .types
            .check(&event.kind, &payload, &mut faults)
            .map_err(|_| PublishError::UnknownType(event.kind.clone()))?;
        if !faults.is_empty() {
            return Err(PublishError::Invalid(faults));
        }
        let correlation_id = event.correlation_id.unwrap_or_else(|| Uuid::new_v4().to_string());
        let mould = Mould::new(&event.kind, &correlation_id, event.traceparent.as_ref(), &payload);
        let checked = CheckedEvent {
            kind: event.kind,
            correlation_id,
            mould,
            key: event.key.or(subject.key).map(Bytes::from),
            ends_key: subject.ends_key,
            trace,
        };
        let bytes = checked.mould.sealed_len_max();
        if bytes > self.event_bytes_max() {
            return Err(self.too_large(bytes));
        }
        checked.trace.iter().for_each(|trace| trace.checked());
        Ok(checked)
    }

    /// Appends checked events to the logs of gateways, each once, and answers for each in this order once it is durable. A
    /// gateway without a connected replica also gets a failed delivery on record. Some thousand events share a sync, and
    /// no more than twice as many are in memory at once. With a `call`, each answer is stored with its event, for
    /// [`Self::first`].
    ///
    /// Cancel safe: dropped, each event is stored with its answer or not stored, and one that is stored while nobody is
    /// there to get it is on record.
    pub async fn publish_all(
        &self,
        events: Vec<Outgoing<'_>>,
        call: Option<&Call>,
    ) -> Vec<Result<Published, PublishError>> {
        let largest = events.iter().map(|outgoing| outgoing.event.mould.len()).max().unwrap_or(0);
        let chunk = (CHUNK_BYTES / largest.max(1)).clamp(1, CHUNK_EVENTS_MAX);
        if events.len() <= chunk {
            return self.publish_chunk(events, call).await;
        }
        let mut results = Vec::with_capacity(events.len());
        let mut events = events.into_iter();
        let mut under_way = FuturesOrdered::new();
        loop {
            while under_way.len() < CHUNKS_AT_ONCE && events.len() > 0 {
                under_way.push_back(self.publish_chunk(events.by_ref().take(chunk).collect(), call));
            }
            match under_way.next().await {
                Some(published) => results.extend(published),
                None => return results,
            }
        }
    }

    /// What an earlier call with the same key was answered for a gateway.
    ///
    /// # Errors
    /// [`PublishError::KeyReused`] if it asked for something else.
    pub fn first(&self, to: GatewayId, call: &Call) -> Result<Option<Published>, PublishError> {
        let Some((event_id, answer)) = self.kept(to, call)? else { return Ok(None) };
        let Note { correlation_id, connections, about } = call::decode(&answer.rest)?;
        Ok(Some(Published { event_id, correlation_id, timestamp: answer.at, connections, about }))
    }

    /// Stores what a call about these gateways sets out to do, durably, for [`Self::begun`].
    ///
    /// # Errors
    /// [`PublishError::KeyReused`] if an earlier call with the same key asked for something else and was answered;
    /// [`PublishError::Log`] if it may not have been stored.
    pub async fn begin<T: Serialize + Sync>(
        &self,
        call: &Call,
        about: impl Iterator<Item = GatewayId> + Send,
        plan: &T,
    ) -> Result<(), PublishError> {
        for to in about {
            self.kept(to, call)?;
        }
        let plan = Answer { at: self.clock.now(), asked: call.asked, rest: call::encode(plan) };
        Ok(self.answers.begin(call.key, plan).await.map_err(LogError::from)?)
    }

    /// What an earlier call with the same key set out to do.
    ///
    /// # Errors
    /// [`PublishError::KeyReused`] if it asked for something else.
    pub fn begun<T: DeserializeOwned>(&self, call: &Call) -> Result<Option<T>, PublishError> {
        let Some(plan) = self.answers.begun(call.key) else { return Ok(None) };
        call.must_fit(&plan)?;
        call::decode(&plan.rest).map(Some)
    }

    fn kept(&self, to: GatewayId, call: &Call) -> Result<Option<(Cursor, Answer)>, PublishError> {
        let kept = self.answers.find(call.name(to));
        kept.map(|(event, answer)| call.must_fit(&answer).map(|()| (event, answer))).transpose()
    }

    async fn publish_chunk(
        &self,
        events: Vec<Outgoing<'_>>,
        call: Option<&Call>,
    ) -> Vec<Result<Published, PublishError>> {
        let (at, since) = (self.clock.now(), Instant::now());
        let timestamp = envelope::timestamp(at);
        let mut sent = Vec::with_capacity(events.len());
        let mut drafts = Vec::with_capacity(events.len());
        for Outgoing { to, event, expect, about, mut beside } in events {
            // Before the append, because it is stored with it.
            let connections = self.recorder.registry.connections_of(to);
            event.trace.iter().for_each(|trace| trace.appending());
            let note = Note { correlation_id: event.correlation_id.clone(), connections, about };
            let answer = call.map(|call| (call.name(to), Answer { at, asked: call.asked, rest: call::encode(&note) }));
            beside.extend(answer.as_ref().map(|(name, answer)| answer.beside(*name)));
            let (key, body) = (event.key.clone(), event.body(to, &timestamp));
            drafts.push((to, Draft { at, since, key, ends_key: event.ends_key, body, expect, beside }));
            sent.push(Sent { to, event, connections, rest: (note, answer) });
        }
        let count = drafts.len() as u64;
        let results = Appending::new(&self.recorder, drafts, sent, at).await;
        self.append_seconds.observe(since.elapsed(), count);
        let stored = results.into_iter().map(|(result, Sent { to, event, rest: (note, answer), .. })| {
            event.trace.iter().for_each(|trace| trace.appended(to, result.as_ref().ok().copied(), since));
            let event_id = result?;
            if let Some((name, answer)) = answer {
                self.answers.keep(name, event_id, answer);
            }
            let Note { correlation_id, connections, about } = note;
            Ok(Published { event_id, correlation_id, timestamp: at, connections, about })
        });
        stored.collect()
    }

    /// How long appends took that were done.
    pub(crate) fn append_seconds(&self) -> &Histogram {
        &self.append_seconds
    }

    fn too_large(&self, bytes: usize) -> PublishError {
        PublishError::TooLarge { bytes, limit: self.event_bytes_max() }
    }
}
