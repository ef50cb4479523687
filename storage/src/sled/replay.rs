use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// sled's unit of space, its default.
const SEGMENT_BYTES: usize = 512 * 1024;
/// Bytes before the first message of a segment: checksum 4, number 8, stable number 8; little-endian.
const SEGMENT_HEAD_BYTES: usize = 20;
/// A message begins only where so much is left of its segment.
const MESSAGE_HEAD_BYTES_MAX: usize = 32;
/// Kinds of messages: nothing was written; the rest of the segment is unused; the message is a file in `blobs`.
const NOTHING: u8 = 0;
const REST: u8 = 2;
const FILES: [u8; 3] = [7, 9, 11];
const KIND_MAX: u8 = 11;

/// Whether sled finds all of the log in `database`, which is not open, that it replays when it opens it: what was written
/// since its last snapshot. sled checks what is older when it reads it, and says so. But at a damaged message it skips the
/// rest of the segment, and skips a segment whose head is damaged, both without a word: rows then lack their newest
/// changes. A crash may look the same, so this is a reason to look closely, and no proof of damage.
///
/// Reads no more than sled itself is about to read.
pub(super) fn is_intact(database: &Path) -> io::Result<bool> {
    let Some(from) = snapshot(database)? else { return Ok(false) };
    let file = File::open(database.join("db"))?;
    let len = file.metadata()?.len();
    let (mut segments, mut bytes) = (Vec::new(), vec![0; SEGMENT_BYTES]);
    for at in (0..len).step_by(SEGMENT_BYTES) {
        let mut head = [0; SEGMENT_HEAD_BYTES];
        if len - at < SEGMENT_HEAD_BYTES as u64 {
            return Ok(false);
        }
        file.read_exact_at(&mut head, at)?;
        match segment(&head) {
            // Nothing is written there, or nothing any more.
            None if head.iter().all(|byte| *byte == 0) => {
                let bytes = bytes.get_mut(..SEGMENT_BYTES.min((len - at) as usize)).unwrap_or_default();
                file.read_exact_at(bytes, at)?;
                if bytes.iter().any(|byte| *byte != 0) {
                    return Ok(false);
                }
            }
            None => return Ok(false),
            Some(number) if number >= from => segments.push((number, at)),
            Some(_) => {}
        }
    }
    segments.sort_unstable();
    // After the last one comes nothing: that it is all there is told by the number of syncs.
    segments.pop();
    for (number, at) in segments {
        file.read_exact_at(&mut bytes, at)?;
        if !is_whole(&bytes, number, &database.join("blobs")) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The number of the segment in which the newest snapshot ends; that is in its name.
fn snapshot(database: &Path) -> io::Result<Option<u64>> {
    let mut newest = 0;
    for file in fs::read_dir(database)? {
        let name = file?.file_name();
        if let Some(number) = name.to_str().and_then(|name| name.strip_prefix("snap.")) {
            let Ok(lsn) = u64::from_str_radix(number, 16) else { return Ok(None) };
            newest = newest.max(lsn / SEGMENT_BYTES as u64);
        }
    }
    Ok(Some(newest))
}

/// The number of a segment that was written.
fn segment(head: &[u8; SEGMENT_HEAD_BYTES]) -> Option<u64> {
    let (crc, rest) = head.split_first_chunk::<4>()?;
    let lsn = u64::from_le_bytes(*rest.first_chunk()?) ^ (u64::MAX >> 1);
    (crc32fast::hash(rest) == !u32::from_le_bytes(*crc)).then_some(lsn / SEGMENT_BYTES as u64)
}

/// Whether the messages of a segment are whole up to its end.
fn is_whole(segment: &[u8], number: u64, blobs: &Path) -> bool {
    let mut at = SEGMENT_HEAD_BYTES;
    while at + MESSAGE_HEAD_BYTES_MAX <= segment.len() {
        let Some(message) = segment.get(at..).and_then(|rest| Message::read(rest, number)) else { return false };
        if message.kind == REST {
            return true;
        }
        let file = || Some(i64::from_le_bytes(*message.body.first_chunk()?).to_string());
        if FILES.contains(&message.kind) && !file().is_some_and(|name| blobs.join(name).exists()) {
            return false;
        }
        at += message.len;
    }
    true
}

struct Message<'a> {
    kind: u8,
    body: &'a [u8],
    len: usize,
}

impl<'a> Message<'a> {
    /// The message here, if it is as it was written: checksum 4, kind 1, then as variable numbers the length of the body,
    /// the number of the segment, the page.
    fn read(from: &'a [u8], segment: u64) -> Option<Self> {
        let (crc, rest) = from.split_first_chunk::<4>()?;
        let (&kind, rest) = rest.split_first()?;
        let (len, rest) = variable(rest)?;
        let (of, rest) = variable(rest)?;
        let (_, rest) = variable(rest)?;
        let body = rest.get(..usize::try_from(len).ok()?)?;
        let head_len = from.len() - rest.len();
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(body);
        hasher.update(from.get(4..head_len)?);
        let is_sound = hasher.finalize() == !u32::from_le_bytes(*crc);
        let is_known = kind != NOTHING && kind <= KIND_MAX && of == segment;
        (is_sound && is_known).then(|| Self { kind, body, len: head_len + body.len() })
    }
}

/// A number as sled writes it, and what comes after it.
fn variable(from: &[u8]) -> Option<(u64, &[u8])> {
    let (&first, rest) = from.split_first()?;
    let byte = |at: usize| rest.get(at).copied().map(u64::from);
    let (number, len) = match first {
        0..=240 => (first.into(), 0),
        241..=248 => (240 + 256 * (u64::from(first) - 241) + byte(0)?, 1),
        249 => (2_288 + 256 * byte(0)? + byte(1)?, 2),
        _ => {
            let len = usize::from(first) - 247;
            (rest.get(..len)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)), len)
        }
    };
    Some((number, rest.get(len..)?))
}
