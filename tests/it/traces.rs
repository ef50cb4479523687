//! Traces, as a collector gets them: OTLP over HTTP as JSON, on loopback.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gatecast_storage::GatewayId;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use warp::Filter as _;

use crate::app::App;
use crate::tls_front;
use crate::wire::{PATIENCE, Sse, Ws};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const SECRET: &str = "a-secret-of-the-payload";
const ASK_EVERY: Duration = Duration::from_millis(20);

/// What was posted, and what is answered.
#[derive(Clone)]
struct Collector {
    endpoint: String,
    posts: watch::Receiver<Vec<(HeaderMap, String)>>,
    /// When each came.
    times: Arc<Mutex<Vec<Instant>>>,
    status: Arc<AtomicU16>,
    /// What is said beside the status.
    body: Arc<Mutex<&'static str>>,
    retry_after: Arc<Mutex<Option<&'static str>>>,
}

impl Collector {
    async fn start() -> Self {
        let (write, posts) = watch::channel(Vec::new());
        let (write, status) = (Arc::new(Mutex::new(write)), Arc::new(AtomicU16::new(200)));
        let (times, body, retry_after) = (Arc::default(), Arc::new(Mutex::new("{}")), Arc::new(Mutex::new(None)));
        let (came, said, later): (Arc<Mutex<Vec<_>>>, _, Arc<Mutex<Option<&str>>>) =
            (Arc::clone(&times), body.clone(), retry_after.clone());
        let answer = status.clone();
        let route = warp::post().and(warp::path!("otlp" / "v1" / "traces")).and(warp::header::headers_cloned());
        let route = route.and(warp::body::bytes()).map(move |headers: HeaderMap, body: bytes::Bytes| {
            let status = StatusCode::from_u16(answer.load(Ordering::Relaxed)).unwrap();
            let text = String::from_utf8(body.to_vec()).unwrap();
            let write = write.lock().unwrap_or_else(PoisonError::into_inner);
            came.lock().unwrap().push(Instant::now());
            write.send_modify(|posts| posts.push((headers, text)));
            let mut answer = http::Response::builder().status(status);
            if let Some(later) = *later.lock().unwrap() {
                answer = answer.header("retry-after", later);
            }
            answer.body(*said.lock().unwrap())
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/otlp/", listener.local_addr().unwrap());
        tokio::spawn(warp::serve(route).incoming(listener).run());
        Self { endpoint, posts, times, status, body, retry_after }
    }

    fn settings(&self) -> [(&str, &str); 3] {
        [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &self.endpoint),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20for-the-collector"),
            ("OTEL_SERVICE_NAME", "events-of-the-north"),
        ]
    }

    /// Every span of the posts so far.
    fn so_far(&self) -> Vec<Value> {
        let posts = self.posts.borrow();
        let bodies = posts.iter().map(|(_, body)| serde_json::from_str::<Value>(body).unwrap());
        bodies.flat_map(|body| body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone()).collect()
    }

    /// The same, once there are so many.
    async fn spans(&self, count: usize) -> Vec<Value> {
        let mut posts = self.posts.clone();
        let enough = async {
            while self.so_far().len() < count {
                posts.changed().await.unwrap();
            }
        };
        assert!(timeout(PATIENCE, enough).await.is_ok(), "{count} spans: {:#?}", self.so_far());
        self.so_far()
    }
}

fn traceparent(trace: &str, flags: &str) -> String {
    format!("00-{trace}-{PARENT}-{flags}")
}

async fn publish(app: &App, path: &str, trace: Option<&str>, more: Value) -> Value {
    let mut event = json!({"type": "api.deployed", "payload": {"apiId": "a", "x": SECRET}, "correlationId": SECRET});
    event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut request = app.http.post(app.url(path)).json(&event);
    if let Some(trace) = trace {
        request = request.header("traceparent", trace);
    }
    let (status, answer) = crate::platform::answer(request.send().await.unwrap()).await;
    assert!(status.is_success(), "{answer}");
    answer
}

fn to(gateway: GatewayId) -> String {
    format!("/api/internal/v1/gateways/{gateway}/events")
}

fn named<'s>(spans: &'s [Value], name: &str) -> Vec<&'s Value> {
    spans.iter().filter(|span| span["name"] == name).collect()
}

fn attribute<'s>(span: &'s Value, name: &str) -> Option<&'s str> {
    let all = span["attributes"].as_array().unwrap();
    all.iter().find(|attribute| attribute["key"] == name)?["value"]["stringValue"].as_str()
}

/// What `/metrics` says of spans.
async fn counted(app: &App, outcome: &str) -> u64 {
    let (_, page) = app.get("/metrics").await;
    let series = format!("gatecast_spans_total{{outcome=\"{outcome}\"}} ");
    page.as_str().unwrap().lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse().unwrap()
}

