//! Peers that do not read: what the kernel holds for them does not reach them after they were silenced, and waits for them
//! while they are busy.

use std::io::ErrorKind::ConnectionReset;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep_until, timeout};

use crate::app::{App, Registered};
use crate::http2;
use crate::wire::{PATIENCE, Tls, raw, tls, tls_over};

/// What a peer may still read: its own receive buffer, and what TCP had on the way to it.
const OWN_BYTES_MAX: usize = 512 * 1024;

/// An event that the server's kernel takes at once, and a narrow peer's does not.
const LITTLE: usize = 32 * 1024;

/// How long a gateway may be busy that is silent for at most 6 s.
const BUSY: Duration = Duration::from_millis(4_500);

/// When whoever is silenced gets nothing more (CONTRACT.md § 7).
const SECOND: Duration = Duration::from_secs(1);

const SSE: &str = "/api/internal/v1/sse/gateways/connect";
const POLL: &str = "/api/internal/v1/poll/gateways/connect";
const ADMIN: &str = "an-admin-token-that-is-long-enough-to-be-one";
/// Of HTTP/2's flow control: as large as it may be.
const WINDOW: u32 = (1 << 31) - 1;

/// A connection whose kernel takes little for it, so that the rest stays with the server's.
async fn narrow(app: &App) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    socket.connect(app.address).await.unwrap()
}

async fn narrow_tls(app: &App, protocol: &[u8]) -> Tls {
    tls_over(narrow(app).await, &[protocol]).await.unwrap()
}

/// A connection of whatever layers.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<W: AsyncRead + AsyncWrite + Send + Unpin> Wire for W {}

/// How a request comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Plain,
    Tls,
    Http2,
}

impl Over {
    async fn app(self) -> App {
        match self {
            Self::Plain => App::with(&[("GATECAST_TLS", "off"), ("GATECAST_ADMIN_TOKEN", ADMIN)]).await,
            Self::Tls | Self::Http2 => App::start().await,
        }
    }
}

/// Asks for a path, with these headers.
async fn ask(app: &App, over: Over, path: &str, headers: &[(&str, &str)]) -> Box<dyn Wire> {
    let (mut wire, request): (Box<dyn Wire>, _) = match over {
        Over::Plain => (Box::new(narrow(app).await), http1(path, headers)),
        Over::Tls => (Box::new(narrow_tls(app, b"http/1.1").await), http1(path, headers)),
        Over::Http2 => {
            let opening =
                [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &*settings(WINDOW), &window(0, WINDOW - 65_535)].concat();
            (Box::new(narrow_tls(app, b"h2").await), [opening, http2(1, path, headers)].concat())
        }
    };
    wire.write_all(&request).await.unwrap();
    wire.flush().await.unwrap();
    wire
}

fn http1(path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").into_bytes()
}

/// A frame of HTTP/2 (RFC 9113 § 4.1).
fn http2_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// SETTINGS_INITIAL_WINDOW_SIZE.
fn settings(window: u32) -> Vec<u8> {
    http2_frame(4, 0, 0, &[&[0, 4][..], &window.to_be_bytes()].concat())
}

/// WINDOW_UPDATE.
fn window(stream: u32, more: u32) -> Vec<u8> {
    http2_frame(8, 0, stream, &more.to_be_bytes())
}

/// A request: HEADERS with END_STREAM and END_HEADERS, each field literal and not indexed (RFC 7541 § 6.2.2).
fn http2(stream: u32, path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let pseudo = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", path)];
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let field = |(name, value): &(&str, &str)| [vec![0], text(name), text(value)].concat();
    let fields: Vec<_> = pseudo.iter().chain(headers).flat_map(field).collect();
    http2_frame(1, 0x05, stream, &fields)
}

