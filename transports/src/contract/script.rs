//! A gate whose sessions do what a test says.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::timeout;

use super::PATIENCE;
use crate::close::CloseReason;
use crate::handshake::{Handshake, HandshakeError};
use crate::transport::{Frame, Gate, Heard, Refusal, Room, Served, Session, Step, Ticket};

/// A gate and all its sessions: one list of steps, from which whichever session is alive takes. As in the contract, a
/// step that was not written is given again.
#[derive(Debug, Clone)]
pub struct Script(watch::Sender<State>);

/// A step that can be given again.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Act {
    Deliver(Vec<Arc<Frame>>),
    Ping(Bytes),
    Close(CloseReason),
    /// There is more, and it takes for ever to read.
    Read,
}

/// What happened so far.
#[derive(Debug, Default)]
pub struct State {
    /// What is still to be done.
    pub acts: VecDeque<Act>,
    /// What was heard, spelled: `life`, `pong …`, `text …`.
    pub heard: Vec<String>,
    /// Calls of `written`.
    pub written: usize,
    /// How much was heard before the first call of `written`.
    pub heard_before_written: Option<usize>,
    /// Why connections ended.
    pub ended: Vec<CloseReason>,
    /// Sessions admitted.
    pub admitted: usize,
    /// Sessions that are alive.
    pub alive: usize,
    /// Sessions leave tickets, which are good.
    pub tickets: bool,
    /// Sessions that went on from a ticket.
    pub resumed: usize,
    /// Requests that were no handshakes.
    pub rejected: Vec<HandshakeError>,
    /// Resolves `cut`.
    pub cut: Option<CloseReason>,
    /// The connection that a session was lent last, to be served without its task.
    pub lent: Option<Weak<dyn Served>>,
    /// Refuse instead of admitting: status, header, body.
    pub refuse: Option<(u16, (&'static str, &'static str), &'static str)>,
    position: String,
}

impl Script {
    /// A script of these steps.
    #[must_use]
    pub fn new(acts: impl IntoIterator<Item = Act>) -> Self {
        let position = "e-0".to_owned();
        Self(watch::Sender::new(State { acts: acts.into_iter().collect(), position, ..State::default() }))
    }

    /// Changes what is to be done.
    pub fn change(&self, change: impl FnOnce(&mut State)) {
        self.0.send_modify(change);
    }

    /// Adds steps.
    pub fn play(&self, acts: impl IntoIterator<Item = Act>) {
        self.change(|state| state.acts.extend(acts));
    }

    /// Looks at what happened.
    pub fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.0.borrow())
    }

    /// Serves the connection as who has news for it does.
    #[must_use]
    pub fn serve(&self) -> bool {
        let lent = self.look(|state| state.lent.clone());
        lent.and_then(|lent| lent.upgrade()).is_some_and(|lent| lent.serve())
    }

    /// Waits until something has happened; panics with `what` after [`PATIENCE`].
    pub async fn until(&self, what: &str, happened: impl FnMut(&State) -> bool) {
        let mut watch = self.0.subscribe();
        let waited = timeout(PATIENCE, watch.wait_for(happened)).await.map(|found| found.is_ok());
        assert!(waited.is_ok(), "in vain waited until {what}: {:?}", self.look(summary));
    }
}

fn summary(state: &State) -> String {
    let State { acts, written, ended, admitted, alive, heard, .. } = state;
    format!(
        "{} acts left, {written} written, ended {ended:?}, {admitted} admitted, {alive} alive, {} heard",
        acts.len(),
        heard.len()
    )
}

/// A message with an id.
#[must_use]
pub fn frame(id: &str, name: &str, text: impl AsRef<str>) -> Arc<Frame> {
    Arc::new(Frame::new(Some(id.to_owned()), name, text))
}

/// The acknowledgement.
#[must_use]
pub fn ack() -> Act {
    Act::Deliver(vec![frame("e-0", "connection.ack", ACK)])
}

/// The text of [`ack`].
pub const ACK: &str = r#"{"type":"connection.ack","connectionId":"c-1"}"#;
/// The id of every connection.
pub const CONNECTION: &str = "c-1";

