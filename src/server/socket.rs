//! An accepted socket that ends with a reset once it was severed.
//!
//! The kernel holds up to megabytes for a peer that does not read, and would go on sending them after a close. Whoever
//! is silenced or stalls shall not get them, and they shall not be held: so the socket is reset instead (SO_LINGER of
//! zero, socket(7)).
//!
//! A transport that has no more to do with the socket, or has not got it in hand, asks for the same of what was written
//! already ([`Sever::silence`]): it is severed if the kernel still holds some when the second is nearly over.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use gatecast_transports::{Sever, Timing};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// What the kernel is to hold unsent for a peer, about: then it takes more before all of that has left, and says so soon. With
/// megabytes, of which a third has to leave first, a steady reader of 50 KB/s seems to read nothing for half a minute. It is
/// no limit for what is under way.
pub(super) const UNSENT_BYTES: u32 = 32 * 1024;

/// For how long TCP bears with a peer that has closed its window while a write waits: longer than the clocks of the transports
/// ([`gatecast_transports::Stall`]), which know why they end it.
const BEARS_WITH_IT: Duration = Duration::from_secs(30);

/// A socket and what severs it.
pub(super) struct Socket {
    stream: TcpStream,
    sever: Sever,
    /// How long the peer may take nothing once its transport watches it; `None` after the transport has said if it does.
    patience: Option<Duration>,
    /// Boxed: who is served is not silenced.
    unsent: Option<Box<Unsent>>,
    /// Boxed: mostly nothing has to wait.
    waits: Option<Box<Waits>>,
    /// Its writing side is closed.
    is_shut: bool,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, sever: Sever, patience: Duration) -> Self {
        Self { stream, sever, patience: Some(patience), unsent: None, waits: None, is_shut: false }
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

    /// After a write, which may have been of what was to be said before the peer was silenced: that is to leave as well. Who
    /// has to wait may not read meanwhile, as h2 does not before its pong is written.
    fn wrote(&mut self, cx: &mut Context<'_>, taken: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if taken.is_pending() {
            self.bear_with_it();
            return match self.poll_sent(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                _ => Poll::Pending,
            };
        }
        if let Some(unsent) = &mut self.unsent {
            unsent.look = None;
            cx.waker().wake_by_ref();
        }
        if let Some(waits) = &mut self.waits
            && !std::mem::take(&mut waits.still)
        {
            // If it is not taken, a peer that is dead is found later.
            let _ = SockRef::from(&self.stream).set_tcp_user_timeout(Some(waits.patience));
            self.waits = None;
        }
        taken
    }

    /// A write has to wait.
    fn bear_with_it(&mut self) {
        if let Some(waits) = &mut self.waits {
            waits.still = true;
            return;
        }
        let socket = SockRef::from(&self.stream);
        if let Ok(Some(patience)) = socket.tcp_user_timeout()
            && patience < BEARS_WITH_IT
            && socket.set_tcp_user_timeout(Some(BEARS_WITH_IT)).is_ok()
        {
            self.waits = Some(Box::new(Waits { patience, still: true }));
        }
    }

    /// Ready unless a silenced peer has not taken all yet; an error when it is too late for that.
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A transport that has said how its peer is watched has the socket in hand to the end.
        if self.patience.is_some() && self.sever.take_silenced() {
            let until = self.unsent.take().map(|unsent| unsent.until);
            self.unsent = Some(Box::new(Unsent::new(until)));
        }
        let Some(unsent) = &mut self.unsent else { return Poll::Ready(Ok(())) };
        // Shut, it is always writable: then only its peer's end, which is read, says that all has left.
        let looked_at = (!self.is_shut).then_some(&self.stream);
        let is_sent = ready!(unsent.poll_look(looked_at, cx));
        self.unsent = None;
        if is_sent {
            return Poll::Ready(Ok(()));
        }
        self.sever.sever();
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }
}

/// A write had to wait.
struct Waits {
    /// What TCP has for its peer otherwise.
    patience: Duration,
    /// None was taken since. What is taken at once, after that, is.
    still: bool,
}

/// What a silenced peer was sent and the kernel still holds.
struct Unsent {
    until: Pin<Box<Sleep>>,
    look: Option<Look>,
}

/// Waits for the kernel to hold nothing.
struct Look {
    /// The same socket, registered anew: its first word on whether it is writable is of now.
    stream: TcpStream,
    /// It holds nothing. Who had something more to write is woken by that as well, and writes before the next look.
    was_empty: bool,
}

impl Unsent {
    fn new(until: Option<Pin<Box<Sleep>>>) -> Self {
        let until = until.unwrap_or_else(|| Box::pin(sleep_until(Instant::now() + Timing::default().close_answer)));
        Self { until, look: None }
    }

    /// Whether it has left. What cannot be looked at has not.
    fn poll_look(&mut self, socket: Option<&TcpStream>, cx: &mut Context<'_>) -> Poll<bool> {
        if self.look.is_none() {
            self.look = socket.and_then(|socket| Look::at(socket).ok());
        }
        if let (Some(look), Some(socket)) = (&mut self.look, socket)
            && look.stream.poll_write_ready(cx).is_ready()
        {
            if look.was_empty {
                // If it is not taken, writes wait longer than they need to.
                let _ = SockRef::from(socket).set_tcp_notsent_lowat(UNSENT_BYTES);
                return Poll::Ready(true);
            }
            look.was_empty = true;
            cx.waker().wake_by_ref();
        }
        self.until.as_mut().poll(cx).map(|()| false)
    }
}

