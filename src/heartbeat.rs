//! When to show life and when to stop believing in the peer's: pure functions of time.
//!
//! WebSocket: a ping 20 s after the last ping, whatever else was sent, because the real gateway client counts only
//! pings as life and leaves after 35 s; death 30 s after the peer's last frame. SSE: a comment every 15 s; the peer
//! can't answer, its death is TCP's to find (`TCP_USER_TIMEOUT`) or a stalled write's. Long-poll: nothing between
//! polls; the lease ends 30 s after the last poll did.

use std::time::Duration;

use gatecast_transports::{Liveness, NOTICED_WITHIN};
use tokio::time::Instant;

/// The real gateway client leaves 35 s after the last ping.
const PING_EVERY: Duration = Duration::from_secs(20);
/// Proxies cut idle streams from 30 s on.
const COMMENT_EVERY: Duration = Duration::from_secs(15);

/// Signs of life go out at such steps, with those of other connections: alone each wakes a thread that sleeps, and so does its
/// answer. The heartbeats of 9,000 connections took 1.2 % of a core, and take 0.82 (`scripts/bench crowd`).
const SLOT: Duration = Duration::from_millis(20);

/// The timing of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Silence of a peer after which it is dead.
    pub life_limit: Duration,
    pub(crate) ping_every: Duration,
    pub(crate) comment_every: Duration,
    /// From when on the slots count in which signs of life go out.
    origin: Instant,
}

impl Timing {
    /// The timing for a limit of silence: pings come often enough for two thirds of it.
    #[must_use]
    pub fn new(life_limit: Duration) -> Self {
        let often = life_limit * 2 / 3;
        let (ping_every, comment_every) = (PING_EVERY.min(often), COMMENT_EVERY.min(life_limit / 2));
        Self { life_limit, ping_every, comment_every, origin: Instant::now() }
    }

    /// The slot in which a sign of life goes out that is due then: not before, and with those of others.
    fn slot(&self, due: Instant) -> Instant {
        let early = due.saturating_duration_since(self.origin).as_nanos() % SLOT.as_nanos();
        match u64::try_from(early) {
            Ok(early @ 1..) => due + (SLOT - Duration::from_nanos(early)),
            _ => due,
        }
    }
}

/// What a connection's timing asks for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beat {
    /// The peer is dead.
    Dead,
    /// A ping or comment is due.
    Ping,
    /// Nothing before this.
    Wait(Instant),
    /// Nothing ever.
    Never,
}

/// What is due at `now`, death before life. But nobody is dead who was not asked for a sign of life since its last one.
pub(crate) fn beat(timing: &Timing, liveness: Liveness, now: Instant, life: Instant, pinged: Instant) -> Beat {
    match liveness {
        Liveness::PingPong => {
            let (death, ping) = (life + timing.life_limit, timing.slot(pinged + timing.ping_every));
            if now >= death && pinged > life {
                Beat::Dead
            } else if now >= ping {
                Beat::Ping
            } else {
                Beat::Wait(death.min(ping))
            }
        }
        Liveness::WriteOnly => {
            let comment = timing.slot(pinged + timing.comment_every);
            if now >= comment { Beat::Ping } else { Beat::Wait(comment) }
        }
        Liveness::Lease => Beat::Never,
    }
}

/// From when on the silence of a peer counts that is pinged `now`, and was `before`. The first ping since its last sign of life
/// may have been late (the process was stopped, its machine asleep), and leaves it as long for an answer as one in time.
pub(crate) fn life_at_ping(timing: &Timing, life: Instant, (before, now): (Instant, Instant)) -> Instant {
    // What a timer is late is no reason to believe in a silent peer for longer.
    let is_late = now > timing.slot(before + timing.ping_every) + SLOT;
    let is_first = before <= life;
    now.checked_sub(timing.ping_every).filter(|in_time| is_late && is_first && *in_time > life).unwrap_or(life)
}

