//! Every refusal of a connection (CONTRACT.md § 3) on every transport: status, code, headers, and before any upgrade.

use std::net::SocketAddr;
use std::time::Duration;

use chrono::{SecondsFormat, TimeDelta};
use gatecast_storage::{Clock as _, SystemClock};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

use crate::app::App;
use crate::process::Served;
use crate::wire::{PATIENCE, Sse, Ws, raw, tls_over, trusting_all};

const TRANSPORTS: [&str; 3] = ["ws", "sse", "poll"];

/// What a refusal says.
#[derive(Debug)]
struct Refused {
    status: u16,
    problem: Value,
    headers: http::HeaderMap,
}

impl Refused {
    /// Checks what all refusals have in common.
    async fn of(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.text().await.unwrap();
        assert!(status >= 400, "{status} {body}");
        assert_eq!(headers["content-type"], "application/problem+json", "{body}");
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(problem["status"], status);
        for member in ["type", "title", "detail", "code"] {
            assert!(problem[member].is_string(), "{member} in {problem}");
        }
        let transient = status == 429 || status == 503;
        let retry = headers.get("retry-after").map(|value| value.to_str().unwrap().parse::<u64>().unwrap());
        assert_eq!(retry.is_some_and(|seconds| seconds > 0), transient, "Retry-After {retry:?} with {status}");
        Self { status, problem, headers }
    }

    fn is(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.problem["code"].as_str().unwrap()), (status, code), "{self:?}");
    }
}

/// A client over HTTP/1.1, as an upgrade needs it. Each call has a connection of its own.
fn http1() -> reqwest::Client {
    let tls = trusting_all(&[b"http/1.1"]);
    reqwest::Client::builder().tls_backend_preconfigured(tls).pool_max_idle_per_host(0).build().unwrap()
}

fn path(over: &str) -> String {
    format!("/api/internal/v1/{over}/gateways/connect")
}

