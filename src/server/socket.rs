//! An accepted socket that ends with a reset once it was severed.
//!
//! The kernel holds up to megabytes for a peer that does not read, and would go on sending them after a close. Whoever
//! is silenced or stalls shall not get them, and they shall not be held: so the socket is reset instead (SO_LINGER of
//! zero, socket(7)).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use gatecast_transports::Sever;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A socket and what severs it.
pub(super) struct Socket {
    stream: TcpStream,
    sever: Sever,
    /// How long the peer may take nothing once its transport watches it; `None` after the transport has said if it does.
    patience: Option<Duration>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, sever: Sever, patience: Duration) -> Self {
        Self { stream, sever, patience: Some(patience) }
    }

    pub(super) fn sever(&self) -> &Sever {
        &self.sever
    }

    /// Before a write, since only what is written can be unacknowledged.
    fn take_patience(&mut self) {
        if self.patience.is_none() {
            return;
        }
        let Some(is_watched) = self.sever.is_watched() else { return };
        if let Some(patience) = self.patience.take().filter(|_| is_watched) {
            // If it is not taken, TCP gives up as early as before.
            let _ = SockRef::from(&self.stream).set_tcp_user_timeout(Some(patience));
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.sever.is_severed() {
            // If it is not taken, the close is an ordinary one.
            let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.take_patience();
        // Straight to the socket, which mostly takes it: Tokio's note of whether it would is 2 % of a delivery to look up.
        match SockRef::from(&self.stream).send(buf) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Pin::new(&mut self.stream).poll_write(cx, buf),
            sent => Poll::Ready(sent),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.take_patience();
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