#[async_trait]
impl Gate for Script {
    async fn admit(&self, _handshake: Handshake) -> Result<Box<dyn Session>, Refusal> {
        if let Some((status, (name, value), body)) = self.look(|state| state.refuse) {
            let answer = http::Response::builder().status(status).header(name, value);
            return Err(Refusal(answer.body(Bytes::from_static(body.as_bytes())).unwrap()));
        }
        self.change(|state| {
            state.admitted += 1;
            state.alive += 1;
        });
        Ok(Box::new(Scene { script: self.clone(), change: None }))
    }

    fn reject(&self, error: HandshakeError) -> Refusal {
        let (status, name) = match &error {
            HandshakeError::UpgradeRequired => (426, "UPGRADE"),
            HandshakeError::MethodNotAllowed { allow } => (405, *allow),
            HandshakeError::UnsupportedVersion => (426, "VERSION"),
            HandshakeError::InvalidParameter { name, .. } => (400, *name),
        };
        self.change(|state| state.rejected.push(error));
        Refusal(http::Response::builder().status(status).body(Bytes::from_static(name.as_bytes())).unwrap())
    }
}

struct Scene {
    script: Script,
    /// The next change of the state.
    change: Option<BoxFuture<'static, ()>>,
}

impl Scene {
    /// Polls until the state has something to give.
    fn poll<T>(&mut self, cx: &mut Context<'_>, look: impl Fn(&State) -> Option<T>) -> Poll<T> {
        loop {
            let mut watch = self.script.0.subscribe();
            if let Some(found) = self.script.look(&look) {
                return Poll::Ready(found);
            }
            // The one before began to wait before this look.
            let change = self.change.get_or_insert_with(|| async move { watch.changed().map(drop).await }.boxed());
            ready!(change.poll_unpin(cx));
            self.change = None;
        }
    }
}

impl Session for Scene {
    fn connection_id(&self) -> String {
        CONNECTION.to_owned()
    }

    fn position(&self) -> String {
        self.script.look(|state| state.position.clone())
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, room: Room) -> Poll<Step> {
        assert!(room.frames > 0, "no room for a single frame");
        self.poll(cx, |state| {
            Some(match (state.cut, state.acts.front().cloned()) {
                (Some(reason), _) | (None, Some(Act::Close(reason))) => Step::Close(reason),
                (None, Some(Act::Deliver(frames))) => Step::Deliver(frames.into()),
                (None, Some(Act::Ping(payload))) => Step::Ping(payload),
                (None, None | Some(Act::Read)) => return None,
            })
        })
    }

    fn lend(&mut self, connection: Weak<dyn Served>) {
        self.script.change(|state| state.lent = Some(connection));
    }

    fn ready(&self) -> bool {
        self.script.look(|state| !state.acts.is_empty())
    }

    fn written(&mut self) {
        self.script.change(|state| {
            state.written += 1;
            state.heard_before_written.get_or_insert(state.heard.len());
            if let Some(Act::Deliver(frames)) = state.acts.pop_front()
                && let Some(id) = frames.iter().rev().find_map(|frame| frame.id())
            {
                id.clone_into(&mut state.position);
            }
        });
    }

    fn heard(&mut self, heard: Heard<'_>) {
        let spelled = match heard {
            Heard::Life => "life".to_owned(),
            Heard::Pong(payload) => format!("pong {}", String::from_utf8_lossy(payload)),
            Heard::Text(text) => format!("text {text}"),
        };
        self.script.change(|state| state.heard.push(spelled));
    }

    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        self.poll(cx, |state| state.cut)
    }

    fn rest(self: Box<Self>) -> Option<Box<dyn Ticket>> {
        self.script.look(|state| state.tickets).then(|| -> Box<dyn Ticket> { Box::new(self.script.clone()) })
    }

    fn ended(&mut self, reason: CloseReason) {
        self.script.change(|state| state.ended.push(reason));
    }
}

impl Ticket for Script {
    fn resume(self: Box<Self>) -> Option<Box<dyn Session>> {
        if !self.look(|state| state.tickets) {
            return None;
        }
        self.change(|state| {
            state.resumed += 1;
            state.alive += 1;
        });
        Some(Box::new(Scene { script: *self, change: None }))
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.script.change(|state| state.alive -= 1);
    }
}
