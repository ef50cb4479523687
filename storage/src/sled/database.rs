use std::any::Any;
use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::blobs::Blobs;
use super::clean::NoteAtEnd;
use super::lock::DataLock;
use super::mark::Mark;
use super::second_copy::SecondCopy;
use super::space::RESERVE_BYTES;
use super::totals::{Totals, mixed};
use super::tree::Tree;
use super::young::Young;
use super::{keys, suspect, walk};
use crate::ids::{Epoch, Seq};
use crate::records::{Change, StoreError};

/// One open database: the tree, and what it takes to make it durable.
pub(super) struct Database {
    tree: Tree,
    /// After the tree.
    at_end: NoteAtEnd,
    pub(super) found: Found,
    /// There is a second copy of all records, or will be.
    has_copy: bool,
    path: PathBuf,
    /// Entries whose rows are not in their logs yet.
    pub(super) young: Young,
    /// A page was met that is not as it was written.
    is_damaged: AtomicBool,
    /// A write has failed, and some of it may be done.
    is_half_written: AtomicBool,
    /// The newest positions of all logs, added up; see [totals](super::totals).
    ends: AtomicU64,
    /// Which logs there are: their epochs, mixed and added up.
    logs: AtomicU64,
    /// What the ends were when the last sync was done, [`NO_SYNC`] before; `None` after one that failed.
    synced_ends: Mutex<Option<u64>>,
    /// sled's flush writes and starts the writeback, but waits for no disk: this handle does.
    file: File,
    /// What only a sync needs; syncs go one after the other.
    syncing: Mutex<Syncing>,
    /// How far the log may go before [`Database::keep_up`].
    log_max: AtomicU64,
    /// Something was written after the last sync.
    is_behind: AtomicBool,
    /// Last, so that the directory stays locked until the tree is closed.
    _lock: Arc<DataLock>,
    #[cfg(test)]
    pub(super) fail_sync: AtomicBool,
    /// The next batches meet damage.
    #[cfg(test)]
    pub(super) fail_batch: AtomicBool,
    /// The most room that [`Database::room`] tells of: what others write to the file system changes nothing then.
    #[cfg(test)]
    pub(super) room_max: AtomicU64,
}

/// How a database was found when it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// As it was closed.
    AsClosed,
    /// Nobody closed it: it may have more than was synced.
    AfterCrash,
    /// Any row may lack its newest change, until all were looked at; see [suspect].
    Doubtful,
}

/// Files that are opened for a change, and by whoever else opens some meanwhile.
const FILES_AT_ONCE: usize = 16;
/// No ends are that many.
const NO_SYNC: u64 = u64::MAX;

struct Syncing {
    blobs: Blobs,
    mark: Mark,
    copy: Option<SecondCopy>,
}

