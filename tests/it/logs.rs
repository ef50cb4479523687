//! The log of a busy run: a line for each state change, at its level, and never a payload or a secret.

use std::process::Stdio;
use std::time::Duration;

use futures::SinkExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::platform::{Platform, Registered};
use crate::process::{Served, address};
use crate::wire::{PATIENCE, Sse, Ws, raw, tls};

const ADMIN: &str = "admin-marker-5d1f0c";
/// In everything that is no business of a log: payloads, artifacts, wrong keys, messages of receipts.
const MARKER: &str = "marker-7b3e91";
const API: &str = "23826f9e-8daf-4638-b295-14898312759f";
/// More than a WebSocket is sent without a ping.
const EVENTS: usize = 40;

/// Events whose lines no pipe holds.
const EVENTS_OF_A_PIPE: u64 = 600;

/// All that a platform and its gateways do, well and badly; the tokens that there were.
async fn busy(platform: &Platform) -> Vec<String> {
    let (one, two) = (platform.register("one").await, platform.register("two").await);
    let artifact = platform.http.put(platform.url(&format!("/api/v1/apis/{API}?revisionId=r"))).bearer_auth(ADMIN);
    let artifact = artifact.header("content-type", "application/yaml").body(format!("secret: {MARKER}\n"));
    assert!(artifact.send().await.unwrap().status().is_success());
    let mut ws = Ws::connect(platform.address, &one.token, None).await.unwrap();
    let mut sse = Sse::connect(&platform.http, platform.address, &one.token, None).await.unwrap();
    let (_, opened, _) = platform.poll(&one.token, "").await.unwrap();
    ws.message().await.unwrap();
    sse.event().await.unwrap();
    let order = json!([{"gatewayId": one.id, "vhost": "a.example"}]);
    assert_eq!(platform.post(&format!("/api/v1/apis/{API}/deploy-revision?revisionId=r"), order).await.0, 200);
    for _ in 0..EVENTS {
        let event = json!({"type": "api.deployed", "key": MARKER, "payload": {"apiId": API, "secret": MARKER}});
        for to in [&one, &two] {
            let path = format!("/api/internal/v1/gateways/{}/events", to.id);
            assert_eq!(platform.post(&path, event.clone()).await.0, 201);
        }
    }
    let mut last = Value::Null;
    for _ in 0..=EVENTS {
        last = ws.message().await.unwrap();
        sse.event().await.unwrap();
    }
    let cursor = opened["lastEventId"].as_str().unwrap();
    assert_eq!(platform.poll(&one.token, &format!("lastEventId={cursor}")).await.unwrap().0, 200);
    refusals(platform, &one).await;
    receipts(platform, &mut ws, &one, &last).await;
    ws.socket.send(Message::binary(MARKER)).await.unwrap();
    assert!(ws.message().await.is_err());
    platform.delete(&format!("/api/v1/gateways/{}/tokens/{}", one.id, one.token_id)).await;
    while sse.event().await.is_some() {}
    platform.delete(&format!("/api/v1/gateways/{}", two.id)).await;
    vec![one.token, two.token]
}

