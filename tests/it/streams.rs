//! Each transport as its clients see it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::app::App;
use crate::wire::{End, PATIENCE, Sse, Ws, raw, tls};

const POLL: &str = "/api/internal/v1/poll/gateways/connect";

/// A poll: status, body, and the cursor of a 204.
async fn poll(app: &App, token: &str, query: &str) -> (u16, Value, Option<String>) {
    let response = app.http.get(app.url(&format!("{POLL}?{query}"))).header("api-key", token).send().await.unwrap();
    let status = response.status().as_u16();
    let cursor = response.headers().get("last-event-id").map(|id| id.to_str().unwrap().to_owned());
    (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default(), cursor)
}

#[tokio::test]
async fn the_same_bytes_go_out_on_every_transport_and_again_on_replay() {
    let app = App::start().await;
    let gateway = app.register("one").await;
    let id = app.publish(gateway.id, 1).await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut ws = Ws::connect(app.address, &gateway.token, Some("earliest")).await.unwrap();
        ws.message().await.unwrap();
        seen.push(ws.message().await.unwrap());
        let mut sse = Sse::connect(&app.http, app.address, &gateway.token, Some("earliest")).await.unwrap();
        sse.event().await.unwrap();
        let event = sse.event().await.unwrap();
        assert_eq!((event.id.as_deref(), event.event.as_deref()), (Some(id.as_str()), Some("api.deployed")));
        seen.push(event.json());
        let (_, reply, _) = poll(&app, &gateway.token, "lastEventId=earliest").await;
        seen.push(reply["events"].as_array().unwrap().last().unwrap().clone());
    }
    seen.dedup();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(seen[0]["eventId"], id);
}

#[tokio::test]
async fn a_publishers_traceparent_goes_out_with_its_event_and_a_wrong_one_does_not() {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let app = App::start().await;
    let gateway = app.register("one").await;
    let mut ws = Ws::connect(app.address, &gateway.token, None).await.unwrap();
    ws.message().await.unwrap();
    let (to_one, to_all) = (format!("/api/internal/v1/gateways/{}/events", gateway.id), "/api/internal/v1/events");
    for (path, header, expected) in [
        (to_one.as_str(), Some(TRACE), json!(TRACE)),
        (to_all, Some(TRACE), json!(TRACE)),
        (&to_one, Some("00-\"x\"-01"), Value::Null),
        (&to_one, None, Value::Null),
    ] {
        let event = json!({"type": "api.deployed", "payload": {"apiId": "a"}, "targets": {"all": true}});
        let mut request = app.http.post(app.url(path)).json(&event);
        if let Some(header) = header {
            request = request.header("traceparent", header);
        }
        assert!(request.send().await.unwrap().status().is_success());
        let event = ws.message().await.unwrap();
        assert_eq!(event["traceparent"], expected, "{event}");
        assert_eq!(event["payload"], json!({"apiId": "a"}));
    }
}

#[tokio::test]
async fn curl_over_http_1_sees_headers_retry_ack_and_events_at_once() {
    let app = App::start().await;
    let gateway = app.register("one").await;
    let mut stream = tls(app.address, &[b"http/1.1"]).await.unwrap();
    let request = format!(
        "GET /api/internal/v1/sse/gateways/connect HTTP/1.1\r\nHost: localhost\r\napi-key: {}\r\nAccept: text/event-stream\r\n\r\n",
        gateway.token
    );
    let head = raw(&mut stream, &request, "connection.ack\",").await.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    for line in [
        "content-type: text/event-stream\r\n",
        "cache-control: no-store, no-transform\r\n",
        "x-accel-buffering: no\r\n",
    ] {
        assert!(head.contains(line), "{line} in {head}");
    }
    assert!(!head.contains("content-encoding"));
    let retry: u64 = head.split("retry: ").nth(1).unwrap().split('\n').next().unwrap().trim().parse().unwrap();
    assert!((1_000..=5_000).contains(&retry));
    let id = app.publish(gateway.id, 7).await;
    let event = raw(&mut stream, "", "\n\n").await;
    assert!(event.contains(&format!("id: {id}\nevent: api.deployed\ndata: {{\"type\":\"api.deployed\"")), "{event}");
}

