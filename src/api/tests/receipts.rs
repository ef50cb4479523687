use std::sync::atomic::Ordering;
use std::time::Duration;

use gatecast_storage::receipts::Start;
use gatecast_storage::{DeliveryFilter, FailureReason, GatewayId, Replica};
use serde_json::{Value, json};
use uuid::Uuid;

use super::world::World;
use crate::receipts::standing::DEPLOYMENT_TIMEOUT;

const API: &str = "23826f9e-8daf-4638-b295-14898312759f";
const PATH: &str = "/api/internal/v1/gateways/receipts";

fn receipt(event: &Value, status: &str) -> Value {
    json!({ "type": "event.receipt", "payload": { "eventId": event, "status": status, "errorCode": "E-1" } })
}

async fn deployed(world: &World, gateway: GatewayId) -> Value {
    let path = format!("/api/v1/apis/{API}/deploy-revision?revisionId=r");
    world.admin("POST", &path, json!([{ "gatewayId": gateway }])).await.expect(200)[0].clone()
}

#[tokio::test]
async fn receipts_are_taken_one_or_many_and_deployments_show_k_of_n() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let (_, key) = world.token(gateway).await;
    let at = world.parts.log.bounds(gateway).await.unwrap().head();
    let enter = |name: &str| world.parts.receipts.enter(gateway, Replica::Named(name.into()), Start::After(at), true);
    let _seats = (enter("a"), enter("b"), enter("c"));
    let row = deployed(&world, gateway).await;
    let post = async |instance: &str, body: Value| {
        world.send("POST", PATH, &[("api-key", &key), ("gateway-instance", instance)], body.to_string()).await
    };
    let list = async || world.get(&format!("/api/v1/apis/{API}/deployments")).await.expect(200)["list"][0].clone();
    assert_eq!((&list().await["status"], &list().await["instances"]), (&json!("DEPLOYING"), &json!(3)));

    let answer = post("a", json!([receipt(&row["eventId"], "failed")])).await.expect(202);
    assert_eq!(answer, json!({ "accepted": 1, "ignored": 0 }));
    let shown = list().await;
    assert_eq!((&shown["status"], &shown["applied"]), (&json!("FAILED"), &json!(0)));
    assert_eq!((&shown["reasons"][0]["instance"], &shown["reasons"][0]["errorCode"]), (&json!("a"), &json!("E-1")));

    let ack =
        json!({ "type": "deployment.ack", "payload": { "deploymentId": row["deploymentId"], "status": "success" } });
    post("b", ack).await.expect(202);
    let shown = list().await;
    assert_eq!((&shown["status"], &shown["applied"], &shown["instances"]), (&json!("DEPLOYED"), &json!(1), &json!(3)));
    assert_eq!(shown["reasons"].as_array().unwrap().len(), 1);
    let foreign = json!("00000000-1");
    let answer = post("c", receipt(&foreign, "applied")).await.expect(202);
    assert_eq!(answer, json!({ "accepted": 0, "ignored": 1 }));
    for status in ["received", "applied"] {
        let answer = post("was-never-here", receipt(&row["eventId"], status)).await.expect(202);
        assert_eq!(answer, json!({ "accepted": 0, "ignored": 1 }));
    }
}

#[tokio::test]
async fn a_deployment_that_nobody_reports_on_times_out_until_somebody_does() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let at = world.parts.log.bounds(gateway).await.unwrap().head();
    let (_, key) = world.token(gateway).await;
    let _seat = world.parts.receipts.enter(gateway, Replica::Named("a".into()), Start::After(at), true);
    let row = deployed(&world, gateway).await;
    let list = async || world.get(&format!("/api/v1/apis/{API}/deployments")).await.expect(200)["list"][0].clone();
    world.clock.advance(DEPLOYMENT_TIMEOUT - Duration::from_millis(1));
    assert_eq!(list().await["status"], "DEPLOYING");
    world.clock.advance(Duration::from_millis(1));
    let shown = list().await;
    assert_eq!((&shown["status"], &shown["reasons"][0]["errorCode"]), (&json!("FAILED"), &json!("TIMED_OUT")));
    let body = receipt(&row["eventId"], "applied").to_string();
    world.send("POST", PATH, &[("api-key", &key), ("gateway-instance", "a")], body).await.expect(202);
    assert_eq!(list().await["status"], "DEPLOYED");
}

