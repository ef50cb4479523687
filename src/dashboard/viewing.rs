//! A session of an operator who watches: nothing that it does is seen by gateways or counted as one of them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use gatecast_transports::{Alarm, CloseReason, Frames, Heard, Liveness, Room, Session, Step};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::auth::Standing;
use crate::heartbeat::{Beat, Timing, beat};

/// How long an operator's browser waits after a drain, at least.
const COME_BACK_AFTER_MS: u64 = 500;

/// What is shown.
pub(super) trait Feed: Send {
    /// What follows. Nothing moves until [`Feed::written`].
    fn poll_next(&mut self, cx: &mut Context<'_>, room: Room) -> Poll<Shown>;

    /// What was given last is out.
    fn written(&mut self);

    /// The cursor to come back with.
    fn position(&self) -> String;
}

/// The next thing to show.
pub(super) enum Shown {
    Frames(Frames),
    /// There will be no more.
    End(CloseReason),
}

/// Waits for a cancellation.
type Cancelled = Pin<Box<WaitForCancellationFutureOwned>>;

/// The session.
pub(super) struct Viewing<F> {
    feed: F,
    standing: Standing,
    draining: CancellationToken,
    drained: Cancelled,
    signed_out: Option<Cancelled>,
    timing: Timing,
    spoke: Instant,
    alarm: Alarm,
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
        let cancelled = |token: &CancellationToken| Box::pin(token.clone().cancelled_owned());
        Self {
            feed,
            drained: cancelled(&draining),
            signed_out: standing.browser().map(|browser| cancelled(&browser.ended)),
            standing,
            draining,
            timing,
            spoke: Instant::now(),
            alarm: Alarm::default(),
            id: uuid::Uuid::new_v4().to_string(),
            _place: place,
        }
    }

    /// Why it shall end, if it shall.
    fn closing(&self, now: Instant) -> Option<CloseReason> {
        match self.standing.browser() {
            Some(browser) if browser.ended.is_cancelled() => return Some(CloseReason::TokenRevoked),
            Some(browser) if now >= browser.until => return Some(CloseReason::TokenExpired),
            _ => {}
        }
        let shutdown = CloseReason::Shutdown { reconnect_after_ms: COME_BACK_AFTER_MS };
        self.draining.is_cancelled().then_some(shutdown)
    }

    /// Ready when [`Self::closing`] may have changed, or at `deadline`.
    fn poll_wait(&mut self, cx: &mut Context<'_>, now: Instant, deadline: Option<Instant>) -> Poll<()> {
        let signed_out = self.signed_out.as_mut().is_some_and(|signed_out| signed_out.as_mut().poll(cx).is_ready());
        if signed_out || self.drained.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let until = self.standing.browser().map(|browser| browser.until);
        self.alarm.poll_at(cx, now, [deadline, until].into_iter().flatten().min())
    }
}

impl<F: Feed> Session for Viewing<F> {
    fn connection_id(&self) -> String {
        self.id.clone()
    }

    fn position(&self) -> String {
        self.feed.position()
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, room: Room) -> Poll<Step> {
        loop {
            let now = Instant::now();
            if let Some(reason) = self.closing(now) {
                return Poll::Ready(Step::Close(reason));
            }
            let Beat::Wait(comment) = beat(&self.timing, Liveness::WriteOnly, now, now, self.spoke) else {
                return Poll::Ready(Step::Ping(Bytes::new()));
            };
            match self.feed.poll_next(cx, room) {
                Poll::Ready(Shown::Frames(frames)) => return Poll::Ready(Step::Deliver(frames)),
                Poll::Ready(Shown::End(reason)) => return Poll::Ready(Step::Close(reason)),
                Poll::Pending => ready!(self.poll_wait(cx, now, Some(comment))),
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

    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        loop {
            let now = Instant::now();
            match self.closing(now) {
                Some(reason) if reason.silences() => return Poll::Ready(reason),
                // A drain lets what is under way come to its end.
                Some(_) => return Poll::Pending,
                None => ready!(self.poll_wait(cx, now, None)),
            }
        }
    }

    fn ended(&mut self, _reason: CloseReason) {}
}
