//! 20 kill -9 of the real binary under publishing: what was answered stays, in its place.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use gatecast_storage::{Cursor, GatewayId};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::platform::{Platform, Registered};
use crate::process::{Process, Served};
use crate::wire::{End, PATIENCE, Sse, Ws};

const KILLS: u64 = 20;
const GATEWAYS: usize = 3;
const PUBLISHERS: usize = 5;
/// Answers between a start and its kill.
const ANSWERS: std::ops::Range<u64> = 5..120;
/// How long after the last of these answers the kill comes, in microseconds.
const DELAY_US: std::ops::Range<u64> = 0..20_000;
/// How long after the start the kill comes when it is to meet the start, in microseconds.
const START_DELAY_US: std::ops::Range<u64> = 0..400_000;
/// The payload of the last event of each gateway.
const LAST: u64 = u64::MAX;

/// What somebody was told: at this place of this gateway's log stands the event with this number.
type Told = (GatewayId, Place, u64);

/// Epoch and seq.
type Place = (String, u64);

fn place(event_id: &str) -> Place {
    let cursor: Cursor = event_id.parse().unwrap();
    (cursor.epoch.to_string(), cursor.seq.0)
}

/// Where the server is now. It is another address after each kill.
type Here = watch::Receiver<Option<SocketAddr>>;

/// splitmix64: the kills of a seed are the same everywhere.
struct Random(u64);

impl Random {
    fn in_range(&mut self, range: std::ops::Range<u64>) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        range.start + (z ^ (z >> 31)) % (range.end - range.start)
    }
}

/// The server's address once it is another one than `dead`.
async fn other_than(here: &mut Here, dead: Option<SocketAddr>) -> SocketAddr {
    let alive = here.wait_for(|now| now.is_some() && *now != dead);
    timeout(PATIENCE, alive).await.expect("a server in time").unwrap().unwrap()
}

