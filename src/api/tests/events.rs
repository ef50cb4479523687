use serde_json::{Value, json};

use super::world::{ADMIN, AppendFault, EVENT_BYTES_MAX, ORGANIZATION, Reply, World, unknown};

fn deployed(api: &str) -> Value {
    json!({ "type": "api.deployed", "payload": { "apiId": api } })
}

#[tokio::test]
async fn a_published_event_is_answered_with_what_is_stored() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let path = format!("/api/internal/v1/gateways/{gateway}/events");
    let reply = world
        .admin("POST", &path, json!({ "type": "api.deployed", "payload": { "apiId": "a" }, "correlationId": "c-1" }))
        .await;
    let made = reply.expect(201);
    assert_eq!((&made["correlationId"], &made["connections"]), (&json!("c-1"), &json!(0)));
    assert_eq!(made["timestamp"], "2026-11-20T17:00:00.000Z");

    let location = reply.headers["location"].to_str().unwrap();
    let read = world.get(location).await.expect(200);
    assert_eq!(read["event"]["eventId"], made["eventId"]);
    assert_eq!(read["event"]["payload"], json!({ "apiId": "a" }));
    assert_eq!(read["storedAt"], made["timestamp"]);

    let failed = world.get("/api/internal/v1/deliveries/failed").await.expect(200);
    assert_eq!(
        (&failed["list"][0]["eventId"], &failed["list"][0]["reason"]),
        (&made["eventId"], &json!("not-connected"))
    );

    let (token, _) = world.token(gateway).await;
    let _replica = world.connect(gateway, token).await;
    assert_eq!(world.admin("POST", &path, deployed("a")).await.expect(201)["connections"], 1);
}

