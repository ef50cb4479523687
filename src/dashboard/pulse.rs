//! What the server did, second by second: the last [`BEATS_MAX`] seconds are kept, in memory, for all who watch.
//!
//! A beat's id is its time in milliseconds, always larger than the one before, so a browser that comes back, also to a
//! restarted server, is shown what it has not seen.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use gatecast_storage::{Clock, Deliveries};
use gatecast_transports::{Frame, Frames, Room};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::viewing::{Feed, Shown};
use crate::bell::{Bell, Listener};
use crate::envelope::timestamp;
use crate::metrics::Snapshot;
use crate::registry::Registry;
use crate::tail::Tails;

const BEAT_EVERY: Duration = Duration::from_secs(1);
/// Ten minutes, at some 250 bytes each.
const BEATS_MAX: usize = 600;

/// The pulse of a server.
pub(crate) struct Pulse {
    registry: Arc<Registry>,
    tails: Arc<Tails>,
    deliveries: Arc<Deliveries>,
    clock: Arc<dyn Clock>,
    beats: Mutex<VecDeque<(i64, Arc<Frame>)>>,
    bell: Arc<Bell>,
}

/// What grows while the process lives.
#[derive(Debug, Clone, Default)]
struct Totals {
    published: u64,
    delivered: u64,
    failed: u64,
    /// How long live events took from their publish to a socket, over every transport.
    delivery: Vec<Snapshot>,
}

impl Pulse {
    /// Nothing is felt until [`Pulse::beat`].
    pub(crate) fn new(
        registry: Arc<Registry>,
        tails: Arc<Tails>,
        deliveries: Arc<Deliveries>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { registry, tails, deliveries, clock, beats: Mutex::default(), bell: Arc::default() }
    }

