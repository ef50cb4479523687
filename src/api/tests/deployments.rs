use serde_json::{Value, json};

use super::world::{ADMIN, AppendFault, ORGANIZATION, Reply, World, unknown};

const API: &str = "23826f9e-8daf-4638-b295-14898312759f";
const REVISION: &str = "90d10e1c-8560-5c36-9d5a-124ecaa17485";

fn path(what: &str) -> String {
    format!("/api/v1/apis/{API}/{what}?revisionId={REVISION}")
}

#[tokio::test]
async fn the_quickstarts_deployment_reaches_the_gateway() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let body = json!([{
        "revisionId": REVISION, "gatewayId": gateway, "status": "CREATED", "vhost": "mg.wso2.com", "displayOnDevportal": true
    }]);
    let answer = world.admin("POST", &path("deploy-revision"), body).await.expect(200);
    assert_eq!(answer.as_array().unwrap().len(), 1);
    let element = &answer[0];
    assert_eq!((&element["gatewayId"], &element["revisionId"]), (&json!(gateway), &json!(REVISION)));
    assert_eq!((&element["status"], &element["vhost"]), (&json!("DEPLOYING"), &json!("mg.wso2.com")));
    assert_eq!(
        (&element["displayOnDevportal"], &element["deployedTime"]),
        (&json!(true), &json!("2026-11-20T17:00:00.000Z"))
    );

    let events = world.events(gateway).await;
    assert_eq!(events.len(), 1);
    let event = &events[0];
    assert_eq!((&event["type"], &event["eventId"]), (&json!("api.deployed"), &element["eventId"]));
    let payload = json!({
        "apiUuid": API, "apiId": API, "revisionId": REVISION, "deploymentId": element["deploymentId"],
        "vhost": "mg.wso2.com", "environment": "production", "performedAt": "2026-11-20T17:00:00.000Z"
    });
    assert_eq!(event["payload"], payload);

    let list = world.get(&format!("/api/v1/apis/{API}/deployments")).await.expect(200);
    assert_eq!((&list["count"], &list["list"][0]["eventId"]), (&json!(1), &element["eventId"]));
}

#[tokio::test]
async fn an_element_may_leave_out_what_the_call_or_the_gateway_says() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let answer = world.admin("POST", &path("deploy-revision"), json!([{ "gatewayId": gateway }])).await.expect(200);
    assert_eq!((&answer[0]["revisionId"], &answer[0]["vhost"]), (&json!(REVISION), &json!("default.example")));
}

#[tokio::test]
async fn undeploying_tells_the_gateway_what_was_deployed() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let body = json!([{ "gatewayId": gateway, "vhost": "a.example", "environment": "test" }]);
    world.admin("POST", &path("deploy-revision"), body).await.expect(200);
    let path = format!("/api/v1/apis/{API}/undeploy-revision");
    let answer = world.admin("POST", &path, json!([{ "gatewayId": gateway }])).await.expect(200);
    assert_eq!(answer[0]["status"], "UNDEPLOYING");
    let event = world.events(gateway).await.pop().unwrap();
    assert_eq!(event["type"], "api.undeployed");
    assert_eq!((&event["payload"]["vhost"], &event["payload"]["environment"]), (&json!("a.example"), &json!("test")));
    assert_eq!(event["payload"]["revisionId"], REVISION);
}