#[tokio::test]
async fn events_that_are_refused_are_not_stored() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let path = format!("/api/internal/v1/gateways/{gateway}/events");
    let bearer = format!("Bearer {ADMIN}");
    let authorization = [("authorization", bearer.as_str())];
    let raw = |body: &'static str| world.send("POST", &path, &authorization, body);

    let reply = raw("{\"type\": \"api.deployed\",\n  payload").await;
    reply.problem(400, "INVALID_JSON");
    assert!(reply.expect(400)["detail"].as_str().unwrap().contains("line 2 column 3"));
    raw("").await.problem(400, "INVALID_JSON");
    raw("[1]").await.problem(400, "VALIDATION_FAILED");
    raw(r#"{"type":"a","type":"b","payload":1}"#).await.problem(400, "INVALID_JSON");
    raw("{\"type\":\"api.deployed\",\"payload\":\"\u{0}\"}").await.problem(400, "INVALID_JSON");
    assert_eq!(raw("{}").await.problem(400, "VALIDATION_FAILED"), ["/type", "/payload"]);
    let fields = raw(r#"{"type":5,"payload":{},"correlationId":1,"key":[]}"#).await.problem(400, "VALIDATION_FAILED");
    assert_eq!(fields, ["/type", "/correlationId", "/key"]);
    assert_eq!(raw(r#"{"type":"a b","payload":{}}"#).await.problem(400, "VALIDATION_FAILED"), ["/type"]);
    assert_eq!(raw(r#"{"type":"no.such","payload":{}}"#).await.problem(400, "UNKNOWN_EVENT_TYPE"), ["/type"]);
    assert_eq!(raw(r#"{"type":"api.deployed","payload":{}}"#).await.problem(400, "VALIDATION_FAILED"), ["/payload"]);
    let fields =
        raw(r#"{"type":"api.deployed","payload":{"apiId":""},"key":""}"#).await.problem(400, "VALIDATION_FAILED");
    assert_eq!(fields, ["/key", "/payload/apiId"]);

    let deep = format!(r#"{{"type":"api.deployed","payload":{}{}}}"#, "[".repeat(1500), "]".repeat(1500));
    world.send("POST", &path, &[("authorization", &bearer)], deep).await.problem(400, "VALIDATION_FAILED");
    for size in [EVENT_BYTES_MAX, EVENT_BYTES_MAX + (1 << 20)] {
        world.admin("POST", &path, deployed(&"a".repeat(size))).await.problem(413, "PAYLOAD_TOO_LARGE");
    }
    world
        .send("POST", &path, &[("authorization", &bearer), ("content-type", "text/plain")], "{}")
        .await
        .problem(415, "UNSUPPORTED_MEDIA_TYPE");
    let elsewhere = format!("/api/internal/v1/gateways/{}/events", unknown());
    world.admin("POST", &elsewhere, deployed("a")).await.problem(404, "GATEWAY_NOT_FOUND");
    world.admin("POST", "/api/internal/v1/gateways/x/events", deployed("a")).await.problem(404, "GATEWAY_NOT_FOUND");
    assert_eq!(world.head(gateway).await, 0);
}

#[tokio::test]
async fn an_array_of_its_members_is_no_body() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let event = json!(["gateway.config.updated", { "a": 1 }, null, null]);
    for path in [format!("/api/internal/v1/gateways/{gateway}/events"), "/api/internal/v1/events".to_owned()] {
        assert_eq!(world.admin("POST", &path, event.clone()).await.problem(400, "VALIDATION_FAILED"), [""]);
    }
    let tokens = format!("/api/v1/gateways/{gateway}/tokens");
    assert_eq!(
        world.admin("POST", &tokens, json!(["2026-12-20T17:00:00Z"])).await.problem(400, "VALIDATION_FAILED"),
        [""]
    );
    // Where a list is the body, its elements are objects.
    let deploy = "/api/v1/apis/a/deploy-revision?revisionId=1";
    assert_eq!(world.admin("POST", deploy, json!([[gateway]])).await.problem(400, "VALIDATION_FAILED"), ["/0"]);
    assert_eq!(world.head(gateway).await, 0);
}

#[tokio::test]
async fn if_match_appends_only_after_the_head() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let epoch = world.parts.log.bounds(gateway).await.unwrap().epoch;
    let path = format!("/api/internal/v1/gateways/{gateway}/events");
    let bearer = format!("Bearer {ADMIN}");
    let when = |head: String| {
        let body = deployed("a").to_string();
        let (world, path, bearer) = (&world, &path, &bearer);
        async move { world.send("POST", path, &[("authorization", bearer), ("if-match", &head)], body).await }
    };
    when(format!("{epoch}-0")).await.expect(201);
    when(format!("\"{epoch}-1\"")).await.expect(201);
    let reply = when(format!("{epoch}-1")).await;
    reply.problem(412, "PRECONDITION_FAILED");
    assert_eq!(reply.expect(412)["head"], format!("{epoch}-2"));
    for malformed in ["*", "x", "W/\"00000000-1\""] {
        assert_eq!(when(malformed.to_owned()).await.problem(400, "INVALID_PARAMETER"), ["If-Match"]);
    }
    assert_eq!(world.head(gateway).await, 2);
}

#[tokio::test]
async fn an_event_that_is_not_held_is_404() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let path = format!("/api/internal/v1/gateways/{gateway}/events");
    for _ in 0..7 {
        world.admin("POST", &path, deployed("a")).await.expect(201);
    }
    let epoch = world.parts.log.bounds(gateway).await.unwrap().epoch;
    // The ring of these tests holds five, and of those before it the latest of each key is kept.
    for id in
        [format!("{epoch}-1"), format!("{epoch}-8"), format!("{epoch}-0"), "00000000-2".to_owned(), "x".to_owned()]
    {
        world.get(&format!("/api/internal/v1/events/{gateway}/{id}")).await.problem(404, "EVENT_NOT_FOUND");
    }
    world.get(&format!("/api/internal/v1/events/{gateway}/{epoch}-2")).await.expect(200);
}

#[tokio::test]
async fn one_call_publishes_to_named_gateways_an_organization_or_all() {
    let world = World::new().await;
    let (a, b) = (world.gateway("gw-a").await, world.gateway("gw-b").await);
    let to = |targets: Value| json!({ "targets": targets, "type": "api.deployed", "payload": { "apiId": "a" } });
    let send = |body: Value| world.admin("POST", "/api/internal/v1/events", body);
    let sent = send(to(json!({ "gatewayIds": [a, b, a] }))).await.expect(200);
    assert_eq!(sent["count"], 2);
    assert_eq!(sent["results"][0]["gatewayId"], json!(a));
    assert!(sent["results"][1]["eventId"].as_str().unwrap().ends_with("-1"));
    assert_eq!(send(to(json!({ "organizationId": ORGANIZATION }))).await.expect(200)["count"], 2);
    assert_eq!(send(to(json!({ "organizationId": unknown() }))).await.expect(200)["count"], 0);
    assert_eq!(send(to(json!({ "all": true }))).await.expect(200)["count"], 2);
    assert_eq!((world.head(a).await, world.head(b).await), (3, 3));

    for (targets, at) in [
        (json!(null), "/targets"),
        (json!([]), "/targets"),
        (json!({}), "/targets"),
        (json!({ "all": false }), "/targets"),
        (json!({ "all": true, "gatewayIds": [a] }), "/targets"),
        (json!({ "gatewayIds": [] }), "/targets/gatewayIds"),
        (json!({ "gatewayIds": [a, "x"] }), "/targets/gatewayIds/1"),
        (json!({ "organizationId": "x" }), "/targets/organizationId"),
    ] {
        assert_eq!(send(to(targets)).await.problem(400, "VALIDATION_FAILED"), [at]);
    }
    let fields = send(to(json!({ "gatewayIds": [a, unknown()] }))).await.problem(404, "GATEWAY_NOT_FOUND");
    assert_eq!(fields, ["/targets/gatewayIds/1"]);
    let bad = json!({ "targets": { "all": true }, "type": "api.deployed", "payload": {} });
    send(bad).await.problem(400, "VALIDATION_FAILED");
    assert_eq!((world.head(a).await, world.head(b).await), (3, 3));

    world.log.is_down.store(true, std::sync::atomic::Ordering::SeqCst);
    let sent = send(to(json!({ "all": true }))).await.expect(200);
    assert_eq!(sent["results"][0], json!({ "gatewayId": sent["results"][0]["gatewayId"], "code": "UNAVAILABLE" }));
}

#[tokio::test]
async fn a_gateway_that_is_deleted_during_an_append_keeps_no_log() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let path = format!("/api/internal/v1/gateways/{gateway}/events");
    let held = world.log.held.write().await;
    let publish = world.admin("POST", &path, deployed("a"));
    let delete = async {
        world.parts.directory.delete_gateway(gateway).await.unwrap();
        drop(held);
    };
    let (reply, ()) = tokio::join!(publish, delete);
    reply.problem(404, "GATEWAY_NOT_FOUND");
    assert_eq!(world.head(gateway).await, 0);
    assert_eq!(world.get("/api/internal/v1/deliveries/failed").await.expect(200)["count"], 0);
}

#[tokio::test]
async fn a_repeated_key_is_answered_with_the_first_answer_for_ten_minutes() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let path = format!("/api/internal/v1/gateways/{gateway}/events");
    let bearer = format!("Bearer {ADMIN}");
    let publish = |key: &'static str, api: &'static str| {
        let (world, path, bearer) = (&world, &path, &bearer);
        let body = deployed(api).to_string();
        async move { world.send("POST", path, &[("authorization", bearer), ("idempotency-key", key)], body).await }
    };
    let (first, second) = tokio::join!(publish("k-1", "a"), publish("k-1", "a"));
    assert_eq!(first.expect(201), second.expect(201));
    assert_eq!(first.headers["location"], second.headers["location"]);
    assert!(!first.headers.contains_key("idempotency-replayed"));
    assert_eq!(second.headers["idempotency-replayed"], "true");
    assert_eq!(world.head(gateway).await, 1);

    assert_eq!(publish("k-1", "b").await.problem(400, "INVALID_PARAMETER"), ["Idempotency-Key"]);
    assert_eq!(publish("", "a").await.problem(400, "INVALID_PARAMETER"), ["Idempotency-Key"]);
    publish("k-2", "a").await.expect(201);
    assert_eq!(world.head(gateway).await, 2);

    world.clock.advance(std::time::Duration::from_secs(601));
    assert!(!publish("k-1", "b").await.headers.contains_key("idempotency-replayed"));
    assert_eq!(world.head(gateway).await, 3);
}

#[tokio::test]
async fn a_key_whose_event_was_not_stored_may_be_used_again() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let path = format!("/api/internal/v1/gateways/{gateway}/events");
    let bearer = format!("Bearer {ADMIN}");
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", "k-1")];
    world.log.is_down.store(true, std::sync::atomic::Ordering::SeqCst);
    world.send("POST", &path, &headers, deployed("a").to_string()).await.problem(503, "UNAVAILABLE");
    world.log.is_down.store(false, std::sync::atomic::Ordering::SeqCst);
    let reply = world.send("POST", &path, &headers, deployed("b").to_string()).await;
    reply.expect(201);
    assert!(!reply.headers.contains_key("idempotency-replayed"));
}

#[tokio::test]
async fn a_caller_that_goes_away_and_comes_again_publishes_once() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let path = format!("/api/internal/v1/gateways/{gateway}/events");
    let bearer = format!("Bearer {ADMIN}");
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", "k-1")];
    let publish = || world.send("POST", &path, &headers, deployed("a").to_string());
    let held = world.log.held.write().await;
    let mut first = Box::pin(publish());
    assert!(futures::poll!(&mut first).is_pending());
    drop(first);
    drop(held);
    assert_eq!(publish().await.headers["idempotency-replayed"], "true");
    assert_eq!(world.head(gateway).await, 1);
}

#[tokio::test]
async fn an_event_whose_publisher_went_away_is_on_record_if_nobody_was_there_to_get_it() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let path = format!("/api/internal/v1/gateways/{gateway}/events");
    let batch = json!({ "targets": { "all": true }, "type": "api.deployed", "payload": { "apiId": "a" } });
    let failed = || world.parts.deliveries.totals().count;
    for (path, body, all) in [(&*path, deployed("a"), 1), ("/api/internal/v1/events", batch, 2)] {
        let held = world.log.held.write().await;
        let mut publish = Box::pin(world.admin("POST", path, body));
        assert!(futures::poll!(&mut publish).is_pending());
        drop(publish);
        drop(held);
        let recorded = async {
            while failed() < all {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), recorded).await.unwrap();
        assert_eq!(world.head(gateway).await, all);
    }
}

#[tokio::test]
async fn an_event_that_nobody_was_there_for_is_on_record_though_somebody_came_while_it_was_stored() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let (token, _) = world.token(gateway).await;
    let path = format!("/api/internal/v1/gateways/{gateway}/events");
    let held = world.log.held.write().await;
    let publish = world.admin("POST", &path, deployed("a"));
    let connect = async {
        let replica = world.connect(gateway, token).await;
        drop(held);
        replica
    };
    let (answer, _replica) = tokio::join!(publish, connect);
    assert_eq!(answer.expect(201)["connections"], 0);
    assert_eq!(world.get("/api/internal/v1/deliveries/failed").await.expect(200)["count"], 1);
}

