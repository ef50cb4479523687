//! A session of an operator who watches: nothing that it does is seen by gateways or counted as one of them.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use gatecast_transports::{CloseReason, Frame, Heard, Liveness, Room, Session, Step};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::auth::Standing;
use crate::heartbeat::{Beat, Timing, beat};

/// How long an operator's browser waits after a drain, at least.
const COME_BACK_AFTER_MS: u64 = 500;

/// What is shown.
#[async_trait]
pub(super) trait Feed: Send {
    /// What follows. Cancel safe: nothing moves until [`Feed::written`].
    async fn next(&mut self, room: Room) -> Shown;

    /// What was given last is out.
    fn written(&mut self);

    /// The cursor to come back with.
    fn position(&self) -> String;
}

/// The next thing to show.
pub(super) enum Shown {
    Frames(Vec<Arc<Frame>>),
    /// There will be no more.
    End(CloseReason),
}

/// The session.
pub(super) struct Viewing<F> {
    feed: F,
    standing: Standing,
    draining: CancellationToken,
    timing: Timing,
    spoke: Instant,
    id: String,
    _place: OwnedSemaphorePermit,
}

impl<F: Feed> Viewing<F> {
    pub(super) fn new(
        feed: F,
        standing: Standing,
        draining: CancellationToken,
        timing: Timing,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let id = uuid::Uuid::new_v4().to_string();
        Self { feed, standing, draining, timing, spoke: Instant::now(), id, _place: place }
    }

    /// Why it shall end, if it shall.
    fn closing(&self, now: Instant) -> Option<CloseReason> {
        match &self.standing {
            Standing::Browser(browser) if browser.ended.is_cancelled() => return Some(CloseReason::TokenRevoked),
            Standing::Browser(browser) if now >= browser.until => return Some(CloseReason::TokenExpired),
            _ => {}
        }
        let shutdown = CloseReason::Shutdown { reconnect_after_ms: COME_BACK_AFTER_MS };
        self.draining.is_cancelled().then_some(shutdown)
    }
}

/// Resolves when the operator may no longer watch.
async fn ended(standing: &Standing) {
    match standing {
        Standing::Token => std::future::pending().await,
        Standing::Browser(browser) => {
            tokio::select! { () = browser.ended.cancelled() => {}, () = sleep_until(browser.until) => {} }
        }
    }
}

#[async_trait]
impl<F: Feed> Session for Viewing<F> {
    fn connection_id(&self) -> &str {
        &self.id
    }

    fn position(&self) -> String {
        self.feed.position()
    }

    async fn next(&mut self, room: Room) -> Step {
        loop {
            let now = Instant::now();
            if let Some(reason) = self.closing(now) {
                return Step::Close(reason);
            }
            let Beat::Wait(comment) = beat(&self.timing, Liveness::WriteOnly, now, now, self.spoke) else {
                return Step::Ping(Bytes::new());
            };
            let Self { feed, standing, draining, .. } = self;
            tokio::select! {
                biased;
                () = draining.cancelled() => {}
                () = ended(standing) => {}
                shown = feed.next(room) => match shown {
                    Shown::Frames(frames) => return Step::Deliver(frames),
                    Shown::End(reason) => return Step::Close(reason),
                },
                () = sleep_until(comment) => {}
            }
        }
    }

    fn ready(&self) -> bool {
        false
    }

    fn written(&mut self) {
        self.spoke = Instant::now();
        self.feed.written();
    }

    fn heard(&mut self, _heard: Heard<'_>) {}

    async fn cut(&mut self) -> CloseReason {
        ended(&self.standing).await;
        self.closing(Instant::now()).unwrap_or(CloseReason::TokenExpired)
    }

    fn ended(&mut self, _reason: CloseReason) {}
}
