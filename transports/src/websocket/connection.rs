//! One connection, from the upgraded socket to the last words.

use std::future::poll_fn;
use std::task::Poll;

use futures::{FutureExt, SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::inbound::{Inbound, Rest};
use super::outbox::Outbox;
use super::wire;
use crate::close::CloseReason;
use crate::sever::Sever;
use crate::timing::Timing;
use crate::transport::{Room, Session, Step};

/// Serves a connection until it ends, says the last words, and drops the session.
pub(super) async fn run<S>(socket: S, session: Box<dyn Session>, timing: Timing, sever: Option<Sever>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // Boxed like the farewell: its copies of the stream would count for as long as the connection lives.
    let socket = Box::pin(WebSocketStream::from_raw_socket(Outbox::new(socket), Role::Server, Some(config()))).await;
    let mut connection = Connection { socket, session, timing, sever };
    tracing::debug!(connection.id = connection.session.connection_id(), "WebSocket connection is up.");
    let end = connection.serve().await;
    tracing::debug!(connection.id = connection.session.connection_id(), reason = ?end.reason, "WebSocket connection ends.");
    Box::pin(connection.part(end)).await;
}

struct Connection<S> {
    socket: WebSocketStream<Outbox<S>>,
    session: Box<dyn Session>,
    timing: Timing,
    sever: Option<Sever>,
}

/// Why it is over, and how the peer's stream goes on.
#[derive(Debug, Clone, Copy)]
struct End {
    reason: CloseReason,
    rest: Rest,
}

impl End {
    const BROKEN: Self = Self { reason: CloseReason::SocketBroken, rest: Rest::Nothing };
}

/// What comes first: something from the peer or something for it.
enum Turn {
    Inbound(Inbound),
    Step(Step),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    async fn serve(&mut self) -> End {
        let mut inbound_in_a_row = 0;
        loop {
            match self.turn(inbound_in_a_row < INBOUND_IN_A_ROW_MAX).await {
                Turn::Inbound(inbound) => {
                    inbound_in_a_row = if inbound_in_a_row < INBOUND_IN_A_ROW_MAX { inbound_in_a_row + 1 } else { 0 };
                    if let Err(end) = self.hear(inbound) {
                        return end;
                    }
                }
                Turn::Step(step) => {
                    inbound_in_a_row = 0;
                    if let Err(end) = self.take(step).await {
                        return end;
                    }
                }
            }
        }
    }

    /// The peer first, so that a pong that is already here is heard before a deadline it was to meet. But now and then
    /// the session first, so that a peer that never stops talking delays neither its events nor its revocation.
    async fn turn(&mut self, listen_first: bool) -> Turn {
        if listen_first {
            tokio::select! {
                biased;
                read = self.socket.next() => Turn::Inbound(read.into()),
                step = self.session.next(ROOM) => Turn::Step(step),
            }
        } else {
            tokio::select! {
                biased;
                step = self.session.next(ROOM) => Turn::Step(step),
                read = self.socket.next() => Turn::Inbound(read.into()),
            }
        }
    }

    fn hear(&mut self, inbound: Inbound) -> Result<(), End> {
        match inbound {
            Inbound::Heard(said) => {
                self.session.heard(said.as_heard());
                Ok(())
            }
            Inbound::Closed => Err(End { reason: CloseReason::PeerClosed, rest: Rest::Frames }),
            Inbound::Ended(reason, rest) => Err(End { reason, rest }),
        }
    }

    async fn take(&mut self, step: Step) -> Result<(), End> {
        let outbox = self.socket.get_mut();
        match step {
            Step::Deliver(frames) => {
                for frame in frames.iter().filter(|frame| !frame.is_position_only()) {
                    outbox.push(frame.wire().clone());
                }
            }
            Step::Ping(payload) => outbox.push(wire::ping(&payload)),
            Step::Close(reason) => return Err(End { reason, rest: Rest::Frames }),
        }
        self.write().await?;
        self.session.written();
        Ok(())
    }

    /// Writes what waits.
    async fn write(&mut self) -> Result<(), End> {
        // Past tungstenite, whose own pongs go out when it is read from.
        match self.socket.get_mut().flush().now_or_never() {
            // Mostly the socket takes all at once: no timer then, and nothing to watch.
            Some(flushed) => flushed.map_err(|_| End::BROKEN),
            // Boxed: what it takes to wait is not to be held by every idle connection.
            None => Box::pin(self.write_slowly()).await,
        }
    }

    /// Listens while it writes: a peer that answers every event before it reads the next fills its own socket's
    /// buffers, and would never read again if nobody took its answers.
    async fn write_slowly(&mut self) -> Result<(), End> {
        let mut taken = self.socket.get_ref().taken();
        let mut stalled = std::pin::pin!(sleep(self.timing.write_stall));
        loop {
            let progress = tokio::select! {
                biased;
                reason = self.session.cut() => return Err(End { reason, rest: Rest::Frames }),
                () = &mut stalled => {
                    let taken_before = std::mem::replace(&mut taken, self.socket.get_ref().taken());
                    if taken - taken_before < WRITE_BYTES_MIN {
                        return Err(End { reason: CloseReason::WriteStalled, rest: Rest::Nothing });
                    }
                    stalled.as_mut().reset(Instant::now() + self.timing.write_stall);
                    continue;
                }
                progress = flushed_or_read(&mut self.socket) => progress,
            };
            match progress {
                Progress::Flushed(flushed) => return flushed.map_err(|_| End::BROKEN),
                Progress::Read(inbound) => self.hear(inbound)?,
            }
        }
    }

    /// Says the last words, gives the session up, and ends TCP such that the words arrive.
    async fn part(mut self, end: End) {
        let last_words = self.timing.last_words;
        let said = timeout(last_words, self.say(end)).await.unwrap_or(false);
        self.session.ended(end.reason);
        // Now, not after the peer's answer: its place is free.
        drop(self.session);
        let sever = self.sever.filter(|_| end.reason.silences() || end.reason == CloseReason::WriteStalled);
        if !said {
            // What the kernel holds for it goes with the socket.
            return sever.iter().for_each(Sever::sever);
        }
        let mut socket = self.socket;
        let answered = async {
            match end.rest {
                Rest::Frames => while matches!(socket.next().await, Some(Ok(message)) if !message.is_close()) {},
                Rest::Garbage => {
                    // The peer sees the end right behind the close frame, and then ends its side.
                    let _ = socket.get_mut().shutdown().await;
                    discard(socket.get_mut()).await;
                }
                Rest::Nothing => {}
            }
        };
        if timeout(self.timing.close_answer, answered).await.is_err() {
            // It has not read up to the close frame: whatever lies before that is not to reach it any more.
            sever.iter().for_each(Sever::sever);
        }
        let _ = timeout(last_words, socket.get_mut().shutdown()).await;
    }

    /// Writes the last message and the close frame, or the answer to the peer's. `false` if there is nothing to say, or
    /// no way: then the socket is to be dropped.
    async fn say(&mut self, end: End) -> bool {
        let between_frames = self.socket.get_mut().forget_unsent();
        if end.reason.silences() && !between_frames {
            // The rest of an event would have to go out before anything else could.
            return false;
        }
        let ending = end.reason.ending();
        if let (Some(last), true) = (&ending.last, ending.spoken) {
            self.socket.get_mut().push(last.wire().clone());
        }
        if let Some((code, text)) = ending.close {
            let frame = CloseFrame { code: code.into(), reason: text.into() };
            return self.socket.send(Message::Close(Some(frame))).await.is_ok();
        }
        if end.rest == Rest::Frames {
            // The peer closed: tungstenite has the echo ready and writes it when it is read from.
            while let Some(Ok(_)) = self.socket.next().await {}
            return self.socket.get_mut().flush().await.is_ok();
        }
        false
    }
}

/// What a write that has to wait gets to.
enum Progress {
    Flushed(Result<(), Error>),
    Read(Inbound),
}

async fn flushed_or_read<S>(socket: &mut WebSocketStream<Outbox<S>>) -> Progress
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    poll_fn(|cx| {
        if let Poll::Ready(flushed) = socket.poll_flush_unpin(cx) {
            return Poll::Ready(Progress::Flushed(flushed));
        }
        socket.poll_next_unpin(cx).map(|read| Progress::Read(read.into()))
    })
    .await
}

