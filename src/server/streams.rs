//! The streams of an HTTP/2 connection, each a task that can be dropped alone.
//!
//! While a peer gives a stream no room, hyper asks for nothing more of its body, so that failing that reaches nobody. A
//! stream that is dropped is reset, and h2 throws away what it holds for it; the others go on.

use std::sync::{Arc, Mutex, PoisonError};

use gatecast_transports::Sever;
use hyper::rt::Executor;

/// What ends each stream; hyper runs them by it.
#[derive(Clone, Default)]
pub(super) struct Streams(Arc<Mutex<Option<Sever>>>);

impl Streams {
    /// What ends the stream of a request that has just come: hyper asks for the answer to it, and then has that run.
    pub(super) fn begin(&self, socket: &Sever) -> Sever {
        let sever = Sever::of_stream(socket);
        *self.begun() = Some(sever.clone());
        sever
    }

    fn begun(&self) -> std::sync::MutexGuard<'_, Option<Sever>> {
        // Replaced whole, so never half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Future<Output: Send> + Send + 'static> Executor<S> for Streams {
    fn execute(&self, stream: S) {
        let begun = self.begun().take();
        drop(tokio::spawn(async move {
            let Some(sever) = begun else { return drop(stream.await) };
            tokio::select! { biased; () = sever.severed() => {}, _ = stream => {} }
        }));
    }
}
