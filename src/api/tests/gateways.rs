use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::world::{ORGANIZATION, World, unknown};

#[tokio::test]
async fn a_gateway_is_made_read_changed_and_deleted() {
    let world = World::new().await;
    let body = json!({ "organizationId": ORGANIZATION, "name": "test-gateway", "displayName": "Test Gateway" });
    let reply = world.admin("POST", "/api/v1/gateways", body).await;
    let made = reply.expect(201);
    let path = format!("/api/v1/gateways/{}", made["id"].as_str().unwrap());
    assert_eq!(reply.headers["location"], path.as_str());
    assert_eq!((&made["catchUp"], &made["connected"]), (&json!("live"), &json!(false)));
    assert_eq!(made["createdAt"], "2026-11-20T17:00:00.000Z");
    assert_eq!(world.get(&path).await.expect(200), made);

    world.clock.advance(Duration::from_secs(1));
    let change = json!({ "name": "test-gateway", "displayName": "Other", "vhost": "a.example", "catchUp": "stored" });
    let changed = world.admin("PUT", &path, change).await.expect(200);
    assert_eq!((&changed["displayName"], &changed["catchUp"]), (&json!("Other"), &json!("stored")));
    assert_eq!(changed["updatedAt"], "2026-11-20T17:00:01.000Z");

    assert_eq!(world.admin("DELETE", &path, Value::Null).await.status, 204);
    world.admin("DELETE", &path, Value::Null).await.problem(404, "GATEWAY_NOT_FOUND");
    world.get(&path).await.problem(404, "GATEWAY_NOT_FOUND");
}

/// There is no repeating it: the gateway is gone. What is left of its log goes after the next start.
#[tokio::test]
async fn a_gateway_whose_log_cannot_be_dropped_now_is_deleted_all_the_same() {
    let world = World::new().await;
    let body = json!({ "organizationId": ORGANIZATION, "name": "test-gateway", "displayName": "x" });
    let made = world.admin("POST", "/api/v1/gateways", body).await.expect(201);
    let path = format!("/api/v1/gateways/{}", made["id"].as_str().unwrap());
    world.log.is_down.store(true, Ordering::SeqCst);
    assert_eq!(world.admin("DELETE", &path, Value::Null).await.status, 204);
    world.get(&path).await.problem(404, "GATEWAY_NOT_FOUND");
}

/// What was under way makes its log anew.
#[tokio::test(start_paused = true)]
async fn a_gateway_that_is_deleted_beside_a_call_that_waits_for_its_log_leaves_nothing() {
    let world = World::new().await;
    let delete = async |path: &str| assert_eq!(world.admin("DELETE", path, Value::Null).await.status, 204);
    let nothing_is_left = async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(world.parts.log.gateways(None, 9).await.unwrap(), []);
        assert_eq!(world.parts.receipts.gateways(), []);
        assert_eq!(world.parts.deliveries.gateways(), []);
    };
    let path = format!("/api/v1/gateways/{}", world.gateway("gw-1").await);
    let unseen = world.log.unseen.write().await;
    let change = world.admin("PUT", &path, json!({ "displayName": "Test", "catchUp": "stored" }));
    let meanwhile = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        delete(&path).await;
        drop(unseen);
    };
    tokio::join!(change, meanwhile).0.problem(404, "GATEWAY_NOT_FOUND");
    nothing_is_left().await;

    // Its publisher waits no longer, and the event is stored all the same.
    let id = world.gateway("gw-1").await;
    let path = format!("/api/v1/gateways/{id}");
    let held = world.log.held.write().await;
    let event = json!({ "type": "api.deployed", "payload": { "apiId": "a" } });
    let events = format!("/api/internal/v1/gateways/{id}/events");
    world.admin("POST", &events, event).await.problem(503, "UNAVAILABLE");
    delete(&path).await;
    drop(held);
    nothing_is_left().await;
}

#[tokio::test]
async fn all_faults_are_reported_at_once_and_nothing_is_stored() {
    let world = World::new().await;
    let body = json!({ "organizationId": "x", "name": "-A", "displayName": "", "description": 7, "vhost": "", "catchUp": "all" });
    let mut fields = world.admin("POST", "/api/v1/gateways", body).await.problem(400, "VALIDATION_FAILED");
    fields.sort();
    fields.dedup();
    assert_eq!(fields, ["/catchUp", "/description", "/displayName", "/name", "/organizationId", "/vhost"]);
    let fields = world.admin("POST", "/api/v1/gateways", json!({})).await.problem(400, "VALIDATION_FAILED");
    assert_eq!(fields, ["/organizationId", "/name", "/displayName"]);
    world.admin("POST", "/api/v1/gateways", json!([])).await.problem(400, "VALIDATION_FAILED");
    assert_eq!(world.parts.directory.gateway_count(), 0);
}