#[tokio::test]
async fn an_event_is_on_record_if_who_was_there_left_before_it_and_who_came_began_after_it() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let (token, _) = world.token(gateway).await;
    let path = format!("/api/internal/v1/gateways/{gateway}/events");
    let failed = async || world.get("/api/internal/v1/deliveries/failed").await.expect(200)["count"].clone();
    for (comes_before, on_record) in [(true, 0), (false, 1)] {
        let first = world.connect(gateway, token).await;
        let (held, unanswered) = (world.log.held.write().await, world.log.unanswered.write().await);
        let mut publish = Box::pin(world.admin("POST", &path, deployed("a")));
        assert!(futures::poll!(&mut publish).is_pending());
        drop(first);
        let early = if comes_before { Some(world.connect(gateway, token).await) } else { None };
        drop(held);
        assert!(futures::poll!(&mut publish).is_pending());
        let _replicas = (early, world.connect(gateway, token).await);
        drop(unanswered);
        assert_eq!(publish.await.expect(201)["connections"], 1);
        assert_eq!(failed().await, on_record);
    }
}

#[tokio::test]
async fn a_key_survives_a_restart_with_the_whole_first_answer() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let path = format!("/api/internal/v1/gateways/{gateway}/events");
    let bearer = format!("Bearer {ADMIN}");
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", "k-1")];
    let (token, _) = world.token(gateway).await;
    let replica = world.connect(gateway, token).await;
    let first = world.send("POST", &path, &headers, deployed("a").to_string()).await;
    assert_eq!(first.expect(201)["connections"], 1);
    drop(replica);

    let world = world.restart().await;
    let again = world.send("POST", &path, &headers, deployed("a").to_string()).await;
    assert_eq!((again.expect(201), &again.headers["location"]), (first.expect(201), &first.headers["location"]));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    let other = world.send("POST", &path, &headers, deployed("b").to_string()).await;
    assert_eq!(other.problem(400, "INVALID_PARAMETER"), ["Idempotency-Key"]);
    assert_eq!(world.head(gateway).await, 1);
}

