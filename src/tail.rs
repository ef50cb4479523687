//! The tail of each gateway's log: what was appended lately, sealed once, shared by all its connections.
//!
//! A [`Channel`] exists while a connection of its gateway does. The log tells [`Tails`] of every append
//! ([`Follower`]), in order; it is sealed there, once, put into the channel's window and the connections are served or woken.
//! A connection reads the window ([`Tail::hot`]) and, for what is older, the log ([`Tail::cold`]). Waking is a hint:
//! what a connection reads is decided by its cursor alone.
//!
//! A window holds at most 256 events or 1 MiB (and at least one event), so 1,000 connected gateways pin at most 1 GiB
//! and, at 300 bytes an event, 100 MB. Windows are memory of the log, never a queue: dropping one loses nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use gatecast_storage::{
    Appended, Bounds, Budget, Compacted, Cursor, Entry, Epoch, EventLog, Follower, GatewayId, LogError, Page, Seq,
};
use gatecast_transports::{Frame, Frames, Room};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tracing::{error, warn};

use crate::bell::Bell;
use crate::envelope;
use crate::metrics::Live;
use crate::rounds;

/// Events kept in a window.
const WINDOW_EVENTS_MAX: usize = 256;
/// Bytes of events kept in a window.
const WINDOW_BYTES_MAX: usize = 1024 * 1024;
/// Reads of the log under way at once: bounds the memory that catching up takes, whoever catches up.
const COLD_READS_MAX: usize = 32;
/// How often positions are compared with the logs; Centrifugo's default (centrifuge config.go).
const POSITION_CHECK_EVERY: Duration = Duration::from_secs(40);
/// How long one log may hold up the check of the others.
const POSITION_CHECK_TIMEOUT: Duration = Duration::from_secs(3);
/// Of these, reads of compacted state: the first of a gateway may make the log's writer fold a ringful of entries.
const COMPACTED_READS_MAX: usize = 8;

/// The channels of all gateways that are connected.
#[derive(Default)]
pub struct Tails {
    channels: Mutex<HashMap<GatewayId, Weak<Channel>>>,
    /// Those that something was appended to and whose connections do not know of it yet.
    to_serve: Mutex<Vec<Arc<Bell>>>,
    appended: AtomicU64,
}

/// What the connections of one gateway share.
pub struct Channel {
    pub(crate) gateway: GatewayId,
    tails: Arc<Tails>,
    /// Wakes every connection of the gateway: something was appended, or one of them shall end.
    pub(crate) bell: Arc<Bell>,
    head: AtomicU64,
    window: Mutex<Window>,
}

#[derive(Default)]
struct Window {
    epoch: Option<Epoch>,
    /// The seq of the first frame.
    first: Seq,
    frames: VecDeque<Sealed>,
    bytes: usize,
}

/// An event of a window.
struct Sealed {
    frame: Arc<Frame>,
    /// When its publish was accepted.
    since: Instant,
}

/// Events of a window, ready to be written.
pub struct Hot {
    /// In order, right after the cursor.
    pub frames: Frames,
    /// Those of them that were published after the moment that was asked for.
    pub(crate) live: Option<Live>,
}

/// What lies after a cursor, ready to be written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tailed {
    /// The events right after the cursor; empty when there is none yet.
    Frames(Vec<Arc<Frame>>),
    /// Events after the cursor are gone; the first one held is `oldest`.
    Truncated { oldest: Seq },
    /// The log has another life than the cursor, or is shorter: it was lost under the connection.
    Lost,
    /// What was asked for: compacted state.
    Compacted(Box<CompactedPage>),
}

/// Compacted state, ready to be written, and the log that it is of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CompactedPage {
    pub(crate) epoch: Epoch,
    /// Where the ring goes on.
    pub(crate) oldest: Seq,
    pub(crate) newest: Seq,
    pub(crate) let_go: Seq,
    pub(crate) frames: Vec<Arc<Frame>>,
    /// Their positions.
    pub(crate) events: Vec<Seq>,
    /// The last position that was looked at: that of the last frame, unless its event cannot be read.
    pub(crate) last: Option<Seq>,
    /// How many events follow after these.
    pub(crate) left: u64,
}

