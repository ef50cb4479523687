//! One connection, from the upgraded socket to the last words.
//!
//! A wake-up looks at the socket once, writes what is due and waits: a socket on which nothing came wakes the task when
//! something does, so it is not looked at again after each write.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::time::{Instant, timeout, timeout_at};

use super::inbound::{Inbound, Rest, Said};
use super::outbox::Outbox;
use super::reader::Reader;
use super::wire;
use crate::bare::BoxSocket;
use crate::close::CloseReason;
use crate::sever::Sever;
use crate::shared::{Serve, Shared};
use crate::stall::Stall;
use crate::timing::Timing;
use crate::transport::{Room, Session, Step};

/// Serves a connection until it ends, says the last words, and drops the session. `first` was read from the socket;
/// `answer` is what it is yet to be told, if anything, of the upgrade.
///
/// No `async fn`: its arguments would be held twice, as such and where they are moved to (rust-lang/rust#62958).
pub(super) fn run(
    socket: BoxSocket,
    first: Bytes,
    session: Box<dyn Session>,
    timing: Arc<Timing>,
    sever: Option<Sever>,
    answer: Bytes,
) -> impl Future<Output = ()> + Send {
    sever.iter().for_each(Sever::watch);
    let mut line = Line { outbox: Outbox::new(socket), reader: Reader::default(), pong: None };
    line.reader.push(&first);
    if !answer.is_empty() {
        line.outbox.push(answer);
    }
    tracing::debug!(connection.id = session.connection_id(), "WebSocket connection is up.");
    let shared = Shared::new(|this| {
        let mut session = session;
        session.lend(this);
        Connection { line, session, timing, sever }
    });
    async move {
        let end = serve(&shared).await;
        // Boxed: its state would count for as long as the connection lives.
        Box::pin(part(shared, end)).await;
    }
}

/// Serves a connection until it is over.
async fn serve(shared: &Shared<Connection>) -> Box<End> {
    // Boxed: what it takes to wait is not to be held by every idle connection.
    let mut written = Box::pin(shared.alone(Connection::begin)).await;
    loop {
        let due = match written {
            Some(Ok(())) => poll_fn(|cx| shared.poll(cx)).await,
            Some(Err(end)) => return end,
            None => return End::broken(),
        };
        written = match due {
            Ok(()) => Box::pin(shared.alone(Connection::write_step)).await,
            Err(end) => return end,
        };
    }
}

/// Says the last words, gives the session up, and ends TCP such that the words arrive.
async fn part(shared: Arc<Shared<Connection>>, end: Box<End>) {
    let Some(connection) = shared.take() else { return };
    drop(shared);
    tracing::debug!(connection.id = connection.session.connection_id(), reason = ?end.reason, "WebSocket connection ends.");
    connection.part(end).await;
}

/// In this order, as a delivery looks at what comes first; the same holds for [`Line`] and [`Outbox`].
#[repr(C)]
struct Connection {
    session: Box<dyn Session>,
    line: Line,
    timing: Arc<Timing>,
    sever: Option<Sever>,
}

/// The peer's side.
#[repr(C)]
struct Line {
    outbox: Outbox,
    reader: Reader,
    /// The answer to the peer's last ping. It waits here while anything waits in the outbox, so that a peer that pings
    /// and never reads has one. Boxed: mostly there is none.
    pong: Option<Box<Bytes>>,
}

/// A step has to wait for the socket, or it is over.
type Due = Result<(), Box<End>>;

/// Why it is over, and how the peer's stream goes on. Boxed: whatever may end would have room for it all the time.
#[derive(Debug, Clone)]
struct End {
    reason: CloseReason,
    rest: Rest,
}

impl End {
    fn new(reason: CloseReason, rest: Rest) -> Box<Self> {
        Box::new(Self { reason, rest })
    }

    fn broken() -> Box<Self> {
        Self::new(CloseReason::SocketBroken, Rest::Nothing)
    }
}

impl From<io::Error> for Box<End> {
    fn from(_: io::Error) -> Self {
        End::broken()
    }
}

impl Serve for Connection {
    type Due = Due;

