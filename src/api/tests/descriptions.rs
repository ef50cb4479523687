use std::collections::BTreeMap;

use serde_json::Value;

use super::world::World;
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