/// From when on the silence of a peer counts that is dead `now`, if that [is noticed too late](NOTICED_WITHIN).
pub(crate) fn life_if_late(timing: &Timing, life: Instant, now: Instant) -> Option<Instant> {
    let is_late = now >= life + timing.life_limit + NOTICED_WITHIN;
    now.checked_sub(timing.life_limit.saturating_sub(NOTICED_WITHIN)).filter(|_| is_late)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_silent_websocket_is_pinged_at_20_s_and_dead_at_30_s_exactly() {
        let (timing, start) = (Timing::new(30 * SECOND), Instant::now());
        let at =
            |ms: u64, ping: Instant| beat(&timing, Liveness::PingPong, start + Duration::from_millis(ms), start, ping);
        assert_eq!(at(19_999, start), Beat::Wait(start + 20 * SECOND));
        assert_eq!(at(20_000, start), Beat::Ping);
        let pinged = start + 20 * SECOND;
        assert_eq!(at(20_000, pinged), Beat::Wait(start + 30 * SECOND));
        assert_eq!(at(29_999, pinged), Beat::Wait(start + 30 * SECOND));
        assert_eq!(at(30_000, pinged), Beat::Dead);
    }

    #[tokio::test(start_paused = true)]
    async fn signs_of_life_go_out_together_and_deaths_alone() {
        let (timing, start) = (Timing::new(30 * SECOND), Instant::now());
        let at = |ms: u64| start + Duration::from_millis(ms);
        for pinged in [1, 7, 19, 20] {
            let (pinged, slot) = (at(pinged), at(20_020));
            assert_eq!(beat(&timing, Liveness::PingPong, at(20_019), at(9_999), pinged), Beat::Wait(slot));
            assert_eq!(beat(&timing, Liveness::PingPong, slot, at(9_999), pinged), Beat::Ping);
            // From then on it is in its slot, to the millisecond.
            assert_eq!(beat(&timing, Liveness::PingPong, slot, slot, slot), Beat::Wait(at(40_020)));
            assert_eq!(beat(&timing, Liveness::WriteOnly, pinged, pinged, pinged), Beat::Wait(at(15_020)));
            // Nor is it believed in for longer for that.
            assert_eq!(life_at_ping(&timing, pinged, (pinged, slot + Duration::from_millis(2))), pinged);
        }
        assert_eq!(beat(&timing, Liveness::PingPong, at(20_019), at(7), at(20_018)), Beat::Wait(at(30_007)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_death_that_is_noticed_late_is_one_only_if_nothing_is_heard_then() {
        let (timing, start) = (Timing::new(30 * SECOND), Instant::now());
        let pinged = start + 20 * SECOND;
        assert_eq!(life_if_late(&timing, start, start + 30 * SECOND), None);
        for (back, then) in [(33, Beat::Dead), (100, Beat::Ping)] {
            let back = start + back * SECOND;
            let life = life_if_late(&timing, start, back).unwrap();
            assert_eq!(life_if_late(&timing, life, back + SECOND), None);
            assert_eq!(beat(&timing, Liveness::PingPong, back + SECOND, life, pinged), then, "if nothing is heard");
        }
    }

    /// As after a pause of the whole machine: nobody was asked for a sign of life in time.
    #[tokio::test(start_paused = true)]
    async fn who_was_not_asked_for_life_in_time_is_asked_before_it_is_dead() {
        let (timing, start) = (Timing::new(30 * SECOND), Instant::now());
        let at = |seconds, life: Instant, ping| beat(&timing, Liveness::PingPong, start + seconds * SECOND, life, ping);
        assert_eq!(at(35, start, start), Beat::Ping);
        assert_eq!(at(35, start + SECOND, start), Beat::Ping, "it has answered the last one");
        // Its ping goes out, and it has as long for the answer as with one in time.
        let pinged = start + 35 * SECOND;
        let life = life_at_ping(&timing, start, (start, pinged));
        assert_eq!(at(44, life, pinged), Beat::Wait(start + 45 * SECOND));
        assert_eq!(at(45, life, pinged), Beat::Dead);
        // Not once more with each ping that it leaves without an answer.
        assert_eq!(life_at_ping(&timing, life, (pinged, start + 55 * SECOND)), life);
        assert_eq!(life_at_ping(&timing, start, (start, start + 20 * SECOND)), start, "in time");
    }

    proptest! {
        #[test]
        fn a_wait_is_never_in_the_past_nor_beyond_the_limit(limit in 5_u64..600, life in 0_u64..600_000, ping in 0_u64..600_000, now in 0_u64..700_000) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let start = runtime.block_on(async { Instant::now() });
            let timing = Timing::new(Duration::from_secs(limit));
            let at = |ms| start + Duration::from_millis(ms);
            for liveness in [Liveness::PingPong, Liveness::WriteOnly] {
                if let Beat::Wait(until) = beat(&timing, liveness, at(now), at(life), at(ping)) {
                    prop_assert!(until > at(now));
                    prop_assert!(until <= at(life.max(ping)) + timing.life_limit);
                }
            }
        }
    }
}
