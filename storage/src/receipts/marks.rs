use std::collections::VecDeque;

use chrono::{DateTime, Utc};

use crate::ids::{Cursor, Epoch, Seq};

/// Passings that are remembered of one connection; older ones are known by position alone.
const MARKS_MAX: usize = 32;

/// When a position passed events: the last few passings, oldest first. Takes no memory until the first.
#[derive(Debug)]
pub(super) struct Marks {
    epoch: Epoch,
    /// Nothing is known of events up to here.
    from: Seq,
    passed: VecDeque<(Seq, i64)>,
}

impl Marks {
    pub(super) fn new(from: Cursor) -> Self {
        Self { epoch: from.epoch, from: from.seq, passed: VecDeque::new() }
    }

    /// Everything up to `to` was passed at so many milliseconds since 1970, if not before. Into another life of the log it is a jump: nothing
    /// before it was passed.
    pub(super) fn pass(&mut self, to: Cursor, at_ms: i64) {
        if self.epoch != to.epoch {
            *self = Self::new(to);
            return;
        }
        if to.seq <= self.passed.back().map_or(self.from, |(last, _)| *last) {
            return;
        }
        if self.passed.len() >= MARKS_MAX
            && let Some((seq, _)) = self.passed.pop_front()
        {
            self.from = seq;
        }
        self.passed.push_back((to.seq, at_ms));
    }

    /// When `event` was passed; `None` if it was not, or too long ago to tell.
    pub(super) fn when(&self, event: Cursor) -> Option<DateTime<Utc>> {
        if event.epoch != self.epoch || event.seq <= self.from {
            return None;
        }
        let (_, at) = self.passed.get(self.passed.partition_point(|(seq, _)| *seq < event.seq))?;
        DateTime::from_timestamp_millis(*at)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.passed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_passed_once_and_old_passings_are_forgotten() {
        let cursor = |seq| Cursor { epoch: Epoch(1), seq: Seq(seq) };
        let at = |second| DateTime::from_timestamp(second, 0).unwrap();
        let mut marks = Marks::new(cursor(2));
        marks.pass(cursor(5), 1_000);
        marks.pass(cursor(9), 2_000);
        marks.pass(cursor(7), 3_000);
        assert_eq!(marks.when(cursor(2)), None, "before the connection");
        assert_eq!(marks.when(cursor(3)), Some(at(1)));
        assert_eq!(marks.when(cursor(6)), Some(at(2)));
        assert_eq!(marks.when(cursor(10)), None);
        assert_eq!(marks.when(Cursor { epoch: Epoch(2), seq: Seq(3) }), None);
        for n in 0..100 {
            marks.pass(cursor(10 + n), 10_000);
        }
        assert_eq!(marks.passed.len(), MARKS_MAX);
        assert_eq!(marks.when(cursor(3)), None);
        marks.pass(Cursor { epoch: Epoch(2), seq: Seq(4) }, 11_000);
        assert!(marks.is_empty());
    }
}
