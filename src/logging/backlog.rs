//! Lines on their way to standard error. Whoever logs waits for nobody who reads: lines are written by a thread of their own,
//! all that there are at once, some milliseconds later where there are many. What cannot be written (a full disk, a pipe that
//! blocks nobody) is tried again, from the byte on that was not taken. At most 1 MiB waits behind that; what does not fit is
//! dropped, and how many lines that were is logged where they would have been, once the others are taken.

use std::io::{self, Write, stderr};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::warn;

/// Some thousands of lines.
const WAITING_BYTES_MAX: usize = 1024 * 1024;

/// Between two writes: a thread that is woken for each line costs more than its write, a third of a publish.
const PAUSE: Duration = Duration::from_millis(10);

/// What is to be written to standard error. Before [`start`](Self::start) it is written at once.
#[derive(Default)]
pub(crate) struct Backlog {
    waiting: Mutex<Waiting>,
    /// The thread has something to do.
    news: Condvar,
    /// All is written.
    rest: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    /// Lines after these.
    dropped: u64,
    writer: Writer,
}

/// What the thread does.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// It was not started.
    #[default]
    None,
    /// It has written all, or is about to look.
    Idle,
    Busy,
}

impl Backlog {
    /// From now on nobody waits for standard error.
    ///
    /// # Errors
    /// If there can be no thread.
    pub(super) fn start(self: &Arc<Self>) -> io::Result<()> {
        self.waiting().writer = Writer::Busy;
        let ours = Arc::clone(self);
        let run = move || {
            let (mut taken, mut stderr) = (Vec::new(), stderr());
            loop {
                ours.step(&mut taken, &mut stderr);
                pause();
            }
        };
        let started = thread::Builder::new().name("log".to_owned()).spawn(run).map(drop);
        started.inspect_err(|_| self.waiting().writer = Writer::None)
    }

    /// Waits until all is written, or for so long.
    pub(crate) fn wait(&self, max: Duration) {
        let is_under_way = |waiting: &mut Waiting| !waiting.is_empty() || waiting.writer == Writer::Busy;
        drop(self.rest.wait_timeout_while(self.waiting(), max, is_under_way));
    }

    /// Writes what there is, once there is something. What is left in `taken` could not be written, and is the first of the
    /// next step.
    fn step(&self, taken: &mut Vec<u8>, to: &mut impl Write) {
        let dropped = if taken.is_empty() { self.take(taken) } else { 0 };
        if dropped > 0 {
            // Before the write, which may take long: it is the first of what comes next.
            warn!(lines = dropped, "Nobody took the log's lines: some were dropped.");
        }
        let written = write(taken, to);
        taken.drain(..written);
    }

