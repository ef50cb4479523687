//! A gateway that was away, however long and often, reaches the state of one that never left; what it has seen and what
//! it was told is lost are together all that was published.

use std::collections::BTreeMap;
use std::time::Duration;

use gatecast_storage::{Cursor, Retention};
use gatecast_transports::{Frame, Room, Step};
use proptest::prelude::*;
use serde_json::Value;
use tokio::time::timeout;

use crate::world::{ALL, Client, Member, Settings, Via, WITHOUT_KEYS, World, handshake, json};

/// The latest number of each API that is not deleted.
type State = BTreeMap<String, u64>;

/// One stretch of a gateway's life.
#[derive(Debug, Clone)]
struct Stretch {
    /// Published while it is away.
    away: Vec<Change>,
    via: usize,
    /// Messages a step.
    frames: usize,
    /// How many messages it reads before it is cut off; before each, perhaps, something is published.
    reads: Vec<Option<Change>>,
}

/// What happens to which API.
#[derive(Debug, Clone, Copy)]
enum Change {
    Deployed(u8),
    Deleted(u8),
    /// Nothing, to none.
    Noted,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (0..30_u8).prop_map(Change::Deployed),
        2 => (0..30_u8).prop_map(Change::Deleted),
        1 => Just(Change::Noted),
    ]
}

fn stretch() -> impl Strategy<Value = Stretch> {
    let away = prop::collection::vec(change(), 0..60);
    let reads = prop::collection::vec(prop::option::weighted(0.4, change()), 0..40);
    (away, 0..3_usize, 1..12_usize, reads).prop_map(|(away, via, frames, reads)| Stretch { away, via, frames, reads })
}

/// What is published: the gateway that never left.
#[derive(Default)]
struct Truth {
    published: u64,
    state: State,
}

impl Truth {
    async fn publish(&mut self, world: &World, to: &Member, change: Change) {
        self.published += 1;
        let n = self.published;
        let (kind, api) = match change {
            Change::Deployed(api) => ("api.deployed", format!("a{api}")),
            Change::Deleted(api) => ("api.deleted", format!("a{api}")),
            Change::Noted => (WITHOUT_KEYS, "none".to_owned()),
        };
        world.publish_about(to.id, kind, &api, n).await;
        apply(&mut self.state, kind, api, n);
    }
}

fn apply(state: &mut State, kind: &str, api: String, n: u64) {
    match kind {
        "api.deployed" => drop(state.insert(api, n)),
        "api.deleted" => drop(state.remove(&api)),
        _ => {}
    }
}

/// What a gateway that comes and goes makes of what it is sent.
#[derive(Debug, Default)]
struct Life {
    cursor: Option<String>,
    state: State,
    seen: u64,
    last: u64,
    lost: u64,
}

impl Life {
    fn handle(&mut self, frame: &Frame) {
        let message = json(frame);
        let payload = &message["payload"];
        match message["type"].as_str().unwrap() {
            "connection.ack" => {}
            "stream.reset" => self.reset(payload),
            kind => {
                let seq = seq(&message["eventId"]);
                assert!(seq > self.last, "in order, once: {message}");
                assert_eq!(payload["n"], seq, "as it was published");
                (self.last, self.seen) = (seq, self.seen + 1);
                apply(&mut self.state, kind, payload["apiId"].as_str().unwrap().to_owned(), seq);
            }
        }
        // A reset has no id, so whoever is cut off after it is told again.
        if let Some(id) = frame.id() {
            self.cursor = Some(id.to_owned());
        }
    }

    /// A reset replaces what was said before about the events after its cursor.
    fn reset(&mut self, payload: &Value) {
        let requested = seq(&payload["requested"]);
        assert!(requested >= self.last && payload["complete"] == true, "{payload}");
        let lost = requested - self.seen + payload["lost"].as_u64().expect("the log was not lost");
        assert!(lost >= self.lost, "what was lost comes no more: {payload}");
        self.lost = lost;
    }

    async fn stretch(&mut self, world: &World, member: &Member, stretch: &Stretch, truth: &mut Truth) {
        let (via, room) = (ALL[stretch.via], Room { frames: stretch.frames, bytes: 4_096 });
        if via == Via::LongPoll {
            return self.polls(world, member, stretch, room, truth).await;
        }
        let transport = via.transport().with_room(room);
        let peer = transport.connect(world.hub.gate.as_ref(), handshake(&transport, member, self.cursor.as_deref()));
        let mut client = Client { peer: peer.await.unwrap(), pongs: true, cursor: None };
        for change in &stretch.reads {
            if let Some(change) = change {
                truth.publish(world, member, *change).await;
            }
            match timeout(Duration::from_secs(1), client.message()).await {
                Ok(message) => self.handle(&message.unwrap()),
                Err(_) => break,
            }
        }
        client.peer.hang_up();
    }

