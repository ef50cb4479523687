//! What comes from a socket, one poll after the other.

use std::sync::Arc;

use super::Wish;
use super::head::{self, Known, PollHead};
use crate::handshake::ConnInfo;
use crate::head::Head;
use crate::transport::Session;

/// What comes from a socket.
pub(super) struct Input {
    /// Beyond what was served.
    pub(super) bytes: Vec<u8>,
    info: Arc<ConnInfo>,
    /// The last head that was read.
    known: Option<Box<Known>>,
}

/// What a socket asks for next.
pub(super) enum Next {
    /// It goes on where the last poll has ended.
    Again(Box<dyn Session>, Wish),
    Poll(Box<PollHead>),
    Other,
}

impl Input {
    /// What was read already, of a peer.
    pub(super) fn new(bytes: Vec<u8>, info: Arc<ConnInfo>) -> Self {
        Self { bytes, info, known: None }
    }

    /// A poll was answered, which left its client there.
    pub(super) fn answered(&mut self, session: Box<dyn Session>, position: String) {
        if let Some(known) = &mut self.known {
            known.expect(position, session.rest());
        }
    }

    /// Takes what the bytes that came begin with, after those that came before; `None` as long as that is not whole. A
    /// head that comes at once, as most do, is read where it lies: no buffer is held between polls nor by a parked one.
    pub(super) fn take(&mut self, more: &[u8]) -> Option<Next> {
        if !self.bytes.is_empty() {
            self.bytes.extend_from_slice(more);
        }
        let bytes = if self.bytes.is_empty() { more } else { &*self.bytes };
        if bytes.is_empty() {
            return None;
        }
        let (next, read) = match self.known.as_mut().and_then(|known| known.resume(bytes)) {
            Some((session, wish, len)) => (Some(Next::Again(session, wish)), len),
            None => match head::read(bytes, &self.info) {
                Head::Of(poll) => {
                    self.known = Known::of(bytes, &poll).map(Box::new);
                    let len = poll.len;
                    (Some(Next::Poll(Box::new(poll))), len)
                }
                Head::Other => (Some(Next::Other), 0),
                Head::Partial => (None, 0),
            },
        };
        let left = bytes.get(read..).unwrap_or_default();
        if left.is_empty() {
            self.bytes = Vec::new();
        } else if left.len() != self.bytes.len() {
            self.bytes = left.to_vec();
        }
        next
    }
}