async fn until_counted(app: &App, outcome: &str, count: u64) {
    let counts = async {
        while counted(app, outcome).await < count {
            tokio::time::sleep(ASK_EVERY).await;
        }
    };
    assert!(timeout(PATIENCE, counts).await.is_ok(), "{outcome}: {}", counted(app, outcome).await);
}

#[tokio::test]
async fn a_sampled_event_is_traced_from_its_publish_to_each_connection_and_no_other_is() {
    let collector = Collector::start().await;
    let app = App::with(&collector.settings()).await;
    let gateway = app.register("one").await;
    let mut ws = Ws::connect(app.address, &gateway.token, None).await.unwrap();
    let mut sse = Sse::connect(&app.http, app.address, &gateway.token, None).await.unwrap();
    ws.message().await.unwrap();
    sse.event().await.unwrap();
    publish(&app, &to(gateway.id), None, json!({})).await;
    publish(&app, &to(gateway.id), Some(&traceparent(&TRACE.replace('4', "5"), "00")), json!({})).await;
    let event = publish(&app, &to(gateway.id), Some(&traceparent(TRACE, "01")), json!({})).await["eventId"].clone();
    let spans = collector.spans(4).await;
    assert_eq!(spans.len(), 4, "{spans:#?}");
    let (publish, append, deliver) = (named(&spans, "publish"), named(&spans, "append"), named(&spans, "deliver"));
    assert_eq!((publish.len(), append.len(), deliver.len()), (1, 1, 2), "{spans:#?}");
    assert_eq!((&publish[0]["parentSpanId"], &publish[0]["kind"]), (&json!(PARENT), &json!(2)));
    assert_eq!(append[0]["parentSpanId"], publish[0]["spanId"]);
    let mut transports = Vec::new();
    for span in &spans {
        let nanos = |name: &str| span[name].as_str().unwrap().parse::<u64>().unwrap();
        assert!(
            span["traceId"] == TRACE && span["flags"] == 1 && span["spanId"].as_str().unwrap().len() == 16,
            "{span}"
        );
        assert!(nanos("startTimeUnixNano") <= nanos("endTimeUnixNano") && span.get("status").is_none(), "{span}");
        assert_eq!(attribute(span, "gatecast.event.type"), Some("api.deployed"));
    }
    for span in append.iter().chain(&deliver) {
        assert_eq!(attribute(span, "gatecast.gateway.id"), Some(gateway.id.to_string().as_str()));
        assert_eq!(attribute(span, "gatecast.event.id"), event.as_str());
    }
    for span in &deliver {
        assert_eq!((&span["parentSpanId"], &span["kind"]), (&append[0]["spanId"], &json!(4)));
        assert!(attribute(span, "gatecast.connection.id").is_some(), "{span}");
        transports.extend(attribute(span, "gatecast.transport"));
    }
    transports.sort_unstable();
    assert_eq!(transports, ["sse", "websocket"]);
    let (headers, body) = collector.posts.borrow()[0].clone();
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["authorization"], "Bearer for-the-collector");
    let body: Value = serde_json::from_str(&body).unwrap();
    let service = json!({"key": "service.name", "value": {"stringValue": "events-of-the-north"}});
    assert!(body["resourceSpans"][0]["resource"]["attributes"].as_array().unwrap().contains(&service), "{body}");
    for (_, body) in collector.posts.borrow().iter() {
        assert!(!body.contains(SECRET) && !body.contains(&gateway.token), "{body}");
    }
    until_counted(&app, "exported", 4).await;
    assert_eq!(counted(&app, "dropped").await, 0);
}

#[tokio::test]
async fn a_call_to_many_is_one_publish_with_an_append_each_and_all_are_sent_before_the_end() {
    let collector = Collector::start().await;
    let app = App::with(&collector.settings()).await;
    let (one, two) = (app.register("one").await, app.register("two").await);
    let many = json!({"targets": {"gatewayIds": [one.id, two.id]}});
    publish(&app, "/api/internal/v1/events", Some(&traceparent(TRACE, "01")), many).await;
    app.stop().await;
    let spans = collector.so_far();
    let (publish, append) = (named(&spans, "publish"), named(&spans, "append"));
    assert_eq!((publish.len(), append.len(), spans.len()), (1, 2, 3), "{spans:#?}");
    assert!(append.iter().all(|span| span["parentSpanId"] == publish[0]["spanId"]), "{spans:#?}");
}

#[tokio::test]
async fn a_publish_that_is_refused_is_an_error_in_its_trace() {
    let collector = Collector::start().await;
    let app = App::with(&collector.settings()).await;
    let gateway = app.register("one").await;
    let event = json!({"type": "api.deployed", "payload": {"apiId": 7}});
    let request = app.http.post(app.url(&to(gateway.id))).json(&event);
    assert_eq!(request.header("traceparent", traceparent(TRACE, "01")).send().await.unwrap().status(), 400);
    app.stop().await;
    let spans = collector.so_far();
    assert_eq!((spans.len(), &spans[0]["name"], &spans[0]["status"]["code"]), (1, &json!("publish"), &json!(2)));
}