#[tokio::test]
async fn sse_works_over_http_2() {
    let app = App::start().await;
    let gateway = app.register("one").await;
    let url = app.url("/api/internal/v1/sse/gateways/connect");
    let response = app.http.get(url).header("api-key", &gateway.token).send().await.unwrap();
    assert_eq!(response.version(), reqwest::Version::HTTP_2);
    let mut sse = Sse::new(response);
    let ack = sse.event().await.unwrap();
    assert_eq!((ack.event.as_deref(), ack.id.as_deref()), (Some("connection.ack"), ack.json()["position"].as_str()));
    let id = app.publish(gateway.id, 1).await;
    assert_eq!(sse.event().await.unwrap().id, Some(id));
}

#[tokio::test]
async fn head_answers_the_same_headers_without_a_connection() {
    let app = App::start().await;
    let gateway = app.register("one").await;
    let url = app.url("/api/internal/v1/sse/gateways/connect");
    let head = app.http.head(url).header("api-key", &gateway.token).send().await.unwrap();
    assert_eq!((head.status().as_u16(), &head.headers()["content-type"]), (200, &"text/event-stream".parse().unwrap()));
    assert!(app.hub.registry.is_empty());
}

#[tokio::test]
async fn a_poll_opens_with_an_ack_then_gives_events_then_204_with_the_cursor() {
    let app = App::start().await;
    let gateway = app.register("one").await;
    let (status, opened, _) = poll(&app, &gateway.token, "").await;
    assert_eq!((status, &opened["events"][0]["type"]), (200, &json!("connection.ack")));
    assert_eq!(opened["connectionId"], opened["events"][0]["connectionId"]);
    let cursor = opened["lastEventId"].as_str().unwrap().to_owned();
    let id = app.publish(gateway.id, 1).await;
    for _ in 0..2 {
        // The same cursor gets the same events: an abandoned reply loses nothing.
        let (status, reply, _) = poll(&app, &gateway.token, &format!("lastEventId={cursor}")).await;
        assert_eq!((status, &reply["events"][0]["eventId"], &reply["lastEventId"]), (200, &json!(id), &json!(id)));
        assert_eq!(reply["connectionId"], opened["connectionId"]);
        assert_eq!(reply["events"].as_array().unwrap().len(), 1);
    }
    let (status, _, header) = poll(&app, &gateway.token, &format!("lastEventId={id}&timeout=1")).await;
    assert_eq!((status, header), (204, Some(id)));
    assert_eq!(app.hub.registry.len(), 1);
}

#[tokio::test]
async fn a_second_poll_of_a_named_connection_ends_the_first_with_204() {
    let app = App::start().await;
    let gateway = app.register("one").await;
    let (_, opened, _) = poll(&app, &gateway.token, "").await;
    let (cursor, connection) = (opened["lastEventId"].as_str().unwrap(), opened["connectionId"].as_str().unwrap());
    let query = format!("lastEventId={cursor}&connectionId={connection}&timeout=60");
    let second = async {
        // Until the first one waits, the second one is the first.
        tokio::task::yield_now().await;
        poll(&app, &gateway.token, &query.replace("timeout=60", "timeout=1")).await
    };
    let (first, second) = tokio::join!(tokio::time::timeout(PATIENCE, poll(&app, &gateway.token, &query)), second);
    assert_eq!((first.expect("ended by the second").0, second.0), (204, 204));
}

#[tokio::test]
async fn an_expired_connection_id_opens_a_new_connection() {
    let app = App::start().await;
    let gateway = app.register("one").await;
    let id = app.publish(gateway.id, 1).await;
    let query = format!("lastEventId={id}&connectionId=4b34a1e2-7a7b-4c2b-9c5a-000000000000");
    let (status, reply, _) = poll(&app, &gateway.token, &query).await;
    assert_eq!(
        (status, &reply["events"][0]["type"], &reply["events"][0]["resume"]),
        (200, &json!("connection.ack"), &json!("resumed"))
    );
}

