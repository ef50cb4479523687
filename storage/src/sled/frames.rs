use std::io::{self, Read, Write};

/// Bytes before a frame's payload: length, its complement, checksum.
pub(super) const HEAD_BYTES: usize = 12;
/// A frame longer than this is damage; a row is never split, and none is that large.
const PAYLOAD_BYTES_MAX: u32 = 1 << 30;
/// Rows are collected into frames of about this many bytes.
pub(super) const PAYLOAD_BYTES: usize = 256 * 1024;
/// The row length that says that the row is deleted.
const DELETED: u32 = u32::MAX;

/// The files of frames: the directory's second copy and portable exports.
///
/// A file is its kind (8 bytes), then frames: length of the payload (4), the same with all bits inverted (4), checksum
/// (4), payload; numbers big-endian. So a frame that is cut off is told from one whose length is damaged. The checksum (CRC-32) is of the checksum before it (of the kind, at first), the length and the payload, so that a frame
/// that is missing, doubled or out of place is found like one that is damaged.
pub(super) struct FrameWriter<W> {
    to: W,
    at: Position,
}

/// How far a file of frames goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// Bytes.
    pub(super) end: u64,
    /// The checksum of the last frame.
    pub(super) crc: u32,
}

impl Position {
    fn of_kind(kind: [u8; 8]) -> Self {
        Self { end: kind.len() as u64, crc: crc32fast::hash(&kind) }
    }

    /// The frame that comes here, whole, and where it ends.
    pub(super) fn frame(self, payload: &[u8]) -> io::Result<(Vec<u8>, Self)> {
        let len = u32::try_from(payload.len()).ok().filter(|len| *len <= PAYLOAD_BYTES_MAX);
        let len = len.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a row is too large"))?;
        let crc = checksum(self.crc, len, payload);
        let mut frame = Vec::with_capacity(HEAD_BYTES + payload.len());
        frame.extend_from_slice(&len.to_be_bytes());
        frame.extend_from_slice(&(!len).to_be_bytes());
        frame.extend_from_slice(&crc.to_be_bytes());
        frame.extend_from_slice(payload);
        let end = self.end + frame.len() as u64;
        Ok((frame, Self { end, crc }))
    }
}

impl<W: Write> FrameWriter<W> {
    pub(super) fn new(mut to: W, kind: [u8; 8]) -> io::Result<Self> {
        to.write_all(&kind)?;
        Ok(Self { to, at: Position::of_kind(kind) })
    }

    pub(super) fn write(&mut self, payload: &[u8]) -> io::Result<()> {
        let (frame, at) = self.at.frame(payload)?;
        self.to.write_all(&frame)?;
        self.at = at;
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<(W, Position)> {
        self.to.flush()?;
        Ok((self.to, self.at))
    }
}

/// Reads frames one by one, so memory is bounded by the largest.
pub(super) struct FrameReader<R> {
    from: R,
    at: Position,
}

/// What comes next in a file of frames.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Whole(Vec<u8>),
    /// The file ends here.
    End,
    /// It ends amid a frame: the last write was cut off.
    Torn,
}

impl<R: Read> FrameReader<R> {
    /// # Errors
    /// `InvalidData` for a file of another kind.
    pub(super) fn new(mut from: R, kind: [u8; 8]) -> io::Result<Self> {
        let mut found = Vec::new();
        from.by_ref().take(kind.len() as u64).read_to_end(&mut found)?;
        if found != kind {
            return Err(damaged("it is not a file of this kind and version"));
        }
        Ok(Self { from, at: Position::of_kind(kind) })
    }

    /// Where the last frame ends that was read.
    pub(super) fn at(&self) -> Position {
        self.at
    }

    /// # Errors
    /// `InvalidData` if the frame is damaged.
    pub(super) fn next(&mut self) -> io::Result<Frame> {
        let mut head = Vec::with_capacity(HEAD_BYTES);
        self.from.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head)?;
        if head.is_empty() {
            return Ok(Frame::End);
        }
        let Some((len, inverted, crc)) = split_head(&head) else { return Ok(Frame::Torn) };
        if len != !inverted || len > PAYLOAD_BYTES_MAX {
            return Err(damaged("the length of a part is damaged"));
        }
        // Grows with what is there, not with what a damaged length says.
        let mut payload = Vec::new();
        self.from.by_ref().take(len.into()).read_to_end(&mut payload)?;
        if payload.len() < len as usize {
            return Ok(Frame::Torn);
        }
        if checksum(self.at.crc, len, &payload) != crc {
            return Err(damaged("a checksum does not match"));
        }
        self.at = Position { end: self.at.end + (HEAD_BYTES + payload.len()) as u64, crc };
        Ok(Frame::Whole(payload))
    }
}

