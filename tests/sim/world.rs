//! A hub over the memory engine, its publishers and its peers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gatecast::auth::PlainToken;
use gatecast::hub::{Hub, Limits};
use gatecast::publish::{NewEvent, Outgoing, Published};
use gatecast::registry::Capacity;
use gatecast::tail::Tails;
use gatecast_storage::{
    Access, Appended, Bounds, Budget, CatchUp, Change, Clock, Compacted, Compaction, Cursor, Directory, Draft,
    Durability, Epoch, EventLog, EventType, Follower, Gateway, GatewayId, GatewayUpdate, LogError, ManualClock,
    MemoryRecords, OrganizationId, Page, Records as _, Retention, Stores, Table, Token, TokenId, open_memory,
};
use gatecast_transports::scripted::{Peer, Seen};
use gatecast_transports::{
    BoxSocket, CloseReason, ConnInfo, Frame, Handshake, Liveness, Newcomer, Refusal, Rewound, Scripted, Secret, Sever,
    Timing, Transport,
};
use serde_json::value::RawValue;
use tokio::io::DuplexStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::faulty_log::FaultyLog;
use crate::faulty_records::FaultyRecords;

/// A transport as the gateway sees it: its name and how it shows life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    WebSocket,
    Sse,
    LongPoll,
}

pub(crate) const ALL: [Via; 3] = [Via::WebSocket, Via::Sse, Via::LongPoll];

pub(crate) struct World {
    pub(crate) hub: Arc<Hub>,
    pub(crate) clock: Arc<ManualClock>,
    /// While set, nobody is told of an append: wake-ups are lost.
    pub(crate) deaf: Arc<AtomicBool>,
    /// A look at a log's bounds takes one of these and waits while there is none.
    pub(crate) looks: Arc<Semaphore>,
    /// So does a read of its entries.
    pub(crate) reads: Arc<Semaphore>,
    /// What the event log does wrong.
    pub(crate) faults: Arc<FaultyLog>,
    /// What the directory's tables do wrong.
    pub(crate) directory_faults: Arc<FaultyRecords>,
    /// What the tables of receipts and failed deliveries do wrong.
    pub(crate) records_faults: Arc<FaultyRecords>,
    stores: Stores,
    tails: Arc<Tails>,
    limits: Limits,
    time: JoinHandle<()>,
}

/// The memory engine, with a pause in it where a disk would have one.
struct SlowLog {
    log: Arc<dyn EventLog>,
    looks: Arc<Semaphore>,
    reads: Arc<Semaphore>,
}

#[async_trait]
impl EventLog for SlowLog {
    async fn append(&self, to: GatewayId, draft: Draft) -> Result<Cursor, LogError> {
        self.log.append(to, draft).await
    }

    async fn read(&self, of: GatewayId, from: Cursor, max: Budget) -> Result<Page, LogError> {
        let _read = self.reads.acquire().await.unwrap();
        self.log.read(of, from, max).await
    }

    async fn compacted(&self, of: GatewayId, after: Cursor, max: Budget) -> Result<Compacted, LogError> {
        self.log.compacted(of, after, max).await
    }

    async fn bounds(&self, of: GatewayId) -> Result<Bounds, LogError> {
        let _look = self.looks.acquire().await.unwrap();
        self.log.bounds(of).await
    }

    async fn owner_of(&self, epoch: Epoch) -> Result<Option<GatewayId>, LogError> {
        self.log.owner_of(epoch).await
    }

    async fn gateways(&self, after: Option<GatewayId>, max: usize) -> Result<Vec<GatewayId>, LogError> {
        self.log.gateways(after, max).await
    }

    async fn forget(&self, gateway: GatewayId) -> Result<(), LogError> {
        self.log.forget(gateway).await
    }

    async fn flush(&self) -> Result<(), LogError> {
        self.log.flush().await
    }
}

struct Follow {
    tails: Arc<Tails>,
    deaf: Arc<AtomicBool>,
}

impl Follower for Follow {
    fn appended(&self, gateway: GatewayId, epoch: Epoch, appended: &[Appended]) {
        if !self.deaf.load(Ordering::Relaxed) {
            self.tails.appended(gateway, epoch, appended);
        }
    }

    fn told(&self) {
        self.tails.told();
    }
}

/// A gateway and a token of it.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) id: GatewayId,
    pub(crate) token: TokenId,
    pub(crate) key: String,
}

pub(crate) struct Settings {
    pub(crate) retention: Retention,
    pub(crate) connections: usize,
    pub(crate) attempts_per_minute: u32,
}

