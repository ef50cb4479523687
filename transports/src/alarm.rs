//! One timer for a connection's deadlines.
//!
//! A connection waits anew after each delivery, mostly for the same deadline. A timer of its own for each wait would be
//! put into the timer wheel and taken out again each time; this one is moved only when its deadline is not early enough.
//! Where it is too early it wakes its task once in vain, and is moved then.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that is kept between waits.
#[derive(Default)]
pub struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whom it wakes.
    wakes: Option<Waker>,
}

impl Alarm {
    /// Ready from `deadline` on; never without one. To be polled after a look at what is due.
    pub fn poll_at(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        let Some(deadline) = deadline else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.is_elapsed() || sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        } else if self.wakes.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            // It is set for this task, which need not be told to it again.
            return Poll::Pending;
        }
        self.wakes = Some(cx.waker().clone());
        sleep.as_mut().poll(cx)
    }

    /// Resolves at `deadline`; never without one. Cancel safe.
    pub(crate) async fn at(&mut self, deadline: Option<Instant>) {
        poll_fn(|cx| self.poll_at(cx, deadline)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn it_rings_at_the_deadline_whatever_it_was_set_for_before() {
        let (mut alarm, start) = (Alarm::default(), Instant::now());
        let mut at = async |deadline: Instant| alarm.at(Some(deadline)).await;
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
