//! Losses of power amid writes that were not synced: what opens then is all that was synced and the beginning of the rest.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::panic::catch_unwind;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use tempfile::TempDir;

use super::faults::sled_alone;
use crate::records::Table;
use crate::sled::data::EVENTS;
use crate::sled::database::Database;
use crate::sled::lock::DataLock;
use crate::sled::mark::Mark;
use crate::sled::segments::{self, SEGMENT_BYTES};
use crate::sled::{clean, keys, open, tear};

/// Which of them the last write to each key was.
type Rows = BTreeMap<Vec<u8>, u32>;

/// A database in the middle of its work: its files as they were when it was synced, and as they were later.
struct Working {
    synced: TempDir,
    later: TempDir,
    /// How many writes were synced.
    writes_synced: u32,
    writes: u32,
    /// How many keys there are.
    keys: u32,
    /// All files of large rows that there ever were.
    files: BTreeMap<OsString, Vec<u8>>,
    /// Up to where the log was synced.
    log_synced: u64,
}

/// The n-th write: to a new key or over an old one, now and then with so many bytes that sled makes a file of them.
fn write(n: u32, keys: u32) -> (Vec<u8>, Vec<u8>) {
    let bytes = if n % 29 == 7 { 140_000 } else { 300 + n as usize * 7 % 3_000 };
    let mut row = n.to_be_bytes().to_vec();
    row.resize(bytes, n as u8);
    let key = if n.is_multiple_of(3) { n % 90 } else { n % keys };
    (keys::record(Table::Meta, &key.to_be_bytes()), row)
}

/// The writes that are done as one from the n-th on.
fn together(n: u32) -> Range<u32> {
    let is_transaction = n.is_multiple_of(7) && (n / 7).is_multiple_of(3);
    n..n + if is_transaction { 7 } else { 1 }
}

/// As one transaction, if they are several.
fn batch(writes: Range<u32>, keys: u32) -> ::sled::Batch {
    let mut batch = ::sled::Batch::default();
    for (key, row) in writes.map(|n| write(n, keys)) {
        batch.insert(key, row);
    }
    batch
}

fn open(data: &Path) -> Database {
    open::open(&data.join(EVENTS), 1 << 20, Arc::new(DataLock::take(data).unwrap())).unwrap()
}

/// sled as it is; it does not write but when it is told to.
fn silent_sled(data: &Path) -> ::sled::Db {
    sled_alone(&data.join(EVENTS), |config| config.mode(::sled::Mode::LowSpace).flush_every_ms(None))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else if let Err(error) = fs::copy(entry.path(), target) {
            // sled removes the files of what was replaced at any time.
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
        }
    }
}

fn copied(from: &Path) -> TempDir {
    let copied = TempDir::new().unwrap();
    copy(from, copied.path());
    copied
}

impl Working {
    /// Since the sync sled has begun two segments, the second of which says that what is before the first was written. It
    /// has not begun a third: that may be where something was that was synced (see [`Database::keep_up`]).
    fn new() -> Self {
        let data = TempDir::new().unwrap();
        drop(open(data.path()));
        clean::take(&data.path().join(EVENTS)).unwrap();
        let tree = silent_sled(data.path());
        let log_end = || u64::try_from(tree.context.pagecache.log.stable_offset() + 1).unwrap();
        let (mut writes, mut seen) = (0, BTreeMap::new());
        let mut write_up_to = |place: u64| {
            while log_end() < place {
                let (key, row) = write(writes, u32::MAX);
                match together(writes) {
                    one if one.len() == 1 => drop(tree.insert(key, row).unwrap()),
                    several => tree.apply_batch(batch(several, u32::MAX)).unwrap(),
                }
                tree.flush().unwrap();
                writes = together(writes).end;
                see(data.path(), &mut seen);
            }
            writes
        };
        let writes_synced = write_up_to(3 * SEGMENT_BYTES as u64 + 300_000);
        let log_synced = log_end();
        let marked = Mark::read(&data.path().join(EVENTS)).unwrap().unwrap();
        Mark::open(&data.path().join(EVENTS), marked.syncs).unwrap().done(log_synced).unwrap();
        let synced = copied(data.path());
        let writes = write_up_to(6 * SEGMENT_BYTES as u64 - 20_000);
        let later = copied(data.path());
        Self { synced, later, writes_synced, writes, keys: u32::MAX, log_synced, files: seen }
    }

    /// A database that has overwritten all it has again and again, so that sled has used the room of most segments more
    /// than once, and that was synced only because of that.
    fn overwriting(writes: u32, keys: u32) -> Self {
        let data = TempDir::new().unwrap();
        let db = open(data.path());
        let marked = || Mark::read(&data.path().join(EVENTS)).unwrap().unwrap().synced.unwrap();
        let (mut synced, mut writes_synced, mut log_synced) = (copied(data.path()), 0, marked());
        let (mut n, mut files) = (0, BTreeMap::new());
        while n < writes {
            let (key, row) = write(n, keys);
            match together(n) {
                one if one.len() == 1 => db.put(&key, &row[..]).unwrap(),
                several => db.apply(batch(several, keys)).unwrap(),
            }
            n = together(n).end;
            see(data.path(), &mut files);
            if marked() != log_synced {
                (synced, writes_synced, log_synced) = (copied(data.path()), n, marked());
            }
        }
        let later = copied(data.path());
        Self { synced, later, writes_synced, writes: n, keys, log_synced, files }
    }

