use std::ops::RangeInclusive;

use crate::ids::{Epoch, GatewayId, Seq};
use crate::records::Table;

/// The row that says which version of this layout the database has.
pub(super) const FORMAT: &[u8] = b"V";
/// The number of the last sync, kept a second time in the [`Mark`](super::mark::Mark).
pub(super) const SYNCS: &[u8] = b"N";
/// How far the directory's [second copy](super::second_copy) goes.
pub(super) const COPY: &[u8] = b"C";
/// Rows of logs that were forgotten and are not all deleted yet: this byte, the gateway, the epoch.
const FORGOTTEN: u8 = b'F';
/// Heads, one per log: this byte, the gateway.
const HEAD: u8 = b'H';
/// Entries: this byte, the gateway, the epoch, the position.
const ENTRY: u8 = b'R';

/// Bundles of entries that are not in their logs yet: this byte, where it is among them.
const BUNDLE: u8 = b'B';
/// The number of the first bundle whose entries are not all in their logs ([`young`](super::young)).
pub(super) const SETTLED: &[u8] = b"B";

/// Parts of the bodies of entries: this byte, the gateway, the epoch, the position, the number of the part.
const PART: u8 = b'P';
/// Entries that have left the compacted state and whose parts are not all deleted yet: as [`ENTRY`].
const LEFT: u8 = b'L';

/// Compacted state: this byte, the gateway, the epoch, the position.
const STATE: u8 = b'S';
/// Where in the compacted state a key is: this byte, the gateway, the epoch, the key.
const STATE_KEY: u8 = b'K';
/// Tombstones in the compacted state: this byte, the gateway, the epoch, the position.
const TOMBSTONE: u8 = b'D';

/// Owners of epochs: this byte, the epoch; the row is the gateway's 16 bytes.
const OWNER: u8 = b'O';

/// Where the owner of an epoch is: 5 bytes.
pub(super) fn owner(epoch: Epoch) -> [u8; 5] {
    let mut key = [OWNER; 5];
    key[1..].copy_from_slice(&epoch.0.to_be_bytes());
    key
}

/// Where a log's [`Head`](super::row::Head) is: 17 bytes.
pub(super) fn head(gateway: GatewayId) -> [u8; 17] {
    let mut key = [HEAD; 17];
    key[1..].copy_from_slice(gateway.0.as_bytes());
    key
}

/// Where an entry is, or a [block](super::block) of which it is the first: 29 bytes, positions in order. The epoch is in the key, so that leftovers of an earlier log of
/// the gateway lie outside every range that is ever read.
pub(super) fn entry(gateway: GatewayId, epoch: Epoch, seq: Seq) -> [u8; 29] {
    at(ENTRY, gateway, epoch, seq)
}

/// Where a bundle is: 5 bytes.
pub(super) fn bundle(slot: u32) -> [u8; 5] {
    let mut key = [BUNDLE; 5];
    key[1..].copy_from_slice(&slot.to_be_bytes());
    key
}

/// Where an entry of the compacted state is: as [`entry`].
pub(super) fn state(gateway: GatewayId, epoch: Epoch, seq: Seq) -> [u8; 29] {
    at(STATE, gateway, epoch, seq)
}

/// Where it says that an entry of the compacted state is a tombstone: as [`entry`].
pub(super) fn tombstone(gateway: GatewayId, epoch: Epoch, seq: Seq) -> [u8; 29] {
    at(TOMBSTONE, gateway, epoch, seq)
}

