use chrono::{DateTime, Utc};

use crate::ids::{Cursor, Epoch, Seq};

/// Passings that are remembered of one connection, with where it began or, later, the last one that was forgotten; older
/// ones are known by position alone.
const MARKS_MAX: usize = 32;

/// When a position passed events: the last few passings. Takes no memory until the first.
///
/// With what is before it in a seat it fills one cache line, and an event looks at no other: what is passed is only written.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Marks {
    /// Everything up to here was passed.
    last: Seq,
    epoch: Epoch,
    /// Where the first of the passings lies, which the next one takes the place of once there are [`MARKS_MAX`].
    first: u32,
    /// Up to the first of them nothing is known.
    passings: Vec<(Seq, i64)>,
}

impl Marks {
    pub(super) fn new(from: Cursor) -> Self {
        Self { last: from.seq, epoch: from.epoch, first: 0, passings: Vec::new() }
    }

    /// Everything up to `to` was passed at so many milliseconds since 1970, if not before. Into another life of the log it is a jump: nothing
    /// before it was passed.
    pub(super) fn pass(&mut self, to: Cursor, at_ms: i64) {
        if self.epoch != to.epoch {
            *self = Self::new(to);
            return;
        }
        if to.seq <= self.last {
            return;
        }
        if self.passings.is_empty() {
            self.passings.push((self.last, at_ms));
        }
        self.last = to.seq;
        if self.passings.len() < MARKS_MAX {
            return self.passings.push((to.seq, at_ms));
        }
        let next = self.first as usize + 1;
        if let Some(first) = self.passings.get_mut(self.first as usize) {
            *first = (to.seq, at_ms);
        }
        self.first = if next < MARKS_MAX { self.first + 1 } else { 0 };
    }

    /// Up to where everything was passed.
    pub(super) fn end(&self) -> Cursor {
        Cursor { epoch: self.epoch, seq: self.last }
    }

    /// Whether everything up to `to` was passed, or lies before all that is known.
    pub(super) fn reach(&self, to: Cursor) -> bool {
        self.epoch == to.epoch && self.last >= to.seq
    }

    /// When `event` was passed; `None` if it was not, or too long ago to tell.
    pub(super) fn when(&self, event: Cursor) -> Option<DateTime<Utc>> {
        let (later, sooner) = self.passings.split_at_checked(self.first as usize)?;
        let mut passings = sooner.iter().chain(later);
        let (unknown, _) = passings.next()?;
        if event.epoch != self.epoch || event.seq <= *unknown {
            return None;
        }
        let (_, at) = passings.find(|(seq, _)| *seq >= event.seq)?;
        DateTime::from_timestamp_millis(*at)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.passings.is_empty()
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
            marks.pass(cursor(10 + n), 10_000 + 1_000 * i64::try_from(n).unwrap());
            assert!(marks.reach(cursor(10 + n)) && !marks.reach(cursor(11 + n)));
        }
        assert_eq!(marks.passings.len(), MARKS_MAX);
        for n in 0..100 {
            let known = n > 100 - u64::try_from(MARKS_MAX).unwrap();
            assert_eq!(marks.when(cursor(10 + n)), known.then(|| at(10 + i64::try_from(n).unwrap())));
        }
        assert_eq!(marks.when(cursor(3)), None);
        marks.pass(Cursor { epoch: Epoch(2), seq: Seq(4) }, 11_000);
        assert!(marks.is_empty());
    }
}
