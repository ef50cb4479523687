//! Everything at once: several gateways, readers on all transports, cuts, resumes, transport switches, revocations,
//! drains, restarts and crashes, jumps of the clock, readers that stop reading, wake-ups that are lost, in an order that
//! only the seed knows. Each reader checks each message against all it has seen: events come densely from its cursor
//! on, of its own gateway, or a reset has said exactly which do not; and after a revocation nothing comes.
//!
//! `SIM_SEEDS` seeds are run from `SIM_SEED` on (`scripts/sim`); a failure says which it was.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use gatecast_storage::Retention;
use gatecast_transports::scripted::Seen;
use gatecast_transports::{CloseReason, Frame, Room, Step};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::random::Random;
use crate::world::{ALL, Client, Member, Settings, Via, WITHOUT_KEYS, World, handshake, json};

/// Unless `SIM_SEEDS` says otherwise.
const SEEDS: u64 = 200;
const GATEWAYS: usize = 3;
const READERS: usize = 6;
const ACTIONS: u64 = 60;
/// Small, so that readers fall behind it.
const RING_EVENTS: u64 = 40;
/// No message for this long: there is none.
const AT_ONCE: Duration = Duration::from_secs(1);
/// The same if nobody was told of it.
const LOST_WAKE_UP: Duration = Duration::from_secs(41);
const DAY: Duration = Duration::from_secs(86_400);

/// A gateway and what was published to it: the state of one that never left.
struct Truth {
    member: Member,
    epoch: String,
    published: u64,
    state: State,
}

/// The latest number of each API that is not deleted.
type State = BTreeMap<String, u64>;

/// A replica of a gateway, through all its connections.
struct Reader {
    gateway: usize,
    instance: String,
    connected: Option<Client>,
    /// Its end of the connection takes what comes.
    reads: bool,
    seen: Account,
}

/// What a reader has been given.
struct Account {
    gateway: String,
    epoch: String,
    state: State,
    count: u64,
    lost: u64,
    last: u64,
    /// Where the ring goes on, once this much of the compacted state came.
    next: u64,
    compacted: u64,
}

struct Simulation {
    world: World,
    random: Random,
    truths: Vec<Truth>,
    readers: Vec<Reader>,
}

fn apply(state: &mut State, kind: &str, api: &str, n: u64) {
    match kind {
        "api.deployed" => drop(state.insert(api.to_owned(), n)),
        "api.deleted" => drop(state.remove(api)),
        _ => {}
    }
}

impl Account {
    fn cursor(&self) -> String {
        format!("{}-{}", self.epoch, self.last)
    }

    fn handle(&mut self, frame: &Frame) {
        let message = json(frame);
        assert_eq!(message["gatewayId"], *self.gateway, "of its own gateway: {message}");
        let payload = &message["payload"];
        match message["type"].as_str().unwrap() {
            "connection.ack" => {
                assert_eq!(message["position"], self.cursor());
                (self.next, self.compacted) = (self.last + 1, 0);
            }
            "stream.reset" => self.reset(payload),
            kind => self.event(kind, &message["eventId"], payload),
        }
    }

    fn reset(&mut self, payload: &Value) {
        assert_eq!((&payload["reason"], &payload["complete"]), (&"overwritten".into(), &true.into()), "{payload}");
        let position = seq(&payload["requested"]);
        // Where the compacted state ends a connection stands before the ring, wherever the last event was.
        assert!(position == self.last || (self.compacted == 0 && position + 1 == self.next), "{payload}");
        let number = |name: &str| payload[name].as_u64().unwrap();
        // An empty ring goes on after the newest.
        let after_newest = seq(&payload["newest"]) + 1;
        self.next = if payload["oldest"].is_null() { after_newest } else { seq(&payload["oldest"]) };
        self.compacted = number("compacted");
        assert_eq!(position + number("lost") + self.compacted + 1, self.next, "exactly what will not come: {payload}");
        self.lost = position - self.count + number("lost");
    }

    fn event(&mut self, kind: &str, id: &Value, payload: &Value) {
        let seq = seq(id);
        assert_eq!(payload["n"], seq, "as it was published");
        if self.compacted > 0 {
            assert!((self.last + 1..self.next).contains(&seq), "{seq} of the compacted state after {}", self.last);
            self.compacted -= 1;
        } else {
            assert_eq!(seq, self.next, "dense, in order, once");
            self.next += 1;
        }
        (self.last, self.count) = (seq, self.count + 1);
        apply(&mut self.state, kind, payload["apiId"].as_str().unwrap(), seq);
    }
}

fn seq(id: &Value) -> u64 {
    id.as_str().unwrap().parse::<gatecast_storage::Cursor>().unwrap().seq.0
}

