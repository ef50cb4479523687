//! What a transport may ask for the socket under it: that it ends though its peer does not read, and that it does not end
//! as long as the peer does not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

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
    /// Unset until a transport has said it.
    is_watched: OnceLock<bool>,
    severed: Notify,
}

impl Sever {
    /// One for a new connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the socket.
    pub fn sever(&self) {
        self.0.is_severed.store(true, Ordering::Release);
        self.0.severed.notify_waiters();
    }

    /// Whether the socket shall be dropped, and with it what is on its way: the accept loop resets it then.
    #[must_use]
    pub fn is_severed(&self) -> bool {
        self.0.is_severed.load(Ordering::Acquire)
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

    /// Resolves once the socket shall be dropped. Cancel safe.
    pub async fn severed(&self) {
        // Before the look: who is told of a later end waits from here on.
        let severed = self.0.severed.notified();
        if !self.is_severed() {
            severed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn whoever_waits_is_told_and_whoever_comes_late_as_well() {
        let sever = Sever::new();
        let mut waits = Box::pin(sever.severed());
        assert!(waits.as_mut().now_or_never().is_none());
        // Made, and not waited for yet.
        let begun = sever.severed();
        sever.clone().sever();
        assert!(sever.is_severed());
        waits.await;
        begun.await;
        sever.severed().await;
    }
}