impl Look {
    fn at(socket: &TcpStream) -> io::Result<Self> {
        // With this it is writable exactly if all was sent (tcp(7)): how much was not, nobody tells without `unsafe`.
        SockRef::from(socket).set_tcp_notsent_lowat(1)?;
        let same = std::net::TcpStream::from(socket.as_fd().try_clone_to_owned()?);
        Ok(Self { stream: TcpStream::from_std(same)?, was_empty: false })
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
        if let Poll::Ready(Err(error)) = self.poll_sent(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.take_patience();
        // Straight to the socket, which mostly takes it: Tokio's note of whether it would is 2 % of a delivery to look up.
        let taken = match SockRef::from(&self.stream).send(buf) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Pin::new(&mut self.stream).poll_write(cx, buf),
            sent => Poll::Ready(sent),
        };
        self.wrote(cx, taken)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.take_patience();
        let taken = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(cx, taken)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Closed, it would go on sending and could be reset no more.
        ready!(self.poll_sent(cx))?;
        self.is_shut = true;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// When whoever is silenced gets nothing more (CONTRACT.md § 7).
    const SECOND: Duration = Duration::from_secs(1);

    /// A socket, and its peer's end.
    async fn accepted() -> (Socket, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (peer, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (Socket::new(accepted.unwrap().0, Sever::new(), Duration::from_secs(30)), peer.unwrap())
    }

    /// One that takes nothing more, as its peer reads nothing.
    async fn full() -> (Socket, TcpStream) {
        let (mut socket, peer) = accepted().await;
        poll_fn(|cx| {
            while Pin::new(&mut socket).poll_write(cx, &[0; 65_536]).is_ready() {}
            Poll::Ready(())
        })
        .await;
        (socket, peer)
    }

    /// How its use ends within the second.
    async fn ends<T>(using: impl Future<Output = io::Result<T>>) -> Option<io::ErrorKind> {
        let used = tokio::time::timeout(SECOND, using).await.expect("it has an end");
        used.err().map(|error| error.kind())
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silenced_and_does_not_read_is_severed_whatever_is_done_with_its_socket() {
        let (mut reads, _peer) = full().await;
        reads.sever.silence();
        assert_eq!(ends(reads.read_u8()).await, Some(io::ErrorKind::ConnectionReset));
        let (mut writes, _peer) = full().await;
        writes.sever.silence();
        assert_eq!(ends(writes.write_u8(0)).await, Some(io::ErrorKind::ConnectionReset));
        let (mut gathers, _peer) = full().await;
        gathers.sever.silence();
        let several = [IoSlice::new(&[0]), IoSlice::new(&[0])];
        assert_eq!(ends(gathers.write_vectored(&several)).await, Some(io::ErrorKind::ConnectionReset));
        let (mut shuts, _peer) = full().await;
        shuts.sever.silence();
        assert_eq!(ends(shuts.shutdown()).await, Some(io::ErrorKind::ConnectionReset));
        assert!([reads, writes, gathers, shuts].iter().all(|socket| socket.sever.is_severed()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silenced_behind_the_end_and_does_not_read_is_severed() {
        let (mut socket, _peer) = full().await;
        assert_eq!(ends(socket.shutdown()).await, None);
        socket.sever.silence();
        assert_eq!(ends(socket.read_u8()).await, Some(io::ErrorKind::ConnectionReset));
        assert!(socket.sever.is_severed());
    }

    #[tokio::test]
    async fn tcp_bears_with_a_peer_while_a_write_waits_for_it() {
        let (mut socket, mut peer) = accepted().await;
        let usual = Some(Duration::from_secs(14));
        SockRef::from(&socket.stream).set_tcp_user_timeout(usual).unwrap();
        poll_fn(|cx| {
            while Pin::new(&mut socket).poll_write(cx, &[0; 65_536]).is_ready() {}
            Poll::Ready(())
        })
        .await;
        let patience = |socket: &Socket| SockRef::from(&socket.stream).tcp_user_timeout().unwrap();
        assert_eq!(patience(&socket), Some(BEARS_WITH_IT));
        let reading = tokio::spawn(async move { while matches!(peer.read(&mut [0; 65_536]).await, Ok(1..)) {} });
        socket.write_u8(0).await.unwrap();
        assert_eq!(patience(&socket), Some(BEARS_WITH_IT), "what was waited for may be the last for now");
        socket.write_u8(0).await.unwrap();
        assert_eq!(patience(&socket), usual);
        drop(socket);
        reading.await.unwrap();
    }

    #[tokio::test]
    async fn who_is_silenced_and_has_read_all_is_not_severed() {
        let (mut socket, mut peer) = accepted().await;
        socket.write_all(b"all").await.unwrap();
        socket.sever.silence();
        let mut seen = String::new();
        let (shut, read) = tokio::join!(socket.shutdown(), peer.read_to_string(&mut seen));
        assert!(shut.is_ok() && read.is_ok() && !socket.sever.is_severed());
        assert_eq!((&*seen, SockRef::from(&socket.stream).tcp_notsent_lowat().unwrap()), ("all", UNSENT_BYTES));
    }
}
