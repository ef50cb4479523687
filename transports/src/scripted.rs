//! An in-memory transport: a connection without a socket, whose peer does what a test tells it.
//!
//! It drives a [`Session`] in the order that the WebSocket transport does (the peer first, then the session; a write
//! raced against a revocation and the stall limit), and all its waiting is Tokio's, so paused time drives it.
//!
//! ```
//! # use gatecast_transports::{Frame, Gate, Handshake, Heard, Liveness, Refusal, Scripted, Timing};
//! # use gatecast_transports::scripted::Seen;
//! # async fn example(gate: std::sync::Arc<dyn Gate>) {
//! let transport = Scripted::new("scripted", Liveness::PingPong, Timing::default());
//! let mut peer = transport.connect(gate.as_ref(), transport.handshake()).await.ok().unwrap();
//! assert!(matches!(peer.next().await, Some(Seen::Frame(ack)) if ack.name() == "connection.ack"));
//! peer.say_life();
//! peer.hang_up();
//! # }
//! ```

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use crate::close::CloseReason;
use crate::handshake::{ConnInfo, Handshake};
use crate::timing::Timing;
use crate::transport::{Frame, Gate, Heard, Liveness, Refusal, Room, Session, Step, Transport};

/// The double. It has no routes: its peers are made by [`Scripted::connect`].
#[derive(Debug, Clone)]
pub struct Scripted {
    name: &'static str,
    liveness: Liveness,
    timing: Timing,
    room: Room,
}

/// What a peer sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A message.
    Frame(Arc<Frame>),
    /// A ping with its payload, or an SSE comment.
    Ping(Bytes),
    /// The end, told to the peer as the table says ([`CloseReason::ending`]). Nothing follows.
    End(CloseReason),
}

/// The other end of a connection. Dropped, it hangs up.
#[derive(Debug)]
pub struct Peer {
    seen: mpsc::UnboundedReceiver<Seen>,
    said: Option<mpsc::UnboundedSender<Said>>,
    reads: watch::Sender<bool>,
}

#[derive(Debug)]
enum Said {
    Life,
    Pong(Bytes),
    Text(String),
    /// Nothing any more: the line is cut.
    Broken,
}

impl Scripted {
    /// A transport of this name and way to notice a dead peer; of `timing` only the write stall matters.
    #[must_use]
    pub fn new(name: &'static str, liveness: Liveness, timing: Timing) -> Self {
        Self { name, liveness, timing, room: ROOM }
    }

    /// The same with another room for a step, to make small steps of few frames.
    #[must_use]
    pub fn with_room(self, room: Room) -> Self {
        Self { room, ..self }
    }

    /// A handshake of this transport from 127.0.0.1 that says nothing else.
    #[must_use]
    pub fn handshake(&self) -> Handshake {
        let info = ConnInfo::of(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
        Handshake {
            transport: self.name,
            liveness: self.liveness,
            peer: info.peer,
            certificate_names: info.certificate_names,
            forwarded_for: None,
            forwarded: None,
            credential: None,
            cursor: None,
            instance: None,
            connection: None,
            gateway: None,
            cookie: None,
            fetch_site: None,
            is_asked_as_loopback: true,
        }
    }

    /// Connects a peer: the gate is asked, and the admitted session driven by a task of its own until it ends.
    ///
    /// # Errors
    /// The gate's refusal.
    pub async fn connect(&self, gate: &dyn Gate, handshake: Handshake) -> Result<Peer, Refusal> {
        let session = gate.admit(handshake).await?;
        let (seen_tx, seen) = mpsc::unbounded_channel();
        let (said, said_rx) = mpsc::unbounded_channel();
        let (reads, reads_rx) = watch::channel(true);
        let link =
            Link { session, seen: seen_tx, said: said_rx, reads: reads_rx, timing: self.timing, room: self.room };
        drop(tokio::spawn(link.run()));
        Ok(Peer { seen, said: Some(said), reads })
    }
}

impl Transport for Scripted {
    fn name(&self) -> &'static str {
        self.name
    }

