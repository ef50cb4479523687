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
const WINDOW_EVENTS_START: u64 = 32;
/// The widest window, in events.
const WINDOW_EVENTS_MAX: u64 = 16_384;
/// Bytes of a window for each of its events: 256 events go with 1 MiB.
const WINDOW_BYTES_PER_EVENT: u64 = 4 * 1024;
/// The widest window, in bytes.
const WINDOW_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// A pong that returns within this shows a quick peer.
const QUICK: Duration = Duration::from_secs(1);

/// Events and bytes, counted since the connection began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    events: u64,
    bytes: u64,
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
    window_events: u64,
    sent: Count,
    confirmed: Count,
    pinged: Count,
    marks: VecDeque<Mark>,
}

impl Pacing {
    pub(crate) fn new() -> Self {
        let none = Count::default();
        Self { window_events: WINDOW_EVENTS_START, sent: none, confirmed: none, pinged: none, marks: VecDeque::new() }
    }

    /// How many events and bytes may be sent now; `None` until a pong returns. One event may always be in flight.
    pub(crate) fn room(&self) -> Option<(u64, u64)> {
        let events = self.window_events.saturating_sub(self.sent.events - self.confirmed.events);
        let bytes = self.window_bytes().saturating_sub(self.sent.bytes - self.confirmed.bytes);
        // Up to the next ping and no further: its place is in the middle of the window.
        let to_ping = self.half_window().saturating_sub(self.sent.events - self.pinged.events).max(1);
        (self.sent == self.confirmed || (events > 0 && bytes > 0)).then_some((events.min(to_ping).max(1), bytes))
    }

    /// Whether a ping shall follow what was sent, so that its pong opens the window.
    pub(crate) fn ping_due(&self) -> bool {
        self.sent.events - self.pinged.events >= self.half_window()
            || self.sent.bytes - self.pinged.bytes >= self.window_bytes() / 2
    }

    /// Events were written.
    pub(crate) fn delivered(&mut self, events: usize, bytes: usize) {
        self.sent.events += events as u64;
        self.sent.bytes += bytes as u64;
    }

    /// A ping was written.
    pub(crate) fn pinged(&mut self, payload: Bytes, at: Instant) {
        self.pinged = self.sent;
        self.marks.push_back(Mark { payload, sent: self.sent, at });
    }

    /// A pong came: everything up to its ping was received. A payload that was not sent confirms nothing.
    pub(crate) fn pong(&mut self, payload: &[u8], now: Instant) {
        let Some(index) = self.marks.iter().rposition(|mark| mark.payload == payload) else { return };
        self.marks.drain(..index);
        let Some(mark) = self.marks.pop_front() else { return };
        if self.marks.is_empty() {
            // Room for four is 256 bytes, which an idle connection would hold from its first ping on.
            self.marks = VecDeque::new();
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

    fn half_window(&self) -> u64 {
        (self.window_events / 2).max(1)
    }

    fn window_bytes(&self) -> u64 {
        (self.window_events * WINDOW_BYTES_PER_EVENT).min(WINDOW_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Plays a peer that takes `per_event` an event, in its read loop, and returns the longest silence it and the
    /// server saw, and how long the backlog took. Time is arithmetic here.
    fn play(backlog: u64, per_event: Duration, start: Instant) -> (Duration, Duration) {
        let mut pacing = Pacing::new();
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
                pacing.delivered(usize::try_from(events).unwrap(), 300 * usize::try_from(events).unwrap());
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
            pacing.delivered(usize::try_from(events).unwrap(), usize::try_from(bytes.min(events * 300)).unwrap());
            pacing.pinged(Bytes::copy_from_slice(&[n]), now);
            pacing.pong(&[n], now);
        }
        assert_eq!(pacing.window_events, WINDOW_EVENTS_MAX);
    }

    proptest! {
        #[test]
        fn no_backlog_gets_stuck_and_no_peer_is_silent_too_long(backlog in 1_u64..3_000, ms in 0_u64..1_800) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let start = runtime.block_on(async { Instant::now() });
            let (silence, _) = play(backlog, Duration::from_millis(ms), start);
            prop_assert!(silence < Duration::from_secs(30), "{:?}", silence);
        }

        #[test]
        fn the_window_bounds_what_is_unconfirmed(steps in proptest::collection::vec((any::<bool>(), 0_usize..8_000), 1..200)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let now = runtime.block_on(async { Instant::now() });
            let mut pacing = Pacing::new();
            for (index, (pong, bytes)) in steps.into_iter().enumerate() {
                if pacing.room().is_some() {
                    pacing.delivered(1, bytes);
                }
                let payload = Bytes::copy_from_slice(&index.to_be_bytes());
                if pacing.ping_due() || pong {
                    pacing.pinged(payload.clone(), now);
                }
                let unconfirmed = pacing.sent.events - pacing.confirmed.events;
                prop_assert!(unconfirmed <= pacing.window_events.max(1));
                if pong {
                    pacing.pong(&payload, now);
                }
            }
        }
    }
}
