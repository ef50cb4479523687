use std::ops::Deref;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How long a tree may take to close: writing what is buffered, some MiB.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// An open sled tree that is left behind if it does not close. sled waits for its flusher thread without an end when it
/// closes, and that thread panics on some of what is wrong on disk, so the opening of a damaged store and the end of a
/// server would hang. All that was answered is synced by then.
pub(super) struct Tree {
    db: ::sled::Db,
    /// After `db`, which is not the last handle then.
    closing: Option<Closing>,
}

impl Tree {
    pub(super) fn new(db: ::sled::Db) -> Self {
        Self { db, closing: None }
    }
}

impl Deref for Tree {
    type Target = ::sled::Db;

    fn deref(&self) -> &::sled::Db {
        &self.db
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let last = self.db.clone();
        let (others_gone, are_others_gone) = mpsc::channel::<()>();
        let (closed, is_closed) = mpsc::channel();
        let close = move || {
            // An error says that the sender was dropped.
            let _ = are_others_gone.recv();
            drop(last);
            // Nobody waits any more after the deadline.
            let _ = closed.send(());
        };
        // Without a thread the handle is dropped by the failed spawn: then closing may hang, as sled does.
        if thread::Builder::new().name("sled-close".to_owned()).spawn(close).is_ok() {
            self.closing = Some(Closing { others_gone: Some(others_gone), is_closed: Mutex::new(is_closed) });
        }
    }
}

struct Closing {
    others_gone: Option<Sender<()>>,
    is_closed: Mutex<Receiver<()>>,
}

impl Drop for Closing {
    fn drop(&mut self) {
        drop(self.others_gone.take());
        let is_closed = self.is_closed.get_mut().unwrap_or_else(PoisonError::into_inner);
        if is_closed.recv_timeout(CLOSE_MAX).is_err() {
            tracing::error!(
                "A database that is damaged does not close and is left behind; what was answered is on disk."
            );
        }
    }
}
