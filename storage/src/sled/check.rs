use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::data::{DIRECTORY, DataDir, EVENTS};
use super::database::{Database, Found, failed};
use super::second_copy::{self, Sums};
use super::{keys, suspect, walk};
use crate::answers::Answers;
use crate::clock::Clock;
use crate::deliveries::{self, Deliveries, DeliveryLimits};
use crate::directory::Directory;
use crate::orders::Orders;
use crate::receipts::Receipts;
use crate::records::{Change, Durability, Records, StoreError, Table};

/// Faults that are told; more are counted.
const FAULTS_TOLD_MAX: usize = 100;

/// What a check has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Gateways that have a log.
    pub logs: u64,
    /// Events in the rings.
    pub events: u64,
    /// Events in the compacted states.
    pub compacted: u64,
    /// Positions, outcomes, failed deliveries, answers to calls with a key, deployments whose end is not told yet.
    pub records: u64,
    /// Rows of the directory.
    pub directory_rows: u64,
    /// What is wrong, one line each; at most 100.
    pub faults: Vec<String>,
    /// How many faults there are in all.
    pub fault_count: u64,
}

impl Checked {
    pub(super) fn fault(&mut self, what: String) {
        self.fault_count += 1;
        if self.faults.len() < FAULTS_TOLD_MAX {
            self.faults.push(what);
        }
    }
}

/// Looks at every row of the stores in `data`, which no server may have open, and changes none. They are opened as by a
/// start: what a crash left is recovered, and sled writes files of its own.
///
/// # Errors
/// If there is no store, it is in use, or the disk fails. Damage is no error: it is in [`Checked::faults`].
pub async fn check_store(data: impl AsRef<Path>, clock: Arc<dyn Clock>) -> Result<Checked, StoreError> {
    let dir = DataDir::existing(data.as_ref())?;
    check(&dir, clock).await
}

pub(super) async fn check(dir: &DataDir, clock: Arc<dyn Clock>) -> Result<Checked, StoreError> {
    let mut checked = Checked::default();
    for name in [DIRECTORY, EVENTS] {
        match dir.open(name) {
            Err(error @ (StoreError::Damaged { .. } | StoreError::Malformed(_))) => checked.fault(error.to_string()),
            Err(error) => return Err(error),
            Ok(db) => {
                let db = Arc::new(db);
                let looked = Arc::clone(&db);
                let data = dir.path().to_owned();
                let rows = move || {
                    if name == DIRECTORY {
                        settle(&looked, &data)?;
                    }
                    Ok::<_, StoreError>(rows(name, &looked, &data))
                };
                checked = merge(checked, tokio::task::spawn_blocking(rows).await.map_err(failed)??);
                let records = Arc::new(ReadOnly(Mutex::new(Some(db))));
                if let Err(error) = decode(name, Arc::clone(&records) as Arc<dyn Records>, Arc::clone(&clock)).await {
                    checked.fault(format!("{name}: {error}"));
                }
                // Tasks that are about to end may have it still.
                drop(lock(&records.0).take());
            }
        }
    }
    Ok(checked)
}

/// What a crash has left of the directory and its second copy is made one, as by a start. What was closed has to be so, and
/// what is damaged stays as it is.
fn settle(directory: &Database, data: &Path) -> Result<(), StoreError> {
    let has_to_be_one = directory.found == Found::AsClosed || suspect::is_proved(&data.join(DIRECTORY));
    if has_to_be_one || second_copy::read(&data.join(second_copy::NAME), |_, _| Ok(())).is_err() {
        return Ok(());
    }
    match guarded(directory, || directory.start_copy(data)) {
        // Whoever looks at the rows meets it again, and tells of it.
        Err(StoreError::Damaged { .. }) => Ok(()),
        settled => settled,
    }
}

fn merge(mut a: Checked, b: Checked) -> Checked {
    b.faults.into_iter().for_each(|fault| a.faults.push(fault));
    a.faults.truncate(FAULTS_TOLD_MAX);
    Checked {
        logs: a.logs + b.logs,
        events: a.events + b.events,
        compacted: a.compacted + b.compacted,
        records: a.records + b.records,
        directory_rows: a.directory_rows + b.directory_rows,
        faults: a.faults,
        fault_count: a.fault_count + b.fault_count,
    }
}

