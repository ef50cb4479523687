//! All parts of a server but its sockets, put together: what simulation tests drive and [`crate::server`] serves.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use gatecast_storage::deliveries::{Deliveries, DeliveryLimits};
use gatecast_storage::{
    Answers, Backup, Clock, Directory, DirectoryError, EventLog, LogError, Orders, Receipts, Records, Retention,
    StoreError, Stores,
};
use gatecast_transports::{CloseReason, Direct, Gate, Transport};
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;
use tracing::error;
use warp::{Filter, Reply};

use crate::api::{self, Api, Endpoints};
use crate::auth::{AdminAuth, Authenticator, Operators};
use crate::certificate::Expiry;
use crate::dashboard::{self, Observers, Pulse};
use crate::event_types::EventTypes;
use crate::gate::Admission;
use crate::heartbeat::Timing;
use crate::lease::Leases;
use crate::limits::RateTable;
use crate::metrics::{Metrics, Refusals};
use crate::proxies::Proxies;
use crate::publish::{Publisher, Recorder};
use crate::receipts::Reports;
use crate::refusal_log::RefusalLog;
use crate::registry::{Capacity, Registry};
use crate::session::Works;
use crate::sparse_log::SparseLog;
use crate::tail::{Tail, Tails};
use crate::traces::Tracer;

/// How many reconnecting clients a second the slots of a drain are laid out for. A TLS handshake takes about 0.12 ms
/// of a core (measured), so this leaves most of one core to the events that they missed.
const RECONNECTS_PER_SECOND: u64 = 1_000;
/// The earliest slot: a process that restarts needs about this long to listen again.
const RECONNECT_FIRST_MS: u64 = 500;

/// The bounds of a hub.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How many may be connected.
    pub capacity: Capacity,
    /// Silence of a peer after which it is dead.
    pub life_limit: Duration,
    /// Attempts to connect, per address and minute.
    pub attempts_per_minute: u32,
    /// The largest envelope, in bytes.
    pub event_bytes_max: usize,
    /// Proxies whose word on a peer's address counts.
    pub trusted_proxies: Vec<IpNet>,
    /// How much of each log its engine keeps.
    pub retention: Retention,
}

/// The parts of a server, joined.
pub struct Hub {
    /// Gateways, tokens, APIs, deployments, event types.
    pub directory: Arc<Directory>,
    /// The write path.
    pub publisher: Arc<Publisher>,
    /// Who is connected.
    pub registry: Arc<Registry>,
    /// Failed deliveries.
    pub deliveries: Arc<Deliveries>,
    /// How far replicas are and what they reported.
    pub receipts: Arc<Receipts>,
    /// The events.
    pub log: Arc<dyn EventLog>,
    /// Decides who may connect.
    pub gate: Arc<dyn Gate>,
    works: Arc<Works>,
    leases: Arc<Leases>,
    reports: Arc<Reports>,
    orders: Arc<Orders>,
    pub(crate) proxies: Proxies,
    event_types: Arc<EventTypes>,
    authenticator: Arc<Authenticator>,
    clock: Arc<dyn Clock>,
    rate: Arc<RateTable>,
    refusal_log: Arc<RefusalLog>,
    retention: Retention,
    draining: Arc<AtomicBool>,
    tails: Arc<Tails>,
    store_dir: Option<PathBuf>,
    started_at: DateTime<Utc>,
    stores: [Arc<dyn Records>; 2],
    pulse: Arc<Pulse>,
    backup: Option<Arc<Backup>>,
    /// Cancelled by the drain.
    watching: CancellationToken,
    certificate: Option<Arc<Expiry>>,
}

/// What is kept in the stores beside the events.
struct Tables {
    directory: Arc<Directory>,
    receipts: Arc<Receipts>,
    answers: Arc<Answers>,
    orders: Arc<Orders>,
    deliveries: Arc<Deliveries>,
}

