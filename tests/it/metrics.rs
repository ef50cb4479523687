//! `/metrics`: what Prometheus reads, and that every number moves when its thing happens.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::SinkExt as _;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::app::App;
use crate::wire::{PATIENCE, Sse, Ws};

const ASK_EVERY: Duration = Duration::from_millis(20);

/// A page as Prometheus understands it: samples by name and labels, and the type of each family.
#[derive(Debug, Default)]
struct Page {
    samples: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
}

impl Page {
    /// Reads the text format 0.0.4, strictly: every sample below the HELP and TYPE of its family, no series twice,
    /// counters end in `_total`, buckets grow and end in `+Inf`, which is the count.
    fn parse(text: &str) -> Self {
        let mut page = Self::default();
        let mut family = String::new();
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').expect("a name and words");
                assert!(!words.is_empty() && !page.types.contains_key(name), "{line}");
                name.clone_into(&mut family);
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a name and a type");
                assert!(name == family && ["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
                page.types.insert(name.to_owned(), kind.to_owned());
            } else {
                let (series, value) = line.rsplit_once(' ').expect("a series and a value");
                let name = series.split('{').next().unwrap();
                let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
                let of_histogram = page.types[&family] == "histogram";
                assert_eq!(if of_histogram { base.expect("a part") } else { name }, family, "{line}");
                assert_labels(series);
                let value: f64 = value.parse().expect("a number");
                assert!(value >= 0.0, "{line}");
                assert!(page.samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
            }
        }
        page.assert_buckets(text);
        page
    }

    fn assert_buckets(&self, text: &str) {
        let (mut series, mut before) = (String::new(), 0.0);
        for line in text.lines().filter(|line| line.contains("_bucket{")) {
            let (name, le) = line.split_once("le=\"").unwrap();
            let value: f64 = line.rsplit_once(' ').unwrap().1.parse().unwrap();
            if name != series {
                (series, before) = (name.to_owned(), 0.0);
            }
            assert!(value >= before, "{line}");
            before = value;
            if le.starts_with("+Inf") {
                let labels = name.split_once('{').unwrap().1.trim_end_matches(',');
                let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
                let count = format!("{}_count{labels}", name.split_once("_bucket").unwrap().0);
                assert_eq!(self.samples.get(&count), Some(&value), "{count}");
            }
        }
    }

    /// The value of a series; one that is not there has never moved.
    fn get(&self, series: &str) -> f64 {
        self.samples.get(series).copied().unwrap_or(0.0)
    }
}

fn assert_labels(series: &str) {
    let Some((_, labels)) = series.split_once('{') else { return };
    let labels = labels.strip_suffix('}').expect("an end");
    for label in labels.split(',') {
        let (name, value) = label.split_once('=').expect("a name and a value");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{series}");
        assert!(value.len() >= 2 && value.starts_with('"') && value.ends_with('"'), "{series}");
    }
}

async fn text(app: &App) -> String {
    let (status, page) = app.get("/metrics").await;
    assert_eq!(status, 200);
    page.as_str().expect("text").to_owned()
}

async fn page(app: &App) -> Page {
    Page::parse(&text(app).await)
}

/// Asks until each series has moved by so much.
async fn moved(app: &App, before: &Page, by: &[(&str, f64)]) -> Page {
    let mut last = Page::default();
    let asking = async {
        loop {
            last = page(app).await;
            if by.iter().all(|(series, by)| (last.get(series) - before.get(series) - by).abs() < 1e-9) {
                return;
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    };
    let held = timeout(PATIENCE, asking).await.is_ok();
    for (series, by) in by {
        assert!(held, "{series} by {by}: from {} to {}", before.get(series), last.get(series));
    }
    last
}

#[tokio::test]
async fn connections_events_bytes_and_latencies_move_on_every_transport() {
    let app = App::start().await;
    let gateway = app.register("one").await;
    let before = page(&app).await;
    app.publish(gateway.id, 1).await;
    let mut ws = Ws::connect(app.address, &gateway.token, Some("earliest")).await.unwrap();
    let mut sse = Sse::connect(&app.http, app.address, &gateway.token, None).await.unwrap();
    let (_, opened, _) = app.poll(&gateway.token, "lastEventId=latest").await.unwrap();
    for _ in 0..2 {
        ws.message().await.unwrap();
    }
    sse.event().await.unwrap();
    let connected = moved(
        &app,
        &before,
        &[
            (r#"gatecast_connections{transport="websocket"}"#, 1.0),
            (r#"gatecast_connections{transport="sse"}"#, 1.0),
            (r#"gatecast_connections{transport="long-poll"}"#, 1.0),
            (r#"gatecast_connection_attempts_total{transport="sse"}"#, 1.0),
            ("gatecast_events_appended_total", 1.0),
            ("gatecast_append_seconds_count", 1.0),
            (r#"gatecast_events_delivered_total{transport="websocket",kind="replayed"}"#, 1.0),
            (r#"gatecast_events_delivered_total{transport="websocket",kind="live"}"#, 0.0),
            (r#"gatecast_delivery_seconds_count{transport="websocket"}"#, 0.0),
            (r#"gatecast_deliveries_failed_total{reason="not-connected"}"#, 1.0),
        ],
    )
    .await;
    app.publish(gateway.id, 2).await;
    let event = ws.message().await.unwrap();
    sse.event().await.unwrap();
    let cursor = opened["lastEventId"].as_str().unwrap();
    // The second of these is a reply given again: its event is not live any more.
    for _ in 0..2 {
        assert_eq!(app.poll(&gateway.token, &format!("lastEventId={cursor}")).await.unwrap().1["events"][0], event);
    }
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    let bytes = event.to_string().len() as f64;
    let delivered = moved(
        &app,
        &connected,
        &[
            (r#"gatecast_events_delivered_total{transport="websocket",kind="live"}"#, 1.0),
            (r#"gatecast_events_delivered_total{transport="sse",kind="live"}"#, 1.0),
            (r#"gatecast_events_delivered_total{transport="long-poll",kind="live"}"#, 1.0),
            (r#"gatecast_events_delivered_total{transport="long-poll",kind="replayed"}"#, 1.0),
            (r#"gatecast_delivered_bytes_total{transport="websocket"}"#, bytes),
            (r#"gatecast_delivered_bytes_total{transport="long-poll"}"#, 2.0 * bytes),
            (r#"gatecast_delivery_seconds_count{transport="sse"}"#, 1.0),
        ],
    )
    .await;
    for transport in ["websocket", "sse", "long-poll"] {
        let sum = delivered.get(&format!("gatecast_delivery_seconds_sum{{transport=\"{transport}\"}}"));
        assert!(sum > 0.0 && sum < PATIENCE.as_secs_f64(), "{transport}: {sum}");
    }
    drop((ws, sse));
    moved(
        &app,
        &delivered,
        &[
            (r#"gatecast_connections{transport="websocket"}"#, -1.0),
            (r#"gatecast_connections_ended_total{transport="websocket",reason="socket-broken"}"#, 1.0),
            (r#"gatecast_connections_ended_total{transport="sse",reason="peer-closed"}"#, 1.0),
        ],
    )
    .await;
}

#[tokio::test]
async fn refusals_resets_receipts_and_revocations_move() {
    let app = App::with(&[("GATECAST_RING_MAX_EVENTS", "2"), ("WS_MAX_CONNECTIONS", "1234")]).await;
    let gateway = app.register("one").await;
    let before = page(&app).await;
    assert_eq!(Ws::connect(app.address, "wrong", None).await.err(), Some(401));
    assert_eq!(app.poll("wrong", "").await.unwrap().0, 401);
    let first = app.publish(gateway.id, 1).await;
    for n in 2..=5 {
        app.publish(gateway.id, n).await;
    }
    // Without a key nothing is compacted: of 2 to 5, the first two are gone.
    let kind = json!({"description": "No state.", "schema": {}});
    let put = app.call(reqwest::Method::PUT, "/api/internal/v1/event-types/no.state", Some(kind)).await;
    assert!(put.0.is_success(), "{}", put.1);
    for _ in 0..4 {
        let event = json!({"type": "no.state", "payload": {}});
        let answer = app.post(&format!("/api/internal/v1/gateways/{}/events", gateway.id), event).await;
        assert_eq!(answer.0, 201, "{}", answer.1);
    }
    let unknown = json!({"type": "no.such.type", "payload": {}});
    assert_eq!(app.post(&format!("/api/internal/v1/gateways/{}/events", gateway.id), unknown).await.0, 400);
    let mut ws = Ws::connect(app.address, &gateway.token, Some(&first)).await.unwrap();
    assert_eq!(ws.message().await.unwrap()["resume"], "reset");
    let reset = ws.message().await.unwrap();
    let lost = reset["payload"]["lost"].as_f64().unwrap();
    assert!(lost > 0.0, "{reset}");
    let mut last = Value::Null;
    for _ in 0..reset["payload"]["compacted"].as_u64().unwrap() + 2 {
        last = ws.message().await.unwrap();
    }
    for status in ["received", "applied", "failed"] {
        let receipt = json!({"type": "event.receipt", "payload": {"eventId": last["eventId"], "status": status}});
        ws.socket.send(Message::text(receipt.to_string())).await.unwrap();
    }
    ws.socket.send(Message::text("no receipt")).await.unwrap();
    let told = moved(
        &app,
        &before,
        &[
            (r#"gatecast_connections_refused_total{transport="websocket",reason="UNAUTHORIZED"}"#, 1.0),
            (r#"gatecast_connections_refused_total{transport="long-poll",reason="UNAUTHORIZED"}"#, 1.0),
            (r#"gatecast_connection_attempts_total{transport="websocket"}"#, 2.0),
            (r#"gatecast_stream_resets_total{transport="websocket",reason="overwritten"}"#, 1.0),
            (r#"gatecast_events_lost_total{transport="websocket"}"#, lost),
            (r#"gatecast_receipts_total{status="applied"}"#, 1.0),
            (r#"gatecast_receipts_total{status="failed"}"#, 1.0),
            (r#"gatecast_receipts_total{status="ignored"}"#, 1.0),
            (r#"gatecast_api_refusals_total{code="UNKNOWN_EVENT_TYPE"}"#, 1.0),
            (r#"gatecast_store_state{state="serving"}"#, 0.0),
        ],
    )
    .await;
    assert_eq!(told.get(r#"gatecast_store_state{state="serving"}"#), 1.0);
    assert_eq!(told.get("gatecast_connections_max"), 1234.0);
    assert!(told.get(r#"gatecast_receipts_total{status="received"}"#) >= 1.0);
    app.delete(&format!("/api/v1/gateways/{}/tokens/{}", gateway.id, gateway.token_id)).await;
    let ended = r#"gatecast_connections_ended_total{transport="websocket",reason="token-revoked"}"#;
    moved(&app, &told, &[(ended, 1.0)]).await;
}

#[tokio::test]
async fn the_process_and_its_store_are_measured() {
    let app = App::start().await;
    let before = page(&app).await;
    for series in
        ["process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds", "gatecast_store_bytes"]
    {
        assert!(before.get(series) > 0.0, "{series}");
    }
    let gateway = app.register("one").await;
    let payload = "x".repeat(500_000);
    for _ in 0..8 {
        let event = json!({"type": "api.deployed", "payload": {"apiId": "a", "x": payload}});
        let (status, answer) = app.post(&format!("/api/internal/v1/gateways/{}/events", gateway.id), event).await;
        assert_eq!(status, 201, "{answer}");
    }
    let grown = async {
        while page(&app).await.get("gatecast_store_bytes") < before.get("gatecast_store_bytes") + 2e6 {
            tokio::time::sleep(ASK_EVERY).await;
        }
    };
    timeout(PATIENCE, grown).await.expect("4 MB of events take room");
    assert_eq!(page(&app).await.get("gatecast_gateways"), 1.0);
}

/// Names of our metrics in a document, without what makes a part of a histogram of them.
fn named(document: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let words = document.split(|c: char| !is_part(c));
    let ours = words.filter(|word| word.starts_with("gatecast_") || word.starts_with("process_"));
    let whole =
        |word: &str| ["_bucket", "_sum", "_count"].iter().find_map(|part| word.strip_suffix(part)).map(str::to_owned);
    ours.map(|word| whole(word).unwrap_or_else(|| word.to_owned())).collect()
}

fn in_project(path: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs promtool on a page or a file of the project, and says what it says.
async fn promtool(args: &[&str], page: Option<&str>) -> String {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("page");
    std::fs::write(&input, page.unwrap_or_default()).unwrap();
    let mut command = tokio::process::Command::new("promtool");
    command.args(args).current_dir(in_project(".")).stdin(std::fs::File::open(&input).unwrap());
    let done = timeout(PATIENCE, command.output()).await.unwrap().expect("promtool: run scripts/setup-tests");
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "promtool {args:?}: {said}");
    said
}

#[tokio::test]
async fn prometheus_own_tool_finds_nothing_wrong_with_a_page_and_no_alert_too_many_or_too_few() {
    let app = App::start().await;
    let gateway = app.register("one").await;
    app.publish(gateway.id, 1).await;
    let mut sse = Sse::connect(&app.http, app.address, &gateway.token, Some("earliest")).await.unwrap();
    sse.event().await.unwrap();
    assert_eq!(promtool(&["check", "metrics"], Some(&text(&app).await)).await, "");
    promtool(&["check", "rules", "docs/alerts.yml"], None).await;
    promtool(&["test", "rules", "tests/it/alerts.yml"], None).await;
    // Each rule is seen to fire, and not to fire.
    let tests = std::fs::read_to_string(in_project("tests/it/alerts.yml")).unwrap();
    let rules = std::fs::read_to_string(in_project("docs/alerts.yml")).unwrap();
    for rule in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let told = |line: &&str| line.contains(&format!("alertname: {rule}"));
        let times = tests.split("eval_time:").filter(told).collect::<Vec<_>>();
        let fires = times.iter().filter(|time| time.contains("exp_alerts")).count();
        assert!(fires > 0 && fires < times.len(), "{rule}: {fires} of {}", times.len());
    }
}

/// A series that begins with its first count has no increase, so nobody would be told of the first.
#[tokio::test]
async fn what_an_alert_counts_is_there_before_it_happens() {
    let app = App::start().await;
    let page = page(&app).await;
    let rules = std::fs::read_to_string(in_project("docs/alerts.yml")).unwrap();
    let counted = rules.split("increase(").skip(1).chain(rules.split("rate(").skip(1));
    let counted: BTreeSet<_> = counted.map(|rest| rest.split('[').next().unwrap()).collect();
    assert!(counted.len() >= 8, "{counted:?}");
    for selector in counted {
        let (name, label) = selector.split_once('{').unwrap_or((selector, "}"));
        let label = label.trim_end_matches('}');
        let series: Vec<_> = page.samples.keys().filter(|key| key.split('{').next() == Some(name)).collect();
        let matching = series.iter().filter(|key| key.contains(label)).count();
        let by_transport = series.iter().any(|key| key.contains("transport="));
        assert!(matching >= if by_transport { 3 } else { 1 }, "{selector}: {series:?}");
    }
}

#[tokio::test]
async fn every_metric_of_the_dashboard_and_the_alerts_exists() {
    let app = App::start().await;
    let page = page(&app).await;
    for path in ["docs/grafana-dashboard.json", "docs/alerts.yml"] {
        let document = std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
        let names = named(&document);
        assert!(names.len() > 5, "{path}: {names:?}");
        for name in names {
            assert!(page.types.contains_key(&name), "{path} names {name}");
        }
    }
    let dashboard = include_str!("../../docs/grafana-dashboard.json");
    let dashboard: Value = serde_json::from_str(dashboard).unwrap();
    let shown = named(&dashboard.to_string());
    let missing: Vec<_> = page.types.keys().filter(|name| !shown.contains(*name)).collect();
    assert!(missing.is_empty(), "not on the dashboard: {missing:?}");
}
