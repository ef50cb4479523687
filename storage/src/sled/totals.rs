use crate::ids::Epoch;

/// What the logs of a database add up to. It is kept with the number of syncs, so that an opened database can be told
/// from what was synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Totals {
    /// Their newest positions, added up.
    pub(super) ends: u64,
    /// Their epochs, [mixed] and added up: which logs there are. `None` in a database of before there was this.
    pub(super) logs: Option<u64>,
}

/// Number of syncs, ends, logs: 8 bytes each, big-endian.
pub(super) type TotalsRow = [u8; 24];

impl Totals {
    /// The row that says what the logs add up to at this sync.
    pub(super) fn row(self, syncs: u64) -> TotalsRow {
        let mut row = [0; 24];
        let numbers = [syncs, self.ends, self.logs.unwrap_or_default()];
        row.as_chunks_mut().0.iter_mut().zip(numbers).for_each(|(to, number)| *to = number.to_be_bytes());
        row
    }

    /// The number of syncs in a row, and the totals if they are there.
    pub(super) fn parse(row: &[u8]) -> (u64, Option<Self>) {
        let number = |at: usize| row.as_chunks().0.get(at).map(|number| u64::from_be_bytes(*number));
        let totals = number(1).map(|ends| Self { ends, logs: number(2) });
        (number(0).unwrap_or(0), totals)
    }
}

/// An epoch as a number of which no other few make the sum (splitmix64).
pub(super) fn mixed(epoch: Epoch) -> u64 {
    let mut mixed = u64::from(epoch.0).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_as_it_was_written_and_those_of_before_are_too() {
        let totals = Totals { ends: 7, logs: Some(u64::MAX) };
        let row = totals.row(3);
        assert_eq!(Totals::parse(&row), (3, Some(totals)));
        assert_eq!(Totals::parse(&row[..16]), (3, Some(Totals { logs: None, ..totals })));
        assert_eq!(Totals::parse(&row[..8]), (3, None));
        assert_eq!(Totals::parse(&[]), (0, None));
    }
}