    /// The peer first, so that a pong that is already here is heard before a deadline it was to meet. But now and then
    /// the session first, so that a peer that never stops talking delays neither its events nor its revocation, and now
    /// and then the peer, so that a backlog does not delay what it says.
    fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        self.line.poll_pong(cx)?;
        let (mut listens, mut inbound_in_a_row, mut steps_in_a_row) = (true, 0, 0);
        loop {
            if listens && inbound_in_a_row < INBOUND_IN_A_ROW_MAX {
                match self.line.poll_inbound(cx) {
                    Poll::Ready(inbound) => {
                        self.hear(inbound)?;
                        self.line.poll_pong(cx)?;
                        inbound_in_a_row += 1;
                        continue;
                    }
                    Poll::Pending => listens = false,
                }
            }
            inbound_in_a_row = 0;
            match self.poll_next(cx)? {
                Poll::Ready(true) => {
                    steps_in_a_row += 1;
                    if steps_in_a_row == STEPS_IN_A_ROW_MAX {
                        (listens, steps_in_a_row) = (true, 0);
                    }
                }
                Poll::Ready(false) => return Poll::Ready(Ok(())),
                Poll::Pending if listens => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_deliver(&mut self, cx: &mut Context<'_>) -> Poll<Option<Due>> {
        // A pong on its way goes first. What ends it is looked for by its task, which hears the peer before.
        if !self.line.outbox.is_flushed() {
            return Poll::Ready(None);
        }
        // It had looked at everything when it came to rest, so what is due since is told by that.
        if self.session.ready() {
            match ready!(self.poll_next(cx)) {
                Ok(true) if self.session.ready() => return Poll::Ready(None),
                Ok(true) => {}
                Ok(false) => return Poll::Ready(Some(Ok(()))),
                Err(_) => return Poll::Ready(None),
            }
        }
        Poll::Pending
    }
}

impl Connection {
    /// Writes the answer that waits and the first step, which mostly is there at once, together: a write is a tenth of a
    /// reconnect.
    async fn begin(&mut self) -> Due {
        if self.line.outbox.is_flushed() {
            return Ok(());
        }
        let step = poll_fn(|cx| Poll::Ready(self.session.poll_next(cx, ROOM))).await;
        let Poll::Ready(step) = step else { return Ok(()) };
        if let Step::Close(_) = step {
            // Last words are for who was told of the upgrade.
            let told = timeout(self.timing.last_words, poll_fn(|cx| self.line.outbox.poll_flush(cx))).await;
            told.map_err(|_| End::broken())??;
        }
        self.give(step)?;
        self.write_step().await
    }

    /// Takes and writes the next step; `false` if it has to wait for the socket.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Box<End>>> {
        let step = ready!(self.session.poll_next(cx, ROOM));
        let is_written = self.poll_write(cx, step)?.is_ready();
        if is_written {
            self.session.written();
        }
        Poll::Ready(Ok(is_written))
    }

    /// Writes a step. Pending if the socket does not take all of it, which is in the outbox then.
    fn poll_write(&mut self, cx: &mut Context<'_>, step: Step) -> Poll<Due> {
        if let Step::Deliver(frames) = &step
            && let [only] = &frames[..]
            && !only.is_position_only()
            && self.line.outbox.is_flushed()
        {
            return self.line.outbox.poll_send(cx, only.wire()).map_err(Into::into);
        }
        self.give(step)?;
        self.line.outbox.poll_flush(cx).map_err(Into::into)
    }

    /// Writes the rest of a step, however long that takes.
    async fn write_step(&mut self) -> Due {
        self.write_slowly().await?;
        self.session.written();
        Ok(())
    }

    fn hear(&mut self, inbound: Inbound) -> Result<(), Box<End>> {
        match inbound {
            Inbound::Heard(said) => {
                self.session.heard(said.as_heard());
                if let Said::Ping(payload) = said {
                    self.line.pong = Some(Box::new(wire::pong(&payload)));
                }
                Ok(())
            }
            Inbound::Closed(answer) => Err(End::new(CloseReason::PeerClosed, Rest::Closed(answer))),
            Inbound::Ended(reason, rest) => Err(End::new(reason, rest)),
        }
    }

    /// Puts a step into the outbox.
    fn give(&mut self, step: Step) -> Result<(), Box<End>> {
        let outbox = &mut self.line.outbox;
        match step {
            Step::Deliver(frames) => {
                for frame in frames.iter().filter(|frame| !frame.is_position_only()) {
                    outbox.push(frame.wire().clone());
                }
            }
            Step::Ping(payload) => outbox.push(wire::ping(&payload)),
            Step::Close(reason) => return Err(End::new(reason, Rest::Frames)),
        }
        Ok(())
    }

    /// Listens while it writes: a peer that answers every event before it reads the next fills its own socket's
    /// buffers, and would never read again if nobody took its answers.
    async fn write_slowly(&mut self) -> Result<(), Box<End>> {
        let mut stall = Stall::new(self.timing.write_stall, self.line.outbox.taken());
        loop {
            let progress = tokio::select! {
                biased;
                reason = self.session.cut() => return Err(End::new(reason, Rest::Frames)),
                progress = poll_fn(|cx| self.line.poll_progress(cx, &mut stall)) => progress,
            };
            match progress {
                Progress::Flushed(flushed) => return Ok(flushed?),
                Progress::Stalled => return Err(End::new(CloseReason::WriteStalled, Rest::Nothing)),
                Progress::Read(inbound) => self.hear(inbound)?,
            }
        }
    }

    /// Says the last words, gives the session up, and ends TCP such that the words arrive.
    async fn part(mut self, end: Box<End>) {
        let last_words = self.timing.last_words;
        let until = Instant::now() + self.timing.close_answer;
        let said = timeout(last_words, self.say(&end)).await.unwrap_or(false);
        self.session.ended(end.reason);
        // Now, not after the peer's answer: its place is free.
        drop(self.session);
        let sever = self.sever.filter(|_| end.reason.silences() || end.reason == CloseReason::WriteStalled);
        if !said {
            // What the kernel holds for it goes with the socket.
            return sever.iter().for_each(Sever::sever);
        }
        let mut line = self.line;
        let answered = async {
            match end.rest {
                Rest::Frames => while matches!(line.inbound().await, Inbound::Heard(_)) {},
                Rest::Garbage => {
                    // The peer sees the end right behind the close frame, and then ends its side.
                    line.shut_down().await;
                    line.discard().await;
                }
                Rest::Closed(_) | Rest::Nothing => {}
            }
        };
        if timeout_at(until, answered).await.is_err()
            && let Some(sever) = sever
        {
            // It has not read up to the close frame: whatever lies before that is not to reach it any more.
            return sever.sever();
        }
        let _ = timeout(last_words, line.shut_down()).await;
    }

    /// Writes the last message and the close frame, or the answer to the peer's. `false` if there is nothing to say, or
    /// no way: then the socket is to be dropped.
    async fn say(&mut self, end: &End) -> bool {
        let outbox = &mut self.line.outbox;
        let between_frames = outbox.forget_unsent();
        if end.reason.silences() && !between_frames {
            // The rest of an event would have to go out before anything else could.
            return false;
        }
        let ending = end.reason.ending();
        if let (Some(last), true) = (&ending.last, ending.spoken) {
            outbox.push(last.wire().clone());
        }
        match (ending.close, &end.rest) {
            (None, Rest::Closed(answer)) => outbox.push(answer.clone()),
            (None, _) => return false,
            (said, _) => outbox.push(wire::close(said)),
        }
        poll_fn(|cx| outbox.poll_flush(cx)).await.is_ok()
    }
}

/// What a write that has to wait gets to.
enum Progress {
    Flushed(io::Result<()>),
    Stalled,
    Read(Inbound),
}

impl Line {
    /// What comes next from the peer.
    fn poll_inbound(&mut self, cx: &mut Context<'_>) -> Poll<Inbound> {
        loop {
            if let Some(inbound) = self.reader.next() {
                return Poll::Ready(inbound);
            }
            if !matches!(ready!(self.outbox.poll_read(cx, |bytes| self.reader.push(bytes))), Ok(1..)) {
                return Poll::Ready(Inbound::Ended(CloseReason::SocketBroken, Rest::Nothing));
            }
        }
    }