/// Publishes one event after the other, to one gateway after the other, and notes what was answered.
async fn publisher(
    mut here: Here,
    gateways: Vec<GatewayId>,
    numbers: Arc<AtomicU64>,
    answers: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> Vec<Told> {
    let (mut told, mut dead) = (Vec::new(), None);
    while !stop.load(Ordering::Acquire) {
        let address = other_than(&mut here, dead).await;
        let platform = Platform::new(address);
        while !stop.load(Ordering::Acquire) {
            let n = numbers.fetch_add(1, Ordering::Relaxed);
            let to = gateways[usize::try_from(n).unwrap() % gateways.len()];
            let event = json!({"type": "api.deployed", "payload": {"apiId": "pets", "n": n}});
            let url = platform.url(&format!("/api/internal/v1/gateways/{to}/events"));
            let Ok(response) = platform.http.post(url).json(&event).send().await else { break };
            assert_eq!(response.status(), 201);
            // What broke off in the middle of the answer was not answered.
            let Ok(answer) = response.json::<Value>().await else { break };
            told.push((to, place(answer["eventId"].as_str().unwrap()), n));
            answers.fetch_add(1, Ordering::Release);
        }
        dead = Some(address);
    }
    told
}

/// What one subscriber of a gateway saw, over all its connections.
struct Seen {
    gateway: Registered,
    told: Vec<Told>,
    cursor: Option<String>,
}

impl Seen {
    fn take(&mut self, message: &Value) {
        if message["type"] == "connection.ack" {
            assert_eq!(message["resume"], "resumed", "{message}");
            return assert!(self.cursor.as_ref().is_none_or(|cursor| message["position"] == **cursor), "{message}");
        }
        assert_eq!(message["type"], "api.deployed", "{message}");
        let id = message["eventId"].as_str().unwrap();
        let (epoch, seq) = place(id);
        if let Some((_, (before, _), _)) = self.told.last() {
            assert_eq!(epoch, *before, "the epoch stays");
        }
        assert_eq!(seq, self.told.len() as u64 + 1, "dense, in order, each once");
        self.told.push((self.gateway.id, (epoch, seq), message["payload"]["n"].as_u64().unwrap()));
        self.cursor = Some(id.to_owned());
    }

    fn done(&self) -> bool {
        self.told.last().is_some_and(|(_, _, n)| *n == LAST)
    }

    fn from(&self) -> &str {
        self.cursor.as_deref().unwrap_or("earliest")
    }
}

#[derive(Debug, Clone, Copy)]
enum Over {
    WebSocket,
    Sse,
    LongPoll,
}

/// Reads until the gateway's last event, resuming with its cursor whenever the server is gone.
async fn subscriber(over: Over, mut here: Here, gateway: Registered) -> Vec<Told> {
    let (mut seen, mut dead) = (Seen { gateway, told: Vec::new(), cursor: None }, None);
    while !seen.done() {
        let address = other_than(&mut here, dead).await;
        match over {
            Over::WebSocket => over_websocket(&mut seen, address).await,
            Over::Sse => over_sse(&mut seen, address).await,
            Over::LongPoll => over_long_poll(&mut seen, address).await,
        }
        dead = Some(address);
    }
    seen.told
}

async fn over_websocket(seen: &mut Seen, address: SocketAddr) {
    let mut ws = match Ws::dial(address, &seen.gateway.token, Some(seen.from())).await {
        Ok(ws) => ws,
        Err(status) => return assert_eq!(status, None, "refused"),
    };
    while !seen.done() {
        match ws.message().await {
            Ok(message) => seen.take(&message),
            Err(end) => return assert_eq!(end, End::Broken),
        }
    }
}

async fn over_sse(seen: &mut Seen, address: SocketAddr) {
    let http = Platform::new(address).http;
    let mut sse = match Sse::dial(&http, address, &seen.gateway.token, Some(seen.from())).await {
        Ok(sse) => sse,
        Err(status) => return assert_eq!(status, None, "refused"),
    };
    while !seen.done() {
        let Some(event) = sse.event().await else { return };
        seen.take(&event.json());
    }
}

async fn over_long_poll(seen: &mut Seen, address: SocketAddr) {
    let platform = Platform::new(address);
    while !seen.done() {
        let Ok((status, reply, _)) = platform.poll(&seen.gateway.token, &format!("lastEventId={}", seen.from())).await
        else {
            return;
        };
        assert!(status == 200 || status == 204, "{status}: {reply}");
        for message in reply["events"].as_array().into_iter().flatten() {
            seen.take(message);
        }
    }
}

/// Kills and restarts the server, and returns the last one.
async fn kill_and_kill_again(
    mut served: Served,
    data: &Path,
    here: &watch::Sender<Option<SocketAddr>>,
    answers: &AtomicU64,
    random: &mut Random,
) -> Served {
    for round in 1..=KILLS {
        let wanted = answers.load(Ordering::Acquire) + random.in_range(ANSWERS);
        let answered = async {
            while answers.load(Ordering::Acquire) < wanted {
                tokio::time::sleep(Duration::from_micros(100)).await;
            }
        };
        timeout(PATIENCE, answered)
            .await
            .unwrap_or_else(|_| panic!("round {round}: the server answers after its restart"));
        tokio::time::sleep(Duration::from_micros(random.in_range(DELAY_US))).await;
        served.process.kill().await;
        if round % 4 == 0 {
            let mut starting = Process::spawn(&mut Served::command(&["--dev"], data, SETTINGS));
            tokio::time::sleep(Duration::from_micros(random.in_range(START_DELAY_US))).await;
            starting.kill().await;
        }
        served = Served::dev(data, SETTINGS).await;
        here.send_replace(Some(served.platform.address));
    }
    served
}

const SETTINGS: &[(&str, &str)] = &[("GATECAST_RING_MAX_EVENTS", "1000000"), ("GATECAST_LOG", "info")];

/// What a server holds of a gateway, read from its beginning.
async fn held(platform: &Platform, gateway: &Registered) -> Vec<Told> {
    let mut seen = Seen { gateway: gateway.clone(), told: Vec::new(), cursor: None };
    over_long_poll(&mut seen, platform.address).await;
    assert!(seen.done(), "the server answers");
    seen.told
}

/// Every place of every log has one payload, whoever says so, and every answered event is held.
fn check(held: &BTreeSet<Told>, answered: &[Vec<Told>], seen: &[Vec<Told>]) {
    let mut at = BTreeMap::new();
    let mut places = BTreeMap::new();
    for (gateway, place, n) in held.iter().chain(answered.iter().chain(seen).flatten()) {
        assert_eq!(at.entry((gateway, place)).or_insert(n), &n, "{place:?} of {gateway} has two payloads");
        if *n != LAST {
            assert_eq!(*places.entry(n).or_insert((gateway, place)), (gateway, place), "event {n} is in two places");
        }
    }
    for publisher in answered {
        let mut last = BTreeMap::new();
        for told in publisher {
            assert!(held.contains(told), "answered and lost: {told:?}");
            let before = last.insert(told.0, &told.1);
            assert!(before.is_none_or(|before| *before < told.1), "reordered: {before:?} before {told:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_kills_under_publishing_lose_reorder_and_reuse_nothing_that_was_answered() {
    let seed = u64::from(std::process::id()) ^ uuid::Uuid::new_v4().as_u64_pair().0;
    let seed = std::env::var("CRASH_SEED").map_or(seed, |seed| seed.parse().unwrap());
    println!("CRASH_SEED={seed}");
    let (data, mut random) = (tempfile::tempdir().unwrap(), Random(seed));
    let served = Served::dev(data.path(), SETTINGS).await;
    let (here, now) = watch::channel(Some(served.platform.address));
    let (mut gateways, mut subscribers, mut publishers) = (Vec::new(), JoinSet::new(), JoinSet::new());
    for index in 0..GATEWAYS {
        let gateway = served.platform.register(&format!("gateway-{index}")).await;
        for over in [Over::WebSocket, Over::Sse, Over::LongPoll] {
            subscribers.spawn(subscriber(over, now.clone(), gateway.clone()));
        }
        gateways.push(gateway);
    }
    let (numbers, answers, stop) = (Arc::default(), Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
    let ids: Vec<_> = gateways.iter().map(|gateway| gateway.id).collect();
    for _ in 0..PUBLISHERS {
        publishers.spawn(publisher(now.clone(), ids.clone(), Arc::clone(&numbers), answers.clone(), stop.clone()));
    }
    let served = kill_and_kill_again(served, data.path(), &here, &answers, &mut random).await;
    stop.store(true, Ordering::Release);
    let answered = timeout(PATIENCE, publishers.join_all()).await.expect("publishers end");
    for gateway in &gateways {
        served.platform.publish(gateway.id, LAST).await;
    }
    let seen = timeout(PATIENCE, subscribers.join_all()).await.expect("subscribers end");
    let mut all = BTreeSet::new();
    for gateway in &gateways {
        all.extend(held(&served.platform, gateway).await);
    }
    check(&all, &answered, &seen);
    assert!(answered.iter().flatten().count() as u64 >= KILLS * ANSWERS.start);
    for subscriber in &seen {
        let own = subscriber[0].0;
        assert!(all.iter().filter(|told| told.0 == own).eq(subscriber), "each subscriber saw what is held");
    }
}
