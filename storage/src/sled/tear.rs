//! Where power was lost amid writes that nobody was answered, sled's log is torn: it writes segments side by side, so a
//! later one may be on disk and an earlier one not. sled reads on behind the tear, silently, if a segment there says that
//! what came before it was written (sled does not wait for the disk before it says so). Then later writes are there without
//! earlier ones: rows without the page they are in, and sled panics; or half a transaction.
//!
//! So before sled opens a database that was not closed, its log is cut at the first tear, and what opens is exactly
//! the beginning of what was written. This is done always and not only once sled has failed: it fails only at some of the
//! trees that are not whole, and has written to the file by then.
//!
//! A tear before the last sync is none of these: either sled used the room of a segment again whose pages had all been
//! written anew since, or it is damage. Both are left to sled and to what tells damage from a crash (`open.rs`,
//! [`Mark`](super::mark::Mark)). So the cut takes nothing that was answered, and nothing that could be salvaged, and there
//! is nothing to keep of what it takes. Since sled uses no room again of what was written in the last MiB of its log, and
//! the mark is never further behind than that ([`Database`](super::database::Database) sees to it), each gap behind the
//! mark is a tear.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::blobs;
use super::segments::{self, Blob, Head, SEGMENT_BYTES};

/// Cuts the log in `database`, which was not closed, at the first place at which it is torn behind `synced`, up to where
/// it was on disk for sure. Then all of it is synced: sled's next snapshot says that it is.
pub(super) fn cut(database: &Path, synced: Option<u64>) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(database.join(segments::NAME))?;
    // As sled does: whoever has it open may still be writing.
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => io::ErrorKind::ResourceBusy.into(),
        TryLockError::Error(error) => error,
    })?;
    if let (Some(synced), Some(snapshot)) = (synced, segments::snapshot(database)?)
        && let Some(log) = Log::read(&file, snapshot, synced.max(snapshot))?
    {
        let lost = log.lost(database)?;
        let end = log.end(&lost);
        log.cut_at(&file, end)?;
        // sled ends its log at a file that is torn, and passes over one that is not there.
        let mut replaced = lost.iter().filter(|lost| log.is_replaced(lost, end));
        replaced.try_for_each(|lost| blobs::remove(database, &lost.blob))?;
    }
    file.sync_all()
}

/// What sled is about to replay: the log behind its snapshot.
struct Log {
    /// Where the segments are, by their numbers.
    segments: BTreeMap<u64, u64>,
    /// Up to where it was on disk for sure.
    synced: u64,
    /// Where the first message behind that is that is not whole.
    torn: u64,
    files: Vec<InFile>,
    /// Messages that have all of their page: their places and pages.
    pages: Vec<(u64, u64)>,
    /// The first and last places of transactions.
    transactions: Vec<(u64, u64)>,
}

/// A message that is a file.
struct InFile {
    at: u64,
    page: u64,
    blob: Blob,
}

impl Log {
    /// `None` if nothing begins where the synced part ends: that is none of what this is for.
    fn read(file: &File, snapshot: u64, synced: u64) -> io::Result<Option<Self>> {
        let (segments, files, pages, transactions) = Default::default();
        let mut log = Self { segments, synced, torn: synced, files, pages, transactions };
        for (head, at) in segments::heads(file)? {
            if let Head::Number(number) = head
                && number >= number_of(snapshot)
                && log.segments.insert(number, at).is_some()
            {
                return Ok(None);
            }
        }
        let replayed: Vec<_> = log.segments.range(..=number_of(synced)).map(|(number, at)| (*number, *at)).collect();
        for (number, at) in replayed {
            let (start, end) = (start_of(number), start_of(number + 1));
            // Where this is torn is none of ours.
            let _ = log.walk(&segments::read(file, at)?, snapshot.max(start)..synced.min(end));
        }
        while let Some(&at) = log.segments.get(&number_of(log.torn)) {
            let end = start_of(number_of(log.torn) + 1);
            match log.walk(&segments::read(file, at)?, log.torn..end) {
                Ok(()) => log.torn = end,
                Err(torn) => {
                    log.torn = torn;
                    return Ok(Some(log));
                }
            }
        }
        let begins = offset_of(log.torn) == 0;
        Ok(begins.then_some(log))
    }

