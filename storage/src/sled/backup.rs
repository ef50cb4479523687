use std::fs::{self, File};
use std::io::{BufWriter, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::database::{Database, failed};
use super::engine::Engine;
use super::frames;
use super::portable::{self, DIRECTORY_ROWS, EVENTS_ROWS, Export};
use super::row::Head;
use super::{keys, walk};
use crate::ids::GatewayId;
use crate::records::StoreError;

/// The file that a backup is collected in; it has no name while it is written to.
const COLLECTED: &str = "backup.unfinished";

/// Exports of a store that is in use: what [`export_store`](super::export_store) writes of one that is not.
///
/// Everything that was answered before it began is in it. Of what is answered meanwhile a part is: of each log its events
/// up to one moment, all as they were at that moment, so positions are dense and cursors stay valid. It is collected in
/// this order, each part between two batches of its committer, so that publishers wait for one log at most:
/// - the directory, so a gateway that is registered meanwhile is not in it, and of a deployment meanwhile only events may be;
/// - answers, orders, positions and failed deliveries, so none is of an event that is not in it;
/// - the logs, one by one.
pub struct Backup {
    events: Arc<Engine>,
    directory: Arc<Engine>,
    data: PathBuf,
}

impl Backup {
    pub(super) fn new(events: Arc<Engine>, directory: Arc<Engine>, data: &Path) -> Self {
        Self { events, directory, data: data.to_owned() }
    }

    /// Collects a backup in a file of the data directory that has no name, so nothing is left of it when it is closed;
    /// read it from where it stands, its beginning. One at a time.
    ///
    /// # Errors
    /// [`StoreError::Full`] if the file system has no room for it, [`StoreError::Damaged`] if what is in the store is not
    /// exact, or if the store does not serve.
    pub async fn collect(&self) -> Result<File, StoreError> {
        let mut to = Export::new(nameless(&self.data.join(COLLECTED))?)?;
        to = self.directory.look(|db| tables(db, DIRECTORY_ROWS, to)).await?;
        to = self.events.look(|db| tables(db, EVENTS_ROWS, to)).await?;
        let logs = self.events.blocking(|shared| walk::heads(&shared.db)).await?;
        for (of, _) in logs {
            to = self.events.look(move |db| log(db, of, to)).await?;
        }
        let mut file = to.finish()?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        Ok(file)
    }
}

fn nameless(path: &Path) -> Result<BufWriter<File>, StoreError> {
    let file = portable::create(path)?;
    fs::remove_file(path).map_err(failed)?;
    Ok(BufWriter::new(file))
}

fn tables(db: &Database, of: u8, mut to: Export) -> Result<Export, StoreError> {
    to.begin(of);
    let mut room = Room { db, taken: frames::PAYLOAD_BYTES };
    for tag in keys::TABLES {
        walk::table(db, tag, &mut |key, row| room.take(row).and_then(|()| to.row(key, row)))?;
    }
    to.flush()?;
    Ok(to)
}

/// The log as it is now, which may be gone by now.
fn log(db: &Database, of: GatewayId, mut to: Export) -> Result<Export, StoreError> {
    let Some(head) = db.get(&keys::head(of))? else { return Ok(to) };
    let mut room = Room { db, taken: frames::PAYLOAD_BYTES };
    walk::log(db, of, Head::decode(&head)?, &mut |key, row| room.take(row).and_then(|()| to.row(key, row)))?;
    Ok(to)
}

/// What the store needs for itself is not taken: a write of its own that finds no room would poison it.
struct Room<'a> {
    db: &'a Database,
    taken: usize,
}

impl Room<'_> {
    fn take(&mut self, row: &[u8]) -> Result<(), StoreError> {
        self.taken += row.len();
        if self.taken < frames::PAYLOAD_BYTES {
            return Ok(());
        }
        let wanted = self.taken as u64 + frames::PAYLOAD_BYTES as u64;
        self.taken = 0;
        if self.db.has_room_for(wanted)? { Ok(()) } else { Err(StoreError::Full) }
    }
}