#[tokio::test]
async fn all_elements_are_checked_before_any_is_sent() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let deploy = |body: Value| {
        let world = &world;
        async move { world.admin("POST", &path("deploy-revision"), body).await }
    };
    let fields =
        deploy(json!([{ "gatewayId": gateway }, { "gatewayId": unknown() }])).await.problem(404, "GATEWAY_NOT_FOUND");
    assert_eq!(fields, ["/1/gatewayId"]);
    let body = json!([{ "gatewayId": gateway }, { "gatewayId": gateway }, {}, 5, { "gatewayId": "x", "vhost": 1 },
        { "gatewayId": gateway, "vhost": "", "revisionId": 3, "displayOnDevportal": 1 }]);
    let fields = deploy(body).await.problem(400, "VALIDATION_FAILED");
    for field in
        ["/1/gatewayId", "/2/gatewayId", "/3", "/4/gatewayId", "/5/vhost", "/5/revisionId", "/5/displayOnDevportal"]
    {
        assert!(fields.iter().any(|found| found == field), "{field}: {fields:?}");
    }
    for body in [json!([]), json!({}), json!([1].repeat(1001))] {
        deploy(body).await.problem(400, "VALIDATION_FAILED");
    }
    let no_revision = format!("/api/v1/apis/{API}/deploy-revision");
    let fields =
        world.admin("POST", &no_revision, json!([{ "gatewayId": gateway }])).await.problem(400, "VALIDATION_FAILED");
    assert_eq!(fields, ["/0/revisionId"]);
    // What is wrong is not missing as well.
    let bare = json!({ "organizationId": ORGANIZATION, "name": "no-vhost", "displayName": "Test" });
    let bare = world.admin("POST", "/api/v1/gateways", bare).await.expect(201)["id"].clone();
    let wrong = json!([{ "gatewayId": gateway, "revisionId": 5 }, { "gatewayId": bare, "revisionId": "", "vhost": 5 }]);
    let fields = world.admin("POST", &no_revision, wrong).await.problem(400, "VALIDATION_FAILED");
    assert_eq!(fields, ["/0/revisionId", "/1/revisionId", "/1/vhost"]);
    world.admin("POST", "/api/v1/apis/a%20b/deploy-revision", json!([])).await.problem(400, "INVALID_PARAMETER");
    assert_eq!(world.head(gateway).await, 0);
    assert!(world.parts.directory.deployments_of_gateway(gateway).is_empty());
    world.get(&format!("/api/v1/apis/{API}/deployments")).await.problem(404, "API_NOT_FOUND");
}

#[tokio::test]
async fn a_deployment_whose_event_was_not_stored_changes_nothing() {
    let world = World::new().await;
    let (gateway, body) = (world.gateway("gw-1").await, |gateway| json!([{ "gatewayId": gateway }]));
    let row = || world.parts.directory.deployment(&API.parse().unwrap(), gateway);
    let is_down = |down| world.log.is_down.store(down, std::sync::atomic::Ordering::SeqCst);
    is_down(true);
    world.admin("POST", &path("deploy-revision"), body(gateway)).await.problem(503, "UNAVAILABLE");
    assert_eq!(row(), None);
    is_down(false);
    world.admin("POST", &path("deploy-revision"), body(gateway)).await.expect(200);
    let before = row().unwrap();
    is_down(true);
    world.admin("POST", &path("undeploy-revision"), body(gateway)).await.problem(503, "UNAVAILABLE");
    assert_eq!(row(), Some(before));
}

/// A crash at each step: whether the event is in the log and whether the row names it is one question.
#[tokio::test]
async fn after_a_crash_at_any_step_the_row_names_an_event_exactly_if_it_is_stored() {
    for order in ["deploy-revision", "undeploy-revision"] {
        for fault in [AppendFault::Lost, AppendFault::Stored] {
            let world = World::new().await;
            let gateway = world.gateway("gw-1").await;
            let body = json!([{ "gatewayId": gateway }]);
            world.admin("POST", &path("deploy-revision"), body.clone()).await.expect(200);
            let before = world.parts.directory.deployment(&API.parse().unwrap(), gateway).unwrap();
            *world.log.fails_with.lock().unwrap() = Some(fault);
            world.admin("POST", &path(order), body.clone()).await.problem(503, "UNAVAILABLE");
            // Until the restart nobody knows, so nothing else is begun.
            world.admin("POST", &path(order), body.clone()).await.problem(503, "UNAVAILABLE");
            world.admin("DELETE", &format!("/api/v1/apis/{API}"), Value::Null).await.problem(503, "UNAVAILABLE");

            let world = world.restart().await;
            let row = world.parts.directory.deployment(&API.parse().unwrap(), gateway).unwrap();
            let stored = world.events(gateway).await;
            assert_eq!(stored.len(), if fault == AppendFault::Stored { 2 } else { 1 });
            let last = stored.last().unwrap();
            assert_eq!(row.event.unwrap().to_string(), last["eventId"]);
            assert_eq!(row.id.to_string(), last["payload"]["deploymentId"]);
            assert_eq!(row.pending, None);
            if fault == AppendFault::Lost {
                assert_eq!(row, before);
            }
            world.admin("POST", &path(order), body).await.expect(200);
            let world = world.restart().await;
            let row = world.parts.directory.deployment(&API.parse().unwrap(), gateway).unwrap();
            assert_eq!(row.event.unwrap().seq.0, world.head(gateway).await);
        }
    }
}

