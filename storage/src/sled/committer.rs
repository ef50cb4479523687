use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::batch::Batch;
use super::database::Database;
use super::job::{Job, Need, Reply};
use super::keys;
use super::ring::Rings;
use super::space::Space;
use super::sweeps::Sweeps;
use crate::clock::Clock;
use crate::log::{Follower, Retention};
use crate::records::{Change, Durability, StoreError};

/// Jobs in one batch, so under one sync.
const BATCH_JOBS_MAX: usize = 1_024;
/// Rows of entries after which a batch takes no further job: who waits for its answer waits for no more than about these.
const BATCH_ROWS_MAX: usize = 2_048;
/// What a commit puts in place of rows that are there may be so long and still count as little.
const LITTLE_BYTES_MAX: usize = 16 * 1024;
/// From so many jobs in a batch on the next one waits for those who are about to ask.
const CROWD: usize = 8;

/// What the committer and the readers share.
pub(super) struct Shared {
    pub(super) db: Database,
    pub(super) rings: Rings,
    pub(super) retention: Retention,
    pub(super) clock: Arc<dyn Clock>,
    /// Only the committer sets it, for good.
    pub(super) is_poisoned: AtomicBool,
}

/// The one writer of a database, on a thread of its own. A batch is: look for room, write, sync, show to readers, tell
/// the follower, answer. After a failed write or sync it refuses everything: what is on disk is not known then (a second
/// fsync may succeed without the pages of the first; see the PostgreSQL wiki on fsync errors).
///
/// A job that the file system has no room for is refused before anything is written, so a full disk poisons nothing. So is
/// one that may need files when the process can open none.
pub(super) struct Committer {
    shared: Arc<Shared>,
    follower: Arc<dyn Follower>,
    jobs: mpsc::Receiver<Job>,
    sweeps: Sweeps,
    /// Where those who wait are woken; `None` where there is none.
    runtime: Option<Handle>,
    /// There were many jobs in the last batch.
    is_crowded: bool,
    /// The last job that took room was refused; for the log.
    is_full: bool,
    /// The last job that may need files was refused; for the log.
    is_out_of_files: bool,
    /// There was too little room even to delete: the next batch looks again.
    waits_for_room: bool,
}

impl Committer {
    /// To be called where those who wait are.
    pub(super) fn new(
        shared: Arc<Shared>,
        follower: Arc<dyn Follower>,
        jobs: mpsc::Receiver<Job>,
        sweeps: Sweeps,
    ) -> Self {
        Self {
            shared,
            follower,
            jobs,
            sweeps,
            runtime: Handle::try_current().ok(),
            is_crowded: false,
            is_full: false,
            is_out_of_files: false,
            waits_for_room: false,
        }
    }

    /// Works until all senders are gone and every job is answered. Sweeps that are left go on after the next start.
    pub(super) fn run(mut self) {
        let mut jobs = Vec::with_capacity(BATCH_JOBS_MAX);
        while self.receive(&mut jobs) {
            let mut waiting = jobs.drain(..).peekable();
            if waiting.peek().is_none() {
                self.sweep(0);
            }
            while waiting.peek().is_some() {
                if self.is_poisoned() {
                    waiting.by_ref().for_each(Job::refuse);
                    continue;
                }
                let rows = self.commit(&mut waiting);
                self.sweep(rows);
            }
        }
        self.end();
    }

    /// Syncs what was swept or settled since the last batch: a database that is closed is said to be all on disk.
    fn end(&self) {
        if self.is_poisoned() {
            return;
        }
        let synced = catch_unwind(AssertUnwindSafe(|| self.shared.db.sync_rest()));
        if let Err(error) = synced.unwrap_or_else(|panic| Err(self.shared.db.panicked(&*panic))) {
            self.poison(&error);
        }
    }

    fn is_poisoned(&self) -> bool {
        self.shared.is_poisoned.load(Ordering::Acquire)
    }

    fn poison(&self, error: &StoreError) {
        self.shared.is_poisoned.store(true, Ordering::Release);
        self.shared.db.note_missing_file(error);
        tracing::error!(
            %error,
            "The store failed and refuses writes until the server is restarted; what was answered is kept. \
             If it fails again, stop the server and run: gatecast store check."
        );
    }

    /// Waits for jobs, but not while there is something to sweep; `false` at the end.
    fn receive(&mut self, jobs: &mut Vec<Job>) -> bool {
        let may_wait = self.is_poisoned() || self.waits_for_room || self.sweeps.is_empty();
        if may_wait && self.jobs.blocking_recv_many(jobs, BATCH_JOBS_MAX) == 0 {
            return false;
        }
        self.take_waiting(jobs);
        if self.is_crowded || jobs.len() >= CROWD {
            self.gather(jobs);
        }
        self.is_crowded = jobs.len() >= CROWD;
        !jobs.is_empty() || !self.jobs.is_closed()
    }

    /// Where publishers and this thread share a core, a batch that begins at once has those who were heard during the last
    /// sync, some 20 of 64, and each batch costs the same: its sync, and sled's threads, which are all woken. So the core is
    /// left to the others for as long as that brings jobs; if nobody else wants it, that is no time at all.
    fn gather(&mut self, jobs: &mut Vec<Job>) {
        let mut before = 0;
        while before < jobs.len() {
            before = jobs.len();
            thread::yield_now();
            self.take_waiting(jobs);
        }
    }

