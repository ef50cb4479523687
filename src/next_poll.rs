//! What an answered poll leaves for the one that follows it on its socket (`Ticket` in the transports).

use std::sync::Arc;

use gatecast_storage::Cursor;
use gatecast_transports::{Frames, Liveness, Session, Ticket};

use crate::hold::Hold;
use crate::lease::Renewal;
use crate::session::{CursorSession, Works, deadline};

/// What is kept of a poll that was answered, for the next one on its socket.
pub(crate) struct NextPoll {
    works: Arc<Works>,
    renewal: Renewal,
    position: Cursor,
}

impl NextPoll {
    /// Of a poll whose client is at `position` and was led back to the ring, if it had left that.
    pub(crate) fn new(works: Arc<Works>, renewal: Renewal, position: Cursor) -> Self {
        Self { works, renewal, position }
    }
}

impl Ticket for NextPoll {
    /// Who it is was found when the gate was asked, and holds as long as no gateway and no token has changed. Nor is the log
    /// asked what it holds: as for one that stays connected, that is met when it is read.
    fn resume(self: Box<Self>) -> Option<Box<dyn Session>> {
        let Self { works, renewal, position } = *self;
        let now = works.clock.now();
        if !works.authenticator.is_valid(renewal.valid, now) {
            return None;
        }
        let poll = renewal.poll()?;
        let connection = &poll.registration().connection;
        let channel = &connection.channel;
        let has_it = channel.epoch() == Some(position.epoch) && position.seq <= channel.head();
        if !has_it || connection.below(position).is_some() {
            return None;
        }
        connection.heard(now.timestamp_millis());
        connection.goes_on(position);
        works.has_all_before(connection, position, now);
        connection.confirmed(position, now);
        let expires = deadline(renewal.valid, now);
        let (hold, opening) = (Hold::Leased(Box::new(poll)), Frames::new());
        Some(Box::new(CursorSession::new(works, hold, Liveness::Lease, (position, None), opening, expires)))
    }
}