#[tokio::test]
async fn a_gateway_may_fetch_the_artifact_as_soon_as_the_event_is_there() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let (_, token) = world.token(gateway).await;
    let bearer = format!("Bearer {ADMIN}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/yaml")];
    world.send("PUT", &format!("/api/v1/apis/{API}"), &headers, "openapi: 3").await.expect(201);
    let artifact = format!("/api/internal/v1/apis/{API}");
    let fetch = || world.gateway_get(&token, &artifact);
    assert_eq!(fetch().await.status, 404);
    let held = world.log.held.write().await;
    let (path, body) = (path("deploy-revision"), json!([{ "gatewayId": gateway }]));
    let deploy = world.admin("POST", &path, body);
    let look = async {
        while world.parts.directory.pending_deployments().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(fetch().await.status, 200);
        drop(held);
    };
    tokio::join!(deploy, look).0.expect(200);
    assert_eq!(fetch().await.status, 200);
}

#[tokio::test]
async fn what_is_undeployed_is_what_was_deployed_by_the_call_before() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let (deploy_path, undeploy_path) = (path("deploy-revision"), path("undeploy-revision"));
    let deploy = |vhost: &str| world.admin("POST", &deploy_path, json!([{ "gatewayId": gateway, "vhost": vhost }]));
    deploy("old.example").await.expect(200);
    let held = world.log.held.write().await;
    let mut deploy = Box::pin(deploy("new.example"));
    while world.parts.directory.pending_deployments().is_empty() {
        assert!(futures::poll!(&mut deploy).is_pending());
        tokio::task::yield_now().await;
    }
    let mut undeploy = Box::pin(world.admin("POST", &undeploy_path, json!([{ "gatewayId": gateway }])));
    for _ in 0..10 {
        assert!(futures::poll!(&mut undeploy).is_pending());
        tokio::task::yield_now().await;
    }
    drop(held);
    let (deployed, undeployed) = tokio::join!(deploy, undeploy);
    assert_eq!(deployed.expect(200)[0]["vhost"], "new.example");
    assert_eq!(undeployed.expect(200)[0]["vhost"], "new.example");
}

#[tokio::test]
async fn a_repeated_deployment_is_answered_with_the_first_answer_also_after_a_restart() {
    let mut world = World::new().await;
    let (a, b) = (world.gateway("gw-a").await, world.gateway("gw-b").await);
    let bearer = format!("Bearer {ADMIN}");
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", "k-1")];
    let body = json!([{ "gatewayId": a, "displayOnDevportal": true }, { "gatewayId": b }]).to_string();
    let first = world.send("POST", &path("deploy-revision"), &headers, body.clone()).await;
    assert!(!first.headers.contains_key("idempotency-replayed"));
    for _ in 0..2 {
        let again = world.send("POST", &path("deploy-revision"), &headers, body.clone()).await;
        assert_eq!(again.expect(200), first.expect(200));
        assert_eq!(again.headers["idempotency-replayed"], "true");
        assert_eq!((world.head(a).await, world.head(b).await), (1, 1));
        world = world.restart().await;
    }
    let other = json!([{ "gatewayId": a }]).to_string();
    let refused = world.send("POST", &path("deploy-revision"), &headers, other).await;
    assert_eq!(refused.problem(400, "INVALID_PARAMETER"), ["Idempotency-Key"]);
    // Another call is another scope.
    world.send("POST", &path("undeploy-revision"), &headers, body).await.expect(200);
    assert_eq!((world.head(a).await, world.head(b).await), (2, 2));
}

#[tokio::test]
async fn a_repeated_deployment_is_answered_with_the_first_answer_also_when_its_gateway_is_gone() {
    for order in ["deploy-revision", "undeploy-revision"] {
        let world = World::new().await;
        let (a, b) = (world.gateway("gw-a").await, world.gateway("gw-b").await);
        let bearer = format!("Bearer {ADMIN}");
        let headers = [("authorization", bearer.as_str()), ("idempotency-key", "k-1")];
        let body = json!([{ "gatewayId": a }, { "gatewayId": b }]).to_string();
        let first = world.send("POST", &path(order), &headers, body.clone()).await;
        assert_eq!(first.expect(200).as_array().unwrap().len(), 2);
        assert_eq!(world.admin("DELETE", &format!("/api/v1/gateways/{b}"), Value::Null).await.status, 204);
        let again = world.send("POST", &path(order), &headers, body).await;
        assert_eq!(again.expect(200), first.expect(200));
        assert_eq!(again.headers["idempotency-replayed"], "true");
        let other = json!([{ "gatewayId": b }]).to_string();
        let refused = world.send("POST", &path(order), &headers, other).await;
        assert_eq!(refused.problem(400, "INVALID_PARAMETER"), ["Idempotency-Key"]);
    }
}

