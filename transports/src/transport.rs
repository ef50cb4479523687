//! The seam between carrying a stream and deciding what is on it.

use std::future::poll_fn;
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use smallvec::SmallVec;
use tokio_util::sync::CancellationToken;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use crate::bare::Rewound;
use crate::close::CloseReason;
use crate::handshake::{ConnInfo, Handshake, HandshakeError};
use crate::sever::Sever;
use crate::sse;
use crate::websocket::wire;

/// A way to carry a stream.
pub trait Transport: Send + Sync {
    /// Its name in acknowledgements, stats and logs: `websocket`, `sse`, `long-poll`.
    fn name(&self) -> &'static str;

    /// The routes that gateways connect to. Whoever passes `gate` is served; nobody else is.
    fn routes(&self, gate: Arc<dyn Gate>) -> BoxedFilter<(Response,)>;

    /// How it serves a socket that speaks HTTP/1.1 before hyper does, if it can.
    fn direct(&self, gate: Arc<dyn Gate>) -> Option<Arc<dyn Direct>> {
        drop(gate);
        None
    }
}

/// Serves the requests with which a socket begins, as long as they are its transport's. What it cannot do, hyper and
/// [`Transport::routes`] can: it only saves what hyper costs.
#[async_trait]
pub trait Direct: Send + Sync {
    /// Serves a socket until it is over (`None`), or until a request comes that is not for this transport.
    async fn serve(&self, newcomer: Newcomer) -> Option<Rewound>;
}

/// A socket whose first request is yet to be served.
pub struct Newcomer {
    /// The socket, and what others have read of it and left.
    pub socket: Rewound,
    /// Facts about it.
    pub info: Arc<ConnInfo>,
    /// Resets it when it is dropped.
    pub sever: Sever,
    /// From when on it is closed after the request under way.
    pub drain: CancellationToken,
}

/// How a transport notices that its peer is gone; it chooses the heartbeat policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Liveness {
    /// The peer answers pings; whatever it sends is life (WebSocket).
    PingPong,
    /// The peer can't speak; a write that the socket takes is all there is (SSE).
    WriteOnly,
    /// The peer comes back: the connection outlives each request by a lease (long-poll).
    Lease,
}

/// The answer to a peer that is not let in, made by the server's one HTTP error map.
#[derive(Debug)]
pub struct Refusal(pub http::Response<Bytes>);

/// Decides who may connect.
#[async_trait]
pub trait Gate: Send + Sync {
    /// Admits a peer, before any upgrade. The connection is registered when this returns, and ends when the
    /// [`Session`] is dropped ([`Liveness::Lease`]: when its lease runs out without another session of the connection).
    ///
    /// With [`Liveness::Lease`] this is called for every poll; a poll of a live connection renews it.
    ///
    /// # Errors
    /// The answer to send instead.
    async fn admit(&self, handshake: Handshake) -> Result<Box<dyn Session>, Refusal>;

    /// The answer to a request that is no handshake of its transport.
    fn reject(&self, error: HandshakeError) -> Refusal;
}

/// The text of a message, of one line.
#[derive(Debug)]
pub struct Text(Bytes);

impl Text {
    /// The parts one after the other, each copied once.
    #[must_use]
    pub fn joined(parts: &[&str]) -> Self {
        debug_assert!(!parts.iter().any(|part| is_broken(part)), "{BROKEN}");
        Self(wire::text(parts))
    }
}

impl<T: AsRef<str>> From<T> for Text {
    fn from(text: T) -> Self {
        Self::joined(&[text.as_ref()])
    }
}

const BROKEN: &str = "a line break would split an SSE event";

fn is_broken(text: &str) -> bool {
    // One at a time: each is a memchr, which even an unoptimised build has.
    ['\n', '\r', '\0'].iter().any(|bad| text.contains(*bad))
}

/// One message, encoded once and shared by all connections.
#[derive(Debug)]
pub struct Frame {
    id: Option<String>,
    name: String,
    /// The text behind the head of a WebSocket frame, so that it is held once.
    wire: Bytes,
    /// Made for the first connection that it goes to alone.
    event: OnceLock<Bytes>,
}

impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        (&self.id, &self.name, &self.wire) == (&other.id, &other.name, &other.wire)
    }
}

impl Eq for Frame {}

impl Frame {
    /// A message: its position if it has one, its type, and its JSON text, which holds no raw line break.
    #[must_use]
    pub fn new(id: Option<String>, name: impl Into<String>, text: impl Into<Text>) -> Self {
        let (name, Text(wire)) = (name.into(), text.into());
        debug_assert!(!is_broken(&name) && !id.as_deref().is_some_and(is_broken), "{BROKEN}");
        Self { id, name, wire, event: OnceLock::new() }
    }

    /// No message, only a position: over SSE an event with nothing but `id:`, which moves the peer's cursor past events
    /// that it was not sent (WHATWG HTML § 9.2.6: without data nothing is dispatched). Other transports leave it out.
    #[must_use]
    pub fn position_only(id: impl Into<String>) -> Self {
        Self::new(Some(id.into()), "", "")
    }

    /// Whether this is [`Frame::position_only`].
    #[must_use]
    pub fn is_position_only(&self) -> bool {
        self.bytes().is_empty()
    }

