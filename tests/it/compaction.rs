//! The compacted state over real sockets and a store on disk.

use serde_json::{Value, json};

use crate::app::{App, Registered};
use crate::wire::{Sse, Ws};

const RING: (&str, &str) = ("GATECAST_RING_MAX_EVENTS", "4");

async fn publish(app: &App, to: &Registered, kind: &str, api: &str) -> Value {
    let event = json!({ "type": kind, "payload": { "apiId": api } });
    let (status, answer) = app.post(&format!("/api/internal/v1/gateways/{}/events", to.id), event).await;
    assert_eq!(status, 201, "{answer}");
    answer["eventId"].clone()
}

/// What a gateway is sent after a cursor, up to `count` messages after the ack: by each transport.
async fn sent(app: &App, to: &Registered, cursor: &str, count: usize) -> [Vec<Value>; 3] {
    let mut seen = [Vec::new(), Vec::new(), Vec::new()];
    let mut ws = Ws::connect(app.address, &to.token, Some(cursor)).await.unwrap();
    let mut sse = Sse::connect(&app.http, app.address, &to.token, Some(cursor)).await.unwrap();
    ws.message().await.unwrap();
    sse.event().await.unwrap();
    for _ in 0..count {
        seen[0].push(ws.message().await.unwrap());
        seen[1].push(sse.event().await.unwrap().json());
    }
    let (mut cursor, mut connection) = (cursor.to_owned(), String::new());
    while seen[2].len() < count {
        let query = format!("?lastEventId={cursor}&max=3{connection}");
        let url = app.url(&format!("/api/internal/v1/poll/gateways/connect{query}"));
        let reply = app.http.get(url).header("api-key", &to.token).send().await.unwrap();
        assert_eq!(reply.status(), 200);
        let reply: Value = reply.json().await.unwrap();
        let events = reply["events"].as_array().unwrap().iter();
        seen[2].extend(events.filter(|event| event["type"] != "connection.ack").cloned());
        cursor = reply["lastEventId"].as_str().unwrap().to_owned();
        connection = format!("&connectionId={}", reply["connectionId"].as_str().unwrap());
    }
    seen
}

#[tokio::test]
async fn a_gateway_that_was_away_gets_the_latest_of_every_key_also_after_a_restart() {
    let app = App::with(&[RING]).await;
    let gateway = app.register("one").await;
    let first = publish(&app, &gateway, "api.deployed", "never again").await;
    let first = first.as_str().unwrap().to_owned();
    let mut ws = Ws::connect(app.address, &gateway.token, Some("earliest")).await.unwrap();
    ws.message().await.unwrap();
    let mut live = vec![ws.message().await.unwrap()];
    for round in 0..10 {
        for api in ["a", "b", "c"] {
            let kind = if api == "b" && round == 9 { "api.deleted" } else { "api.deployed" };
            publish(&app, &gateway, kind, api).await;
            live.push(ws.message().await.unwrap());
        }
    }
    for n in 0..4 {
        publish(&app, &gateway, "api.undeployed", &format!("d{n}")).await;
        live.push(ws.message().await.unwrap());
    }
    drop(ws);
    // 2 to 28 were superseded, 29 to 31 are the latest of a, b and c, 32 to 35 the ring.
    let check = async |app: &App| {
        let before = format!("{}-1", first.split('-').next().unwrap());
        assert_eq!(before, first);
        for seen in sent(app, &gateway, &first, 8).await {
            let reset = &seen[0]["payload"];
            assert_eq!((&seen[0]["type"], &reset["lost"]), (&json!("stream.reset"), &json!(27)));
            assert_eq!((&reset["compacted"], &reset["complete"]), (&json!(3), &json!(true)));
            assert_eq!(seen[1..], live[28..], "as they were delivered first");
            assert_eq!(seen[2]["type"], "api.deleted");
        }
        for (event, status) in [(&live[28], 200), (&live[20], 404)] {
            let path = format!("/api/internal/v1/events/{}/{}", gateway.id, event["eventId"].as_str().unwrap());
            assert_eq!(app.http.get(app.url(&path)).send().await.unwrap().status(), status, "{event}");
        }
        for seen in sent(app, &gateway, "earliest", 8).await {
            assert_eq!((&seen[0], &seen[1..]), (&live[0], &live[28..]), "no reset");
        }
    };
    check(&app).await;
    let app = App::in_dir(&[RING], app.stop().await).await;
    check(&app).await;
}
