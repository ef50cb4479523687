//! What could not be handed over is on record: which event, how many, at which replica, why; until that replica has it.

use std::time::Duration;

use gatecast_storage::{
    Compaction, Cursor, DeliveryFilter, Epoch, FailedDelivery, FailureReason, Replica, Retention, Seq,
};
use gatecast_transports::{CloseReason, Handshake};
use serde_json::json;
use tokio::time::sleep;

use crate::faulty_log::{Call, Fault};
use crate::world::{ALL, Client, Member, Settings, Via, WITHOUT_KEYS, World, handshake};

/// Longer than any end takes to be noticed.
const NOTICED: Duration = Duration::from_secs(31);

impl World {
    fn failures(&self) -> Vec<FailedDelivery> {
        self.hub.deliveries.query(&DeliveryFilter::default(), 0, usize::MAX).1
    }

    /// (reason, first event, how many, recovered), newest first.
    fn failed(&self) -> Vec<(FailureReason, u64, u64, bool)> {
        let short = |row: FailedDelivery| (row.reason, row.event.seq.0, row.events, row.recovered_at.is_some());
        self.failures().into_iter().map(short).collect()
    }

    /// A replica of this name, past its ack.
    async fn named(&self, via: Via, member: &Member, name: &str, cursor: Option<&str>) -> Client {
        let transport = via.transport();
        let handshake = Handshake { instance: Some(name.to_owned()), ..handshake(&transport, member, cursor) };
        let peer = transport.connect(self.hub.gate.as_ref(), handshake).await.unwrap();
        let mut client = Client { peer, pongs: true, cursor: cursor.map(Into::into) };
        client.message().await.unwrap();
        client
    }

    /// A replica of this name, before its first message: a poll that goes on has no ack.
    async fn named_on(&self, via: Via, member: &Member, name: &str, cursor: &str) -> Client {
        let transport = via.transport();
        let handshake = Handshake { instance: Some(name.to_owned()), ..handshake(&transport, member, Some(cursor)) };
        let peer = transport.connect(self.hub.gate.as_ref(), handshake).await.unwrap();
        Client { peer, pongs: true, cursor: Some(cursor.to_owned()) }
    }

    async fn publish_all(&self, member: &Member, numbers: std::ops::Range<u64>) {
        for n in numbers {
            self.publish(member.id, n).await;
        }
    }
}

