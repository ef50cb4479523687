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
async fn connections_are_chosen_sorted_and_paged() {
    let world = World::new().await;
    let (one, two) = (world.gateway("edge-one").await, world.gateway("edge-two").await);
    let mut held = Vec::new();
    for gateway in [one, two, one] {
        let token = world.token(gateway).await.0;
        held.push(world.connect(gateway, token).await);
        world.clock.advance(Duration::from_secs(1));
    }
    let event = json!({ "type": "gateway.config.updated", "payload": {} });
    world.admin("POST", &format!("/api/internal/v1/gateways/{two}/events"), event).await.expect(201);
    let shown = async |query: &str| {
        let stats = world.get(&format!("/api/internal/v1/stats?{query}")).await.expect(200);
        let of = &stats["gatewayConnections"];
        let names: Vec<_> =
            of["connections"].as_array().unwrap().iter().map(|row| row["gatewayName"].clone()).collect();
        (names, of["pagination"]["total"].clone(), of["totalActive"].clone())
    };
    assert_eq!(shown("").await, (vec!["edge-one".into(), "edge-two".into(), "edge-one".into()], Value::Null, 3.into()));
    assert_eq!(shown("offset=1&limit=1").await, (vec!["edge-two".into()], 3.into(), 3.into()));
    assert_eq!(shown("search=DGE-TWO&limit=5").await, (vec!["edge-two".into()], 1.into(), 3.into()));
    assert_eq!(shown("transport=sse&limit=5").await, (vec![], 0.into(), 3.into()));
    assert_eq!(shown("sort=lag&limit=1").await.0, ["edge-two"], "the one with an event to come");
    world.get("/api/internal/v1/stats?sort=size").await.problem(400, "INVALID_PARAMETER");
    world.get("/api/internal/v1/stats?transport=ws").await.problem(400, "INVALID_PARAMETER");
}

#[tokio::test]
async fn a_page_of_10_000_connections_takes_no_more_than_50_ms() {
    let world = World::new().await;
    let mut held = Vec::new();
    for n in 0..10 {
        let gateway = world.gateway(&format!("edge-{n}")).await;
        let token = world.token(gateway).await.0;
        for _ in 0..1_000 {
            held.push(world.connect(gateway, token).await);
        }
    }
    // All of it is on this thread, whose CPU time is the same on a busy machine.
    let taken = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    };
    let mut least = Duration::MAX;
    for _ in 0..10 {
        let before = taken();
        let stats = world.get("/api/internal/v1/stats?sort=heard&limit=50&offset=9000").await.expect(200);
        least = least.min(taken() - before);
        assert_eq!(stats["gatewayConnections"]["pagination"]["total"], 10_000);
    }
    assert!(least.as_millis() <= 50, "{least:?}");
}

#[tokio::test]
async fn all_deployments_are_listed_newest_first_and_by_gateway_and_status() {
    let world = World::new().await;
    let (one, two) = (world.gateway("edge-one").await, world.gateway("edge-two").await);
    for (api, gateway) in [("orders", one), ("pets", one), ("pets", two)] {
        let body = json!([{ "revisionId": "r", "gatewayId": gateway }]);
        world.admin("POST", &format!("/api/v1/apis/{api}/deploy-revision"), body).await.expect(200);
        world.clock.advance(Duration::from_secs(1));
    }
    let listed = async |query: &str| {
        let page = world.get(&format!("/api/v1/deployments?{query}")).await.expect(200);
        let pair = |row: &Value| format!("{} {}", row["apiId"].as_str().unwrap(), row["gatewayName"].as_str().unwrap());
        page["list"].as_array().unwrap().iter().map(pair).collect::<Vec<_>>()
    };
    assert_eq!(listed("").await, ["pets edge-two", "pets edge-one", "orders edge-one"]);
    assert_eq!(listed(&format!("gatewayId={one}")).await, ["pets edge-one", "orders edge-one"]);
    assert_eq!(listed("apiId=pets&limit=1").await, ["pets edge-two"]);
    assert_eq!(listed("status=DEPLOYING").await.len(), 3);
    assert!(listed("status=DEPLOYED").await.is_empty());
    world.get("/api/v1/deployments?status=gone").await.problem(400, "INVALID_PARAMETER");
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
