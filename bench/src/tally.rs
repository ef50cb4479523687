//! What the peers received, and waiting for it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::Result;

/// What is waited for comes within this, or the bench ends.
const WITHIN: Duration = Duration::from_secs(60);

/// Counts of a group of peers. The generator is one thread, so cells do.
#[derive(Default)]
pub(crate) struct Tally {
    acks: Cell<u64>,
    events: Cell<u64>,
    out_of_order: Cell<u64>,
    lost: Cell<u64>,
    awaited: Cell<(u64, u64)>,
    reached: Notify,
    arrivals: RefCell<Option<Vec<(u64, Instant)>>>,
}

impl Tally {
    pub(crate) fn new() -> Rc<Self> {
        Rc::default()
    }

    /// A peer was acknowledged.
    pub(crate) fn acknowledged(&self) {
        self.acks.set(self.acks.get() + 1);
        self.tell();
    }

    /// A peer received events.
    pub(crate) fn received(&self, events: u64) {
        self.events.set(self.events.get() + events);
        self.tell();
    }

    /// A peer received the event of this position.
    pub(crate) fn arrived(&self, seq: u64) {
        if let Some(arrivals) = self.arrivals.borrow_mut().as_mut() {
            arrivals.push((seq, Instant::now()));
        }
    }

    /// From now on it is noted when each event arrives at each peer.
    pub(crate) fn note_arrivals(&self) {
        self.arrivals.replace(Some(Vec::new()));
    }

    /// Ends the noting, once so many events have arrived since it began.
    pub(crate) async fn take_arrivals(&self, count: usize) -> Result<Vec<(u64, Instant)>> {
        let noted = self.arrivals.borrow().as_ref().map_or(0, Vec::len);
        self.until(0, self.events.get() + count.saturating_sub(noted) as u64).await?;
        Ok(self.arrivals.take().unwrap_or_default())
    }

    /// A peer received an event that does not follow the one before.
    pub(crate) fn out_of_order(&self) {
        self.out_of_order.set(self.out_of_order.get() + 1);
    }

    /// A peer's connection ended, or was refused.
    pub(crate) fn lost(&self) {
        self.lost.set(self.lost.get() + 1);
        self.reached.notify_waiters();
    }

    /// Waits until so many were acknowledged and so many events received.
    pub(crate) async fn until(&self, acks: u64, events: u64) -> Result<()> {
        self.awaited.set((acks, events));
        let came = timeout(WITHIN, async {
            while !self.is_reached() && self.lost.get() == 0 {
                self.reached.notified().await;
            }
        });
        let in_time = came.await.is_ok();
        if self.lost.get() + self.out_of_order.get() > 0 || !in_time {
            let (acks_now, events_now) = (self.acks.get(), self.events.get());
            return Err(format!(
                "{acks_now} of {acks} acknowledged, {events_now} of {events} events, {} connections lost, {} events out of order",
                self.lost.get(),
                self.out_of_order.get(),
            )
            .into());
        }
        Ok(())
    }

    fn is_reached(&self) -> bool {
        let (acks, events) = self.awaited.get();
        self.acks.get() >= acks && self.events.get() >= events
    }

    fn tell(&self) {
        if self.is_reached() {
            self.reached.notify_one();
        }
    }
}
