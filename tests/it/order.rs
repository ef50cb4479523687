//! 100,000 events to 100 gateways from 8 publishers at once: dense and in order on each transport.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gatecast::publish::{NewEvent, Outgoing};
use gatecast_storage::Cursor;
use serde_json::Value;

use crate::app::{App, Registered};
use crate::wire::{Sse, Ws};

const GATEWAYS: usize = 100;
const PUBLISHERS: u64 = 8;
const EVENTS: u64 = 100_000;
const PER_GATEWAY: u64 = EVENTS / GATEWAYS as u64;

/// Checks that a connection sees 1, 2, 3 … of its gateway and nothing else.
struct Dense {
    gateway: String,
    next: u64,
}

impl Dense {
    fn new(gateway: &Registered) -> Self {
        Self { gateway: gateway.id.to_string(), next: 1 }
    }

    fn take(&mut self, event: &Value) {
        assert_eq!(event["gatewayId"], *self.gateway);
        let cursor: Cursor = event["eventId"].as_str().unwrap().parse().unwrap();
        assert_eq!(cursor.seq.0, self.next, "dense and in order");
        self.next += 1;
    }

    fn done(&self) -> bool {
        self.next > PER_GATEWAY
    }
}

async fn over_websocket(app: Arc<App>, gateway: Registered) {
    let mut ws = Ws::connect(app.address, &gateway.token, None).await.unwrap();
    let (mut dense, ack) = (Dense::new(&gateway), ws.message().await.unwrap());
    assert_eq!(ack["type"], "connection.ack");
    while !dense.done() {
        dense.take(&ws.message().await.unwrap());
    }
}

async fn over_sse(app: Arc<App>, gateway: Registered) {
    let mut sse = Sse::connect(&app.http, app.address, &gateway.token, None).await.unwrap();
    let (mut dense, ack) = (Dense::new(&gateway), sse.event().await.unwrap());
    assert_eq!(ack.event.as_deref(), Some("connection.ack"));
    while !dense.done() {
        dense.take(&sse.event().await.unwrap().json());
    }
}

async fn over_long_poll(app: Arc<App>, gateway: Registered) {
    let mut dense = Dense::new(&gateway);
    let mut cursor = String::new();
    while !dense.done() {
        let url = app.url(&format!("/api/internal/v1/poll/gateways/connect?lastEventId={cursor}"));
        let response = app.http.get(url).header("api-key", &gateway.token).send().await.unwrap();
        if response.status() == 204 {
            continue;
        }
        let reply: Value = response.json().await.unwrap();
        for event in reply["events"].as_array().unwrap() {
            if event["type"] != "connection.ack" {
                dense.take(event);
            }
        }
        cursor = reply["lastEventId"].as_str().unwrap().to_owned();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_events_to_a_hundred_gateways_are_dense_and_in_order_on_each_transport() {
    let app = Arc::new(App::start().await);
    let mut gateways = Vec::new();
    let mut readers = tokio::task::JoinSet::new();
    for index in 0..GATEWAYS {
        let gateway = app.register(&format!("gateway-{index}")).await;
        readers.spawn(over_websocket(app.clone(), gateway.clone()));
        readers.spawn(over_sse(app.clone(), gateway.clone()));
        readers.spawn(over_long_poll(app.clone(), gateway.clone()));
        gateways.push(gateway.id);
    }
    while app.hub.registry.len() < 3 * GATEWAYS {
        tokio::task::yield_now().await;
    }
    let (gateways, turn) = (Arc::new(gateways), Arc::new(AtomicU64::new(0)));
    for _ in 0..PUBLISHERS {
        let (hub, gateways, turn) = (app.hub.clone(), gateways.clone(), turn.clone());
        readers.spawn(async move {
            loop {
                let n = turn.fetch_add(1, Ordering::Relaxed);
                let Some(gateway) = (n < EVENTS).then(|| gateways[usize::try_from(n).unwrap() % GATEWAYS]) else {
                    return;
                };
                let payload = serde_json::value::to_raw_value(&serde_json::json!({"apiId": "a", "n": n})).unwrap();
                let event = NewEvent {
                    kind: "api.deployed".parse().unwrap(),
                    payload,
                    correlation_id: None,
                    key: None,
                    traceparent: None,
                };
                let event = hub.publisher.check(event).unwrap();
                hub.publisher.publish_all(vec![Outgoing::new(gateway, &event)], None).await.remove(0).unwrap();
            }
        });
    }
    while let Some(done) = readers.join_next().await {
        done.unwrap();
    }
}
