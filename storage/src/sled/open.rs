use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::birth;
use super::blobs::Blobs;
use super::clean::{self, End};
use super::data::unusable;
use super::database::{Database, Found, failed, message};
use super::lock::DataLock;
use super::mark::Mark;
use super::totals::Totals;
use super::tree::Tree;
use super::{keys, replay, suspect, tear};
use crate::records::StoreError;

/// The layout that this version writes.
const FORMAT_VERSION: &[u8] = &[3];
/// The layouts before: without [blocks](super::block) and [bundles](super::bundle); also without [parts](super::parts).
/// What they have is read as it is.
const FORMATS_BEFORE: [&[u8]; 2] = [&[2], &[1]];
/// How often a database locked by a closing thread of our own process is tried again.
const OPEN_TRIES_MAX: u32 = 100;
/// Between two of these tries.
const OPEN_RETRY: Duration = Duration::from_millis(20);
/// Twice what sled starts, seven for its I/O and one that flushes: those of the look may be counted yet when it does.
const THREADS: usize = 16;
/// Unsynced writes reach the file at least this often, in ms.
const FLUSH_EVERY_MS: u64 = 500;

/// Opens or creates the database in `path`.
pub(super) fn open(path: &Path, cache_bytes: u64, lock: Arc<DataLock>) -> Result<Database, StoreError> {
    look_for_threads().map_err(failed)?;
    once_free(path, || {
        catch_unwind(AssertUnwindSafe(|| try_open(path, cache_bytes, Arc::clone(&lock))))
            .unwrap_or_else(|panic| Err(panicked(path, message(&*panic))))
    })
    .map_err(|error| named_if_denied(path, error))
}

/// Whether the system gives us the threads that sled needs: without any for its I/O it waits for ever.
fn look_for_threads() -> io::Result<()> {
    let gate = Mutex::new(());
    thread::scope(|scope| {
        // Shut until all are there.
        let _shut = gate.lock();
        (0..THREADS).try_for_each(|_| thread::Builder::new().spawn_scoped(scope, || drop(gate.lock())).map(drop))
    })
    .map_err(|error| io::Error::new(error.kind(), format!("it is refused the threads that it needs: {error}")))
}

/// What may not be opened is of another user, such as root, and stays so.
fn named_if_denied(path: &Path, error: StoreError) -> StoreError {
    let StoreError::Io(source) = error else { return error };
    match source.downcast::<io::Error>() {
        Ok(source) if source.kind() == io::ErrorKind::PermissionDenied => unusable(path, *source),
        Ok(source) => StoreError::Io(source),
        Err(source) => StoreError::Io(source),
    }
}

/// Opens a database once no thread of our own process has it any more: we hold the data directory, so whoever has it is
/// one of an earlier database of ours that is closing.
pub(super) fn once_free<T>(path: &Path, open: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
    for _ in 0..OPEN_TRIES_MAX {
        match open() {
            Err(StoreError::InUse(_)) => pause(),
            done => return done,
        }
    }
    Err(StoreError::InUse(path.display().to_string()))
}

fn try_open(path: &Path, cache_bytes: u64, lock: Arc<DataLock>) -> Result<Database, StoreError> {
    birth::create(path, |path| config(path, cache_bytes)).map_err(|error| judge(path, error))?;
    birth::remove_unfinished_snapshots(path).map_err(failed)?;
    Blobs::restore(path).map_err(failed)?;
    let mark = Mark::read(path).map_err(failed)?;
    let end = clean::take(path).map_err(failed)?;
    if end == End::Open {
        tear::cut(path, mark.and_then(|mark| mark.synced)).map_err(|error| judge_io(path, error))?;
    }
    let is_intact = look_at_replay(path, end)?;
    let is_exact = is_intact && matches!(end, End::Closed { segments: Some(_) });
    let tree = config(path, cache_bytes).open().map_err(|error| judge(path, error))?;
    let tree = Tree::new(tree);
    let (syncs, totals) = check(&tree, path, mark.map(|mark| mark.syncs))?;
    let found = match end {
        // Also of an earlier opening.
        _ if suspect::is_doubted(path) => Found::Doubtful,
        End::Open => Found::AfterCrash,
        End::Closed { .. } => Found::AsClosed,
    };
    let db = Database::new(tree, path, syncs, found, lock).map_err(failed)?;
    db.restore_young()?;
    match totals {
        // A look-up a log takes longer than all the rest.
        Some(totals) if is_exact => db.trust_totals(totals),
        totals => db.look_at_ends(totals)?,
    }
    // What a crash left readable but unsynced may be read, and so answered, from now on.
    db.sync()?;
    sync_directories(path).map_err(failed)?;
    Ok(db)
}

