//! How long a transport waits for its peer. Every await on a peer has one of these deadlines.

use std::time::Duration;

/// Deadlines of a transport. [`Timing::default`] holds the contract's values; tests shorten them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// From the first moment a request could begin to the end of its head, so also how long HTTP/1.1 stays open idle.
    pub head: Duration,
    /// A peer that takes nothing of a waiting write for this time ends its connection (CONTRACT.md § 7), and so does one that
    /// takes less than 64 KiB in it ([`Stall`](crate::Stall)). Not a limit for a whole step: a large event on a slow line
    /// would never arrive, however often it is tried.
    pub write_stall: Duration,
    /// From the `101` to the upgraded socket in our hands.
    pub upgrade: Duration,
    /// For the last words (goodbye, close frame, last event) to be taken by the socket.
    pub last_words: Duration,
    /// From the beginning of the end to the peer's answer to it (over WebSocket a close frame, over SSE its own end), while
    /// whatever it sends is read and thrown away: closing a socket with unread input makes TCP send a reset, which may
    /// overtake the last words (RFC 1122 § 4.2.2.13). Less than the second after which whoever is silenced gets nothing
    /// more (CONTRACT.md § 7).
    pub close_answer: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            head: HEAD,
            write_stall: WRITE_STALL,
            upgrade: UPGRADE,
            last_words: LAST_WORDS,
            close_answer: CLOSE_ANSWER,
        }
    }
}

const HEAD: Duration = Duration::from_secs(30);
const WRITE_STALL: Duration = Duration::from_secs(10);
const UPGRADE: Duration = Duration::from_secs(10);
const LAST_WORDS: Duration = Duration::from_millis(500);
const CLOSE_ANSWER: Duration = Duration::from_millis(800);