#[tokio::test]
async fn an_event_that_a_failed_sync_left_is_not_published_again_after_the_restart() {
    for fault in [AppendFault::Stored, AppendFault::Lost] {
        let world = World::new().await;
        let gateway = world.gateway("gw-1").await;
        let path = format!("/api/internal/v1/gateways/{gateway}/events");
        let bearer = format!("Bearer {ADMIN}");
        let headers = [("authorization", bearer.as_str()), ("idempotency-key", "k-1")];
        *world.log.fails_with.lock().unwrap() = Some(fault);
        world.send("POST", &path, &headers, deployed("a").to_string()).await.problem(503, "UNAVAILABLE");
        let world = world.restart().await;
        let again = world.send("POST", &path, &headers, deployed("a").to_string()).await;
        again.expect(201);
        assert_eq!(again.headers.contains_key("idempotency-replayed"), fault == AppendFault::Stored);
        assert_eq!(world.head(gateway).await, 1);
    }
}

/// A batch with the key `k-1`.
async fn send_once(world: &World, body: &Value) -> Reply {
    let bearer = format!("Bearer {ADMIN}");
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", "k-1")];
    world.send("POST", "/api/internal/v1/events", &headers, body.to_string()).await
}

#[tokio::test]
async fn a_repeated_batch_gets_the_first_answer_whatever_became_of_its_type_and_targets() {
    for targets in ["gatewayIds", "organizationId", "all"] {
        let world = World::new().await;
        let (a, b) = (world.gateway("gw-a").await, world.gateway("gw-b").await);
        let kind = "/api/internal/v1/event-types/cache.flush";
        world.admin("PUT", kind, json!({ "description": "", "schema": {} })).await.expect(201);
        let targets = match targets {
            "gatewayIds" => json!({ targets: [a, b] }),
            "organizationId" => json!({ targets: ORGANIZATION }),
            _ => json!({ targets: true }),
        };
        let body = json!({ "targets": targets, "type": "cache.flush", "payload": {} });
        let first = send_once(&world, &body).await;
        assert_eq!(first.expect(200)["count"], 2);
        assert!(!first.headers.contains_key("idempotency-replayed"));

        assert_eq!(world.admin("DELETE", kind, Value::Null).await.status, 204);
        assert_eq!(world.admin("DELETE", &format!("/api/v1/gateways/{b}"), Value::Null).await.status, 204);
        let c = world.gateway("gw-c").await;
        let again = send_once(&world, &body).await;
        assert_eq!(again.expect(200), first.expect(200));
        assert_eq!(again.headers["idempotency-replayed"], "true");
        let world = world.restart().await;
        assert_eq!(send_once(&world, &body).await.expect(200), first.expect(200));
        let other = json!({ "targets": targets, "type": "cache.flush", "payload": 1 });
        assert_eq!(send_once(&world, &other).await.problem(400, "INVALID_PARAMETER"), ["Idempotency-Key"]);
        assert_eq!((world.head(a).await, world.head(c).await), (1, 0));
    }
}

