//! Wakes all who wait for one thing: the connections of a gateway, the operators who watch the pulse.
//!
//! A [`Listener`] leaves its task's waker here once, not for each wait as with Tokio's `Notify`, which enters and takes
//! out a waiter for every delivery (some 500 instructions of 6,650). It listens before it looks, so that what happens
//! after the look wakes it and what happened before is seen; a ring that nobody waits for costs an empty poll.
//!
//! Wakers are called under the lock, which only who comes or goes waits for: a thousand take some 50 µs. From a thread that is
//! not the runtime's they take 340, each with a lock of the runtime's, so a bell that many listen to is rung by a task.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use tokio::runtime::Handle;

/// From so many listeners on a task rings the bell: to wake one more task costs as much as to wake some four directly.
const MANY: usize = 16;

/// What is rung when there is something to look at.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    places: Mutex<Places>,
    /// A task is to ring it, and has not begun: it does for all that happens until then.
    is_to_ring: AtomicBool,
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

    /// Wakes all who listen, from a thread that may be none of this runtime's.
    pub(crate) fn ring_in(self: &Arc<Self>, runtime: Option<&Handle>) {
        match runtime.filter(|_| self.places().wakers.len() >= MANY && Handle::try_current().is_err()) {
            None => self.ring(),
            Some(runtime) => {
                if !self.is_to_ring.swap(true, Ordering::AcqRel) {
                    let bell = self.clone();
                    drop(runtime.spawn(async move {
                        // A swap, so that it sees what happened before each that found it set.
                        bell.is_to_ring.swap(false, Ordering::AcqRel);
                        bell.ring();
                    }));
                }
            }
        }
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
    use std::sync::atomic::AtomicUsize;
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

    #[tokio::test]
    async fn a_thread_of_its_own_wakes_few_at_once_and_many_by_a_task() {
        for (listeners, at_once, in_all) in [(MANY - 1, 2 * (MANY - 1), 2 * (MANY - 1)), (MANY, 0, MANY)] {
            let (bell, count) = (Arc::new(Bell::default()), Arc::new(Count::default()));
            let mut all: Vec<_> = (0..listeners).map(|_| Listener::new(bell.clone())).collect();
            all.iter_mut().for_each(|listener| listen(listener, &count));
            for _ in 0..2 {
                let (rung, runtime) = (bell.clone(), Handle::current());
                std::thread::spawn(move || rung.ring_in(Some(&runtime))).join().unwrap();
            }
            assert_eq!(count.0.load(Ordering::Relaxed), at_once);
            tokio::task::yield_now().await;
            assert_eq!(count.0.load(Ordering::Relaxed), in_all, "one task for what happened before it ran");
            bell.ring_in(Some(&Handle::current()));
            assert_eq!(count.0.load(Ordering::Relaxed), in_all + listeners, "the runtime's own threads need no task");
            let (rung, runtime) = (bell.clone(), Handle::current());
            std::thread::spawn(move || rung.ring_in(Some(&runtime))).join().unwrap();
            tokio::task::yield_now().await;
            assert_eq!(count.0.load(Ordering::Relaxed), in_all + 2 * listeners, "it is rung again");
        }
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
