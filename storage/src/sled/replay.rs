use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;

use super::blobs;
use super::segments::{self, Blob, HEAD_BYTES, Head, SEGMENT_BYTES};

/// Whether sled finds all of the log in `database`, which is not open, that it replays when it opens it: what was written
/// since its last snapshot. sled checks what is older when it reads it, and says so. But at a damaged message it skips the
/// rest of the segment, and skips a segment whose head is damaged, both without a word: rows then lack their newest
/// changes. A segment that is gone, or is one of before, looks like one that was never written: that it was is only known of
/// a database that was closed, whose segments were `closed` then.
///
/// A loss of power may look like damage, so this is a reason to look at all rows, and no proof. Reads no more than sled
/// itself is about to read.
pub(super) fn is_intact(database: &Path, closed: Option<u32>) -> io::Result<bool> {
    let Some(snapshot) = segments::snapshot(database)? else { return Ok(false) };
    let file = File::open(database.join(segments::NAME))?;
    if closed.is_some() && closed != Some(segments::fingerprint(&file)?) {
        return Ok(false);
    }
    let mut replayed = Vec::new();
    for (head, at) in segments::heads(&file)? {
        match head {
            Head::Zeros if segments::read(&file, at)?.iter().all(|byte| *byte == 0) => {}
            Head::Zeros | Head::Unreadable => return Ok(false),
            Head::Number(number) if number >= snapshot / SEGMENT_BYTES as u64 => replayed.push((number, at)),
            Head::Number(_) => {}
        }
    }
    replayed.sort_unstable();
    let mut files = Files::default();
    let last = replayed.pop();
    for (number, at) in replayed {
        if !files.read(&segments::read(&file, at)?, number) {
            return Ok(false);
        }
    }
    if let Some((number, at)) = last {
        // After what it has comes nothing: that it is all there is told by the number of syncs.
        files.read(&segments::read(&file, at)?, number);
    }
    files.are_whole(database)
}

/// The messages that are files of their own, by their pages: those that were not replaced since. sled removes the others.
#[derive(Default)]
struct Files(HashMap<u64, Vec<Blob>>);

impl Files {
    /// Takes in a segment, after those before it; whether all of it is whole.
    fn read(&mut self, segment: &[u8], number: u64) -> bool {
        let whole = segments::walk(segment, number, HEAD_BYTES..SEGMENT_BYTES, |_, message| {
            if message.is_whole_page() {
                self.0.remove(&message.page);
            }
            if let Some(blob) = message.blob() {
                self.0.entry(message.page).or_default().push(blob);
            }
        });
        whole.is_ok()
    }

    fn are_whole(&self, database: &Path) -> io::Result<bool> {
        for blob in self.0.values().flatten() {
            if !blobs::is_whole(database, blob)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
