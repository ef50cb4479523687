//! Polls on a socket that hyper has not seen: head, answer, head, answer.
//!
//! A parked poll is what a long-poll gateway is nearly all the time. Inside hyper one over TLS was measured at 35 KB (42
//! after reconnects); here it is a socket and a session. Every request that is not a plain poll ([`super::head`])
//! goes to hyper with its socket, unread, and so does all that follows it.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::head::{self, Known};
use super::reply::cut_off;
use super::{LongPoll, Said, Turn};
use crate::alarm::Alarm;
use crate::answer::{head as answer_head, spelled};
use crate::bare::{BareSocket, Rewound};
use crate::date::Date;
use crate::handshake::ConnInfo;
use crate::head::Head;
use crate::transport::{Direct, Gate, Newcomer, Session};

/// Polls outside hyper.
pub(super) struct Polls {
    pub(super) transport: LongPoll,
    pub(super) gate: Arc<dyn Gate>,
    pub(super) date: Date,
}

#[async_trait]
impl Direct for Polls {
    async fn serve(&self, newcomer: Newcomer) -> Option<Rewound> {
        let Newcomer { socket, info, sever, drain } = newcomer;
        let (first, socket) = socket.into_parts();
        let socket = BareSocket::new(socket, Some(sever));
        let input = Input { bytes: first.into(), info, known: None };
        let mut line = Line { socket, input, drain: drain.clone(), alarm: Alarm::default() };
        // Made once: each poll would take its place among those who wait, and leave it again.
        let mut drained = pin!(drain.cancelled());
        loop {
            match line.next(self.gate.as_ref(), self.transport.timing.head, drained.as_mut()).await {
                Next::Poll { turn, closes } => line.serve(self, turn, closes).await?,
                Next::Other => return Some(Rewound::new(line.input.bytes, line.socket.into_inner())),
                Next::Over => return None,
            }
        }
    }
}

/// A socket and what is served on it.
struct Line {
    socket: BareSocket,
    input: Input,
    drain: CancellationToken,
    /// For what is waited for: the next poll, or something to answer this one with.
    alarm: Alarm,
}

/// What comes from a socket.
struct Input {
    /// Beyond what was served.
    bytes: Vec<u8>,
    info: Arc<ConnInfo>,
    /// The last head that was read.
    known: Option<Box<Known>>,
}

/// What a socket asks for next.
enum Next<'a> {
    Poll {
        turn: Turn<'a>,
        /// The client closes after the answer.
        closes: bool,
    },
    Other,
    Over,
}

impl Line {
    async fn next<'a>(
        &mut self,
        gate: &'a dyn Gate,
        limit: Duration,
        mut drained: Pin<&mut WaitForCancellationFuture<'_>>,
    ) -> Next<'a> {
        let deadline = Instant::now() + limit;
        let Self { socket, input, alarm, .. } = self;
        let mut next = input.take(&[], gate);
        loop {
            if let Some(next) = next.take() {
                return next;
            }
            let idle = input.bytes.is_empty();
            let read = tokio::select! {
                biased;
                read = socket.read(|bytes| next = input.take(bytes, gate)) => read,
                () = drained.as_mut(), if idle => return Next::Over,
                () = alarm.at(Some(deadline)) => return Next::Over,
            };
            if !matches!(read, Ok(1..)) {
                return Next::Over;
            }
        }
    }

    /// Answers a poll; `None` if that was the last.
    async fn serve(&mut self, polls: &Polls, turn: Turn<'_>, closes: bool) -> Option<()> {
        let answer = tokio::select! {
            biased;
            () = gone(&mut self.socket, &mut self.input.bytes) => return None,
            answer = turn.answer(&mut self.alarm) => answer,
        };
        let closes = closes || self.drain.is_cancelled();
        let session = self.write(polls, &answer.said, answer.session, closes).await?;
        if let (Some(session), Some(known), Said::Reply(reply)) = (session, &mut self.input.known, answer.said) {
            known.expect(reply.into_position(), session.rest());
        }
        if closes {
            // Boxed, as what is rare is not to be held by every parked poll.
            Box::pin(self.socket.end(&[], polls.transport.timing.last_words)).await;
            return None;
        }
        Some(())
    }

    /// Writes an answer, and gives its session back. As long as there is one, it may cut it off.
    async fn write(
        &mut self,
        polls: &Polls,
        said: &Said,
        session: Option<Box<dyn Session>>,
        closes: bool,
    ) -> Option<Option<Box<dyn Session>>> {
        let (stall, date) = (polls.transport.timing.write_stall, &polls.date);
        let bytes = match said {
            Said::Reply(reply) => {
                let headers = reply.headers();
                let headers = headers.iter().map(|(name, value)| (name, value.as_bytes()));
                let mut bytes = answer_head(reply.status(), headers, reply.body_bytes(), closes, date);
                reply.put_body(&mut bytes);
                bytes
            }
            Said::Refusal(refusal) => spelled(refusal, closes, date),
        };
        let Some(mut session) = session else {
            // Boxed, as above.
            Box::pin(self.socket.tell(&bytes, stall)).await?;
            return Some(None);
        };
        match self.socket.write(&bytes, session.as_mut(), stall).await {
            Ok(()) => Some(Some(session)),
            Err(unwritten) => {
                cut_off(session, unwritten.reason);
                self.socket.sever();
                None
            }
        }
    }
}

impl Input {
    /// Takes what the bytes that came begin with, after those that came before; `None` as long as that is not whole. A
    /// head that comes at once, as most do, is read where it lies: no buffer is held between polls nor by a parked one.
    fn take<'a>(&mut self, more: &[u8], gate: &'a dyn Gate) -> Option<Next<'a>> {
        if !self.bytes.is_empty() {
            self.bytes.extend_from_slice(more);
        }
        let bytes = if self.bytes.is_empty() { more } else { &*self.bytes };
        if bytes.is_empty() {
            return None;
        }
        let (next, read) = match self.known.as_mut().and_then(|known| known.resume(bytes)) {
            Some((session, wish, len)) => (Some(Next::Poll { turn: Turn::Resumed(session, wish), closes: false }), len),
            None => match head::read(bytes, &self.info) {
                Head::Of(poll) => {
                    self.known = Known::of(bytes, &poll).map(Box::new);
                    (Some(Next::Poll { turn: Turn::new(gate, poll.asked), closes: poll.closes }), poll.len)
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

/// Resolves when the peer is gone. A client may send its next request early; so much that it looks like none is the end.
async fn gone(socket: &mut BareSocket, input: &mut Vec<u8>) {
    while input.len() < EARLY_BYTES_MAX {
        if !matches!(socket.read(|bytes| input.extend_from_slice(bytes)).await, Ok(1..)) {
            return;
        }
    }
}

/// Requests that come while another is served are kept up to here.
const EARLY_BYTES_MAX: usize = 32 * 1024;