/// Where a part of an entry's body is: 33 bytes, in order.
pub(super) fn part(gateway: GatewayId, epoch: Epoch, seq: Seq, number: u32) -> [u8; 33] {
    let mut key = [0; 33];
    key[..29].copy_from_slice(&at(PART, gateway, epoch, seq));
    key[29..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Where it says that an entry has left the compacted state and that its parts are to be deleted: as [`entry`].
pub(super) fn left(gateway: GatewayId, epoch: Epoch, seq: Seq) -> [u8; 29] {
    at(LEFT, gateway, epoch, seq)
}

/// The prefix of all [`left`] keys.
pub(super) const ALL_LEFT: [u8; 1] = [LEFT];

/// The entry of a [`left`] key.
pub(super) fn parse_left(key: &[u8]) -> Option<(GatewayId, Epoch, Seq)> {
    let (of, epoch) = parse_forgotten(key.get(..21)?)?;
    Some((of, epoch, seq_of(key)?))
}

/// Where it says which entry of the compacted state a key has.
pub(super) fn state_key(gateway: GatewayId, epoch: Epoch, key: &[u8]) -> Vec<u8> {
    let mut on_disk = Vec::with_capacity(21 + key.len());
    on_disk.extend_from_slice(&of_log(STATE_KEY, gateway, epoch));
    on_disk.extend_from_slice(key);
    on_disk
}

/// The prefixes of all rows of a life of a log's compacted state.
pub(super) fn all_state(gateway: GatewayId, epoch: Epoch) -> [[u8; 21]; 3] {
    [STATE, STATE_KEY, TOMBSTONE].map(|tag| of_log(tag, gateway, epoch))
}

/// The prefixes of all rows of a life of a log but its entries: state, parts, and what is said of them.
pub(super) fn all_beside_entries(gateway: GatewayId, epoch: Epoch) -> [[u8; 21]; 5] {
    [STATE, STATE_KEY, TOMBSTONE, PART, LEFT].map(|tag| of_log(tag, gateway, epoch))
}

fn of_log(tag: u8, gateway: GatewayId, epoch: Epoch) -> [u8; 21] {
    let mut key = [tag; 21];
    key[1..17].copy_from_slice(gateway.0.as_bytes());
    key[17..].copy_from_slice(&epoch.0.to_be_bytes());
    key
}

fn at(tag: u8, gateway: GatewayId, epoch: Epoch, seq: Seq) -> [u8; 29] {
    let mut key = [tag; 29];
    key[1..17].copy_from_slice(gateway.0.as_bytes());
    key[17..21].copy_from_slice(&epoch.0.to_be_bytes());
    key[21..].copy_from_slice(&seq.0.to_be_bytes());
    key
}

/// The position in an entry's key.
pub(super) fn seq_of(key: &[u8]) -> Option<Seq> {
    let seq = key.get(21..)?.try_into().ok()?;
    Some(Seq(u64::from_be_bytes(seq)))
}

/// Says that the entries of a life of a gateway's log are to be deleted: 21 bytes.
pub(super) fn forgotten(gateway: GatewayId, epoch: Epoch) -> [u8; 21] {
    of_log(FORGOTTEN, gateway, epoch)
}

/// The prefix of all [`forgotten`] keys.
pub(super) const ALL_FORGOTTEN: [u8; 1] = [FORGOTTEN];

/// The gateway and epoch of a [`forgotten`] key.
pub(super) fn parse_forgotten(key: &[u8]) -> Option<(GatewayId, Epoch)> {
    let gateway = uuid::Uuid::from_slice(key.get(1..17)?).ok()?;
    let epoch = key.get(17..)?.try_into().ok()?;
    Some((GatewayId(gateway), Epoch(u32::from_be_bytes(epoch))))
}

/// The prefix of all [`head`] keys.
pub(super) const ALL_HEADS: [u8; 1] = [HEAD];

/// The gateway of a [`head`] key.
pub(super) fn parse_head(key: &[u8]) -> Option<GatewayId> {
    Some(GatewayId(uuid::Uuid::from_slice(key.strip_prefix(&[HEAD])?).ok()?))
}

/// What a key is of.
pub(super) enum Kind {
    /// The database itself.
    Own,
    Head,
    Owner(Epoch),
    /// A life of a log.
    OfLog(GatewayId, Epoch),
    /// A table.
    Record,
    Unknown,
}

/// Tells keys apart.
pub(super) fn kind(key: &[u8]) -> Kind {
    let of_log = || {
        let (of, epoch) = parse_forgotten(key.get(..21)?)?;
        Some(Kind::OfLog(of, epoch))
    };
    let found = match (key.first(), key.len()) {
        (Some(_), 1) if [FORMAT, SYNCS, COPY, SETTLED].contains(&key) => Some(Kind::Own),
        (Some(&BUNDLE), 5) => Some(Kind::Own),
        (Some(&HEAD), 17) => Some(Kind::Head),
        (Some(&OWNER), 5) => {
            key.get(1..).and_then(|epoch| epoch.try_into().ok()).map(|e| Kind::Owner(Epoch(u32::from_be_bytes(e))))
        }
        (Some(&(ENTRY | STATE | TOMBSTONE | LEFT)), 29)
        | (Some(&PART), 33)
        | (Some(&FORGOTTEN), 21)
        | (Some(&STATE_KEY), _) => of_log(),
        (Some(tag), _) if TABLES.contains(tag) => Some(Kind::Record),
        _ => None,
    };
    found.unwrap_or(Kind::Unknown)
}

/// The tags of all tables that are or will be.
pub(super) const TABLES: RangeInclusive<u8> = b'a'..=b'z';

/// Where a record is: the table's tag, which is a lower-case letter, then its key.
pub(super) fn record(table: Table, key: &[u8]) -> Vec<u8> {
    let mut on_disk = Vec::with_capacity(1 + key.len());
    on_disk.push(table as u8);
    on_disk.extend_from_slice(key);
    on_disk
}
