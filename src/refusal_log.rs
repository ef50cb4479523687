//! Which refusals get a line in the log: one for each address, reason and minute, as anybody can be refused without end,
//! and the log may lie on the store's disk.
//!
//! A line says how many alike were left out before it; `/metrics` counts all of gateways and of calls. At most [`KEPT_MAX`] addresses with
//! their reasons are known at once, some 60 bytes each, for two minutes; when there are more, new ones share a line for
//! each reason. IPv6 peers count by /64, as in [limits](crate::limits).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::auth::AuthError;
use crate::limits::block;
use crate::registry::Full;

/// How long a line speaks for what is like it.
const LINE_EVERY: Duration = Duration::from_secs(60);
/// How long it is known how many were left out.
const KEPT_FOR: Duration = Duration::from_secs(2 * 60);
const KEPT_MAX: usize = 10_000;
/// Where addresses count when there are too many.
const OVERFLOW: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// What was refused, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Refused {
    /// An attempt to connect, of too many.
    Rate,
    /// An attempt to connect, for its key.
    Connection(AuthError),
    /// An attempt to connect, for want of room.
    Full(Full),
    /// A call.
    Call(AuthError),
    /// An operator who would watch.
    Watch(AuthError),
}

/// A line that is to be written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// How many alike were left out since the line before, if any.
    pub(crate) unlogged: Option<u64>,
}

/// What was logged of late.
pub(crate) struct RefusalLog {
    kept_max: usize,
    lines: Mutex<Lines>,
}

struct Lines {
    last: HashMap<(IpAddr, Refused), Last>,
    tidied: Instant,
}

/// The last line of an address and reason.
struct Last {
    at: Instant,
    unlogged: u64,
}

impl Default for RefusalLog {
    fn default() -> Self {
        Self::with_size(KEPT_MAX)
    }
}

impl RefusalLog {
    fn with_size(kept_max: usize) -> Self {
        Self { kept_max, lines: Mutex::new(Lines { last: HashMap::new(), tidied: Instant::now() }) }
    }

    /// The line for this refusal; `None` if an earlier one speaks for it.
    pub(crate) fn line(&self, from: IpAddr, refused: Refused) -> Option<Line> {
        let now = Instant::now();
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        // Not oftener, as it looks at all of them.
        if now - lines.tidied >= LINE_EVERY {
            lines.tidied = now;
            lines.last.retain(|_, last| now - last.at < KEPT_FOR);
        }
        let mut key = (block(from), refused);
        if lines.last.len() >= self.kept_max && !lines.last.contains_key(&key) {
            key.0 = OVERFLOW;
        }
        let Some(last) = lines.last.get_mut(&key) else {
            lines.last.insert(key, Last { at: now, unlogged: 0 });
            return Some(Line { unlogged: None });
        };
        if now - last.at < LINE_EVERY {
            last.unlogged += 1;
            return None;
        }
        let unlogged = std::mem::replace(last, Last { at: now, unlogged: 0 }).unlogged;
        Some(Line { unlogged: (unlogged > 0).then_some(unlogged) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn first() -> Option<Line> {
        Some(Line { unlogged: None })
    }

    #[tokio::test(start_paused = true)]
    async fn one_line_a_minute_says_how_many_were_left_out() {
        let log = RefusalLog::default();
        assert_eq!(log.line(HOST, Refused::Rate), first());
        assert!((0..499).all(|_| log.line(HOST, Refused::Rate).is_none()));
        assert_eq!(log.line(HOST, Refused::Call(AuthError::Missing)), first(), "another reason");
        assert_eq!(log.line(HOST, Refused::Call(AuthError::Unknown)), first(), "yet another");
        assert_eq!(log.line(IpAddr::from([192, 0, 2, 2]), Refused::Rate), first(), "another address");
        tokio::time::advance(LINE_EVERY).await;
        assert_eq!(log.line(HOST, Refused::Rate), Some(Line { unlogged: Some(499) }));
        tokio::time::advance(LINE_EVERY).await;
        assert_eq!(log.line(HOST, Refused::Rate), first(), "none was left out");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_bounded_and_forgets_and_many_addresses_share_a_line() {
        let log = RefusalLog::with_size(100);
        let lines = (0..=255_u8).filter(|n| log.line(IpAddr::from([198, 51, 100, *n]), Refused::Rate).is_some());
        assert_eq!(lines.count(), 101);
        assert_eq!(log.lines.lock().unwrap().last.len(), 101);
        tokio::time::advance(KEPT_FOR).await;
        assert_eq!(log.line(HOST, Refused::Rate), first());
        assert_eq!(log.lines.lock().unwrap().last.len(), 1);
    }
}
