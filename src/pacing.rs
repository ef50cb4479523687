//! How much may be in flight to a peer that confirms: a window over unconfirmed events, opened by pongs.
//!
//! The real gateway client handles an event, with a slow HTTP fetch, before it reads on. Whatever lies in its socket
//! when it is busy is time during which it neither answers a ping nor sees one, and either side gives up on silence.
//! So a ping follows every half window, at most a window is unconfirmed, and the window is small until the peer has
//! shown that it is quick: it doubles when a pong returns within a second and halves when it doesn't. A peer that
//! takes 1.8 s an event is never silent for 30 s (16 events between the first pings); a quick one is at full width
//! after ten pongs and never waits for one, as they return while the second half of the window is on its way.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

/// Unconfirmed events before a peer has shown its speed. CONTRACT.md § 4 allows 256; 16 between pings is what a peer
/// that takes 1.8 s an event survives.
const WINDOW_EVENTS_START: u32 = 32;
/// The widest window, in events.
const WINDOW_EVENTS_MAX: u32 = 16_384;
/// Bytes of a window for each of its events: 256 events go with 1 MiB.
const WINDOW_BYTES_PER_EVENT: u32 = 4 * 1024;
/// The widest window, in bytes.
const WINDOW_BYTES_MAX: u32 = 16 * 1024 * 1024;
/// A pong that returns within this shows a quick peer.
const QUICK: Duration = Duration::from_secs(1);

/// Events and bytes, counted since the connection began, modulo 2^32: what is in flight is far less, and every delivery
/// looks at all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    events: u32,
    bytes: u32,
}

/// A ping on its way.
#[derive(Debug)]
struct Mark {
    payload: Bytes,
    sent: Count,
    at: Instant,
}

/// The window of one connection.
#[derive(Debug)]
pub(crate) struct Pacing {
    window_events: u32,
    sent: Count,
    confirmed: Count,
    pinged: Count,
    /// None while no ping is on its way.
    #[expect(clippy::box_collection, reason = "a session's memory counts, and how much of it a delivery looks at")]
    marks: Option<Box<VecDeque<Mark>>>,
}

impl Pacing {
    pub(crate) fn new() -> Self {
        let none = Count::default();
        Self { window_events: WINDOW_EVENTS_START, sent: none, confirmed: none, pinged: none, marks: None }
    }

    /// How many events and bytes may be sent now; `None` until a pong returns. One event may always be in flight.
    pub(crate) fn room(&self) -> Option<(u32, u32)> {
        let (unconfirmed, since_ping) = (self.sent.since(self.confirmed), self.sent.since(self.pinged));
        let events = self.window_events.saturating_sub(unconfirmed.events);
        let bytes = self.window_bytes().saturating_sub(unconfirmed.bytes);
        // Up to the next ping and no further: its place is in the middle of the window.
        let to_ping = self.half_window().saturating_sub(since_ping.events).max(1);
        (self.sent == self.confirmed || (events > 0 && bytes > 0)).then_some((events.min(to_ping).max(1), bytes))
    }

    /// Whether a ping shall follow what was sent, so that its pong opens the window.
    pub(crate) fn ping_due(&self) -> bool {
        let since_ping = self.sent.since(self.pinged);
        since_ping.events >= self.half_window() || since_ping.bytes >= self.window_bytes() / 2
    }

    /// Events were written.
    pub(crate) fn delivered(&mut self, events: u32, bytes: u32) {
        self.sent.events = self.sent.events.wrapping_add(events);
        self.sent.bytes = self.sent.bytes.wrapping_add(bytes);
    }

    /// A ping was written.
    pub(crate) fn pinged(&mut self, payload: Bytes, at: Instant) {
        self.pinged = self.sent;
        let marks = self.marks.get_or_insert_default();
        // A peer that answers no ping is sent no more than a window, and then the same ping for as long as it lives.
        match marks.back_mut().filter(|last| last.sent == self.sent && last.payload == payload) {
            Some(last) => last.at = at,
            None => marks.push_back(Mark { payload, sent: self.sent, at }),
        }
    }

    /// A pong came: everything up to its ping was received. A payload that was not sent confirms nothing.
    pub(crate) fn pong(&mut self, payload: &[u8], now: Instant) {
        let Some(marks) = &mut self.marks else { return };
        let Some(index) = marks.iter().rposition(|mark| mark.payload == payload) else { return };
        marks.drain(..index);
        let Some(mark) = marks.pop_front() else { return };
        if marks.is_empty() {
            self.marks = None;
        }
        let quick = now.duration_since(mark.at) <= QUICK;
        let carried = mark.sent != self.confirmed;
        self.confirmed = mark.sent;
        if !quick {
            self.window_events = (self.window_events / 2).max(1);
        } else if carried {
            self.window_events = (self.window_events * 2).min(WINDOW_EVENTS_MAX);
        }
    }

