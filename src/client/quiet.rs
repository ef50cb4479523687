//! How long a server has been silent, counting only the time spent waiting for it.
//!
//! The time in which the caller handles an event does not count: what arrived meanwhile lies unread in the socket.

use std::time::Duration;

use tokio::time::Instant;

/// Silence against its limit.
#[derive(Debug)]
pub(super) struct Quiet {
    limit: Duration,
    since: Option<Instant>,
}

impl Quiet {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, since: None }
    }

    /// When the silence becomes too long, if the wait starts (or goes on) now.
    pub(super) fn deadline(&mut self) -> Instant {
        *self.since.get_or_insert_with(Instant::now) + self.limit
    }

    /// A sign of life, which ends the wait.
    pub(super) fn alive(&mut self) {
        self.since = None;
    }

    /// A sign of life at that time, and the wait goes on.
    pub(super) fn alive_at(&mut self, at: Instant) {
        self.since = self.since.max(Some(at));
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
        // A cancelled wait goes on.
        assert_eq!(quiet.deadline(), Instant::now() + SECOND * 25);
        let came = Instant::now();
        advance(SECOND * 5).await;
        quiet.alive_at(came);
        assert_eq!(quiet.deadline(), Instant::now() + SECOND * 30);
        quiet.alive();
        advance(SECOND * 100).await;
        assert_eq!(quiet.deadline(), Instant::now() + SECOND * 35);
    }
}