    fn take_waiting(&mut self, jobs: &mut Vec<Job>) {
        while jobs.len() < BATCH_JOBS_MAX
            && let Ok(job) = self.jobs.try_recv()
        {
            jobs.push(job);
        }
    }

    /// Does the jobs of one batch; says how many rows of entries that were.
    fn commit(&mut self, jobs: &mut impl Iterator<Item = Job>) -> usize {
        let shared = Arc::clone(&self.shared);
        let mut batch = Batch::new(&shared);
        let mut rows = 0;
        // sled panics on some of what it finds on disk.
        let written = catch_unwind(AssertUnwindSafe(|| {
            rows = self.write(&mut batch, jobs)?;
            if batch.needs_sync() { shared.db.sync() } else { Ok(()) }
        }));
        let written = written.unwrap_or_else(|panic| Err(shared.db.panicked(&*panic)));
        let done = batch.finish();
        if let Err(error) = written {
            self.poison(&error);
            done.replies.into_iter().for_each(Reply::refuse);
            return rows;
        }
        for (gateway, ring) in done.rings {
            self.shared.rings.publish(gateway, ring);
        }
        for (gateway, epoch, appended) in &done.appended {
            self.follower.appended(*gateway, *epoch, appended);
        }
        self.sweeps.add(done.sweeps);
        self.tell(done.replies);
        rows
    }

    /// Wakes all who wait, by one task of the runtime: each that is woken from here takes a lock of the runtime's, and
    /// where there is one core often a change of threads.
    fn tell(&self, replies: Vec<Reply>) {
        let follower = Arc::clone(&self.follower);
        let tell = move || {
            follower.told();
            replies.into_iter().for_each(Reply::send);
        };
        match &self.runtime {
            Some(runtime) => drop(runtime.spawn(async move { tell() })),
            None => tell(),
        }
    }

    /// Writes what there is room and files for and refuses the rest, until the batch has enough rows; says how many.
    fn write(&mut self, batch: &mut Batch<'_>, jobs: &mut impl Iterator<Item = Job>) -> Result<usize, StoreError> {
        batch.space = Space::look(&self.shared.db)?;
        let (mut rows, mut may_open_files) = (0, None);
        while rows < BATCH_ROWS_MAX
            && let Some(job) = jobs.next()
        {
            rows += job.weight();
            if job.opens_files() {
                let may = *may_open_files.get_or_insert_with(|| self.shared.db.may_open_files());
                self.note_files(may);
                if !may {
                    job.answer(|| StoreError::OutOfFiles);
                    continue;
                }
            }
            let has_room = self.is_done(&job) || batch.space.admits(&job);
            if matches!(job.need(), Need::Room { .. }) {
                self.note_full(!has_room);
            }
            if has_room || (self.replaces_little(&job) && batch.space.takes_of_reserve(&job.need())) {
                batch.write(job)?;
            } else {
                job.answer(|| StoreError::Full);
            }
        }
        self.waits_for_room = !batch.space.has_little();
        batch.put_appended()?;
        Ok(rows)
    }

    /// Whether all that a job asks for is on disk: that takes no room, so that a full store can be closed, and read whether or
    /// not it was before.
    fn is_done(&self, job: &Job) -> bool {
        match job {
            Job::Flush { .. } => !self.shared.db.is_behind(),
            Job::Touch { of, .. } => self.shared.db.head(*of).is_ok_and(|head| head.is_some()),
            _ => false,
        }
    }

    /// Whether a job that has to go does no more than put a little in place of rows that are there: so a key is revoked, an
    /// address no longer allowed.
    fn replaces_little(&self, job: &Job) -> bool {
        let Job::Commit { changes, durability: Durability::Urgent, .. } = job else { return false };
        let is_there = |change: &Change| {
            self.shared.db.get(&keys::record(change.table, &change.key)).is_ok_and(|before| before.is_some())
        };
        let rows = || changes.iter().filter(|change| change.row.is_some());
        let bytes = rows().filter_map(|change| change.row.as_ref()).map(Bytes::len).sum::<usize>();
        bytes <= LITTLE_BYTES_MAX && rows().all(is_there)
    }

    fn note_full(&mut self, is_full: bool) {
        match (std::mem::replace(&mut self.is_full, is_full), is_full) {
            (false, true) => tracing::error!(
                "The file system of the store is full: nothing is published until there is room; reads and connections \
                 go on. Free some space; no restart is needed."
            ),
            (true, false) => tracing::info!("The file system of the store has room again."),
            _ => {}
        }
    }

    fn note_files(&mut self, may_open: bool) {
        match (std::mem::replace(&mut self.is_out_of_files, !may_open), may_open) {
            (false, false) => tracing::error!(
                "The process has as many files and sockets open as it may: nothing but events of calls without a key is \
                 stored until it has fewer. Let it open more (LimitNOFILE, ulimit -n); no restart is needed once there are fewer."
            ),
            (true, true) => tracing::info!("The store can open files again."),
            _ => {}
        }
    }

    /// What is left to do once all are answered, or while nobody asks for anything.
    fn sweep(&mut self, rows: usize) {
        if self.is_poisoned() || self.waits_for_room {
            return;
        }
        let (sweeps, db) = (&mut self.sweeps, &self.shared.db);
        let swept = catch_unwind(AssertUnwindSafe(|| sweeps.step(db, rows).and_then(|()| db.settle())));
        if let Err(error) = swept.unwrap_or_else(|panic| Err(self.shared.db.panicked(&*panic))) {
            self.poison(&error);
        }
    }
}
