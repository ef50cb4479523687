//! Polls on a socket that hyper has not seen: head, answer, head, answer.
//!
//! A parked poll is what a long-poll gateway is nearly all the time. Inside hyper one over TLS was measured at 35 KB (42
//! after reconnects); here it is a socket and a session. Every request that is not a plain poll ([`super::head`])
//! goes to hyper with its socket, unread, and so does all that follows it.
//!
//! A poll that is parked is answered where the news is, as other connections are ([`Shared`]): its task is woken by the
//! next request and not before, which halves how often it is.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use futures::FutureExt;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::head::PollHead;
use super::input::{Input, Next};
use super::reply::{Reply, cut_off};
use super::{Asked, Gathering, Manner, Wish, last_reply};
use crate::alarm::Alarm;
use crate::answer::{head as answer_head, spelled};
use crate::bare::{BareSocket, Rewound};
use crate::close::CloseReason;
use crate::shared::{Serve, Shared};
use crate::transport::{Direct, Gate, Newcomer, Refusal, Served, Session};

/// Polls outside hyper.
pub(super) struct Polls {
    pub(super) gate: Arc<dyn Gate>,
    pub(super) manner: Arc<Manner>,
}

#[async_trait]
impl Direct for Polls {
    async fn serve(&self, newcomer: Newcomer) -> Option<Rewound> {
        let Newcomer { socket, info, sever, drain } = newcomer;
        let (first, socket) = socket.into_parts();
        let socket = BareSocket::new(socket, Some(sever.clone()));
        let input = Input::new(first.into(), info);
        let shared = Shared::new(|this| Line {
            stage: Stage::idle(&self.manner),
            socket,
            input,
            alarm: Alarm::default(),
            manner: self.manner.clone(),
            drain: drain.clone(),
            this,
        });
        // Made once: each poll would take its place among those who wait, and leave it again.
        let mut drained = pin!(drain.cancelled().fuse());
        loop {
            let due = poll_fn(|cx| {
                if sever.poll_severed(cx).is_ready() {
                    return Poll::Ready(Due::Over);
                }
                loop {
                    match shared.poll(cx) {
                        // Whether it matters is looked up.
                        Poll::Pending if drained.as_mut().poll(cx).is_ready() => {}
                        due => return due,
                    }
                }
            });
            let goes_on = match due.await {
                Due::Task(task) => {
                    // Boxed: what it takes to wait is not to be held by every parked poll.
                    let done = Box::pin(shared.alone(async |line| line.act(*task, self.gate.as_ref()).await));
                    done.await.flatten().is_some()
                }
                Due::Other => {
                    let line = shared.take()?;
                    return Some(Rewound::new(line.input.bytes, line.socket.into_inner()));
                }
                Due::Over => false,
            };
            if !goes_on {
                // Also where it is just being looked at for something else.
                drop(shared.take());
                return None;
            }
        }
    }
}

/// A socket and what is served on it.
struct Line {
    stage: Stage,
    socket: BareSocket,
    input: Input,
    /// For what is waited for: the next poll, or something to answer this one with.
    alarm: Alarm,
    manner: Arc<Manner>,
    drain: CancellationToken,
    this: Weak<dyn Served>,
}

/// What a socket is at.
enum Stage {
    /// The next head is to be there by then.
    Idle(Instant),
    Parked(Parked),
}

/// A poll that is under way.
struct Parked {
    session: Box<dyn Session>,
    gathering: Gathering,
    /// The client closes after the answer.
    closes: bool,
}

/// What is not done on the spot.
enum Due {
    /// Something that takes time.
    Task(Box<Task>),
    /// hyper's.
    Other,
    Over,
}

enum Task {
    /// The gate is asked.
    Ask(Box<PollHead>),
    /// An answer has to wait for the socket.
    Write(Waiting),
    /// An answer that no session can cut off: a refusal, or the last of a connection.
    Tell { bytes: Vec<u8>, closes: bool },
    /// The answer was written, and the client closes.
    Close,
}

/// An answer, and how much of it the socket took.
struct Waiting {
    session: Box<dyn Session>,
    bytes: Vec<u8>,
    written: usize,
    position: String,
    closes: bool,
}

impl From<Task> for Due {
    fn from(task: Task) -> Self {
        Self::Task(Box::new(task))
    }
}