#[tokio::test]
async fn a_collector_that_is_busy_is_asked_again_and_one_that_refuses_is_not() {
    let collector = Collector::start().await;
    collector.status.store(503, Ordering::Relaxed);
    let app = App::with(&collector.settings()).await;
    let gateway = app.register("one").await;
    publish(&app, &to(gateway.id), Some(&traceparent(TRACE, "01")), json!({})).await;
    collector.spans(2).await;
    collector.status.store(200, Ordering::Relaxed);
    until_counted(&app, "exported", 2).await;
    collector.status.store(400, Ordering::Relaxed);
    publish(&app, &to(gateway.id), Some(&traceparent(TRACE, "01")), json!({})).await;
    until_counted(&app, "dropped", 2).await;
    assert_eq!(counted(&app, "exported").await, 2);
}

#[tokio::test]
async fn a_collector_that_says_when_to_come_back_is_left_alone_until_then() {
    let collector = Collector::start().await;
    collector.status.store(429, Ordering::Relaxed);
    *collector.retry_after.lock().unwrap() = Some("3");
    let app = App::with(&collector.settings()).await;
    let gateway = app.register("one").await;
    publish(&app, &to(gateway.id), Some(&traceparent(TRACE, "01")), json!({})).await;
    collector.spans(2).await;
    collector.status.store(200, Ordering::Relaxed);
    until_counted(&app, "exported", 2).await;
    let times = collector.times.lock().unwrap().clone();
    assert_eq!(times.len(), 2);
    assert!(times[1] - times[0] >= Duration::from_secs(3), "{:?}", times[1] - times[0]);
}

#[tokio::test]
async fn spans_that_a_collector_rejects_of_a_batch_are_dropped_and_not_sent_again() {
    let collector = Collector::start().await;
    *collector.body.lock().unwrap() = r#"{"partialSuccess":{"rejectedSpans":"1","errorMessage":"no room"}}"#;
    let app = App::with(&collector.settings()).await;
    let gateway = app.register("one").await;
    publish(&app, &to(gateway.id), Some(&traceparent(TRACE, "01")), json!({})).await;
    until_counted(&app, "dropped", 1).await;
    assert_eq!((counted(&app, "exported").await, collector.posts.borrow().len()), (1, 1));
    *collector.body.lock().unwrap() = "{}";
    publish(&app, &to(gateway.id), Some(&traceparent(TRACE, "01")), json!({})).await;
    until_counted(&app, "exported", 3).await;
    assert_eq!((counted(&app, "dropped").await, collector.posts.borrow().len()), (1, 2));
}

#[tokio::test]
async fn a_collector_may_have_a_certificate_of_an_authority_of_its_own() {
    let collector = Collector::start().await;
    let plain = collector.endpoint.trim_start_matches("http://").split('/').next().unwrap().parse().unwrap();
    let (address, pem) = tls_front::in_front_of(plain).await;
    let dir = tempfile::tempdir().unwrap();
    let authorities = dir.path().join("collector.pem");
    std::fs::write(&authorities, pem).unwrap();
    let endpoint = format!("https://localhost:{}/otlp/", address.port());
    let to_it = ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str());
    let trusting = ("OTEL_EXPORTER_OTLP_CERTIFICATE", authorities.to_str().unwrap());
    let app = App::with(&[to_it, trusting]).await;
    let gateway = app.register("one").await;
    publish(&app, &to(gateway.id), Some(&traceparent(TRACE, "01")), json!({})).await;
    until_counted(&app, "exported", 2).await;
    // Who does not name it does not trust it.
    let app = App::with(&[to_it]).await;
    let gateway = app.register("one").await;
    publish(&app, &to(gateway.id), Some(&traceparent(TRACE, "01")), json!({})).await;
    app.stop().await;
    assert_eq!(collector.posts.borrow().len(), 1);
}

#[tokio::test]
async fn without_its_collector_a_server_publishes_delivers_and_stops_as_ever() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let app = App::with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{gone}"))]).await;
    let gateway = app.register("one").await;
    let mut ws = Ws::connect(app.address, &gateway.token, None).await.unwrap();
    ws.message().await.unwrap();
    for _ in 0..100 {
        publish(&app, &to(gateway.id), Some(&traceparent(TRACE, "01")), json!({})).await;
        assert_eq!(ws.message().await.unwrap()["payload"]["x"], SECRET);
    }
    assert_eq!(counted(&app, "exported").await, 0);
    drop(ws);
    timeout(PATIENCE, app.stop()).await.expect("it ends");
}
