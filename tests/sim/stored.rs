//! A gateway that keeps no cursor, names no instance and only answers pings misses nothing when it asks to be caught up,
//! through its own reconnects and the server's restarts and crashes, also as several replicas that look alike.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use gatecast_storage::receipts::TAKEN_KEPT;
use gatecast_storage::{CatchUp, Cursor, Retention, Seq};
use gatecast_transports::Handshake;
use gatecast_transports::scripted::{Peer, Seen};
use proptest::prelude::*;

use crate::world::{Member, Settings, Via, World, handshake, json, number};

/// A replica as the real gateway client is: it applies in its read loop and answers a ping when its turn has come.
struct Replica {
    address: IpAddr,
    peer: Option<Peer>,
    applied: BTreeSet<u64>,
    /// How many it was told are lost.
    resets: u64,
}

impl Replica {
    fn at(host: u8) -> Self {
        let address = Ipv4Addr::new(192, 0, 2, host).into();
        Self { address, peer: None, applied: BTreeSet::new(), resets: 0 }
    }

    /// Connects; a connection that it had is dead, but nobody has noticed.
    async fn connect(&mut self, world: &World, member: &Member) -> Option<Peer> {
        let transport = Via::WebSocket.transport();
        let handshake = Handshake { peer: SocketAddr::new(self.address, 1), ..handshake(&transport, member, None) };
        self.peer.replace(transport.connect(world.hub.gate.as_ref(), handshake).await.unwrap())
    }

    /// Handles what is there, `most` messages at most.
    async fn handle(&mut self, most: usize) {
        let Some(peer) = &mut self.peer else { return };
        for _ in 0..most {
            match tokio::time::timeout(Duration::from_millis(10), peer.next()).await {
                Ok(Some(Seen::Frame(frame))) => {
                    self.resets += u64::from(json(&frame)["type"] == "stream.reset");
                    self.applied.extend(number(&frame));
                }
                Ok(Some(Seen::Ping(payload))) => peer.say_pong(payload),
                Ok(Some(Seen::End(_)) | None) => {
                    self.peer = None;
                    return;
                }
                Err(_) => return,
            }
        }
    }

    /// From the first event that it applied on it has applied every one.
    fn has_no_gap(&self) -> bool {
        match (self.applied.first(), self.applied.last()) {
            (Some(first), Some(last)) => last - first + 1 == self.applied.len() as u64,
            _ => true,
        }
    }
}

