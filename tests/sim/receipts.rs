//! What gateways report of events is kept per replica, whatever they say and however they say it.

use std::time::Duration;

use gatecast_storage::{ApiId, DeliveryFilter, Deployment, DeploymentStatus, FailureReason, Passage};
use gatecast_transports::Handshake;
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{Client, Member, Via, World, handshake, json as parsed, number};

const API: &str = "23826f9e-8daf-4638-b295-14898312759f";

impl World {
    /// A replica that gives its name, connected and past its ack.
    async fn replica(&self, member: &Member, name: &str) -> Client {
        let transport = Via::WebSocket.transport();
        let handshake = Handshake { instance: Some(name.to_owned()), ..handshake(&transport, member, None) };
        let peer = transport.connect(self.hub.gate.as_ref(), handshake).await.unwrap();
        let mut client = Client { peer, pongs: true, cursor: None };
        client.message().await.unwrap();
        client
    }

    async fn deploy(&self, member: &Member) -> Deployment {
        let now = gatecast_storage::Clock::now(self.clock.as_ref());
        let row = Deployment {
            id: Uuid::new_v4(),
            api: API.parse().unwrap(),
            gateway: member.id,
            revision: "r".into(),
            vhost: "v".into(),
            environment: "e".into(),
            status: DeploymentStatus::Deploying,
            event: Some(self.publish(member.id, 0).await.event_id),
            performed_at: now,
            updated_at: now,
            pending: None,
            earlier: Vec::new(),
            deleted_at: None,
        };
        self.hub.directory.begin_deployments(vec![Deployment { event: None, ..row.clone() }]).await.unwrap();
        self.hub.directory.end_deployments(vec![(row.id, row.event)], now).await.unwrap();
        row
    }

    fn status(&self, member: &Member) -> DeploymentStatus {
        let api: ApiId = API.parse().unwrap();
        self.hub.directory.deployment(&api, member.id).unwrap().status
    }

    fn passages(&self, row: &Deployment) -> Vec<Passage> {
        self.hub.receipts.timeline(row.gateway, row.event.unwrap(), Some(row.id))
    }
}

fn ack(row: &Deployment, status: &str) -> String {
    let payload = json!({"deploymentId": row.id, "artifactId": API, "resourceType": "RestApi", "action": "DEPLOY",
        "status": status, "performedAt": "2026-11-20T17:00:00.000Z", "errorCode": "E-1"});
    json!({"type": "deployment.ack", "payload": payload}).to_string()
}

fn receipt(event: &str, status: &str) -> String {
    json!({"type": "event.receipt", "payload": {"eventId": event, "status": status}}).to_string()
}

/// Gives every task its turn, however many steps it takes.
async fn settled() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

#[tokio::test(start_paused = true)]
async fn a_deployment_ack_is_one_of_n_and_a_late_success_wins() {
    let world = World::new().await;
    let member = world.gateway().await;
    let (mut a, mut b) = (world.replica(&member, "a").await, world.replica(&member, "b").await);
    let row = world.deploy(&member).await;
    a.numbers(1).await;
    b.numbers(1).await;
    a.peer.say_text(ack(&row, "failed"));
    settled().await;
    assert_eq!(world.status(&member), DeploymentStatus::Deploying, "failures are derived");
    let failed = DeliveryFilter { reason: Some(FailureReason::FailedByGateway), ..DeliveryFilter::default() };
    assert_eq!(world.hub.deliveries.query(&failed, 0, 9).1[0].recovered_at, None);

    b.peer.say_text(ack(&row, "success"));
    settled().await;
    assert_eq!(world.status(&member), DeploymentStatus::Deployed);
    let applied = |world: &World| {
        let passages = world.passages(&row);
        passages.iter().map(|passage| passage.outcome.as_ref().map(|o| o.applied)).collect::<Vec<_>>()
    };
    assert_eq!(applied(&world), [Some(false), Some(true)]);

    a.peer.say_text(ack(&row, "success"));
    a.peer.say_text(ack(&row, "failed"));
    settled().await;
    assert_eq!(applied(&world), [Some(true), Some(true)]);
    assert!(world.hub.deliveries.query(&failed, 0, 9).1[0].recovered_at.is_some());

    let world = world.restart().await;
    assert_eq!(applied(&world), [Some(true), Some(true)], "kept on disk");
}

