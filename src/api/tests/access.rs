use std::sync::atomic::Ordering;

use super::world::{ADMIN, World};
use crate::api::router::{Access, table};

#[tokio::test]
async fn without_a_credential_every_call_is_one_and_the_same_401_but_for_health() {
    let world = World::new().await;
    let mut bodies = std::collections::BTreeSet::new();
    for (method, path, access) in table() {
        let reply = world.bare(method.as_str(), &path).await;
        if access == Access::Public {
            assert_eq!(reply.status, 200, "{method} {path}");
            continue;
        }
        reply.problem(401, "UNAUTHORIZED");
        assert!(reply.headers.contains_key("www-authenticate"), "{method} {path}");
        bodies.insert(reply.body);
    }
    assert_eq!(bodies.len(), 1);
}

#[tokio::test]
async fn a_credential_is_good_for_its_own_calls_only() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let (_, token) = world.token(gateway).await;
    for (method, path, access) in table() {
        let wrong = if access == Access::Admin { &token } else { ADMIN };
        if access != Access::Public {
            let bearer = format!("Bearer {wrong}");
            world.send(method.as_str(), &path, &[("authorization", &bearer)], "").await.problem(401, "UNAUTHORIZED");
            world.send(method.as_str(), &path, &[("api-key", wrong)], "").await.problem(401, "UNAUTHORIZED");
        }
    }
}

#[tokio::test]
async fn a_body_is_not_read_before_its_sender_is_known() {
    let world = World::new().await;
    let large = vec![b' '; 32 << 20];
    world.send("PUT", "/api/v1/apis/a", &[], large).await.problem(401, "UNAUTHORIZED");
}

#[tokio::test]
async fn unknown_paths_are_404_and_known_ones_say_what_they_take() {
    let world = World::new().await;
    world.bare("GET", "/internal/gateway/.well-known").await.problem(404, "NOT_FOUND");
    world.bare("GET", "/api/v1/nothing").await.problem(404, "NOT_FOUND");
    let reply = world.bare("DELETE", "/api/v1/gateways").await;
    reply.problem(405, "METHOD_NOT_ALLOWED");
    assert_eq!(reply.headers["allow"], "GET, HEAD, POST");
}

#[tokio::test]
async fn health_and_readiness_need_no_credential_and_tell_no_detail() {
    let world = World::new().await;
    assert_eq!(world.bare("GET", "/health").await.body, r#"{"status":"alive"}"#);
    assert_eq!(world.bare("GET", "/ready").await.expect(200)["status"], "ready");
    world.log.is_full.store(true, Ordering::SeqCst);
    assert_eq!(world.bare("GET", "/ready").await.expect(200)["status"], "read-only", "gateways connect and catch up");
    world.log.is_down.store(true, Ordering::SeqCst);
    let reply = world.bare("GET", "/ready").await;
    assert_eq!(reply.expect(503).to_string(), r#"{"status":"unavailable"}"#);
    assert!(reply.headers.contains_key("retry-after"));
    world.parts.draining.store(true, Ordering::SeqCst);
    let reply = world.bare("GET", "/ready").await;
    assert_eq!(reply.expect(503)["status"], "draining");
    assert!(reply.headers.contains_key("retry-after"));
    assert_eq!(world.bare("GET", "/health").await.status, 200);
}

/// Without its body, which the server leaves out.
#[tokio::test]
async fn head_is_what_get_is() {
    let world = World::new().await;
    let get = world.get("/api/internal/v1/event-types").await;
    let head = world.admin("HEAD", "/api/internal/v1/event-types", serde_json::Value::Null).await;
    assert_eq!((head.status, head.body), (get.status, get.body));
    assert_eq!(world.bare("HEAD", "/ready").await.status, 200);
}
