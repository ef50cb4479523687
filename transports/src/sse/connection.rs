//! One connection: from the session's steps to chunks of the response body, until its socket is handed over.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::{direct, spell};
use crate::bare::BoxSocket;
use crate::close::CloseReason;
use crate::pipe::{Inlet, PIECE_BYTES, Stop};
use crate::sever::Sever;
use crate::stall::Stall;
use crate::timing::Timing;
use crate::transport::{Room, Session, Step};

/// Serves a connection until it ends, says the last words, and drops the session.
pub(super) async fn run(
    inlet: Inlet,
    session: Box<dyn Session>,
    timing: Arc<Timing>,
    sever: Option<Sever>,
    tasks: TaskTracker,
) {
    let mut connection = Connection { inlet, session, timing, mid_chunk: false };
    tracing::debug!(connection.id = connection.session.connection_id(), "SSE connection is up.");
    let end = connection.serve().await;
    let reason = match end {
        End::Reason(reason) => reason,
        End::Moved { socket, rest } => {
            // A fresh task: the state of this one would be held for as long as the connection lives (DESIGN.md § 8).
            drop(tasks.spawn(direct::run(socket, connection.session, connection.timing, sever, rest)));
            return;
        }
    };
    tracing::debug!(connection.id = connection.session.connection_id(), ?reason, "SSE connection ends.");
    let Connection { mut inlet, mut session, timing, mid_chunk } = connection;
    session.ended(reason);
    drop(session);
    // A last event behind half an event would be garbage.
    if reason == CloseReason::PeerClosed {
        return;
    }
    if !mid_chunk && say(&mut inlet, reason, &timing).await {
        if reason.silences() {
            // The body asks only while what it gave before may go out, so all of that is the socket's.
            sever.iter().for_each(Sever::silence);
        }
        return;
    }
    inlet.fail();
    if let Some(sever) = sever {
        sever.sever();
    }
}

struct Connection {
    inlet: Inlet,
    session: Box<dyn Session>,
    timing: Arc<Timing>,
    /// The body has taken a part of a step, and not yet all.
    mid_chunk: bool,
}

/// How it ends here.
enum End {
    Reason(CloseReason),
    /// It goes on without hyper, with what is left to write of a step.
    Moved {
        socket: BoxSocket,
        rest: Bytes,
    },
}

impl From<CloseReason> for End {
    fn from(reason: CloseReason) -> Self {
        Self::Reason(reason)
    }
}

impl Connection {
    async fn serve(&mut self) -> End {
        let mut greeting = Some(spell::retry());
        loop {
            let step = tokio::select! {
                biased;
                stop = self.inlet.stopped() => return self.stopped(&stop, Bytes::new()),
                step = self.session.next(ROOM) => step,
            };
            let chunk = match step {
                Step::Deliver(frames) => spell::events(&frames),
                Step::Ping(_) => spell::ping(),
                Step::Close(reason) => return reason.into(),
            };
            // One write for what comes first: the acknowledgement is there with the headers.
            let chunk = match greeting.take() {
                Some(retry) => Bytes::from([retry.as_bytes(), &chunk].concat()),
                None => chunk,
            };
            if let Err(end) = self.write(chunk).await {
                return end;
            }
            self.session.written();
        }
    }

    /// Hands over a step in pieces: what hyper has taken can't be revoked any more, so it is given little at a time.
    async fn write(&mut self, mut chunk: Bytes) -> Result<(), End> {
        let (bytes, mut stall) = (chunk.len(), Stall::new(self.timing.write_stall, 0));
        while !chunk.is_empty() {
            let rest = chunk.clone();
            let piece = chunk.split_to(chunk.len().min(PIECE_BYTES));
            let taken = (bytes - rest.len()) as u64;
            self.inlet.offer(piece);
            let put = tokio::select! {
                biased;
                reason = self.session.cut() => Err(reason.into()),
                taken = self.inlet.taken() => taken.map_err(|stop| self.stopped(&stop, rest)),
                () = stall.stalled(taken) => Err(CloseReason::WriteStalled.into()),
            };
            // Looked up, not concluded: the body may have taken it in the moment of the cut.
            if self.inlet.retract().is_none() {
                self.mid_chunk = !chunk.is_empty();
            }
            put?;
        }
        Ok(())
    }

    fn stopped(&mut self, stop: &Stop, rest: Bytes) -> End {
        match (stop, self.inlet.socket()) {
            (Stop::Moved, Some(socket)) => End::Moved { socket, rest },
            _ => CloseReason::PeerClosed.into(),
        }
    }
}

/// Says the last event. `false` if the body does not take it: then its socket is to be dropped.
async fn say(inlet: &mut Inlet, reason: CloseReason, timing: &Timing) -> bool {
    if reason == CloseReason::WriteStalled {
        return false;
    }
    let Some(last) = reason.ending().last else { return true };
    matches!(timeout(timing.last_words, inlet.put(spell::event(&last))).await, Ok(Ok(())))
}

/// A step is mostly one piece.
pub(super) const ROOM: Room = Room { frames: 256, bytes: 48 * 1024 };

#[cfg(all(test, feature = "contract"))]
mod tests {
    use futures::StreamExt;

    use super::*;
    use crate::contract::script::{Act, Script, frame};
    use crate::pipe::pipe;
    use crate::transport::{Gate, Liveness};
    use crate::{Handshake, Scripted};

    fn handshake() -> Handshake {
        Scripted::new("sse", Liveness::WriteOnly, Timing::default()).handshake()
    }

    #[tokio::test(start_paused = true)]
    async fn half_an_event_is_followed_by_nothing() {
        let script = Script::new([Act::Deliver(vec![frame("e-1", "test", "x".repeat(PIECE_BYTES))])]);
        let (inlet, mut outlet) = pipe();
        let sever = Sever::new();
        let session = script.admit(handshake()).await.ok().unwrap();
        drop(tokio::spawn(run(inlet, session, Arc::default(), Some(sever.clone()), TaskTracker::new())));
        assert_eq!(outlet.next().await.unwrap().unwrap().len(), PIECE_BYTES);
        script.change(|state| state.cut = Some(CloseReason::TokenRevoked));
        assert!(outlet.next().await.unwrap().is_err());
        sever.severed().await;
        assert!(outlet.next().await.is_none());
        assert_eq!(script.look(|state| (state.alive, state.written)), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_asks_for_nothing_is_severed_after_the_last_words() {
        let script = Script::new([Act::Close(CloseReason::TokenRevoked)]);
        let (inlet, _outlet) = pipe();
        let sever = Sever::new();
        let session = script.admit(handshake()).await.ok().unwrap();
        let before = tokio::time::Instant::now();
        run(inlet, session, Arc::default(), Some(sever.clone()), TaskTracker::new()).await;
        sever.severed().await;
        assert_eq!(before.elapsed(), Timing::default().last_words);
    }
}
