use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// How many syncs a database has had, and up to which place its log was on disk then, in a file of its own:
/// `<database>/mark`, 8 bytes each and a checksum of both, big-endian.
///
/// sled opens a file that lacks its end, or of which it understands nothing, as a database with fewer or no rows. The
/// number is also a row, written before each sync; the mark is written after it. So the row is at least the mark, also
/// after kill -9 and power loss, and a database with less has lost answered writes.
///
/// The mark is synced only now and then, so a loss of power may leave an older one; but none that is more than
/// [`BEHIND_BYTES_MAX`] of log behind: `tear.rs` says what for.
pub(super) struct Mark {
    file: File,
    syncs: u64,
    /// The place in the log that the mark on disk has at least.
    on_disk: Option<u64>,
}

/// What a mark says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marked {
    pub(super) syncs: u64,
    /// The log before this place was on disk. `None` if that is not readable, or the database is of before there was this.
    pub(super) synced: Option<u64>,
}

/// How much of the log may be behind the place that is in the mark on disk: half of what sled writes at least before it
/// uses the room of a segment again.
const BEHIND_BYTES_MAX: u64 = 512 * 1024;

impl Mark {
    /// `None` if there was no database yet.
    pub(super) fn read(database: &Path) -> io::Result<Option<Marked>> {
        let bytes = match fs::read(database.join(NAME)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let number = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        // Shorter only if the process ended between creating and writing it.
        let syncs = number(0).unwrap_or(0);
        let synced = number(8).filter(|synced| bytes == spelled(syncs, *synced));
        Ok(Some(Marked { syncs, synced }))
    }

    pub(super) fn open(database: &Path, syncs: u64) -> io::Result<Self> {
        let options = &mut File::options();
        let file = options.create(true).truncate(false).write(true).open(database.join(NAME))?;
        Ok(Self { file, syncs, on_disk: None })
    }

    /// The number of the last sync.
    pub(super) fn last(&self) -> u64 {
        self.syncs
    }

    /// The number of the sync that comes next.
    pub(super) fn next(&mut self) -> u64 {
        self.syncs += 1;
        self.syncs
    }

    /// All syncs that were counted are done, and the log before this place is on disk. Says up to where the log may go
    /// before that is to be said again.
    pub(super) fn done(&mut self, synced: u64) -> io::Result<u64> {
        self.file.write_all_at(&spelled(self.syncs, synced), 0)?;
        let log_max = match self.on_disk {
            Some(on_disk) if synced <= on_disk + BEHIND_BYTES_MAX => on_disk,
            _ => {
                self.file.sync_data()?;
                self.on_disk = Some(synced);
                synced
            }
        };
        Ok(log_max + BEHIND_BYTES_MAX)
    }
}

fn spelled(syncs: u64, synced: u64) -> Vec<u8> {
    let mut mark = [syncs.to_be_bytes(), synced.to_be_bytes()].concat();
    mark.extend(crc32fast::hash(&mark).to_be_bytes());
    mark
}

/// The file's name.
const NAME: &str = "mark";
