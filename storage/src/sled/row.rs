use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::ids::{Epoch, Seq};
use crate::log::Entry;
use crate::records::StoreError;

/// Version byte of the rows below.
const VERSION: u8 = 1;
/// Version byte of the row of an entry whose body is in [parts](super::parts).
const IN_PARTS: u8 = 2;
/// Bytes of a body that are in the row of their entry at most, and of each of the parts that a longer one is in.
pub(super) const PART_BYTES: usize = 4 * 1024;
/// Version, time, end offset, key length: what comes before the key.
const ENTRY_HEAD_BYTES: usize = 1 + 8 + 8 + 4;
/// The key length that says that there is no key.
const NO_KEY: u32 = u32::MAX;
/// Set in a key length: the entry ends its key.
const ENDS_KEY: u32 = 1 << 31;

/// Appends an entry's row: version, `at` in ms, `end`, key length (its highest bit: whether it ends the key), key, body; numbers
/// big-endian. If the body is in parts: the same with another version, and its length, 4 bytes, before the key instead.
/// `end` counts the bytes of all keys and bodies of the log from its first entry up to and with this one, so the size
/// of any span is a subtraction.
pub(super) fn write_entry(row: &mut Vec<u8>, entry: &Entry, end: u64) {
    let key = entry.key.as_deref();
    let key_len = key.map_or(NO_KEY, |key| {
        // Keys are far shorter than 2 GiB.
        let len = u32::try_from(key.len()).unwrap_or(NO_KEY);
        if entry.ends_key { len | ENDS_KEY } else { len }
    });
    let in_parts = is_in_parts(entry.body.len());
    row.reserve(ENTRY_HEAD_BYTES + 4 + key.map_or(0, <[u8]>::len) + entry.body.len().min(PART_BYTES));
    row.push(if in_parts { IN_PARTS } else { VERSION });
    row.extend_from_slice(&entry.at.timestamp_millis().to_be_bytes());
    row.extend_from_slice(&end.to_be_bytes());
    row.extend_from_slice(&key_len.to_be_bytes());
    if in_parts {
        // Bodies are far shorter than 4 GiB.
        row.extend_from_slice(&u32::try_from(entry.body.len()).unwrap_or(u32::MAX).to_be_bytes());
    }
    row.extend_from_slice(key.unwrap_or_default());
    if !in_parts {
        row.extend_from_slice(&entry.body);
    }
}

/// As [`write_entry`].
#[cfg(test)]
pub(super) fn encode_entry(entry: &Entry, end: u64) -> Vec<u8> {
    let mut row = Vec::new();
    write_entry(&mut row, entry, end);
    row
}

/// Whether a body of so many bytes is in parts.
pub(super) fn is_in_parts(bytes: usize) -> bool {
    bytes > PART_BYTES
}

/// Rows that an entry has whose body has so many bytes.
pub(super) fn rows(bytes: usize) -> usize {
    if is_in_parts(bytes) { 1 + bytes.div_ceil(PART_BYTES) } else { 1 }
}

/// The entry of a row, and how many bytes its body has that are in parts: it has none then.
pub(super) fn decode_entry(seq: Seq, row: &Bytes) -> Result<(Entry, usize), StoreError> {
    let EntryHead { at, key_len, in_parts, rest, .. } = EntryHead::decode(row)?;
    // Key and body share the row's bytes.
    let rest = row.slice_ref(rest);
    let (len, ends_key) = key_len_of(key_len);
    let (key, body) = match len {
        None => (None, rest),
        Some(len) if len <= rest.len() => (Some(rest.slice(..len)), rest.slice(len..)),
        Some(_) => return Err(malformed_entry()),
    };
    if in_parts > 0 && !body.is_empty() {
        return Err(malformed_entry());
    }
    Ok((Entry { seq, at, key, ends_key, body }, in_parts))
}

