//! The accept loop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::connection::{Service, Wire, serve};
use super::places::Warning;
use super::tls::Tls;

/// Connections that wait to be accepted; the kernel caps it at `net.core.somaxconn` (4,096 by default).
const BACKLOG: u32 = 4_096;
/// Out of file descriptors, accepting again at once would only spin.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// A bound socket.
pub(super) struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds. What `wire` asks of sockets is set here once: what is accepted inherits it, and has two system calls less.
    pub(super) fn bind(address: SocketAddr, wire: &Wire) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A restart must not wait for the connections of its predecessor to time out.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        wire.tune(SockRef::from(&socket));
        let socket = socket.listen(BACKLOG)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts for ever. With as many sockets open as there may be, newcomers wait in the backlog.
    pub(super) async fn accept(
        self,
        tls: Option<Arc<Tls>>,
        service: Service,
        wire: Arc<Wire>,
        tasks: TaskTracker,
        drain: CancellationToken,
    ) {
        let failing = Warning::default();
        loop {
            let Some(free) = wire.places.free().await else { return };
            match self.socket.accept().await {
                Ok((stream, peer)) => {
                    let socket = wire.served(stream);
                    let Some(place) = wire.places.take(free, peer.ip()) else {
                        // Reset: what is closed well stays with the kernel for a minute.
                        socket.sever().sever();
                        continue;
                    };
                    tasks.spawn(serve(socket, peer, tls.clone(), service.clone(), drain.clone(), place));
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if failing.is_due() {
                        warn!(%error, "Cannot accept connections; trying again, ten times a second.");
                    }
                    tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                }
            }
        }
    }
}

/// Errors of a connection that was gone before it was accepted, accept(2).
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;
    use crate::proxies::Proxies;
    use crate::server::places::Places;
    use crate::server::socket::UNSENT_BYTES;

    #[tokio::test]
    async fn what_is_accepted_has_what_was_asked_of_sockets() {
        let wire = Wire::new(Duration::from_secs(30), Places::new(1, None, Proxies::default()));
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), &wire).unwrap();
        let peer = TcpStream::connect(listener.address()).await.unwrap();
        let (accepted, _) = listener.socket.accept().await.unwrap();
        let (ours, theirs) = (SockRef::from(&accepted), SockRef::from(&peer));
        assert!(ours.tcp_nodelay().unwrap() && !theirs.tcp_nodelay().unwrap());
        assert_eq!(ours.tcp_user_timeout().unwrap(), Some(Duration::from_secs(14)));
        assert_eq!(ours.tcp_notsent_lowat().unwrap(), UNSENT_BYTES);
    }
}
