use std::time::Duration;

use serde_json::{Value, json};

use super::world::{World, unknown};

#[tokio::test]
async fn stats_have_the_shape_of_the_plan() {
    let world = World::new().await;
    let stats = world.get("/api/internal/v1/stats").await.expect(200);
    assert_eq!(stats["gatewayConnections"], json!({ "totalActive": 0, "connections": [] }));
    let none =
        json!({ "totalEventsSent": 0, "failedDeliveries": 0, "lastFailureTime": null, "lastFailureReason": null });
    assert_eq!(stats["eventDelivery"], none);

    let (gateway, quiet) = (world.gateway("gw-1").await, world.gateway("gw-2").await);
    let (token, _) = world.token(gateway).await;
    let event = json!({ "type": "api.deleted", "payload": { "apiId": "a" } });
    world.admin("POST", &format!("/api/internal/v1/gateways/{gateway}/events"), event).await.expect(201);
    let replica = world.connect(gateway, token).await;
    let stats = world.get("/api/internal/v1/stats").await.expect(200);
    let connection = &stats["gatewayConnections"]["connections"][0];
    assert_eq!((&connection["gatewayId"], &connection["status"]), (&json!(gateway), &json!("connected")));
    assert_eq!(connection["connectionId"], replica.connection.id.to_string());
    assert_eq!(connection["connectedAt"], "2026-11-20T17:00:00.000Z");
    assert_eq!(stats["eventDelivery"]["failedDeliveries"], 1);
    assert_eq!(stats["eventDelivery"]["lastFailureReason"], "not-connected");

    let stats = world.get(&format!("/api/internal/v1/stats?gatewayId={quiet}")).await.expect(200);
    assert_eq!(
        (&stats["gatewayConnections"]["totalActive"], &stats["eventDelivery"]["failedDeliveries"]),
        (&json!(0), &json!(0))
    );
    world.get("/api/internal/v1/stats?gatewayId=x").await.problem(400, "INVALID_PARAMETER");
    world.get(&format!("/api/internal/v1/stats?gatewayId={}", unknown())).await.problem(404, "GATEWAY_NOT_FOUND");
}

#[tokio::test]
async fn failed_deliveries_are_filtered_and_newest_first() {
    let world = World::new().await;
    let (a, b) = (world.gateway("gw-a").await, world.gateway("gw-b").await);
    for gateway in [a, b, a] {
        let event = json!({ "type": "api.deleted", "payload": { "apiId": "a" } });
        world.admin("POST", &format!("/api/internal/v1/gateways/{gateway}/events"), event).await.expect(201);
        world.clock.advance(Duration::from_secs(1));
    }
    let list =
        async |query: String| world.get(&format!("/api/internal/v1/deliveries/failed?{query}")).await.expect(200);
    let all = list(String::new()).await;
    assert_eq!(all["pagination"]["total"], 3);
    assert_eq!(all["list"][0]["failedAt"], "2026-11-20T17:00:02.000Z");
    assert_eq!((&all["list"][0]["recovered"], &all["list"][0]["type"]), (&json!(false), &json!("api.deleted")));
    assert_eq!(list(format!("gatewayId={b}")).await["count"], 1);
    assert_eq!(list("since=2026-11-20T17:00:01Z&until=2026-11-20T17:00:02Z".to_owned()).await["count"], 1);
    assert_eq!(list("reason=overwritten".to_owned()).await["count"], 0);
    assert_eq!(list("limit=1&offset=1".to_owned()).await["count"], 1);
    for query in ["since=yesterday", "until=1", "reason=x", "gatewayId=x", "limit=0"] {
        world.get(&format!("/api/internal/v1/deliveries/failed?{query}")).await.problem(400, "INVALID_PARAMETER");
    }
}

#[tokio::test]
async fn a_stream_shows_its_bounds_and_how_far_each_replica_is() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let (token, _) = world.token(gateway).await;
    let path = format!("/api/internal/v1/gateways/{gateway}/stream");
    let empty = world.get(&path).await.expect(200);
    let epoch = empty["epoch"].as_str().unwrap().to_owned();
    assert_eq!((&empty["oldest"], &empty["newest"]), (&Value::Null, &json!(format!("{epoch}-0"))));

    let _replica = world.connect(gateway, token).await;
    for _ in 0..7 {
        let event = json!({ "type": "api.deleted", "payload": { "apiId": "a" } });
        world.admin("POST", &format!("/api/internal/v1/gateways/{gateway}/events"), event).await.expect(201);
    }
    let stream = world.get(&path).await.expect(200);
    assert_eq!((&stream["oldest"], &stream["newest"]), (&json!(format!("{epoch}-3")), &json!(format!("{epoch}-7"))));
    assert_eq!(stream["events"], 5);
    assert!(stream["bytes"].as_u64().unwrap() > 0);
    assert_eq!(
        (&stream["connections"][0]["lag"], &stream["connections"][0]["instance"]),
        (&json!(7), &json!("default"))
    );
    world.get(&format!("/api/internal/v1/gateways/{}/stream", unknown())).await.problem(404, "GATEWAY_NOT_FOUND");
}
