//! One connection on a socket of its own: the response goes on where hyper left it, chunk by chunk (RFC 9112 § 7.1).

use bytes::{BufMut, Bytes, BytesMut};
use futures::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};

use super::connection::ROOM;
use super::spell;
use crate::close::CloseReason;
use crate::hand_over::BoxSocket;
use crate::pipe::PIECE_BYTES;
use crate::sever::Sever;
use crate::timing::Timing;
use crate::transport::{Session, Step};

/// Serves a connection until it ends, says the last words, and drops the session. `rest` is what is left to write of a
/// step that was begun.
pub(super) async fn run(
    socket: BoxSocket,
    session: Box<dyn Session>,
    timing: Timing,
    sever: Option<Sever>,
    rest: Bytes,
) {
    let mut connection = Connection { socket, session, timing, sever };
    let end = connection.serve(rest).await;
    Box::pin(connection.part(end)).await;
}

struct Connection {
    socket: BoxSocket,
    session: Box<dyn Session>,
    timing: Timing,
    sever: Option<Sever>,
}

/// Why it is over.
struct End {
    reason: CloseReason,
    /// A step is written in part, so nothing may follow.
    mid_step: bool,
}

impl From<CloseReason> for End {
    fn from(reason: CloseReason) -> Self {
        Self { reason, mid_step: false }
    }
}

impl Connection {
    async fn serve(&mut self, rest: Bytes) -> End {
        if !rest.is_empty()
            && let Err(end) = self.take(&rest).await
        {
            return end;
        }
        loop {
            let step = tokio::select! {
                biased;
                () = ended(&mut self.socket) => return CloseReason::PeerClosed.into(),
                step = self.session.next(ROOM) => step,
            };
            let events = match step {
                Step::Deliver(frames) => spell::events(&frames),
                Step::Ping(_) => spell::ping(),
                Step::Close(reason) => return reason.into(),
            };
            if let Err(end) = self.take(&events).await {
                return end;
            }
        }
    }

    async fn take(&mut self, events: &[u8]) -> Result<(), End> {
        let chunk = chunk(events);
        let (written, done) = self.write_at_once(&chunk);
        if !done {
            // Boxed: what it takes to wait is not to be held by every idle connection.
            Box::pin(self.write_slowly(&chunk, written)).await?;
        }
        self.session.written();
        Ok(())
    }

    /// Writes what the socket takes without waiting, which mostly is all: how much, and whether all has left. A failure is
    /// met again by [`Self::write_slowly`].
    fn write_at_once(&mut self, chunk: &[u8]) -> (usize, bool) {
        let mut written = 0;
        while let Some(left) = chunk.get(written..).filter(|left| !left.is_empty()) {
            match self.socket.write(left).now_or_never() {
                Some(Ok(taken @ 1..)) => written += taken,
                _ => return (written, false),
            }
        }
        (written, matches!(self.socket.flush().now_or_never(), Some(Ok(()))))
    }

    async fn write_slowly(&mut self, chunk: &[u8], mut written: usize) -> Result<(), End> {
        let Self { socket, session, timing, .. } = self;
        let (mut due, mut since) = (Instant::now() + timing.write_stall, written);
        loop {
            let left = chunk.get(written..).unwrap_or_default();
            let failed = tokio::select! {
                biased;
                reason = session.cut() => reason,
                () = sleep_until(due) => CloseReason::WriteStalled,
                taken = write_or_flush(socket, left) => match taken {
                    Some(0) => return Ok(()),
                    Some(taken) => {
                        written += taken;
                        if written - since >= PIECE_BYTES {
                            (due, since) = (Instant::now() + timing.write_stall, written);
                        }
                        continue;
                    }
                    None => CloseReason::PeerClosed,
                }
            };
            return Err(End { reason: failed, mid_step: written > 0 });
        }
    }

    /// Says the last event and ends the response, where that is still possible, and gives the session up.
    async fn part(mut self, end: End) {
        let End { reason, mid_step } = end;
        tracing::debug!(connection.id = self.session.connection_id(), ?reason, "SSE connection ends.");
        self.session.ended(reason);
        drop(self.session);
        if reason == CloseReason::PeerClosed {
            return;
        }
        if mid_step || reason == CloseReason::WriteStalled {
            // What the kernel holds for it goes with the socket.
            return self.sever.iter().for_each(Sever::sever);
        }
        let last = reason.ending().last.map(|last| chunk(&spell::event(&last))).unwrap_or_default();
        let said = async {
            self.socket.write_all(&[&last[..], LAST_CHUNK].concat()).await?;
            self.socket.shutdown().await
        };
        // A peer that does not take it loses the socket all the same, and what is on its way.
        if timeout(self.timing.last_words, said).await.is_err() {
            self.sever.iter().for_each(Sever::sever);
        }
    }
}

/// Writes some, or with nothing left to write flushes and gives 0; `None` if the socket is broken.
async fn write_or_flush(socket: &mut BoxSocket, left: &[u8]) -> Option<usize> {
    if left.is_empty() {
        return socket.flush().await.ok().map(|()| 0);
    }
    socket.write(left).await.ok().filter(|taken| *taken > 0)
}

/// Resolves when the peer is gone. What it says is thrown away; one that says a lot where nobody listens is gone too.
async fn ended(socket: &mut BoxSocket) {
    for _ in 0..UNHEARD_READS_MAX {
        if !matches!(socket.read(&mut [0; UNHEARD_BYTES]).await, Ok(1..)) {
            return;
        }
    }
}

fn chunk(events: &[u8]) -> Bytes {
    let size = format!("{:x}\r\n", events.len());
    let mut chunk = BytesMut::with_capacity(size.len() + events.len() + 2);
    chunk.put_slice(size.as_bytes());
    chunk.put_slice(events);
    chunk.put_slice(b"\r\n");
    chunk.freeze()
}

const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// Small, as it is part of every idle connection.
const UNHEARD_BYTES: usize = 64;
const UNHEARD_READS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    type Run<F> = fn(BoxSocket, Box<dyn Session>, Timing, Option<Sever>, Bytes) -> F;

    fn future_bytes<F>(_run: Run<F>) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_an_idle_connection_is_small() {
        let bytes = future_bytes(run);
        assert!(bytes <= TASK_BYTES_MAX, "{bytes}");
    }

    const TASK_BYTES_MAX: usize = 640;
}
