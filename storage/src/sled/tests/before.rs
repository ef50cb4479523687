//! Stores as versions before had them.

use std::path::Path;

use crate::ids::Seq;
use crate::sled::block;
use crate::sled::data::{DataDir, EVENTS};
use crate::sled::database::Database;
use crate::sled::log_rows::seq_of;
use crate::sled::{keys, walk};

/// Makes each entry a row of its own.
pub(super) fn spread(db: &Database) {
    db.settle_down_to(0).unwrap();
    for (of, head) in walk::heads(db).unwrap() {
        let all = keys::entry(of, head.epoch, Seq(0))..=keys::entry(of, head.epoch, Seq(u64::MAX));
        let blocks: Vec<_> = db.range(all).map(Result::unwrap).collect();
        for (key, row) in blocks {
            for (seq, row) in block::split(seq_of(&key).unwrap(), &row) {
                db.put(&keys::entry(of, head.epoch, seq), &row[..]).unwrap();
            }
        }
    }
}

/// Makes a store one of the version before there were bundles and blocks.
pub(super) fn without_bundles(data: &Path) {
    let db = DataDir::take(data).unwrap().open(EVENTS).unwrap();
    spread(&db);
    let bundles: Vec<_> = db.prefix(keys::SETTLED).map(|row| row.unwrap().0).collect();
    bundles.iter().for_each(|key| db.remove(key).unwrap());
    db.put(keys::FORMAT, &[2]).unwrap();
    db.sync().unwrap();
}
