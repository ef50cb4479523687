//! Any sequence of disconnects, resumes and transport switches yields exactly the events of one that never left, as long
//! as the ring reaches back to where it left; `compaction.rs` has what happens beyond.

use std::time::Duration;

use gatecast_storage::Cursor;
use gatecast_transports::Room;
use proptest::prelude::*;
use tokio::time::timeout;

use crate::world::{ALL, Via, World, handshake, json, number};

/// One stretch of a gateway's life.
#[derive(Debug, Clone)]
struct Stretch {
    /// Published while it is away.
    away: u64,
    via: usize,
    /// Published while it is connected.
    live: u64,
    /// How many messages it reads before it is cut off.
    reads: usize,
}

fn stretches(most: u64) -> impl Strategy<Value = Vec<Stretch>> {
    let stretch = (0..most, 0..3_usize, 0..most, 0..40_usize).prop_map(|(away, via, live, reads)| Stretch {
        away,
        via,
        live,
        reads,
    });
    proptest::collection::vec(stretch, 1..12)
}

/// What a gateway has seen of one log, in order.
#[derive(Debug, Default)]
struct Life {
    cursor: Option<String>,
    /// The number that the next event must have.
    expected: u64,
}

impl Life {
    /// Handles a message as a gateway does: its cursor is the id of what it handled last.
    fn handle(&mut self, frame: &gatecast_transports::Frame) {
        let message = json(frame);
        match message["type"].as_str().unwrap() {
            "connection.ack" => {}
            "stream.reset" => panic!("nothing was overwritten: {message}"),
            _ => {
                assert_eq!(number(frame), Some(self.expected), "dense, in order, once");
                self.expected += 1;
            }
        }
        if let Some(id) = frame.id() {
            self.cursor = Some(id.to_owned());
        }
    }

    /// Reads until nothing comes any more, or until it is cut off.
    async fn stretch(&mut self, world: &World, member: &crate::world::Member, stretch: &Stretch, published: &mut u64) {
        let via = ALL[stretch.via];
        if via == Via::LongPoll {
            return self.polls(world, member, stretch, published).await;
        }
        let mut client = world.connect(via, member, self.cursor.as_deref()).await.unwrap();
        for _ in 0..stretch.live {
            world.publish(member.id, *published).await;
            *published += 1;
        }
        for _ in 0..stretch.reads {
            match timeout(Duration::from_secs(1), client.message()).await {
                Ok(message) => self.handle(&message.unwrap()),
                Err(_) => break,
            }
        }
        client.peer.hang_up();
    }

    async fn polls(&mut self, world: &World, member: &crate::world::Member, stretch: &Stretch, published: &mut u64) {
        for _ in 0..stretch.live {
            world.publish(member.id, *published).await;
            *published += 1;
        }
        for _ in 0..stretch.reads / 8 {
            let handshake = handshake(&Via::LongPoll.transport(), member, self.cursor.as_deref());
            let mut poll = world.hub.gate.admit(handshake).await.unwrap();
            while poll.ready() {
                let step = poll.next(Room { frames: 8, bytes: 4_096 }).await;
                let gatecast_transports::Step::Deliver(frames) = step else { panic!("{step:?}") };
                poll.written();
                frames.iter().for_each(|frame| self.handle(frame));
            }
        }
    }
}

async fn live_through(stretches: Vec<Stretch>) {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut published = 0;
    let mut life = Life { cursor: Some("earliest".into()), ..Life::default() };
    // The first connection begins at the beginning, before anything is published.
    let mut first = world.connect(Via::WebSocket, &member, Some("earliest")).await.unwrap();
    life.handle(&first.message().await.unwrap());
    drop(first);
    for stretch in stretches {
        for _ in 0..stretch.away {
            world.publish(member.id, published).await;
            published += 1;
        }
        life.stretch(&world, &member, &stretch, &mut published).await;
    }
    let rest = Stretch { away: 0, via: 0, live: 0, reads: usize::MAX };
    life.stretch(&world, &member, &rest, &mut published).await;
    assert_eq!(life.expected, published, "to the last event");
}

#[tokio::test(start_paused = true)]
async fn a_step_that_was_not_written_is_given_again_and_the_position_stays() {
    let world = World::new().await;
    let member = world.gateway().await;
    let first = world.publish(member.id, 0).await.event_id;
    world.publish(member.id, 1).await;
    let room = Room { frames: 1, bytes: 1 };
    for via in ALL {
        let cursor = first.to_string();
        let handshake = handshake(&via.transport(), &member, Some(&cursor));
        let mut session = world.hub.gate.admit(handshake).await.unwrap();
        let mut names = Vec::new();
        for _ in 0..2 {
            for _ in 0..3 {
                let gatecast_transports::Step::Deliver(frames) = session.next(room).await else { panic!("a delivery") };
                names.push((frames[0].name().to_owned(), session.position()));
            }
            session.written();
        }
        let ack = ("connection.ack".to_owned(), cursor.clone());
        let event = ("api.deployed".to_owned(), cursor.clone());
        assert_eq!(names, [ack.clone(), ack.clone(), ack, event.clone(), event.clone(), event]);
        assert_eq!(session.position(), Cursor { seq: first.seq.next(), ..first }.to_string());
    }
}

fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_disconnects_and_transport_switches_yield_what_one_saw_that_never_left(stretches in stretches(300)) {
        paused().block_on(live_through(stretches));
    }
}
