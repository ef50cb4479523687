//! One connection on a socket of its own: the response goes on where hyper left it, chunk by chunk (RFC 9112 § 7.1).

use bytes::{BufMut, Bytes, BytesMut};

use super::connection::ROOM;
use super::spell;
use crate::bare::{BareSocket, BoxSocket, Unwritten};
use crate::close::CloseReason;
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
    let mut connection = Connection { socket: BareSocket::new(socket, sever), session, timing };
    let end = connection.serve(rest).await;
    Box::pin(connection.part(end)).await;
}

struct Connection {
    socket: BareSocket,
    session: Box<dyn Session>,
    timing: Timing,
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

impl From<Unwritten> for End {
    fn from(Unwritten { reason, in_part }: Unwritten) -> Self {
        Self { reason, mid_step: in_part }
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
        let Self { socket, session, timing } = self;
        socket.write(&chunk(events), session.as_mut(), timing.write_stall).await?;
        session.written();
        Ok(())
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
            return self.socket.sever();
        }
        let last = reason.ending().last.map(|last| chunk(&spell::event(&last))).unwrap_or_default();
        self.socket.end(&[&last[..], LAST_CHUNK].concat(), self.timing.last_words).await;
    }
}

/// Resolves when the peer is gone. What it says is thrown away; one that says a lot where nobody listens is gone too.
async fn ended(socket: &mut BareSocket) {
    let mut unheard = 0;
    while unheard < UNHEARD_BYTES_MAX {
        match socket.read(|_| {}).await {
            Ok(bytes @ 1..) => unheard += bytes,
            _ => return,
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
const UNHEARD_BYTES_MAX: usize = 16 * 1024;

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