/// How many bytes an entry's body has that are in parts.
pub(super) fn bytes_in_parts(row: &[u8]) -> Result<usize, StoreError> {
    EntryHead::decode(row).map(|head| head.in_parts)
}

fn key_len_of(key_len: u32) -> (Option<usize>, bool) {
    if key_len == NO_KEY {
        return (None, false);
    }
    (usize::try_from(key_len & !ENDS_KEY).ok(), key_len & ENDS_KEY != 0)
}

/// What compaction needs to know of an entry, without its body.
pub(super) struct Key {
    pub(super) key: Bytes,
    pub(super) at: DateTime<Utc>,
    pub(super) ends_key: bool,
    /// As [`Entry::size`].
    pub(super) size: u64,
}

/// The key in an entry's row, if it has one.
pub(super) fn key_of(row: &[u8]) -> Result<Option<Key>, StoreError> {
    let head = EntryHead::decode(row)?;
    let (Some(len), ends_key) = key_len_of(head.key_len) else { return Ok(None) };
    let key = Bytes::copy_from_slice(head.rest.get(..len).ok_or_else(malformed_entry)?);
    Ok(Some(Key { key, at: head.at, ends_key, size: head.size() }))
}

/// Which entry of the compacted state a key has: position, size, whether it ends the key; numbers big-endian.
#[derive(Debug, Clone, Copy)]
pub(super) struct StateKey {
    pub(super) seq: Seq,
    pub(super) size: u64,
    pub(super) ends_key: bool,
}

impl StateKey {
    pub(super) fn encode(&self) -> [u8; 17] {
        let mut row = [u8::from(self.ends_key); 17];
        row[..8].copy_from_slice(&self.seq.0.to_be_bytes());
        row[8..16].copy_from_slice(&self.size.to_be_bytes());
        row
    }

    pub(super) fn decode(row: &[u8]) -> Result<Self, StoreError> {
        let parts = || {
            let (seq, rest) = row.split_first_chunk::<8>()?;
            let (size, rest) = rest.split_first_chunk::<8>()?;
            let [ends_key] = rest else { return None };
            let (seq, size) = (Seq(u64::from_be_bytes(*seq)), u64::from_be_bytes(*size));
            Some(Self { seq, size, ends_key: *ends_key != 0 })
        };
        parts().ok_or_else(|| StoreError::Malformed("a key of a compacted state".to_owned()))
    }
}

/// What the bounds of a log need to know of an entry, without its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Front {
    pub(super) seq: Seq,
    pub(super) at: DateTime<Utc>,
    /// Bytes of all entries before this one.
    pub(super) start: u64,
}

impl Front {
    /// As [`Entry::size`].
    pub(super) fn size_of(row: &[u8]) -> Result<u64, StoreError> {
        EntryHead::decode(row).map(|head| head.size())
    }

    pub(super) fn decode(seq: Seq, row: &[u8]) -> Result<Self, StoreError> {
        let head = EntryHead::decode(row)?;
        Ok(Self { seq, at: head.at, start: head.end.saturating_sub(head.size()) })
    }
}

/// The end offset in an entry's row.
pub(super) fn entry_end(row: &[u8]) -> Result<u64, StoreError> {
    EntryHead::decode(row).map(|head| head.end)
}

struct EntryHead<'a> {
    at: DateTime<Utc>,
    end: u64,
    key_len: u32,
    /// Bytes of the body that are in parts.
    in_parts: usize,
    /// Key and body.
    rest: &'a [u8],
}

impl<'a> EntryHead<'a> {
    fn decode(row: &'a [u8]) -> Result<Self, StoreError> {
        let head = || {
            let (&version, rest) = row.split_first()?;
            let (at, rest) = rest.split_first_chunk::<8>()?;
            let (end, rest) = rest.split_first_chunk::<8>()?;
            let (key_len, rest) = rest.split_first_chunk::<4>()?;
            let (in_parts, rest) = match version {
                VERSION => (0, rest),
                IN_PARTS => {
                    let (bytes, rest) = rest.split_first_chunk::<4>()?;
                    (usize::try_from(u32::from_be_bytes(*bytes)).ok().filter(|bytes| is_in_parts(*bytes))?, rest)
                }
                _ => return None,
            };
            let at = DateTime::from_timestamp_millis(i64::from_be_bytes(*at))?;
            let (end, key_len) = (u64::from_be_bytes(*end), u32::from_be_bytes(*key_len));
            Some(Self { at, end, key_len, in_parts, rest })
        };
        head().ok_or_else(malformed_entry)
    }