impl Simulation {
    async fn new(seed: u64) -> Self {
        let retention = Retention { max_events: RING_EVENTS, ..Settings::default().retention };
        let world = World::with(Settings { retention, ..Settings::default() }).await;
        let (mut truths, mut readers) = (Vec::new(), Vec::new());
        for _ in 0..GATEWAYS {
            let member = world.gateway().await;
            let epoch = world.hub.log.bounds(member.id).await.unwrap().epoch.to_string();
            truths.push(Truth { member, epoch, published: 0, state: State::new() });
        }
        for index in 0..READERS {
            let gateway = index % GATEWAYS;
            let Truth { member, epoch, .. } = &truths[gateway];
            let (gateway_id, epoch, state) = (member.id.to_string(), epoch.clone(), State::new());
            let seen = Account { gateway: gateway_id, epoch, state, count: 0, lost: 0, last: 0, next: 1, compacted: 0 };
            readers.push(Reader { gateway, instance: format!("replica-{index}"), connected: None, reads: true, seen });
        }
        Self { world, random: Random::new(seed), truths, readers }
    }

    async fn run(mut self) {
        for _ in 0..ACTIONS {
            let reader = self.random.index(READERS);
            match self.random.index(100) {
                0..25 => self.publish().await,
                25..40 => self.connect(reader).await,
                40..62 => self.read(reader).await,
                62..70 => self.poll(reader).await,
                70..75 => self.leave(reader),
                75..80 => self.stop_or_go_on(reader),
                80..84 => self.revoke().await,
                84..87 => self = self.end(true).await,
                87..90 => self = self.end(false).await,
                90..93 => self.lose_wake_ups().await,
                93..96 => self.jump(),
                _ => sleep(Duration::from_millis(self.random.in_range(1..45_000))).await,
            }
        }
        self.finish().await;
    }

    async fn publish(&mut self) {
        let to = self.random.index(GATEWAYS);
        for _ in 0..self.random.in_range(1..30) {
            let truth = &mut self.truths[to];
            truth.published += 1;
            let (n, api) = (truth.published, format!("a{}", self.random.index(12)));
            let kind = ["api.deployed", "api.deployed", "api.deleted", WITHOUT_KEYS][self.random.index(4)];
            apply(&mut truth.state, kind, &api, n);
            self.world.publish_about(truth.member.id, kind, &api, n).await;
        }
    }

    async fn connect(&mut self, index: usize) {
        let via = [Via::WebSocket, Via::Sse][self.random.index(2)];
        let room = Room { frames: 1 + self.random.index(40), bytes: 4_096 };
        let reader = &mut self.readers[index];
        if reader.connected.is_some() {
            return;
        }
        let transport = via.transport().with_room(room);
        let member = &self.truths[reader.gateway].member;
        let mut handshake = handshake(&transport, member, Some(&reader.seen.cursor()));
        handshake.instance = Some(reader.instance.clone());
        let peer = transport.connect(self.world.hub.gate.as_ref(), handshake).await.unwrap();
        reader.reads = true;
        reader.connected = Some(Client { peer, pongs: true, cursor: None });
    }

    /// Up to so many messages, as far as they come within a second.
    async fn read(&mut self, index: usize) {
        let most = self.random.in_range(1..80);
        self.readers[index].read(most, AT_ONCE).await;
    }

    /// The other transports' rival: a poll or a few over a connection of the replica.
    async fn poll(&mut self, index: usize) {
        let reader = &mut self.readers[index];
        reader.connected = None;
        let member = &self.truths[reader.gateway].member;
        for _ in 0..self.random.in_range(1..4) {
            let mut handshake = handshake(&Via::LongPoll.transport(), member, Some(&reader.seen.cursor()));
            handshake.instance = Some(reader.instance.clone());
            let mut poll = self.world.hub.gate.admit(handshake).await.unwrap();
            while poll.ready() && self.random.index(6) > 0 {
                let room = Room { frames: 1 + self.random.index(20), bytes: 4_096 };
                let step = poll.next(room).await;
                let Step::Deliver(frames) = step else { panic!("{step:?}") };
                // A reply that is lost on its way changes nothing.
                if self.random.index(4) > 0 {
                    poll.written();
                    frames.iter().for_each(|frame| reader.seen.handle(frame));
                }
            }
        }
    }

    /// What is on its way is lost with the connection, or was read before.
    fn leave(&mut self, index: usize) {
        let reader = &mut self.readers[index];
        if let Some(mut client) = reader.connected.take()
            && self.random.index(2) == 0
        {
            client.peer.seen_so_far().iter().for_each(|seen| {
                reader.seen.take(seen);
            });
        }
    }

    fn stop_or_go_on(&mut self, index: usize) {
        let reads = self.random.index(2) == 0;
        let reader = &mut self.readers[index];
        reader.reads = reads;
        if let Some(client) = &reader.connected {
            client.peer.read(reads);
        }
    }

