//! An upgrade with which a socket begins, without hyper: a third of what a reconnect cost was hyper's and the routes' before
//! it (206,600 instructions, `scripts/cost`). A head that comes in pieces, or is unusual in any way, goes to hyper unread,
//! and so does what follows a refusal.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderValue;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{NAME, PATH, WebSocket, connection, upgrade};
use crate::answer::spelled;
use crate::bare::{BareSocket, Rewound};
use crate::date::Date;
use crate::handshake::{ConnInfo, Handshake};
use crate::head::{self, Get, Head};
use crate::query::Query;
use crate::transport::{Direct, Gate, Liveness, Newcomer, Refusal};

/// Upgrades outside hyper.
pub(super) struct Upgrades {
    pub(super) transport: WebSocket,
    pub(super) gate: Arc<dyn Gate>,
    pub(super) date: Date,
}

/// A whole head that asks for an upgrade as it should.
struct Asked {
    handshake: Handshake,
    accept: HeaderValue,
    /// How many bytes it has.
    len: usize,
}

#[async_trait]
impl Direct for Upgrades {
    async fn serve(&self, newcomer: Newcomer) -> Option<Rewound> {
        let Newcomer { socket, info, sever, drain } = newcomer;
        let timing = &self.transport.timing;
        let (mut first, socket) = socket.into_parts();
        let mut socket = BareSocket::new(socket, Some(sever.clone()));
        if first.is_empty() {
            first = self.begin(&mut socket, &drain).await?;
        }
        let Head::Of(Asked { handshake, accept, len }) = read(&first, &info) else {
            return Some(Rewound::new(first, socket.into_inner()));
        };
        let rest = first.split_off(len);
        // Before the 101: whoever is refused shall read a status, and a full house shall cost no upgrade.
        match self.gate.admit(handshake).await {
            Ok(session) => {
                let answer = spelled(&upgrade::switching_protocols(accept), false, &self.date).into();
                // A fresh task: the state of this one would stay for as long as the connection lives (DESIGN.md § 8).
                let connection =
                    connection::run(socket.into_inner(), rest, session, timing.clone(), Some(sever), answer);
                drop(self.transport.tasks.spawn(connection));
                None
            }
            Err(Refusal(refusal)) => {
                let answer = spelled(&refusal, false, &self.date);
                socket.tell(&answer, timing.write_stall).await?;
                Some(Rewound::new(rest, socket.into_inner()))
            }
        }
    }
}

impl Upgrades {
    /// What comes first; `None` if nothing does.
    async fn begin(&self, socket: &mut BareSocket, drain: &CancellationToken) -> Option<Bytes> {
        let mut first = Bytes::new();
        let read = socket.read(|bytes| first = Bytes::copy_from_slice(bytes));
        let read = drain.run_until_cancelled(timeout(self.transport.timing.head, read)).await;
        matches!(read, Some(Ok(Ok(1..)))).then_some(first)
    }
}

fn read(bytes: &[u8], info: &ConnInfo) -> Head<Asked> {
    head::read(PATH, bytes, |get| asked(get, info))
}

fn asked(get: &Get<'_, '_>, info: &ConnInfo) -> Option<Asked> {
    if get.closes {
        return None;
    }
    // What is wrong is for hyper's route to say.
    let accept = upgrade::check(get.headers()).ok()?;
    let query = Query::parse(get.query);
    let handshake = Handshake::read_parsed(NAME, Liveness::PingPong, info, &get.found(), &query).ok()?;
    Some(Asked { handshake, accept, len: get.len })
}