    /// The database after a loss of power that left each page of the log as it was at either time, and of each file that
    /// was there meanwhile all, half, or nothing. Those that were there before are there: `blobs.rs` sees to that.
    fn lost(&self, page: usize, mut has_arrived: impl FnMut(u64) -> bool) -> TempDir {
        let lost = copied(self.synced.path());
        let db = |data: &TempDir| data.path().join(EVENTS).join(segments::NAME);
        let (before, after) = (fs::read(db(&self.synced)).unwrap(), fs::read(db(&self.later)).unwrap());
        let file = File::options().write(true).open(db(&lost)).unwrap();
        for (at, later) in (0..).step_by(page).zip(after.chunks(page)) {
            let is_same = before.get(at..at + later.len()) == Some(later);
            if !is_same && has_arrived(at as u64) {
                file.write_all_at(later, at as u64).unwrap();
            }
        }
        let database = lost.path().join(EVENTS);
        for (name, bytes) in &self.files {
            let is_synced = database.join("blobs").join(name).exists() || database.join("kept").join(name).exists();
            if !is_synced && has_arrived(u64::MAX) {
                let arrived = if has_arrived(u64::MAX) { bytes.len() } else { bytes.len() / 2 };
                fs::write(database.join("blobs").join(name), &bytes[..arrived]).unwrap();
            }
        }
        lost
    }

    /// Where in the file a place of the log is, at the later time.
    fn offset(&self, place: u64) -> u64 {
        let file = File::open(self.later.path().join(EVENTS).join(segments::NAME)).unwrap();
        let number = segments::Head::Number(place / SEGMENT_BYTES as u64);
        let heads = segments::heads(&file).unwrap();
        heads.iter().find(|(head, _)| *head == number).unwrap().1 + place % SEGMENT_BYTES as u64
    }

    /// Whether these are the rows after some number of writes, of which none is lacking that was synced.
    fn is_beginning(&self, rows: &Rows) -> bool {
        let mut beginning: Rows = (0..self.writes_synced).map(|n| (write(n, self.keys).0, n)).collect();
        let mut rest = self.writes_synced..self.writes;
        while beginning != *rows {
            let Some(n) = rest.next() else { return false };
            beginning.extend(together(n).map(|n| (write(n, self.keys).0, n)));
            rest.start = together(n).end;
        }
        true
    }
}

/// The files that sled has put large messages into.
fn files(data: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let files = fs::read_dir(data.join(EVENTS).join("blobs")).unwrap().map(Result::unwrap);
    // It removes them at any time.
    files.filter_map(|file| Some((file.file_name(), fs::read(file.path()).ok()?))).collect()
}

/// Adds the files that are new.
fn see(data: &Path, files: &mut BTreeMap<OsString, Vec<u8>>) {
    for file in fs::read_dir(data.join(EVENTS).join("blobs")).unwrap().map(Result::unwrap) {
        // It removes them at any time.
        if !files.contains_key(&file.file_name())
            && let Ok(bytes) = fs::read(file.path())
        {
            files.insert(file.file_name(), bytes);
        }
    }
}

fn rows(tree: &::sled::Db) -> Rows {
    let number = |row: &[u8]| u32::from_be_bytes(row[..4].try_into().unwrap());
    let rows = tree.scan_prefix([Table::Meta as u8]).map(Result::unwrap);
    rows.map(|(key, row)| (key.to_vec(), number(&row))).collect()
}

fn rows_of(data: &Path) -> Rows {
    let db = open(data);
    let number = |row: &[u8]| u32::from_be_bytes(row[..4].try_into().unwrap());
    let rows = db.prefix(&[Table::Meta as u8]).map(Result::unwrap);
    rows.map(|(key, row)| (key.to_vec(), number(&row))).collect()
}

#[test]
fn a_log_that_is_torn_amid_unsynced_writes_ends_there() {
    let working = Working::new();
    assert!(working.writes > working.writes_synced + 200, "{} {}", working.writes, working.writes_synced);
    let (mut alone_was_wrong, mut beginnings) = (0, Vec::new());
    for back in [0, 20_000, 60_000, 100_000, 150_000] {
        // One page of 512 bytes did not arrive, all the rest did.
        let torn = working.offset(working.log_synced + back) / 512 * 512 + 512;
        let lost = working.lost(512, |at| at != torn);
        let alone = copied(lost.path());
        let opened = catch_unwind(|| rows(&silent_sled(alone.path())));
        alone_was_wrong += usize::from(!opened.is_ok_and(|rows| working.is_beginning(&rows)));
        let rows = rows_of(lost.path());
        assert!(working.is_beginning(&rows), "{back}: {rows:?}");
        beginnings.push(rows.values().max().copied());
        assert_eq!(rows_of(lost.path()), rows, "and again");
    }
    assert!(beginnings.is_sorted() && beginnings[0] < beginnings[4], "{beginnings:?}");
    assert!(alone_was_wrong > 0, "sled needs no help with this any more");
}

