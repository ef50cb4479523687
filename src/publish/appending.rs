//! An append that is seen to its end.

use std::mem::take;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use chrono::{DateTime, Utc};
use futures::FutureExt;
use futures::future::BoxFuture;
use gatecast_storage::deliveries::{Deliveries, Failure, FailureReason};
use gatecast_storage::{Cursor, Directory, Draft, EventLog, GatewayId, LogError, Receipts};
use tokio::runtime::Handle;
use tracing::{debug, info};

use super::CheckedEvent;
use crate::registry::Registry;

type Results = Vec<Result<Cursor, LogError>>;

/// An append under way of events that each are on their way to a gateway: done, it gives these with their results, in order.
///
/// An event that nobody was there to get is on record once it is stored, also when this is dropped before: a publisher that
/// goes away, or waits no longer, has sent it all the same.
pub(super) struct Appending<'e, T> {
    recorder: Recorder,
    at: DateTime<Utc>,
    /// `None` once it is done.
    under_way: Option<BoxFuture<'static, Results>>,
    /// Whether the log may have been asked.
    is_begun: bool,
    sent: Vec<Sent<'e, T>>,
}

/// An event on its way to one gateway.
pub(super) struct Sent<'e, T> {
    pub(super) to: GatewayId,
    pub(super) event: &'e CheckedEvent,
    /// How many replicas of the gateway were connected before.
    pub(super) connections: usize,
    /// What else is known of it.
    pub(super) rest: T,
}

/// Where events are stored, and put on record that nobody is there to get.
#[derive(Clone)]
pub(crate) struct Recorder {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) deliveries: Arc<Deliveries>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) receipts: Arc<Receipts>,
}

/// What is put on record of an event.
struct Stored<'s> {
    to: GatewayId,
    connections: usize,
    kind: &'s str,
    correlation_id: &'s str,
    at: DateTime<Utc>,
    /// It is the only one of its call: one call to ten thousand gateways is not ten thousand lines.
    is_alone: bool,
}

impl<'e, T> Appending<'e, T> {
    /// An append of drafts, of these events, at this time.
    pub(super) fn new(
        recorder: &Recorder,
        drafts: Vec<(GatewayId, Draft)>,
        sent: Vec<Sent<'e, T>>,
        at: DateTime<Utc>,
    ) -> Self {
        let log = recorder.log.clone();
        let under_way = async move { log.append_all(drafts).await }.boxed();
        Self { recorder: recorder.clone(), at, under_way: Some(under_way), is_begun: false, sent }
    }
}

impl<'e, T: Unpin> Future for Appending<'e, T> {
    type Output = Vec<(Result<Cursor, LogError>, Sent<'e, T>)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.is_begun = true;
        let results = match &mut self.under_way {
            Some(under_way) => ready!(under_way.poll_unpin(cx)),
            None => Vec::new(),
        };
        self.under_way = None;
        let (at, is_alone) = (self.at, results.len() == 1);
        let done: Vec<_> = results.into_iter().zip(take(&mut self.sent)).collect();
        for (result, Sent { to, event, connections, .. }) in &done {
            if let Ok(id) = result {
                let (kind, correlation_id) = (event.kind.as_str(), &*event.correlation_id);
                let stored = Stored { to: *to, connections: *connections, kind, correlation_id, at, is_alone };
                self.recorder.stored(*id, &stored);
            }
        }
        Poll::Ready(done)
    }
}

impl<T> Drop for Appending<'_, T> {
    fn drop(&mut self) {
        let Some(under_way) = self.under_way.take().filter(|_| self.is_begun) else { return };
        // Without a runtime the process ends.
        let Ok(runtime) = Handle::try_current() else { return };
        let owned = |Sent { to, event, connections, .. }: &Sent<'_, T>| {
            (*to, *connections, event.kind.as_str().to_owned(), event.correlation_id.clone())
        };
        let (recorder, at, sent) = (self.recorder.clone(), self.at, self.sent.iter().map(owned).collect::<Vec<_>>());
        drop(runtime.spawn(async move {
            let is_alone = sent.len() == 1;
            for (result, (to, connections, kind, correlation_id)) in under_way.await.into_iter().zip(sent) {
                if let Ok(id) = result {
                    let (kind, correlation_id) = (&*kind, &*correlation_id);
                    recorder.stored(id, &Stored { to, connections, kind, correlation_id, at, is_alone });
                    // Who has sent it looks no more.
                    recorder.forget_if_gone(to).await;
                }
            }
        }));
    }
}

impl Recorder {
    async fn forget_if_gone(&self, of: GatewayId) {
        gatecast_storage::forget_if_gone(of, &self.directory, &*self.log, &self.receipts, &self.deliveries).await;
    }

    /// An event is stored. Its publisher is told how many were connected before, so it is on record if nobody was, though
    /// somebody came in between; and if these have left and whoever came began after it, and so is not given it.
    fn stored(&self, id: Cursor, &Stored { to, connections, kind, correlation_id, at, is_alone }: &Stored<'_>) {
        if connections > 0 && self.registry.gives(to, id) {
            debug!(gateway.id = %to, event.id = %id, event.kind = %kind, connections, "Event stored.");
            return;
        }
        if is_alone {
            info!(gateway.id = %to, event.id = %id, event.kind = %kind, "Event stored; its gateway is not connected.");
        } else {
            debug!(gateway.id = %to, event.id = %id, event.kind = %kind, "Event stored; its gateway is not connected.");
        }
        self.deliveries.record(Failure {
            gateway: to,
            replica: None,
            event: id,
            events: 1,
            event_type: Some(kind.to_owned()),
            correlation_id: Some(correlation_id.to_owned()),
            reason: FailureReason::NotConnected,
            at,
        });
        // Who began before it may have got it when this was not on record yet.
        for replica in self.registry.replicas_with(to, id) {
            self.deliveries.recovered(to, (id.seq.prev(), id), &replica, at);
        }
    }
}