#[tokio::test]
async fn a_batch_to_nobody_is_to_nobody_when_it_is_repeated() {
    let world = World::new().await;
    let body = json!({ "targets": { "all": true }, "type": "api.deployed", "payload": { "apiId": "a" } });
    let first = send_once(&world, &body).await;
    assert_eq!(first.expect(200)["count"], 0);
    assert!(!first.headers.contains_key("idempotency-replayed"));
    let gateway = world.gateway("gw-1").await;
    let again = send_once(&world, &body).await;
    assert_eq!(again.expect(200), first.expect(200));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(world.head(gateway).await, 0);
}

#[tokio::test]
async fn a_batch_that_a_crash_cut_short_goes_on_with_the_same_targets_and_correlation_id() {
    for fault in [AppendFault::Stored, AppendFault::Lost] {
        let world = World::new().await;
        for name in ["gw-a", "gw-b", "gw-c"] {
            world.gateway(name).await;
        }
        let body = json!({ "targets": { "all": true }, "type": "api.deployed", "payload": { "apiId": "a" } });
        world.log.spared.store(1, std::sync::atomic::Ordering::SeqCst);
        *world.log.fails_with.lock().unwrap() = Some(fault);
        let first = send_once(&world, &body).await.expect(200);
        assert_eq!(first["results"][1]["code"], "UNAVAILABLE");

        let world = world.restart().await;
        let late = world.gateway("gw-late").await;
        let again = send_once(&world, &body).await;
        assert_eq!(again.headers.contains_key("idempotency-replayed"), fault == AppendFault::Stored);
        let again = again.expect(200);
        assert_eq!(again["results"][0], first["results"][0]);
        assert_eq!(again["count"], 3);
        for result in again["results"].as_array().unwrap() {
            assert_eq!(result["correlationId"], first["results"][0]["correlationId"]);
            let events = world.events(result["gatewayId"].as_str().unwrap().parse().unwrap()).await;
            assert_eq!((events.len(), &events[0]["eventId"]), (1, &result["eventId"]));
            assert_eq!(events[0]["correlationId"], result["correlationId"]);
        }
        let last = send_once(&world, &body).await;
        assert_eq!((last.expect(200), &last.headers["idempotency-replayed"].to_str().unwrap()), (again, &"true"));
        assert_eq!(world.head(late).await, 0);
    }
}