/// A quick gateway reports before the publisher is answered, so before the deployment's row names its event.
#[tokio::test(start_paused = true)]
async fn a_failure_that_was_told_before_its_event_was_known_is_on_record_once_that_is() {
    for has_room in [true, false] {
        let world = World::new().await;
        let gateway = world.gateway("gw-1").await;
        let at = world.parts.log.bounds(gateway).await.unwrap().head();
        let (_, key) = world.token(gateway).await;
        let _seat = world.parts.receipts.enter(gateway, Replica::Named("a".into()), Start::After(at), true);
        let report = async |id: Uuid, status: &str| {
            let ack = json!({ "type": "deployment.ack", "payload": { "deploymentId": id, "status": status } });
            let headers = [("api-key", key.as_str()), ("gateway-instance", "a")];
            world.send("POST", PATH, &headers, ack.to_string()).await.expect(202)["accepted"].clone()
        };
        let unanswered = world.log.unanswered.write().await;
        let quick = async {
            while world.head(gateway).await == 0 {
                tokio::task::yield_now().await;
            }
            let id = world.parts.directory.pending_deployments()[0].id;
            assert_eq!(report(id, "failed").await, 1);
            // What follows from it comes to its end.
            tokio::time::sleep(Duration::from_secs(1)).await;
            world.records.is_full.store(!has_room, Ordering::SeqCst);
            drop(unanswered);
            id
        };
        let (row, id) = tokio::join!(deployed(&world, gateway), quick);
        world.records.is_full.store(false, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let on_record = || {
            let (count, rows) = world.parts.deliveries.query(&DeliveryFilter::default(), 0, 9);
            let row = rows.iter().find(|row| row.reason == FailureReason::FailedByGateway).cloned().unwrap();
            (count - 1, json!(row.event.to_string()), row.event_type, row.recovered_at.is_some())
        };
        let deployed = Some("api.deployed".into());
        assert_eq!(on_record(), (1, row["eventId"].clone(), deployed.clone(), false), "has room: {has_room}");
        assert_eq!(report(id, "success").await, 1);
        assert_eq!(on_record(), (1, row["eventId"].clone(), deployed, true));
    }
}

#[tokio::test]
async fn an_ack_of_a_deletion_stands_on_its_events_timeline() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let at = world.parts.log.bounds(gateway).await.unwrap().head();
    let (_, key) = world.token(gateway).await;
    let _seat = world.parts.receipts.enter(gateway, Replica::Named("a".into()), Start::After(at), true);
    deployed(&world, gateway).await;
    assert_eq!(world.admin("DELETE", &format!("/api/v1/apis/{API}"), Value::Null).await.status, 204);
    let event = world.events(gateway).await.pop().unwrap();
    assert_eq!(event["type"], "api.deleted");
    let deployment = &event["payload"]["deploymentId"];
    let ack = json!({ "type": "deployment.ack", "payload": { "deploymentId": deployment, "status": "success" } });
    let headers = [("api-key", key.as_str()), ("gateway-instance", "a")];
    let answer = world.send("POST", PATH, &headers, ack.to_string()).await.expect(202);
    assert_eq!(answer, json!({ "accepted": 1, "ignored": 0 }));
    let path = format!("/api/internal/v1/events/{gateway}/{}", event["eventId"].as_str().unwrap());
    assert_eq!(world.get(&path).await.expect(200)["timeline"][0]["status"], "applied");
    world.get(&format!("/api/v1/apis/{API}/deployments")).await.problem(404, "API_NOT_FOUND");
    assert_eq!(world.get("/api/v1/deployments").await.expect(200)["count"], 0);
}

#[tokio::test]
async fn malformed_receipts_are_refused_by_pointer_and_nothing_is_taken() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let (_, key) = world.token(gateway).await;
    let post = async |body: Value| world.send("POST", PATH, &[("api-key", &key)], body.to_string()).await;
    let wrong = json!([{ "type": "event.receipt", "payload": { "eventId": "x", "status": "applied" } }, 5, {}]);
    let fields = post(wrong).await.problem(400, "VALIDATION_FAILED");
    assert_eq!(fields, ["/0/payload/eventId", "/1", "/2/type"]);
    post(json!([])).await.problem(400, "VALIDATION_FAILED");
    post(json!(1)).await.problem(400, "VALIDATION_FAILED");
    world.send("POST", PATH, &[("api-key", &key)], "{").await.problem(400, "INVALID_JSON");
}

