//! Tells all who wait for one thing: the connections of a gateway, the operators who watch the pulse.
//!
//! A [`Listener`] leaves its task's waker here once, not for each wait as with Tokio's `Notify`, which enters and takes
//! out a waiter for every delivery (some 500 instructions of 6,650). It listens before it looks, so that what happens
//! after the look wakes it and what happened before is seen; a ring that nobody waits for costs an empty poll.
//!
//! [`Bell::ring`] wakes the tasks, under the lock, which only who comes or goes waits for: a thousand take some 50 µs where
//! the tasks run. From a thread that is not the runtime's they take 340, each with a lock of the runtime's. For news
//! connections that are [lent](Listener::lend) need not be woken: [`rounds`](crate::rounds) serve them part by part.

use std::mem::replace;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Waker};

use gatecast_transports::Served;
use smallvec::SmallVec;

/// Places of one part: connections that are served in a row, before other tasks have their turn. That takes some 100 µs,
/// unless events are large.
pub(crate) const PART: usize = 16;

/// What is rung when there is something to look at.
#[derive(Default)]
pub(crate) struct Bell {
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    all: Vec<Place>,
    free: Vec<usize>,
    /// Whether each part is about to be served: what happens until then needs no other round.
    due: Vec<bool>,
}

/// Where somebody listens or did.
struct Place {
    waker: Waker,
    lent: Option<Weak<dyn Served>>,
}

/// A connection that is served in its turn, and its place.
pub(crate) struct Turn {
    at: usize,
    lent: Weak<dyn Served>,
}

/// One who is told by a [`Bell`] until this is dropped.
pub(crate) struct Listener {
    bell: Arc<Bell>,
    /// Its place, and what lies there.
    at: Option<(usize, Waker)>,
}

impl Bell {
    /// Wakes all who listen.
    pub(crate) fn ring(&self) {
        self.places().all.iter().for_each(|place| place.waker.wake_by_ref());
    }

    /// The parts that are to be served now and were not to be before, each with its number of places. Whoever asks gives
    /// everybody in them [a turn](Self::turns).
    pub(crate) fn parts(&self) -> SmallVec<[(usize, usize); 1]> {
        let Places { all, due, .. } = &mut *self.places();
        let parts = all.chunks(PART).map(<[_]>::len).enumerate();
        due.resize(all.len().div_ceil(PART), false);
        parts.zip(due).filter_map(|(part, due)| (!replace(due, true)).then_some(part)).collect()
    }

    /// The connections of a part that are lent, which are to be [served](Self::serve) now; whoever else listens there is
    /// woken. The lock is not held while they are served, as they may go then.
    pub(crate) fn turns(&self, part: usize) -> Vec<Turn> {
        let Places { all, due, .. } = &mut *self.places();
        if let Some(due) = due.get_mut(part) {
            *due = false;
        }
        let places = all.iter().enumerate().skip(part * PART).take(PART);
        // Looked at before they are cloned: with thousands of connections none of them is in the core's cache, and looks
        // wait for memory together where each clone waits alone.
        let here = places.clone().filter(|(_, place)| place.lent.as_ref().is_some_and(|lent| lent.strong_count() > 0));
        let mut turns = Vec::with_capacity(here.count());
        for (at, place) in places {
            match &place.lent {
                Some(lent) => turns.push(Turn { at, lent: lent.clone() }),
                None => place.waker.wake_by_ref(),
            }
        }
        turns
    }

    /// Serves a connection on the spot if it is at rest; if it is not, its task is woken. So it is where that panics, which
    /// is nobody else's concern.
    pub(crate) fn serve(&self, Turn { at, lent }: &Turn) {
        let serve = || lent.upgrade().is_some_and(|lent| lent.serve());
        if !catch_unwind(AssertUnwindSafe(serve)).unwrap_or(false) {
            self.places().all.get(*at).inspect(|place| place.waker.wake_by_ref());
        }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        // Nothing that runs under the lock panics half way.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn free() -> Self {
        Self { waker: Waker::noop().clone(), lent: None }
    }
}

impl Listener {
    /// One who does not listen yet.
    pub(crate) fn new(bell: Arc<Bell>) -> Self {
        Self { bell, at: None }
    }

    /// From now on every ring wakes the task of `cx`, and no other.
    pub(crate) fn listen(&mut self, cx: &Context<'_>) {
        if self.at.as_ref().is_some_and(|(_, waker)| waker.will_wake(cx.waker())) {
            return;
        }
        let waker = cx.waker().clone();
        // What lay there is dropped after the lock: with it its task may go, and with that a listener.
        drop(self.change(|place| replace(&mut place.waker, waker)));
        self.at = self.at.take().map(|(at, _)| (at, cx.waker().clone()));
    }

    /// From now on the connection may be served on the spot where there is news.
    pub(crate) fn lend(&mut self, connection: Weak<dyn Served>) {
        drop(self.change(|place| place.lent.replace(connection)));
    }

