//! What operators see: connections, heartbeats, failed deliveries; and the end of a deleted gateway.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::app::App;
use crate::wire::{End, PATIENCE, Sse, Ws};

const STATS: &str = "/api/internal/v1/stats";
const ASK_EVERY: Duration = Duration::from_millis(20);
const FAILED: &str = "/api/internal/v1/deliveries/failed";

async fn ok(app: &App, path: &str) -> Value {
    let (status, answer) = app.get(path).await;
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

/// Asks until the answer is as it should be.
async fn eventually(app: &App, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let asking = async {
        loop {
            last = ok(app, path).await;
            if holds(&last) {
                return;
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    };
    let held = timeout(PATIENCE, asking).await;
    assert!(held.is_ok(), "{last:#}");
    last
}

#[tokio::test]
async fn stats_show_the_connections_of_all_transports_and_count_what_they_were_sent() {
    let app = App::start().await;
    let (one, two) = (app.register("one").await, app.register("two").await);
    let mut ws = Ws::connect(app.address, &one.token, None).await.unwrap();
    let mut sse = Sse::connect(&app.http, app.address, &one.token, None).await.unwrap();
    let acks = [ws.message().await.unwrap(), sse.event().await.unwrap().json()];
    let (_, polled, _) = app.poll(&two.token, "instance=replica-2").await.unwrap();
    let stats = ok(&app, STATS).await;
    let connections = stats["gatewayConnections"]["connections"].as_array().unwrap();
    assert_eq!((&stats["gatewayConnections"]["totalActive"], connections.len()), (&json!(3), 3));
    for (ack, transport) in acks.iter().chain([&polled["events"][0]]).zip(["websocket", "sse", "long-poll"]) {
        let shown = connections.iter().find(|shown| shown["connectionId"] == ack["connectionId"]).unwrap();
        assert_eq!(
            (&shown["gatewayId"], &shown["status"], &shown["transport"]),
            (&ack["gatewayId"], &json!("connected"), &json!(transport))
        );
        for time in ["connectedAt", "lastHeartbeat"] {
            let time = shown[time].as_str().unwrap();
            assert!(time.len() == "2026-11-20T17:00:00.123Z".len() && time.ends_with('Z'), "{time}");
        }
    }
    assert!(connections.iter().any(|shown| shown["instance"] == "replica-2"));
    app.publish(one.id, 1).await;
    ws.message().await.unwrap();
    sse.event().await.unwrap();
    let of_one = eventually(&app, &format!("{STATS}?gatewayId={}", one.id), |stats| {
        stats["eventDelivery"]["totalEventsSent"] == 2
    })
    .await;
    assert_eq!(of_one["gatewayConnections"]["totalActive"], 2);
    let of_two = ok(&app, &format!("{STATS}?gatewayId={}", two.id)).await;
    assert_eq!(
        (&of_two["gatewayConnections"]["totalActive"], &of_two["eventDelivery"]["totalEventsSent"]),
        (&json!(1), &json!(0))
    );
    let all = ok(&app, STATS).await;
    let delivery =
        json!({"totalEventsSent": 2, "failedDeliveries": 0, "lastFailureTime": null, "lastFailureReason": null});
    assert_eq!(all["eventDelivery"], delivery);
    drop((ws, sse));
    eventually(&app, STATS, |stats| stats["gatewayConnections"]["totalActive"] == 1).await;
}

#[tokio::test]
async fn last_heartbeat_moves_with_every_sign_of_life() {
    let app = App::with(&[("WS_CONNECTION_TIMEOUT", "5")]).await;
    let gateway = app.register("one").await;
    let mut ws = Ws::connect(app.address, &gateway.token, None).await.unwrap();
    ws.message().await.unwrap();
    let heartbeat =
        |stats: &Value| stats["gatewayConnections"]["connections"][0]["lastHeartbeat"].as_str().map(str::to_owned);
    let mut before = heartbeat(&ok(&app, STATS).await).unwrap();
    let reading = async {
        while let Ok(message) = ws.message().await {
            drop(message)
        }
    };
    let watching = async {
        for _ in 0..2 {
            let after = eventually(&app, STATS, |stats| heartbeat(stats).is_some_and(|now| now > before)).await;
            before = heartbeat(&after).unwrap();
        }
    };
    tokio::select! { () = reading => panic!("it stays"), () = watching => {} }
}

#[tokio::test]
async fn an_event_that_nobody_heard_is_a_failed_delivery_until_a_replica_catches_up() {
    let app = App::start().await;
    let (one, two) = (app.register("one").await, app.register("two").await);
    let events = [app.publish(one.id, 1).await, app.publish(one.id, 2).await];
    app.publish(two.id, 3).await;
    let stats = eventually(&app, STATS, |stats| stats["eventDelivery"]["failedDeliveries"] == 3).await;
    assert_eq!(stats["eventDelivery"]["lastFailureReason"], "not-connected");
    assert!(stats["eventDelivery"]["lastFailureTime"].is_string());
    let of_one = format!("{FAILED}?gatewayId={}", one.id);
    let failed = ok(&app, &of_one).await;
    let ids: Vec<_> = failed["list"].as_array().unwrap().iter().map(|row| row["eventId"].clone()).collect();
    assert_eq!(ids, [json!(events[1]), json!(events[0])], "newest first");
    let row = &failed["list"][0];
    assert_eq!(
        (&row["type"], &row["reason"], &row["recovered"]),
        (&json!("api.deployed"), &json!("not-connected"), &json!(false))
    );
    let at = row["failedAt"].as_str().unwrap();
    for (filter, count) in [
        ("reason=not-connected".to_owned(), 3),
        ("reason=write-stalled".to_owned(), 0),
        (format!("gatewayId={}", two.id), 1),
        ("since=2999-01-01T00:00:00Z".to_owned(), 0),
        ("until=2020-01-01T00:00:00Z".to_owned(), 0),
        (format!("since={at}&gatewayId={}&limit=1", one.id), 1),
    ] {
        assert_eq!(ok(&app, &format!("{FAILED}?{filter}")).await["count"], count, "{filter}");
    }
    let mut ws = Ws::connect(app.address, &one.token, Some("earliest")).await.unwrap();
    for _ in 0..3 {
        ws.message().await.unwrap();
    }
    // A pong after both is the receipt.
    ws.socket.close(None).await.unwrap();
    let recovered = |failed: &Value| failed["list"].as_array().unwrap().iter().all(|row| row["recovered"] == true);
    let failed = eventually(&app, &of_one, recovered).await;
    assert!(failed["list"][0]["recoveredAt"].is_string(), "{failed}");
    assert_eq!(ok(&app, &format!("{FAILED}?gatewayId={}", two.id)).await["list"][0]["recovered"], false);
}

#[tokio::test]
async fn a_deleted_gateway_ends_its_connections_on_every_transport_and_frees_its_log() {
    let app = App::start().await;
    let (one, two) = (app.register("one").await, app.register("two").await);
    app.publish(one.id, 1).await;
    let mut ws = Ws::connect(app.address, &one.token, None).await.unwrap();
    let mut sse = Sse::connect(&app.http, app.address, &one.token, None).await.unwrap();
    let mut other = Ws::connect(app.address, &two.token, None).await.unwrap();
    let (_, opened, _) = app.poll(&one.token, "").await.unwrap();
    for connection in [&mut ws, &mut other] {
        connection.message().await.unwrap();
    }
    sse.event().await.unwrap();
    assert_eq!(app.delete(&format!("/api/v1/gateways/{}", one.id)).await, 204);
    let second = Duration::from_secs(1);
    let end = timeout(second, ws.message()).await.unwrap();
    assert!(matches!(end, Err(End::Closed(1008, _))), "{end:?}");
    let last = timeout(second, sse.event()).await.unwrap().unwrap();
    assert_eq!((last.event.as_deref(), &last.json()["code"]), (Some("error"), &json!("GATEWAY_DELETED")));
    assert_eq!(sse.event().await, None);
    let next = app.poll(&one.token, &format!("lastEventId={}", opened["lastEventId"].as_str().unwrap())).await.unwrap();
    assert_eq!((next.0, &next.1["code"]), (401, &json!("UNAUTHORIZED")));
    assert_eq!(app.get(&format!("/api/internal/v1/gateways/{}/stream", one.id)).await.0, 404);
    assert_eq!(ok(&app, STATS).await["gatewayConnections"]["totalActive"], 1);
    assert_eq!(ok(&app, FAILED).await["count"], 0);
    // Its name is free again, and a new gateway of that name has a log of its own.
    let again = app.register("one").await;
    assert_eq!(app.bounds(again.id).await[2], 0);
    let id = app.publish(two.id, 2).await;
    assert_eq!(other.message().await.unwrap()["eventId"], id, "others go on");
}

#[tokio::test]
async fn stats_say_how_all_gateways_are_and_who_is_furthest_behind_if_asked() {
    let app = App::start().await;
    let (here, away, never) = (app.register("here").await, app.register("away").await, app.register("never").await);
    let (_, opened, _) = app.poll(&away.token, "lastEventId=latest&instance=a").await.unwrap();
    let cursor = opened["lastEventId"].as_str().unwrap().to_owned();
    let mut ws = Ws::connect(app.address, &here.token, None).await.unwrap();
    ws.message().await.unwrap();
    for n in 1..=3 {
        app.publish(away.id, n).await;
    }
    app.publish(never.id, 1).await;
    let asked = format!("{STATS}?gateways=true&limit=1");
    let stats = eventually(&app, &asked, |stats| stats["gateways"]["behind"] == 2).await;
    let gateways = &stats["gateways"];
    let counts = ["registered", "connected", "pendingDeliveries"].map(|name| gateways[name].as_u64().unwrap());
    assert_eq!(counts, [3, 2, 1], "{gateways:#}");
    let furthest = gateways["furthestBehind"].as_array().unwrap();
    let shown = |one: &Value| [one["gatewayName"].clone(), one["connections"].clone(), one["lag"].clone()];
    assert_eq!(
        furthest.iter().map(shown).collect::<Vec<_>>(),
        [[json!("away"), json!(1), json!(3)], [json!("never"), json!(0), json!(1)]]
    );
    let (status, _, _) = app.poll(&away.token, &format!("lastEventId={cursor}&instance=a")).await.unwrap();
    assert_eq!(status, 200);
    assert!(ok(&app, STATS).await.get("gateways").is_none(), "it costs a look at logs");
    assert_eq!(app.get(&format!("{STATS}?gateways=some")).await.0, 400);
}
