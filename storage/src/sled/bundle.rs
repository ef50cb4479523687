//! Bundles: the rows of entries of one batch, of whatever logs, in one row. They are what an append writes before it is
//! answered, some eleven events of 300 bytes in a put of sled's. The entries get into the rows of their logs later, several
//! of a log at once (`young.rs`).
//!
//! A bundle's row: version, its number (8 bytes), then of each entry: gateway 16, epoch 4, position 8, length 4, row;
//! numbers big-endian.

use std::ops::Range;

use uuid::Uuid;

use super::row::{PART_BYTES, write_entry};
use crate::ids::{Epoch, GatewayId, Seq};
use crate::log::Entry;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 1 + 8;
const ENTRY_HEAD_BYTES: usize = 16 + 4 + 8 + 4;
/// A bundle takes no further entry that would make it larger; pages stay below what sled makes files of (`parts.rs`).
const BUNDLE_BYTES: usize = PART_BYTES;

/// A life of a log.
pub(super) type Life = (GatewayId, Epoch);

/// Entries that are put as one row.
pub(super) struct Bundle {
    row: Vec<u8>,
    entries: Vec<Bundled>,
}

/// An entry of a bundle, and where in it its row is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bundled {
    pub(super) life: Life,
    pub(super) seq: Seq,
    pub(super) at: Range<u32>,
}

impl Bundle {
    pub(super) fn new() -> Self {
        let mut row = Vec::with_capacity(BUNDLE_BYTES);
        row.resize(HEAD_BYTES, 0);
        Self { row, entries: Vec::new() }
    }

    /// Adds an entry unless there is no room for it; says whether it was added. There is for the first one.
    pub(super) fn add(&mut self, life: Life, entry: &Entry, end: u64) -> bool {
        let start = self.row.len();
        self.row.extend_from_slice(life.0.0.as_bytes());
        self.row.extend_from_slice(&life.1.0.to_be_bytes());
        self.row.extend_from_slice(&entry.seq.0.to_be_bytes());
        self.row.extend_from_slice(&[0; 4]);
        let at = start + ENTRY_HEAD_BYTES;
        write_entry(&mut self.row, entry, end);
        if self.row.len() > BUNDLE_BYTES && !self.entries.is_empty() {
            self.row.truncate(start);
            return false;
        }
        // Rows are far shorter than 4 GiB.
        let [at, end] = [at, self.row.len()].map(|place| u32::try_from(place).unwrap_or(u32::MAX));
        if let Some(place) =
            self.row.get_mut(start..).and_then(|entry| entry.get_mut(ENTRY_HEAD_BYTES - 4..ENTRY_HEAD_BYTES))
        {
            place.copy_from_slice(&(end - at).to_be_bytes());
        }
        self.entries.push(Bundled { life, seq: entry.seq, at: at..end });
        true
    }

    pub(super) fn bytes(&self) -> usize {
        self.row.len()
    }

    /// The row with this number, and what is in it.
    pub(super) fn numbered(mut self, number: u64) -> (Vec<u8>, Vec<Bundled>) {
        if let Some((version, rest)) = self.row.split_first_mut()
            && let Some(place) = rest.first_chunk_mut()
        {
            *version = VERSION;
            *place = number.to_be_bytes();
        }
        (self.row, self.entries)
    }
}

/// The number of a bundle's row; `None` if it is none.
pub(super) fn number(row: &[u8]) -> Option<u64> {
    let (&version, rest) = row.split_first()?;
    let number = u64::from_be_bytes(*rest.first_chunk()?);
    (version == VERSION).then_some(number)
}

/// What is in a bundle's row; `None` if it is none.
pub(super) fn parse(row: &[u8]) -> Option<Vec<Bundled>> {
    number(row)?;
    let (mut entries, mut at) = (Vec::new(), HEAD_BYTES);
    while at < row.len() {
        let (gateway, rest) = row.get(at..)?.split_first_chunk::<16>()?;
        let (epoch, rest) = rest.split_first_chunk::<4>()?;
        let (seq, rest) = rest.split_first_chunk::<8>()?;
        let len = usize::try_from(u32::from_be_bytes(*rest.first_chunk()?)).ok()?;
        let life = (GatewayId(Uuid::from_bytes(*gateway)), Epoch(u32::from_be_bytes(*epoch)));
        let start = at + ENTRY_HEAD_BYTES;
        at = start.checked_add(len).filter(|end| *end <= row.len())?;
        let at = u32::try_from(start).ok()?..u32::try_from(at).ok()?;
        entries.push(Bundled { life, seq: Seq(u64::from_be_bytes(*seq)), at });
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::sled::row::encode_entry;

    fn entry(seq: u64, bytes: usize) -> Entry {
        let at = ManualClock::default().now();
        Entry { seq: Seq(seq), at, key: None, ends_key: false, body: vec![b'x'; bytes].into() }
    }

    #[test]
    fn a_bundle_takes_entries_until_it_is_full_and_one_of_any_size() {
        for (bytes, fit) in [(300, 11), (2_000, 1), (4_096, 1)] {
            let life = (GatewayId(Uuid::from_u128(7)), Epoch(9));
            let mut bundle = Bundle::new();
            let taken = (1..).take_while(|seq| bundle.add(life, &entry(*seq, bytes), *seq)).count();
            assert_eq!(taken, fit, "of {bytes} bytes");
            let (row, entries) = bundle.numbered(42);
            assert_eq!((number(&row), parse(&row).as_ref()), (Some(42), Some(&entries)));
            for (seq, bundled) in (1..).zip(entries) {
                assert_eq!((bundled.life, bundled.seq), (life, Seq(seq)));
                assert_eq!(
                    row[bundled.at.start as usize..bundled.at.end as usize],
                    encode_entry(&entry(seq, bytes), seq)
                );
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_bundle_or_none(bytes: Vec<u8>, is_bundle: bool) {
            let bytes = if is_bundle { [&[VERSION], &bytes[..]].concat() } else { bytes };
            if let Some(entries) = parse(&bytes) {
                prop_assert!(entries.iter().all(|entry| entry.at.end as usize <= bytes.len()));
            }
        }
    }
}