#[tokio::test(start_paused = true)]
async fn an_ack_of_a_deployment_that_was_replaced_stands_on_its_events_timeline_alone() {
    let world = World::new().await;
    let (member, other) = (world.gateway().await, world.gateway().await);
    let (mut a, stranger) = (world.replica(&member, "a").await, world.replica(&other, "a").await);
    let (first, second) = (world.deploy(&member).await, world.deploy(&member).await);
    a.numbers(2).await;
    stranger.peer.say_text(ack(&first, "success"));
    settled().await;
    let theirs = world.hub.receipts.timeline(other.id, first.event.unwrap(), Some(first.id));
    assert!(theirs.iter().all(|passage| passage.outcome.is_none()), "it is no deployment of its gateway");
    for (status, applied) in [("failed", false), ("success", true)] {
        a.peer.say_text(ack(&first, status));
        settled().await;
        let outcomes: Vec<_> = world.passages(&first).into_iter().map(|passage| passage.outcome).collect();
        assert_eq!(outcomes.iter().map(|o| o.as_ref().map(|o| o.applied)).collect::<Vec<_>>(), [Some(applied)]);
    }
    assert_eq!(world.status(&member), DeploymentStatus::Deploying, "nothing is known of the second");
    a.peer.say_text(ack(&second, "success"));
    settled().await;
    assert_eq!(world.status(&member), DeploymentStatus::Deployed);
}

#[tokio::test(start_paused = true)]
async fn an_event_receipt_of_a_deployments_event_is_one_of_the_deployment() {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut a = world.replica(&member, "a").await;
    let row = world.deploy(&member).await;
    a.numbers(1).await;
    a.peer.say_text(receipt(&row.event.unwrap().to_string(), "applied"));
    settled().await;
    assert!(world.passages(&row)[0].outcome.as_ref().unwrap().applied);
}