    /// Changes what lies at its place, which it takes if it has none.
    fn change<T>(&mut self, change: impl FnOnce(&mut Place) -> T) -> T {
        let places = &mut *self.bell.places();
        let (at, _) = *self.at.get_or_insert_with(|| (places.take(), Waker::noop().clone()));
        // Its own from when it was taken to when it is given up.
        change(&mut places.all[at])
    }
}

impl Places {
    fn take(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            if self.all.is_empty() {
                // Most gateways have one replica, which a vector's first room for four would take 96 bytes more of.
                self.all.reserve_exact(1);
            }
            self.all.push(Place::free());
            self.all.len() - 1
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let Some((at, _)) = self.at else { return };
        let mut places = self.bell.places();
        let before = places.all.get_mut(at).map(|place| replace(place, Place::free()));
        places.free.push(at);
        drop(places);
        drop(before);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn listen(listener: &mut Listener, count: &Arc<Count>) {
        listener.listen(&Context::from_waker(&Waker::from(count.clone())));
    }

    #[test]
    fn each_ring_wakes_whoever_listens_though_it_has_not_listened_again() {
        let (bell, [one, two]) = (Arc::new(Bell::default()), [(); 2].map(|()| Arc::new(Count::default())));
        let [mut first, mut second] = [(); 2].map(|()| Listener::new(bell.clone()));
        listen(&mut first, &one);
        listen(&mut second, &two);
        bell.ring();
        bell.ring();
        // It has moved to another task.
        listen(&mut first, &two);
        bell.ring();
        drop(second);
        bell.ring();
        assert_eq!([&one, &two].map(|count| count.0.load(Ordering::Relaxed)), [2, 5]);
    }

    #[test]
    fn places_are_used_again_and_nothing_is_kept_of_who_left() {
        let (bell, count) = (Arc::new(Bell::default()), Arc::new(Count::default()));
        for _ in 0..100 {
            let [mut first, mut second] = [(); 2].map(|()| Listener::new(bell.clone()));
            listen(&mut first, &count);
            listen(&mut second, &count);
        }
        assert_eq!((bell.places().all.len(), Arc::strong_count(&count)), (2, 1));
    }

    fn serve(bell: &Bell, part: usize) {
        bell.turns(part).iter().for_each(|turn| bell.serve(turn));
    }

    /// A connection that is served so often, and says so.
    struct Lent {
        served: AtomicUsize,
        is_at_rest: bool,
    }

    impl Served for Lent {
        fn serve(&self) -> bool {
            self.served.fetch_add(1, Ordering::Relaxed);
            self.is_at_rest
        }
    }

    #[test]
    fn a_part_is_due_once_until_it_is_served() {
        let (bell, woken) = (Arc::new(Bell::default()), Arc::new(Count::default()));
        let lent = Arc::new(Lent { served: AtomicUsize::new(0), is_at_rest: true });
        let mut listeners: Vec<_> = (0..PART + 6).map(|_| Listener::new(bell.clone())).collect();
        for listener in &mut listeners {
            listen(listener, &woken);
            listener.lend(Arc::<Lent>::downgrade(&lent));
        }
        assert_eq!(bell.parts().as_slice(), [(0, PART), (1, 6)]);
        assert!(bell.parts().is_empty(), "a round is on its way to them");
        serve(&bell, 0);
        assert_eq!(bell.parts().as_slice(), [(0, PART)]);
        serve(&bell, 1);
        serve(&bell, 0);
        let counts = (lent.served.load(Ordering::Relaxed), woken.0.load(Ordering::Relaxed));
        assert_eq!(counts, (2 * PART + 6, 0));
    }

    #[test]
    #[expect(clippy::panic, reason = "it is what is tested")]
    fn who_cannot_be_served_is_woken() {
        struct Panics;
        impl Served for Panics {
            fn serve(&self) -> bool {
                panic!("a test's");
            }
        }
        let (bell, woken) = (Arc::new(Bell::default()), Arc::new(Count::default()));
        let busy = Arc::new(Lent { served: AtomicUsize::new(0), is_at_rest: false });
        let gone = Arc::<Lent>::downgrade(&Arc::new(Lent { served: AtomicUsize::new(0), is_at_rest: true }));
        let panics = Arc::new(Panics);
        let mut listeners = [(); 4].map(|()| Listener::new(bell.clone()));
        listeners.iter_mut().for_each(|listener| listen(listener, &woken));
        listeners[3].lend(Arc::<Panics>::downgrade(&panics));
        listeners[0].lend(Arc::<Lent>::downgrade(&busy));
        listeners[1].lend(gone);
        bell.parts();
        serve(&bell, 0);
        assert_eq!((busy.served.load(Ordering::Relaxed), woken.0.load(Ordering::Relaxed)), (1, 4));
    }
}