    /// None: every request is passed on.
    fn routes(&self, _gate: Arc<dyn Gate>) -> BoxedFilter<(Response,)> {
        warp::any().and_then(|| async { Err::<Response, _>(warp::reject::not_found()) }).boxed()
    }
}

impl Peer {
    /// What comes next; `None` once the connection is over and all was seen. Cancel safe.
    pub async fn next(&mut self) -> Option<Seen> {
        self.seen.recv().await
    }

    /// What is there already.
    pub fn seen_so_far(&mut self) -> VecDeque<Seen> {
        std::iter::from_fn(|| self.seen.try_recv().ok()).collect()
    }

    /// Shows a sign of life.
    pub fn say_life(&self) {
        self.say(Said::Life);
    }

    /// Answers a ping.
    pub fn say_pong(&self, payload: impl Into<Bytes>) {
        self.say(Said::Pong(payload.into()));
    }

    /// Sends a text message.
    pub fn say_text(&self, text: impl Into<String>) {
        self.say(Said::Text(text.into()));
    }

    /// Stops reading (`false`: the next write to it stalls) or goes on (`true`).
    pub fn read(&self, reads: bool) {
        self.reads.send_replace(reads);
    }

    /// Ends the connection from this side. What was sent before can still be seen.
    pub fn hang_up(&mut self) {
        self.said = None;
    }

    /// Breaks the connection without a word from either side.
    pub fn break_off(&mut self) {
        self.say(Said::Broken);
        self.said = None;
    }

    fn say(&self, said: Said) {
        // Nobody listens once the connection is over: like a socket, only without the error.
        let _ = self.said.as_ref().map(|sender| sender.send(said));
    }
}

struct Link {
    session: Box<dyn Session>,
    seen: mpsc::UnboundedSender<Seen>,
    said: mpsc::UnboundedReceiver<Said>,
    reads: watch::Receiver<bool>,
    timing: Timing,
    room: Room,
}

impl Link {
    async fn run(mut self) {
        let reason = self.serve().await;
        self.session.ended(reason);
        drop(self.session);
        // After the session: who sees the end finds its place free.
        let _ = self.seen.send(Seen::End(reason));
    }

    async fn serve(&mut self) -> CloseReason {
        loop {
            let step = tokio::select! {
                biased;
                said = self.said.recv() => match hear(self.session.as_mut(), said) {
                    Ok(()) => continue,
                    Err(reason) => return reason,
                },
                step = self.session.next(self.room) => step,
            };
            let seen = match step {
                Step::Deliver(frames) => frames.into_iter().map(Seen::Frame).collect(),
                Step::Ping(payload) => vec![Seen::Ping(payload)],
                Step::Close(reason) => return reason,
            };
            if let Err(reason) = self.write(seen).await {
                return reason;
            }
            self.session.written();
        }
    }

    async fn write(&mut self, seen: Vec<Seen>) -> Result<(), CloseReason> {
        let mut stalled = std::pin::pin!(sleep(self.timing.write_stall));
        loop {
            let said = tokio::select! {
                biased;
                reason = self.session.cut() => return Err(reason),
                // An error is a peer that was dropped.
                reads = self.reads.wait_for(|reads| *reads) => {
                    let taken = reads.is_ok() && seen.into_iter().all(|seen| self.seen.send(seen).is_ok());
                    return if taken { Ok(()) } else { Err(CloseReason::PeerClosed) };
                }
                () = &mut stalled => return Err(CloseReason::WriteStalled),
                said = self.said.recv() => said,
            };
            hear(self.session.as_mut(), said)?;
        }
    }
}

/// Hands on what the peer said; `Err` if that was the last.
fn hear(session: &mut dyn Session, said: Option<Said>) -> Result<(), CloseReason> {
    match said {
        Some(Said::Life) => session.heard(Heard::Life),
        Some(Said::Pong(payload)) => session.heard(Heard::Pong(&payload)),
        Some(Said::Text(text)) => session.heard(Heard::Text(&text)),
        Some(Said::Broken) => return Err(CloseReason::SocketBroken),
        None => return Err(CloseReason::PeerClosed),
    }
    Ok(())
}

const ROOM: Room = Room { frames: 256, bytes: 256 * 1024 };