    async fn polls(&mut self, world: &World, member: &Member, stretch: &Stretch, room: Room, truth: &mut Truth) {
        for changes in stretch.reads.chunks(8) {
            let handshake = handshake(&Via::LongPoll.transport(), member, self.cursor.as_deref());
            let mut poll = world.hub.gate.admit(handshake).await.unwrap();
            for change in changes {
                if !poll.ready() {
                    break;
                }
                let step = poll.next(room).await;
                let Step::Deliver(frames) = step else { panic!("{step:?}") };
                if let Some(change) = change {
                    truth.publish(world, member, *change).await;
                }
                poll.written();
                frames.iter().for_each(|frame| self.handle(frame));
                self.cursor = Some(poll.position());
            }
        }
    }
}

fn seq(id: &Value) -> u64 {
    id.as_str().unwrap().parse::<Cursor>().unwrap().seq.0
}

async fn live_through(stretches: Vec<Stretch>, max_events: u64) {
    let retention = Retention { max_events, ..Settings::default().retention };
    let world = World::with(Settings { retention, ..Settings::default() }).await;
    let member = world.gateway().await;
    let (mut truth, mut life) = (Truth::default(), Life::default());
    // It begins before anything is published.
    let mut first = world.connect(Via::WebSocket, &member, Some("earliest")).await.unwrap();
    life.handle(&first.message().await.unwrap());
    drop(first);
    for stretch in &stretches {
        for change in &stretch.away {
            truth.publish(&world, &member, *change).await;
        }
        life.stretch(&world, &member, stretch, &mut truth).await;
    }
    let rest = Stretch { away: Vec::new(), via: stretches.len() % 2, frames: 64, reads: vec![None; 10_000] };
    life.stretch(&world, &member, &rest, &mut truth).await;
    assert_eq!(life.state, truth.state);
    assert_eq!(life.seen + life.lost, truth.published, "{} seen, {} lost", life.seen, life.lost);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_absences_lead_to_the_state_of_one_that_never_left(
        stretches in prop::collection::vec(stretch(), 1..10),
        max_events in 1_u64..24,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(live_through(stretches, max_events));
    }
}

/// A gateway with forty APIs deployed, ten of them deleted, and a ring of one event more.
async fn forty_apis() -> (World, Member) {
    let retention = Retention { max_events: 1, ..Settings::default().retention };
    let world = World::with(Settings { retention, ..Settings::default() }).await;
    let member = world.gateway().await;
    for n in 1..=40 {
        world.publish_about(member.id, "api.deployed", &format!("a{n}"), n).await;
    }
    for n in 41..=50 {
        world.publish_about(member.id, "api.deleted", &format!("a{}", n - 40), n).await;
    }
    world.publish_about(member.id, WITHOUT_KEYS, "none", 51).await;
    (world, member)
}

#[tokio::test(start_paused = true)]
async fn a_deletion_is_told_to_who_was_away() {
    let (world, member) = forty_apis().await;
    for via in ALL {
        let mut client = world.connect(via, &member, Some("earliest")).await.unwrap();
        client.message().await.unwrap();
        let numbers = client.numbers(41).await;
        assert_eq!(numbers, (11..=51).collect::<Vec<_>>(), "thirty deployed, ten deleted");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_cut_off_in_the_middle_goes_on_there() {
    let (world, member) = forty_apis().await;
    for via in [Via::WebSocket, Via::Sse] {
        let mut client = world.connect(via, &member, Some("earliest")).await.unwrap();
        client.message().await.unwrap();
        client.numbers(15).await;
        let cursor = client.cursor.clone().unwrap();
        client.peer.hang_up();
        let mut again = world.connect(via, &member, Some(&cursor)).await.unwrap();
        again.message().await.unwrap();
        let reset = json(&again.message().await.unwrap());
        assert_eq!((&reset["payload"]["lost"], &reset["payload"]["compacted"]), (&0.into(), &25.into()));
        assert_eq!(again.numbers(26).await, (26..=51).collect::<Vec<_>>());
        again.peer.hang_up();
    }
}

#[tokio::test(start_paused = true)]
async fn polls_of_one_connection_are_told_of_the_reset_once() {
    let (world, member) = forty_apis().await;
    let epoch = world.hub.log.bounds(member.id).await.unwrap().epoch;
    let mut cursor = Cursor { epoch, seq: gatecast_storage::Seq(0) }.to_string();
    let (mut resets, mut numbers) = (0, Vec::new());
    for _ in 0..12 {
        let mut poll =
            world.hub.gate.admit(handshake(&Via::LongPoll.transport(), &member, Some(&cursor))).await.unwrap();
        if !poll.ready() {
            break;
        }
        let Step::Deliver(frames) = poll.next(Room { frames: 5, bytes: 100_000 }).await else { panic!("no events") };
        poll.written();
        resets += frames.iter().filter(|frame| frame.name() == "stream.reset").count();
        numbers.extend(frames.iter().filter_map(|frame| crate::world::number(frame)));
        cursor = poll.position();
    }
    assert_eq!((resets, numbers), (1, (11..=51).collect::<Vec<_>>()));
}
