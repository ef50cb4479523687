//! Rows of several entries: what entries cost in sled is their number of rows.
//!
//! A leaf of sled's holds up to 16 rows, whatever their size, and is split when it has more; each put clones its leaf. So
//! entries that follow each other in a log are put as one row, at the key of the first. An entry that is alone there
//! has the row that it always had, so a store of before is one of blocks of one.

use bytes::Bytes;

use super::row::{Front, PART_BYTES};
use crate::ids::Seq;

/// Version byte of a row of several entries: what follows is for each its length, 4 bytes big-endian, and its row.
const BLOCK: u8 = 3;
/// Bytes of the rows of a block, and of the bodies that they have in parts: what is deleted goes block by block, so
/// no more than these stay longer than they should. Pages stay below what sled makes files of (`parts.rs`).
const BLOCK_BYTES: u64 = PART_BYTES as u64;
/// Entries of a block, for the same reason.
pub(super) const BLOCK_ENTRIES_MAX: usize = 16;

/// How many of the rows at the beginning are one block: at least one, and such that follow each other.
pub(super) fn len<'a>(rows: impl Iterator<Item = &'a (Seq, Bytes)>) -> usize {
    let (mut bytes, mut next) = (0, None);
    let fits = rows.take_while(|(seq, row)| {
        bytes += weight(row);
        let fits = next.is_none_or(|next| next == *seq && bytes <= BLOCK_BYTES);
        next = Some(seq.next());
        fits
    });
    fits.take(BLOCK_ENTRIES_MAX).count().max(1)
}

/// The bytes of a row and of the body that it has in parts.
fn weight(row: &[u8]) -> u64 {
    // What is not readable is not made better by company.
    Front::size_of(row).map_or(BLOCK_BYTES, |size| size.max(row.len() as u64))
}

/// The row of entries that follow each other.
pub(super) fn encode(rows: &[(Seq, Bytes)]) -> Vec<u8> {
    if let [(_, row)] = rows {
        return row.to_vec();
    }
    let mut block = Vec::with_capacity(1 + rows.iter().map(|(_, row)| 4 + row.len()).sum::<usize>());
    block.push(BLOCK);
    for (_, row) in rows {
        // A block is far shorter than 4 GiB.
        block.extend_from_slice(&u32::try_from(row.len()).unwrap_or(u32::MAX).to_be_bytes());
        block.extend_from_slice(row);
    }
    block
}

/// The rows of the entries of a row that is at the position of the first. What is not readable is one row, for whoever
/// reads it to say so.
pub(super) fn split(first: Seq, row: &[u8]) -> Vec<(Seq, Bytes)> {
    let row = Bytes::copy_from_slice(row);
    split_block(first, &row).unwrap_or_else(|| vec![(first, row)])
}

fn split_block(first: Seq, block: &Bytes) -> Option<Vec<(Seq, Bytes)>> {
    let mut rows = Vec::new();
    let (mut seq, mut at) = (first, 1);
    if block.first() != Some(&BLOCK) {
        return None;
    }
    while at < block.len() {
        let len = u32::from_be_bytes(block.get(at..at + 4)?.try_into().ok()?);
        let end = (at + 4).checked_add(usize::try_from(len).ok()?)?;
        block.get(at + 4..end)?;
        rows.push((seq, block.slice(at + 4..end)));
        (seq, at) = (seq.next(), end);
    }
    (!rows.is_empty()).then_some(rows)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::log::Entry;
    use crate::sled::row::encode_entry;

    fn rows(first: u64, bodies: &[usize]) -> Vec<(Seq, Bytes)> {
        let at = ManualClock::default().now();
        let row = |(seq, bytes): (u64, &usize)| {
            let body = vec![b'x'; *bytes].into();
            let entry = Entry { seq: Seq(seq), at, key: None, ends_key: false, body };
            (Seq(seq), Bytes::from(encode_entry(&entry, seq)))
        };
        (first..).zip(bodies).map(row).collect()
    }

    proptest! {
        #[test]
        fn any_rows_come_back_from_their_block(first in 1..100_u64, bodies in prop::collection::vec(0..5_000_usize, 1..9)) {
            let rows = rows(first, &bodies);
            prop_assert_eq!(split(Seq(first), &encode(&rows)), rows);
        }

        #[test]
        fn any_bytes_are_rows(bytes: Vec<u8>, is_block: bool) {
            let bytes = if is_block { [&[BLOCK], &bytes[..]].concat() } else { bytes };
            prop_assert!(!split(Seq(1), &bytes).is_empty());
        }
    }

    #[test]
    fn a_block_ends_at_a_hole_at_its_bounds_and_at_a_body_in_parts() {
        let len = |rows: &[(Seq, Bytes)]| len(rows.iter());
        assert_eq!(len(&rows(1, &[300; 40])), 12);
        assert_eq!(len(&rows(1, &[0; 40])), BLOCK_ENTRIES_MAX);
        assert_eq!(len(&rows(1, &[4_000, 4_000])), 1);
        assert_eq!(len(&rows(1, &[10, 150_000, 10])), 1);
        assert_eq!(len(&rows(1, &[150_000, 10, 10])), 1);
        assert_eq!(len(&[rows(1, &[10, 10]), rows(9, &[10])].concat()), 2);
    }
}
