//! A socket that hyper does not have: what a transport writes to it and reads from it, without a buffer that lasts.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use crate::close::CloseReason;
use crate::sever::Sever;
use crate::stall::Stall;
use crate::transport::Session;

/// A socket, whatever lies under it.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// An owned [`Socket`].
pub type BoxSocket = Box<dyn Socket>;

/// A socket and what resets it.
pub(crate) struct BareSocket {
    socket: BoxSocket,
    sever: Option<Sever>,
}

/// A write that did not come to its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unwritten {
    pub(crate) reason: CloseReason,
    /// Some of it was written, so nothing else may follow.
    pub(crate) in_part: bool,
}

impl BareSocket {
    pub(crate) fn new(socket: BoxSocket, sever: Option<Sever>) -> Self {
        Self { socket, sever }
    }

    /// What resets it.
    pub(crate) fn severed_by(&self) -> Option<&Sever> {
        self.sever.as_ref()
    }

    pub(crate) fn into_inner(self) -> BoxSocket {
        self.socket
    }

    /// Drops what is on its way when the socket is dropped.
    pub(crate) fn sever(&self) {
        self.sever.iter().for_each(Sever::sever);
    }

    /// Reads what is there and shows it; how much it was, 0 at the end. Cancel safe. There is no buffer while it waits.
    pub(crate) async fn read(&mut self, mut show: impl FnMut(&[u8])) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read(cx, &mut show)).await
    }

    /// [`Self::read`], polled.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, show: impl FnOnce(&[u8])) -> Poll<io::Result<usize>> {
        poll_read(&mut self.socket, cx, show)
    }

    /// Writes all of it, as nobody's stream; `None` if the peer does not take it within `limit`.
    pub(crate) async fn tell(&mut self, bytes: &[u8], limit: Duration) -> Option<()> {
        let told = async {
            self.socket.write_all(bytes).await?;
            self.socket.flush().await
        };
        match timeout(limit, told).await {
            Ok(told) => told.ok(),
            Err(_) => {
                self.sever();
                None
            }
        }
    }

    /// Writes the last bytes and closes the writing side. A peer that does not take them in time loses the socket all the
    /// same, and what is on its way.
    pub(crate) async fn end(&mut self, bytes: &[u8], limit: Duration) {
        if timeout(limit, self.say_last(bytes)).await.is_err() {
            self.sever();
        }
    }

    /// [`Self::end`] for a peer that has to have read all of it by then, which its own end tells.
    pub(crate) async fn end_read(&mut self, bytes: &[u8], limit: Duration) {
        let read = async {
            self.say_last(bytes).await?;
            self.discard().await
        };
        if timeout(limit, read).await.is_err() {
            self.sever();
        }
    }

    async fn say_last(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes).await?;
        self.socket.shutdown().await
    }

    /// Reads until the peer ends.
    pub(crate) async fn discard(&mut self) -> io::Result<()> {
        while self.read(|_| {}).await? > 0 {}
        Ok(())
    }

    /// Writes what the socket takes without waiting, which mostly is all: how much, and whether all has left. A failure is
    /// met again by [`Self::write_slowly`].
    pub(crate) fn write_at_once(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut written = 0;
        while let Some(left) = bytes.get(written..).filter(|left| !left.is_empty()) {
            match self.socket.write(left).now_or_never() {
                Some(Ok(taken @ 1..)) => written += taken,
                _ => return (written, false),
            }
        }
        (written, matches!(self.socket.flush().now_or_never(), Some(Ok(()))))
    }

    /// Writes what [`Self::write_at_once`] has left, unless the session cuts it off or the peer is [stalled](Stall).
    pub(crate) async fn write_slowly(
        &mut self,
        bytes: &[u8],
        mut written: usize,
        session: &mut dyn Session,
        limit: Duration,
    ) -> Result<(), Unwritten> {
        let mut stall = Stall::new(limit, written as u64);
        loop {
            let left = bytes.get(written..).unwrap_or_default();
            let reason = tokio::select! {
                biased;
                reason = session.cut() => reason,
                () = stall.stalled(written as u64) => CloseReason::WriteStalled,
                taken = write_or_flush(&mut self.socket, left) => match taken {
                    Some(0) => return Ok(()),
                    Some(taken) => {
                        written += taken;
                        continue;
                    }
                    None => CloseReason::PeerClosed,
                }
            };
            return Err(Unwritten { reason, in_part: written > 0 });
        }
    }
}

/// Reads what is there into space on the stack and shows it; how much it was, 0 at the end.
pub(crate) fn poll_read(
    socket: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    show: impl FnOnce(&[u8]),
) -> Poll<io::Result<usize>> {
    let mut space = [const { MaybeUninit::uninit() }; READ_BYTES];
    let mut read = ReadBuf::uninit(&mut space);
    ready!(Pin::new(socket).poll_read(cx, &mut read))?;
    show(read.filled());
    Poll::Ready(Ok(read.filled().len()))
}

/// Writes some, or with nothing left to write flushes and gives 0; `None` if the socket is broken.
async fn write_or_flush(socket: &mut BoxSocket, left: &[u8]) -> Option<usize> {
    if left.is_empty() {
        return socket.flush().await.ok().map(|()| 0);
    }
    socket.write(left).await.ok().filter(|taken| *taken > 0)
}

/// A socket from which something was read already, which is read again first.
pub struct Rewound {
    first: Bytes,
    socket: BoxSocket,
}

impl Rewound {
    pub(crate) fn new(first: impl Into<Bytes>, socket: BoxSocket) -> Self {
        Self { first: first.into(), socket }
    }

    /// What is yet to be read again, and the socket.
    pub(crate) fn into_parts(self) -> (Bytes, BoxSocket) {
        (self.first, self.socket)
    }
}

impl From<BoxSocket> for Rewound {
    /// A socket from which nothing was read.
    fn from(socket: BoxSocket) -> Self {
        Self { first: Bytes::new(), socket }
    }
}

impl AsyncRead for Rewound {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.socket).poll_read(cx, buf);
        }
        let len = self.first.len().min(buf.remaining());
        buf.put_slice(self.first.get(..len).unwrap_or_default());
        self.first.advance(len);
        if self.first.is_empty() {
            // What it was a part of is let go.
            self.first = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

/// On the stack while it is read into, and nowhere else.
const READ_BYTES: usize = 2 * 1024;

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn what_was_read_is_read_again_first_whatever_the_buffers() {
        let (near, mut far) = tokio::io::duplex(64);
        far.write_all(b"def").await.unwrap();
        drop(far);
        let mut socket = Rewound::new(&b"abc"[..], Box::new(near));
        let mut byte = [0; 2];
        assert_eq!(socket.read(&mut byte).await.unwrap(), 2);
        let mut rest = String::new();
        socket.read_to_string(&mut rest).await.unwrap();
        assert_eq!((&byte[..], &*rest), (&b"ab"[..], "cdef"));
    }
}