#[tokio::test]
async fn a_deployment_that_a_crash_cut_short_goes_on_with_what_it_was_about() {
    let world = World::new().await;
    let mut gateways = Vec::new();
    for name in ["gw-a", "gw-b", "gw-c"] {
        gateways.push(world.gateway(name).await);
    }
    let bearer = format!("Bearer {ADMIN}");
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", "k-1")];
    let body: Value = gateways.iter().map(|gateway| json!({ "gatewayId": gateway })).collect();
    world.log.spared.store(1, std::sync::atomic::Ordering::SeqCst);
    *world.log.fails_with.lock().unwrap() = Some(AppendFault::Lost);
    let first = world.send("POST", &path("deploy-revision"), &headers, body.to_string()).await.expect(200);
    assert_eq!(first[1]["code"], "UNAVAILABLE");

    let world = world.restart().await;
    let [_, b, c] = gateways[..] else { unreachable!() };
    let elsewhere = json!({ "displayName": "Test", "vhost": "elsewhere.example" });
    world.admin("PUT", &format!("/api/v1/gateways/{b}"), elsewhere).await.expect(200);
    assert_eq!(world.admin("DELETE", &format!("/api/v1/gateways/{c}"), Value::Null).await.status, 204);
    let again = world.send("POST", &path("deploy-revision"), &headers, body.to_string()).await;
    assert!(!again.headers.contains_key("idempotency-replayed"));
    let again = again.expect(200);
    assert_eq!(again[0], first[0]);
    assert_eq!((&again[1]["vhost"], &again[2]["code"]), (&json!("default.example"), &json!("GATEWAY_NOT_FOUND")));
    let events = world.events(b).await;
    assert_eq!((events.len(), &events[0]["eventId"]), (1, &again[1]["eventId"]));
}

#[tokio::test]
async fn if_match_is_refused_where_it_cannot_be_kept() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let bearer = format!("Bearer {ADMIN}");
    let headers = [("authorization", bearer.as_str()), ("if-match", "00000000-1")];
    let elements = json!([{ "gatewayId": gateway }]);
    let event = json!({ "targets": { "all": true }, "type": "api.deployed", "payload": { "apiId": "a" } });
    let calls = [
        (path("deploy-revision"), &elements),
        (path("undeploy-revision"), &elements),
        ("/api/internal/v1/events".to_owned(), &event),
    ];
    for (path, body) in calls {
        let refused = world.send("POST", &path, &headers, body.to_string()).await;
        assert_eq!(refused.problem(400, "INVALID_PARAMETER"), ["If-Match"], "{path}");
    }
    assert_eq!(world.head(gateway).await, 0);
}

#[tokio::test]
async fn deployments_at_once_leave_the_row_of_the_last_event() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let body = json!([{ "gatewayId": gateway }]);
    let path = path("deploy-revision");
    futures::future::join_all((0..5).map(|_| world.admin("POST", &path, body.clone()))).await;
    let row = world.parts.directory.deployment(&API.parse().unwrap(), gateway).unwrap();
    assert_eq!(row.event.unwrap().seq.0, world.head(gateway).await);
}

#[tokio::test]
async fn deleting_an_api_tells_the_gateways_that_have_it() {
    let world = World::new().await;
    let (a, b) = (world.gateway("gw-a").await, world.gateway("gw-b").await);
    world.admin("POST", &path("deploy-revision"), json!([{ "gatewayId": a }])).await.expect(200);
    let path = format!("/api/v1/apis/{API}");
    world.log.is_down.store(true, std::sync::atomic::Ordering::SeqCst);
    world.admin("DELETE", &path, Value::Null).await.problem(503, "UNAVAILABLE");
    world.log.is_down.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(world.admin("DELETE", &path, Value::Null).await.status, 204);
    assert_eq!(world.events(a).await.pop().unwrap()["type"], "api.deleted");
    assert_eq!(world.head(b).await, 0);
    world.admin("DELETE", &path, Value::Null).await.problem(404, "API_NOT_FOUND");
}

/// Deploys such that the rows are put, and there is no room for what became of them; whether there is for events is said.
async fn without_room_at_the_end(world: &World, body: Value, events_fit: bool) -> Reply {
    let held = world.log.held.write().await;
    let path = path("deploy-revision");
    let call = world.admin("POST", &path, body);
    let fill = async {
        while world.parts.directory.pending_deployments().is_empty() {
            tokio::task::yield_now().await;
        }
        set_full(world, true, !events_fit);
        drop(held);
    };
    tokio::join!(call, fill).0
}