#[tokio::test]
async fn a_drain_says_goodbye_on_every_transport_with_a_slot() {
    let mut app = App::start().await;
    let gateway = app.register("one").await;
    let mut ws = Ws::connect(app.address, &gateway.token, None).await.unwrap();
    let mut sse = Sse::connect(&app.http, app.address, &gateway.token, None).await.unwrap();
    ws.message().await.unwrap();
    sse.event().await.unwrap();
    let (_, opened, _) = poll(&app, &gateway.token, "").await;
    let query = format!("timeout=60&lastEventId={}", opened["lastEventId"].as_str().unwrap());
    let drain = async {
        let waiting = async {
            while app.hub.registry.len() < 3 {
                tokio::task::yield_now().await
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    };
    let (http, url, token) = (app.http.clone(), app.url(&format!("{POLL}?{query}")), gateway.token.clone());
    let polling = tokio::spawn(async move {
        http.get(url).header("api-key", token).send().await.unwrap().json::<Value>().await.unwrap()
    });
    drain.await;
    app.drain();
    let goodbye = ws.message().await.unwrap();
    assert_eq!(goodbye["type"], "server.goodbye");
    assert!(goodbye["reconnectAfterMs"].is_u64());
    assert_eq!(ws.message().await, Err(End::Closed(1000, "server shutdown".into())));
    let last = sse.event().await.unwrap();
    assert_eq!(last.event.as_deref(), Some("server.goodbye"));
    assert_eq!(sse.event().await, None);
    let reply = tokio::time::timeout(PATIENCE, polling).await.unwrap().unwrap();
    assert_eq!(reply["events"][0]["type"], "server.goodbye");
    drop((ws, sse));
    app.stop().await;
}

#[tokio::test]
async fn revoked_means_silent_within_a_second_on_every_transport() {
    let app = App::start().await;
    let gateway = app.register("one").await;
    let mut ws = Ws::connect(app.address, &gateway.token, None).await.unwrap();
    let mut sse = Sse::connect(&app.http, app.address, &gateway.token, None).await.unwrap();
    ws.message().await.unwrap();
    sse.event().await.unwrap();
    let (_, opened, _) = poll(&app, &gateway.token, "").await;
    let path = format!("/api/v1/gateways/{}/tokens/{}", gateway.id, gateway.token_id);
    assert!(app.call(reqwest::Method::DELETE, &path, None).await.0.is_success());
    app.publish(gateway.id, 1).await;
    let second = Duration::from_secs(1);
    let end = tokio::time::timeout(second, ws.message()).await.unwrap();
    assert!(matches!(end, Err(End::Closed(1008, _))), "{end:?}");
    let last = tokio::time::timeout(second, sse.event()).await.unwrap().unwrap();
    assert_eq!((last.event.as_deref(), &last.json()["code"]), (Some("error"), &json!("TOKEN_REVOKED")));
    assert_eq!(sse.event().await, None);
    let query = format!("lastEventId={}", opened["lastEventId"].as_str().unwrap());
    assert_eq!(poll(&app, &gateway.token, &query).await.0, 401);
    assert!(app.hub.registry.is_empty());
}

#[tokio::test]
async fn plain_http_on_the_tls_port_is_refused() {
    let app = App::start().await;
    let mut stream = tokio::net::TcpStream::connect(app.address).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut seen = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut seen)).await.unwrap();
    assert!(read.is_err() || !seen.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&seen));
}

#[tokio::test]
async fn a_gateway_that_was_away_across_a_restart_catches_up_on_another_transport() {
    let app = App::start().await;
    let gateway = app.register("one").await;
    let mut ws = Ws::connect(app.address, &gateway.token, None).await.unwrap();
    ws.message().await.unwrap();
    let seen = app.publish(gateway.id, 1).await;
    assert_eq!(ws.message().await.unwrap()["eventId"], seen);
    drop(ws);
    for n in 2..=20 {
        app.publish(gateway.id, n).await;
    }
    let data = app.stop().await;
    let app = App::in_dir(&[], data).await;
    let mut sse = Sse::connect(&app.http, app.address, &gateway.token, Some(&seen)).await.unwrap();
    assert_eq!(sse.event().await.unwrap().json()["resume"], "resumed");
    for n in 2..=20 {
        assert_eq!(sse.event().await.unwrap().json()["payload"]["n"], n);
    }
    app.publish(gateway.id, 21).await;
    assert_eq!(sse.event().await.unwrap().json()["payload"]["n"], 21);
}