#[tokio::test]
async fn a_batch_that_is_refused_for_its_key_leaves_the_call_of_before_as_it_is() {
    let world = World::new().await;
    let (a, b) = (world.gateway("gw-a").await, world.gateway("gw-b").await);
    let body =
        |api: &str| json!({ "targets": { "gatewayIds": [a, b] }, "type": "api.deployed", "payload": { "apiId": api } });
    world.log.spared.store(1, std::sync::atomic::Ordering::SeqCst);
    *world.log.fails_with.lock().unwrap() = Some(AppendFault::Lost);
    send_once(&world, &body("a")).await.expect(200);
    let world = world.restart().await;
    world.clock.advance(std::time::Duration::from_secs(5));
    send_once(&world, &body("a")).await.expect(200);
    // What it set out to do has run out, the last of its answers not yet.
    world.clock.advance(std::time::Duration::from_secs(597));
    for _ in 0..2 {
        assert_eq!(send_once(&world, &body("b")).await.problem(400, "INVALID_PARAMETER"), ["Idempotency-Key"]);
    }
    send_once(&world, &body("a")).await.expect(200);
    assert_eq!((world.head(a).await, world.head(b).await), (2, 1));
}

#[tokio::test]
async fn a_target_that_is_deleted_before_its_event_was_stored_is_told_so_when_the_batch_is_repeated() {
    let world = World::new().await;
    let (a, b) = (world.gateway("gw-a").await, world.gateway("gw-b").await);
    let body = json!({ "targets": { "gatewayIds": [a, b] }, "type": "api.deployed", "payload": { "apiId": "a" } });
    world.log.spared.store(1, std::sync::atomic::Ordering::SeqCst);
    *world.log.fails_with.lock().unwrap() = Some(AppendFault::Lost);
    let first = send_once(&world, &body).await.expect(200);
    let world = world.restart().await;
    assert_eq!(world.admin("DELETE", &format!("/api/v1/gateways/{b}"), Value::Null).await.status, 204);
    for _ in 0..2 {
        let again = send_once(&world, &body).await;
        assert!(!again.headers.contains_key("idempotency-replayed"));
        let results = json!([first["results"][0], { "gatewayId": b, "code": "GATEWAY_NOT_FOUND" }]);
        assert_eq!(again.expect(200)["results"], results);
    }
}

