use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use gatecast_storage::{
    Answers, Bounds, Budget, Change, Clock, Compacted, Compaction, Condition, Cursor, Deliveries, DeliveryLimits,
    Directory, Draft, Durability, Epoch, EventLog, GatewayId, LogError, ManualClock, MemoryLog, MemoryRecords, Orders,
    Page, Receipts, Records, Retention, StoreError, Table, TokenId,
};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;
use warp::filters::BoxedFilter;

use crate::api::{Api, Platform, routes};
use crate::auth::{AdminAuth, Authenticator, Operators, Proof};
use crate::event_types::EventTypes;
use crate::metrics::{Metrics, Refusals};
use crate::proxies::Proxies;
use crate::publish::{Publisher, Recorder};
use crate::receipts::Reports;
use crate::registry::{Capacity, Identity, Registration, Registry};
use crate::tail::Tails;

pub(super) const ADMIN: &str = "the-admin-token-of-the-tests";
pub(super) const EVENT_BYTES_MAX: usize = 4_096;
pub(super) const ORGANIZATION: &str = "b0a7d4c6-52a1-4b3f-8a55-2f1f5a3f7c10";

const RETENTION: Retention = Retention {
    max_events: 5,
    max_bytes: 1 << 20,
    max_age: std::time::Duration::from_secs(3600),
    compaction: Compaction::DEFAULT,
};

/// A platform with nothing in it.
pub(super) struct World {
    pub(super) filter: BoxedFilter<(warp::reply::Response,)>,
    pub(super) platform: Arc<Platform>,
    pub(super) parts: Arc<Api>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) log: Arc<FragileLog>,
    pub(super) records: Arc<FragileRecords>,
    tails: Arc<Tails>,
}

pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl World {
    pub(super) async fn new() -> Self {
        Self::over(Arc::new(MemoryRecords::new())).await
    }

    pub(super) async fn over(records: Arc<MemoryRecords>) -> Self {
        let (clock, tails) = (Arc::new(ManualClock::default()), Tails::new());
        let log = MemoryLog::new(RETENTION, clock.clone(), tails.clone());
        Self::open(records, Arc::new(FragileLog::new(log)), clock, tails).await
    }

    /// The server dies and starts again over what it has stored.
    pub(super) async fn restart(self) -> Self {
        self.log.fails_with.lock().unwrap().take();
        Self::open(self.records.inner.clone(), self.log, self.clock, self.tails).await
    }

    async fn open(
        records: Arc<MemoryRecords>,
        log: Arc<FragileLog>,
        clock: Arc<ManualClock>,
        tails: Arc<Tails>,
    ) -> Self {
        let retention = RETENTION;
        let beside = log.inner.records();
        let records = Arc::new(FragileRecords { inner: records, is_full: AtomicBool::new(false) });
        let directory = Arc::new(Directory::open(records.clone()).await.unwrap());
        let receipts = Arc::new(Receipts::open(beside.clone(), clock.clone()).await.unwrap());
        let deliveries = Deliveries::open(beside.clone(), clock.clone(), DeliveryLimits::default()).await.unwrap();
        let deliveries = Arc::new(deliveries);
        let answers = Arc::new(Answers::open(beside.clone(), clock.clone()).await.unwrap());
        let orders = Arc::new(Orders::open(beside, &directory, clock.now()).await.unwrap());
        let registry = Registry::new(Capacity { total: 10_000, per_gateway: 1_000 });
        let event_types = Arc::new(EventTypes::load(directory.event_types()));
        let recorder = Recorder {
            log: log.clone(),
            registry: registry.clone(),
            deliveries: deliveries.clone(),
            directory: directory.clone(),
            receipts: receipts.clone(),
        };
        let publisher = Publisher::new(event_types.clone(), recorder, answers, clock.clone(), EVENT_BYTES_MAX);
        let reports = Reports::new(receipts.clone(), directory.clone(), log.clone(), deliveries.clone(), clock.clone());
        let (publisher, reports) = (Arc::new(publisher), Arc::new(reports));
        let metrics = Metrics {
            registry: registry.clone(),
            publisher: publisher.clone(),
            tracer: Arc::default(),
            tails: tails.clone(),
            reports: reports.clone(),
            receipts: receipts.clone(),
            deliveries: deliveries.clone(),
            directory: directory.clone(),
            log: log.clone(),
            retention,
            clock: clock.clone(),
            stores: [log.clone() as Arc<dyn Records>, Arc::new(MemoryRecords::new())],
            refusals: Refusals::default(),
            store_dir: None,
            certificate: None,
            started_at: clock.now(),
        };
        let parts = Arc::new(Api {
            authenticator: Arc::new(Authenticator::new(directory.clone())),
            directory: directory.clone(),
            publisher,
            event_types,
            registry,
            deliveries,
            reports,
            receipts,
            orders,
            proxies: Proxies::default(),
            log: log.clone(),
            refusal_log: Arc::default(),
            admin: Arc::new(Operators::new(AdminAuth::from_config(Some(ADMIN), &directory, |_| Ok(())).await.unwrap())),
            clock: clock.clone(),
            retention,
            draining: Arc::new(AtomicBool::new(false)),
            backup: None,
            metrics,
        });
        let platform = Arc::new(Platform::new(parts.clone()));
        Self { filter: routes(platform.clone()), platform, parts, records, clock, log, tails }
    }

    /// A call without a credential.
    pub(super) async fn bare(&self, method: &str, path: &str) -> Reply {
        Reply::from(warp::test::request().method(method).path(path).reply(&self.filter).await)
    }

    pub(super) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Reply {
        let mut request = warp::test::request().method(method).path(path).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Reply::from(request.reply(&self.filter).await)
    }

    /// A call of the admin.
    pub(super) async fn admin(&self, method: &str, path: &str, body: impl Into<Value>) -> Reply {
        let bearer = format!("Bearer {ADMIN}");
        let body: Value = body.into();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(method, path, &[("authorization", &bearer), ("content-type", "application/json")], body).await
    }

    pub(super) async fn get(&self, path: &str) -> Reply {
        self.admin("GET", path, Value::Null).await
    }

    /// A call of a gateway.
    pub(super) async fn gateway_get(&self, token: &str, path: &str) -> Reply {
        self.send("GET", path, &[("api-key", token)], "").await
    }

    /// A new gateway.
    pub(super) async fn gateway(&self, name: &str) -> GatewayId {
        let body =
            json!({ "organizationId": ORGANIZATION, "name": name, "displayName": "Test", "vhost": "default.example" });
        let made = self.admin("POST", "/api/v1/gateways", body).await.expect(201);
        made["id"].as_str().unwrap().parse().unwrap()
    }

    /// A new token of a gateway.
    pub(super) async fn token(&self, of: GatewayId) -> (TokenId, String) {
        let made = self.admin("POST", &format!("/api/v1/gateways/{of}/tokens"), Value::Null).await.expect(201);
        (made["id"].as_str().unwrap().parse().unwrap(), made["token"].as_str().unwrap().to_owned())
    }

    /// Connects a replica for as long as the answer lives.
    pub(super) async fn connect(&self, gateway: GatewayId, token: TokenId) -> Registration {
        let at = self.parts.log.bounds(gateway).await.unwrap().head();
        let identity = Identity {
            proof: Proof::Token(token),
            instance: None,
            transport: "websocket",
            peer: "127.0.0.1".parse().unwrap(),
            connected_at: self.clock.now(),
        };
        self.parts.registry.register(identity, self.tails.channel(gateway), at).unwrap()
    }

    pub(super) async fn head(&self, gateway: GatewayId) -> u64 {
        self.parts.log.bounds(gateway).await.unwrap().newest.0
    }

    /// The envelopes held of a gateway.
    pub(super) async fn events(&self, gateway: GatewayId) -> Vec<Value> {
        let bounds = self.parts.log.bounds(gateway).await.unwrap();
        let mut events = Vec::new();
        for seq in bounds.oldest.0..=bounds.newest.0 {
            let path = format!("/api/internal/v1/events/{gateway}/{}-{seq}", bounds.epoch);
            events.push(self.get(&path).await.expect(200)["event"].clone());
        }
        events
    }
}

impl Reply {
    fn from(response: http::Response<Bytes>) -> Self {
        let (parts, body) = response.into_parts();
        Self { status: parts.status, headers: parts.headers, body }
    }

    /// The JSON of an answer that has this status.
    #[track_caller]
    pub(super) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The faults of a problem with this status and code.
    #[track_caller]
    pub(super) fn problem(&self, status: u16, code: &str) -> Vec<String> {
        let body = self.expect(status);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!((body["code"].as_str(), body["status"].as_u64()), (Some(code), Some(u64::from(status))), "{body}");
        assert!(body["type"].is_string() && body["title"].is_string() && body["detail"].is_string(), "{body}");
        let fields = body["errors"].as_array().into_iter().flatten().map(|error| &error["field"]);
        fields.map(|field| field.as_str().unwrap().to_owned()).collect()
    }
}

/// A failed sync: nobody knows what is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AppendFault {
    /// It is there.
    Stored,
    /// It is not.
    Lost,
}

