use std::fs::File;
use std::io;
use std::path::Path;

use super::blobs;
use super::segments::{self, HEAD_BYTES, Head, SEGMENT_BYTES};

/// Whether sled finds all of the log in `database`, which is not open, that it replays when it opens it: what was written
/// since its last snapshot. sled checks what is older when it reads it, and says so. But at a damaged message it skips the
/// rest of the segment, and skips a segment whose head is damaged, both without a word: rows then lack their newest
/// changes. A crash may look the same, so this is a reason to look closely, and no proof of damage.
///
/// Reads no more than sled itself is about to read.
pub(super) fn is_intact(database: &Path) -> io::Result<bool> {
    let Some(snapshot) = segments::snapshot(database)? else { return Ok(false) };
    let file = File::open(database.join(segments::NAME))?;
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
    // After the last one comes nothing: that it is all there is told by the number of syncs.
    replayed.pop();
    for (number, at) in replayed {
        let (segment, mut of_files) = (segments::read(&file, at)?, Vec::new());
        let whole =
            segments::walk(&segment, number, HEAD_BYTES..SEGMENT_BYTES, |_, message| of_files.extend(message.blob()));
        if whole.is_err() {
            return Ok(false);
        }
        for blob in of_files {
            if !blobs::is_whole(database, &blob)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