#[tokio::test]
async fn a_timeline_and_a_stream_show_each_replica() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let (_, key) = world.token(gateway).await;
    let at = world.parts.log.bounds(gateway).await.unwrap().head();
    let (a, _b) = (
        world.parts.receipts.enter(gateway, Replica::Named("a".into()), Start::After(at), true),
        world.parts.receipts.enter(gateway, Replica::Named("b".into()), Start::After(at), true),
    );
    let row = deployed(&world, gateway).await;
    let event: gatecast_storage::Cursor = row["eventId"].as_str().unwrap().parse().unwrap();
    world.clock.advance(Duration::from_secs(1));
    a.sent(event, world.parts.clock.millis());
    a.confirmed(event, world.parts.clock.now());
    let path = format!("/api/internal/v1/events/{gateway}/{event}");
    let steps = async || {
        let timeline = world.get(&path).await.expect(200)["timeline"].clone();
        timeline.as_array().unwrap().iter().map(|step| step["status"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(steps().await, ["received", "stored"]);
    let ack =
        json!({ "type": "deployment.ack", "payload": { "deploymentId": row["deploymentId"], "status": "failed" } });
    world.send("POST", PATH, &[("api-key", &key), ("gateway-instance", "a")], ack.to_string()).await.expect(202);
    assert_eq!(steps().await, ["failed", "stored"]);
    let shown = world.get(&path).await.expect(200)["timeline"][0].clone();
    assert_eq!((&shown["sentAt"], &shown["receivedAt"]), (&json!("2026-11-20T17:00:01.000Z"), &shown["sentAt"]));

    let stream = world.get(&format!("/api/internal/v1/gateways/{gateway}/stream")).await.expect(200);
    let of = |index: usize, name: &str| stream["instances"][index][name].clone();
    assert_eq!((of(0, "instance"), of(0, "position"), of(0, "lag")), (json!("a"), json!(event.to_string()), json!(0)));
    assert_eq!((of(1, "lag"), of(1, "connections"), of(1, "lastReceiptAt")), (json!(1), json!(1), Value::Null));
    assert_eq!(of(0, "lastReceiptAt"), "2026-11-20T17:00:01.000Z");
    assert_eq!(of(1, "timeToGapSeconds"), 3_599.0, "the ring keeps it an hour");
}

#[tokio::test]
async fn only_what_is_published_after_the_switch_to_stored_is_owed_to_a_replica_never_seen() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    deployed(&world, gateway).await;
    let put = async |catch_up: &str| {
        let body = json!({ "displayName": "Test", "vhost": "default.example", "catchUp": catch_up });
        world.admin("PUT", &format!("/api/v1/gateways/{gateway}"), body).await.expect(200);
    };
    put("stored").await;
    let switched = world.parts.log.bounds(gateway).await.unwrap().head();
    deployed(&world, gateway).await;
    put("stored").await;
    assert_eq!(world.parts.receipts.anchor(gateway), Some(switched));
    put("live").await;
    assert_eq!(world.parts.receipts.anchor(gateway), None);
}

#[tokio::test]
async fn an_update_that_is_refused_changes_nothing_of_what_a_replica_never_seen_is_owed() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let other = world.gateway("gw-2").await;
    let put = async |gateway: GatewayId, catch_up: &str, names: &[&str]| {
        let body =
            json!({ "displayName": "Test", "vhost": "a.example", "catchUp": catch_up, "certificateNames": names });
        world.admin("PUT", &format!("/api/v1/gateways/{gateway}"), body).await
    };
    let refused = async |catch_up: &str| {
        put(gateway, catch_up, &["taken.example"]).await.problem(409, "CERTIFICATE_NAME_TAKEN");
        world.records.is_full.store(true, std::sync::atomic::Ordering::SeqCst);
        put(gateway, catch_up, &[]).await.problem(503, "STORE_FULL");
        world.records.is_full.store(false, std::sync::atomic::Ordering::SeqCst);
    };
    put(other, "live", &["taken.example"]).await.expect(200);
    for _ in 0..2 {
        refused("stored").await;
        deployed(&world, gateway).await;
        put(gateway, "stored", &[]).await.expect(200);
        let switched = world.parts.log.bounds(gateway).await.unwrap().head();
        assert_eq!(world.parts.receipts.anchor(gateway), Some(switched));
        deployed(&world, gateway).await;
        refused("live").await;
        assert_eq!(world.parts.receipts.anchor(gateway), Some(switched));
        put(gateway, "live", &[]).await.expect(200);
    }
}