    /// Takes in what stands between two places of a segment.
    ///
    /// # Errors
    /// The place at which it is torn.
    fn walk(&mut self, segment: &[u8], span: Range<u64>) -> Result<(), u64> {
        let number = number_of(span.start);
        let place = |offset: usize| start_of(number) + offset as u64;
        let offsets = offset_of(span.start)..usize::try_from(span.end - start_of(number)).unwrap_or(SEGMENT_BYTES);
        let whole = segments::walk(segment, number, offsets, |offset, message| {
            let (at, page) = (place(offset), message.page);
            self.files.extend(message.blob().map(|blob| InFile { at, page, blob }));
            self.transactions.extend(message.transaction().map(|last| (at, last)));
            if message.is_whole_page() {
                self.pages.push((at, page));
            }
        });
        whole.map_err(place)
    }

    /// The messages whose files are not whole. Of one that was replaced before a sync the name may be on disk, and none
    /// or some of the bytes.
    fn lost(&self, database: &Path) -> io::Result<Vec<&InFile>> {
        let mut lost = Vec::new();
        for file in &self.files {
            if !blobs::is_whole(database, &file.blob)? {
                lost.push(file);
            }
        }
        Ok(lost)
    }

    /// Whether the page was written anew since, before `end`: then sled has removed the file.
    fn is_replaced(&self, lost: &InFile, end: u64) -> bool {
        self.pages.iter().any(|(later, of)| *of == lost.page && (lost.at + 1..end).contains(later))
    }

    /// The log ends where it is torn, or before: at a message whose file is not whole and that was not replaced, or at a
    /// transaction that goes on behind the end.
    fn end(&self, lost: &[&InFile]) -> u64 {
        let mut end = self.torn;
        let cut = |end| {
            let lost = lost.iter().filter(|lost| !self.is_replaced(lost, end)).map(|lost| lost.at);
            let halved = self.transactions.iter().filter(|(_, last)| *last >= end).map(|(first, _)| *first);
            lost.chain(halved).find(|at| (self.synced..end).contains(at))
        };
        while let Some(at) = cut(end) {
            end = at;
        }
        end
    }

    /// Overwrites the segments behind, and what is behind in the segment that is torn. All of a segment and not only its
    /// head, so that it is as one that was never written, and not as one whose head is damaged.
    fn cut_at(&self, file: &File, end: u64) -> io::Result<()> {
        let mut behind = self.segments.range(end.div_ceil(SEGMENT_BYTES as u64)..);
        let segments = behind.clone().count();
        if segments == 0 && end == self.torn {
            // sled ends there as well.
            return Ok(());
        }
        tracing::warn!(
            log.end = end,
            segments,
            "Power was lost amid writes: what was written behind the first that did not arrive, and answered to nobody, is \
             cut off."
        );
        behind.try_for_each(|(_, at)| file.write_all_at(&vec![0; segments::read(file, *at)?.len()], *at))?;
        if let Some(at) = self.segments.get(&number_of(end)).filter(|_| offset_of(end) > 0) {
            let len = segments::read(file, *at)?.len();
            file.write_all_at(&vec![0; len.saturating_sub(offset_of(end))], at + offset_of(end) as u64)?;
        }
        Ok(())
    }
}

fn number_of(place: u64) -> u64 {
    place / SEGMENT_BYTES as u64
}

fn start_of(number: u64) -> u64 {
    number * SEGMENT_BYTES as u64
}

fn offset_of(place: u64) -> usize {
    (place % SEGMENT_BYTES as u64) as usize
}
