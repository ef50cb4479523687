//! A connection that its task shares with whoever has something for its peer.
//!
//! An event that goes to a thousand connections would wake a thousand tasks, and each wake-up looks at its task, the
//! runtime's queue and the readiness of its socket before it comes to what is due: of the 26 cache lines of a delivery, all
//! cold by then, nine. So a connection at rest is served where the news is ([`Served`]): under its lock, by the same steps
//! and in its task's name, whose waker is left with all that is waited for. What may take
//! longer (a second step, a socket that takes no more, the end, a poll's next request) is its task's, which is woken for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker, ready};

use crate::transport::Served;

/// What a [`Shared`] connection can do.
pub(crate) trait Serve: Send + 'static {
    /// What its task has to do next, which may take time.
    type Due: Send;

    /// Serves for as long as nothing has to wait: the peer, and what is due.
    fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<Self::Due>;

    /// Writes a step if one is due, without a look at what the peer says, so never an end. Ready when its task is to go on:
    /// with what it has to do first, if that is known.
    fn poll_deliver(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::Due>>;
}

/// A connection, at rest or not.
pub(crate) struct Shared<C: Serve>(Mutex<State<C>>);

/// In this order, as a delivery looks at what comes first.
#[repr(C)]
struct State<C: Serve> {
    /// That of its task, once it was polled.
    task: Waker,
    /// Its task has nothing to do first.
    is_at_rest: bool,
    /// `None` while its task has it to itself.
    connection: Option<C>,
    /// What its task has to do, as was found out on the spot.
    due: Option<C::Due>,
}

impl<C: Serve> Shared<C> {
    /// Shares a connection that is made with what its session is to [lend](crate::Session::lend). It rests for the first
    /// time after something was done [alone](Self::alone).
    pub(crate) fn new(connect: impl FnOnce(Weak<dyn Served>) -> C) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| {
            let (task, connection) = (Waker::noop().clone(), Some(connect(this.clone())));
            Self(Mutex::new(State { task, connection, is_at_rest: false, due: None }))
        })
    }

    /// [`Serve::poll_serve`], by its task.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<C::Due> {
        let state = &mut *self.state();
        if !state.task.will_wake(cx.waker()) {
            state.task.clone_from(cx.waker());
        }
        if let Some(due) = state.due.take() {
            return Poll::Ready(due);
        }
        let Some(connection) = &mut state.connection else { return Poll::Pending };
        let due = ready!(connection.poll_serve(cx));
        state.is_at_rest = false;
        Poll::Ready(due)
    }

    /// Does something that takes time, with the connection to itself, which rests then: by its task, which does one thing
    /// at a time, so there is one.
    pub(crate) async fn alone<T>(&self, act: impl AsyncFnOnce(&mut C) -> T) -> Option<T> {
        let mut connection = self.take()?;
        let done = act(&mut connection).await;
        let mut state = self.state();
        (state.connection, state.is_at_rest) = (Some(connection), true);
        Some(done)
    }

    /// Takes the connection, for its end.
    pub(crate) fn take(&self) -> Option<C> {
        self.state().connection.take()
    }

    fn state(&self) -> MutexGuard<'_, State<C>> {
        // What panicked under it was a delivery, and that is given again.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Serve> Served for Shared<C> {
    fn serve(&self) -> bool {
        let Ok(mut state) = self.0.try_lock() else { return false };
        let State { task, connection: Some(connection), is_at_rest: at_rest @ true, due } = &mut *state else {
            return false;
        };
        if let Poll::Ready(first) = connection.poll_deliver(&mut Context::from_waker(task)) {
            (*at_rest, *due) = (first.is_none(), first);
            // Not left to who asked: a poll that was answered does not listen any more.
            task.wake_by_ref();
        }
        true
    }
}