/// Room that was used again, or damage: of neither is known here what it was.
#[test]
fn what_is_torn_before_the_sync_is_left_as_it_is() {
    let working = Working::new();
    let lost = working.lost(512, |_| true);
    let db = lost.path().join(EVENTS).join(segments::NAME);
    let torn = working.offset(working.log_synced - 100_000);
    File::options().write(true).open(&db).unwrap().write_all_at(&[7; 512], torn).unwrap();
    let before = fs::read(&db).unwrap();
    tear::cut(&lost.path().join(EVENTS), Some(working.log_synced)).unwrap();
    assert!(fs::read(&db).unwrap() == before, "nothing is cut");
    tear::cut(&lost.path().join(EVENTS), Some(working.log_synced - 110_000)).unwrap();
    assert!(fs::read(&db).unwrap() != before, "it is unless it was synced");
}

/// Of a file that was removed before it was synced, the name may be on disk and its bytes not. sled ends its log at a file
/// that is torn, whatever came after it.
#[test]
fn a_torn_file_of_what_was_replaced_takes_nothing() {
    let data = TempDir::new().unwrap();
    let db = open(data.path());
    let (mut seen, mut written) = (BTreeMap::<OsString, Vec<u8>>::new(), Rows::new());
    let gone = (0..2_000).find_map(|n| {
        let (key, row) = write(n, 40);
        db.put(&key, &row[..]).unwrap();
        written.insert(key, n);
        let there = files(data.path());
        let gone = seen.iter().find(|(name, _)| !there.contains_key(*name)).map(|(name, _)| name.clone());
        seen.extend(there);
        gone
    });
    let name = gone.expect("sled removes what was replaced");
    db.sync().unwrap();
    for torn in [0, 4, 100_000] {
        let lost = copied(data.path());
        fs::write(lost.path().join(EVENTS).join("blobs").join(&name), &seen[&name][..torn]).unwrap();
        assert_eq!(rows_of(lost.path()), written, "{torn} of {} bytes", seen[&name].len());
        assert_eq!(rows_of(lost.path()), written, "and again");
    }
}

/// Else what sled wrote in place of a page could be lost while that page is no longer there: see [`Database::keep_up`].
#[test]
fn the_log_is_never_further_ahead_of_the_mark_than_sled_leaves_room_alone() {
    let data = TempDir::new().unwrap();
    let db = open(data.path());
    let before = db.log_end();
    let behind = (0..2_000).map(|n| {
        let (key, row) = write(n, u32::MAX);
        db.put(&key, &row[..]).unwrap();
        let marked = Mark::read(&data.path().join(EVENTS)).unwrap().unwrap();
        // Else how far sled's own threads got would be left to chance.
        db.flush().unwrap() - marked.synced.unwrap()
    });
    let behind = behind.max().unwrap();
    assert!(db.log_end() - before > 4 << 20, "{} without a sync of ours", db.log_end());
    assert!(behind <= 1 << 20, "{behind}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_was_lost_of_unsynced_writes_the_beginning_opens(losses in losses()) {
        let working = Working::new();
        for loss in losses {
            working.is_a_beginning_after(loss)?;
        }
    }

    #[test]
    fn whatever_was_lost_while_room_is_used_again_the_beginning_opens(
        losses in losses(), writes in 500..2_500_u32, keys in 100..600_u32,
    ) {
        let working = Working::overwriting(writes, keys);
        for loss in losses {
            working.is_a_beginning_after(loss)?;
        }
    }
}

/// The size of a page, how many of 100 arrived, which.
type Loss = (usize, u64, u64);

fn losses() -> impl Strategy<Value = Vec<Loss>> {
    let loss = (prop::sample::select(vec![512, 4_096]), prop::sample::select(vec![1, 10, 50, 90, 99]), any::<u64>());
    prop::collection::vec(loss, 6)
}

impl Working {
    fn is_a_beginning_after(&self, (page, percent, seed): Loss) -> Result<(), TestCaseError> {
        let mut drawn = 0_u64;
        let lost = self.lost(page, |_| {
            drawn += 1;
            u64::from(crc32fast::hash(&[seed.to_le_bytes(), drawn.to_le_bytes()].concat())) % 100 < percent
        });
        let rows = rows_of(lost.path());
        prop_assert!(self.is_beginning(&rows), "{} of {}: {:?}", self.writes_synced, self.writes, rows);
        Ok(())
    }
}