/// Reads until this was among what came.
async fn until(wire: &mut dyn Wire, what: &str) -> String {
    let mut seen = String::new();
    let read = async {
        while !seen.contains(what) {
            let mut bytes = [0; 1024];
            let read = wire.read(&mut bytes).await.unwrap();
            assert!(read > 0, "{seen}");
            seen.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    };
    let is_read = timeout(PATIENCE, read).await.is_ok();
    assert!(is_read, "no {what} in {seen}");
    seen
}

/// What comes until the connection ends.
async fn rest(wire: &mut dyn Wire) -> Vec<u8> {
    let mut seen = Vec::new();
    let _ = timeout(PATIENCE, wire.read_to_end(&mut seen)).await.expect("the socket has ended");
    seen
}

async fn publish_large(app: &App, gateway: &Registered, bytes: usize) {
    let event = json!({"type": "api.deployed", "payload": {"apiId": "a", "filler": "x".repeat(bytes)}});
    let (status, answer) = app.post(&format!("/api/internal/v1/gateways/{}/events", gateway.id), event).await;
    assert!(status.is_success(), "{answer}");
}

/// Revokes its token, and waits for the second to be over.
async fn silence(app: &App, gateway: &Registered) {
    let path = format!("/api/v1/gateways/{}/tokens/{}", gateway.id, gateway.token_id);
    assert!(app.delete(&path).await.is_success());
    sleep_until(Instant::now() + SECOND).await;
}

/// The cursor of a gateway that has everything.
async fn cursor(app: &App, gateway: &Registered) -> String {
    let (status, body, _) = app.poll(&gateway.token, "timeout=0").await.unwrap();
    assert_eq!(status, 200, "{body}");
    body["lastEventId"].as_str().unwrap().to_owned()
}

/// The server's kernel, or hyper, takes an event whole, so that no write is under way that could be cut off.
#[tokio::test]
async fn what_was_written_whole_is_thrown_away_with_the_token_on_every_transport() {
    let mut late = Vec::new();
    for over in [Over::Plain, Over::Tls, Over::Http2] {
        let app = over.app().await;
        let gateway = app.register("one").await;
        let key = ("api-key", &*gateway.token);
        let mut stream = ask(&app, over, SSE, &[key]).await;
        until(&mut stream, "connection.ack").await;
        let from = ("last-event-id", &*cursor(&app, &gateway).await);
        let mut poll = ask(&app, over, POLL, &[key, from]).await;
        publish_large(&app, &gateway, 900 * 1024).await;
        for wire in [&mut stream, &mut poll] {
            until(wire, "xxx").await;
        }
        silence(&app, &gateway).await;
        for (wire, name) in [(&mut stream, "SSE"), (&mut poll, "long-poll")] {
            late.push((name, over, rest(wire).await.len()));
        }
    }
    assert!(late.iter().all(|(_, _, bytes)| *bytes < OWN_BYTES_MAX), "{late:?}");
}

/// The server ends the socket behind its answer, as it is asked to, and waits for the peer to end it as well.
#[tokio::test]
async fn what_is_the_last_of_a_connection_is_thrown_away_with_the_token() {
    let mut late = Vec::new();
    for over in [Over::Plain, Over::Tls] {
        let app = over.app().await;
        let gateway = app.register("one").await;
        let (key, from) = (("api-key", &*gateway.token), ("last-event-id", &*cursor(&app, &gateway).await));
        let mut poll = ask(&app, over, POLL, &[key, from, ("connection", "close")]).await;
        publish_large(&app, &gateway, 900 * 1024).await;
        until(&mut poll, "xxx").await;
        silence(&app, &gateway).await;
        late.push((over, rest(&mut poll).await.len()));
    }
    assert!(late.iter().all(|(_, bytes)| *bytes < OWN_BYTES_MAX), "{late:?}");
}

/// hyper ends the socket behind its answer: over HTTP/1.0, as it is asked to, and as an HTTP/2 peer says goodbye.
#[tokio::test]
async fn what_is_the_last_of_a_connection_of_hyper_is_thrown_away_with_the_token() {
    let mut late = Vec::new();
    for (over, version, what) in [
        (Over::Plain, "1.0", "HTTP/1.0"),
        (Over::Tls, "1.0", "HTTP/1.0"),
        (Over::Plain, "1.1", "behind another request"),
        (Over::Http2, "", "HTTP/2"),
    ] {
        let app = over.app().await;
        let gateway = app.register("one").await;
        let (key, from) = (("api-key", &*gateway.token), ("last-event-id", &*cursor(&app, &gateway).await));
        let mut poll = match over {
            Over::Http2 => ask(&app, over, POLL, &[key, from]).await,
            _ => {
                let mut wire = ask(&app, over, "/health", &[]).await;
                until(&mut wire, "200 OK").await;
                let request = http1(POLL, &[key, from, ("connection", "close")]);
                let request = String::from_utf8(request).unwrap().replace("HTTP/1.1", &format!("HTTP/{version}"));
                wire.write_all(request.as_bytes()).await.unwrap();
                wire.flush().await.unwrap();
                wire
            }
        };
        publish_large(&app, &gateway, LITTLE).await;
        let mut read = until(&mut poll, "xxx").await.len();
        if over == Over::Http2 {
            // GOAWAY
            poll.write_all(&http2_frame(7, 0, 0, &[0; 8])).await.unwrap();
            poll.flush().await.unwrap();
        }
        silence(&app, &gateway).await;
        let mut seen = Vec::new();
        let ended = timeout(PATIENCE, poll.read_to_end(&mut seen)).await.expect("the socket has ended");
        read += seen.len();
        late.push((what, over, read, ended.err().map(|error| error.kind())));
    }
    let is_thrown_away = |(_, _, read, ended): &(_, _, usize, _)| *read < LITTLE && *ended == Some(ConnectionReset);
    assert!(late.iter().all(is_thrown_away), "{late:?}");
}

/// An ordinary client: it ends when it has read to the end, and is waited for until then.
#[tokio::test]
async fn who_reads_the_last_of_a_connection_of_hyper_gets_all_of_it() {
    let app = Over::Plain.app().await;
    let gateway = app.register("one").await;
    let (key, from) = (("api-key", &*gateway.token), ("last-event-id", &*cursor(&app, &gateway).await));
    publish_large(&app, &gateway, LITTLE).await;
    let mut poll = narrow(&app).await;
    let request = String::from_utf8(http1(POLL, &[key, from])).unwrap().replace("HTTP/1.1", "HTTP/1.0");
    poll.write_all(request.as_bytes()).await.unwrap();
    let mut seen = String::new();
    timeout(PATIENCE, poll.read_to_string(&mut seen)).await.expect("an end").unwrap();
    assert!(seen.len() > LITTLE && seen.ends_with('}'), "{} bytes", seen.len());
}

/// As nginx asks unless it is told otherwise: what has no end ends with the socket.
#[tokio::test]
async fn what_was_written_over_http_1_0_is_thrown_away_with_the_token() {
    let app = Over::Plain.app().await;
    let gateway = app.register("one").await;
    let mut stream = narrow(&app).await;
    let connect = format!("GET {SSE} HTTP/1.0\r\nHost: localhost\r\napi-key: {}\r\n\r\n", gateway.token);
    stream.write_all(connect.as_bytes()).await.unwrap();
    until(&mut stream, "connection.ack").await;
    for _ in 0..2 {
        publish_large(&app, &gateway, 800 * 1024).await;
    }
    until(&mut stream, "xxx").await;
    silence(&app, &gateway).await;
    let late = rest(&mut stream).await.len();
    assert!(late < OWN_BYTES_MAX, "{late}");
}

/// Two gateways share a connection of HTTP/2, as they do behind a proxy. One of them gives its streams no room.
#[tokio::test]
async fn what_waits_for_room_over_http_2_is_thrown_away_with_the_token_and_no_other_stream() {
    let app = App::start().await;
    let [one, other] = [app.register("one").await, app.register("other").await];
    let (key, others_key) = (("api-key", &*one.token), ("api-key", &*other.token));
    let from = ("last-event-id", &*cursor(&app, &one).await);
    let mut wire = ask(&app, Over::Http2, SSE, &[others_key]).await;
    until(&mut wire, "connection.ack").await;
    // From here on streams begin without room.
    let requests = [settings(0), http2(3, POLL, &[key, from]), http2(5, SSE, &[key])].concat();
    wire.write_all(&[requests, window(1, WINDOW - 65_535)].concat()).await.unwrap();
    wire.flush().await.unwrap();
    app.connected(3).await;
    publish_large(&app, &one, 40_000).await;
    silence(&app, &one).await;
    wire.write_all(&[window(3, WINDOW), window(5, WINDOW)].concat()).await.unwrap();
    wire.flush().await.unwrap();
    app.publish(other.id, 7).await;
    let seen = until(&mut wire, "api-7").await;
    assert!(!seen.contains("xxx"), "{} bytes", seen.len());
}

#[tokio::test]
async fn who_has_read_its_answer_keeps_its_socket_and_is_told_why_by_the_next() {
    for over in [Over::Plain, Over::Tls] {
        let app = over.app().await;
        let gateway = app.register("one").await;
        let mut poll = ask(&app, over, POLL, &[("api-key", &gateway.token)]).await;
        until(&mut poll, "lastEventId").await;
        silence(&app, &gateway).await;
        poll.write_all(&http1(POLL, &[("api-key", &gateway.token)])).await.unwrap();
        poll.flush().await.unwrap();
        until(&mut poll, "HTTP/1.1 401").await;
    }
}

#[tokio::test]
async fn megabytes_on_their_way_are_thrown_away_with_the_token() {
    let app = App::start().await;
    let gateway = app.register("one").await;
    let mut stream = narrow_tls(&app, b"http/1.1").await;
    let connect = format!(
        "GET /api/internal/v1/sse/gateways/connect HTTP/1.1\r\nHost: localhost\r\napi-key: {}\r\n\r\n",
        gateway.token
    );
    stream.write_all(connect.as_bytes()).await.unwrap();
    let registered = async {
        while app.hub.registry.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, registered).await.unwrap();
    let filler = "x".repeat(900 * 1024);
    for n in 0..8 {
        let event = json!({"type": "api.deployed", "payload": {"apiId": format!("a{n}"), "filler": filler}});
        assert!(app.post(&format!("/api/internal/v1/gateways/{}/events", gateway.id), event).await.0.is_success());
    }
    let path = format!("/api/v1/gateways/{}/tokens/{}", gateway.id, gateway.token_id);
    assert!(app.call(Method::DELETE, &path, None).await.0.is_success());
    let gone = async {
        while !app.hub.registry.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("ended though it does not read");
    let mut seen = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut seen)).await.expect("the socket has ended");
    assert!(seen.len() < OWN_BYTES_MAX, "{} bytes", seen.len());
}

