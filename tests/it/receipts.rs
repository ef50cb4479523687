//! Receipts and stored positions over real sockets and a real disk.

use futures::SinkExt as _;
use gatecast_storage::GatewayId;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::app::App;
use crate::platform::{ORGANIZATION, Registered};
use crate::wire::{PATIENCE, Ws};

const API: &str = "23826f9e-8daf-4638-b295-14898312759f";

/// A gateway that asks to be caught up.
async fn register_stored(app: &App) -> Registered {
    let gateway =
        json!({"organizationId": ORGANIZATION, "name": "stored", "displayName": "stored", "catchUp": "stored"});
    let (status, gateway) = app.post("/api/v1/gateways", gateway).await;
    assert_eq!(status, StatusCode::CREATED, "{gateway}");
    let id: GatewayId = gateway["id"].as_str().unwrap().parse().unwrap();
    let (token_id, token) = app.token(id).await;
    Registered { id, token, token_id }
}

/// Asks until `wanted` holds of the answer.
async fn until(app: &App, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let asking = async {
        loop {
            let (status, answer) = app.get(path).await;
            assert_eq!(status, StatusCode::OK, "{answer}");
            if wanted(&answer) {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("it holds in time")
}

#[tokio::test]
async fn a_real_clients_ack_makes_a_deployment_deployed() {
    let app = App::start().await;
    let gateway = app.register("one").await;
    let mut ws = Ws::connect(app.address, &gateway.token, None).await.unwrap();
    ws.message().await.unwrap();
    let order = json!([{"gatewayId": gateway.id, "vhost": "a.example"}]);
    let (status, answer) = app.post(&format!("/api/v1/apis/{API}/deploy-revision?revisionId=r"), order).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let event = ws.message().await.unwrap();
    let ack = json!({"type": "deployment.ack", "payload": {
        "deploymentId": event["payload"]["deploymentId"], "artifactId": API, "resourceType": "RestApi", "action": "DEPLOY",
        "status": "success", "performedAt": event["payload"]["performedAt"]}});
    ws.socket.send(Message::text("not a receipt")).await.unwrap();
    ws.socket.send(Message::text(ack.to_string())).await.unwrap();
    let path = format!("/api/v1/apis/{API}/deployments");
    let list = until(&app, &path, |list| list["list"][0]["status"] == "DEPLOYED").await;
    assert_eq!((&list["list"][0]["applied"], &list["list"][0]["instances"]), (&json!(1), &json!(1)));
    let path = format!("/api/internal/v1/events/{}/{}", gateway.id, event["eventId"].as_str().unwrap());
    let (_, shown) = app.get(&path).await;
    let step = &shown["timeline"][0];
    assert_eq!(
        (&step["instance"], &step["status"], &step["connected"]),
        (&json!("default"), &json!("applied"), &json!(true))
    );
    assert!(step["sentAt"].is_string() && step["reportedAt"].is_string(), "{step}");
}

#[tokio::test]
async fn a_gateway_without_a_cursor_misses_nothing_across_a_restart() {
    let app = App::start().await;
    let gateway = register_stored(&app).await;
    let first = app.publish(gateway.id, 1).await;
    let mut ws = Ws::connect(app.address, &gateway.token, None).await.unwrap();
    assert_eq!(ws.message().await.unwrap()["resume"], "resumed");
    assert_eq!(ws.message().await.unwrap()["eventId"], first, "published before it ever connected");
    ws.socket.send(Message::Pong(first.clone().into())).await.unwrap();
    let path = format!("/api/internal/v1/gateways/{}/stream", gateway.id);
    let stream = until(&app, &path, |stream| stream["instances"][0]["position"] == first.as_str()).await;
    assert_eq!((&stream["instances"][0]["lag"], &stream["instances"][0]["address"]), (&json!(0), &json!("127.0.0.1")));
    drop(ws);
    app.publish(gateway.id, 2).await;
    let app = App::in_dir(&[], app.stop().await).await;
    app.publish(gateway.id, 3).await;
    let mut ws = Ws::connect(app.address, &gateway.token, None).await.unwrap();
    assert_eq!(ws.message().await.unwrap()["position"], first);
    for n in 2..=3 {
        assert_eq!(ws.message().await.unwrap()["payload"]["n"], n);
    }
}

#[tokio::test]
async fn receipts_are_posted_with_a_gateways_key_only() {
    let app = App::start().await;
    let gateway = app.register("one").await;
    let id = app.publish(gateway.id, 1).await;
    let receipt = json!({"type": "event.receipt", "payload": {"eventId": id, "status": "received"}});
    let url = app.url("/api/internal/v1/gateways/receipts");
    let answer = app.http.post(&url).header("api-key", &gateway.token).json(&receipt).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    assert_eq!(app.http.post(&url).json(&receipt).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
}