/// Whether all of the log is there that sled replays. What is damaged of that leaves a doubt that stays until all rows were
/// looked at: sled passes over it, and tells nobody.
fn look_at_replay(path: &Path, end: End) -> Result<bool, StoreError> {
    let closed = match end {
        End::Closed { segments } => segments,
        End::Open => None,
    };
    // What cannot be read, as of a file that is cut off, is sled's to tell.
    let is_intact = replay::is_intact(path, closed).unwrap_or(false);
    if !is_intact {
        suspect::doubt(path, closed.is_some()).map_err(failed)?;
    }
    Ok(is_intact)
}

fn config(path: &Path, cache_bytes: u64) -> ::sled::Config {
    ::sled::Config::new()
        .path(path)
        .mode(::sled::Mode::LowSpace)
        .cache_capacity(cache_bytes)
        .flush_every_ms(Some(FLUSH_EVERY_MS))
}

#[expect(clippy::disallowed_methods, reason = "sled tells nobody when its threads have let go of the file")]
fn pause() {
    thread::sleep(OPEN_RETRY);
}

/// Whether the database is of our format and has all that was ever synced (see [`Mark`]); says how many syncs it had, and
/// what its logs add up to.
fn check(tree: &::sled::Db, path: &Path, mark: Option<u64>) -> Result<(u64, Option<Totals>), StoreError> {
    let get = |key| tree.get(key).map_err(|error| judge(path, error));
    match get(keys::FORMAT)? {
        Some(version) if version == FORMAT_VERSION => {}
        Some(version) if FORMATS_BEFORE.contains(&&*version) => {
            tree.insert(keys::FORMAT, FORMAT_VERSION).map_err(failed)?;
        }
        Some(version) => return Err(StoreError::Malformed(format!("the store has the unknown format {version:?}"))),
        None if mark.is_some_and(|syncs| syncs > 0) => return Err(damaged(path, "its rows are lost".to_owned())),
        None => {
            tree.insert(keys::FORMAT, FORMAT_VERSION).map_err(failed)?;
        }
    }
    let row = get(keys::SYNCS)?;
    let (syncs, totals) = Totals::parse(row.as_deref().unwrap_or_default());
    match mark {
        Some(mark) if syncs < mark => Err(damaged(path, format!("it lost writes: sync {syncs} of {mark}"))),
        // Of a sync that was not done some writes may be there and others not, in any order: what it says is no promise.
        mark => Ok((syncs, totals.filter(|_| mark == Some(syncs)))),
    }
}

/// A file name survives power loss only when its directory is synced.
fn sync_directories(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()?;
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// Tells damage, which setting aside helps against, from trouble, which it would only make worse.
pub(super) fn judge(path: &Path, error: ::sled::Error) -> StoreError {
    match error {
        ::sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => {
            StoreError::InUse(path.display().to_string())
        }
        ::sled::Error::Io(error) => judge_io(path, error),
        other => damaged(path, other.to_string()),
    }
}

/// sled 0.34 panics on much of what is wrong with a file, and where the system refuses it a thread.
fn panicked(path: &Path, message: String) -> StoreError {
    match refusal(&message) {
        Some(error) => judge_io(path, error),
        None => damaged(path, message),
    }
}

/// What the system has refused, if that was unwrapped: the message is the error's `Debug`, which has its number.
fn refusal(message: &str) -> Option<io::Error> {
    let (_, error) = message.split_once("Os { code: ")?;
    let (code, _) = error.split_once(',')?;
    Some(io::Error::from_raw_os_error(code.parse().ok()?))
}

fn judge_io(path: &Path, error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::ResourceBusy => StoreError::InUse(path.display().to_string()),
        // A file shorter than its own log says, or a part of it missing.
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::NotFound => {
            damaged(path, error.to_string())
        }
        _ => failed(error),
    }
}

fn damaged(path: &Path, detail: String) -> StoreError {
    StoreError::Damaged { path: path.display().to_string(), detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a panic at an `unwrap`.
    fn judged(unwrapped: Result<(), ::sled::Error>) -> StoreError {
        let panic = catch_unwind(AssertUnwindSafe(|| unwrapped.unwrap())).unwrap_err();
        panicked(Path::new("events"), message(&*panic))
    }

    #[test]
    fn only_a_panic_at_what_the_file_has_is_damage() {
        for (refused, code) in [("a thread", 11), ("memory", 12), ("a descriptor", 24)] {
            let error = judged(Err(::sled::Error::Io(io::Error::from_raw_os_error(code))));
            assert!(matches!(error, StoreError::Io(_)), "{refused}: {error}");
        }
        let error = judged(Err(::sled::Error::ReportableBug("a page is missing".to_owned())));
        assert!(
            matches!(&error, StoreError::Damaged { detail, .. } if detail.contains("a page is missing")),
            "{error}"
        );
        let error = judged(Err(::sled::Error::Io(io::ErrorKind::UnexpectedEof.into())));
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    }
}
