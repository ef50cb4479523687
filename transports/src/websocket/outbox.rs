//! A socket and what waits for it: whole frames, their payloads shared with every other connection.
//!
//! - A frame is not copied: a thousand stalled readers of a 1 MiB event would hold a gigabyte.
//! - What was not begun can be forgotten, which a revocation needs.
//! - When nothing waits, nothing is held, nor is there a buffer to read into.
//!
//! Messages come as ready-made frames, header included ([`Frame::wire`]), so that one is a single slice: a plain `write`,
//! where a header of its own would make it a `writev` of two. Several are written as vectors, at most [`SLICES_MAX`] a
//! call.
//!
//! [`Frame::wire`]: crate::Frame::wire

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::io::AsyncWrite;

use crate::bare::{BoxSocket, poll_read};

/// A socket with its outgoing frames.
#[repr(C)]
pub(super) struct Outbox {
    socket: BoxSocket,
    /// Bytes that the socket ever took.
    taken: u64,
    /// Nothing waits, neither here nor in layers below.
    is_flushed: bool,
    /// Reads before the task gets to look elsewhere.
    reads_left: u8,
    /// Those that left are empty.
    frames: SmallVec<[Bytes; 1]>,
    /// Frames that left.
    left: usize,
    /// Bytes of the next frame that the socket took.
    written: usize,
}

impl Outbox {
    pub(super) fn new(socket: BoxSocket) -> Self {
        Self { socket, frames: SmallVec::new(), left: 0, written: 0, taken: 0, is_flushed: true, reads_left: READS_MAX }
    }

    /// Queues a whole frame.
    pub(super) fn push(&mut self, frame: Bytes) {
        self.frames.push(frame);
        self.is_flushed = false;
    }

    /// Drops all frames of which the socket took nothing. `true` if none is left, so that another may be begun.
    pub(super) fn forget_unsent(&mut self) -> bool {
        self.frames.truncate(self.left + usize::from(self.written > 0));
        self.frames.len() == self.left
    }

    /// Bytes that the socket ever took.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Nothing waits.
    pub(super) fn is_flushed(&self) -> bool {
        self.is_flushed
    }

    /// Writes a frame before which nothing waits. The socket mostly takes it at once: then it was never queued.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, frame: &Bytes) -> Poll<io::Result<()>> {
        let sent = Pin::new(&mut self.socket).poll_write(cx, frame)?;
        let taken = if let Poll::Ready(taken) = sent { taken } else { 0 };
        self.taken += taken as u64;
        if taken < frame.len() {
            self.push(frame.clone());
            self.written = taken;
            return self.poll_flush(cx);
        }
        self.is_flushed = false;
        self.poll_flush_socket(cx)
    }

    /// Writes until nothing waits.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.left < self.frames.len() {
            let taken = ready!(self.poll_write_some(cx))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(taken);
        }
        self.poll_flush_socket(cx)
    }

    fn poll_flush_socket(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        self.is_flushed = true;
        Poll::Ready(Ok(()))
    }

    /// Reads what is there and shows it; how much it was, 0 at the end. Every [`READS_MAX`] reads the task gets to look
    /// at what else it waits for: fragments of a message never surface one by one, so a peer that sends empty ones without
    /// end would be read for ever.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, show: impl FnOnce(&[u8])) -> Poll<io::Result<usize>> {
        if self.reads_left == 0 {
            self.reads_left = READS_MAX;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let read = poll_read(&mut self.socket, cx, show);
        self.reads_left = if read.is_pending() { READS_MAX } else { self.reads_left - 1 };
        read
    }

    /// Ends what is sent.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    /// Writes as much as one system call takes.
    fn poll_write_some(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let (socket, waiting) = (Pin::new(&mut self.socket), self.frames.get(self.left..).unwrap_or_default());
        if let [only] = waiting {
            return socket.poll_write(cx, only.get(self.written..).unwrap_or_default());
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = fill(&mut slices, waiting, self.written);
        // Invariant: `fill` returns at most the length of `slices`.
        socket.poll_write_vectored(cx, slices.get(..count).unwrap_or_default())
    }

    fn advance(&mut self, mut taken: usize) {
        self.taken += taken as u64;
        while let Some(next) = self.frames.get_mut(self.left) {
            let wanting = next.len() - self.written;
            if taken < wanting {
                self.written += taken;
                return;
            }
            *next = Bytes::new();
            taken -= wanting;
            self.written = 0;
            self.left += 1;
        }
        (self.frames, self.left) = (SmallVec::new(), 0);
    }
}

/// Lays out frames as slices, the first without the bytes that were written. Gives the number of slices.
fn fill<'a>(slices: &mut [IoSlice<'a>], frames: &'a [Bytes], written: usize) -> usize {
    let begun = frames.first().and_then(|first| first.get(written..)).into_iter();
    let pieces = begun.chain(frames.iter().skip(1).map(Bytes::as_ref));
    slices.iter_mut().zip(pieces).map(|(slice, piece)| *slice = IoSlice::new(piece)).count()
}

/// Slices, so frames, a system call.
const SLICES_MAX: usize = 64;
/// Reads in a row; well below Tokio's budget of 128 operations, so that the rest of the task has some left.
const READS_MAX: u8 = 16;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::FutureExt;
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::websocket::wire;

    #[tokio::test]
    async fn frames_of_every_length_keep_their_bytes_through_a_narrow_pipe() {
        let (near, mut far) = tokio::io::duplex(97);
        let mut outbox = Outbox::new(Box::new(near));
        let mut expected = Vec::new();
        for len in [0_usize, 1, 125, 126, 65_535, 65_536] {
            let frame = wire::text(&[&"x".repeat(len)]);
            expected.extend_from_slice(&frame);
            outbox.push(frame);
        }
        let writer = async {
            poll_fn(|cx| outbox.poll_flush(cx)).await.unwrap();
            assert!(outbox.is_flushed() && outbox.forget_unsent());
            drop(outbox);
        };
        let mut got = Vec::new();
        let (_, read) = tokio::join!(writer, far.read_to_end(&mut got));
        read.unwrap();
        assert!(got == expected);
    }

    #[tokio::test]
    async fn frames_not_begun_are_forgotten_and_a_begun_one_is_not() {
        let (near, mut far) = tokio::io::duplex(12);
        let mut outbox = Outbox::new(Box::new(near));
        outbox.push(wire::text(&["not begun"]));
        assert!(outbox.forget_unsent());
        for text in ["gone", "begun", "not begun"] {
            outbox.push(wire::text(&[text]));
        }
        // Nobody reads: the pipe takes the first frame and a part of the second.
        assert!(poll_fn(|cx| outbox.poll_flush(cx)).now_or_never().is_none());
        assert!(!outbox.forget_unsent() && !outbox.is_flushed());
        let mut got = [0; 13];
        let (flushed, read) = tokio::join!(poll_fn(|cx| outbox.poll_flush(cx)), far.read_exact(&mut got));
        flushed.unwrap();
        read.unwrap();
        assert_eq!(&got, b"\x81\x04gone\x81\x05begun");
    }
}