/// Gives every task its turn.
async fn settled() {
    sleep(Duration::from_millis(10)).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_on_its_way_when_a_line_broke_is_lost_until_that_replica_has_it() {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut a = world.named(Via::WebSocket, &member, "a", None).await;
    let start = a.cursor.clone().unwrap();
    world.publish_all(&member, 0..3).await;
    a.numbers(3).await;
    a.peer.break_off();
    settled().await;
    assert_eq!(world.failed(), [(FailureReason::ConnectionLost, 1, 3, false)]);
    assert_eq!(world.failures()[0].replica, Some(Replica::Named("a".into())));

    let mut b = world.named(Via::WebSocket, &member, "b", Some(&start)).await;
    b.numbers(3).await;
    settled().await;
    assert!(!world.failed()[0].3, "another replica has them");
    let mut a = world.named(Via::Sse, &member, "a", Some(&start)).await;
    a.numbers(3).await;
    settled().await;
    assert!(world.failed()[0].3);
    let world = world.restart().await;
    assert_eq!(world.failed(), [(FailureReason::ConnectionLost, 1, 3, true)], "kept on disk");
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_comes_back_with_a_later_cursor_had_it_all() {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut a = world.named(Via::WebSocket, &member, "a", None).await;
    world.publish_all(&member, 0..3).await;
    a.numbers(3).await;
    let cursor = a.cursor.clone().unwrap();
    a.peer.break_off();
    settled().await;
    assert!(!world.failed()[0].3);
    world.named(Via::LongPoll, &member, "a", Some(&cursor)).await;
    assert!(world.failed()[0].3);
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_or_a_break_with_nothing_pending_is_no_failure() {
    for via in [Via::WebSocket, Via::Sse] {
        let world = World::new().await;
        let member = world.gateway().await;
        let mut a = world.named(via, &member, "a", None).await;
        world.publish_all(&member, 0..3).await;
        a.numbers(3).await;
        settled().await;
        a.peer.hang_up();
        settled().await;
        let mut a = world.named(via, &member, "a", None).await;
        a.peer.break_off();
        settled().await;
        assert_eq!((world.failed(), world.hub.deliveries.totals().count), (vec![], 0), "{via:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_pong_has_confirmed_is_not_lost() {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut a = world.named(Via::WebSocket, &member, "a", None).await;
    world.publish_all(&member, 0..2).await;
    a.numbers(2).await;
    // Answers the ping of 20 s.
    let _ = tokio::time::timeout(Duration::from_secs(21), a.message()).await;
    world.publish(member.id, 2).await;
    a.numbers(1).await;
    a.peer.break_off();
    settled().await;
    assert_eq!(world.failed(), [(FailureReason::ConnectionLost, 3, 1, false)]);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_back_before_its_dead_connection_is_noticed_has_missed_nothing() {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut dead = world.named(Via::WebSocket, &member, "a", None).await;
    let cursor = dead.cursor.clone().unwrap();
    dead.pongs = false;
    world.publish_all(&member, 0..3).await;
    let mut back = world.named(Via::Sse, &member, "a", Some(&cursor)).await;
    back.numbers(3).await;
    sleep(NOTICED).await;
    assert_eq!(world.hub.registry.connections_of(member.id), 1, "noticed");
    assert_eq!(world.failed(), []);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_back_at_the_head_has_missed_what_its_dead_connection_did_not_confirm() {
    let world = World::new().await;
    let member = world.gateway().await;
    let _dead = world.named(Via::WebSocket, &member, "a", None).await;
    world.publish_all(&member, 0..3).await;
    let _back = world.named(Via::Sse, &member, "a", None).await;
    sleep(NOTICED).await;
    assert_eq!(world.failed(), [(FailureReason::NoSignOfLife, 1, 3, false)]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_reading_is_a_stalled_write() {
    for via in [Via::WebSocket, Via::Sse] {
        let world = World::new().await;
        let member = world.gateway().await;
        let a = world.named(via, &member, "a", None).await;
        a.peer.read(false);
        world.publish_all(&member, 0..4).await;
        sleep(NOTICED).await;
        assert_eq!(world.failed(), [(FailureReason::WriteStalled, 1, 4, false)], "{via:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_polls_again_shows_no_sign_of_life() {
    let world = World::new().await;
    let member = world.gateway().await;
    let transport = Via::LongPoll.transport();
    let head = format!("{}-0", world.hub.log.bounds(member.id).await.unwrap().epoch);
    // Each is one poll, given up at once.
    for cursor in [None, Some(head.as_str())] {
        drop(world.hub.gate.admit(handshake(&transport, &member, cursor)).await.unwrap());
        world.publish(member.id, 0).await;
    }
    sleep(NOTICED).await;
    assert_eq!(world.failed(), [(FailureReason::NoSignOfLife, 1, 2, false)]);
}

#[tokio::test(start_paused = true)]
async fn a_revoked_replica_misses_what_was_still_to_be_sent_until_it_comes_back_with_another_token() {
    let world = World::new().await;
    let member = world.gateway().await;
    let a = world.named(Via::WebSocket, &member, "a", None).await;
    let cursor = a.cursor.clone();
    a.peer.read(false);
    world.publish_all(&member, 0..2).await;
    world.revoke(&member).await;
    settled().await;
    assert_eq!(world.failed(), [(FailureReason::Revoked, 1, 2, false)]);
    let member = world.token(member.id).await;
    let mut a = world.named(Via::WebSocket, &member, "a", cursor.as_deref()).await;
    a.numbers(2).await;
    settled().await;
    assert!(world.failed()[0].3);
}

#[tokio::test(start_paused = true)]
async fn what_overlapping_polls_of_one_connection_all_miss_is_missed_once() {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut polls = vec![world.named(Via::LongPoll, &member, "a", None).await];
    let cursor = polls[0].cursor.clone();
    for _ in 0..2 {
        let transport = Via::LongPoll.transport();
        let handshake =
            Handshake { instance: Some("a".to_owned()), ..handshake(&transport, &member, cursor.as_deref()) };
        let peer = transport.connect(world.hub.gate.as_ref(), handshake).await.unwrap();
        polls.push(Client { peer, pongs: true, cursor: cursor.clone() });
    }
    polls.iter().for_each(|poll| poll.peer.read(false));
    world.publish(member.id, 0).await;
    world.revoke(&member).await;
    for poll in &mut polls {
        assert_eq!(poll.message().await, Err(CloseReason::TokenRevoked));
    }
    assert_eq!(world.failed(), [(FailureReason::Revoked, 1, 1, false)]);
}

#[tokio::test(start_paused = true)]
async fn what_was_overwritten_is_counted_once_told_and_never_recovers() {
    let retention = Retention { max_events: 5, compaction: Compaction::DEFAULT, ..Settings::default().retention };
    let world = World::with(Settings { retention, ..Settings::default() }).await;
    let member = world.gateway().await;
    let mut a = world.named(Via::WebSocket, &member, "a", None).await;
    let cursor = a.cursor.clone();
    a.peer.hang_up();
    settled().await;
    let _b = world.named(Via::Sse, &member, "b", None).await;
    for n in 0..12 {
        world.publish_about(member.id, WITHOUT_KEYS, "x", n).await;
    }
    let mut a = world.named(Via::WebSocket, &member, "a", cursor.as_deref()).await;
    a.numbers(5).await;
    settled().await;
    assert_eq!(world.failed(), [(FailureReason::Overwritten, 1, 7, false)]);
}

#[tokio::test(start_paused = true)]
async fn what_was_there_before_a_replica_began_at_the_end_does_not_recover_when_it_goes_on_from_there() {
    for via in ALL {
        let world = World::new().await;
        let member = world.gateway().await;
        world.publish_all(&member, 0..2).await;
        let mut a = world.named(via, &member, "a", None).await;
        let start = a.cursor.clone().unwrap();
        world.publish(member.id, 2).await;
        a.numbers(1).await;
        settled().await;
        let mut again = world.named_on(via, &member, "a", &start).await;
        again.numbers(1).await;
        settled().await;
        let missed = [2, 1].map(|seq| (FailureReason::NotConnected, seq, 1, false));
        assert_eq!(world.failed(), missed, "{via:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_overwritten_before_a_replica_came_does_not_recover_when_it_goes_on_after_it() {
    for via in ALL {
        let retention = Retention { max_events: 5, compaction: Compaction::DEFAULT, ..Settings::default().retention };
        let world = World::with(Settings { retention, ..Settings::default() }).await;
        let member = world.gateway().await;
        for n in 0..10 {
            world.publish_about(member.id, WITHOUT_KEYS, "x", n).await;
        }
        let second = Cursor { seq: Seq(2), ..world.failures()[0].event }.to_string();
        let mut a = world.named_on(via, &member, "a", &second).await;
        a.numbers(5).await;
        settled().await;
        let head = a.cursor.clone().unwrap();
        let recovered = |world: &World| world.failed().iter().filter(|row| row.3).map(|row| row.1).collect::<Vec<_>>();
        let delivered = [10, 9, 8, 7, 6, 2, 1];
        assert_eq!(recovered(&world), delivered, "{via:?}");
        let _again = world.named_on(via, &member, "a", &head).await;
        settled().await;
        assert_eq!(recovered(&world), delivered, "{via:?}: once more");
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_a_replica_cannot_apply_stays_failed_when_it_is_given_again() {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut a = world.named(Via::WebSocket, &member, "a", None).await;
    let start = a.cursor.clone();
    let event = world.publish(member.id, 0).await.event_id.to_string();
    a.numbers(1).await;
    let report =
        |status: &str| json!({"type": "event.receipt", "payload": {"eventId": event, "status": status}}).to_string();
    a.peer.say_text(report("failed"));
    settled().await;
    a.peer.hang_up();
    settled().await;
    let mut a = world.named(Via::WebSocket, &member, "a", start.as_deref()).await;
    a.numbers(1).await;
    settled().await;
    assert_eq!(world.failed(), [(FailureReason::FailedByGateway, 1, 1, false)]);
    a.peer.say_text(report("applied"));
    settled().await;
    assert!(world.failed()[0].3);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_was_there_to_hear_recovers_at_any_replica() {
    let world = World::new().await;
    let member = world.gateway().await;
    world.publish_all(&member, 0..2).await;
    assert_eq!(world.failed(), [2, 1].map(|seq| (FailureReason::NotConnected, seq, 1, false)));
    let mut a = world.named(Via::Sse, &member, "a", Some("earliest")).await;
    a.numbers(2).await;
    settled().await;
    assert!(world.failed().iter().all(|row| row.3));
}

#[tokio::test(start_paused = true)]
async fn a_drain_and_a_deletion_leave_nothing_on_record() {
    let world = World::new().await;
    let (drained, deleted) = (world.gateway().await, world.gateway().await);
    let clients =
        [world.named(Via::WebSocket, &drained, "a", None).await, world.named(Via::Sse, &deleted, "a", None).await];
    clients.iter().for_each(|client| client.peer.read(false));
    world.publish(drained.id, 0).await;
    world.publish(deleted.id, 0).await;
    world.hub.registry.close_gateway(deleted.id);
    world.hub.drain();
    clients.iter().for_each(|client| client.peer.read(true));
    sleep(NOTICED).await;
    assert!(world.hub.registry.is_empty());
    assert_eq!(world.failed(), []);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_connections_that_drop_at_once_are_recorded_without_a_read() {
    const GATEWAYS: usize = 100;
    let world = World::new().await;
    let mut clients = Vec::new();
    let mut members = Vec::new();
    for _ in 0..GATEWAYS {
        let member = world.gateway().await;
        for replica in 0..100 {
            clients.push(world.named(Via::WebSocket, &member, &format!("r{replica}"), None).await);
        }
        members.push(member);
    }
    for member in &members {
        world.publish(member.id, 0).await;
    }
    for client in &mut clients {
        client.numbers(1).await;
    }
    let reads = world.faults.calls(Call::Read);
    clients.iter_mut().for_each(|client| client.peer.break_off());
    settled().await;
    assert!(world.hub.registry.is_empty());
    assert_eq!(world.failures().len(), GATEWAYS * 100);
    assert_eq!(world.hub.deliveries.totals().count, GATEWAYS as u64 * 100);
    assert_eq!(world.faults.calls(Call::Read), reads);
}

#[tokio::test(start_paused = true)]
async fn what_reached_a_replica_before_its_publisher_knows_that_it_is_stored_is_no_failure() {
    let world = World::new().await;
    let member = world.gateway().await;
    let head = world.publish(member.id, 0).await.event_id;
    let unknown = Cursor { epoch: Epoch(head.epoch.0 ^ 1), seq: Seq(900) };
    for (n, via) in (1..).zip(ALL) {
        for cursor in [None, Some(head), Some(unknown)] {
            let cursor = cursor.map(|cursor| cursor.to_string());
            let mut client = world.connect(via, &member, cursor.as_deref()).await.unwrap();
            world.faults.times(1, Call::Append, Fault::SaidLate(Duration::from_secs(1)));
            let (_, ()) = tokio::join!(world.publish(member.id, n), async { while client.numbers(1).await != [n] {} });
            let nobody = world.failed().into_iter().filter(|(reason, ..)| *reason == FailureReason::NotConnected);
            assert_eq!(nobody.count(), 1, "the first alone: {via:?} {cursor:?}");
        }
    }
}