    /// The cursor that a peer holds after this message; `None` for most control messages.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Its type.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its JSON text. What only goes on needs no more than [its bytes](Self::bytes), which nobody looks through.
    #[must_use]
    pub fn text(&self) -> &str {
        // It was text, so it is text.
        std::str::from_utf8(self.bytes()).unwrap_or_default()
    }

    /// The bytes of its JSON text.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        wire::payload(&self.wire)
    }

    /// The text as a WebSocket frame, header included: made once, however many connections it goes to.
    pub(crate) fn wire(&self) -> &Bytes {
        &self.wire
    }

    /// As a server-sent event in a chunk of its own: made once, and only if one goes out alone over SSE.
    pub(crate) fn event(&self) -> &Bytes {
        self.event.get_or_init(|| sse::chunk(self))
    }
}

/// The frames of a step. One alone, which is what a step mostly has, takes no allocation.
pub type Frames = SmallVec<[Arc<Frame>; 1]>;

/// How much a transport can take in one step. A single frame is delivered however large it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Frames at most; at least 1.
    pub frames: usize,
    /// Bytes of their texts at most.
    pub bytes: usize,
}

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Write these, in order, then call [`Session::written`].
    Deliver(Frames),
    /// Write a sign of life, then call [`Session::written`]: a ping with this payload of at most 125 bytes, or a comment.
    Ping(Bytes),
    /// Say goodbye as [`CloseReason`] tells and end.
    Close(CloseReason),
}

/// What came from the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard<'a> {
    /// Any frame: a sign of life and nothing more.
    Life,
    /// A pong with its payload: everything written before that ping was received.
    Pong(&'a [u8]),
    /// A text message.
    Text(&'a str),
}

/// One admitted connection: a cursor, and the timing that keeps it alive.
///
/// A transport alternates [`poll_next`](Self::poll_next) and [`written`](Self::written) and reports what it hears. It
/// never decides when to ping or when a peer is dead.
///
/// It is polled rather than awaited because a delivery has two of these polls: as boxed futures they were a tenth of what
/// it costs. Where that does not matter, `next` and `cut` of `dyn Session` are the same as futures.
pub trait Session: Send {
    /// The connection's id, as in its acknowledgement: visible ASCII that JSON needs no escapes for.
    fn connection_id(&self) -> String;

    /// The cursor that the peer holds once everything written has arrived: visible ASCII that JSON needs no escapes for.
    fn position(&self) -> String;

    /// The next thing to write. The first one delivers `connection.ack` as its first frame.
    ///
    /// Nothing moves until [`written`](Self::written); a step that was not written is given again.
    fn poll_next(&mut self, cx: &mut Context<'_>, room: Room) -> Poll<Step>;

    /// From now on the connection can be served without its task, which whoever has something for many connections does.
    fn lend(&mut self, connection: Weak<dyn Served>) {
        drop(connection);
    }

    /// Whether [`poll_next`](Self::poll_next) may have something to write without waiting for an event or a deadline.
    fn ready(&self) -> bool;

    /// The peer's socket took the last step.
    fn written(&mut self);

    /// Something came from the peer. It may come between a step and its [`written`](Self::written): a transport that
    /// can listens while it writes, so that two sides that both write first never wait for each other.
    fn heard(&mut self, heard: Heard<'_>);

    /// Ready when not one more byte may reach the peer (token revoked or expired, gateway deleted): to be polled beside a
    /// write that is under way, which is then cut.
    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason>;

    /// The poll was answered, or is about to be, over this socket ([`Liveness::Lease`]), whose peer may read that later: what
    /// it has not taken when the connection is silenced is to be thrown away ([`Sever::silence`]).
    fn answered(&mut self, over: &Sever) {
        let _ = over;
    }

    /// The poll was answered ([`Liveness::Lease`]): gives up all but what it takes to go on from [`position`](Self::position)
    /// should its client ask for that next. `None` if the gate is to be asked then.
    fn rest(self: Box<Self>) -> Option<Box<dyn Ticket>> {
        None
    }

    /// The connection is over for this reason. Called at most once, and then nothing else is called. Without it a
    /// session is dropped only when a long-poll was answered or given up by its peer ([`Liveness::Lease`]: the
    /// connection lives on), or when the runtime tears the transport's task down.
    fn ended(&mut self, reason: CloseReason);
}

/// A connection that need not be served by its task: for who has the same news for many it is cheaper to serve each than to
/// wake it.
pub trait Served: Send + Sync {
    /// Writes what is due if the connection is at rest, waiting for nothing, and wakes its task if that is more than a step
    /// that its socket takes at once. `false` if it is not at rest: its task is to be woken by who asks.
    fn serve(&self) -> bool;
}

/// What an answered poll leaves for the next one: not the connection, which ends without it when its lease runs out or it is
/// silenced. It is for the same client, whose next request asks for what follows the position and is otherwise the same.
pub trait Ticket: Send {
    /// The session that the gate would give. `None` if only the gate can tell, since something has happened to the
    /// connection.
    fn resume(self: Box<Self>) -> Option<Box<dyn Session>>;
}

impl dyn Session + '_ {
    /// [`Session::poll_next`] as a future. Cancel safe.
    pub async fn next(&mut self, room: Room) -> Step {
        poll_fn(|cx| self.poll_next(cx, room)).await
    }

    /// [`Session::poll_cut`] as a future. Cancel safe.
    pub async fn cut(&mut self) -> CloseReason {
        poll_fn(|cx| self.poll_cut(cx)).await
    }
}
