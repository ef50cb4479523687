//! A database comes into being whole: sled writes its settings in two writes and never syncs them, and one that has half
//! of them does not open. So it is made under another name, synced, and renamed.
//!
//! sled also takes a snapshot that it had not finished for one that it had, and then does not open.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Makes an empty database in `path` if there is none.
pub(super) fn create(path: &Path, config: impl Fn(&Path) -> ::sled::Config) -> Result<(), ::sled::Error> {
    if path.exists() {
        return Ok(());
    }
    let unborn = unborn(path);
    if unborn.exists() {
        // What a crash left of an earlier attempt; nobody ever had it open.
        fs::remove_dir_all(&unborn)?;
    }
    drop(config(&unborn).open()?);
    for name in names(&unborn)? {
        File::open(unborn.join(name))?.sync_all()?;
    }
    File::open(&unborn)?.sync_all()?;
    fs::rename(&unborn, path)?;
    Ok(path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())?)
}

/// What the database in `path` is called until it is whole.
pub(super) fn unborn(path: &Path) -> PathBuf {
    let mut unborn = path.as_os_str().to_owned();
    unborn.push(".new");
    unborn.into()
}

/// Removes the snapshots that were not finished. The one before stays until its successor is finished and synced.
pub(super) fn remove_unfinished_snapshots(path: &Path) -> io::Result<()> {
    let names = names(path)?.into_iter();
    let unfinished = names.filter(|name| name.to_string_lossy().ends_with(".generating"));
    unfinished.into_iter().try_for_each(|name| fs::remove_file(path.join(name)))
}

fn names(path: &Path) -> io::Result<Vec<OsString>> {
    fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
}
