use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use super::batch::Batch;
use super::database::Database;
use super::job::{Job, Reply};
use super::ring::Rings;
use super::sweeps::Sweeps;
use crate::clock::Clock;
use crate::log::{Follower, Retention};

/// Jobs in one batch, so under one sync.
const BATCH_JOBS_MAX: usize = 1_024;
/// Entries after which a batch takes no further job: who waits for its answer waits for no more than about these.
const BATCH_ENTRIES_MAX: usize = 2_048;

/// What the committer and the readers share.
pub(super) struct Shared {
    pub(super) db: Database,
    pub(super) rings: Rings,
    pub(super) retention: Retention,
    pub(super) clock: Arc<dyn Clock>,
}

/// The one writer of a database, on a thread of its own. A batch is: write, sync, show to readers, tell the follower,
/// answer. After a failed write or sync it refuses everything: what is on disk is not known then (a second fsync may
/// succeed without the pages of the first; see the PostgreSQL wiki on fsync errors).
pub(super) struct Committer {
    shared: Arc<Shared>,
    follower: Arc<dyn Follower>,
    jobs: mpsc::Receiver<Job>,
    sweeps: Sweeps,
    is_poisoned: bool,
}

impl Committer {
    pub(super) fn new(
        shared: Arc<Shared>,
        follower: Arc<dyn Follower>,
        jobs: mpsc::Receiver<Job>,
        sweeps: Sweeps,
    ) -> Self {
        Self { shared, follower, jobs, sweeps, is_poisoned: false }
    }

    /// Works until all senders are gone and every job is answered. Sweeps that are left go on after the next start.
    pub(super) fn run(mut self) {
        let mut jobs = Vec::with_capacity(BATCH_JOBS_MAX);
        while self.receive(&mut jobs) {
            let mut waiting = jobs.drain(..).peekable();
            while waiting.peek().is_some() {
                if self.is_poisoned {
                    waiting.by_ref().for_each(Job::refuse);
                } else {
                    let entries = self.commit(&mut waiting);
                    self.sweep(entries);
                }
            }
        }
    }

    /// Waits for jobs, but not while there is something to sweep; `false` at the end.
    fn receive(&mut self, jobs: &mut Vec<Job>) -> bool {
        if self.is_poisoned || self.sweeps.is_empty() {
            return self.jobs.blocking_recv_many(jobs, BATCH_JOBS_MAX) > 0;
        }
        while jobs.len() < BATCH_JOBS_MAX {
            match self.jobs.try_recv() {
                Ok(job) => jobs.push(job),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return !jobs.is_empty(),
            }
        }
        true
    }

    /// Does the jobs of one batch; says how many entries that were.
    fn commit(&mut self, jobs: &mut impl Iterator<Item = Job>) -> usize {
        let mut batch = Batch::new(&self.shared);
        let mut entries = 0;
        let mut written = Ok(());
        while entries < BATCH_ENTRIES_MAX
            && written.is_ok()
            && let Some(job) = jobs.next()
        {
            entries += job.weight();
            written = batch.write(job);
        }
        let written = written.and_then(|()| if batch.needs_sync() { self.shared.db.sync() } else { Ok(()) });
        let done = batch.finish();
        if let Err(error) = written {
            tracing::error!(%error, "The store could not write and refuses further writes; restart the server.");
            self.is_poisoned = true;
            done.replies.into_iter().for_each(Reply::refuse);
            return entries;
        }
        for (gateway, ring) in done.rings {
            self.shared.rings.publish(gateway, ring);
        }
        for (gateway, epoch, entries) in &done.appended {
            self.follower.appended(*gateway, *epoch, entries);
        }
        self.sweeps.add(done.sweeps);
        done.replies.into_iter().for_each(Reply::send);
        entries
    }

    fn sweep(&mut self, entries: usize) {
        if let Err(error) = self.sweeps.step(&self.shared.db, entries) {
            tracing::error!(%error, "The store could not delete and refuses further writes; restart the server.");
            self.is_poisoned = true;
        }
    }
}