    async fn inbound(&mut self) -> Inbound {
        poll_fn(|cx| self.poll_inbound(cx)).await
    }

    fn poll_progress(&mut self, cx: &mut Context<'_>, stall: &mut Stall) -> Poll<Progress> {
        if let Poll::Ready(flushed) = self.outbox.poll_flush(cx) {
            return Poll::Ready(Progress::Flushed(flushed));
        }
        if stall.poll_stalled(cx, self.outbox.taken()).is_ready() {
            return Poll::Ready(Progress::Stalled);
        }
        self.poll_inbound(cx).map(Progress::Read)
    }

    /// Writes the pong that waits, if there is one and as soon as nothing else waits.
    fn poll_pong(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.outbox.is_flushed() || self.pong.is_some() {
            if self.outbox.is_flushed()
                && let Some(pong) = self.pong.take()
            {
                self.outbox.push(*pong);
            }
            if self.outbox.poll_flush(cx)?.is_pending() {
                break;
            }
        }
        Ok(())
    }

    async fn shut_down(&mut self) {
        // A socket that is broken has ended.
        let _ = poll_fn(|cx| self.outbox.poll_shutdown(cx)).await;
    }

    /// Reads until the peer ends.
    async fn discard(&mut self) {
        while matches!(poll_fn(|cx| self.outbox.poll_read(cx, |_| {})).await, Ok(1..)) {}
    }
}

/// A step: enough to make system calls cheap, little enough to hear the peer in between.
const ROOM: Room = Room { frames: 256, bytes: 256 * 1024 };
/// Inbound messages in a row before the session has its turn.
const INBOUND_IN_A_ROW_MAX: u32 = 64;
/// Steps in a row before the peer has its turn.
const STEPS_IN_A_ROW_MAX: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_connection_takes_four_cache_lines() {
        // An `Arc` adds its two counts.
        assert!(size_of::<Shared<Connection>>() + 2 * size_of::<usize>() <= 256);
    }
}
