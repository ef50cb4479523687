//! A socket that hyper ends only once its peer has taken the answers to its polls.
//!
//! Once closed, the kernel goes on sending what it holds, and nobody can reset it any more though its peer is silenced. So
//! behind its end such a socket is read, and what comes is thrown away, until the peer ends as well. Whoever was answered
//! something else is not waited for.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::bare;
use crate::sever::Sever;
use crate::timing::Timing;

/// A socket and what silences its peer. Its shutdown ends when the peer ends, or after [`Timing::head`], if that was
/// [answered](crate::Answered::over) over it.
pub struct Lingering<S> {
    socket: S,
    sever: Sever,
    /// Its writing side is closed: until when its peer is waited for. Boxed: most have nothing to wait for.
    until: Option<Pin<Box<Sleep>>>,
}

impl<S> Lingering<S> {
    /// Over a socket that this severs.
    pub fn new(socket: S, sever: Sever) -> Self {
        Self { socket, sever, until: None }
    }

    pub(crate) fn into_inner(self) -> S {
        self.socket
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, sever, until } = &mut *self;
        if until.is_none() {
            ready!(Pin::new(&mut *socket).poll_shutdown(cx))?;
            *until = sever.is_answered().then(|| Box::pin(sleep(Timing::default().head)));
        }
        let Some(until) = until else { return Poll::Ready(Ok(())) };
        while until.as_mut().poll(cx).is_pending() {
            if !matches!(ready!(bare::poll_read(socket, cx, |_| {})), Ok(1..)) {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncWriteExt as _, DuplexStream};
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::sever::Answered;

    /// A socket, and its peer's end.
    fn socket(is_answered: bool) -> (Lingering<DuplexStream>, DuplexStream) {
        let ((near, far), sever) = (tokio::io::duplex(64), Sever::new());
        if is_answered {
            Answered::default().over(&sever);
        }
        (Lingering::new(near, sever), far)
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_answered_a_poll_is_waited_for_until_it_ends_or_too_long() {
        let head = Timing::default().head;
        let (mut line, mut peer) = socket(true);
        assert!(timeout(head / 2, line.shutdown()).await.is_err());
        peer.write_all(b"unasked").await.unwrap();
        assert!(timeout(Duration::from_secs(1), line.shutdown()).await.is_err(), "whatever it says");
        peer.shutdown().await.unwrap();
        assert!(timeout(Duration::ZERO, line.shutdown()).await.is_ok());
        let (mut line, _peer) = socket(true);
        let before = Instant::now();
        line.shutdown().await.unwrap();
        assert!((head..head + Duration::from_millis(2)).contains(&before.elapsed()), "{:?}", before.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_else_is_waited_for() {
        let (mut socket, _peer) = socket(false);
        assert!(timeout(Duration::ZERO, socket.shutdown()).await.is_ok());
    }
}