/// All rows of a database, and what is wrong with them.
pub(super) fn rows(name: &'static str, db: &Database, data: &Path) -> Checked {
    let mut checked = Checked::default();
    let looked =
        guarded(db, || if name == EVENTS { events(db, &mut checked) } else { directory(db, data, &mut checked) });
    if let Err(error) = looked {
        checked.fault(format!("{name}: {error}"));
    }
    checked
}

/// sled panics on some of what it finds on disk.
pub(super) fn guarded<T>(db: &Database, look: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(look)).unwrap_or_else(|panic| Err(db.panicked(&*panic)))
}

fn events(db: &Database, checked: &mut Checked) -> Result<(), StoreError> {
    let heads = walk::heads(db)?;
    for (of, head) in &heads {
        match guarded(db, || walk::log(db, *of, *head, &mut |_, _| Ok(()))) {
            Ok(size) => {
                checked.logs += 1;
                checked.events += size.events;
                checked.compacted += size.compacted;
            }
            Err(error) => checked.fault(format!("events: the log of gateway {of}: {error}")),
        }
    }
    for tag in keys::TABLES {
        let records = &mut checked.records;
        walk::table(db, tag, &mut |key, row| {
            *records += if tag == Table::Deliveries as u8 {
                deliveries::in_row(key.get(1..).unwrap_or_default(), row)
            } else {
                1
            };
            Ok(())
        })?;
    }
    walk::strays(db, &heads, &mut |fault| checked.fault(format!("events: {fault}")))
}

/// All rows, and whether the second copy has the same.
fn directory(db: &Database, data: &Path, checked: &mut Checked) -> Result<(), StoreError> {
    let mut rows = Sums::new();
    for tag in keys::TABLES {
        checked.directory_rows += walk::table(db, tag, &mut |key, row| {
            rows.insert(key.to_vec(), crc32fast::hash(row));
            Ok(())
        })?;
    }
    walk::strays(db, &[], &mut |fault| checked.fault(format!("directory: {fault}")))?;
    match second_copy::rows(&data.join(second_copy::NAME)) {
        // What sled has not replayed is in the copy.
        Ok(copied) if copied != rows && suspect::is_proved(&data.join(DIRECTORY)) => {
            checked.fault("directory: it lacks what its second copy has".to_owned())
        }
        Ok(copied) if copied != rows => checked.fault("directory.copy: it is not what the directory is".to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            checked.fault("directory.copy: it is missing".to_owned())
        }
        Err(error) => checked.fault(format!("directory.copy: {error}")),
    }
    Ok(())
}

/// Whether all records are of the form that this version reads.
async fn decode(name: &str, records: Arc<dyn Records>, clock: Arc<dyn Clock>) -> Result<(), StoreError> {
    if name == DIRECTORY {
        Directory::open(records).await?;
    } else {
        Answers::read(&*records).await?;
        Orders::read(&*records).await?;
        Receipts::open(Arc::clone(&records), Arc::clone(&clock)).await?;
        Deliveries::open(records, clock, DeliveryLimits::default()).await?;
    }
    Ok(())
}

/// A database as records that nobody may change, until it is taken away.
struct ReadOnly(Mutex<Option<Arc<Database>>>);

fn lock(db: &Mutex<Option<Arc<Database>>>) -> MutexGuard<'_, Option<Arc<Database>>> {
    db.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ReadOnly {
    fn db(&self) -> Result<Arc<Database>, StoreError> {
        lock(&self.0).clone().ok_or(StoreError::Closed)
    }
}

#[async_trait]
impl Records for ReadOnly {
    async fn some(&self, table: Table, after: Option<&[u8]>, max: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let db = self.db()?;
        guarded(&db, || db.records(table, after, max))
    }

    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let db = self.db()?;
        let row = guarded(&db, || db.get(&keys::record(table, key)))?;
        Ok(row.map(|row| Bytes::copy_from_slice(&row)))
    }

    async fn commit(&self, _: Vec<Change>, _: Durability) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }
}
