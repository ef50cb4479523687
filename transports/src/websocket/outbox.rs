//! What waits for the socket: whole frames, their payloads shared with every other connection.
//!
//! It lies between tungstenite and the socket. Tungstenite reads, answers pings and closes; messages go straight in
//! here, because tungstenite's own write buffer
//! - copies each payload (a thousand stalled readers of a 1 MiB event would hold a gigabyte),
//! - keeps its capacity for as long as the connection lives,
//! - fills up (`WriteBufferFull`), so that it needs a limit above the largest event ever configured,
//! - can't be asked to forget what was not yet sent, which a revocation needs.
//!
//! When nothing waits, nothing is held. Messages come as ready-made frames, header included ([`Frame::wire`]), so that
//! one is a single slice: a plain `write`, where a header of its own would make it a `writev` of two. Several are
//! written as vectors, at most [`SLICES_MAX`] a call.
//!
//! [`Frame::wire`]: crate::Frame::wire

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A socket with its outgoing frames.
#[derive(Debug)]
pub(super) struct Outbox<S> {
    socket: S,
    frames: VecDeque<Bytes>,
    /// Bytes of the first frame that the socket took.
    written: usize,
    /// Bytes that the socket ever took.
    taken: u64,
    /// Reads before the task gets to look elsewhere.
    reads_left: u8,
}

impl<S> Outbox<S> {
    pub(super) fn new(socket: S) -> Self {
        Self { socket, frames: VecDeque::new(), written: 0, taken: 0, reads_left: READS_MAX }
    }

    /// Queues a whole frame.
    pub(super) fn push(&mut self, frame: Bytes) {
        self.frames.push_back(frame);
    }

    /// Drops all frames of which the socket took nothing. `true` if none is left, so that another may be begun.
    pub(super) fn forget_unsent(&mut self) -> bool {
        self.frames.truncate(usize::from(self.written > 0));
        self.frames.is_empty()
    }

    /// Bytes that the socket ever took.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    fn advance(&mut self, mut taken: usize) {
        self.taken += taken as u64;
        while let Some(first) = self.frames.front() {
            let left = first.len() - self.written;
            if taken < left {
                self.written += taken;
                return;
            }
            taken -= left;
            self.written = 0;
            self.frames.pop_front();
        }
        self.frames = VecDeque::new();
    }
}

impl<S: AsyncWrite + Unpin> Outbox<S> {
    /// Writes until nothing waits.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.frames.is_empty() {
            let taken = ready!(self.poll_write_some(cx))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(taken);
        }
        Poll::Ready(Ok(()))
    }

    /// Writes as much as one system call takes.
    fn poll_write_some(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let socket = Pin::new(&mut self.socket);
        if let (Some(only), 1) = (self.frames.front(), self.frames.len()) {
            return socket.poll_write(cx, only.get(self.written..).unwrap_or_default());
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = fill(&mut slices, &self.frames, self.written);
        // Invariant: `fill` returns at most the length of `slices`.
        socket.poll_write_vectored(cx, slices.get(..count).unwrap_or_default())
    }
}

/// Lays out frames as slices, the first without the bytes that were written. Gives the number of slices.
fn fill<'a>(slices: &mut [IoSlice<'a>], frames: &'a VecDeque<Bytes>, written: usize) -> usize {
    let begun = frames.front().and_then(|first| first.get(written..)).into_iter();
    let pieces = begun.chain(frames.iter().skip(1).map(Bytes::as_ref));
    slices.iter_mut().zip(pieces).map(|(slice, piece)| *slice = IoSlice::new(piece)).count()
}

impl<S: AsyncRead + Unpin> AsyncRead for Outbox<S> {
    /// Reads, but every [`READS_MAX`] reads lets the task look at what else it waits for: fragments of a message
    /// never surface one by one, so a peer that sends empty ones without end would keep tungstenite reading for ever.
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.reads_left == 0 {
            self.reads_left = READS_MAX;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        self.reads_left = if read.is_pending() { READS_MAX } else { self.reads_left - 1 };
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Outbox<S> {
    /// Takes what tungstenite writes (pongs, close frames; always whole frames) behind what waits, and only when
    /// nothing waits: its own bounded buffer is where the pongs to a peer that only ever pings shall pile up.
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_drain(cx))?;
        self.frames.push_back(Bytes::copy_from_slice(buf));
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// Slices, so frames, a system call.
const SLICES_MAX: usize = 64;
/// Reads in a row, of 1 KiB each; well below Tokio's budget of 128 operations, so that the rest of the task has some left.
const READS_MAX: u8 = 16;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::websocket::wire;

    #[tokio::test]
    async fn frames_of_every_length_keep_their_bytes_through_a_narrow_pipe() {
        let (near, mut far) = tokio::io::duplex(97);
        let mut outbox = Outbox::new(near);
        let mut expected = Vec::new();
        for len in [0_usize, 1, 125, 126, 65_535, 65_536] {
            let frame = wire::text(&"x".repeat(len));
            expected.extend_from_slice(&frame);
            outbox.push(frame);
        }
        let writer = async {
            outbox.flush().await.unwrap();
            assert!(outbox.forget_unsent());
            drop(outbox);
        };
        let mut got = Vec::new();
        let (_, read) = tokio::join!(writer, far.read_to_end(&mut got));
        read.unwrap();
        assert!(got == expected);
    }

    #[tokio::test]
    async fn frames_not_begun_are_forgotten_and_a_begun_one_is_not() {
        let (near, _far) = tokio::io::duplex(5);
        let mut outbox = Outbox::new(near);
        outbox.push(wire::text("not begun"));
        assert!(outbox.forget_unsent());
        outbox.push(wire::text("begun"));
        outbox.push(wire::text("not begun"));
        assert!(futures::poll!(std::pin::pin!(outbox.flush())).is_pending());
        assert!(!outbox.forget_unsent());
        assert_eq!(outbox.frames.len(), 1);
    }
}