/// Keys that are wrong, wherever they are put, and bodies that are no good.
async fn refusals(platform: &Platform, gateway: &Registered) {
    assert_eq!(Ws::connect(platform.address, MARKER, None).await.err(), Some(401));
    assert_eq!(Sse::connect(&platform.http, platform.address, MARKER, None).await.err(), Some(401));
    assert_eq!(platform.poll(MARKER, &format!("api-key={MARKER}&instance={MARKER}")).await.unwrap().0, 401);
    let stranger = Platform { admin: Some(MARKER.to_owned()), ..platform.clone() };
    assert_eq!(stranger.get(&format!("/api/v1/gateways?token={MARKER}")).await.0, 401);
    let watched = stranger.get(&format!("/api/internal/v1/dashboard/stream?gatewayId={MARKER}")).await;
    assert_eq!(watched.0, 401);
    let events = format!("/api/internal/v1/gateways/{}/events", gateway.id);
    for (path, body) in [
        (events.clone(), json!({"type": "api.deployed", "payload": {"apiId": {"secret": MARKER}}})),
        (events.clone(), json!({"type": "api.deployed", "payload": MARKER})),
        (events.clone(), json!({"type": "no.such.type", "payload": MARKER})),
        ("/api/internal/v1/events".to_owned(), json!({"type": "api.deployed", "payload": MARKER, "targets": MARKER})),
        ("/api/v1/gateways".to_owned(), json!({"name": MARKER.repeat(9), "secret": MARKER})),
    ] {
        assert_eq!(platform.post(&path, body).await.0, 400, "{path}");
    }
    let broken = platform.http.post(platform.url(&events)).bearer_auth(ADMIN).body(format!("{{\"{MARKER}"));
    assert_eq!(broken.send().await.unwrap().status(), 400);
    let conflict = platform.http.post(platform.url(&events)).bearer_auth(ADMIN).header("if-match", "00000000-7");
    let conflict = conflict.json(&json!({"type": "api.deployed", "payload": {"apiId": MARKER}}));
    assert_eq!(conflict.send().await.unwrap().status(), 412);
}

/// What a gateway says, over its connection and by call, and what is no receipt.
async fn receipts(platform: &Platform, ws: &mut Ws, gateway: &Registered, event: &Value) {
    let receipt = json!({"type": "event.receipt", "payload": {
        "eventId": event["eventId"], "status": "failed", "errorCode": MARKER, "message": MARKER}});
    for text in [receipt.to_string(), MARKER.to_owned(), json!({"type": MARKER, "payload": MARKER}).to_string()] {
        ws.socket.send(Message::text(text)).await.unwrap();
    }
    let post = |body: String| {
        let url = platform.url("/api/internal/v1/gateways/receipts");
        platform.http.post(url).header("api-key", &gateway.token).body(body).send()
    };
    assert_eq!(post(receipt.to_string()).await.unwrap().status(), 202);
    assert_eq!(post(json!([{"type": MARKER}]).to_string()).await.unwrap().status(), 400);
}

/// Runs all that at the most talkative level and returns the log.
async fn log_of_a_busy_run(format: &str) -> Vec<String> {
    let data = tempfile::tempdir().unwrap();
    let settings = [("GATECAST_LOG", "trace"), ("GATECAST_LOG_FORMAT", format), ("GATECAST_ADMIN_TOKEN", ADMIN)];
    let mut served = Served::dev(data.path(), &settings).await;
    served.platform.admin = Some(ADMIN.to_owned());
    let tokens = busy(&served.platform).await;
    served.process.signal("TERM").await;
    assert_eq!(served.process.ended().await.code(), Some(0));
    let (out, log) = (served.process.out.whole().await, served.process.err.whole().await);
    assert!(log.len() > EVENTS, "{log:#?}");
    for line in out.iter().chain(&log) {
        for secret in tokens.iter().map(String::as_str).chain([ADMIN, MARKER]) {
            assert!(!line.contains(secret), "{line}");
        }
    }
    log
}

#[tokio::test]
async fn a_busy_run_at_trace_level_logs_no_payload_and_no_secret() {
    log_of_a_busy_run("text").await;
}