    /// As [`Entry::size`].
    fn size(&self) -> u64 {
        self.rest.len() as u64 + self.in_parts as u64
    }
}

fn malformed_entry() -> StoreError {
    StoreError::Malformed("an entry of a log".to_owned())
}

/// A log's own row: version, epoch, floor, offset of the floor, then of the compacted state: keys, bytes, newest entry
/// let go, sum of positions; numbers big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) epoch: Epoch,
    /// Entries before it are gone whether or not their rows are still there.
    pub(super) floor: Seq,
    /// Bytes of all entries before the floor.
    pub(super) floor_start: u64,
    /// Entries of the compacted state, which is of all entries before the floor.
    pub(super) keys: u64,
    /// Their bytes.
    pub(super) key_bytes: u64,
    /// The newest entry that the state has let go by its bounds, or that was not there to be folded; 0 for none.
    pub(super) let_go: Seq,
    /// The positions of the state's entries added up, so that one that is stale is told from one that is right. `None` in
    /// a head that was written before there was a sum, and after it.
    pub(super) seqs: Option<u64>,
}

impl Head {
    pub(super) fn new(epoch: Epoch) -> Self {
        Self { epoch, floor: Seq(1), floor_start: 0, keys: 0, key_bytes: 0, let_go: Seq(0), seqs: Some(0) }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut row = vec![VERSION];
        row.extend_from_slice(&self.epoch.0.to_be_bytes());
        let numbers = [self.floor.0, self.floor_start, self.keys, self.key_bytes, self.let_go.0];
        numbers.into_iter().chain(self.seqs).for_each(|number| row.extend_from_slice(&number.to_be_bytes()));
        row
    }

