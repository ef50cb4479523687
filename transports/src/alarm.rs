//! One timer for a connection's deadlines.
//!
//! A connection waits anew after each delivery, mostly for the same deadline. A timer of its own for each wait would be
//! put into the timer wheel and taken out again each time; this one is moved only when its deadline is not early enough.

use std::pin::Pin;

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that is kept between waits.
#[derive(Default)]
pub struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Resolves at `deadline` or earlier, so whoever waits looks again; never without a deadline. Cancel safe.
    pub async fn at(&mut self, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return std::future::pending().await };
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.is_elapsed() || sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn it_rings_at_the_deadline_or_at_an_earlier_one_it_was_set_for_and_never_later() {
        let (mut alarm, start) = (Alarm::default(), Instant::now());
        alarm.at(Some(start + SECOND)).await;
        assert_eq!(start.elapsed(), SECOND);
        tokio::select! { () = alarm.at(Some(start + 9 * SECOND)) => panic!("early"), () = tokio::task::yield_now() => {} }
        alarm.at(Some(start + 5 * SECOND)).await;
        assert_eq!(start.elapsed(), 5 * SECOND, "an earlier deadline moves it");
        tokio::select! { () = alarm.at(Some(start + 7 * SECOND)) => panic!("early"), () = tokio::task::yield_now() => {} }
        alarm.at(Some(start + 9 * SECOND)).await;
        assert_eq!(start.elapsed(), 7 * SECOND, "a later one does not");
        alarm.at(Some(start + 9 * SECOND)).await;
        assert_eq!(start.elapsed(), 9 * SECOND);
        alarm.at(Some(start)).await;
        assert_eq!(start.elapsed(), 9 * SECOND, "one that has passed rings at once");
    }
}
