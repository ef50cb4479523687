//! One connection on a socket of its own: the response goes on where hyper left it, chunk by chunk (RFC 9112 § 7.1).

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};

use super::connection::ROOM;
use super::spell;
use crate::bare::{BareSocket, BoxSocket, Unwritten};
use crate::close::CloseReason;
use crate::sever::Sever;
use crate::shared::{Serve, Shared};
use crate::timing::Timing;
use crate::transport::{Frame, Session, Step};

/// Serves a connection until it ends, says the last words, and drops the session. `rest` is what is left to write of a
/// step that was begun.
///
/// No `async fn`: its arguments would be held twice, as such and where they are moved to (rust-lang/rust#62958).
pub(super) fn run(
    socket: BoxSocket,
    session: Box<dyn Session>,
    timing: Arc<Timing>,
    sever: Option<Sever>,
    rest: Bytes,
) -> impl Future<Output = ()> + Send {
    sever.iter().for_each(Sever::leave_to_tcp);
    let begun = Box::new(Waiting { chunk: chunk(&rest), written: 0 });
    let shared = Shared::new(|this| {
        let mut session = session;
        session.lend(this);
        Connection { socket: BareSocket::new(socket, sever), session, timing, unheard: 0 }
    });
    async move {
        let end = serve(&shared, begun).await;
        Box::pin(part(shared, end)).await;
    }
}

/// Serves a connection until it is over.
async fn serve(shared: &Shared<Connection>, begun: Box<Waiting>) -> End {
    let mut due = Ok(begun);
    loop {
        let waiting = match due {
            Ok(waiting) => waiting,
            Err(end) => return end,
        };
        // Boxed: what it takes to wait is not to be held by every idle connection.
        let written = Box::pin(shared.alone(async |connection| connection.write_slowly(*waiting).await)).await;
        due = match written {
            Some(Ok(())) => poll_fn(|cx| shared.poll(cx)).await,
            Some(Err(end)) => return end,
            None => return CloseReason::PeerClosed.into(),
        };
    }
}

/// Says the last event and ends the response, where that is still possible, and gives the session up.
async fn part(shared: Arc<Shared<Connection>>, end: End) {
    let Some(connection) = shared.take() else { return };
    drop(shared);
    connection.part(end).await;
}

struct Connection {
    socket: BareSocket,
    session: Box<dyn Session>,
    timing: Arc<Timing>,
    /// Bytes that the peer said since the last step.
    unheard: usize,
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

/// A step that has to wait for the socket.
struct Waiting {
    chunk: Bytes,
    /// How much of it the socket took.
    written: usize,
}

type Due = Result<Box<Waiting>, End>;

impl Serve for Connection {
    type Due = Due;

    /// A wake-up looks at the socket once: with nothing on it, it wakes the task when there is.
    fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        if self.poll_ended(cx).is_ready() {
            return Poll::Ready(Err(CloseReason::PeerClosed.into()));
        }
        loop {
            if let Some(waits) = ready!(self.poll_next(cx))? {
                return Poll::Ready(Ok(waits));
            }
        }
    }

    fn poll_deliver(&mut self, cx: &mut Context<'_>) -> Poll<Option<Due>> {
        // It had looked at everything when it came to rest, so what is due since is told by that.
        if self.session.ready() {
            match ready!(self.poll_next(cx)) {
                Ok(None) if self.session.ready() => return Poll::Ready(None),
                Ok(None) => {}
                Ok(Some(waits)) => return Poll::Ready(Some(Ok(waits))),
                Err(_) => return Poll::Ready(None),
            }
        }
        Poll::Pending
    }
}

impl Connection {
    /// Writes what is left of a step.
    async fn write_slowly(&mut self, Waiting { chunk, written }: Waiting) -> Result<(), End> {
        if !chunk.is_empty() {
            let Self { socket, session, timing, .. } = self;
            socket.write_slowly(&chunk, written, session.as_mut(), timing.write_stall).await?;
            session.written();
        }
        Ok(())
    }

    /// Takes and writes the next step; gives it back if it has to wait for the socket.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Box<Waiting>>, End>> {
        let chunk = match ready!(self.session.poll_next(cx, ROOM)) {
            Step::Deliver(frames) => match &frames[..] {
                [only] => only.event().clone(),
                several => chunk(&spell::events(several)),
            },
            Step::Ping(_) => chunk(&spell::ping()),
            Step::Close(reason) => return Poll::Ready(Err(reason.into())),
        };
        let (written, is_done) = self.socket.write_at_once(&chunk);
        if !is_done {
            return Poll::Ready(Ok(Some(Box::new(Waiting { chunk, written }))));
        }
        self.session.written();
        self.unheard = 0;
        Poll::Ready(Ok(None))
    }

    /// Ready when the peer is gone. What it says is thrown away; one that says a lot where nobody listens is gone too.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.unheard < UNHEARD_BYTES_MAX {
            match ready!(self.socket.poll_read(cx, |_| {})) {
                Ok(bytes @ 1..) => self.unheard += bytes,
                _ => break,
            }
        }
        Poll::Ready(())
    }

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
        let last = [&last[..], LAST_CHUNK].concat();
        if reason.silences() {
            // What lies before that in the kernel is not to reach it later.
            self.socket.end_read(&last, self.timing.close_answer).await;
        } else {
            self.socket.end(&last, self.timing.last_words).await;
        }
    }
}

/// A frame as a chunk.
pub(crate) fn chunk_of(frame: &Frame) -> Bytes {
    chunk(&spell::event(frame))
}

/// Events as a chunk; none are none, as an empty chunk would end the response.
fn chunk(events: &[u8]) -> Bytes {
    if events.is_empty() {
        return Bytes::new();
    }
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

    type Run<F> = fn(BoxSocket, Box<dyn Session>, Arc<Timing>, Option<Sever>, Bytes) -> F;

    fn future_bytes<F>(_run: Run<F>) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_an_idle_connection_is_small() {
        let bytes = future_bytes(run);
        assert!(bytes <= TASK_BYTES_MAX, "{bytes}");
    }

    /// With Tokio's own 112 bytes it is 256, as aligned to 128.
    const TASK_BYTES_MAX: usize = 144;
}
