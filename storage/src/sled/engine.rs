use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::check::guarded;
use super::committer::{Committer, Shared};
use super::database::{Database, failed};
use super::job::{Answer, Job};
use super::ring::Rings;
use super::space::RESERVE_BYTES;
use super::sweeps::Sweeps;
use crate::clock::Clock;
use crate::log::{Follower, Retention};
use crate::records::{Condition, StoreError};

/// Jobs that wait for the committer.
const QUEUE_JOBS_MAX: usize = 4_096;
/// Bytes of entries and rows that wait for the committer; one larger than all of it takes all of it.
const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a job waits for room in a full queue before it is refused with [`StoreError::Overloaded`].
pub(super) const QUEUE_WAIT_MAX: Duration = Duration::from_secs(5);
/// Reads on blocking threads at once; more would only wait for the same disk, each with a thread of its own.
const READS_AT_ONCE_MAX: usize = 16;

/// A database and its committer: what [`SledLog`](super::SledLog) and [`SledRecords`](super::SledRecords) are views of.
pub(super) struct Engine {
    pub(super) shared: Arc<Shared>,
    /// `None` only while dropping.
    jobs: Option<mpsc::Sender<Job>>,
    room: Arc<Semaphore>,
    pub(super) reads: Arc<Semaphore>,
    committer: Option<JoinHandle<()>>,
}

impl Engine {
    pub(super) fn start(
        name: &str,
        db: Database,
        retention: Retention,
        clock: Arc<dyn Clock>,
        follower: Arc<dyn Follower>,
    ) -> Result<Self, StoreError> {
        let sweeps = Sweeps::load(&db)?;
        let shared =
            Arc::new(Shared { db, rings: Rings::default(), retention, clock, is_poisoned: AtomicBool::new(false) });
        let (jobs, inbox) = mpsc::channel(QUEUE_JOBS_MAX);
        let committer = Committer::new(Arc::clone(&shared), follower, inbox, sweeps);
        let committer = thread::Builder::new().name(format!("{name}-committer")).spawn(move || committer.run());
        Ok(Self {
            shared,
            jobs: Some(jobs),
            room: Arc::new(Semaphore::new(QUEUE_BYTES_MAX)),
            reads: Arc::new(Semaphore::new(READS_AT_ONCE_MAX)),
            committer: Some(committer.map_err(failed)?),
        })
    }

    pub(super) fn condition(&self) -> Condition {
        // A committer that ended has panicked.
        let is_gone = self.jobs.as_ref().is_none_or(mpsc::Sender::is_closed);
        if is_gone || self.shared.is_poisoned.load(Ordering::Acquire) || self.shared.db.is_damaged() {
            return Condition::Broken;
        }
        match self.shared.db.room() {
            Ok(room) if room > RESERVE_BYTES => Condition::Serving,
            _ => Condition::Full,
        }
    }

    /// Takes `bytes` of room in the queue, waiting at most [`QUEUE_WAIT_MAX`].
    pub(super) async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, StoreError> {
        let bytes = u32::try_from(bytes.min(QUEUE_BYTES_MAX)).unwrap_or(u32::MAX);
        let room = timeout(QUEUE_WAIT_MAX, Arc::clone(&self.room).acquire_many_owned(bytes)).await;
        room.map_err(|_| StoreError::Overloaded)?.map_err(|_| StoreError::Closed)
    }

    /// Queues a job, waiting at most [`QUEUE_WAIT_MAX`] for a place.
    pub(super) async fn send(&self, job: Job) -> Result<(), StoreError> {
        let jobs = self.jobs.as_ref().ok_or(StoreError::Closed)?;
        let place = timeout(QUEUE_WAIT_MAX, jobs.reserve()).await;
        place.map_err(|_| StoreError::Overloaded)?.map_err(|_| StoreError::Closed)?.send(job);
        Ok(())
    }

    /// Queues a job and waits until it is done.
    pub(super) async fn ask(&self, job: impl FnOnce(Answer) -> Job) -> Result<(), StoreError> {
        let (answer, done) = oneshot::channel();
        self.send(job(answer)).await?;
        done.await.map_err(|_| StoreError::Closed)?
    }

    /// Runs a look between two writes, so what it sees is of one moment. Writers wait for it.
    pub(super) async fn look<T, F>(&self, look: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, done) = oneshot::channel();
        let look = move |db: Result<&Database, StoreError>| {
            drop(answer.send(db.and_then(|db| guarded(db, || look(db)))));
        };
        self.send(Job::Look(Box::new(look))).await?;
        done.await.map_err(|_| StoreError::Closed)?
    }

    /// Runs a read on a blocking thread: a page that is not in sled's cache is a disk access.
    pub(super) async fn blocking<T, F>(&self, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    {
        let turn = Arc::clone(&self.reads).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let shared = Arc::clone(&self.shared);
        let read = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            read(&shared)
        });
        read.await.unwrap_or_else(|error| match error.try_into_panic() {
            // sled panics on some damage; that is this read's failure, not the server's.
            Ok(panic) => Err(self.shared.db.panicked(&*panic)),
            Err(_) => Err(StoreError::Closed),
        })
    }
}

impl Drop for Engine {
    /// Waits for the batch under way, so that the database is closed when its last user is gone.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(committer) = self.committer.take()
            && committer.join().is_err()
        {
            tracing::error!("The committer of the store had panicked.");
        }
    }
}