impl Tails {
    /// No channels yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The channel of a gateway: the one its other connections use, or a new one.
    pub(crate) fn channel(self: &Arc<Self>, gateway: GatewayId) -> Arc<Channel> {
        let mut channels = lock(&self.channels);
        if let Some(channel) = channels.get(&gateway).and_then(Weak::upgrade) {
            return channel;
        }
        let channel = Arc::new(Channel {
            gateway,
            tails: self.clone(),
            bell: Arc::default(),
            head: AtomicU64::new(0),
            window: Mutex::default(),
        });
        channels.insert(gateway, Arc::downgrade(&channel));
        channel
    }

    /// Events appended to any log since the start of the process.
    pub(crate) fn appended_total(&self) -> u64 {
        self.appended.load(Ordering::Relaxed)
    }

    fn live(&self) -> Vec<Arc<Channel>> {
        lock(&self.channels).values().filter_map(Weak::upgrade).collect()
    }
}

impl Follower for Tails {
    fn appended(&self, gateway: GatewayId, epoch: Epoch, appended: &[Appended]) {
        self.appended.fetch_add(appended.len() as u64, Ordering::Relaxed);
        let channel = lock(&self.channels).get(&gateway).and_then(Weak::upgrade);
        if let Some(channel) = channel {
            channel.extend(epoch, appended);
            lock(&self.to_serve).push(channel.bell.clone());
        }
    }

    fn told(&self) {
        rounds::serve(&std::mem::take(&mut *lock(&self.to_serve)));
    }
}

impl Channel {
    /// The newest position that the channel knows of.
    pub(crate) fn head(&self) -> Seq {
        Seq(self.head.load(Ordering::Acquire))
    }

    /// The life of the log that positions count in, as far as the channel knows.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        lock(&self.window).epoch
    }

    /// The events of a stretch that the window still has, and when each was published.
    pub(crate) fn stretch(&self, after: Seq, up_to: Seq) -> Vec<(Arc<Frame>, Instant)> {
        let window = lock(&self.window);
        let from = window.first.0.max(after.next().0);
        let sealed = (from..=up_to.0).map_while(|seq| {
            let at = usize::try_from(seq - window.first.0).ok()?;
            window.frames.get(at)
        });
        sealed.map(|sealed| (sealed.frame.clone(), sealed.since)).collect()
    }

    /// Whether the log is known to hold nothing after the cursor, so that it needs no look to go on there. What the window
    /// has after it would do as well but for a small ring, which may have trimmed that and counted it as lost.
    pub(crate) fn ends_at(&self, cursor: Cursor) -> bool {
        self.epoch() == Some(cursor.epoch) && self.head() == cursor.seq
    }

    fn extend(&self, epoch: Epoch, appended: &[Appended]) {
        let mut window = lock(&self.window);
        if window.epoch != Some(epoch) {
            *window = Window { epoch: Some(epoch), ..Window::default() };
            self.head.store(0, Ordering::Release);
        }
        for Appended { entry, since } in appended {
            window.push(entry.seq, envelope::seal(epoch, entry), *since);
            self.head.fetch_max(entry.seq.0, Ordering::AcqRel);
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        let mut channels = lock(&self.tails.channels);
        // A successor may stand there already: only a dead entry is ours to remove.
        if channels.get(&self.gateway).is_some_and(|channel| channel.strong_count() == 0) {
            channels.remove(&self.gateway);
        }
    }
}

impl Window {
    fn push(&mut self, seq: Seq, frame: Option<Arc<Frame>>, since: Instant) {
        let next = Seq(self.first.0 + self.frames.len() as u64);
        if self.frames.is_empty() || seq != next {
            self.frames.clear();
            self.bytes = 0;
            self.first = seq;
        }
        // An entry that cannot be sealed leaves the window empty: readers then meet it in the log.
        let Some(frame) = frame else { return };
        self.bytes += frame.bytes().len();
        self.frames.push_back(Sealed { frame, since });
        while self.frames.len() > WINDOW_EVENTS_MAX || (self.bytes > WINDOW_BYTES_MAX && self.frames.len() > 1) {
            if let Some(gone) = self.frames.pop_front() {
                self.bytes -= gone.frame.bytes().len();
                self.first = self.first.next();
            }
        }
    }