#[tokio::test]
async fn names_are_of_the_contract_and_unique_in_their_organization() {
    let world = World::new().await;
    let make = |name: String| {
        let body = json!({ "organizationId": ORGANIZATION, "name": name, "displayName": "x" });
        world.admin("POST", "/api/v1/gateways", body)
    };
    for name in ["ab", "Ab1", "a_b", "-ab", "ab-", "a b", "", &"a".repeat(65)] {
        make(name.to_owned()).await.problem(400, "VALIDATION_FAILED");
    }
    for name in ["abc", "a-b", "0-9", &"a".repeat(64)] {
        make(name.to_owned()).await.expect(201);
    }
    make("abc".to_owned()).await.problem(409, "NAME_TAKEN");
}

#[tokio::test]
async fn what_never_changes_is_refused() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let body = json!({ "id": unknown(), "name": "gw-2", "organizationId": unknown(), "displayName": "x" });
    let path = format!("/api/v1/gateways/{gateway}");
    let fields = world.admin("PUT", &path, body).await.problem(400, "VALIDATION_FAILED");
    assert_eq!(fields, ["/id", "/name", "/organizationId"]);
    let upper = |id: &str| id.to_uppercase();
    let same = json!({ "id": upper(&gateway.to_string()), "organizationId": upper(ORGANIZATION), "displayName": "x" });
    world.admin("PUT", &path, same).await.expect(200);
    let same = json!({ "id": gateway, "name": "gw-1", "organizationId": ORGANIZATION, "displayName": "x" });
    world.admin("PUT", &path, same).await.expect(200);
}

#[tokio::test]
async fn lists_are_paged_and_filtered() {
    let world = World::new().await;
    let first = world.gateway("gw-1").await;
    for name in ["gw-2", "gw-3"] {
        world.clock.advance(Duration::from_millis(1));
        world.gateway(name).await;
    }
    let list = world.get("/api/v1/gateways?limit=2&offset=1").await.expect(200);
    assert_eq!((&list["count"], &list["pagination"]), (&json!(2), &json!({ "total": 3, "offset": 1, "limit": 2 })));
    assert_eq!(list["list"][0]["name"], "gw-2");

    let (token, _) = world.token(first).await;
    let _replica = world.connect(first, token).await;
    let list = world.get("/api/v1/gateways?connected=true").await.expect(200);
    assert_eq!((&list["count"], &list["list"][0]["connections"]), (&json!(1), &json!(1)));
    let path = format!("/api/v1/gateways?connected=false&organizationId={ORGANIZATION}");
    assert_eq!(world.get(&path).await.expect(200)["count"], 2);
    let path = format!("/api/v1/gateways?organizationId={}", unknown());
    assert_eq!(world.get(&path).await.expect(200)["count"], 0);

    for name in ["gw-40", "gw-4"] {
        world.clock.advance(Duration::from_millis(1));
        world.gateway(name).await;
    }
    let list = world.get("/api/v1/gateways?search=GW-4&limit=1").await.expect(200);
    assert_eq!(
        (&list["list"][0]["name"], &list["pagination"]["total"]),
        (&json!("gw-4"), &json!(2)),
        "the whole name first"
    );

    for query in ["limit=0", "limit=1001", "limit=x", "offset=-1", "connected=1", "organizationId=x"] {
        world.get(&format!("/api/v1/gateways?{query}")).await.problem(400, "INVALID_PARAMETER");
    }
}

#[tokio::test]
async fn deleting_ends_connections_and_lets_go_of_everything() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let (token, plain) = world.token(gateway).await;
    world
        .admin(
            "POST",
            &format!("/api/internal/v1/gateways/{gateway}/events"),
            json!({ "type": "api.deleted", "payload": { "apiId": "a" } }),
        )
        .await
        .expect(201);
    let epoch = world.parts.log.bounds(gateway).await.unwrap().epoch;
    let replica = world.connect(gateway, token).await;
    assert_eq!(world.admin("DELETE", &format!("/api/v1/gateways/{gateway}"), Value::Null).await.status, 204);
    assert!(replica.connection.closing().is_some());
    assert_ne!(world.parts.log.bounds(gateway).await.unwrap().epoch, epoch);
    assert_eq!(world.get("/api/internal/v1/deliveries/failed").await.expect(200)["count"], 0);
    world.gateway_get(&plain, "/api/internal/v1/deployments").await.problem(401, "UNAUTHORIZED");
    // Its name is free again.
    world.gateway("gw-1").await;
}

#[tokio::test]
async fn a_log_that_is_down_is_503_and_never_404() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    world.log.is_down.store(true, Ordering::SeqCst);
    for (method, path, body) in [
        (
            "POST",
            format!("/api/internal/v1/gateways/{gateway}/events"),
            json!({ "type": "api.deleted", "payload": { "apiId": "a" } }),
        ),
        ("GET", format!("/api/internal/v1/gateways/{gateway}/stream"), Value::Null),
        ("GET", format!("/api/internal/v1/events/{gateway}/00000000-1"), Value::Null),
        ("POST", "/api/v1/apis/a/deploy-revision?revisionId=1".to_owned(), json!([{ "gatewayId": gateway }])),
    ] {
        let reply = world.admin(method, &path, body).await;
        reply.problem(503, "UNAVAILABLE");
        assert!(reply.expect(503)["trackingId"].is_string());
        let seconds: u32 = reply.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=5).contains(&seconds));
    }
}