fn split_head(head: &[u8]) -> Option<(u32, u32, u32)> {
    let (len, rest) = head.split_first_chunk::<4>()?;
    let (inverted, rest) = rest.split_first_chunk::<4>()?;
    let crc = rest.first_chunk::<4>()?;
    Some((u32::from_be_bytes(*len), u32::from_be_bytes(*inverted), u32::from_be_bytes(*crc)))
}

fn checksum(before: u32, len: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&before.to_be_bytes());
    hasher.update(&len.to_be_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// Adds a row, or that it is deleted, to a payload: key length, row length, key, row.
pub(super) fn push_row(payload: &mut Vec<u8>, key: &[u8], row: Option<&[u8]>) -> io::Result<()> {
    let len = |bytes: &[u8]| {
        let len = u32::try_from(bytes.len()).ok().filter(|len| *len < DELETED);
        len.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a row is too large"))
    };
    payload.extend_from_slice(&len(key)?.to_be_bytes());
    payload.extend_from_slice(&row.map_or(Ok(DELETED), len)?.to_be_bytes());
    payload.extend_from_slice(key);
    payload.extend_from_slice(row.unwrap_or_default());
    Ok(())
}

/// The rows of a payload.
///
/// # Errors
/// `InvalidData` from `each`, or if it is not made of rows.
pub(super) fn each_row(
    mut payload: &[u8],
    mut each: impl FnMut(&[u8], Option<&[u8]>) -> io::Result<()>,
) -> io::Result<()> {
    while !payload.is_empty() {
        let (lens, rest) = split_lens(payload).ok_or_else(cut_off)?;
        let (key, rest) = rest.split_at_checked(lens.0).ok_or_else(cut_off)?;
        let (row, rest) = rest.split_at_checked(lens.1.unwrap_or(0)).ok_or_else(cut_off)?;
        each(key, lens.1.map(|_| row))?;
        payload = rest;
    }
    Ok(())
}

/// Of a key and its row, if it has one.
type Lens = (usize, Option<usize>);

/// The lengths at the beginning of a row, and what comes after them.
fn split_lens(payload: &[u8]) -> Option<(Lens, &[u8])> {
    let (key_len, rest) = payload.split_first_chunk::<4>()?;
    let (row_len, rest) = rest.split_first_chunk::<4>()?;
    let row_len = Some(u32::from_be_bytes(*row_len)).filter(|len| *len != DELETED);
    Some(((u32::from_be_bytes(*key_len) as usize, row_len.map(|len| len as usize)), rest))
}

fn cut_off() -> io::Error {
    damaged("a row is cut off")
}

pub(super) fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KIND: [u8; 8] = *b"tests   ";

    fn written(payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut writer = FrameWriter::new(Vec::new(), KIND).unwrap();
        payloads.iter().for_each(|payload| writer.write(payload).unwrap());
        let (bytes, at) = writer.finish().unwrap();
        assert_eq!(at.end, bytes.len() as u64);
        bytes
    }

    /// The payloads up to the end; `None` if it is torn.
    fn read(bytes: &[u8]) -> io::Result<Option<Vec<Vec<u8>>>> {
        let mut reader = FrameReader::new(bytes, KIND)?;
        let mut payloads = Vec::new();
        loop {
            match reader.next()? {
                Frame::Whole(payload) => payloads.push(payload),
                Frame::End => return Ok(Some(payloads)),
                Frame::Torn => return Ok(None),
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_any_changed_byte_is_found(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6),
            at in any::<prop::sample::Index>(),
            by in 1..=255_u8,
        ) {
            let mut bytes = written(&payloads);
            prop_assert_eq!(read(&bytes).unwrap(), Some(payloads));
            let at = at.index(bytes.len());
            bytes[at] ^= by;
            prop_assert!(read(&bytes).is_err());
        }

        #[test]
        fn a_cut_is_told_from_the_end_unless_it_is_between_frames(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let bytes = written(&payloads);
            let cut = 8 + cut.index(bytes.len() - 8);
            match read(&bytes[..cut]).unwrap() {
                None => {}
                Some(found) => prop_assert_eq!(written(&found).len(), cut),
            }
        }

        #[test]
        fn rows_go_round_and_no_bytes_panic(
            rows in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..9), prop::option::of(prop::collection::vec(any::<u8>(), 0..9))), 0..9),
            hostile in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut payload = Vec::new();
            rows.iter().for_each(|(key, row)| push_row(&mut payload, key, row.as_deref()).unwrap());
            let mut found = Vec::new();
            each_row(&payload, |key, row| { found.push((key.to_vec(), row.map(<[u8]>::to_vec))); Ok(()) }).unwrap();
            prop_assert_eq!(found, rows);
            let _ = each_row(&hostile, |_, _| Ok(()));
            let _ = read(&[&KIND[..], &hostile].concat());
        }
    }
}