impl Tables {
    async fn open(stores: &Stores, clock: &Arc<dyn Clock>) -> Result<Self, StoreError> {
        let events = &stores.events_records;
        let directory = Arc::new(Directory::open(stores.directory_records.clone()).await?);
        let orders = Orders::open(events.clone(), &directory, clock.now()).await.map_err(of_store)?;
        let deliveries = Deliveries::open(events.clone(), clock.clone(), DeliveryLimits::default()).await?;
        Ok(Self {
            directory,
            receipts: Arc::new(Receipts::open(events.clone(), clock.clone()).await?),
            answers: Arc::new(Answers::open(events.clone(), clock.clone()).await?),
            orders: Arc::new(orders),
            deliveries: Arc::new(deliveries),
        })
    }
}

impl Hub {
    /// Joins the parts over opened stores, whose logs' follower must be `tails`.
    ///
    /// # Errors
    /// If the stores cannot be read.
    pub async fn open(
        stores: Stores,
        tails: Arc<Tails>,
        clock: Arc<dyn Clock>,
        limits: Limits,
        tracer: Arc<Tracer>,
    ) -> Result<Self, StoreError> {
        let Tables { directory, receipts, answers, orders, deliveries } = Tables::open(&stores, &clock).await?;
        let Stores { log, events_records, directory_records, dir, backup, .. } = stores;
        let (registry, timing) = (Registry::new(limits.capacity), Timing::new(limits.life_limit));
        let pulse = Arc::new(Pulse::new(registry.clone(), tails.clone(), deliveries.clone(), clock.clone()));
        let leases = Leases::new(timing.life_limit, registry.clone(), deliveries.clone(), clock.clone());
        let event_types = Arc::new(EventTypes::load(directory.event_types()));
        let authenticator = Arc::new(Authenticator::new(directory.clone()));
        let recorder = Recorder {
            log: log.clone(),
            registry: registry.clone(),
            deliveries: deliveries.clone(),
            directory: directory.clone(),
            receipts: receipts.clone(),
        };
        let publisher = Publisher::new(event_types.clone(), recorder, answers, clock.clone(), limits.event_bytes_max);
        let reports = Reports::new(receipts.clone(), directory.clone(), log.clone(), deliveries.clone(), clock.clone());
        let (reports, proxies) = (Arc::new(reports), Proxies::new(limits.trusted_proxies));
        let works = Arc::new(Works {
            tail: Tail::new(tails.clone(), log.clone()),
            deliveries: deliveries.clone(),
            receipts: receipts.clone(),
            reports: reports.clone(),
            clock: clock.clone(),
            timing,
            tracer: tracer.clone(),
            authenticator: authenticator.clone(),
        });
        let gate = Arc::new(Admission {
            works: works.clone(),
            authenticator: authenticator.clone(),
            registry: registry.clone(),
            leases: leases.clone(),
            rate: Arc::new(RateTable::new(limits.attempts_per_minute)),
            refusal_log: Arc::default(),
            reset_log: SparseLog::default(),
            proxies: proxies.clone(),
            draining: Arc::default(),
        });
        Ok(Self {
            draining: gate.draining.clone(),
            rate: gate.rate.clone(),
            refusal_log: gate.refusal_log.clone(),
            started_at: clock.now(),
            directory,
            publisher: Arc::new(publisher.with_tracer(tracer)),
            registry,
            deliveries,
            receipts,
            log,
            gate,
            works,
            leases,
            reports,
            orders,
            proxies,
            event_types,
            authenticator,
            clock,
            retention: limits.retention,
            tails,
            store_dir: dir,
            stores: [events_records, directory_records],
            pulse,
            backup,
            watching: CancellationToken::new(),
            certificate: None,
        })
    }

    /// Metrics tell when the certificate expires, if there is one.
    #[must_use]
    pub fn with_certificate(self, certificate: Option<Arc<Expiry>>) -> Self {
        Self { certificate, ..self }
    }

    /// Takes over what may change while it runs: all but the limit of silence and the retention. Whoever is connected
    /// stays, also where there are more than there may be from now on.
    pub fn take_over(&self, limits: &Limits) {
        self.registry.set_capacity(limits.capacity);
        self.rate.set_per_minute(limits.attempts_per_minute);
        self.publisher.set_event_bytes_max(limits.event_bytes_max);
        self.proxies.set_trusted(limits.trusted_proxies.clone());
    }

