use std::pin::pin;
use std::sync::Arc;

use gatecast_storage::MemoryRecords;
use serde_json::{Value, json};

use super::world::World;

const PATH: &str = "/api/internal/v1/event-types/order.created";

fn order() -> Value {
    json!({
        "description": "An order came in.",
        "schema": { "type": "object", "required": ["id"], "properties": { "id": { "type": "integer" } } },
        "keyPointer": "/id",
        "endsKey": true
    })
}

#[tokio::test]
async fn a_registered_type_works_at_once_and_after_a_restart() {
    let records = Arc::new(MemoryRecords::new());
    let world = World::over(records.clone()).await;
    let gateway = world.gateway("gw-1").await;
    let events = format!("/api/internal/v1/gateways/{gateway}/events");
    let event = json!({ "type": "order.created", "payload": { "id": 7 } });
    world.admin("POST", &events, event.clone()).await.problem(400, "UNKNOWN_EVENT_TYPE");

    let reply = world.admin("PUT", PATH, order()).await;
    let made = reply.expect(201);
    assert_eq!(
        (&made["type"], &made["keyPointer"], &made["endsKey"], &made["builtIn"]),
        (&json!("order.created"), &json!("/id"), &json!(true), &json!(false))
    );
    assert_eq!(reply.headers["location"], PATH);
    world.admin("POST", &events, event.clone()).await.expect(201);
    let wrong = json!({ "type": "order.created", "payload": { "id": "x" } });
    assert_eq!(world.admin("POST", &events, wrong).await.problem(400, "VALIDATION_FAILED"), ["/payload/id"]);
    assert_eq!(world.get(PATH).await.expect(200), world.admin("PUT", PATH, order()).await.expect(200));

    let restarted = World::over(records).await;
    let events = format!("/api/internal/v1/gateways/{gateway}/events");
    restarted.admin("POST", &events, event.clone()).await.expect(201);

    assert_eq!(restarted.admin("DELETE", PATH, Value::Null).await.status, 204);
    restarted.admin("DELETE", PATH, Value::Null).await.problem(404, "EVENT_TYPE_NOT_FOUND");
    restarted.get(PATH).await.problem(404, "EVENT_TYPE_NOT_FOUND");
    restarted.admin("POST", &events, event).await.problem(400, "UNKNOWN_EVENT_TYPE");
}

/// A gateway tells messages by their type alone.
#[tokio::test]
async fn no_event_can_pass_for_a_control_message() {
    let world = World::new().await;
    for name in ["connection.ack", "stream.reset", "server.goodbye", "error"] {
        let path = format!("/api/internal/v1/event-types/{name}");
        let reply = world.admin("PUT", &path, json!({ "schema": true })).await;
        assert_eq!(reply.problem(400, "VALIDATION_FAILED"), ["/type"]);
    }
}

#[tokio::test]
async fn built_in_types_are_listed_and_cannot_be_changed() {
    let world = World::new().await;
    let list = world.get("/api/internal/v1/event-types").await.expect(200);
    let names: Vec<_> = list["list"].as_array().unwrap().iter().map(|kind| kind["type"].as_str().unwrap()).collect();
    let expected = ["api.deleted", "api.deployed", "api.lifecycle.changed", "api.undeployed", "gateway.config.updated"];
    assert_eq!(names, expected);
    for name in expected {
        let path = format!("/api/internal/v1/event-types/{name}");
        let kind = world.get(&path).await.expect(200);
        assert_eq!((&kind["builtIn"], &kind["endsKey"]), (&json!(true), &json!(name == "api.deleted")));
        world.admin("PUT", &path, json!({ "schema": true })).await.problem(409, "BUILT_IN_TYPE");
        world.admin("DELETE", &path, Value::Null).await.problem(409, "BUILT_IN_TYPE");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_type_is_said_with_pointers() {
    let world = World::new().await;
    for (body, at) in [
        (json!({}), "/schema"),
        (json!({ "schema": 5 }), "/schema"),
        (json!({ "schema": { "type": "nothing" } }), "/schema/type"),
        (json!({ "schema": { "properties": { "a": { "minimum": "x" } } } }), "/schema/properties/a/minimum"),
        (json!({ "schema": { "$ref": "https://example.com/s" } }), "/schema/$ref"),
        (json!({ "schema": { "pattern": "(?=a)" } }), "/schema"),
        (json!({ "schema": true, "keyPointer": "id" }), "/keyPointer"),
        (json!({ "schema": true, "keyPointer": 5 }), "/keyPointer"),
        (json!({ "schema": true, "endsKey": "yes" }), "/endsKey"),
        (json!({ "schema": true, "type": "another" }), "/type"),
        (json!({ "schema": true, "description": "a\u{0}" }), "/description"),
    ] {
        let fields = world.admin("PUT", PATH, body.clone()).await.problem(400, "VALIDATION_FAILED");
        assert!(fields[0].starts_with(at) && fields.len() == 1, "{body}: {fields:?}");
    }
    let path = "/api/internal/v1/event-types/1";
    assert_eq!(world.admin("PUT", path, json!({ "schema": true })).await.problem(400, "VALIDATION_FAILED"), ["/type"]);
    assert_eq!(world.get("/api/internal/v1/event-types").await.expect(200)["count"], 5);
    assert!(world.parts.directory.event_types().is_empty());
}

#[tokio::test]
async fn a_payload_that_takes_long_to_check_holds_up_no_other_call() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let others: Vec<_> = (1..500).map(|n| json!({ "not": { "const": n } })).collect();
    let schema = json!({ "schema": { "items": { "allOf": others } } });
    world.admin("PUT", "/api/internal/v1/event-types/long.list", schema).await.expect(201);
    let event = json!({ "type": "long.list", "payload": vec![0; 1_500] });
    let one = format!("/api/internal/v1/gateways/{gateway}/events");
    let many = json!({ "targets": { "all": true }, "type": "long.list", "payload": vec![0; 1_500] });
    for (path, event, status) in [(one.as_str(), event, 201), ("/api/internal/v1/events", many, 200)] {
        // This runtime has one thread, so what is checked on it is done before anything else is answered.
        let mut published = pin!(world.admin("POST", path, event));
        assert!(futures::poll!(&mut published).is_pending());
        world.bare("GET", "/health").await.expect(200);
        published.await.expect(status);
    }
    assert_eq!(world.head(gateway).await, 2);
}

#[tokio::test]
async fn a_schema_is_compiled_in_a_turn_of_what_takes_long() {
    let world = World::new().await;
    let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
    let hold = [std::sync::mpsc::channel::<()>(), std::sync::mpsc::channel()];
    let [(go_on, first), (_never, second)] = hold;
    for held in [first, second] {
        let begun = begun.clone();
        let work = world.platform.checks.take(move || {
            begun.send(()).unwrap();
            held.recv()
        });
        assert!(futures::poll!(pin!(work)).is_pending());
        begins.recv().await.unwrap();
    }
    let mut put = pin!(world.admin("PUT", PATH, order()));
    for _ in 0..10 {
        assert!(futures::poll!(&mut put).is_pending(), "no turn is free");
        world.get(PATH).await.problem(404, "EVENT_TYPE_NOT_FOUND");
        tokio::task::yield_now().await;
    }
    go_on.send(()).unwrap();
    put.await.expect(201);
}