/// A log that can be made to fail.
pub(crate) struct FragileLog {
    inner: MemoryLog,
    /// Takes nothing, for now.
    pub(crate) is_down: AtomicBool,
    /// The answer of appends from now on; they are stored all the same if it says so.
    pub(super) fails_with: Mutex<Option<AppendFault>>,
    /// Appends that are answered well before.
    pub(super) spared: AtomicUsize,
    /// Appends find no room.
    pub(super) is_full: AtomicBool,
    /// Appends wait while this is held.
    pub(super) held: tokio::sync::RwLock<()>,
    /// Appends are stored, but not answered while this is held.
    pub(super) unanswered: tokio::sync::RwLock<()>,
    /// Looks at bounds wait while this is held.
    pub(super) unseen: tokio::sync::RwLock<()>,
}

impl FragileLog {
    pub(crate) fn new(inner: MemoryLog) -> Self {
        Self {
            inner,
            is_down: AtomicBool::new(false),
            fails_with: Mutex::default(),
            spared: AtomicUsize::new(0),
            is_full: AtomicBool::new(false),
            held: tokio::sync::RwLock::default(),
            unanswered: tokio::sync::RwLock::default(),
            unseen: tokio::sync::RwLock::default(),
        }
    }

    fn up(&self) -> Result<(), LogError> {
        if self.is_down.load(Ordering::SeqCst) { Err(StoreError::Overloaded.into()) } else { Ok(()) }
    }
}

#[async_trait]
impl EventLog for FragileLog {
    async fn append(&self, to: GatewayId, draft: Draft) -> Result<Cursor, LogError> {
        drop(self.held.read().await);
        self.up()?;
        if self.is_full.load(Ordering::SeqCst) {
            return Err(StoreError::Full.into());
        }
        let fault = *self.fails_with.lock().unwrap();
        let less = |spared: usize| spared.checked_sub(1);
        let fault = fault.filter(|_| self.spared.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_err());
        if fault != Some(AppendFault::Lost) {
            let done = self.inner.append(to, draft).await;
            drop(self.unanswered.read().await);
            if fault.is_none() {
                return done;
            }
        }
        Err(StoreError::Poisoned.into())
    }

    async fn read(&self, of: GatewayId, from: Cursor, max: Budget) -> Result<Page, LogError> {
        self.up()?;
        self.inner.read(of, from, max).await
    }

    async fn compacted(&self, of: GatewayId, after: Cursor, max: Budget) -> Result<Compacted, LogError> {
        self.up()?;
        self.inner.compacted(of, after, max).await
    }

    async fn bounds(&self, of: GatewayId) -> Result<Bounds, LogError> {
        drop(self.unseen.read().await);
        self.up()?;
        self.inner.bounds(of).await
    }

    async fn owner_of(&self, epoch: Epoch) -> Result<Option<GatewayId>, LogError> {
        self.inner.owner_of(epoch).await
    }

    async fn gateways(&self, after: Option<GatewayId>, max: usize) -> Result<Vec<GatewayId>, LogError> {
        self.inner.gateways(after, max).await
    }

    async fn forget(&self, gateway: GatewayId) -> Result<(), LogError> {
        self.up()?;
        self.inner.forget(gateway).await
    }

    async fn flush(&self) -> Result<(), LogError> {
        self.inner.flush().await
    }
}

/// The directory's tables, which may have no room.
pub(super) struct FragileRecords {
    inner: Arc<MemoryRecords>,
    pub(super) is_full: AtomicBool,
}

#[async_trait]
impl Records for FragileRecords {
    async fn some(&self, table: Table, after: Option<&[u8]>, max: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.inner.some(table, after, max).await
    }

    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.inner.get(table, key).await
    }

    async fn commit(&self, changes: Vec<Change>, durability: Durability) -> Result<(), StoreError> {
        if self.is_full.load(Ordering::SeqCst) {
            return Err(StoreError::Full);
        }
        self.inner.commit(changes, durability).await
    }
}

pub(super) fn unknown() -> GatewayId {
    GatewayId(Uuid::new_v4())
}

/// The engine as records: only its condition is asked for.
#[async_trait]
impl Records for FragileLog {
    async fn some(&self, _: Table, _: Option<&[u8]>, _: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        Ok(Vec::new())
    }

    async fn get(&self, _: Table, _: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(None)
    }

    async fn commit(&self, _: Vec<Change>, _: Durability) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }

    fn condition(&self) -> Condition {
        if self.is_down.load(Ordering::SeqCst) {
            Condition::Broken
        } else if self.is_full.load(Ordering::SeqCst) {
            Condition::Full
        } else {
            Condition::Serving
        }
    }
}