    /// Feels the pulse every second, for as long as it is polled.
    pub(crate) async fn beat(&self) {
        let mut every = interval(BEAT_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        every.tick().await;
        let (mut before, mut since) = (self.totals(), Instant::now());
        loop {
            every.tick().await;
            let (totals, now) = (self.totals(), Instant::now());
            self.keep(&totals, &before, now - since);
            (before, since) = (totals, now);
        }
    }

    fn totals(&self) -> Totals {
        Totals {
            published: self.tails.appended_total(),
            delivered: self.registry.events_sent_total(),
            failed: self.deliveries.totals().count,
            delivery: self.registry.traffic.all().values().map(|carried| carried.delivery.snapshot()).collect(),
        }
    }

    fn keep(&self, now: &Totals, before: &Totals, took: Duration) {
        let at = self.clock.now();
        let mut beats = self.beats();
        let id = at.timestamp_millis().max(beats.back().map_or(0, |(id, _)| id + 1));
        let text = json!({
            "at": timestamp(at),
            "connections": self.registry.len(),
            "published": now.published,
            "delivered": now.delivered,
            "failed": now.failed,
            "publishedPerSecond": per_second(now.published - before.published, took),
            "deliveredPerSecond": per_second(now.delivered - before.delivered, took),
            "deliveryMs": delivery_ms(&now.delivery, &before.delivery),
        });
        beats.push_back((id, Arc::new(Frame::new(Some(id.to_string()), "beat", text.to_string()))));
        if beats.len() > BEATS_MAX {
            beats.pop_front();
        }
        drop(beats);
        self.bell.ring();
    }

    /// The beats after one, as many as there is room for.
    fn after(&self, id: i64, room: Room) -> (Frames, i64) {
        let beats = self.beats();
        let skip = beats.partition_point(|(known, _)| *known <= id);
        let shown = beats.range(skip..).take(room.frames.max(1));
        let last = shown.clone().next_back().map_or(id, |(id, _)| *id);
        (shown.map(|(_, frame)| frame.clone()).collect(), last)
    }

    fn newest(&self) -> i64 {
        self.beats().back().map_or(0, |(id, _)| *id)
    }

    fn beats(&self) -> MutexGuard<'_, VecDeque<(i64, Arc<Frame>)>> {
        // Nothing that runs under the lock panics half way.
        self.beats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long half of the live events took at most, and 99 of 100; `null` without any.
fn delivery_ms(now: &[Snapshot], before: &[Snapshot]) -> Value {
    let since = Snapshot::sum(now).since(&Snapshot::sum(before));
    let ms = |share| since.quantile(share).map(|seconds| (seconds * 100_000.0).round() / 100.0);
    match (ms(0.5), ms(0.99)) {
        (Some(p50), Some(p99)) => json!({ "p50": p50, "p99": p99 }),
        _ => Value::Null,
    }
}

/// Rounded to a tenth.
#[expect(clippy::cast_precision_loss, reason = "exact to the tenth up to 2^49 events a second")]
fn per_second(events: u64, took: Duration) -> f64 {
    (events as f64 / took.as_secs_f64().max(f64::EPSILON) * 10.0).round() / 10.0
}

/// The pulse as one operator is shown it.
pub(super) struct Felt {
    pulse: Arc<Pulse>,
    listener: Listener,
    /// Up to here it is out.
    at: i64,
    /// Up to here it was given.
    given: i64,
}

impl Felt {
    /// What comes after a beat; from the first that is kept if that is in the future, as when the clock was set back.
    pub(super) fn after(pulse: Arc<Pulse>, beat: i64) -> Self {
        let at = if beat > pulse.newest() { 0 } else { beat };
        Self { listener: Listener::new(pulse.bell.clone()), pulse, at, given: at }
    }
}

impl Feed for Felt {
    fn poll_next(&mut self, cx: &mut Context<'_>, room: Room) -> Poll<Shown> {
        // Before the look: a beat after it wakes us.
        self.listener.listen(cx);
        let (frames, to) = self.pulse.after(self.at, room);
        if frames.is_empty() {
            return Poll::Pending;
        }
        self.given = to;
        Poll::Ready(Shown::Frames(frames))
    }

    fn written(&mut self) {
        self.at = self.given;
    }

    fn position(&self) -> String {
        self.at.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::registry::Capacity;
    use gatecast_storage::deliveries::DeliveryLimits;
    use gatecast_storage::{Appended, Cursor, Entry, Epoch, Follower, GatewayId, ManualClock, MemoryRecords, Seq};
    use uuid::Uuid;

    const ROOM: Room = Room { frames: 256, bytes: 48 * 1024 };

    struct World {
        pulse: Arc<Pulse>,
        tails: Arc<Tails>,
        clock: Arc<ManualClock>,
    }

    impl World {
        async fn new() -> Self {
            let (clock, tails) = (Arc::new(ManualClock::default()), Tails::new());
            let records = Arc::new(MemoryRecords::new());
            let deliveries = Deliveries::open(records, clock.clone(), DeliveryLimits::default()).await.unwrap();
            let registry = Registry::new(Capacity { total: 1, per_gateway: 1 });
            let pulse = Pulse::new(registry, tails.clone(), Arc::new(deliveries), clock.clone());
            Self { pulse: Arc::new(pulse), tails, clock }
        }

        fn beat(&self, published: u64) {
            self.clock.advance(BEAT_EVERY);
            self.pulse.keep(&Totals { published, ..Totals::default() }, &Totals::default(), BEAT_EVERY);
        }
    }

    /// Nobody is woken: it is polled again when it has something to show.
    fn nobody() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    fn shown(feed: &mut Felt) -> Vec<(i64, Value)> {
        let Poll::Ready(Shown::Frames(frames)) = feed.poll_next(&mut nobody(), ROOM) else { return Vec::new() };
        feed.written();
        frames.iter().map(|f| (f.id().unwrap().parse().unwrap(), serde_json::from_str(f.text()).unwrap())).collect()
    }

    #[tokio::test]
    async fn who_comes_back_before_the_first_beat_of_a_clock_that_was_set_back_is_shown_it() {
        let world = World::new().await;
        let future = world.clock.now().timestamp_millis() + 2 * 60 * 60 * 1_000;
        let mut back = Felt::after(world.pulse.clone(), future);
        world.beat(3);
        assert_eq!(shown(&mut back).len(), 1);
    }

    #[tokio::test]
    async fn who_comes_back_is_shown_what_it_has_not_seen() {
        let world = World::new().await;
        let mut feed = Felt::after(world.pulse.clone(), 0);
        assert!(shown(&mut feed).is_empty());
        world.beat(3);
        world.beat(0);
        let seen = shown(&mut feed);
        assert_eq!((seen.len(), &seen[0].1["publishedPerSecond"]), (2, &3.0.into()));
        world.beat(7);
        let mut back = Felt::after(world.pulse.clone(), seen[1].0);
        assert_eq!(shown(&mut back), shown(&mut feed));
        // A step that was not written is given again.
        world.beat(8);
        assert!(back.poll_next(&mut nobody(), ROOM).is_ready());
        assert_eq!(shown(&mut back).len(), 1);
    }

    #[tokio::test]
    async fn ids_grow_though_the_clock_stands_still_and_only_so_many_are_kept() {
        let world = World::new().await;
        let none = Totals::default();
        for _ in 0..BEATS_MAX + 5 {
            world.pulse.keep(&none, &none, BEAT_EVERY);
        }
        let kept = world.pulse.beats().len();
        let newest = world.pulse.newest();
        assert_eq!((kept, newest), (BEATS_MAX, world.clock.now().timestamp_millis() + BEATS_MAX as i64 + 4));
        let future = Felt::after(world.pulse.clone(), newest + 1_000_000);
        assert_eq!(future.at, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn every_second_the_appends_of_that_second_are_counted() {
        let world = World::new().await;
        let pulse = world.pulse.clone();
        let beating = tokio::spawn(async move { pulse.beat().await });
        let mut feed = Felt::after(world.pulse.clone(), 0);
        tokio::time::sleep(BEAT_EVERY / 2).await;
        let entry = Entry { seq: Seq(1), at: world.clock.now(), key: None, ends_key: false, body: bytes::Bytes::new() };
        let cursor = Cursor { epoch: Epoch(1), seq: Seq(1) };
        world.tails.appended(GatewayId(Uuid::nil()), cursor.epoch, &[Appended { entry, since: Instant::now() }]);
        world.clock.advance(BEAT_EVERY);
        tokio::time::sleep(BEAT_EVERY).await;
        let seen = shown(&mut feed);
        beating.abort();
        assert_eq!((&seen[0].1["published"], &seen[0].1["publishedPerSecond"]), (&1.into(), &1.0.into()));
    }
}