#[tokio::test]
async fn a_batch_whose_type_is_deleted_before_all_is_stored_is_refused_for_the_rest_when_it_is_repeated() {
    for stored in [1, 0] {
        let world = World::new().await;
        let (a, b) = (world.gateway("gw-a").await, world.gateway("gw-b").await);
        let kind = "/api/internal/v1/event-types/cache.flush";
        world.admin("PUT", kind, json!({ "schema": {} })).await.expect(201);
        let body = json!({ "targets": { "gatewayIds": [a, b] }, "type": "cache.flush", "payload": {} });
        world.log.spared.store(stored, std::sync::atomic::Ordering::SeqCst);
        *world.log.fails_with.lock().unwrap() = Some(AppendFault::Lost);
        let first = send_once(&world, &body).await.expect(200);
        let world = world.restart().await;
        assert_eq!(world.admin("DELETE", kind, Value::Null).await.status, 204);
        for _ in 0..2 {
            let again = send_once(&world, &body).await;
            assert!(!again.headers.contains_key("idempotency-replayed"));
            if stored == 0 {
                again.problem(400, "UNKNOWN_EVENT_TYPE");
                continue;
            }
            let rest = json!({ "gatewayId": b, "code": "UNKNOWN_EVENT_TYPE" });
            assert_eq!(again.expect(200)["results"], json!([first["results"][0], rest]));
        }
        world.admin("PUT", kind, json!({ "schema": {} })).await.expect(201);
        let whole = send_once(&world, &body).await.expect(200);
        assert!(whole["results"].as_array().unwrap().iter().all(|result| result["eventId"].is_string()));
        assert_eq!((world.head(a).await, world.head(b).await), (1, 1));
    }
}

#[tokio::test]
async fn a_batch_larger_than_a_chunk_answers_for_each_gateway_in_order() {
    const GATEWAYS: usize = 2_500;
    let world = World::new().await;
    let mut ids = Vec::new();
    for n in 0..GATEWAYS {
        ids.push(world.gateway(&format!("gw-{n}")).await);
    }
    ids.reverse();
    let body = json!({ "targets": { "gatewayIds": ids }, "type": "api.deployed", "payload": { "apiId": "a" } });
    let answer = world.admin("POST", "/api/internal/v1/events", body).await.expect(200);
    for (result, id) in answer["results"].as_array().unwrap().iter().zip(&ids) {
        assert_eq!(result["gatewayId"], json!(id));
        assert!(result["eventId"].as_str().unwrap().ends_with("-1"));
    }
    for id in ids {
        assert_eq!(world.events(id).await[0]["gatewayId"], json!(id));
    }
}