#[tokio::test(start_paused = true)]
async fn a_success_makes_up_for_a_failure_that_was_told_by_the_events_other_name() {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut a = world.replica(&member, "a").await;
    let row = world.deploy(&member).await;
    a.numbers(1).await;
    a.peer.say_text(receipt(&row.event.unwrap().to_string(), "failed"));
    settled().await;
    let failed = DeliveryFilter { reason: Some(FailureReason::FailedByGateway), ..DeliveryFilter::default() };
    assert_eq!(world.hub.deliveries.query(&failed, 0, 9).1[0].recovered_at, None);
    a.peer.say_text(ack(&row, "success"));
    settled().await;
    assert!(world.hub.deliveries.query(&failed, 0, 9).1[0].recovered_at.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_deployment_ack_moves_the_stored_position() {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut a = world.replica(&member, "a").await;
    let row = world.deploy(&member).await;
    a.numbers(1).await;
    let event = row.event.unwrap();
    let position = || world.hub.receipts.replicas(member.id, event.epoch).pop().unwrap().position.unwrap();
    assert!(position().seq < event.seq);
    a.peer.say_text(ack(&row, "success"));
    settled().await;
    assert_eq!(position(), event);
}

#[tokio::test(start_paused = true)]
async fn what_was_reported_before_its_gateway_was_deleted_leaves_nothing() {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut a = world.replica(&member, "a").await;
    let event = world.publish(member.id, 1).await.event_id.to_string();
    a.numbers(1).await;
    let held = world.reads.forget_permits(usize::MAX);
    for n in 0..50 {
        let payload = json!({"eventId": event, "status": "failed", "message": n.to_string()});
        a.peer.say_text(json!({"type": "event.receipt", "payload": payload}).to_string());
    }
    // Heard, and still to be followed up.
    while world.hub.deliveries.totals().count == 0 {
        tokio::task::yield_now().await;
    }
    world.hub.directory.delete_gateway(member.id).await.unwrap();
    world.hub.registry.close_gateway(member.id);
    settled().await;
    world.hub.deliveries.forget(member.id);
    world.hub.receipts.forget(member.id);
    world.hub.log.forget(member.id).await.unwrap();
    world.reads.add_permits(held);
    settled().await;
    assert_eq!(world.hub.deliveries.unrecovered(), []);
    assert_eq!(world.hub.log.gateways(None, 10).await.unwrap(), [], "a read has made its log anew");
}

#[tokio::test(start_paused = true)]
async fn every_failure_that_is_reported_is_on_record_however_many_come_at_once() {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut a = world.replica(&member, "a").await;
    let event = world.publish(member.id, 1).await.event_id.to_string();
    a.numbers(1).await;
    for n in 0..2_000 {
        let payload = json!({"eventId": event, "status": "failed", "message": n.to_string()});
        a.peer.say_text(json!({"type": "event.receipt", "payload": payload}).to_string());
    }
    settled().await;
    let failed = DeliveryFilter { reason: Some(FailureReason::FailedByGateway), ..DeliveryFilter::default() };
    assert_eq!(world.hub.deliveries.totals().count, 2_000);
    let (count, rows) = world.hub.deliveries.query(&failed, 0, 9);
    assert_eq!((count, rows[0].event.to_string()), (1, event), "of one event at one replica");
}

#[tokio::test(start_paused = true)]
async fn what_others_report_at_the_same_time_keeps_no_failure_from_recovering() {
    let world = World::new().await;
    let (busy, member) = (world.gateway().await, world.gateway().await);
    let (mut other, mut a) = (world.replica(&busy, "a").await, world.replica(&member, "a").await);
    let theirs = world.publish(busy.id, 1).await.event_id.to_string();
    let mut mine = Vec::new();
    // More than outcomes are kept of.
    for n in 0..300 {
        mine.push(world.publish(member.id, n).await.event_id.to_string());
    }
    other.numbers(1).await;
    a.numbers(mine.len()).await;
    // What follows from reports and takes the disk waits, and there are more than may wait.
    let held = world.reads.forget_permits(usize::MAX);
    for n in 0..2_000 {
        let payload = json!({"eventId": theirs, "status": "failed", "message": n.to_string()});
        other.peer.say_text(json!({"type": "event.receipt", "payload": payload}).to_string());
    }
    let failed = DeliveryFilter {
        gateway: Some(member.id),
        reason: Some(FailureReason::FailedByGateway),
        ..DeliveryFilter::default()
    };
    let recovered = || {
        let (_, rows) = world.hub.deliveries.query(&failed, 0, usize::MAX);
        (rows.len(), rows.iter().filter(|row| row.recovered_at.is_some()).count())
    };
    for status in ["failed", "applied"] {
        mine.iter().for_each(|event| a.peer.say_text(receipt(event, status)));
        settled().await;
    }
    assert_eq!(recovered(), (300, 300));
    world.reads.add_permits(held);
    settled().await;
    assert_eq!(recovered(), (300, 300), "nothing that waited undoes it");
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_on_record_at_once_and_its_type_once_it_was_read() {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut a = world.replica(&member, "a").await;
    let event = world.publish(member.id, 1).await.event_id.to_string();
    a.numbers(1).await;
    let held = world.reads.forget_permits(usize::MAX);
    a.peer.say_text(receipt(&event, "failed"));
    settled().await;
    let row = || world.hub.deliveries.query(&DeliveryFilter::default(), 0, 9).1.remove(0);
    assert_eq!((row().event.to_string(), row().event_type), (event, None));
    world.reads.add_permits(held);
    settled().await;
    assert_eq!(row().event_type.as_deref(), Some("api.deployed"));
}

#[tokio::test(start_paused = true)]
async fn a_timeline_has_the_times_of_sending_pong_and_outcome() {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut a = world.replica(&member, "a").await;
    let row = world.deploy(&member).await;
    let start = row.performed_at;
    a.numbers(1).await;
    let passage = world.passages(&row).remove(0);
    assert_eq!((passage.sent_at, passage.is_received, passage.outcome), (Some(start), false, None));
    world.clock.advance(Duration::from_secs(5));
    // The next message is the ping of 20 s; it is answered on the way to nothing.
    let _ = tokio::time::timeout(Duration::from_secs(21), a.message()).await;
    settled().await;
    let passage = world.passages(&row).remove(0);
    assert_eq!(passage.received_at, Some(start + Duration::from_secs(5)));
}

#[tokio::test(start_paused = true)]
async fn received_is_cumulative_and_moves_the_stored_position() {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut a = world.replica(&member, "a").await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(world.publish(member.id, n).await.event_id);
    }
    a.numbers(5).await;
    a.peer.say_text(receipt(&ids[2].to_string(), "received"));
    a.peer.say_text(receipt(&ids[0].to_string(), "received"));
    settled().await;
    a.peer.hang_up();
    settled().await;
    let transport = Via::Sse.transport();
    let handshake = Handshake {
        instance: Some("a".to_owned()),
        cursor: Some("stored".to_owned()),
        ..handshake(&transport, &member, None)
    };
    let peer = transport.connect(world.hub.gate.as_ref(), handshake).await.unwrap();
    let mut again = Client { peer, pongs: true, cursor: None };
    assert_eq!(again.numbers(2).await, [3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_polls_cursor_is_a_receipt() {
    let world = World::new().await;
    let member = world.gateway().await;
    let head = world.publish(member.id, 0).await.event_id;
    world.publish(member.id, 1).await;
    let transport = Via::LongPoll.transport();
    let at = format!("{}-0", head.epoch);
    for cursor in [at, head.to_string()] {
        drop(world.hub.gate.admit(handshake(&transport, &member, Some(&cursor))).await.unwrap());
    }
    let replicas = world.hub.receipts.replicas(member.id, head.epoch);
    assert_eq!(replicas[0].position, Some(head));
}

#[tokio::test(start_paused = true)]
async fn receipts_of_other_gateways_events_and_of_what_was_not_sent_are_ignored() {
    let world = World::new().await;
    let (member, other) = (world.gateway().await, world.gateway().await);
    let mut a = world.replica(&member, "a").await;
    let mine = world.publish(member.id, 0).await.event_id;
    let (theirs, row) = (world.publish(other.id, 0).await.event_id, world.deploy(&other).await);
    a.numbers(1).await;
    for text in [
        receipt(&theirs.to_string(), "applied"),
        receipt(&format!("{}-99", mine.epoch), "received"),
        receipt(&format!("{}-0", mine.epoch), "applied"),
        ack(&row, "success"),
    ] {
        a.peer.say_text(text);
    }
    settled().await;
    assert_eq!(world.status(&other), DeploymentStatus::Deploying);
    assert!(world.passages(&row).is_empty());
    let stored = world.hub.receipts.stored(member.id, &gatecast_storage::Replica::Named("a".into()), mine.epoch);
    assert_eq!(stored.unwrap().seq.0, 0);
}

fn hostile() -> impl Strategy<Value = String> {
    let member = prop_oneof![
        Just(json!(null)),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,30}".prop_map(Value::from),
        Just(json!({"eventId": "00000000-1", "status": "applied"})),
        Just(json!([[[]]])),
    ];
    let kind = prop_oneof![Just("event.receipt"), Just("deployment.ack"), Just("connection.ack")];
    let message = (kind, member.clone(), member).prop_map(|(kind, payload, id)| {
        let payload = if payload.is_null() {
            json!({"eventId": id, "deploymentId": id, "status": id, "errorCode": id, "message": "\u{0}\u{1F600}"})
        } else {
            payload
        };
        json!({"type": kind, "payload": payload}).to_string()
    });
    prop_oneof![message, "\\PC{0,200}", Just("[".repeat(60_000)), Just("{\"type\":".repeat(5_000))]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_a_gateway_says_ends_its_connection_or_delays_its_events(texts in proptest::collection::vec(hostile(), 1..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let world = World::new().await;
            let member = world.gateway().await;
            let mut a = world.replica(&member, "a").await;
            texts.into_iter().for_each(|text| a.peer.say_text(text));
            world.publish(member.id, 7).await;
            let message = tokio::time::timeout(Duration::from_secs(1), a.message()).await.unwrap().unwrap();
            assert_eq!((number(&message), parsed(&message)["type"].as_str()), (Some(7), Some("api.deployed")));
        });
    }
}