    fn half_window(&self) -> u32 {
        (self.window_events / 2).max(1)
    }

    fn window_bytes(&self) -> u32 {
        (self.window_events * WINDOW_BYTES_PER_EVENT).min(WINDOW_BYTES_MAX)
    }
}

impl Count {
    /// What was counted since it was at `earlier`.
    fn since(self, earlier: Self) -> Self {
        Self { events: self.events.wrapping_sub(earlier.events), bytes: self.bytes.wrapping_sub(earlier.bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A connection that has sent so much.
    fn counting_from(sent: Count) -> Pacing {
        Pacing { sent, confirmed: sent, pinged: sent, ..Pacing::new() }
    }

    /// Plays a peer that takes `per_event` an event, in its read loop, and returns the longest silence it and the
    /// server saw, and how long the backlog took. Time is arithmetic here.
    fn play(backlog: u32, per_event: Duration, start: Instant) -> (Duration, Duration) {
        let mut pacing = counting_from(Count { events: u32::MAX - 500, bytes: u32::MAX - 5_000 });
        let mut socket = VecDeque::new();
        let (mut now, mut life, mut silence) = (start, start, Duration::ZERO);
        let (mut left, mut number) = (backlog, 0_u32);
        while left > 0 || !socket.is_empty() {
            // As a session does: a due ping goes before more events.
            loop {
                if pacing.ping_due() {
                    number += 1;
                    let payload = Bytes::copy_from_slice(&number.to_be_bytes());
                    pacing.pinged(payload.clone(), now);
                    socket.push_back(Some(payload));
                }
                let Some((events, _)) = pacing.room().filter(|_| left > 0) else { break };
                let events = events.min(left);
                pacing.delivered(events, 300 * events);
                left -= events;
                socket.extend((0..events).map(|_| None));
            }
            match socket
                .pop_front()
                .expect("a window that is closed has a ping in flight, and else the backlog is done")
            {
                None => now += per_event,
                Some(payload) => {
                    silence = silence.max(now - life);
                    life = now;
                    pacing.pong(&payload, now);
                }
            }
        }
        (silence, now - start)
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_500_ms_an_event_is_never_silent_for_long() {
        let (silence, took) = play(1_000, Duration::from_millis(500), Instant::now());
        assert!(silence <= Duration::from_secs(8), "{silence:?}");
        assert_eq!(took, Duration::from_secs(500));
    }

    #[tokio::test(start_paused = true)]
    async fn a_quick_peer_gets_the_full_width() {
        let mut pacing = Pacing::new();
        let now = Instant::now();
        for n in 0..12_u8 {
            let (events, bytes) = pacing.room().unwrap();
            pacing.delivered(events, bytes.min(events * 300));
            pacing.pinged(Bytes::copy_from_slice(&[n]), now);
            pacing.pong(&[n], now);
        }
        assert_eq!(pacing.window_events, WINDOW_EVENTS_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_answers_no_ping_takes_no_more_memory_the_longer_it_lives() {
        let (mut pacing, now) = (Pacing::new(), Instant::now());
        for n in 0..10_000_u32 {
            let events = pacing.room().map_or(0, |(events, _)| events.min(10));
            pacing.delivered(events, 300 * events);
            // Its payload is how far it was sent.
            pacing
                .pinged(Bytes::copy_from_slice(&pacing.sent.events.to_be_bytes()), now + Duration::from_secs(n.into()));
        }
        assert!(pacing.marks.unwrap().len() <= 26);
    }

    proptest! {
        #[test]
        fn no_backlog_gets_stuck_and_no_peer_is_silent_too_long(backlog in 1_u32..3_000, ms in 0_u64..1_800) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let start = runtime.block_on(async { Instant::now() });
            let (silence, _) = play(backlog, Duration::from_millis(ms), start);
            prop_assert!(silence < Duration::from_secs(30), "{:?}", silence);
        }

        #[test]
        fn the_window_bounds_what_is_unconfirmed(steps in proptest::collection::vec((any::<bool>(), 0_u32..8_000), 1..200)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let now = runtime.block_on(async { Instant::now() });
            let mut pacing = counting_from(Count { events: u32::MAX - 50, bytes: u32::MAX - 50_000 });
            for (index, (pong, bytes)) in steps.into_iter().enumerate() {
                if pacing.room().is_some() {
                    pacing.delivered(1, bytes);
                }
                let payload = Bytes::copy_from_slice(&index.to_be_bytes());
                if pacing.ping_due() || pong {
                    pacing.pinged(payload.clone(), now);
                }
                let unconfirmed = pacing.sent.since(pacing.confirmed).events;
                prop_assert!(unconfirmed <= pacing.window_events.max(1));
                if pong {
                    pacing.pong(&payload, now);
                }
            }
        }
    }
}
