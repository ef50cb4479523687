use std::time::Duration;

use serde_json::{Value, json};

use super::world::{World, unknown};

#[tokio::test]
async fn a_token_is_shown_once_in_the_shape_of_the_quickstart() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let path = format!("/api/v1/gateways/{gateway}/tokens");
    let bearer = format!("Bearer {}", super::world::ADMIN);
    // As in the quickstart: no body and no content type.
    let reply = world.send("POST", &path, &[("authorization", &bearer), ("accept", "application/json")], "").await;
    let made = reply.expect(201);
    let members: Vec<_> = made.as_object().unwrap().keys().cloned().collect();
    assert_eq!(members, ["createdAt", "id", "message", "token"]);
    assert_eq!(made["message"], "New token generated successfully.");
    let token = made["token"].as_str().unwrap();
    assert_eq!(token.len(), 43);
    assert_eq!(reply.headers["cache-control"], "no-store");

    let list = world.get(&path).await;
    assert!(!String::from_utf8_lossy(&list.body).contains(token));
    let list = list.expect(200);
    assert_eq!((&list["count"], &list["list"][0]["status"]), (&json!(1), &json!("active")));
    assert!(list["list"][0].get("hash").is_none() && list["list"][0].get("token").is_none());
}

#[tokio::test]
async fn expiry_must_be_in_the_future_and_is_kept() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let path = format!("/api/v1/gateways/{gateway}/tokens");
    for wrong in [json!("2026-11-20T17:00:00Z"), json!("tomorrow"), json!(5), json!("+10000-01-01T00:00:00Z")] {
        let fields = world.admin("POST", &path, json!({ "expiresAt": wrong })).await.problem(400, "VALIDATION_FAILED");
        assert_eq!(fields, ["/expiresAt"]);
    }
    let made = world.admin("POST", &path, json!({ "expiresAt": "2026-11-20T18:00:00+00:59" })).await.expect(201);
    assert_eq!(made["expiresAt"], "2026-11-20T17:01:00.000Z");
    let token = made["token"].as_str().unwrap();
    world.gateway_get(token, "/api/internal/v1/deployments").await.problem(404, "DEPLOYMENT_NOT_FOUND");
    world.clock.advance(Duration::from_secs(60));
    world.gateway_get(token, "/api/internal/v1/deployments").await.problem(401, "UNAUTHORIZED");
    assert_eq!(world.get(&path).await.expect(200)["list"][0]["status"], "expired");
}

#[tokio::test]
async fn two_may_be_active_also_when_many_are_asked_for_at_once() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let path = format!("/api/v1/gateways/{gateway}/tokens");
    let replies = futures::future::join_all((0..8).map(|_| world.admin("POST", &path, Value::Null))).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 201).count(), 2);
    replies.iter().filter(|reply| reply.status != 201).for_each(|reply| drop(reply.problem(409, "TOO_MANY_TOKENS")));
    world
        .admin("POST", &format!("/api/v1/gateways/{}/tokens", unknown()), Value::Null)
        .await
        .problem(404, "GATEWAY_NOT_FOUND");
}

#[tokio::test]
async fn revocation_is_immediate_and_idempotent() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let (id, token) = world.token(gateway).await;
    let (other_id, other) = world.token(gateway).await;
    let (revoked, kept) = (world.connect(gateway, id).await, world.connect(gateway, other_id).await);
    let path = format!("/api/v1/gateways/{gateway}/tokens/{id}");
    for _ in 0..2 {
        assert_eq!(world.admin("DELETE", &path, Value::Null).await.status, 204);
    }
    assert!(revoked.connection.closing().is_some() && kept.connection.closing().is_none());
    world.gateway_get(&token, "/api/internal/v1/deployments").await.problem(401, "UNAUTHORIZED");
    world.gateway_get(&other, "/api/internal/v1/deployments").await.problem(404, "DEPLOYMENT_NOT_FOUND");
    let list = world.get(&format!("/api/v1/gateways/{gateway}/tokens")).await.expect(200);
    assert_eq!(list["list"].as_array().unwrap().iter().filter(|token| token["status"] == "revoked").count(), 1);

    for missing in [unknown().to_string(), "x".to_owned()] {
        let path = format!("/api/v1/gateways/{gateway}/tokens/{missing}");
        world.admin("DELETE", &path, Value::Null).await.problem(404, "TOKEN_NOT_FOUND");
    }
    let elsewhere = world.gateway("gw-2").await;
    world
        .admin("DELETE", &format!("/api/v1/gateways/{elsewhere}/tokens/{other_id}"), Value::Null)
        .await
        .problem(404, "TOKEN_NOT_FOUND");
}
