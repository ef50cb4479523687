//! The accept loop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::connection::{Service, Wire, serve};
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
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A restart must not wait for the connections of its predecessor to time out.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let socket = socket.listen(BACKLOG)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts for ever. With as many sockets open as there may be, newcomers wait in the backlog.
    pub(super) async fn accept(
        &self,
        tls: Option<Arc<Tls>>,
        service: &Service,
        wire: &Wire,
        tasks: &TaskTracker,
        drain: &CancellationToken,
    ) {
        loop {
            let socket = wire.socket().await;
            match self.socket.accept().await {
                Ok((stream, peer)) => {
                    tasks.spawn(serve(wire.tuned(stream), peer, tls.clone(), service.clone(), drain.clone(), socket));
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    warn!(%error, "Cannot accept connections; trying again.");
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
