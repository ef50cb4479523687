//! What a transport may ask for the socket under it: that it ends though its peer does not read, and that it does not end
//! as long as the peer does not.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use smallvec::SmallVec;

/// Ends the socket under a request. The accept loop puts one into the request's extensions, and drops the connection
/// when [`Sever::severed`] resolves.
///
/// A transport inside an HTTP response needs it: while a peer does not read, hyper keeps what it was given and asks
/// for nothing more, so ending or failing the body reaches nobody. Without one in the extensions such a socket lives
/// until TCP gives up (`TCP_USER_TIMEOUT`).
#[derive(Debug, Clone, Default)]
pub struct Sever(Arc<State>);

/// Half of what a `CancellationToken` takes, which each socket had one of.
#[derive(Debug, Default)]
struct State {
    is_severed: AtomicBool,
    is_silenced: AtomicBool,
    /// Set by [`Answered::over`].
    is_answered: AtomicBool,
    /// Unset until a transport has said it.
    is_watched: OnceLock<bool>,
    /// That of the task that has the socket.
    task: AtomicWaker,
    /// The socket itself, if this is of one of its streams.
    socket: Option<Sever>,
}

impl Sever {
    /// One for a new connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One for a stream of HTTP/2, which other streams are not to end with: severed, it is reset with all that waits for its
    /// peer's room, and the socket is [silenced](Self::silence) for what has left it. The accept loop drops the stream.
    #[must_use]
    pub fn of_stream(socket: &Self) -> Self {
        Self(Arc::new(State { socket: Some(socket.clone()), ..State::default() }))
    }

    /// Ends the socket, or the stream.
    pub fn sever(&self) {
        self.0.is_severed.store(true, Ordering::Release);
        self.0.task.wake();
        self.0.socket.iter().for_each(Self::silence);
    }

    fn socket(&self) -> &Self {
        self.0.socket.as_ref().unwrap_or(self)
    }

    /// Whether the socket shall be dropped, and with it what is on its way: the accept loop resets it then.
    #[must_use]
    pub fn is_severed(&self) -> bool {
        self.0.is_severed.load(Ordering::Acquire)
    }

    /// What its peer was sent and has not taken within the second is to be thrown away, and the socket with it; a peer that
    /// has taken all keeps it. For who does not have the socket in hand: hyper has it, or the peer was answered already.
    pub fn silence(&self) {
        let Self(socket) = self.socket();
        socket.is_silenced.store(true, Ordering::Release);
        socket.task.wake();
    }

    /// Whether its peer was silenced since this was asked last.
    #[must_use]
    pub fn take_silenced(&self) -> bool {
        // Mostly it was not, and then nothing is written.
        self.0.is_silenced.load(Ordering::Acquire) && self.0.is_silenced.swap(false, Ordering::AcqRel)
    }

    /// Whether a poll was, or is being, [answered](Answered::over) over the socket: then it is to be there, to be silenced, as
    /// long as the peer may not have taken all.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.socket().0.is_answered.load(Ordering::Acquire)
    }

    /// The transport hears from its peer, and has a deadline for that. So TCP is not to give the peer up before only because
    /// it takes nothing for a while: it may be busy with what it was sent.
    pub fn watch(&self) {
        self.0.is_watched.get_or_init(|| true);
    }

    /// The transport hears nothing from its peer, for as long as there is the socket: TCP is to give it up.
    pub fn leave_to_tcp(&self) {
        self.0.is_watched.get_or_init(|| false);
    }

    /// Whether the transport [watches](Self::watch) its peer or [leaves that to TCP](Self::leave_to_tcp), if it has said so.
    #[must_use]
    pub fn is_watched(&self) -> Option<bool> {
        self.0.is_watched.get().copied()
    }

    /// Resolves once the socket shall be dropped. Cancel safe. For the one task that has the socket, which is also woken
    /// when its peer is [silenced](Self::silence), and has to look at the socket then.
    pub async fn severed(&self) {
        poll_fn(|cx| self.poll_severed(cx)).await;
    }

    /// [`Self::severed`], polled.
    pub(crate) fn poll_severed(&self, cx: &mut Context<'_>) -> Poll<()> {
        // Before the look: who is told of a later end waits from here on.
        self.0.task.register(cx.waker());
        if self.is_severed() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// The sockets over which a peer was answered that may not have read it all. It keeps none of them.
#[derive(Debug, Default)]
pub struct Answered(SmallVec<[Weak<State>; 1]>);

impl Answered {
    /// It was answered over this one.
    pub fn over(&mut self, sever: &Sever) {
        let socket = sever.socket();
        socket.0.is_answered.store(true, Ordering::Release);
        if !self.0.iter().any(|known| std::ptr::eq(known.as_ptr(), &raw const *socket.0)) {
            self.0.retain(|known| known.strong_count() > 0);
            self.0.push(Arc::downgrade(&socket.0));
        }
    }

    /// Whether none of them is open any more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.0.iter().all(|socket| socket.strong_count() == 0)
    }

    /// [Silences](Sever::silence) all of them.
    pub fn silence(&mut self) {
        self.0.drain(..).filter_map(|socket| socket.upgrade()).for_each(|state| Sever(state).silence());
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn whoever_waits_is_told_and_whoever_comes_late_as_well() {
        let sever = Sever::new();
        let mut waits = Box::pin(sever.severed());
        assert!(waits.as_mut().now_or_never().is_none());
        sever.silence();
        assert!(waits.as_mut().now_or_never().is_none() && sever.take_silenced() && !sever.take_silenced());
        sever.clone().sever();
        assert!(sever.is_severed());
        assert!(waits.now_or_never().is_some() && sever.severed().now_or_never().is_some());
    }

    #[test]
    fn a_stream_ends_alone_and_its_socket_is_silenced() {
        let socket = Sever::new();
        let [one, other] = [(); 2].map(|()| Sever::of_stream(&socket));
        one.sever();
        assert!(one.is_severed() && !other.is_severed() && !socket.is_severed());
        assert!(socket.take_silenced());
        let mut answered = Answered::default();
        answered.over(&other);
        drop(other);
        answered.silence();
        assert!(socket.take_silenced(), "it outlives its streams");
    }

    #[test]
    fn sockets_that_a_peer_was_answered_over_are_silenced_and_not_kept() {
        let (one, other) = (Sever::new(), Sever::new());
        let mut answered = Answered::default();
        for socket in [&one, &other, &one, &other] {
            answered.over(socket);
        }
        assert_eq!(answered.0.len(), 2);
        drop(one);
        answered.over(&Sever::new());
        assert_eq!(answered.0.len(), 2, "one is gone");
        answered.silence();
        assert!(other.take_silenced() && answered.0.is_empty());
    }
}