    fn after(&self, from: Cursor, room: Room, live_from: Option<Instant>) -> Option<Hot> {
        let skip = from.seq.next().0.checked_sub(self.first.0)?;
        let skip = usize::try_from(skip).ok()?;
        if self.epoch != Some(from.epoch) || skip >= self.frames.len() {
            return None;
        }
        if skip + 1 == self.frames.len() {
            // The newest alone, as at most deliveries: a third of what the general case takes.
            let newest = self.frames.back()?;
            let live = live_from.filter(|from| newest.since >= *from).map(|_| Live { events: 1, since: newest.since });
            return Some(Hot { frames: Frames::from([newest.frame.clone()]), live });
        }
        let frames = within(self.frames.range(skip..).map(|sealed| &sealed.frame), room);
        let since = self.frames.range(skip..skip + frames.len()).map(|sealed| sealed.since);
        let live = live_from.and_then(|from| Live::of(since.filter(|since| *since >= from)));
        Some(Hot { frames, live })
    }
}

/// As many frames from the front as there is room for, and at least one.
fn within<'a>(frames: impl ExactSizeIterator<Item = &'a Arc<Frame>>, room: Room) -> Frames {
    let mut taken = Frames::with_capacity(frames.len().min(room.frames));
    let mut bytes = 0;
    for frame in frames.take(room.frames.max(1)) {
        bytes += frame.bytes().len();
        if bytes > room.bytes && !taken.is_empty() {
            break;
        }
        taken.push(frame.clone());
    }
    taken
}

/// Reads what lies after a cursor, from a channel's window or from the log.
pub struct Tail {
    tails: Arc<Tails>,
    log: Arc<dyn EventLog>,
    cold_reads: Arc<Semaphore>,
    compacted_reads: Arc<Semaphore>,
}

impl Tail {
    /// Reads `log`, whose follower must be `tails`.
    #[must_use]
    pub fn new(tails: Arc<Tails>, log: Arc<dyn EventLog>) -> Self {
        Self {
            tails,
            log,
            cold_reads: Arc::new(Semaphore::new(COLD_READS_MAX)),
            compacted_reads: Arc::new(Semaphore::new(COMPACTED_READS_MAX)),
        }
    }