impl Default for Settings {
    fn default() -> Self {
        let retention = Retention {
            max_events: 10_000,
            max_bytes: 64 << 20,
            max_age: Duration::from_secs(7 * 24 * 3600),
            compaction: Compaction::DEFAULT,
        };
        Self { retention, connections: 100_000, attempts_per_minute: u32::MAX }
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        let clock = Arc::new(ManualClock::default());
        let tails = Tails::new();
        let deaf = Arc::new(AtomicBool::new(false));
        let follower = Arc::new(Follow { tails: tails.clone(), deaf: deaf.clone() });
        let stores = open_memory(settings.retention, clock.clone(), follower);
        let [looks, reads] = [0; 2].map(|_| Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)));
        let stores =
            Stores { log: Arc::new(SlowLog { log: stores.log, looks: looks.clone(), reads: reads.clone() }), ..stores };
        let directory = Directory::open(stores.directory_records.clone()).await.unwrap();
        directory.put_event_type(without_keys(clock.now())).await.unwrap();
        let limits = Limits {
            capacity: Capacity { total: settings.connections, per_gateway: settings.connections },
            life_limit: Duration::from_secs(30),
            attempts_per_minute: settings.attempts_per_minute,
            event_bytes_max: 1 << 20,
            trusted_proxies: Vec::new(),
            retention: settings.retention,
        };
        Self::open(stores, tails, clock, limits, (deaf, looks, reads)).await
    }

    async fn open(
        stores: Stores,
        tails: Arc<Tails>,
        clock: Arc<ManualClock>,
        limits: Limits,
        (deaf, looks, reads): (Arc<AtomicBool>, Arc<Semaphore>, Arc<Semaphore>),
    ) -> Self {
        let faults = FaultyLog::new(stores.log.clone());
        let directory_faults = FaultyRecords::new(stores.directory_records.clone());
        let records_faults = FaultyRecords::new(stores.events_records.clone());
        let faulty = Stores {
            log: faults.clone(),
            directory_records: directory_faults.clone(),
            events_records: records_faults.clone(),
            backup: None,
            dir: stores.dir.clone(),
            closed: None,
        };
        let hub = Hub::open(faulty, tails.clone(), clock.clone(), limits.clone(), Arc::default()).await.unwrap();
        let hub = Arc::new(hub);
        let timed = hub.clone();
        let time = tokio::spawn(async move { timed.keep_time().await });
        Self { hub, clock, deaf, looks, reads, faults, directory_faults, records_faults, stores, tails, limits, time }
    }

    /// The server ends well and starts again over the same stores.
    pub(crate) async fn restart(self) -> Self {
        self.hub.flush().await.unwrap();
        self.crash().await
    }

    /// The server is killed and starts again over what its stores held at that moment.
    pub(crate) async fn crash(self) -> Self {
        self.time.abort();
        let records = MemoryRecords::new();
        for table in [Table::Deliveries, Table::Positions, Table::Outcomes] {
            let rows = self.stores.events_records.scan(table).await.unwrap();
            let changes = rows.into_iter().map(|(key, row)| Change { table, key, row: Some(row) }).collect();
            records.commit(changes, Durability::Synced).await.unwrap();
        }
        let stores = Stores { events_records: Arc::new(records), ..self.stores };
        Self::open(stores, self.tails, self.clock, self.limits, (self.deaf, self.looks, self.reads)).await
    }

    pub(crate) async fn gateway(&self) -> Member {
        self.gateway_with(CatchUp::Live).await
    }

    pub(crate) async fn gateway_with(&self, catch_up: CatchUp) -> Member {
        let id = GatewayId(Uuid::new_v4());
        let now = self.clock.now();
        let gateway = Gateway {
            id,
            organization: OrganizationId(Uuid::nil()),
            name: id.to_string().into(),
            display_name: "simulated".into(),
            description: None,
            vhost: None,
            catch_up,
            access: Access::default(),
            created_at: now,
            updated_at: now,
        };
        self.hub.directory.create_gateway(gateway).await.unwrap();
        self.token(id).await
    }

    pub(crate) async fn token(&self, gateway: GatewayId) -> Member {
        self.token_until(gateway, None).await
    }

    /// A token that expires after so long, if ever.
    pub(crate) async fn token_until(&self, gateway: GatewayId, after: Option<Duration>) -> Member {
        let (plain, now) = (PlainToken::random().unwrap(), self.clock.now());
        let token = Token {
            id: TokenId(Uuid::new_v4()),
            gateway,
            hash: plain.hash(),
            created_at: now,
            expires_at: after.map(|after| now + after),
            revoked_at: None,
        };
        let id = token.id;
        self.hub.directory.create_token(token, 2, now).await.unwrap();
        Member { id: gateway, token: id, key: plain.expose().to_owned() }
    }

    pub(crate) async fn revoke(&self, member: &Member) {
        self.hub.directory.revoke_token(member.id, member.token, self.clock.now()).await.unwrap();
        self.hub.registry.close_token(member.token);
    }

    /// Has its gateway come from these networks only.
    pub(crate) async fn allow(&self, member: &Member, networks: &[&str]) {
        let before = self.hub.directory.gateway(member.id).unwrap();
        let addresses = networks.iter().map(|network| format!("{network}/32").parse().unwrap()).collect();
        let update = GatewayUpdate {
            display_name: before.display_name.clone(),
            description: None,
            vhost: None,
            catch_up: before.catch_up,
            access: Access { addresses, ..Access::default() },
        };
        self.hub.directory.update_gateway(member.id, update, self.clock.now()).await.unwrap();
        self.hub.registry.close_barred(&self.hub.directory.gateway(member.id).unwrap());
    }

    /// One of seven APIs is deployed.
    pub(crate) async fn publish(&self, to: GatewayId, n: u64) -> Published {
        self.publish_about(to, "api.deployed", &format!("a{}", n % 7), n).await
    }

    pub(crate) async fn publish_about(&self, to: GatewayId, kind: &str, api: &str, n: u64) -> Published {
        let payload: Box<RawValue> = serde_json::from_str(&format!(r#"{{"apiId":"{api}","n":{n}}}"#)).unwrap();
        let event =
            NewEvent { kind: kind.parse().unwrap(), payload, correlation_id: None, key: None, traceparent: None };
        let event = self.hub.publisher.check(event).unwrap();
        self.hub.publisher.publish_all(vec![Outgoing::new(to, &event)], None).await.remove(0).unwrap()
    }

    pub(crate) async fn connect(&self, via: Via, member: &Member, cursor: Option<&str>) -> Result<Client, Refusal> {
        Ok(Client { peer: self.peer(via, member, cursor).await?, pongs: true, cursor: cursor.map(Into::into) })
    }

    /// A socket of so many bytes that begins with this transport, which serves it without hyper; its other end.
    pub(crate) fn socket(&self, transport: impl Transport + 'static, pipe_bytes: usize) -> DuplexStream {
        let transports: [Box<dyn Transport>; 1] = [Box::new(transport)];
        let [direct] = &*self.hub.direct(&transports) else { panic!("it needs no hyper") };
        let (near, far) = tokio::io::duplex(pipe_bytes);
        let newcomer = Newcomer {
            socket: Rewound::from(Box::new(near) as BoxSocket),
            info: Arc::new(ConnInfo::of(([127, 0, 0, 1], 1).into())),
            sever: Sever::new(),
            drain: CancellationToken::new(),
        };
        let direct = direct.clone();
        drop(tokio::spawn(async move { direct.serve(newcomer).await }));
        far
    }

    pub(crate) async fn peer(&self, via: Via, member: &Member, cursor: Option<&str>) -> Result<Peer, Refusal> {
        let transport = via.transport();
        transport.connect(self.hub.gate.as_ref(), handshake(&transport, member, cursor)).await
    }
}

/// An event type whose events are no one's state.
pub(crate) const WITHOUT_KEYS: &str = "log.line";

fn without_keys(at: DateTime<Utc>) -> EventType {
    EventType {
        name: WITHOUT_KEYS.to_owned(),
        description: None,
        schema: true.into(),
        key_pointer: None,
        ends_key: false,
        created_at: at,
        updated_at: at,
    }
}

impl Via {
    pub(crate) fn transport(self) -> Scripted {
        let (name, liveness) = match self {
            Self::WebSocket => ("websocket", Liveness::PingPong),
            Self::Sse => ("sse", Liveness::WriteOnly),
            Self::LongPoll => ("long-poll", Liveness::Lease),
        };
        Scripted::new(name, liveness, Timing::default())
    }
}

pub(crate) fn handshake(transport: &Scripted, member: &Member, cursor: Option<&str>) -> Handshake {
    Handshake {
        credential: Some(Secret::new(member.key.clone())),
        cursor: cursor.map(Into::into),
        ..transport.handshake()
    }
}

/// A peer that answers pings and keeps its cursor.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) peer: Peer,
    pub(crate) pongs: bool,
    pub(crate) cursor: Option<String>,
}

impl Client {
    /// The next message; `Err` with the reason once the connection has ended.
    pub(crate) async fn message(&mut self) -> Result<Arc<Frame>, CloseReason> {
        loop {
            match self.peer.next().await.expect("an end is seen before nothing is") {
                Seen::Frame(frame) => {
                    if let Some(id) = frame.id() {
                        self.cursor = Some(id.to_owned());
                    }
                    return Ok(frame);
                }
                Seen::Ping(payload) if self.pongs => self.peer.say_pong(payload),
                Seen::Ping(_) => {}
                Seen::End(reason) => return Err(reason),
            }
        }
    }

    /// The numbers of the next `count` events, in order of arrival.
    pub(crate) async fn numbers(&mut self, count: usize) -> Vec<u64> {
        let mut numbers = Vec::new();
        while numbers.len() < count {
            let frame = self.message().await.expect("the connection lives");
            numbers.extend(number(&frame));
        }
        numbers
    }
}

pub(crate) fn json(frame: &Frame) -> serde_json::Value {
    serde_json::from_str(frame.text()).unwrap()
}

/// The number of a published event; `None` for a control message.
pub(crate) fn number(frame: &Frame) -> Option<u64> {
    json(frame)["payload"]["n"].as_u64()
}
