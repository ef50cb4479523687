//! sled's log as it is on disk: one file of segments, in any order and used again and again, each with a number that tells
//! when it was written, and in it messages, each with a checksum. A place in the log is `number * SEGMENT_BYTES` plus the
//! offset in the segment: sled's LSN.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// sled's unit of space, its default.
pub(super) const SEGMENT_BYTES: usize = 512 * 1024;
/// Bytes before the first message of a segment: checksum 4, number 8, stable number 8; little-endian.
pub(super) const HEAD_BYTES: usize = 20;
/// A message begins only where so much is left of its segment.
const MESSAGE_HEAD_BYTES_MAX: usize = 32;
/// Kinds of messages: nothing was written; the rest of the segment is unused; a transaction begins.
const NOTHING: u8 = 0;
const REST: u8 = 2;
const TRANSACTION: u8 = 3;
const KIND_MAX: u8 = 11;

/// The file in a database's directory that has the segments.
pub(super) const NAME: &str = "db";

/// What the head of a segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    Number(u64),
    /// All zeros: nothing was written, or nothing any more.
    Zeros,
    Unreadable,
}

impl Head {
    fn read(head: &[u8; HEAD_BYTES]) -> Self {
        let number = || {
            let (crc, rest) = head.split_first_chunk::<4>()?;
            let lsn = u64::from_le_bytes(*rest.first_chunk()?) ^ (u64::MAX >> 1);
            (crc32fast::hash(rest) == !u32::from_le_bytes(*crc)).then_some(lsn / SEGMENT_BYTES as u64)
        };
        match number() {
            Some(number) => Self::Number(number),
            None if head.iter().all(|byte| *byte == 0) => Self::Zeros,
            None => Self::Unreadable,
        }
    }
}

/// The heads of all segments and where in the file they are. What is too short for a head is unreadable.
pub(super) fn heads(file: &File) -> io::Result<Vec<(Head, u64)>> {
    let len = file.metadata()?.len();
    let head = |at| {
        let mut head = [0; HEAD_BYTES];
        if len - at < HEAD_BYTES as u64 {
            return Ok((Head::Unreadable, at));
        }
        file.read_exact_at(&mut head, at)?;
        Ok((Head::read(&head), at))
    };
    (0..len).step_by(SEGMENT_BYTES).map(head).collect()
}

/// A checksum of the heads of all segments in their order in the file: another one if a segment is gone, or is as it was
/// before it was written last.
pub(super) fn fingerprint(file: &File) -> io::Result<u32> {
    let mut hasher = crc32fast::Hasher::new();
    for (head, at) in heads(file)? {
        let (kind, number) = match head {
            Head::Number(number) => (0, number),
            Head::Zeros => (1, at),
            Head::Unreadable => (2, at),
        };
        hasher.update(&[kind]);
        hasher.update(&number.to_be_bytes());
    }
    Ok(hasher.finalize())
}

/// The bytes of the segment there; the last one of the file may be shorter.
pub(super) fn read(file: &File, at: u64) -> io::Result<Vec<u8>> {
    let len = file.metadata()?.len().saturating_sub(at).min(SEGMENT_BYTES as u64);
    // Not into zeros: the allocator has these from the kernel, page by page, and a start reads thousands of segments.
    let mut segment = Vec::with_capacity(SEGMENT_BYTES);
    let mut file = file;
    file.seek(SeekFrom::Start(at))?;
    if file.take(len).read_to_end(&mut segment)? as u64 == len {
        Ok(segment)
    } else {
        Err(ErrorKind::UnexpectedEof.into())
    }
}

/// Up to which place in the log the newest snapshot goes, from where on sled replays it; that is in its name. `None` if
/// that name is none of sled's.
pub(super) fn snapshot(database: &Path) -> io::Result<Option<u64>> {
    let mut newest = 0;
    for file in fs::read_dir(database)? {
        let name = file?.file_name();
        if let Some(number) = name.to_str().and_then(|name| name.strip_prefix("snap.")) {
            let Ok(lsn) = u64::from_str_radix(number, 16) else { return Ok(None) };
            newest = newest.max(lsn);
        }
    }
    Ok(Some(newest))
}

/// Shows the messages of a segment that begin between two offsets, each with its offset. One begins at the first.
///
/// # Errors
/// The offset at which there is no whole message, if that is before the second offset and the segment's end.
pub(super) fn walk<'a>(
    segment: &'a [u8],
    number: u64,
    span: Range<usize>,
    mut each: impl FnMut(usize, &Message<'a>),
) -> Result<(), usize> {
    let mut at = span.start.max(HEAD_BYTES);
    while at < span.end && at + MESSAGE_HEAD_BYTES_MAX <= SEGMENT_BYTES {
        let message = segment.get(at..).and_then(|rest| Message::read(rest, number)).ok_or(at)?;
        if message.kind == REST {
            return Ok(());
        }
        each(at, &message);
        at += message.len;
    }
    Ok(())
}

pub(super) struct Message<'a> {
    kind: u8,
    pub(super) page: u64,
    body: &'a [u8],
    len: usize,
}

/// A message that is a file of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blob {
    /// In `blobs`.
    pub(super) name: String,
    /// The file says so as well.
    pub(super) kind: u8,
}

impl<'a> Message<'a> {
    /// The message here, if it is as it was written: checksum 4, kind 1, then as variable numbers the length of the body,
    /// the number of the segment, the page.
    fn read(from: &'a [u8], segment: u64) -> Option<Self> {
        let (crc, rest) = from.split_first_chunk::<4>()?;
        let (&kind, rest) = rest.split_first()?;
        let (len, rest) = variable(rest)?;
        let (of, rest) = variable(rest)?;
        let (page, rest) = variable(rest)?;
        let body = rest.get(..usize::try_from(len).ok()?)?;
        let head_len = from.len() - rest.len();
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(body);
        hasher.update(from.get(4..head_len)?);
        let is_sound = hasher.finalize() == !u32::from_le_bytes(*crc);
        let is_known = kind != NOTHING && kind <= KIND_MAX && of == segment;
        (is_sound && is_known).then(|| Self { kind, page, body, len: head_len + body.len() })
    }

    /// The file that this message is, if it is one.
    pub(super) fn blob(&self) -> Option<Blob> {
        let number = matches!(self.kind, 7 | 9 | 11).then(|| self.body.first_chunk())??;
        Some(Blob { name: i64::from_le_bytes(*number).to_string(), kind: self.kind })
    }

    /// The last place of the transaction that begins here, if one does. sled ends its log before a transaction that does
    /// not reach its last place.
    pub(super) fn transaction(&self) -> Option<u64> {
        let last = (self.kind == TRANSACTION).then(|| self.body.first_chunk())??;
        u64::try_from(i64::from_le_bytes(*last)).ok()
    }

    /// Whether it has all of its page, so that older messages of that page play no part any more.
    pub(super) fn is_whole_page(&self) -> bool {
        (4..=9).contains(&self.kind)
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
