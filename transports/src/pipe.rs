//! Where a connection's task hands chunks to the response body: one place, not a queue.
//!
//! A channel would do but for one thing: what is in it can't be taken back, and a revocation has to. So a chunk lies
//! in the open until the body takes it.
//!
//! A body of HTTP/1.1 may end early in another way: its socket is taken out of hyper (`crate::hand_over`) and comes
//! through the pipe to the task.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::Stream;
use tokio::sync::Notify;

use crate::bare::BoxSocket;

/// A pipe that holds at most one chunk.
pub(crate) fn pipe() -> (Inlet, Outlet) {
    let shared = Arc::new(Shared::default());
    (Inlet(Arc::clone(&shared)), Outlet(shared))
}

/// The task's end. Dropped, it ends the body, after the chunk that may still lie there.
pub(crate) struct Inlet(Arc<Shared>);

/// The body's end. Dropped, it tells the task that the peer is gone.
pub(crate) struct Outlet(Arc<Shared>);

/// Why the body takes nothing more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It was dropped.
    Gone,
    /// Its socket is here: [`Inlet::socket`].
    Moved,
}

#[derive(Default)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// The body took a chunk, or was dropped.
    moved: Notify,
}

#[derive(Default)]
struct State {
    chunk: Option<Bytes>,
    /// Set while the body waits for a chunk.
    body: Option<Waker>,
    body_gone: bool,
    /// The body took a chunk, so the response has begun.
    begun: bool,
    /// The socket is being taken out of hyper; the body's drop says nothing then.
    moving: bool,
    socket: Option<BoxSocket>,
    end: Option<End>,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Clean,
    Broken,
}

impl Inlet {
    /// Offers a chunk and waits until the body took it. Cancelled, the chunk may still lie there: [`Inlet::retract`] it.
    pub(crate) async fn put(&mut self, chunk: Bytes) -> Result<(), Stop> {
        self.offer(chunk);
        self.taken().await
    }

    /// Lays a chunk down, in place of one that may still lie there.
    pub(crate) fn offer(&mut self, chunk: Bytes) {
        self.0.update(|state| state.chunk = Some(chunk));
    }

    /// Nothing follows what lies there: the body ends itself once it asks for more.
    pub(crate) fn finish(&mut self) {
        self.0.update(|state| state.end = Some(End::Clean));
    }

    /// Resolves when nothing lies there. Cancel safe.
    pub(crate) async fn taken(&self) -> Result<(), Stop> {
        loop {
            // Enabled before looking, so that no move between the two is missed.
            let mut moved = std::pin::pin!(self.0.moved.notified());
            moved.as_mut().enable();
            {
                let state = self.0.lock();
                if state.chunk.is_none() {
                    return Ok(());
                }
                if let Some(stop) = state.stop() {
                    return Err(stop);
                }
            }
            moved.await;
        }
    }

    /// Takes back what the body has not taken; `None` if nothing lay there.
    pub(crate) fn retract(&mut self) -> Option<Bytes> {
        self.0.lock().chunk.take()
    }

    /// The socket, once, after [`Stop::Moved`].
    pub(crate) fn socket(&mut self) -> Option<BoxSocket> {
        self.0.lock().socket.take()
    }

    /// Resolves when the body takes nothing more. Cancel safe.
    pub(crate) async fn stopped(&self) -> Stop {
        loop {
            let mut moved = std::pin::pin!(self.0.moved.notified());
            moved.as_mut().enable();
            if let Some(stop) = self.0.lock().stop() {
                return stop;
            }
            moved.await;
        }
    }

    /// Fails the body: hyper then drops the socket (HTTP/1.1) or resets the stream (HTTP/2) instead of ending it well.
    pub(crate) fn fail(self) {
        self.0.update(|state| {
            state.chunk = None;
            state.end = Some(End::Broken);
        });
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        self.0.update(|state| {
            state.end.get_or_insert(End::Clean);
        });
    }
}

impl Outlet {
    /// The pipe, for whoever may take its socket out of hyper.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.0)
    }
}

impl State {
    fn stop(&self) -> Option<Stop> {
        if self.socket.is_some() { Some(Stop::Moved) } else { self.body_gone.then_some(Stop::Gone) }
    }
}

impl Shared {
    /// Whether the socket may be taken now: the body waits for a further chunk and there is none. If so, it must follow by
    /// [`Shared::moved`].
    pub(crate) fn begin_move(&self) -> bool {
        let mut state = self.lock();
        let parked = state.begun && state.body.is_some() && state.chunk.is_none() && state.end.is_none();
        state.moving |= parked;
        parked
    }

    /// Hands the socket to the task; `None` if it was not to be had.
    pub(crate) fn moved(&self, socket: Option<BoxSocket>) {
        {
            let mut state = self.lock();
            state.body_gone = socket.is_none();
            state.socket = socket;
        }
        self.moved.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held, and a chunk more or less breaks no invariant.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes the body.
    fn update(&self, change: impl FnOnce(&mut State)) {
        let waker = {
            let mut state = self.lock();
            change(&mut state);
            state.body.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Stream for Outlet {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.0.lock();
        if let Some(chunk) = state.chunk.take() {
            state.body = None;
            state.begun = true;
            drop(state);
            self.0.moved.notify_waiters();
            return Poll::Ready(Some(Ok(chunk)));
        }
        match state.end {
            Some(End::Clean) => Poll::Ready(None),
            Some(End::Broken) => {
                state.end = Some(End::Clean);
                Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())))
            }
            None => {
                state.body = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        {
            let mut state = self.0.lock();
            state.body_gone = !state.moving;
        }
        self.0.moved.notify_waiters();
    }
}

/// The most to hand over at once: no more than a peer has to take in the time, so that it shows that it does.
pub(crate) const PIECE_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;

    #[tokio::test]
    async fn a_chunk_counts_as_written_only_once_it_is_taken() {
        let (mut inlet, mut outlet) = pipe();
        let mut put = Box::pin(inlet.put(Bytes::from_static(b"a")));
        assert_eq!(put.as_mut().now_or_never(), None);
        assert_eq!(outlet.next().await.unwrap().unwrap(), "a");
        assert_eq!(put.await, Ok(()));
        drop(inlet);
        assert!(outlet.next().await.is_none());
    }

    #[tokio::test]
    async fn a_retracted_chunk_is_never_seen() {
        let (mut inlet, mut outlet) = pipe();
        assert_eq!(inlet.put(Bytes::from_static(b"secret")).now_or_never(), None);
        assert!(inlet.retract().is_some());
        inlet.fail();
        assert!(outlet.next().await.unwrap().is_err());
        assert!(outlet.next().await.is_none());
    }

    #[tokio::test]
    async fn a_dropped_body_is_noticed_at_once() {
        let (mut inlet, outlet) = pipe();
        assert!(inlet.stopped().now_or_never().is_none());
        drop(outlet);
        assert_eq!(inlet.stopped().await, Stop::Gone);
        assert_eq!(inlet.put(Bytes::from_static(b"a")).await, Err(Stop::Gone));
    }
}
