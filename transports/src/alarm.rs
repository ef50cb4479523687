//! One timer for a connection's deadlines.
//!
//! A connection waits anew after each delivery, mostly for the same deadline. A timer of its own for each wait would be
//! put into the timer wheel and taken out again each time; this one is moved only when its deadline is not early enough.
//! Where it is too early it wakes its task once in vain, and is moved then.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that is kept between waits.
#[derive(Default)]
pub struct Alarm {
    set: Option<Set>,
}

/// What it is set for.
struct Set {
    sleep: Pin<Box<Sleep>>,
    /// When it rings. The timer knows as well, but to ask it is a look at memory that nothing else of a delivery needs.
    at: Instant,
    /// Whom it wakes.
    wakes: Waker,
}

impl Alarm {
    /// Ready from `deadline` on; never without one. To be polled after a look at what is due, which was at `now`.
    pub fn poll_at(&mut self, cx: &mut Context<'_>, now: Instant, deadline: Option<Instant>) -> Poll<()> {
        let Some(deadline) = deadline else { return Poll::Pending };
        let set = self.set.get_or_insert_with(|| Set {
            sleep: Box::pin(sleep_until(deadline)),
            at: deadline,
            wakes: Waker::noop().clone(),
        });
        if set.at <= now || set.at > deadline {
            set.sleep.as_mut().reset(deadline);
            set.at = deadline;
        } else if set.wakes.will_wake(cx.waker()) {
            // It is set for this task, which need not be told to it again.
            return Poll::Pending;
        }
        set.wakes.clone_from(cx.waker());
        set.sleep.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn it_rings_at_the_deadline_whatever_it_was_set_for_before() {
        let (mut alarm, start) = (Alarm::default(), Instant::now());
        let mut at = async |deadline: Instant| poll_fn(|cx| alarm.poll_at(cx, Instant::now(), Some(deadline))).await;
        at(start + SECOND).await;
        assert_eq!(start.elapsed(), SECOND);
        tokio::select! { () = at(start + 9 * SECOND) => panic!("early"), () = tokio::task::yield_now() => {} }
        at(start + 5 * SECOND).await;
        assert_eq!(start.elapsed(), 5 * SECOND, "an earlier deadline moves it");
        tokio::select! { () = at(start + 7 * SECOND) => panic!("early"), () = tokio::task::yield_now() => {} }
        at(start + 9 * SECOND).await;
        assert_eq!(start.elapsed(), 9 * SECOND, "a later one moves it when it rings");
        at(start).await;
        assert_eq!(start.elapsed(), 9 * SECOND, "one that has passed rings at once");
    }
}
