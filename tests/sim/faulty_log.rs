//! The memory engine with the faults of a disk, one call at a time.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use gatecast_storage::{
    Bounds, Budget, Compacted, Cursor, Draft, Epoch, EventLog, GatewayId, LogError, Page, StoreError,
};

/// What may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Call {
    Append,
    Read,
    Compacted,
    Bounds,
    OwnerOf,
    Forget,
    Flush,
}

/// How.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing is done.
    Fails,
    /// It is done, and then said not to be.
    FailsAfter,
    /// It takes this long.
    Slow(Duration),
    /// It is done at once, and so much later said to be.
    SaidLate(Duration),
    /// It never answers.
    Hangs,
}

pub(crate) struct FaultyLog {
    log: Arc<dyn EventLog>,
    script: Mutex<Script>,
}

#[derive(Default)]
struct Script {
    /// For all gateways or one, and how often more.
    faults: HashMap<(Option<GatewayId>, Call), (Fault, usize)>,
    calls: BTreeMap<Call, usize>,
    is_poisoned: bool,
}

impl FaultyLog {
    pub(crate) fn new(log: Arc<dyn EventLog>) -> Arc<Self> {
        Arc::new(Self { log, script: Mutex::default() })
    }

    /// From now on every such call has this fault.
    pub(crate) fn always(&self, call: Call, fault: Fault) {
        self.times(usize::MAX, call, fault);
    }

    /// The next so many have.
    pub(crate) fn times(&self, times: usize, call: Call, fault: Fault) {
        self.script().faults.insert((None, call), (fault, times));
    }

    /// Those about one gateway have.
    pub(crate) fn always_of(&self, gateway: GatewayId, call: Call, fault: Fault) {
        self.script().faults.insert((Some(gateway), call), (fault, usize::MAX));
    }

    /// No more faults; a failed flush stays one.
    pub(crate) fn heal(&self) {
        self.script().faults.clear();
    }

    /// How many such calls there were.
    pub(crate) fn calls(&self, call: Call) -> usize {
        self.script().calls.get(&call).copied().unwrap_or(0)
    }

    async fn run<T>(
        &self,
        (call, of): (Call, Option<GatewayId>),
        work: impl Future<Output = Result<T, LogError>> + Send,
    ) -> Result<T, LogError> {
        let fault = self.fault(call, of)?;
        match fault {
            Some(Fault::Fails) => return Err(failed()),
            Some(Fault::Hangs) => std::future::pending().await,
            Some(Fault::Slow(time)) => tokio::time::sleep(time).await,
            Some(Fault::FailsAfter | Fault::SaidLate(_)) | None => {}
        }
        let done = work.await;
        match fault {
            Some(Fault::FailsAfter) => return Err(failed()),
            Some(Fault::SaidLate(time)) => tokio::time::sleep(time).await,
            _ => {}
        }
        done
    }

    /// A flush that fails leaves an engine that refuses to write, as sled's does.
    fn fault(&self, call: Call, of: Option<GatewayId>) -> Result<Option<Fault>, LogError> {
        let mut script = self.script();
        *script.calls.entry(call).or_default() += 1;
        let writes = matches!(call, Call::Append | Call::Forget | Call::Flush);
        if script.is_poisoned && writes {
            return Err(StoreError::Poisoned.into());
        }
        let mut fault = None;
        for key in [(of, call), (None, call)] {
            if let Some((planned, times)) = script.faults.get_mut(&key).filter(|(_, times)| *times > 0) {
                *times -= 1;
                fault = Some(*planned);
                break;
            }
        }
        script.is_poisoned |= call == Call::Flush && fault == Some(Fault::Fails);
        Ok(fault)
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn failed() -> LogError {
    StoreError::Io("the disk of the test is broken".into()).into()
}

#[async_trait]
impl EventLog for FaultyLog {
    async fn append(&self, to: GatewayId, draft: Draft) -> Result<Cursor, LogError> {
        self.run((Call::Append, Some(to)), self.log.append(to, draft)).await
    }

    async fn read(&self, of: GatewayId, from: Cursor, max: Budget) -> Result<Page, LogError> {
        self.run((Call::Read, Some(of)), self.log.read(of, from, max)).await
    }

    async fn compacted(&self, of: GatewayId, after: Cursor, max: Budget) -> Result<Compacted, LogError> {
        self.run((Call::Compacted, Some(of)), self.log.compacted(of, after, max)).await
    }

    async fn bounds(&self, of: GatewayId) -> Result<Bounds, LogError> {
        self.run((Call::Bounds, Some(of)), self.log.bounds(of)).await
    }

    async fn owner_of(&self, epoch: Epoch) -> Result<Option<GatewayId>, LogError> {
        self.run((Call::OwnerOf, None), self.log.owner_of(epoch)).await
    }

    async fn gateways(&self, after: Option<GatewayId>, max: usize) -> Result<Vec<GatewayId>, LogError> {
        self.log.gateways(after, max).await
    }

    async fn forget(&self, gateway: GatewayId) -> Result<(), LogError> {
        self.run((Call::Forget, Some(gateway)), self.log.forget(gateway)).await
    }

    async fn flush(&self) -> Result<(), LogError> {
        self.run((Call::Flush, None), self.log.flush()).await
    }
}