/// A gateway may be busy for long with an event that it was sent (CONTRACT.md § 4): TCP does not give it up for the rest that
/// waits, before its silence does.
#[tokio::test]
async fn a_gateway_that_is_busy_keeps_its_connection_though_it_takes_nothing_meanwhile() {
    // TCP alone gives up after 2 s then.
    let app = App::with(&[("WS_CONNECTION_TIMEOUT", "6")]).await;
    let gateway = app.register("one").await;
    let mut stream = narrow_tls(&app, b"http/1.1").await;
    let connect = format!(
        "GET /api/internal/v1/ws/gateways/connect HTTP/1.1\r\nHost: localhost\r\napi-key: {}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        gateway.token
    );
    raw(&mut stream, &connect, "connection.ack").await;
    let filler = "x".repeat(30 * 1024);
    for n in 0..4 {
        let event = json!({"type": "api.deployed", "payload": {"apiId": format!("a{n}"), "filler": filler}});
        assert!(app.post(&format!("/api/internal/v1/gateways/{}/events", gateway.id), event).await.0.is_success());
    }
    let gone = async {
        while !app.hub.registry.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(BUSY, gone).await.is_err(), "it is given up");
    let mut seen = vec![0; 4 * filler.len()];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut seen)).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_http_2_peer_that_takes_none_of_its_answers_is_cut_off_whatever_it_says_to_pings() {
    let app = App::start().await;
    let mut stream = tls(app.address, &[b"h2"]).await.unwrap();
    let opening = http2::opening(&[(http2::INITIAL_WINDOW_SIZE, 0)]);
    let ask = [opening, http2::get(1, "/nope"), http2::get(3, "/nope")].concat();
    stream.write_all(&ask).await.unwrap();
    stream.flush().await.unwrap();
    let before = Instant::now();
    let mut answered = Vec::new();
    let end = async {
        while let Some(frame) = http2::next(&mut stream).await {
            assert_ne!(frame.kind, http2::DATA, "there is no window");
            answered.extend((frame.stream > 0).then_some(frame.stream));
        }
    };
    tokio::time::timeout(PATIENCE, end).await.expect("it takes nothing");
    answered.sort_unstable();
    assert_eq!(answered, [1, 3], "the heads of its answers");
    // Before hyper has ended what is idle.
    assert!(before.elapsed() < Duration::from_secs(40), "{:?}", before.elapsed());
}