/// Reads until the peer ends.
async fn discard<R: AsyncRead + Unpin>(socket: &mut R) {
    let mut waste = vec![0; DISCARD_BYTES];
    while matches!(socket.read(&mut waste).await, Ok(1..)) {}
}

fn config() -> WebSocketConfig {
    // Nothing is buffered in tungstenite but pongs that the socket does not take.
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(PENDING_CONTROL_BYTES_MAX)
        .max_message_size(Some(INBOUND_BYTES_MAX))
        .max_frame_size(Some(INBOUND_BYTES_MAX))
}

/// A step: enough to make system calls cheap, little enough to hear the peer in between.
const ROOM: Room = Room { frames: 256, bytes: 256 * 1024 };
/// What a socket takes at least of a waiting write in [`Timing::write_stall`].
const WRITE_BYTES_MIN: u64 = 64 * 1024;
/// Inbound messages in a row before the session has its turn.
const INBOUND_IN_A_ROW_MAX: u32 = 64;
/// Largest inbound message and frame (CONTRACT.md § 4).
const INBOUND_BYTES_MAX: usize = 64 * 1024;
/// Allocated for as long as the connection lives. Pongs and receipts fit; what is longer comes in several reads.
const READ_BUFFER_BYTES: usize = 256;
const PENDING_CONTROL_BYTES_MAX: usize = 4 * 1024;
const DISCARD_BYTES: usize = 4 * 1024;