/// Tries to connect with these headers.
async fn attempt(app: &App, over: &str, query: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = http1().get(app.url(&format!("{}{query}", path(over))));
    if over == "ws" {
        for (name, value) in [
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            request = request.header(name, value);
        }
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

async fn refused(app: &App, over: &str, token: &str) -> Refused {
    Refused::of(attempt(app, over, "", &[("api-key", token)]).await).await
}

/// The status of an accepted attempt.
fn accepted(over: &str) -> u16 {
    if over == "ws" { 101 } else { 200 }
}

#[tokio::test]
async fn keys_that_are_missing_wrong_revoked_expired_or_of_nobody_get_one_and_the_same_401() {
    let app = App::start().await;
    let (gateway, deleted) = (app.register("one").await, app.register("two").await);
    let revoke = format!("/api/v1/gateways/{}/tokens/{}", gateway.id, gateway.token_id);
    assert_eq!(app.delete(&revoke).await, 204);
    assert_eq!(app.delete(&format!("/api/v1/gateways/{}", deleted.id)).await, 204);
    let end = SystemClock.now() + TimeDelta::milliseconds(50);
    let ends = json!({"expiresAt": end.to_rfc3339_opts(SecondsFormat::Millis, true)});
    let (_, expiring) = app.post(&format!("/api/v1/gateways/{}/tokens", gateway.id), ends).await;
    let expired = expiring["token"].as_str().unwrap();
    let (_, good) = app.token(gateway.id).await;
    let over = async {
        while SystemClock.now() <= end {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(PATIENCE, over).await.unwrap();
    let basic = format!("Basic {good}");
    let bearer = format!("Bearer {}", gateway.token);
    let query = format!("?api-key={good}&token={good}");
    let none: [(&str, &str); 0] = [];
    let cases: [(&str, &[(&str, &str)]); 9] = [
        ("", &none),
        (&query, &none),
        ("", &[("api-key", "")]),
        ("", &[("api-key", "invalid-key")]),
        ("", &[("api-key", &gateway.token)]),
        ("", &[("authorization", &bearer)]),
        ("", &[("authorization", &basic)]),
        ("", &[("api-key", expired)]),
        ("", &[("api-key", &deleted.token)]),
    ];
    let mut bodies = Vec::new();
    for over in TRANSPORTS {
        for (query, headers) in &cases {
            let refused = Refused::of(attempt(&app, over, query, headers).await).await;
            refused.is(401, "UNAUTHORIZED");
            assert!(refused.headers.contains_key("www-authenticate"), "{refused:?}");
            bodies.push(refused.problem);
        }
        assert_eq!(attempt(&app, over, "", &[("api-key", &good)]).await.status(), accepted(over), "{over}");
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "one body for all: {bodies:#?}");
}

#[tokio::test]
async fn more_attempts_a_minute_than_allowed_get_429_whatever_the_key_and_other_calls_go_on() {
    let app = App::with(&[("WS_RATE_LIMIT_PER_MINUTE", "3")]).await;
    let gateway = app.register("one").await;
    assert_eq!(attempt(&app, "sse", "", &[("api-key", &gateway.token)]).await.status(), 200);
    refused(&app, "ws", "invalid-key").await.is(401, "UNAUTHORIZED");
    let (status, opened, _) = app.poll(&gateway.token, "").await.unwrap();
    assert_eq!(status, 200);
    for over in TRANSPORTS {
        for key in [&gateway.token, "invalid-key"] {
            let replica = [("api-key", key), ("gateway-instance", "another")];
            Refused::of(attempt(&app, over, "", &replica).await).await.is(429, "RATE_LIMITED");
        }
    }
    let renewed = format!("timeout=1&lastEventId={}", opened["lastEventId"].as_str().unwrap());
    assert_eq!(app.poll(&gateway.token, &renewed).await.unwrap().0, 204, "a later poll is no attempt");
    assert_eq!(app.get("/api/internal/v1/stats").await.0, 200);
}

#[tokio::test]
async fn connections_over_a_limit_get_503_before_any_upgrade_and_are_let_in_when_there_is_room() {
    let all = [("WS_MAX_CONNECTIONS", "2")];
    let each = [("GATECAST_MAX_CONNECTIONS_PER_GATEWAY", "2")];
    for settings in [all, each] {
        let app = App::with(&settings).await;
        let (gateway, other) = (app.register("one").await, app.register("two").await);
        let mut first = Ws::connect(app.address, &gateway.token, None).await.unwrap();
        let mut second = Sse::connect(&app.http, app.address, &gateway.token, None).await.unwrap();
        first.message().await.unwrap();
        second.event().await.unwrap();
        for over in TRANSPORTS {
            refused(&app, over, &gateway.token).await.is(503, "CAPACITY_EXCEEDED");
        }
        let elsewhere = attempt(&app, "ws", "", &[("api-key", &other.token)]).await.status();
        assert_eq!(elsewhere, if settings == all { 503 } else { 101 }, "the limit of one gateway is not another's");
        drop(first);
        app.connected(1).await;
        assert_eq!(attempt(&app, "poll", "", &[("api-key", &gateway.token)]).await.status(), 200);
    }
}

#[tokio::test]
async fn a_malformed_cursor_gets_400_on_every_transport_in_header_and_query() {
    let app = App::start().await;
    let gateway = app.register("one").await;
    let id = app.publish(gateway.id, 1).await;
    for over in TRANSPORTS {
        for cursor in [
            "x",
            "6f3a9c21",
            "6f3a9c21-",
            "6f3a9c21-x",
            "6f3a9c21--1",
            "6f3a9c2-1",
            "Earliest",
            "6f3a9c21-99999999999999999999999",
        ] {
            let key = ("api-key", gateway.token.as_str());
            let in_header = attempt(&app, over, &format!("?lastEventId={id}"), &[key, ("last-event-id", cursor)]).await;
            Refused::of(in_header).await.is(400, "INVALID_CURSOR");
            let in_query = attempt(&app, over, &format!("?lastEventId={cursor}"), &[key]).await;
            Refused::of(in_query).await.is(400, "INVALID_CURSOR");
        }
        let long = format!("?lastEventId={}", "x".repeat(300));
        for query in [&long, "?lastEventId=%00", "?lastEventId=%ff", "?lastEventId=latest&lastEventId=latest"] {
            let asked = attempt(&app, over, query, &[("api-key", gateway.token.as_str())]).await;
            Refused::of(asked).await.is(400, "INVALID_CURSOR");
            Refused::of(attempt(&app, over, query, &[("api-key", "wrong")]).await).await.is(401, "UNAUTHORIZED");
        }
    }
    assert!(app.hub.registry.is_empty());
}

#[tokio::test]
async fn what_is_no_websocket_upgrade_gets_426_and_another_method_405_with_allow() {
    let app = App::start().await;
    let gateway = app.register("one").await;
    let plain = http1().get(app.url(&path("ws"))).header("api-key", &gateway.token).send().await.unwrap();
    let plain = Refused::of(plain).await;
    plain.is(426, "UPGRADE_REQUIRED");
    assert_eq!(plain.headers["upgrade"], "websocket");
    let old = http1().get(app.url(&path("ws"))).header("api-key", &gateway.token).header("connection", "Upgrade");
    let old = old.header("upgrade", "websocket").header("sec-websocket-version", "8");
    let old = Refused::of(old.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==").send().await.unwrap()).await;
    old.is(426, "UNSUPPORTED_VERSION");
    assert_eq!(old.headers["sec-websocket-version"], "13");
    assert_eq!(old.headers["upgrade"], "websocket");
    for over in TRANSPORTS {
        for method in [Method::POST, Method::PUT, Method::DELETE] {
            let answer =
                http1().request(method, app.url(&path(over))).header("api-key", &gateway.token).send().await.unwrap();
            let answer = Refused::of(answer).await;
            answer.is(405, "METHOD_NOT_ALLOWED");
            assert_eq!(answer.headers["allow"], if over == "sse" { "GET, HEAD" } else { "GET" }, "{over}");
        }
    }
    assert!(app.hub.registry.is_empty());
}

#[tokio::test]
async fn x_forwarded_for_counts_only_from_trusted_proxies() {
    let key = "invalid-key";
    let from = async |app: &App, header: &str, value: &str| {
        Refused::of(attempt(app, "sse", "", &[("api-key", key), (header, value)]).await).await.status
    };
    let untrusting =
        App::with(&[("WS_RATE_LIMIT_PER_MINUTE", "1"), ("GATECAST_TRUSTED_PROXIES", "192.0.2.0/24")]).await;
    assert_eq!(from(&untrusting, "x-forwarded-for", "198.51.100.1").await, 401);
    assert_eq!(from(&untrusting, "x-forwarded-for", "198.51.100.2").await, 429, "anyone may write the header");
    let trusting =
        App::with(&[("WS_RATE_LIMIT_PER_MINUTE", "1"), ("GATECAST_TRUSTED_PROXIES", "127.0.0.0/8,192.0.2.0/24")]).await;
    for (header, value, status) in [
        ("x-forwarded-for", "198.51.100.1", 401),
        ("x-forwarded-for", "198.51.100.2", 401),
        ("x-forwarded-for", "198.51.100.1", 429),
        // What the client wrote itself stands before what the proxy saw.
        ("x-forwarded-for", "203.0.113.9, 198.51.100.2", 429),
        ("x-forwarded-for", "198.51.100.3, 192.0.2.7", 401),
        ("x-forwarded-for", "198.51.100.3", 429),
        ("forwarded", "for=198.51.100.4;proto=https", 401),
        ("forwarded", "for=\"198.51.100.4:4711\"", 429),
    ] {
        assert_eq!(from(&trusting, header, value).await, status, "{header}: {value}");
    }
}

#[tokio::test]
async fn a_draining_server_answers_503_to_connections_and_is_alive_but_not_ready() {
    let app = App::start().await;
    let gateway = app.register("one").await;
    assert_eq!(app.get("/ready").await.0, 200);
    app.hub.drain();
    for over in TRANSPORTS {
        for key in [&gateway.token, "invalid-key"] {
            refused(&app, over, key).await.is(503, "DRAINING");
        }
    }
    let (ready, health) = (app.get("/ready").await.0, app.get("/health").await.0);
    assert_eq!((ready.as_u16(), health.as_u16()), (503, 200));
}

/// A socket from one of this machine's addresses.
async fn connect_from(address: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(address.parse().unwrap(), 0)).unwrap();
    socket.connect(to).await.unwrap()
}

#[tokio::test]
async fn an_address_that_opens_sockets_and_says_nothing_locks_nobody_out() {
    let data = tempfile::tempdir().unwrap();
    let mut served = Served::dev(data.path(), &[("WS_MAX_CONNECTIONS", "1")]).await;
    let server = served.platform.address;
    // Two thirds of 1026 are for one address; the last ones shall be more than that.
    let mut silent = Vec::new();
    for _ in 0..700 {
        silent.push(connect_from("127.0.0.1", server).await);
    }
    let (last, before) = (silent.last_mut().unwrap(), Instant::now());
    assert!(matches!(timeout(PATIENCE, last.read(&mut [0])).await.expect("it has ended"), Ok(0) | Err(_)));
    assert!(before.elapsed() < Duration::from_secs(8), "refused, not waited for");
    let said = served.process.err.containing("has its share of the sockets").await;
    assert!(said.contains("127.0.0.1"), "{said}");
    let mut other = tls_over(connect_from("127.0.0.2", server).await, &[b"http/1.1"]).await.unwrap();
    let answer = raw(&mut other, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n", "}").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