    pub(super) fn decode(row: &[u8]) -> Result<Self, StoreError> {
        let head = || {
            let (&version, rest) = row.split_first()?;
            let (epoch, rest) = rest.split_first_chunk::<4>()?;
            let (floor, rest) = rest.split_first_chunk::<8>()?;
            let (floor_start, rest) = rest.split_first_chunk::<8>()?;
            // A head of before there was a compacted state ends here: it has none.
            let part = |part: usize| rest.as_chunks::<8>().0.get(part).map(|chunk| u64::from_be_bytes(*chunk));
            let state = |at: usize| part(at).unwrap_or(0);
            (version == VERSION).then(|| Self {
                epoch: Epoch(u32::from_be_bytes(*epoch)),
                floor: Seq(u64::from_be_bytes(*floor)),
                floor_start: u64::from_be_bytes(*floor_start),
                keys: state(0),
                key_bytes: state(1),
                let_go: Seq(state(2)),
                seqs: part(3).or((state(0) == 0).then_some(0)),
            })
        };
        head().ok_or_else(|| StoreError::Malformed("the head of a log".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sled::keys;

    proptest! {
        #[test]
        fn any_bytes_are_a_row_or_malformed(row: Vec<u8>, has_version: bool) {
            let mut row = row;
            let version = if row.len() % 2 == 0 { VERSION } else { IN_PARTS };
            if let (true, Some(first)) = (has_version, row.first_mut()) {
                *first = version;
            }
            if let Ok((entry, in_parts)) = decode_entry(Seq(1), &row.clone().into()) {
                let end = entry_end(&row).unwrap();
                let body = if in_parts > 0 { vec![0; in_parts.min(1 << 20)].into() } else { entry.body };
                if in_parts <= 1 << 20 {
                    prop_assert_eq!(encode_entry(&Entry { body, ..entry }, end), row.clone());
                }
            }
            let malformed = |error: &StoreError| matches!(error, StoreError::Malformed(_));
            prop_assert!(key_of(&row).err().as_ref().is_none_or(malformed));
            prop_assert!(Front::decode(Seq(1), &row).err().as_ref().is_none_or(malformed));
            prop_assert!(StateKey::decode(&row).err().as_ref().is_none_or(malformed));
            prop_assert!(Head::decode(&row).err().as_ref().is_none_or(malformed));
        }

        #[test]
        fn any_entry_survives_its_row(
            at in 0..1_i64 << 45, end: u64, key: Option<Vec<u8>>, ends: bool, body: Vec<u8>, more in 0..3_usize,
        ) {
            let body = body.repeat(1 + more * 40);
            let at = DateTime::from_timestamp_millis(at).unwrap();
            let ends_key = ends && key.is_some();
            let entry = Entry { seq: Seq(9), at, key: key.map(Bytes::from), ends_key, body: body.into() };
            let row = encode_entry(&entry, end);
            prop_assert_eq!(entry_end(&row).unwrap(), end);
            let front = Front::decode(Seq(9), &row).unwrap();
            prop_assert_eq!(front.start, end.saturating_sub(entry.size()));
            let (decoded, in_parts) = decode_entry(Seq(9), &row.into()).unwrap();
            prop_assert_eq!(in_parts, if is_in_parts(entry.body.len()) { entry.body.len() } else { 0 });
            let body = if in_parts > 0 { entry.body.clone() } else { decoded.body.clone() };
            prop_assert_eq!(Entry { body, ..decoded }, entry);
        }

        #[test]
        fn any_key_is_read_or_not(key: Vec<u8>, gateway: u128, epoch: u32, seq: u64) {
            let (gateway, epoch) = (crate::ids::GatewayId(uuid::Uuid::from_u128(gateway)), Epoch(epoch));
            if let Some((gateway, epoch)) = keys::parse_forgotten(&key) {
                prop_assert_eq!(&keys::forgotten(gateway, epoch)[1..], &key[1..]);
            }
            prop_assert_eq!(keys::seq_of(&key).is_some(), key.len() == 29);
            prop_assert_eq!(keys::parse_forgotten(&keys::forgotten(gateway, epoch)), Some((gateway, epoch)));
            prop_assert_eq!(keys::seq_of(&keys::entry(gateway, epoch, Seq(seq))), Some(Seq(seq)));
        }
    }

    #[test]
    fn a_head_without_a_compacted_state_is_read() {
        let head = Head { floor: Seq(7), floor_start: 70, ..Head::new(Epoch(5)) };
        assert_eq!(Head::decode(&head.encode()[..21]).unwrap(), head);
        let head = Head { keys: 1, key_bytes: 2, let_go: Seq(3), seqs: Some(4), ..head };
        assert_eq!(Head::decode(&head.encode()).unwrap(), head);
        let head = Head { seqs: None, ..head };
        assert_eq!(Head::decode(&head.encode()).unwrap(), head, "of before there was a sum");
    }

    #[test]
    fn an_entry_says_whether_it_ends_its_key() {
        for (key, ends_key) in [(None, false), (Some(Bytes::new()), true), (Some(Bytes::from_static(b"k")), false)] {
            let at = DateTime::UNIX_EPOCH;
            let entry = Entry { seq: Seq(1), at, key: key.clone(), ends_key, body: Bytes::from_static(b"body") };
            let row = encode_entry(&entry, 9);
            assert_eq!(decode_entry(Seq(1), &row.clone().into()).unwrap(), (entry.clone(), 0));
            let found = key_of(&row).unwrap().map(|found| (found.key, found.ends_key, found.size));
            assert_eq!(found, key.map(|key| (key, ends_key, entry.size())));
        }
    }
}