    /// Takes what waits; says how many lines were dropped after it.
    fn take(&self, taken: &mut Vec<u8>) -> u64 {
        let mut waiting = self.waiting();
        if waiting.is_empty() {
            waiting.writer = Writer::Idle;
            self.rest.notify_all();
            let news = self.news.wait_while(waiting, |waiting| waiting.is_empty());
            waiting = news.unwrap_or_else(PoisonError::into_inner);
            waiting.writer = Writer::Busy;
        }
        mem::swap(taken, &mut waiting.lines);
        mem::take(&mut waiting.dropped)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that runs under the lock panics half way.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes until all is written or cannot be for now; how many bytes were.
fn write(lines: &[u8], to: &mut impl Write) -> usize {
    let mut rest = lines;
    while !rest.is_empty() {
        match to.write(rest) {
            Ok(taken @ 1..) => rest = rest.get(taken..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Why makes no difference: it may pass, and where it does not, nobody can be told.
            Ok(0) | Err(_) => break,
        }
    }
    lines.len() - rest.len()
}

#[expect(clippy::disallowed_methods, reason = "it is there to wait, on a thread of its own")]
fn pause() {
    thread::sleep(PAUSE);
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.dropped == 0
    }

    fn add(&mut self, line: &[u8]) {
        // After one that was dropped comes how many were.
        if self.dropped > 0 || self.lines.len() + line.len() > WAITING_BYTES_MAX {
            self.dropped += 1;
        } else {
            self.lines.extend_from_slice(line);
        }
    }
}

impl Write for &Backlog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.waiting();
        if waiting.writer == Writer::None {
            drop(waiting);
            return stderr().write(line);
        }
        waiting.add(line);
        if waiting.writer == Writer::Idle {
            self.news.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::fmt;

    use super::*;

    /// Whose thread is the test's own.
    fn started() -> Arc<Backlog> {
        let backlog = Backlog::default();
        backlog.waiting().writer = Writer::Busy;
        Arc::new(backlog)
    }

    #[test]
    fn what_nobody_takes_is_dropped_and_told_of_in_its_place() {
        let backlog = started();
        let mut log = &*backlog;
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        for _ in 0..WAITING_BYTES_MAX / line.len() + 2 {
            log.write_all(&line).unwrap();
        }
        log.write_all(b"short\n").unwrap();
        let subscriber = fmt().without_time().with_ansi(false).with_writer(Arc::clone(&backlog)).finish();
        let (mut taken, mut written) = (Vec::new(), Vec::new());
        tracing::subscriber::with_default(subscriber, || backlog.step(&mut taken, &mut written));
        assert_eq!(written.len(), WAITING_BYTES_MAX);
        log.write_all(b"next\n").unwrap();
        written.clear();
        backlog.step(&mut taken, &mut written);
        let told = " WARN gatecast::logging::backlog: Nobody took the log's lines: some were dropped. lines=3\nnext\n";
        assert_eq!(String::from_utf8(written).unwrap(), told);
    }

    /// Takes so many bytes at a time, and fails each second time.
    struct Reluctant {
        taken: Vec<u8>,
        at_once: usize,
        refuses: bool,
    }

    impl Write for Reluctant {
        fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
            self.refuses = !self.refuses;
            if self.refuses {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let taken = &lines[..lines.len().min(self.at_once)];
            self.taken.extend_from_slice(taken);
            Ok(taken.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_refused_for_now_is_written_later_and_whole() {
        let backlog = started();
        let mut log = &*backlog;
        let mut to = Reluctant { taken: Vec::new(), at_once: 7, refuses: false };
        let (mut taken, mut all) = (Vec::new(), String::new());
        for n in 0..5 {
            let line = format!("line number {n}\n");
            log.write_all(line.as_bytes()).unwrap();
            all.push_str(&line);
            backlog.step(&mut taken, &mut to);
            assert!(all.as_bytes().starts_with(&to.taken), "{:?}", String::from_utf8_lossy(&to.taken));
        }
        while to.taken.len() < all.len() {
            backlog.step(&mut taken, &mut to);
        }
        assert_eq!(String::from_utf8(to.taken).unwrap(), all);
    }

    #[test]
    fn a_line_that_is_too_long_by_itself_is_in_nobodys_way() {
        let backlog = started();
        (&*backlog).write_all(&vec![b'x'; WAITING_BYTES_MAX + 1]).unwrap();
        let (mut taken, mut written) = (Vec::new(), Vec::new());
        backlog.step(&mut taken, &mut written);
        (&*backlog).write_all(b"next\n").unwrap();
        backlog.step(&mut taken, &mut written);
        assert_eq!(written, b"next\n");
    }

    #[test]
    fn the_end_waits_for_what_is_taken_and_not_for_ever() {
        let backlog = started();
        let mut log = &*backlog;
        log.write_all(b"one\n").unwrap();
        backlog.wait(Duration::from_millis(1));
        assert!(!backlog.waiting().is_empty());
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut taken = Vec::new();
                (0..2).for_each(|_| backlog.step(&mut taken, &mut io::sink()));
            });
            backlog.wait(Duration::MAX);
            assert!(backlog.waiting().is_empty());
            log.write_all(b"two\n").unwrap();
        });
    }
}