    /// Who answers: the transports' routes, which the gate guards; the platform's and the dashboard's stream over `watch`,
    /// which `admin` guards; the dashboard's page.
    #[must_use]
    pub fn endpoints(&self, admin: AdminAuth, transports: &[Box<dyn Transport>], watch: &dyn Transport) -> Endpoints {
        let admin = Arc::new(Operators::new(admin));
        let observers = Observers::new(
            self.works.clone(),
            self.directory.clone(),
            self.pulse.clone(),
            admin.clone(),
            self.proxies.clone(),
            self.refusal_log.clone(),
            self.watching.clone(),
        );
        let Endpoints { routes: api, publishing } = api::endpoints(Arc::new(Api {
            directory: self.directory.clone(),
            publisher: self.publisher.clone(),
            event_types: self.event_types.clone(),
            registry: self.registry.clone(),
            deliveries: self.deliveries.clone(),
            receipts: self.receipts.clone(),
            reports: self.reports.clone(),
            orders: self.orders.clone(),
            proxies: self.proxies.clone(),
            log: self.log.clone(),
            admin,
            refusal_log: self.refusal_log.clone(),
            authenticator: self.authenticator.clone(),
            clock: self.clock.clone(),
            retention: self.retention,
            draining: self.draining.clone(),
            backup: self.backup.clone(),
            metrics: self.metrics(),
        }));
        for transport in transports {
            // So that its counts are there, at 0, before anybody comes.
            self.registry.traffic.of(transport.name());
        }
        // The API answers every path, so it comes last.
        let api = dashboard::routes().or(api).unify().boxed();
        let api = watch.routes(Arc::new(observers)).or(api).unify().boxed();
        let routes = transports.iter().rev().fold(api, |routes, transport| {
            transport.routes(self.gate.clone()).or(routes).unify().map(Reply::into_response).boxed()
        });
        Endpoints { routes, publishing }
    }

    /// What the transports can serve before hyper does.
    #[must_use]
    pub fn direct(&self, transports: &[Box<dyn Transport>]) -> Arc<[Arc<dyn Direct>]> {
        transports.iter().filter_map(|transport| transport.direct(self.gate.clone())).collect()
    }

    fn metrics(&self) -> Metrics {
        Metrics {
            registry: self.registry.clone(),
            publisher: self.publisher.clone(),
            tracer: self.works.tracer.clone(),
            tails: self.tails.clone(),
            reports: self.reports.clone(),
            receipts: self.receipts.clone(),
            deliveries: self.deliveries.clone(),
            directory: self.directory.clone(),
            log: self.log.clone(),
            retention: self.retention,
            clock: self.clock.clone(),
            stores: self.stores.clone(),
            refusals: Refusals::default(),
            store_dir: self.store_dir.clone(),
            certificate: self.certificate.clone(),
            started_at: self.started_at,
        }
    }

    /// Ends what has run out and looks after positions and what is gone, for as long as it is polled.
    pub async fn keep_time(&self) {
        let gone = gatecast_storage::forget_gone(&self.directory, &*self.log, &self.receipts, &self.deliveries);
        let left = self.orders.end_left(&self.directory, &*self.clock);
        tokio::join!(self.leases.expire(), self.works.tail.check_positions(), self.pulse.beat(), gone, left);
    }

    /// Admits nobody from now on and tells every connection when to come back, each in its own slot.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.watching.cancel();
        self.registry.drain(|index| CloseReason::Shutdown {
            reconnect_after_ms: RECONNECT_FIRST_MS + index as u64 * 1_000 / RECONNECTS_PER_SECOND,
        });
    }

    /// Returns once all that was accepted is durable.
    ///
    /// # Errors
    /// If the log's flush failed.
    pub async fn flush(&self) -> Result<(), LogError> {
        if let Err(error) = self.deliveries.flush().await {
            error!(%error, "Failed deliveries of the last second may not have been kept.");
        }
        if let Err(error) = self.receipts.flush().await {
            error!(%error, "Positions of the last second may not have been kept; some events may be delivered again.");
        }
        self.log.flush().await
    }
}

fn of_store(error: DirectoryError) -> StoreError {
    match error {
        DirectoryError::Store(error) => error,
        other => StoreError::Io(Box::new(other)),
    }
}
