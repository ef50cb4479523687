use crate::ids::{Epoch, GatewayId, Seq};
use crate::records::Table;

/// The row that says which version of this layout the database has.
pub(super) const FORMAT: &[u8] = b"V";
/// The number of the last sync, kept a second time in the [`Mark`](super::mark::Mark).
pub(super) const SYNCS: &[u8] = b"N";
/// Rows of logs that were forgotten and are not all deleted yet: this byte, the gateway, the epoch.
const FORGOTTEN: u8 = b'F';
/// Heads, one per log: this byte, the gateway.
const HEAD: u8 = b'H';
/// Entries: this byte, the gateway, the epoch, the position.
const ENTRY: u8 = b'R';

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

/// Where an entry is: 29 bytes, positions in order. The epoch is in the key, so that leftovers of an earlier log of
/// the gateway lie outside every range that is ever read.
pub(super) fn entry(gateway: GatewayId, epoch: Epoch, seq: Seq) -> [u8; 29] {
    let mut key = [ENTRY; 29];
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
    let mut key = [FORGOTTEN; 21];
    key[1..17].copy_from_slice(gateway.0.as_bytes());
    key[17..].copy_from_slice(&epoch.0.to_be_bytes());
    key
}

/// The prefix of all [`forgotten`] keys.
pub(super) const ALL_FORGOTTEN: [u8; 1] = [FORGOTTEN];

/// The gateway and epoch of a [`forgotten`] key.
pub(super) fn parse_forgotten(key: &[u8]) -> Option<(GatewayId, Epoch)> {
    let gateway = uuid::Uuid::from_slice(key.get(1..17)?).ok()?;
    let epoch = key.get(17..)?.try_into().ok()?;
    Some((GatewayId(gateway), Epoch(u32::from_be_bytes(epoch))))
}

/// Where a record is: the table's tag, which is a lower-case letter, then its key.
pub(super) fn record(table: Table, key: &[u8]) -> Vec<u8> {
    let mut on_disk = Vec::with_capacity(1 + key.len());
    on_disk.push(table as u8);
    on_disk.extend_from_slice(key);
    on_disk
}
