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
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::blobs;
use super::segments::{self, HEAD_BYTES, Head, SEGMENT_BYTES};

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
        && let Some(log) = Log::read(&file, database, synced.max(snapshot))?
    {
        log.cut_at(&file, log.end())?;
    }
    file.sync_all()
}

/// The log behind what was synced.
struct Log {
    /// Where the segments are, by their numbers.
    segments: BTreeMap<u64, u64>,
    /// Where the first message is that is not whole.
    torn: u64,
    /// Messages that are files which are not there, and their pages.
    lost: Vec<(u64, u64)>,
    /// Messages that have all of their page.
    pages: Vec<(u64, u64)>,
}

impl Log {
    /// `None` if it does not begin there: that is none of what this is for.
    fn read(file: &File, database: &Path, from: u64) -> io::Result<Option<Self>> {
        let mut log = Self { segments: BTreeMap::new(), torn: from, lost: Vec::new(), pages: Vec::new() };
        for (head, at) in segments::heads(file)? {
            if let Head::Number(number) = head
                && number >= number_of(from)
                && log.segments.insert(number, at).is_some()
            {
                return Ok(None);
            }
        }
        while let Some(&at) = log.segments.get(&number_of(log.torn)) {
            let number = number_of(log.torn);
            let start = number * SEGMENT_BYTES as u64;
            let segment = segments::read(file, at)?;
            let whole = segments::walk(&segment, number, offset_of(log.torn), |offset, message| {
                let here = (start + offset as u64, message.page);
                if message.file().is_some_and(|name| !blobs::is_there(database, &name)) {
                    log.lost.push(here);
                } else if message.is_whole_page() {
                    log.pages.push(here);
                }
            });
            if let Err(offset) = whole {
                log.torn = start + offset as u64;
                return Ok(Some(log));
            }
            log.torn = start + SEGMENT_BYTES as u64;
        }
        let begins = offset_of(log.torn) == 0;
        Ok(begins.then_some(log))
    }

    /// The log ends where it is torn, or before, at a message whose file is not there. Unless the page was written anew
    /// since: then sled has removed the file.
    fn end(&self) -> u64 {
        let mut end = self.torn;
        let is_replaced =
            |(at, page): (u64, u64), end| self.pages.iter().any(|(later, of)| *of == page && (at..end).contains(later));
        while let Some((at, _)) = self.lost.iter().find(|lost| lost.0 < end && !is_replaced(**lost, end)) {
            end = *at;
        }
        end
    }

    /// Destroys the heads of the segments behind, and what is behind in the segment that is torn.
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
        behind.try_for_each(|(_, at)| file.write_all_at(&[0; HEAD_BYTES], *at))?;
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

fn offset_of(place: u64) -> usize {
    (place % SEGMENT_BYTES as u64) as usize
}