    /// A gateway's token is revoked: what was not seen by then never is.
    async fn revoke(&mut self) {
        let of = self.random.index(GATEWAYS);
        let old = self.truths[of].member.clone();
        self.world.revoke(&old).await;
        for reader in self.readers.iter_mut().filter(|reader| reader.gateway == of) {
            let Some(client) = &mut reader.connected else { continue };
            if client.peer.seen_so_far().iter().any(|seen| reader.seen.take(seen).is_some()) {
                reader.connected = None;
            }
        }
        self.truths[of].published += 1;
        let n = self.truths[of].published;
        self.world.publish_about(old.id, WITHOUT_KEYS, "none", n).await;
        sleep(Duration::from_secs(1)).await;
        for reader in self.readers.iter_mut().filter(|reader| reader.gateway == of) {
            let Some(mut client) = reader.connected.take() else { continue };
            let rest = client.peer.seen_so_far();
            assert_eq!(rest, [Seen::End(CloseReason::TokenRevoked)], "silent within a second");
        }
        for via in ALL {
            let refused = self.world.connect(via, &old, None).await;
            assert!(refused.is_err_and(|refusal| refusal.0.status() == 401), "revoked");
        }
        self.truths[of].member = self.world.token(old.id).await;
    }

    /// The server ends, well or not, and starts again over its stores.
    async fn end(mut self, well: bool) -> Self {
        if well {
            self.world.hub.drain();
            sleep(Duration::from_millis(1)).await;
        }
        for reader in &mut self.readers {
            let Some(mut client) = reader.connected.take() else { continue };
            let ended = client.peer.seen_so_far().iter().find_map(|seen| reader.seen.take(seen));
            assert!(!well || !reader.reads || ended.is_some(), "who reads is told");
        }
        self.world = if well { self.world.restart().await } else { self.world.crash().await };
        self
    }

    async fn lose_wake_ups(&mut self) {
        self.world.deaf.store(true, Ordering::Relaxed);
        self.publish().await;
        self.world.deaf.store(false, Ordering::Relaxed);
    }

    /// The wall clock is set to another time: a little, or past the age of all events; forward, or back.
    fn jump(&mut self) {
        let clock = &self.world.clock;
        match self.random.index(5) {
            0 => clock.advance(8 * DAY),
            1 => clock.turn_back(8 * DAY),
            2 => clock.turn_back(Duration::from_secs(self.random.in_range(1..4_000))),
            _ => clock.advance(Duration::from_secs(self.random.in_range(1..4_000))),
        }
    }

    /// Whoever is connected, or comes back, and stays has seen or been told of all there was.
    async fn finish(mut self) {
        for reader in &mut self.readers {
            reader.reads = true;
            reader.connected.iter().for_each(|client| client.peer.read(true));
        }
        join_all(self.readers.iter_mut().map(|reader| reader.read(u64::MAX, LOST_WAKE_UP))).await;
        for reader in self.readers.iter().filter(|reader| reader.connected.is_some()) {
            let Account { count, lost, .. } = reader.seen;
            assert_eq!(count + lost, self.truths[reader.gateway].published, "told or not, it comes");
        }
        for index in 0..READERS {
            self.readers[index].connected = None;
            self.connect(index).await;
            self.readers[index].read(u64::MAX, AT_ONCE).await;
            let (reader, truth) = (&self.readers[index], &self.truths[self.readers[index].gateway]);
            let Account { count, lost, state, .. } = &reader.seen;
            assert_eq!(count + lost, truth.published, "{count} seen and {lost} lost are all");
            assert_eq!(*state, truth.state, "as one that never left");
        }
    }
}

impl Reader {
    async fn read(&mut self, most: u64, silence: Duration) {
        let Some(client) = &mut self.connected else { return };
        for _ in 0..most {
            match timeout(silence, client.message()).await {
                Ok(Ok(frame)) => self.seen.handle(&frame),
                Ok(Err(_)) => {
                    self.connected = None;
                    return;
                }
                Err(_) => return,
            }
        }
    }
}

impl Account {
    /// Handles what was seen; says how it ended, if it did.
    fn take(&mut self, seen: &Seen) -> Option<CloseReason> {
        match seen {
            Seen::Frame(frame) => self.handle(frame),
            Seen::Ping(_) => {}
            Seen::End(reason) => return Some(*reason),
        }
        None
    }
}

fn number(name: &str, unless_told: u64) -> u64 {
    std::env::var(name).map_or(unless_told, |number| number.parse().unwrap())
}

#[test]
fn whatever_happens_in_whatever_order_nothing_is_lost_silently() {
    let first = number("SIM_SEED", 1);
    for seed in first..first + number("SIM_SEEDS", SEEDS) {
        let run = std::panic::catch_unwind(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            runtime.unwrap().block_on(async { Simulation::new(seed).await.run().await });
        });
        assert!(run.is_ok(), "to repeat it: SIM_SEED={seed} scripts/sim 1");
    }
}