    /// A gateway's channel and what its log holds. Every append after these bounds wakes the channel.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub async fn open(&self, gateway: GatewayId) -> Result<(Arc<Channel>, Bounds), LogError> {
        // The channel first: an append that the bounds don't show yet then finds it.
        let channel = self.tails.channel(gateway);
        let bounds = self.log.bounds(gateway).await?;
        lock(&channel.window).epoch.get_or_insert(bounds.epoch);
        channel.head.fetch_max(bounds.newest.0, Ordering::AcqRel);
        Ok((channel, bounds))
    }

    /// Compares every channel with its log, again and again: a wake-up that was lost costs at most
    /// [`POSITION_CHECK_EVERY`], never an event.
    pub(crate) async fn check_positions(&self) {
        loop {
            tokio::time::sleep(POSITION_CHECK_EVERY).await;
            for channel in self.tails.live() {
                // A log that can't be read now, or not in time, is looked at again in the next round.
                let look = timeout(POSITION_CHECK_TIMEOUT, self.log.bounds(channel.gateway)).await;
                let Ok(Ok(bounds)) = look else { continue };
                let known = channel.head.fetch_max(bounds.newest.0, Ordering::AcqRel);
                if known < bounds.newest.0 {
                    warn!(gateway.id = %channel.gateway, known, newest = %bounds.newest, "A wake-up was lost; the connections go on.");
                    channel.bell.ring();
                }
            }
        }
    }

    /// Whose log has this epoch now.
    pub(crate) async fn owner_of(&self, epoch: Epoch) -> Result<Option<GatewayId>, LogError> {
        self.log.owner_of(epoch).await
    }

    /// The events after a cursor, if the window has the first of them; live are those from `live_from` on.
    #[must_use]
    pub fn hot(&self, channel: &Channel, from: Cursor, room: Room, live_from: Option<Instant>) -> Option<Hot> {
        lock(&channel.window).after(from, room, live_from)
    }

    /// What lies after a cursor, from the log.
    pub(crate) fn cold(
        &self,
        gateway: GatewayId,
        from: Cursor,
        room: Room,
    ) -> impl Future<Output = Result<Tailed, LogError>> + Send + 'static {
        let (log, cold_reads) = (self.log.clone(), self.cold_reads.clone());
        async move {
            // The semaphore is never closed; without a permit the read would only be less bounded.
            let _permit = cold_reads.acquire_owned().await.ok();
            let budget = Budget { events: room.frames, bytes: room.bytes };
            Ok(match log.read(gateway, from, budget).await? {
                Page::Entries(entries) => sealed(gateway, from.epoch, &entries),
                Page::Truncated { oldest } => Tailed::Truncated { oldest },
                Page::WrongEpoch { .. } | Page::Ahead { .. } => Tailed::Lost,
            })
        }
    }

    /// The compacted state after a cursor, from the log; a cursor of another epoch is before all of it.
    pub(crate) fn compacted(
        &self,
        gateway: GatewayId,
        after: Cursor,
        room: Room,
    ) -> impl Future<Output = Result<Tailed, LogError>> + Send + 'static {
        let (log, reads) = (self.log.clone(), self.compacted_reads.clone());
        async move {
            // As in `cold`.
            let _permit = reads.acquire_owned().await.ok();
            let budget = Budget { events: room.frames, bytes: room.bytes };
            let page = log.compacted(gateway, after, budget).await?;
            Ok(Tailed::Compacted(Box::new(compacted_page(gateway, &page))))
        }
    }

    /// Whether there is compacted state.
    pub(crate) async fn is_compacted(&self, gateway: GatewayId, bounds: &Bounds) -> Result<bool, LogError> {
        let start = Cursor { epoch: bounds.epoch, seq: Seq(0) };
        Ok(!self.log.compacted(gateway, start, Budget { events: 1, bytes: 1 }).await?.entries.is_empty())
    }
}

/// Entries of compacted state as frames. One that cannot be read is left out, so it counts as lost.
fn compacted_page(gateway: GatewayId, page: &Compacted) -> CompactedPage {
    let (mut frames, mut events) = (Vec::with_capacity(page.entries.len()), Vec::with_capacity(page.entries.len()));
    for entry in &page.entries {
        if let Some(frame) = envelope::seal(page.epoch, entry) {
            frames.push(frame);
            events.push(entry.seq);
        } else {
            error!(gateway.id = %gateway, event.seq = %entry.seq, "Compacted event is not readable; it counts as lost.");
        }
    }
    let last = page.entries.last().map(|entry| entry.seq);
    let Compacted { epoch, oldest, newest, left, let_go, .. } = *page;
    CompactedPage { epoch, oldest, newest, let_go, frames, events, last, left }
}

/// Entries as frames, up to the first that can't be read; if that is the very first, it counts as gone.
fn sealed(gateway: GatewayId, epoch: Epoch, entries: &[Entry]) -> Tailed {
    let mut frames = Vec::with_capacity(entries.len());
    for entry in entries {
        match envelope::seal(epoch, entry) {
            Some(frame) => frames.push(frame),
            None if frames.is_empty() => {
                error!(gateway.id = %gateway, event.seq = %entry.seq, "Stored event is not readable; it counts as lost.");
                return Tailed::Truncated { oldest: entry.seq.next() };
            }
            None => break,
        }
    }
    Tailed::Frames(frames)
}

/// No holder panics while it has changed half of what a lock guards, so a poisoned lock guards whole data.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
