use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use gatecast_storage::GatewayId;
use serde_json::Value;

use super::world::{ADMIN, World};
use crate::api::router::{Access, rows};

/// Paths of streams, which are in no table of ours: the transports', and the dashboard's.
const STREAMS: [&str; 4] = [
    "/api/internal/v1/ws/gateways/connect",
    "/api/internal/v1/sse/gateways/connect",
    "/api/internal/v1/poll/gateways/connect",
    crate::dashboard::STREAM,
];

/// A path with `{}` for each parameter, as the table has it.
fn pattern(path: &str) -> String {
    let step = |step: &str| if step.starts_with('{') { "{}".to_owned() } else { step.to_owned() };
    path.split('/').map(step).collect::<Vec<_>>().join("/")
}

/// Who may call, as `security` says it.
fn access(operation: &Value) -> Access {
    let schemes = operation["security"].as_array().unwrap();
    match schemes.first().map(|scheme| scheme.as_object().unwrap().keys().next().unwrap().as_str()) {
        None => Access::Public,
        Some("admin") => Access::Admin,
        Some("gateway") => Access::Gateway,
        Some(other) => unreachable!("{other}"),
    }
}

#[tokio::test]
async fn every_route_is_described_and_every_description_has_a_route() {
    let world = World::new().await;
    let openapi = world.get("/openapi.json").await.expect(200);
    assert_eq!(openapi["openapi"], "3.1.0");
    let mut described = BTreeMap::new();
    for (path, methods) in openapi["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let is_read = operation.get("requestBody").is_some();
            described.insert((method.to_uppercase(), pattern(path)), (access(operation), is_read));
        }
    }
    for path in STREAMS {
        assert!(described.remove(&("GET".to_owned(), path.to_owned())).is_some(), "{path}");
    }
    let routes =
        rows().map(|(method, path, access, is_read)| ((method.to_owned(), path.to_owned()), (access, is_read)));
    assert_eq!(described, routes.collect());
}

/// A path of a description that leads somewhere: to this gateway, an API, a type.
fn filled(path: &str, gateway: GatewayId) -> String {
    let step = |step: &str| match step {
        "{gatewayId}" => gateway.to_string(),
        step if step.starts_with('{') => "some".to_owned(),
        step => step.to_owned(),
    };
    path.split('/').map(step).collect::<Vec<_>>().join("/")
}

/// The calls of the description for which `is_meant` holds, by method and path.
fn calls(openapi: &Value, is_meant: impl Fn(&Value) -> bool) -> BTreeSet<(String, String)> {
    let paths = openapi["paths"].as_object().unwrap().iter().filter(|(path, _)| !STREAMS.contains(&path.as_str()));
    let calls = paths.flat_map(|(path, methods)| methods.as_object().unwrap().iter().map(move |call| (path, call)));
    let meant = calls.filter(|(_, (_, operation))| is_meant(operation));
    meant.map(|(path, (method, _))| (method.to_uppercase(), path.clone())).collect()
}

#[tokio::test]
async fn an_idempotency_key_is_described_wherever_it_is_looked_at() {
    let world = World::new().await;
    let openapi = world.get("/openapi.json").await.expect(200);
    let described = calls(&openapi, |operation| {
        operation["parameters"].as_array().into_iter().flatten().any(|parameter| parameter["name"] == "Idempotency-Key")
    });
    let bearer = format!("Bearer {ADMIN}");
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", "")];
    let mut looked_at = BTreeSet::new();
    for (n, (method, path)) in calls(&openapi, |operation| access(operation) == Access::Admin).into_iter().enumerate() {
        // Its own: some calls delete it.
        let gateway = world.gateway(&format!("gw-{n}")).await;
        let reply = world.send(&method, &filled(&path, gateway), &headers, "{}").await;
        let answer = serde_json::from_slice(&reply.body).unwrap_or(Value::Null);
        if answer["errors"][0]["field"] == "Idempotency-Key" {
            looked_at.insert((method, path));
        }
    }
    assert_eq!(described, looked_at);
    let answers = described.iter().map(|(method, path)| &openapi["paths"][path][method.to_lowercase()]["responses"]);
    for answers in answers {
        let mut good = answers.as_object().unwrap().iter().filter(|(status, _)| status.starts_with('2'));
        assert!(good.all(|(_, good)| good["headers"]["Idempotency-Replayed"].is_object()), "{answers}");
    }
}

#[tokio::test]
async fn a_browsers_call_from_another_site_is_described_wherever_it_is_refused() {
    let world = World::new().await;
    let gateway = world.gateway("gw-1").await;
    let openapi = world.get("/openapi.json").await.expect(200);
    let signed_in = world.admin("POST", "/api/internal/v1/session", Value::Null).await;
    let cookie = signed_in.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap();
    let headers = [("cookie", cookie), ("sec-fetch-site", "cross-site")];
    for (method, path) in calls(&openapi, |operation| access(operation) == Access::Admin) {
        world.send(&method, &filled(&path, gateway), &headers, "{}").await.problem(403, "CROSS_SITE");
        assert!(openapi["paths"][&path][method.to_lowercase()]["responses"]["403"].is_object(), "{method} {path}");
    }
}

#[tokio::test]
async fn a_cookie_is_no_proof_for_another() {
    let world = World::new().await;
    let signed_in = world.admin("POST", "/api/internal/v1/session", Value::Null).await;
    let cookie = signed_in.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap();
    let headers = [("cookie", cookie), ("gatecast-dashboard", "1")];
    world.send("GET", "/api/v1/gateways", &headers, "").await.expect(200);
    let again = world.send("POST", "/api/internal/v1/session", &headers, "").await;
    assert!(!again.headers.contains_key("set-cookie"));
    again.problem(401, "UNAUTHORIZED");
}

#[tokio::test]
async fn readiness_is_described_in_all_conditions() {
    let world = World::new().await;
    let openapi = world.get("/openapi.json").await.expect(200);
    let log = &world.log;
    let conditions = [None, Some(&log.is_full), Some(&log.is_down), Some(&*world.parts.draining)];
    let mut said = BTreeSet::new();
    for condition in conditions {
        condition.into_iter().for_each(|condition| condition.store(true, Ordering::SeqCst));
        let reply = world.bare("GET", "/ready").await;
        let status = reply.status.as_str();
        assert!(openapi["paths"]["/ready"]["get"]["responses"][status].is_object(), "{status}");
        said.insert(reply.expect(reply.status.as_u16())["status"].as_str().unwrap().to_owned());
    }
    let described = openapi["components"]["schemas"]["Ready"]["properties"]["status"]["enum"].as_array().unwrap();
    assert_eq!(described.iter().map(|status| status.as_str().unwrap().to_owned()).collect::<BTreeSet<_>>(), said);
}

#[tokio::test]
async fn the_streams_are_described_at_their_paths() {
    let world = World::new().await;
    let asyncapi = world.get("/asyncapi.json").await.expect(200);
    assert_eq!(asyncapi["asyncapi"], "3.0.0");
    let channels = asyncapi["channels"].as_object().unwrap();
    let mut addresses: Vec<_> = channels.values().map(|channel| channel["address"].as_str().unwrap()).collect();
    let mut expected = STREAMS;
    addresses.sort_unstable();
    expected.sort_unstable();
    assert_eq!(addresses, expected);
}