#[tokio::test]
async fn json_lines_have_levels_and_each_state_change_has_one_line() {
    let log = log_of_a_busy_run("json").await;
    let lines: Vec<Value> =
        log.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    let said = |start: &str| {
        let of =
            lines.iter().filter(|line| line["fields"]["message"].as_str().is_some_and(|said| said.starts_with(start)));
        of.map(|line| line["level"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for (start, level, count) in [
        ("Gateway registered", "INFO", 2),
        ("Token created", "INFO", 2),
        ("API artifact stored", "INFO", 1),
        ("Deployment ordered", "INFO", 1),
        ("Gateway connected", "INFO", 3),
        ("Gateway disconnected", "INFO", 3),
        ("Event stored; its gateway is not connected", "INFO", EVENTS),
        ("Token revoked", "INFO", 1),
        ("Gateway deleted", "INFO", 1),
        // Three alike.
        ("Connection attempt refused", "WARN", 1),
        ("A call was refused.", "WARN", 1),
        ("A request to watch was refused.", "WARN", 1),
        ("Draining", "INFO", 1),
        ("Stopped", "INFO", 1),
    ] {
        assert_eq!(said(start), vec![level; count], "{start}");
    }
    for heartbeat in ["Ping sent", "Pong heard", "Events delivered"] {
        let levels = said(heartbeat);
        assert!(!levels.is_empty() && levels.iter().all(|level| level == "DEBUG"), "{heartbeat}: {levels:?}");
    }
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_a_failure_to_send_and_logged_as_an_error() {
    let data = tempfile::tempdir().unwrap();
    let mut served = Served::dev(data.path(), &[]).await;
    let gateway = served.platform.register("one").await;
    let mut stream = tls(served.platform.address, &[b"http/1.1"]).await.unwrap();
    let connect = format!(
        "GET /api/internal/v1/sse/gateways/connect HTTP/1.1\r\nHost: localhost\r\napi-key: {}\r\n\r\n",
        gateway.token,
    );
    raw(&mut stream, &connect, "connection.ack").await;
    // More than the sockets of both sides hold.
    for _ in 0..48 {
        let event = json!({"type": "api.deployed", "payload": {"apiId": "a", "x": "x".repeat(1 << 19)}});
        let path = format!("/api/internal/v1/gateways/{}/events", gateway.id);
        assert_eq!(served.platform.call(Method::POST, &path, Some(event)).await.0, 201);
    }
    let line = tokio::time::timeout(Duration::from_secs(60), served.process.err.containing("Gateway cut off")).await;
    let line = line.expect("10 s of a stalled write are over");
    assert!(
        line.contains("ERROR") && line.contains("WriteStalled") && line.contains(&gateway.id.to_string()),
        "{line}"
    );
}

#[tokio::test]
async fn who_is_refused_again_and_again_has_one_line_a_minute_for_each_reason_and_no_long_one() {
    let data = tempfile::tempdir().unwrap();
    let settings = [("GATECAST_ADMIN_TOKEN", ADMIN), ("WS_RATE_LIMIT_PER_MINUTE", "3")];
    let mut served = Served::dev(data.path(), &settings).await;
    let stranger = Platform { admin: Some(MARKER.to_owned()), ..served.platform.clone() };
    let long = format!("/api/v1/gateways/{}", "x".repeat(4_000));
    for attempt in 0..20 {
        let refused = Ws::connect(stranger.address, "wrong", None).await.err();
        assert_eq!(refused, Some(if attempt < 3 { 401 } else { 429 }));
        assert_eq!(stranger.get(&long).await.0, 401);
    }
    served.platform.admin = Some(ADMIN.to_owned());
    let metrics = served.platform.http.get(served.platform.url("/metrics")).bearer_auth(ADMIN).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    for counted in [
        r#"gatecast_connections_refused_total{transport="websocket",reason="RATE_LIMITED"} 17"#,
        r#"gatecast_api_refusals_total{code="UNAUTHORIZED"} 20"#,
    ] {
        assert!(metrics.contains(counted), "{counted}: {metrics}");
    }
    served.process.signal("TERM").await;
    let log = served.process.err.whole().await;
    let said = |part: &str| log.iter().filter(|line| line.contains(part)).collect::<Vec<_>>();
    for refusal in ["too many from this address", "Connection attempt refused over websocket", "A call was refused"] {
        assert_eq!(said(refusal).len(), 1, "{refusal}: {log:#?}");
    }
    let call = said("A call was refused")[0];
    assert!(call.len() < 600 && call.contains("peer.ip=127.0.0.1"), "{call}");
}

#[tokio::test]
async fn a_gateway_fills_no_log() {
    let data = tempfile::tempdir().unwrap();
    let mut served = Served::dev(data.path(), &[]).await;
    let gateway = served.platform.register("one").await;
    let event = served.platform.publish(gateway.id, 1).await;
    let (_, opened, _) = served.platform.poll(&gateway.token, "lastEventId=earliest").await.unwrap();
    for ahead in 100..120 {
        let cursor = format!("{}-{ahead}", event.split('-').next().unwrap());
        let polled = served.platform.poll(&gateway.token, &format!("lastEventId={cursor}&timeout=1")).await.unwrap();
        assert_eq!((polled.0, &polled.1["connectionId"]), (200, &opened["connectionId"]));
    }
    let failed = |message| json!({"type": "event.receipt", "payload": {"eventId": event, "status": "failed", "message": message}});
    let failures: Vec<_> = (0..20).map(|n: u8| failed(n.to_string())).collect();
    let receipts = served.platform.http.post(served.platform.url("/api/internal/v1/gateways/receipts"));
    let said = receipts.header("api-key", &gateway.token).json(&failures).send().await.unwrap();
    assert_eq!(said.json::<Value>().await.unwrap()["accepted"], 20);
    served.process.signal("TERM").await;
    let log = served.process.err.whole().await;
    for line in ["Stream reset at connect", "A replica could not apply an event"] {
        assert_eq!(log.iter().filter(|said| said.contains(line)).count(), 1, "{line}: {log:#?}");
    }
}

#[tokio::test]
async fn who_is_refused_to_watch_behind_a_proxy_has_a_line_of_its_own() {
    let data = tempfile::tempdir().unwrap();
    let settings = [("GATECAST_ADMIN_TOKEN", ADMIN), ("GATECAST_TRUSTED_PROXIES", "127.0.0.1")];
    let mut served = Served::dev(data.path(), &settings).await;
    let stream = served.platform.url("/api/internal/v1/dashboard/stream");
    let clients = ["203.0.113.7", "203.0.113.8"];
    for client in clients {
        let watch = served.platform.http.get(&stream).header("X-Forwarded-For", client);
        assert_eq!(watch.send().await.unwrap().status(), 401);
    }
    served.process.signal("TERM").await;
    let log = served.process.err.whole().await;
    let lines: Vec<_> = log.iter().filter(|line| line.contains("A request to watch was refused")).collect();
    assert_eq!(lines.len(), clients.len(), "{log:#?}");
    for (line, client) in lines.iter().zip(clients) {
        assert!(line.contains(&format!("peer.ip={client} ")), "{line}");
    }
}

#[tokio::test]
async fn a_log_that_nobody_takes_holds_nothing_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Served::command(&["--dev"], dir.path(), &[]);
    let mut server = server.stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut log = BufReader::new(server.stderr.take().unwrap()).lines();
    let address = loop {
        let line = timeout(PATIENCE, log.next_line()).await.unwrap().unwrap().expect("it listens");
        if let Some(address) = address(&line) {
            break address;
        }
    };
    let platform = Platform::new(address);
    let gateway = platform.register("one").await;
    let published = async {
        for n in 0..EVENTS_OF_A_PIPE {
            platform.publish(gateway.id, n).await;
        }
    };
    timeout(PATIENCE, published).await.expect("answers though nobody takes the log");
    assert_eq!(platform.get("/ready").await.0, 200);
    platform.delete(&format!("/api/v1/gateways/{}/tokens/{}", gateway.id, gateway.token_id)).await;
    assert_eq!(platform.poll(&gateway.token, "timeout=0").await.unwrap().0, 401);
    let pid = server.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    let ended = timeout(PATIENCE, server.wait()).await.expect("it ends though nobody takes its log").unwrap();
    assert!(ended.success(), "{ended}");
}
