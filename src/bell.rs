//! Wakes all who wait for one thing: the connections of a gateway, the operators who watch the pulse.
//!
//! A [`Listener`] leaves its task's waker here once, not for each wait as with Tokio's `Notify`, which enters and takes
//! out a waiter for every delivery (some 500 instructions of 6,650). It listens before it looks, so that what happens
//! after the look wakes it and what happened before is seen; a ring that nobody waits for costs an empty poll.
//!
//! Wakers are called under the lock, which only who comes or goes waits for: a thousand take some 50 µs where the tasks run.
//! From a thread that is not the runtime's they take 340, each with a lock of the runtime's.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

/// What is rung when there is something to look at.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

/// One who is woken by a [`Bell`] until this is dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    bell: Arc<Bell>,
    /// Its place, and what lies there.
    at: Option<(usize, Waker)>,
}

impl Bell {
    /// Wakes all who listen.
    pub(crate) fn ring(&self) {
        self.places().wakers.iter().flatten().for_each(Waker::wake_by_ref);
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        // Nothing that runs under the lock panics half way.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut places = self.bell.places();
        let free = self.at.take().map(|(place, _)| place).or_else(|| places.free.pop());
        let place = free.unwrap_or(places.wakers.len());
        if place == places.wakers.len() {
            if place == 0 {
                // Most gateways have one replica, which a vector's first room for four would take 48 bytes more of.
                places.wakers.reserve_exact(1);
            }
            places.wakers.push(None);
        }
        // What lay there is dropped after the lock: with it its task may go, and with that a listener.
        let before = places.wakers.get_mut(place).and_then(|at| at.replace(waker.clone()));
        drop(places);
        drop(before);
        self.at = Some((place, waker));
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let Some((place, _)) = &self.at else { return };
        let mut places = self.bell.places();
        let waker = places.wakers.get_mut(*place).and_then(Option::take);
        places.free.push(*place);
        drop(places);
        drop(waker);
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
        assert_eq!((bell.places().wakers.len(), Arc::strong_count(&count)), (2, 1));
    }
}
