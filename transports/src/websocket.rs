//! WebSocket (RFC 6455): text frames, one JSON message each; pings with a position, pongs as receipts.
//!
//! - `upgrade`: what makes a request an upgrade, and the 101. `direct`: one with which a socket begins, without hyper.
//! - `connection`: one task per connection, from the upgraded socket to the last words.
//! - `outbox`: the socket and what waits for it; shared bytes, whole frames, vectored writes. `wire`: a frame as bytes.
//! - `reader`: the peer's bytes as messages. `inbound`: what came in, or why nothing more will.
//!
//! Per idle connection: one task, no buffer, and the socket without hyper's layers ([`crate::hand_over`]).

mod connection;
mod direct;
#[cfg(all(test, feature = "contract"))]
mod hostile;
mod inbound;
mod outbox;
mod reader;
mod upgrade;
pub(crate) mod wire;

use std::sync::Arc;

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use self::direct::Upgrades;
use crate::close::CloseReason;
use crate::date::Date;
use crate::hand_over;
use crate::request::{self, ConnectRequest};
use crate::sever::Sever;
use crate::timing::Timing;
use crate::transport::{Direct, Gate, Liveness, Session, Transport};

/// The WebSocket transport: `GET /api/internal/v1/ws/gateways/connect`.
#[derive(Debug, Clone)]
pub struct WebSocket {
    timing: Arc<Timing>,
    tasks: TaskTracker,
}

impl WebSocket {
    /// A transport whose connections each run as a task of `tasks`: wait for those to know that all have said goodbye.
    #[must_use]
    pub fn new(timing: Timing, tasks: TaskTracker) -> Self {
        Self { timing: Arc::new(timing), tasks }
    }

    async fn connect(&self, gate: &dyn Gate, mut request: ConnectRequest) -> Response {
        let headers = request.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let accept = match upgrade::check(headers) {
            Ok(accept) => accept,
            Err(error) => return request::reject(gate, error),
        };
        // HTTP/2 has no upgrade (RFC 9113 § 8.6), and HTTP/1.0 ignores one (RFC 9110 § 7.8).
        let Some(socket) = request.upgrade.take() else {
            return request::reject(gate, crate::HandshakeError::UpgradeRequired);
        };
        // Before the 101: whoever is refused shall read a status, and a full house shall cost no upgrade.
        match request.admit(gate, self.name(), Liveness::PingPong).await {
            Ok(session) => {
                drop(self.tasks.spawn(serve(
                    socket,
                    session,
                    self.timing.clone(),
                    request.sever.take(),
                    self.tasks.clone(),
                )));
                upgrade::switching_protocols(accept).map(Into::into)
            }
            Err(refusal) => request::refuse(refusal),
        }
    }
}

impl Transport for WebSocket {
    fn name(&self) -> &'static str {
        NAME
    }

    fn routes(&self, gate: Arc<dyn Gate>) -> BoxedFilter<(Response,)> {
        let transport = self.clone();
        request::get(request::path(PATH), gate, move |gate, request| {
            let transport = transport.clone();
            async move { transport.connect(gate.as_ref(), request).await }
        })
    }

    fn direct(&self, gate: Arc<dyn Gate>) -> Option<Arc<dyn Direct>> {
        Some(Arc::new(Upgrades { transport: self.clone(), gate, date: Date::default() }))
    }
}

/// Waits for the upgraded socket, then hands over to a fresh task: the wait's state would stay in this one's for as
/// long as the connection lives (DESIGN.md § 8).
async fn serve(
    socket: OnUpgrade,
    mut session: Box<dyn Session>,
    timing: Arc<Timing>,
    sever: Option<Sever>,
    tasks: TaskTracker,
) {
    match timeout(timing.upgrade, socket).await {
        Ok(Ok(upgraded)) => {
            let (socket, first) = hand_over::upgraded(upgraded);
            drop(tasks.spawn(connection::run(socket, first, session, timing, sever, Bytes::new())));
        }
        Ok(Err(_)) | Err(_) => {
            tracing::debug!(connection.id = session.connection_id(), "WebSocket upgrade did not come through.");
            session.ended(CloseReason::UpgradeFailed);
        }
    }
}

const NAME: &str = "websocket";
const PATH: &str = "/api/internal/v1/ws/gateways/connect";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bare::BoxSocket;

    type Run<F> = fn(BoxSocket, Bytes, Box<dyn Session>, Arc<Timing>, Option<Sever>, Bytes) -> F;

    fn future_bytes<F>(_run: Run<F>) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_an_idle_connection_is_small() {
        // What lives as long as the connection does, but for the socket and the session.
        let bytes = future_bytes(connection::run);
        assert!(bytes <= TASK_BYTES_MAX, "{bytes}");
    }

    /// With Tokio's own 112 bytes it is 256, as aligned to 128.
    const TASK_BYTES_MAX: usize = 144;
}
