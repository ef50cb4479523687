//! The seeds' quickstart, step by step.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::app::App;
use crate::wire::{End, Ws};

const API: &str = "23826f9e-8daf-4638-b295-14898312759f";
const REVISION: &str = "90d10e1c-8560-5c36-9d5a-124ecaa17485";

fn deployment(gateway: &str) -> Value {
    json!([{
        "revisionId": REVISION,
        "gatewayId": gateway,
        "status": "CREATED",
        "vhost": "mg.wso2.com",
        "displayOnDevportal": true
    }])
}

#[tokio::test]
async fn a_gateway_registers_connects_and_hears_of_a_deployment_on_both_of_its_connections() {
    let app = App::start().await;
    let gateway = app.register("test-gateway").await;
    assert_eq!(gateway.token.len(), 43);
    let mut first = Ws::connect(app.address, &gateway.token, None).await.unwrap();
    let mut second = Ws::connect(app.address, &gateway.token, None).await.unwrap();
    for connection in [&mut first, &mut second] {
        let ack = connection.message().await.unwrap();
        assert_eq!(ack["type"], "connection.ack");
        assert_eq!(ack["gatewayId"], gateway.id.to_string());
        assert!(ack["connectionId"].is_string() && ack["timestamp"].is_string());
    }
    let path = format!("/api/v1/apis/{API}/deploy-revision?revisionId={REVISION}");
    let (status, answer) = app.post(&path, deployment(&gateway.id.to_string())).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let events = [first.message().await.unwrap(), second.message().await.unwrap()];
    assert_eq!(events[0], events[1], "identical");
    let event = &events[0];
    assert_eq!(event["type"], "api.deployed");
    assert_eq!(event["eventId"], answer[0]["eventId"]);
    for (name, value) in [
        ("apiUuid", API),
        ("apiId", API),
        ("revisionId", REVISION),
        ("vhost", "mg.wso2.com"),
        ("environment", "production"),
    ] {
        assert_eq!(event["payload"][name], value, "{name}");
    }
    assert_eq!(event["payload"]["deploymentId"], answer[0]["deploymentId"]);
    assert!(event["correlationId"].is_string() && event["timestamp"].is_string());
}

#[tokio::test]
async fn a_bad_key_is_rejected() {
    let app = App::start().await;
    assert_eq!(Ws::connect(app.address, "invalid-key", None).await.err(), Some(401));
}

#[tokio::test]
async fn a_client_that_closes_is_answered_and_gone() {
    let app = App::start().await;
    let gateway = app.register("test-gateway").await;
    let mut client = Ws::connect(app.address, &gateway.token, None).await.unwrap();
    client.message().await.unwrap();
    client.socket.close(None).await.unwrap();
    assert!(matches!(client.message().await, Err(End::Broken | End::Closed(..))));
    let gone = async {
        while !app.hub.registry.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::wire::PATIENCE, gone).await.expect("gone from the registry");
}

#[tokio::test]
async fn an_artifact_is_fetched_by_the_gateway_it_is_deployed_to_and_by_no_other() {
    let app = App::start().await;
    let (gateway, other) = (app.register("one").await, app.register("other").await);
    let put = app.http.put(app.url(&format!("/api/v1/apis/{API}?revisionId={REVISION}")));
    let put = put.header("content-type", "application/yaml").body("name: pets\n").send().await.unwrap();
    assert!(put.status().is_success(), "{}", put.status());
    let path = format!("/api/v1/apis/{API}/deploy-revision?revisionId={REVISION}");
    app.post(&path, deployment(&gateway.id.to_string())).await;
    let fetch = async |token: &str| {
        let url = app.url(&format!("/api/internal/v1/apis/{API}"));
        app.http.get(url).header("api-key", token).header("accept", "application/zip").send().await.unwrap()
    };
    let zip = fetch(&gateway.token).await;
    assert_eq!((zip.status(), &zip.headers()["content-type"]), (StatusCode::OK, &"application/zip".parse().unwrap()));
    let bytes = zip.bytes().await.unwrap();
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes.to_vec())).unwrap();
    assert_eq!(archive.len(), 1);
    assert_eq!(archive.by_index(0).unwrap().name().unwrap(), format!("api-{API}.yaml"));
    let mut yaml = String::new();
    std::io::Read::read_to_string(&mut archive.by_index(0).unwrap(), &mut yaml).unwrap();
    assert_eq!(yaml, "name: pets\n");
    assert_eq!(fetch(&other.token).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(fetch("nobody").await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn what_a_newer_gateway_asks_first_is_answered_so_that_it_stays() {
    let app = App::start().await;
    let gateway = app.register("one").await;
    let (status, _) = app.get("/internal/gateway/.well-known").await;
    assert_ne!(status, StatusCode::OK);
    let manifest = app.http.post(app.url(&format!("/api/internal/v1/gateways/{}/manifest", gateway.id)));
    let manifest = manifest.header("api-key", &gateway.token).json(&json!({"any": "thing"})).send().await.unwrap();
    assert_eq!(manifest.status(), StatusCode::NO_CONTENT);
    for path in ["subscription-plans", "deployments", "artifacts/exists"] {
        let url = app.url(&format!("/api/internal/v1/{path}"));
        let nothing = app.http.get(url).header("api-key", &gateway.token).send().await.unwrap();
        assert_eq!(nothing.status(), StatusCode::NOT_FOUND, "an empty success deletes what it has: {path}");
    }
}
