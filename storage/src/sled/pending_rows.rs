use super::bundle::Bundle;
use super::database::Database;
use super::keys;
use super::parts::parts;
use super::young::BUNDLES_AT_ONCE_MAX;
use crate::ids::{Epoch, GatewayId};
use crate::log::Entry;
use crate::records::StoreError;

/// Rows that wait to be put, so of one transaction, are no more than these and one entry's. Each may have sled write its
/// whole page anew, some KB, and the log of a transaction has to stay well below what [`Database::keep_up`] allows: it can
/// be synced only after it. A transaction costs as much as some ten rows, so with more rows little would be saved.
const ROWS_MAX: usize = 64;
/// As [`ROWS_MAX`].
const ROWS_BYTES_MAX: usize = 128 * 1024;

/// Rows of a batch that are not in the tree yet, to be put in this order.
#[derive(Default)]
pub(super) struct PendingRows {
    /// The entries; the last one may take more.
    bundles: Vec<Bundle>,
    /// What belongs to them: all of it is there or nothing.
    rows: Vec<(::sled::IVec, ::sled::IVec)>,
    /// Before the others. They are in no transaction: it would be too large.
    parts: Vec<(::sled::IVec, ::sled::IVec)>,
    bytes: usize,
}

impl PendingRows {
    /// A row that is there if and only if the entries are.
    pub(super) fn insert(&mut self, key: impl AsRef<[u8]>, row: Vec<u8>) {
        self.bytes += row.len();
        self.rows.push((key.as_ref().into(), row.into()));
    }

    /// The row of an entry, and the parts of its body if it has any.
    pub(super) fn insert_entry(&mut self, to: GatewayId, epoch: Epoch, entry: &Entry, end: u64) {
        for (number, part) in parts(&entry.body) {
            self.bytes += part.len();
            self.parts.push((keys::part(to, epoch, entry.seq, number).as_ref().into(), part.into()));
        }
        let is_added = self.bundles.last_mut().is_some_and(|bundle| bundle.add((to, epoch), entry, end));
        if !is_added {
            let mut bundle = Bundle::new();
            bundle.add((to, epoch), entry, end);
            self.bytes += bundle.bytes();
            self.bundles.push(bundle);
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows.len() + self.bundles.len() >= ROWS_MAX
            || self.bundles.len() >= BUNDLES_AT_ONCE_MAX
            || self.bytes >= ROWS_BYTES_MAX
    }

    /// For each transaction sled hands what it has buffered to its writers twice, which costs as much as some ten rows. So
    /// jobs that need one share it, and entries that need none have none.
    pub(super) fn put(self, db: &Database) -> Result<(), StoreError> {
        self.parts.into_iter().try_for_each(|(key, part)| db.put(&key, part))?;
        db.put_bundles(self.bundles, self.rows)
    }
}
