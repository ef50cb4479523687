//! From a checked configuration to a listening server, and down again.
//!
//! Starting opens the store, then listens: whoever can connect can be served. Draining stops accepting, tells every
//! connection when to come back, waits for what is under way within the grace, and flushes the store.

mod certificate_names;
mod connection;
mod in_flight;
mod listener;
mod places;
mod reload;
mod socket;
mod streams;
mod target;
mod tls;
mod tls_stream;
mod unread;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gatecast_storage::{
    Clock, Closed, Compaction, DirectoryError, LogError, Retention, StoreError, Stores, SystemClock,
};
use gatecast_transports::{LongPoll, Sse, Transport, WebSocket};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{info, warn};

use crate::auth::{AdminAuth, AdminSetupError, PlainToken};
use crate::config::{Config, StoreKind};
use crate::descriptors;
use crate::hub::{Hub, Limits};
use crate::registry::Capacity;
use crate::tail::Tails;
use crate::traces::{ExportError, Exporter};

use self::connection::{Service, Wire};
use self::listener::Listener;
use self::places::Places;
pub use self::reload::Reloader;
use self::tls::Tls;
pub use self::tls::TlsError;
pub(crate) use self::tls::file_faults;

/// A server that listens and does not serve yet.
pub struct Server {
    listener: Listener,
    tls: Option<Arc<Tls>>,
    hub: Arc<Hub>,
    service: Service,
    tasks: TaskTracker,
    wire: Arc<Wire>,
    grace: Duration,
    exporter: Option<Exporter>,
    closed: Option<Closed>,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The address could not be bound.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// What was to be bound.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The directory of gateways cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Traces cannot be exported.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// There is no admin token.
    #[error(transparent)]
    Admin(#[from] AdminSetupError),
}

impl Server {
    /// Opens the store and listens. An admin token that had to be made is given to `show`, once, as only its hash is kept.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left open.
    pub async fn start(config: &Config, show: impl FnOnce(&PlainToken) -> io::Result<()>) -> Result<Self, StartError> {
        descriptors::raise_limit(config.max_connections);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let tls = Tls::load(&config.tls, clock.clone()).await?.map(Arc::new);
        let tails = Tails::new();
        let stores = open_stores(config, &clock, &tails).await?;
        let closed = stores.closed.clone();
        let export = config.traces.clone().map(|to| Exporter::new(to, clock.clone())).transpose()?;
        let (tracer, exporter) = export.unzip();
        let hub = Hub::open(stores, tails, clock, limits(config), tracer.unwrap_or_default()).await?;
        let hub = Arc::new(hub.with_certificate(tls.as_ref().map(|tls| tls.expiry())));
        let places = Places::new(config.max_connections as usize, descriptors::sockets_max(), hub.proxies.clone());
        let wire = Wire::new(config.connection_timeout, places);
        let listener = Listener::bind(config.listen, &wire)
            .map_err(|source| StartError::Listen { address: config.listen, source })?;
        // Last of what can fail: whoever gets no server gets no token either, and only its hash would be kept.
        let auth = admin(config, &hub, show).await?;
        let tasks = TaskTracker::new();
        let transports = transports(&tasks);
        let service =
            Service { endpoints: hub.endpoints(auth, &transports, &watch(&tasks)), direct: hub.direct(&transports) };
        if tls.is_none() {
            warn!("TLS is off: tokens and events travel in the clear unless a proxy in front speaks TLS.");
        }
        Ok(Self {
            listener,
            tls,
            hub,
            service,
            tasks,
            wire: Arc::new(wire),
            grace: config.shutdown_grace,
            exporter,
            closed,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// The parts behind the sockets.
    #[must_use]
    pub fn hub(&self) -> Arc<Hub> {
        self.hub.clone()
    }

    /// A way to give it another configuration while it runs.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        Reloader { tls: self.tls.clone(), hub: self.hub.clone(), wire: self.wire.clone() }
    }

    /// When its store is closed, if it has one on disk: some time after the end of [`Self::serve`], as what was cut is
    /// dropped by the runtime.
    #[must_use]
    pub fn closed(&self) -> Option<Closed> {
        self.closed.clone()
    }

    /// Serves until `shutdown`, then drains.
    ///
    /// # Errors
    /// If the store could not be flushed at the end.
    pub async fn serve(mut self, shutdown: impl Future<Output = ()>) -> Result<(), StoreError> {
        let (drain, stop) = (CancellationToken::new(), CancellationToken::new());
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        info!(address = %self.address(), "Listening on {scheme}://{}.", self.address());
        let background = TaskTracker::new();
        let (hub, tls) = (self.hub.clone(), self.tls.clone());
        background.spawn(stop.clone().run_until_cancelled_owned(async move { hub.keep_time().await }));
        if let Some(exporter) = self.exporter.take() {
            background.spawn(exporter.run(stop.clone()));
        }
        if let Some(tls) = tls {
            background.spawn(stop.clone().run_until_cancelled_owned(async move { tls.watch().await }));
        }
        let Self { listener, tls, hub, service, tasks, wire, grace, .. } = self;
        // A task of its own, on a worker: this future may run on a thread beside those, and each connection would cost
        // turns between the two. It ends with this future, should that be dropped.
        let accepting = listener.accept(tls, service, wire, tasks.clone(), drain.clone());
        let mut accepting = AbortOnDropHandle::new(tokio::spawn(accepting));
        tokio::select! {
            biased;
            () = shutdown => {
                // The port is freed first: a successor may listen while the connections end.
                accepting.abort();
                let _ = (&mut accepting).await;
            }
            _ = &mut accepting => {}
        }
        let drained = drained(&hub, &tasks, grace, &drain).await;
        stop.cancel();
        background.close();
        background.wait().await;
        drained
    }
}

/// Ends every connection within `grace` and flushes the store.
async fn drained(hub: &Hub, tasks: &TaskTracker, grace: Duration, drain: &CancellationToken) -> Result<(), StoreError> {
    let connections = hub.registry.len();
    info!(connections, "Draining: no new connections; telling each gateway when to come back.");
    hub.drain();
    drain.cancel();
    tasks.close();
    if tokio::time::timeout(grace, tasks.wait()).await.is_err() {
        warn!(tasks = tasks.len(), "The shutdown grace is over; what is still under way is cut.");
    }
    let flushed = hub.flush().await;
    info!("Stopped.");
    flushed.map_err(|error| match error {
        LogError::Store(error) => error,
        other => StoreError::Io(Box::new(other)),
    })
}

fn limits(config: &Config) -> Limits {
    Limits {
        capacity: Capacity {
            total: config.max_connections as usize,
            per_gateway: config.max_connections_per_gateway as usize,
        },
        life_limit: config.connection_timeout,
        attempts_per_minute: config.rate_limit_per_minute,
        event_bytes_max: config.max_event_bytes,
        trusted_proxies: config.trusted_proxies.clone(),
        retention: retention(config),
    }
}

fn retention(config: &Config) -> Retention {
    Retention {
        max_events: config.retention.max_events,
        max_bytes: config.retention.max_bytes.0,
        max_age: config.retention.max_age,
        compaction: Compaction::DEFAULT,
    }
}

/// The transports of this server. A new one is added here and nowhere else.
fn transports(tasks: &TaskTracker) -> [Box<dyn Transport>; 3] {
    let timing = gatecast_transports::Timing::default();
    [
        Box::new(WebSocket::new(timing, tasks.clone())),
        Box::new(Sse::new(timing, tasks.clone())),
        Box::new(LongPoll::new(timing, tasks.clone())),
    ]
}

/// How operators watch.
fn watch(tasks: &TaskTracker) -> Sse {
    Sse::new(gatecast_transports::Timing::default(), tasks.clone()).at(crate::dashboard::STREAM)
}

async fn open_stores(config: &Config, clock: &Arc<dyn Clock>, tails: &Arc<Tails>) -> Result<Stores, StoreError> {
    let retention = retention(config);
    let (clock, follower) = (clock.clone(), tails.clone());
    match config.store {
        StoreKind::Memory => Ok(gatecast_storage::open_memory(retention, clock, follower)),
        StoreKind::Sled => gatecast_storage::open_sled(&config.data_dir, retention, clock, follower).await,
    }
}

async fn admin(
    config: &Config,
    hub: &Hub,
    show: impl FnOnce(&PlainToken) -> io::Result<()>,
) -> Result<AdminAuth, AdminSetupError> {
    if config.dev && config.admin_token.is_none() {
        return Ok(AdminAuth::Open);
    }
    let configured = config.admin_token.as_ref().map(|token| token.reveal());
    AdminAuth::from_config(configured, &hub.directory, show).await
}