/// Gives pings the time to come: one every 20 s at the latest.
async fn a_ping_later(replicas: &mut [Replica]) {
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(7)).await;
        for replica in replicas.iter_mut() {
            replica.handle(1_000).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_unmodified_gateway_misses_nothing_across_reconnects_restarts_and_crashes() {
    let mut world = World::new().await;
    let member = world.gateway_with(CatchUp::Stored).await;
    let mut replica = [Replica::at(1)];
    // Published before it ever connected.
    let mut published = 0;
    for round in 0..6 {
        for _ in 0..50 {
            world.publish(member.id, published).await;
            published += 1;
        }
        replica[0].connect(&world, &member).await;
        replica[0].handle(20 * round).await;
        world = match round % 3 {
            0 => world,
            1 => world.restart().await,
            _ => world.crash().await,
        };
    }
    replica[0].connect(&world, &member).await;
    a_ping_later(&mut replica).await;
    assert_eq!(replica[0].applied, (0..published).collect());
    assert_eq!(replica[0].resets, 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_confirmed_is_not_delivered_again_after_an_hour() {
    let world = World::new().await;
    let member = world.gateway_with(CatchUp::Stored).await;
    let mut replica = [Replica::at(1)];
    replica[0].connect(&world, &member).await;
    for n in 0..10 {
        world.publish(member.id, n).await;
    }
    a_ping_later(&mut replica).await;
    replica[0].peer = None;
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.clock.advance(Duration::from_secs(3_600));
    world.publish(member.id, 10).await;
    replica[0].applied.clear();
    replica[0].connect(&world, &member).await;
    a_ping_later(&mut replica).await;
    assert_eq!(replica[0].applied, BTreeSet::from([10]));
}

#[tokio::test(start_paused = true)]
async fn who_was_ahead_is_not_taken_at_its_word_when_the_log_gets_there() {
    for handled in 1..=3 {
        let world = World::new().await;
        let member = world.gateway_with(CatchUp::Stored).await;
        let mut head = world.publish(member.id, 0).await.event_id;
        for n in 1..3 {
            head = world.publish(member.id, n).await.event_id;
        }
        // As of before a backup was put back.
        let ahead = Cursor { seq: Seq(10), ..head }.to_string();
        let transport = Via::WebSocket.transport();
        let handshake = handshake(&transport, &member, Some(&ahead));
        let mut replica = [Replica::at(1)];
        replica[0].address = handshake.peer.ip();
        let peer = transport.connect(world.hub.gate.as_ref(), handshake).await.unwrap();
        peer.say_pong(ahead.clone());
        peer.say_text(
            serde_json::json!({"type": "event.receipt", "payload": {"eventId": ahead, "status": "received"}})
                .to_string(),
        );
        replica[0].peer = Some(peer);
        replica[0].handle(handled).await;
        replica[0].peer = None;
        replica[0].applied.clear();
        tokio::time::sleep(Duration::from_secs(1)).await;
        for n in 3..15 {
            world.publish(member.id, n).await;
        }
        replica[0].connect(&world, &member).await;
        a_ping_later(&mut replica).await;
        assert_eq!(replica[0].applied, (0..15).collect(), "after {handled} messages");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stored_position_that_was_overwritten_is_answered_by_a_reset_until_it_was_received() {
    let retention = Retention { max_events: 5, ..Settings::default().retention };
    let world = World::with(Settings { retention, ..Settings::default() }).await;
    let member = world.gateway_with(CatchUp::Stored).await;
    for n in 0..20 {
        world.publish(member.id, n).await;
    }
    let mut replica = [Replica::at(1)];
    for _ in 0..2 {
        replica[0].connect(&world, &member).await;
        // The ack and the reset, and then it is cut off.
        replica[0].handle(2).await;
        replica[0].peer = None;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!((replica[0].resets, replica[0].applied.len()), (2, 0));
    replica[0].connect(&world, &member).await;
    a_ping_later(&mut replica).await;
    // The latest of each of seven APIs that left the ring, then the ring.
    assert_eq!((replica[0].resets, &replica[0].applied), (3, &(8..20).collect()));
}

#[tokio::test(start_paused = true)]
async fn stored_is_a_cursor_that_any_transport_may_ask_for() {
    let world = World::new().await;
    let member = world.gateway().await;
    world.publish(member.id, 0).await;
    let mut fresh = world.connect(Via::Sse, &member, Some("stored")).await.unwrap();
    assert_eq!(json(&fresh.message().await.unwrap())["resume"], "live", "nothing is kept of it");
    drop(fresh);
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.publish(member.id, 1).await;
    let mut again = world.connect(Via::WebSocket, &member, Some("stored")).await.unwrap();
    assert_eq!(json(&again.message().await.unwrap())["resume"], "resumed");
    assert_eq!(again.numbers(1).await, [1]);
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_what_is_stored_of_it_for_the_first_time_misses_nothing_over_a_crash() {
    let world = World::new().await;
    let (member, other) = (world.gateway().await, world.gateway().await);
    world.publish(member.id, 0).await;
    // What changes from here on is written a second later.
    let mut before = world.connect(Via::Sse, &other, Some("stored")).await.unwrap();
    before.message().await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut fresh = world.connect(Via::WebSocket, &member, Some("stored")).await.unwrap();
    assert_eq!(json(&fresh.message().await.unwrap())["resume"], "live", "nothing is kept of it");
    let world = world.crash().await;
    world.publish(member.id, 1).await;
    let mut again = world.connect(Via::WebSocket, &member, Some("stored")).await.unwrap();
    assert_eq!(json(&again.message().await.unwrap())["resume"], "resumed");
    assert_eq!(again.numbers(1).await, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_forged_pong_moves_no_position_past_what_was_sent() {
    let world = World::new().await;
    let member = world.gateway_with(CatchUp::Stored).await;
    let mut replica = Replica::at(1);
    replica.connect(&world, &member).await;
    let head = world.publish(member.id, 0).await.event_id;
    let beyond = format!("{}-9", head.epoch);
    for payload in [beyond.as_str(), "00000000-1", "\u{0}", ""] {
        replica.peer.as_ref().unwrap().say_pong(payload.to_owned());
    }
    replica.handle(2).await;
    replica.peer = None;
    tokio::time::sleep(Duration::from_secs(1)).await;
    replica.connect(&world, &member).await;
    replica.applied.clear();
    replica.handle(5).await;
    assert_eq!(replica.applied, BTreeSet::from([0]));
}

#[derive(Debug, Clone)]
enum Step {
    Publish(u64),
    Connect(usize),
    HangUp(usize),
    Handle(usize, usize),
    Ping,
    Restart,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..40_u64).prop_map(Step::Publish),
        4 => (0..3_usize).prop_map(Step::Connect),
        2 => (0..3_usize).prop_map(Step::HangUp),
        4 => (0..3_usize, 0..60_usize).prop_map(|(who, most)| Step::Handle(who, most)),
        2 => Just(Step::Ping),
        1 => Just(Step::Restart),
        1 => Just(Step::Crash),
    ]
}

/// Connections whose peer went silent: they end when they show no life for 30 s.
async fn live_through(steps: Vec<Step>, hosts: [u8; 3]) {
    let mut world = World::new().await;
    let member = world.gateway_with(CatchUp::Stored).await;
    let mut replicas = hosts.map(Replica::at);
    let (mut published, mut silent) = (0, Vec::new());
    let (start, longest) = (tokio::time::Instant::now(), TAKEN_KEPT / 2);
    let wall = |world: &World, since: &mut tokio::time::Instant| {
        world.clock.advance(since.elapsed());
        *since = tokio::time::Instant::now();
    };
    let mut told = start;
    for step in steps {
        match step {
            Step::Publish(count) => {
                for _ in 0..count {
                    world.publish(member.id, published).await;
                    published += 1;
                }
            }
            Step::Connect(who) => silent.extend(replicas[who].connect(&world, &member).await),
            Step::HangUp(who) => replicas[who].peer = None,
            Step::Handle(who, most) => replicas[who].handle(most).await,
            Step::Ping if start.elapsed() < longest => a_ping_later(&mut replicas).await,
            Step::Ping => {}
            Step::Restart | Step::Crash => {
                let crash = matches!(step, Step::Crash);
                for replica in &mut replicas {
                    replica.peer = None;
                }
                silent.clear();
                world = if crash { world.crash().await } else { world.restart().await };
            }
        }
        // Whoever hung up is gone before the next one comes, or not: both happen.
        tokio::task::yield_now().await;
        wall(&world, &mut told);
    }
    for replica in &mut replicas {
        replica.connect(&world, &member).await;
    }
    a_ping_later(&mut replicas).await;
    for replica in &replicas {
        assert!(replica.has_no_gap(), "{:?}", replica.applied);
        assert_eq!(replica.applied.last().copied(), published.checked_sub(1).filter(|_| !replica.applied.is_empty()));
        assert_eq!(replica.resets, 0);
    }
}

fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn replicas_behind_one_address_apply_without_a_gap(steps in proptest::collection::vec(step(), 1..40)) {
        paused().block_on(live_through(steps, [1, 1, 1]));
    }

    #[test]
    fn replicas_at_their_own_addresses_apply_without_a_gap(steps in proptest::collection::vec(step(), 1..40)) {
        paused().block_on(live_through(steps, [1, 2, 3]));
    }
}
