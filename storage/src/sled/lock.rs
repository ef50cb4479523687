use std::fs::{File, TryLockError};
use std::path::Path;

use super::data::unusable;
use crate::records::StoreError;

/// The data directory is ours, until this value is dropped or the process ends.
pub(super) struct DataLock {
    /// `flock` is released when the handle is closed.
    _file: File,
}

impl DataLock {
    /// Takes `<data>/lock`, or says who can't.
    pub(super) fn take(data: &Path) -> Result<Self, StoreError> {
        let path = data.join("lock");
        let file = File::options().create(true).truncate(false).write(true).open(path);
        let file = file.map_err(|error| unusable(data, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse(data.display().to_string())),
            Err(TryLockError::Error(error)) => Err(unusable(data, error)),
        }
    }
}
