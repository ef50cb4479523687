use std::convert::Infallible;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};

use super::data::unusable;
use super::owner;
use crate::records::StoreError;
use crate::stores::Closed;

/// The data directory is ours, until this value is dropped or the process ends.
pub(super) struct DataLock {
    /// `flock` is released when the handle is closed.
    _file: File,
    data: PathBuf,
    /// After the file: dropped, it says that the directory is free.
    _open: Sender<Infallible>,
    closed: Closed,
}

impl DataLock {
    /// Takes `<data>/lock`, or says who can't.
    pub(super) fn take(data: &Path) -> Result<Self, StoreError> {
        let path = data.join("lock");
        let file = File::options().create(true).truncate(false).write(true).open(path);
        let file = file.map_err(|error| unusable(data, error))?;
        match file.try_lock() {
            Ok(()) => {
                let (open, closed) = mpsc::channel();
                Ok(Self { _file: file, data: data.to_owned(), _open: open, closed: Closed::once_gone(closed) })
            }
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse(data.display().to_string())),
            Err(TryLockError::Error(error)) => Err(unusable(data, error)),
        }
    }

    /// When the directory is free again.
    pub(super) fn closed(&self) -> Closed {
        self.closed.clone()
    }
}

impl Drop for DataLock {
    /// All databases are closed, and nobody else has the directory yet.
    fn drop(&mut self) {
        if let Err(error) = owner::give_to_owner(&self.data) {
            tracing::error!(
                %error, store.path = %self.data.display(),
                "What root has made in the data directory is still root's: give it to the service's user (chown -R)."
            );
        }
    }
}
