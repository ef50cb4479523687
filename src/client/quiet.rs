//! How long a server has been silent, counting only the time spent waiting for it.
//!
//! The time in which the caller handles an event does not count: what arrived meanwhile lies unread in the socket.

use std::time::Duration;

use tokio::time::Instant;

/// Silence against its limit.
#[derive(Debug)]
pub(super) struct Quiet {
    limit: Duration,
    waited: Duration,
    since: Option<Instant>,
}

impl Quiet {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, waited: Duration::ZERO, since: None }
    }

    /// When the silence becomes too long, if the wait starts (or goes on) now.
    pub(super) fn deadline(&mut self) -> Instant {
        let since = *self.since.get_or_insert_with(Instant::now);
        since + self.limit.saturating_sub(self.waited)
    }

    /// The wait ended with something that is no sign of life; the silence so far is kept.
    pub(super) fn pause(&mut self) {
        if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
        }
    }

    /// A sign of life.
    pub(super) fn alive(&mut self) {
        self.since = None;
        self.waited = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn only_waiting_counts() {
        let mut quiet = Quiet::new(SECOND * 35);
        quiet.deadline();
        advance(SECOND * 10).await;
        quiet.pause();
        advance(SECOND * 100).await;
        assert_eq!(quiet.deadline(), Instant::now() + SECOND * 25);
        advance(SECOND * 5).await;
        // A cancelled wait goes on.
        assert_eq!(quiet.deadline(), Instant::now() + SECOND * 20);
        quiet.alive();
        assert_eq!(quiet.deadline(), Instant::now() + SECOND * 35);
    }
}
