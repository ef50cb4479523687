//! Spans of events on their way, for the collector that `OTEL_EXPORTER_OTLP_ENDPOINT` names; without it nothing is made.
//!
//! Only what the publisher samples is traced (its `traceparent` has the sampled flag), so publishers decide how many
//! spans there are. A trace gets, below the publisher's span: `publish` (the call), in it an `append` for each gateway's
//! log, and in that a `deliver` for each connection that a live event was written to.
//!
//! - Neither a publish nor a delivery waits for a span: it goes into a queue of [`QUEUE_SPANS_MAX`] or is dropped and
//!   counted. `export` sends them in batches.
//! - An append's span id follows from trace and position, so a delivery names it as its parent without being told.
//! - Spans name gateways, connections, types and positions; never a payload, a correlation id or a token.

mod export;
mod partial;
mod span;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use gatecast_storage::{Clock, Cursor, GatewayId};
use gatecast_transports::Frame;
use tokio::sync::mpsc;
use tokio::time::Instant;

pub use self::export::{ExportError, Exporter};
use self::span::{Kind, Span, SpanId};
use crate::envelope;
use crate::event_types::TypeName;
use crate::traceparent::TraceParent;

/// Spans that wait to be sent: some 2 MB.
const QUEUE_SPANS_MAX: usize = 4_096;

/// Makes spans, or does nothing.
#[derive(Default)]
pub struct Tracer {
    to: Option<(mpsc::Sender<Span>, Arc<dyn Clock>)>,
    exported: AtomicU64,
    dropped: AtomicU64,
}

/// A publisher's call that is traced: its span ends when the last of what was checked in it is dropped.
pub(crate) struct Publishing {
    tracer: Arc<Tracer>,
    context: TraceParent,
    kind: TypeName,
    span: SpanId,
    since: Instant,
    /// What was begun and has not ended well: the check, appends.
    open: AtomicUsize,
}

/// A connection that events are delivered to.
pub(crate) struct Receiver<'a> {
    pub(crate) gateway: GatewayId,
    pub(crate) connection: &'a str,
    pub(crate) transport: &'static str,
}

impl Tracer {
    /// A tracer whose spans are taken from the other end.
    fn new(clock: Arc<dyn Clock>) -> (Arc<Self>, mpsc::Receiver<Span>) {
        let (to, spans) = mpsc::channel(QUEUE_SPANS_MAX);
        (Arc::new(Self { to: Some((to, clock)), ..Self::default() }), spans)
    }

    /// Begins the span of a call, if its publisher has a sampled trace.
    pub(crate) fn publishing(
        self: &Arc<Self>,
        context: Option<&TraceParent>,
        kind: &TypeName,
    ) -> Option<Arc<Publishing>> {
        self.to.as_ref()?;
        let context = context.filter(|context| context.is_sampled())?.clone();
        Some(Arc::new(Publishing {
            tracer: self.clone(),
            context,
            kind: kind.clone(),
            span: SpanId::random(),
            since: Instant::now(),
            open: AtomicUsize::new(1),
        }))
    }

    /// Whether spans go anywhere: what is only looked up for them need not be otherwise.
    pub(crate) fn is_on(&self) -> bool {
        self.to.is_some()
    }

    /// A live event was written to a connection.
    pub(crate) fn delivered(&self, frame: &Frame, since: Instant, to: &Receiver<'_>) {
        let Some(context) = envelope::traceparent(frame.text()).filter(TraceParent::is_sampled) else { return };
        let Some(event) = frame.id().and_then(|id| id.parse().ok()) else { return };
        let parent = SpanId::of_append(&context, to.gateway, event);
        let mut span = Span::new(&context, SpanId::random(), parent.to_string(), "deliver", Kind::Producer);
        span.about_event(to.gateway, Some(event), frame.name());
        span.attribute("gatecast.connection.id", to.connection.to_owned());
        span.attribute("gatecast.transport", to.transport.to_owned());
        self.end(span, since);
    }

    /// Spans that a collector took.
    pub(crate) fn exported_total(&self) -> u64 {
        self.exported.load(Ordering::Relaxed)
    }

    /// Spans that no collector took.
    pub(crate) fn dropped_total(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn end(&self, mut span: Span, since: Instant) {
        let Some((to, clock)) = &self.to else { return };
        span.ended(clock.now(), since.elapsed());
        if to.try_send(span).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Publishing {
    /// What it asks for is sound.
    pub(crate) fn checked(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// An append begins.
    pub(crate) fn appending(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// An append to a gateway's log that began at `since` is done: at this position, or not at all.
    pub(crate) fn appended(&self, to: GatewayId, event: Option<Cursor>, since: Instant) {
        let id = event.map_or_else(SpanId::random, |event| SpanId::of_append(&self.context, to, event));
        let mut span = Span::new(&self.context, id, self.span.to_string(), "append", Kind::Internal);
        span.about_event(to, event, self.kind.as_str());
        span.is_error = event.is_none();
        if event.is_some() {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
        self.tracer.end(span, since);
    }
}

impl Drop for Publishing {
    fn drop(&mut self) {
        let parent = self.context.parent_id().to_owned();
        let mut span = Span::new(&self.context, self.span, parent, "publish", Kind::Server);
        span.attribute("gatecast.event.type", self.kind.as_str().to_owned());
        span.is_error = self.open.load(Ordering::Relaxed) > 0;
        self.tracer.end(span, self.since);
    }
}

impl std::fmt::Debug for Publishing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publishing").field("context", &self.context).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use gatecast_storage::ManualClock;

    use super::*;

    #[tokio::test]
    async fn what_the_queue_does_not_hold_is_dropped_and_counted() {
        let context: TraceParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap();
        let kind: TypeName = "api.deployed".parse().unwrap();
        assert!(Arc::new(Tracer::default()).publishing(Some(&context), &kind).is_none(), "off");
        let (tracer, mut spans) = Tracer::new(Arc::new(ManualClock::default()));
        for _ in 0..QUEUE_SPANS_MAX + 3 {
            drop(tracer.publishing(Some(&context), &kind));
        }
        assert_eq!((spans.len(), tracer.dropped_total()), (QUEUE_SPANS_MAX, 3));
        spans.recv().await;
        drop(tracer.publishing(Some(&context), &kind));
        assert_eq!(tracer.dropped_total(), 3);
    }
}