impl Database {
    /// `syncs` is what the mark goes on from.
    pub(super) fn new(tree: Tree, path: &Path, syncs: u64, found: Found, lock: Arc<DataLock>) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path.join("db"))?;
        let syncing = Syncing { blobs: Blobs::new(path)?, mark: Mark::open(path, syncs)?, copy: None };
        Ok(Self {
            tree,
            at_end: NoteAtEnd::new(path),
            found,
            has_copy: false,
            path: path.to_owned(),
            young: Young::default(),
            is_damaged: AtomicBool::new(false),
            is_half_written: AtomicBool::new(false),
            ends: AtomicU64::new(0),
            logs: AtomicU64::new(0),
            synced_ends: Mutex::new(Some(NO_SYNC)),
            file,
            syncing: Mutex::new(syncing),
            log_max: AtomicU64::new(u64::MAX),
            is_behind: AtomicBool::new(false),
            _lock: lock,
            #[cfg(test)]
            fail_sync: AtomicBool::new(false),
            #[cfg(test)]
            fail_batch: AtomicBool::new(false),
            #[cfg(test)]
            room_max: AtomicU64::new(u64::MAX),
        })
    }

    /// Makes everything written so far survive kill -9 and power loss.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.is_behind.store(false, Ordering::Relaxed);
        let ends = self.ends.load(Ordering::Relaxed);
        let synced = self.write_and_sync(ends);
        let mut synced_ends = self.synced_ends.lock().unwrap_or_else(PoisonError::into_inner);
        // What a failed sync has left is not known, whatever a later one says.
        *synced_ends = synced_ends.filter(|_| synced.is_ok()).map(|_| ends);
        synced
    }

    /// As [`Self::sync`], unless nothing was written since the last one.
    pub(super) fn sync_rest(&self) -> Result<(), StoreError> {
        if self.is_behind() { self.sync() } else { Ok(()) }
    }

    /// Whether something was written after the last sync.
    pub(super) fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Relaxed)
    }

    fn write_and_sync(&self, ends: u64) -> Result<(), StoreError> {
        #[cfg(test)]
        if self.fail_sync.load(Ordering::SeqCst) {
            return Err(failed(io::Error::other("told to fail")));
        }
        let mut syncing = self.syncing();
        let syncing = &mut *syncing;
        let frame = syncing.copy.as_mut().map_or(Ok(None), SecondCopy::next_frame).map_err(failed)?;
        if let Some(frame) = &frame {
            self.insert(keys::COPY, &frame.state[..])?;
        }
        self.insert(keys::SYNCS, &self.totals(ends).row(syncing.mark.next())[..])?;
        self.sync_log(syncing)?;
        // Only what the database has: after a crash it says that the copy lacks something, never the other way round.
        if let (Some(frame), Some(copy)) = (frame, &mut syncing.copy)
            && let Some(state) = copy.append(frame, self)?
        {
            self.insert(keys::COPY, &state[..])?;
        }
        Ok(())
    }

    /// What sled has written is on disk, and the mark says how far that is.
    fn sync_log(&self, syncing: &mut Syncing) -> Result<(), StoreError> {
        let mut log_end = self.flush()?;
        loop {
            // After the flush, which may write some, and before the log that points at them.
            syncing.blobs.sync(log_end).map_err(failed)?;
            // A reader may have replaced one before it was looked at: what it wrote instead has to be in the log as well.
            let flushed = self.flush()?;
            if flushed == log_end {
                break;
            }
            log_end = flushed;
        }
        self.file.sync_data().map_err(failed)?;
        syncing.blobs.log_is_synced().map_err(failed)?;
        let log_max = syncing.mark.done(log_end).map_err(failed)?;
        self.log_max.store(log_max, Ordering::Relaxed);
        Ok(())
    }

    /// Writes to the file all of the log that there is; up to which place that is.
    pub(super) fn flush(&self) -> Result<u64, StoreError> {
        self.tree.flush().map_err(|error| self.write_fault(error))?;
        Ok(self.log_end())
    }

    /// sled uses the room of a segment again once what replaced it is a MiB back in its log, synced or not. So the log of
    /// a long batch, or of sweeps, is synced amid it: else a loss of power could take what replaced a page that was synced,
    /// and the page itself is no longer there.
    fn keep_up(&self) -> Result<(), StoreError> {
        self.is_behind.store(true, Ordering::Relaxed);
        if self.log_end() <= self.log_max.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.sync_log(&mut self.syncing())
    }

    /// Up to which place sled has written its log to the file.
    pub(super) fn log_end(&self) -> u64 {
        u64::try_from(self.tree.context.pagecache.log.stable_offset() + 1).unwrap_or(0)
    }

    /// sled may open a file with a damaged part as a database without the rows of that part, and not say so. Rows that
    /// are missing within a log are noticed when they are read, but not that a log lacks its end: its positions would be
    /// given a second time. So the ends of all logs, added up, are kept with the number of syncs; fewer are damage. So are
    /// other logs than there were: one that was forgotten and is back would make up for ends that are missing. One look-up
    /// a log, which is too long for each opening of a large store: see [`Database::trust_totals`].
    pub(super) fn look_at_ends(&self, known: Option<Totals>) -> Result<(), StoreError> {
        let mut found = Totals { ends: 0, logs: Some(0) };
        for (of, head) in walk::heads(self)? {
            let last = self.last_entry(of, head)?;
            found.ends = found.ends.wrapping_add(last.map_or(head.floor.prev(), |(seq, _)| seq).0);
            found.logs = found.logs.map(|logs| logs.wrapping_add(mixed(head.epoch)));
        }
        self.trust_totals(found);
        let damaged = |detail| Err(StoreError::Damaged { path: self.path.display().to_string(), detail });
        match known {
            Some(known) if known.logs.is_some() && known.logs != found.logs => {
                damaged("it has other logs than it had".to_owned())
            }
            Some(known) if found.ends < known.ends => {
                damaged(format!("its logs end {} events too early", known.ends - found.ends))
            }
            _ => Ok(()),
        }
    }

    /// The database was closed with all of it synced, and sled finds all of it: it has the logs that it had, and they end
    /// where they did.
    pub(super) fn trust_totals(&self, known: Totals) {
        self.ends.store(known.ends, Ordering::Relaxed);
        self.logs.store(known.logs.unwrap_or_default(), Ordering::Relaxed);
    }

    fn totals(&self, ends: u64) -> Totals {
        Totals { ends, logs: Some(self.logs.load(Ordering::Relaxed)) }
    }

    /// An entry was written.
    pub(super) fn note_appended(&self) {
        self.ends.fetch_add(1, Ordering::Relaxed);
    }

    /// A log of this epoch is about to be made.
    pub(super) fn note_created(&self, epoch: Epoch) -> Result<(), StoreError> {
        self.logs.fetch_add(mixed(epoch), Ordering::Relaxed);
        self.put_next_totals()
    }

    /// A log of this epoch that ended there is about to go.
    pub(super) fn note_forgotten(&self, epoch: Epoch, newest: Seq) -> Result<(), StoreError> {
        self.ends.fetch_sub(newest.0, Ordering::Relaxed);
        self.logs.fetch_sub(mixed(epoch), Ordering::Relaxed);
        self.put_next_totals()
    }

    /// Of the sync to come: what was written since the last one may be lost although this is not. Before what it counts in:
    /// of that a write that fails may leave a half, which nothing is to be held against then.
    fn put_next_totals(&self) -> Result<(), StoreError> {
        let totals = self.totals(self.ends.load(Ordering::Relaxed));
        let next = self.syncing().mark.last() + 1;
        self.put(keys::SYNCS, &totals.row(next)[..])
    }

    /// It has a second copy: it is not said to be closed after a crash before [`Self::start_copy`] has made the two one.
    pub(super) fn with_copy(mut self) -> Self {
        self.has_copy = true;
        self
    }

    /// Keeps a second copy of all records from now on.
    pub(super) fn start_copy(&self, data: &Path) -> Result<(), StoreError> {
        let copy = SecondCopy::open(data, self)?;
        let has_all = copy.has_all();
        self.syncing().copy = Some(copy);
        if has_all { Ok(()) } else { self.sync() }
    }

    /// Records are being changed: the second copy, if there is one, follows at the next sync.
    pub(super) fn note(&self, changes: &[Change]) -> Result<(), StoreError> {
        self.syncing().copy.as_mut().map_or(Ok(()), |copy| copy.note(changes)).map_err(failed)
    }

    fn syncing(&self) -> MutexGuard<'_, Syncing> {
        self.syncing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a page was met that is not as it was written.
    pub(super) fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Acquire)
    }

    /// An error of sled's. sled checks a page when it reads it, so damage may show long after the database was opened:
    /// it is written down, and looked for everywhere when the database is opened again.
    pub(super) fn fault(&self, error: ::sled::Error) -> StoreError {
        match error {
            ::sled::Error::Corruption { .. } => self.note_damage(&error.to_string()),
            // A file is shorter than it was.
            ::sled::Error::Io(short) if short.kind() == io::ErrorKind::UnexpectedEof => {
                self.note_damage(&short.to_string())
            }
            error => failed(error),
        }
    }

    /// An error of sled's in a write: it may have done some of it, also of a batch.
    fn write_fault(&self, error: ::sled::Error) -> StoreError {
        self.half_written(self.fault(error))
    }

    /// Some of what was to be written may be missing: no later sync may make that last.
    pub(super) fn half_written(&self, error: StoreError) -> StoreError {
        self.is_half_written.store(true, Ordering::Release);
        error
    }

    /// Whether a write has failed.
    pub(super) fn is_half_written(&self) -> bool {
        self.is_half_written.load(Ordering::Acquire)
    }

    /// An error that the one writer met. A reader may miss a file because the writer has just replaced what was in it; the
    /// writer misses none that should be there.
    pub(super) fn note_missing_file(&self, error: &StoreError) {
        if let StoreError::Io(error) = error
            && let Some(::sled::Error::Io(missing)) = error.downcast_ref()
            && missing.kind() == io::ErrorKind::NotFound
        {
            self.note_damage(&missing.to_string());
        }
    }

    /// sled panics on much of what is wrong on disk.
    pub(super) fn panicked(&self, panic: &(dyn Any + Send)) -> StoreError {
        self.note_damage(&message(panic))
    }

    /// A page is not as it was written.
    pub(super) fn note_damage(&self, detail: &str) -> StoreError {
        if !self.is_damaged.swap(true, Ordering::AcqRel) {
            let noted = suspect::note(&self.path);
            tracing::error!(
                store.path = %self.path.display(), detail, noted = noted.is_ok(),
                "The store is damaged on disk; what is not affected goes on. Restart the server: it looks through the \
                 store and starts logs that are damaged anew."
            );
        }
        StoreError::Damaged { path: self.path.display().to_string(), detail: detail.to_owned() }
    }

    /// Bytes that the file system has left for us.
    pub(super) fn room(&self) -> Result<u64, StoreError> {
        let room = rustix::fs::fstatvfs(&self.file).map_err(failed)?;
        let room = room.f_bavail.saturating_mul(room.f_frsize);
        #[cfg(test)]
        let room = room.min(self.room_max.load(Ordering::SeqCst));
        Ok(room)
    }

    /// Whether a file of so many bytes may be written.
    pub(super) fn has_room_for(&self, bytes: u64) -> Result<bool, StoreError> {
        Ok(self.room()? > RESERVE_BYTES.saturating_add(bytes))
    }

    /// Whether a change may open what files it needs: a page that grows large is a file of its own (`blobs.rs`), and one that
    /// cannot be opened leaves the write half done.
    pub(super) fn may_open_files(&self) -> bool {
        let spare: io::Result<Vec<File>> =
            std::iter::repeat_with(|| self.file.try_clone()).take(FILES_AT_ONCE).collect();
        spare.is_ok()
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<::sled::IVec>, StoreError> {
        self.tree.get(key).map_err(|error| self.fault(error))
    }

    pub(super) fn put(&self, key: &[u8], row: impl Into<::sled::IVec>) -> Result<(), StoreError> {
        self.insert(key, row)?;
        self.keep_up()
    }

    fn insert(&self, key: &[u8], row: impl Into<::sled::IVec>) -> Result<(), StoreError> {
        self.tree.insert(key, row).map(drop).map_err(|error| self.write_fault(error))
    }

    pub(super) fn remove(&self, key: &[u8]) -> Result<(), StoreError> {
        self.tree.remove(key).map(drop).map_err(|error| self.write_fault(error))?;
        self.keep_up()
    }

    /// All of the batch or nothing, also across kill -9.
    pub(super) fn apply(&self, batch: ::sled::Batch) -> Result<(), StoreError> {
        #[cfg(test)]
        if self.fail_batch.load(Ordering::SeqCst) {
            return Err(self.write_fault(::sled::Error::Io(io::ErrorKind::UnexpectedEof.into())));
        }
        self.tree.apply_batch(batch).map_err(|error| self.write_fault(error))?;
        self.keep_up()
    }

    pub(super) fn prefix(
        &self,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(::sled::IVec, ::sled::IVec), StoreError>> {
        self.tree.scan_prefix(prefix).map(move |row| row.map_err(|error| self.fault(error)))
    }

    pub(super) fn range<K: AsRef<[u8]>>(
        &self,
        span: RangeInclusive<K>,
    ) -> impl DoubleEndedIterator<Item = Result<(::sled::IVec, ::sled::IVec), StoreError>> {
        // An inverted range would panic in the tree.
        let rows = (span.start().as_ref() <= span.end().as_ref()).then(|| self.tree.range(span));
        rows.into_iter().flatten().map(move |row| row.map_err(|error| self.fault(error)))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let synced_ends = *self.synced_ends.get_mut().unwrap_or_else(PoisonError::into_inner);
        let is_copied = match &self.syncing().copy {
            Some(copy) => copy.has_all(),
            None => !self.has_copy || self.found == Found::AsClosed,
        };
        let is_synced = synced_ends == Some(self.ends.load(Ordering::Relaxed));
        self.at_end.is_exact = !self.is_damaged() && is_synced && is_copied;
    }
}

/// An I/O error, or one of sled's, as the store's.
pub(super) fn failed(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Io(Box::new(error))
}

/// What a panic says.
pub(super) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("sled panicked").to_owned()
}
