//! What keeps a session's connection registered.

use std::sync::Arc;

use gatecast_transports::{CloseReason, Sever};

use crate::lease::Poll;
use crate::registry::{Connection, Registration};

/// What keeps a session's connection registered.
pub(crate) enum Hold {
    /// The session itself.
    Own(Registration),
    /// A lease, which this poll renews when it ends. Boxed: other sessions, which last longer, have no room for it.
    Leased(Box<Poll>),
}

impl Hold {
    pub(crate) fn registration(&self) -> &Registration {
        match self {
            Self::Own(registration) => registration,
            Self::Leased(poll) => poll.registration(),
        }
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.registration().connection
    }

    /// Whether a later poll of it makes this one pointless.
    pub(crate) fn is_superseded(&self) -> bool {
        matches!(self, Self::Leased(poll) if poll.superseded())
    }

    /// Whether it is polled from another address since.
    pub(crate) fn is_left(&self) -> bool {
        matches!(self, Self::Leased(poll) if poll.is_left())
    }

    /// This poll of it was answered over a socket.
    pub(crate) fn answered(&self, over: &Sever) {
        if let Self::Leased(poll) = self {
            poll.answered(over);
        }
    }

    /// The connection is over, not only this poll of it. `false` if it was already.
    pub(crate) fn end(&self, reason: CloseReason) -> bool {
        match self {
            Self::Own(_) => true,
            Self::Leased(poll) => poll.end(reason),
        }
    }
}
