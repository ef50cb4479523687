//! What went over each transport: what leaves no trace elsewhere, counted.
//!
//! What counts deliveries is found once, when a connection is admitted, and costs a delivery three relaxed additions.
//! The rest happens once in the life of a connection and is kept under short locks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gatecast_transports::CloseReason;
use tokio::time::Instant;

use super::histogram::Histogram;
use crate::control::ResetReason;
use crate::gate::REFUSALS;

/// The traffic of each transport, by its name.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    transports: Mutex<BTreeMap<&'static str, Arc<Carried>>>,
}

/// What one transport carried since the start of the process.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    /// From an event's publish being accepted to a socket having taken it, of events that were published while connected.
    pub(crate) delivery: Histogram,
    replayed: AtomicU64,
    bytes: AtomicU64,
    admitted: AtomicU64,
    confirmed: AtomicU64,
    told: Mutex<Told>,
}

/// Every reason is there from the beginning, at 0: Prometheus sees no increase in a series that begins with its first
/// count, so the first of anything would raise no alarm.
#[derive(Debug)]
struct Told {
    refused: BTreeMap<&'static str, u64>,
    ended: BTreeMap<&'static str, u64>,
    resets: BTreeMap<&'static str, Resets>,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            refused: REFUSALS.map(|code| (code, 0)).into(),
            ended: CloseReason::NAMES.map(|reason| (reason, 0)).into(),
            resets: ResetReason::ALL.map(|reason| (reason.as_str(), Resets::default())).into(),
        }
    }
}

/// Resets for one reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Resets {
    pub(crate) count: u64,
    /// Events that they said will never come.
    pub(crate) lost: u64,
}

/// Events of a write that were published while their connection was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) events: u32,
    /// When the first publish of them was accepted.
    pub(crate) since: Instant,
}

impl Live {
    /// Those that were published at these moments, if there are any.
    pub(crate) fn of(since: impl Iterator<Item = Instant>) -> Option<Self> {
        since.fold(None, |live: Option<Self>, since| {
            let (events, oldest) = live.map_or((0, since), |live| (live.events, live.since));
            Some(Self { events: events + 1, since: oldest.min(since) })
        })
    }
}

impl Traffic {
    /// The counts of a transport.
    pub(crate) fn of(&self, transport: &'static str) -> Arc<Carried> {
        self.transports.lock().unwrap_or_else(PoisonError::into_inner).entry(transport).or_default().clone()
    }

    /// Of every transport that was ever asked for.
    pub(crate) fn all(&self) -> BTreeMap<&'static str, Arc<Carried>> {
        self.transports.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Carried {
    /// So many events of so many bytes were written, of which some are live.
    ///
    /// These count with the time that the oldest of them took: events that share a write are written together, so
    /// for the others it is an upper bound.
    pub(crate) fn written(&self, events: u32, bytes: u32, live: Option<Live>) {
        let mut replayed = events;
        if let Some(Live { events, since }) = live {
            self.delivery.observe(Instant::now().saturating_duration_since(since), u64::from(events));
            replayed = replayed.saturating_sub(events);
        }
        if replayed > 0 {
            self.replayed.fetch_add(u64::from(replayed), Ordering::Relaxed);
        }
        self.bytes.fetch_add(u64::from(bytes), Ordering::Relaxed);
    }

    pub(crate) fn admitted(&self) {
        self.admitted.fetch_add(1, Ordering::Relaxed);
    }

    /// A pong or a poll's cursor said up to where everything was received.
    pub(crate) fn confirmed(&self) {
        self.confirmed.fetch_add(1, Ordering::Relaxed);
    }

    /// An attempt to connect was answered with the error of this code.
    pub(crate) fn refused(&self, code: &'static str) {
        *self.told().refused.entry(code).or_default() += 1;
    }

    pub(crate) fn ended(&self, reason: CloseReason) {
        *self.told().ended.entry(reason.as_str()).or_default() += 1;
    }

    /// A reset was written; `lost` is how many events it said will never come.
    pub(crate) fn reset(&self, reason: ResetReason, lost: u64) {
        let mut told = self.told();
        let resets = told.resets.entry(reason.as_str()).or_default();
        resets.count += 1;
        resets.lost += lost;
    }

    /// Events that were written, live or not.
    pub(crate) fn events_total(&self) -> u64 {
        self.delivery.count() + self.replayed_total()
    }

    pub(crate) fn replayed_total(&self) -> u64 {
        self.replayed.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes_total(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn confirmed_total(&self) -> u64 {
        self.confirmed.load(Ordering::Relaxed)
    }

    pub(crate) fn attempts_total(&self) -> u64 {
        self.admitted.load(Ordering::Relaxed) + self.told().refused.values().sum::<u64>()
    }

    pub(crate) fn refusals(&self) -> BTreeMap<&'static str, u64> {
        self.told().refused.clone()
    }

    pub(crate) fn ends(&self) -> BTreeMap<&'static str, u64> {
        self.told().ended.clone()
    }

    pub(crate) fn resets(&self) -> BTreeMap<&'static str, Resets> {
        self.told().resets.clone()
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        // Nothing that runs under the lock panics half way.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
