//! Which lines get into the log that a peer could have written without end: one for each key and minute, as the log may lie
//! on the store's disk.
//!
//! A line says how many alike were left out before it. At most [`KEPT_MAX`] keys are known at once, some 60 bytes each,
//! for two minutes; when there are more, new ones share a line.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a line speaks for what is like it.
const LINE_EVERY: Duration = Duration::from_secs(60);
/// How long it is known how many were left out.
const KEPT_FOR: Duration = Duration::from_secs(2 * 60);
const KEPT_MAX: usize = 10_000;

/// A line that is to be written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// How many alike were left out since the line before, if any.
    pub(crate) unlogged: Option<u64>,
}

/// What was logged of late.
pub(crate) struct SparseLog<K> {
    kept_max: usize,
    lines: Mutex<Lines<K>>,
}

struct Lines<K> {
    last: HashMap<K, Last>,
    tidied: Instant,
}

/// The last line of a key.
struct Last {
    at: Instant,
    unlogged: u64,
}

impl<K> Default for SparseLog<K> {
    fn default() -> Self {
        Self::with_size(KEPT_MAX)
    }
}

impl<K> SparseLog<K> {
    fn with_size(kept_max: usize) -> Self {
        Self { kept_max, lines: Mutex::new(Lines { last: HashMap::new(), tidied: Instant::now() }) }
    }
}

impl<K: Eq + Hash> SparseLog<K> {
    /// The line for this key, or for the one that it shares when there are too many; `None` if an earlier one speaks for it.
    pub(crate) fn line(&self, key: K, shared: K) -> Option<Line> {
        let now = Instant::now();
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        // Not oftener, as it looks at all of them.
        if now - lines.tidied >= LINE_EVERY {
            lines.tidied = now;
            lines.last.retain(|_, last| now - last.at < KEPT_FOR);
        }
        let is_known = lines.last.len() < self.kept_max || lines.last.contains_key(&key);
        let key = if is_known { key } else { shared };
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

    fn first() -> Option<Line> {
        Some(Line { unlogged: None })
    }

    #[tokio::test(start_paused = true)]
    async fn one_line_a_minute_says_how_many_were_left_out() {
        let log = SparseLog::default();
        assert_eq!(log.line(1, 0), first());
        assert!((0..499).all(|_| log.line(1, 0).is_none()));
        assert_eq!(log.line(2, 0), first(), "another key");
        tokio::time::advance(LINE_EVERY).await;
        assert_eq!(log.line(1, 0), Some(Line { unlogged: Some(499) }));
        tokio::time::advance(LINE_EVERY).await;
        assert_eq!(log.line(1, 0), first(), "none was left out");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_bounded_and_forgets_and_many_keys_share_a_line() {
        let log = SparseLog::with_size(100);
        assert_eq!((1..=256).filter(|key| log.line(*key, 0).is_some()).count(), 101);
        assert_eq!(log.lines.lock().unwrap().last.len(), 101);
        tokio::time::advance(KEPT_FOR).await;
        assert_eq!(log.line(1, 0), first());
        assert_eq!(log.lines.lock().unwrap().last.len(), 1);
    }
}