impl Stage {
    fn idle(manner: &Manner) -> Self {
        Self::Idle(Instant::now() + manner.timing.head)
    }
}

impl Parked {
    fn new(mut session: Box<dyn Session>, wish: Wish, closes: bool, this: &Weak<dyn Served>) -> Self {
        session.lend(this.clone());
        Self { gathering: Gathering::new(wish, session.ready()), session, closes }
    }
}

impl Serve for Line {
    type Due = Due;

    fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        loop {
            let due = match &mut self.stage {
                &mut Stage::Idle(until) => ready!(self.poll_head(cx, until)),
                Stage::Parked(parked) => {
                    if poll_gone(&mut self.socket, &mut self.input.bytes, cx).is_ready() {
                        return Poll::Ready(Due::Over);
                    }
                    let gathered = ready!(parked.gathering.poll(parked.session.as_mut(), &mut self.alarm, cx));
                    match gathered {
                        Ok(()) => self.answer(),
                        Err(reason) => self.part(reason),
                    }
                }
            };
            if let Some(due) = due {
                return Poll::Ready(due);
            }
        }
    }

    fn poll_deliver(&mut self, cx: &mut Context<'_>) -> Poll<Option<Due>> {
        // Between two polls there is nobody to tell.
        let Stage::Parked(parked) = &mut self.stage else { return Poll::Pending };
        if !parked.session.ready() {
            return Poll::Pending;
        }
        if ready!(parked.gathering.poll(parked.session.as_mut(), &mut self.alarm, cx)).is_err() {
            return Poll::Ready(None);
        }
        if let Some(due) = self.answer() {
            return Poll::Ready(Some(due));
        }
        // The task has to see what comes next, which may be there already. Its waker waits for the socket since it came
        // to rest; here it comes to wait for as long as a head may take.
        match self.stage {
            Stage::Idle(until) if self.input.bytes.is_empty() => {
                self.alarm.poll_at(cx, Instant::now(), Some(until)).map(|()| None)
            }
            _ => Poll::Ready(None),
        }
    }
}