fn set_full(world: &World, records: bool, log: bool) {
    world.records.is_full.store(records, std::sync::atomic::Ordering::SeqCst);
    world.log.is_full.store(log, std::sync::atomic::Ordering::SeqCst);
}

#[tokio::test]
async fn who_was_told_of_a_deployment_is_told_that_it_is_deleted_though_its_rows_found_no_room() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let api = format!("/api/v1/apis/{API}");
    let deployed = without_room_at_the_end(&world, json!([{ "gatewayId": gateway }]), true).await;
    let deployed = deployed.expect(200);
    assert_eq!(deployed[0]["eventId"], world.events(gateway).await[0]["eventId"], "it is out, whatever the row says");
    world.admin("DELETE", &api, Value::Null).await.problem(503, "STORE_FULL");
    set_full(&world, false, false);
    assert_eq!(world.admin("DELETE", &api, Value::Null).await.status, 204);
    let events = world.events(gateway).await;
    assert_eq!((events.len(), &events[1]["type"]), (2, &json!("api.deleted")));
    let told = events[1]["payload"]["deploymentId"].as_str().unwrap().parse().unwrap();
    let told = world.parts.directory.told_of_deployment(told).unwrap();
    assert_eq!(told.event.unwrap().to_string(), events[1]["eventId"]);
}

#[tokio::test]
async fn what_is_undeployed_is_what_the_gateway_was_told_though_the_rows_found_no_room() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let body = |revision: &str| json!([{ "gatewayId": gateway, "revisionId": revision }]);
    world.admin("POST", &path("deploy-revision"), body("r1")).await.expect(200);
    let refused = without_room_at_the_end(&world, body("r2"), false).await;
    refused.problem(503, "STORE_FULL");
    set_full(&world, false, false);
    let undeploy = format!("/api/v1/apis/{API}/undeploy-revision");
    let answer = world.admin("POST", &undeploy, json!([{ "gatewayId": gateway }])).await.expect(200);
    assert_eq!(answer[0]["revisionId"], "r1");
    assert_eq!(world.events(gateway).await.pop().unwrap()["payload"]["revisionId"], "r1");
}

#[tokio::test(start_paused = true)]
async fn what_became_of_deployments_is_known_once_there_is_room_though_nobody_calls() {
    for events_fit in [true, false] {
        let world = World::new().await;
        let gateway = world.gateway("gw-1").await;
        let body = |revision: &str| json!([{ "gatewayId": gateway, "revisionId": revision }]);
        world.admin("POST", &path("deploy-revision"), body("r1")).await.expect(200);
        for _ in 0..2 {
            let answer = without_room_at_the_end(&world, body("r2"), events_fit).await;
            assert_eq!(answer.status, if events_fit { 200 } else { 503 });
            tokio::time::sleep(std::time::Duration::from_secs(60)).await;
            assert_eq!(world.parts.directory.pending_deployments().len(), 1);
            set_full(&world, false, false);
            tokio::time::sleep(std::time::Duration::from_secs(2)).await;
            let row = world.parts.directory.deployment(&API.parse().unwrap(), gateway).unwrap();
            assert_eq!((&*row.revision, &row.pending), (if events_fit { "r2" } else { "r1" }, &None));
            assert_eq!(row.event.unwrap().seq.0, world.head(gateway).await);
        }
    }
}

#[tokio::test]
async fn an_api_is_deleted_also_while_one_of_its_gateways_is() {
    let world = World::new().await;
    let delete = format!("/api/v1/apis/{API}");
    for round in 0..20 {
        let gone = world.gateway(&format!("gone-{round}")).await;
        let kept = world.gateway(&format!("kept-{round}")).await;
        world.admin("PUT", &delete, json!("openapi: 3.1.0")).await;
        let body = json!([{ "gatewayId": gone }, { "gatewayId": kept }]);
        world.admin("POST", &path("deploy-revision"), body).await.expect(200);
        // Steps of the other call in between, from none on.
        let later = async {
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            world.admin("DELETE", &delete, Value::Null).await
        };
        let gateway = format!("/api/v1/gateways/{gone}");
        let (first, second) = tokio::join!(world.admin("DELETE", &gateway, Value::Null), later);
        assert_eq!((first.status.as_u16(), second.status.as_u16()), (204, 204), "round {round}");
        assert_eq!(world.events(kept).await.pop().unwrap()["type"], "api.deleted");
    }
}