impl Line {
    /// Reads the next head; `None` if it is parked now.
    fn poll_head(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<Option<Due>> {
        let Self { socket, input, alarm, .. } = self;
        let mut next = input.take(&[]);
        while next.is_none() {
            let Poll::Ready(read) = socket.poll_read(cx, |bytes| next = input.take(bytes)) else {
                if input.bytes.is_empty() && self.drain.is_cancelled() {
                    return Poll::Ready(Some(Due::Over));
                }
                return alarm.poll_at(cx, Instant::now(), Some(until)).map(|()| Some(Due::Over));
            };
            if !matches!(read, Ok(1..)) {
                return Poll::Ready(Some(Due::Over));
            }
        }
        Poll::Ready(match next {
            Some(Next::Again(session, wish)) => {
                self.stage = Stage::Parked(Parked::new(session, wish, false, &self.this));
                None
            }
            Some(Next::Poll(head)) => Some(Task::Ask(head).into()),
            Some(Next::Other) | None => Some(Due::Other),
        })
    }

    /// The poll that is to be answered now; the socket is idle from here on.
    fn unpark(&mut self) -> Option<Parked> {
        match std::mem::replace(&mut self.stage, Stage::idle(&self.manner)) {
            Stage::Parked(parked) => Some(Parked { closes: parked.closes || self.drain.is_cancelled(), ..parked }),
            Stage::Idle(_) => None,
        }
    }

    /// Answers what was gathered; what is left to do for it.
    fn answer(&mut self) -> Option<Due> {
        let Parked { session, gathering, closes } = self.unpark()?;
        let reply = Reply::new(session.as_ref(), gathering.into_frames());
        let (bytes, position) = (self.spell(&reply, closes), reply.into_position());
        let (written, is_done) = self.socket.write_at_once(&bytes);
        if !is_done {
            return Some(Task::Write(Waiting { session, bytes, written, position, closes }).into());
        }
        // As long as it was not written whole, its session might have cut it off.
        self.answered(session, position);
        closes.then(|| Task::Close.into())
    }

    /// An answer was written. Whether its peer reads it is seen when that is silenced.
    fn answered(&mut self, mut session: Box<dyn Session>, position: String) {
        self.socket.severed_by().into_iter().for_each(|sever| session.answered(sever));
        self.input.answered(session, position);
    }

    /// The connection is over: what is said last.
    fn part(&mut self, reason: CloseReason) -> Option<Due> {
        let Parked { session, gathering, closes } = self.unpark()?;
        let reply = last_reply(session, reason, gathering);
        Some(Task::Tell { bytes: self.spell(&reply, closes), closes }.into())
    }

    fn spell(&self, reply: &Reply, closes: bool) -> Vec<u8> {
        let headers = reply.headers();
        let headers = headers.iter().map(|(name, value)| (name, value.as_bytes()));
        let mut bytes = answer_head(reply.status(), headers, reply.body_bytes(), closes, &self.manner.date);
        reply.put_body(&mut bytes);
        bytes
    }

    /// Does what takes time; `None` if nothing follows it.
    async fn act(&mut self, task: Task, gate: &dyn Gate) -> Option<()> {
        let closes = match task {
            Task::Ask(head) => self.ask(*head, gate).await?,
            Task::Write(waiting) => self.write_slowly(waiting).await?,
            Task::Tell { bytes, closes } => self.tell(&bytes, closes).await?,
            Task::Close => true,
        };
        if closes {
            self.socket.end(&[], self.manner.timing.last_words).await;
            // Closed, it would go on sending though its peer is silenced.
            let read = timeout(self.manner.timing.head, self.socket.discard());
            tokio::select! { biased; () = self.drain.cancelled() => {}, _ = read => {} }
            return None;
        }
        Some(())
    }

    /// Asks the gate, for as long as its peer is there; whether the client closes now.
    async fn ask(&mut self, head: PollHead, gate: &dyn Gate) -> Option<bool> {
        let PollHead { asked, closes, .. } = head;
        let admitted = match asked {
            Ok(Asked { handshake, wish }) => tokio::select! {
                biased;
                () = poll_fn(|cx| poll_gone(&mut self.socket, &mut self.input.bytes, cx)) => return None,
                admitted = gate.admit(handshake) => admitted.map(|session| (session, wish)),
            },
            Err(error) => Err(gate.reject(error)),
        };
        match admitted {
            Ok((session, wish)) => {
                self.stage = Stage::Parked(Parked::new(session, wish, closes, &self.this));
                Some(false)
            }
            Err(Refusal(refusal)) => {
                let closes = closes || self.drain.is_cancelled();
                self.tell(&spelled(&refusal, closes, &self.manner.date), closes).await
            }
        }
    }

    /// Writes what no session can cut off; whether the client closes then, as it does if it says so.
    async fn tell(&mut self, bytes: &[u8], closes: bool) -> Option<bool> {
        self.socket.tell(bytes, self.manner.timing.write_stall).await?;
        self.stage = Stage::idle(&self.manner);
        Some(closes)
    }

    /// Writes the rest of an answer; whether the client closes then.
    async fn write_slowly(&mut self, waiting: Waiting) -> Option<bool> {
        let Waiting { mut session, bytes, written, position, closes } = waiting;
        let stall = self.manner.timing.write_stall;
        match self.socket.write_slowly(&bytes, written, session.as_mut(), stall).await {
            Ok(()) => {
                self.answered(session, position);
                self.stage = Stage::idle(&self.manner);
                Some(closes)
            }
            Err(unwritten) => {
                cut_off(session, unwritten.reason);
                self.socket.sever();
                None
            }
        }
    }
}

/// Ready when the peer is gone. A client may send its next requests early; those that there is no room for stay in the socket
/// until this one is answered, and whether the peer goes meanwhile is seen then.
fn poll_gone(socket: &mut BareSocket, input: &mut Vec<u8>, cx: &mut Context<'_>) -> Poll<()> {
    while input.len() < EARLY_BYTES_MAX {
        if !matches!(ready!(socket.poll_read(cx, |bytes| input.extend_from_slice(bytes))), Ok(1..)) {
            return Poll::Ready(());
        }
    }
    Poll::Pending
}

/// Requests that come while another is served are kept up to here.
const EARLY_BYTES_MAX: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parked_poll_takes_five_cache_lines() {
        // An `Arc` adds its two counts.
        let bytes = size_of::<Shared<Line>>() + 2 * size_of::<usize>();
        assert!(bytes <= 320, "{bytes}");
    }
}
