//! Requests that HTTP allows, or that come all the same, and that are no call.

use reqwest::Method;
use serde_json::{Value, json};

use crate::app::App;
use crate::wire::{raw, tls};

const POLL: &str = "/api/internal/v1/poll/gateways/connect";
const WS: &str = "/api/internal/v1/ws/gateways/connect";

/// What a request over a socket of its own is answered, whole.
async fn said(app: &App, request: &str) -> String {
    let mut stream = tls(app.address, &[b"http/1.1"]).await.unwrap();
    // Problems end so, and nothing else here is looked at beyond its head.
    let until = if request.contains("api-key") { "\r\n\r\n" } else { "}" };
    raw(&mut stream, request, until).await
}

fn status(said: &str) -> Option<&str> {
    said.split(' ').nth(1)
}

fn problem(said: &str) -> Value {
    said.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str(body).ok()).unwrap_or_default()
}

#[tokio::test]
async fn a_target_without_a_path_is_answered() {
    let app = App::start().await;
    for (target, status_and_code) in [
        ("CONNECT x:1", ("405", "METHOD_NOT_ALLOWED")),
        ("CONNECT [::1]:8443", ("405", "METHOD_NOT_ALLOWED")),
        ("GET x:1", ("400", "INVALID_PARAMETER")),
        ("POST x", ("400", "INVALID_PARAMETER")),
        ("OPTIONS *", ("404", "NOT_FOUND")),
        ("GET *", ("404", "NOT_FOUND")),
        ("DELETE http://x", ("404", "NOT_FOUND")),
        ("POST http://x?a=b", ("404", "NOT_FOUND")),
    ] {
        let said = said(&app, &format!("{target} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        let code = &problem(&said)["code"];
        assert_eq!((status(&said).unwrap_or_default(), code.as_str().unwrap_or_default()), status_and_code, "{said}");
        assert_eq!(said.contains("\r\nallow: "), status_and_code.0 == "405", "{target}: {said}");
    }
    let over_http2 = app.http.request(Method::CONNECT, app.url("/")).send().await.unwrap();
    assert_eq!((over_http2.version(), over_http2.status().as_u16()), (http::Version::HTTP_2, 405));
    assert_eq!(over_http2.headers()["content-type"], "application/problem+json");
    assert_eq!(over_http2.headers()["allow"], "GET, HEAD, POST, PUT, DELETE");
}

#[tokio::test]
async fn over_http_1_1_there_is_exactly_one_host() {
    let app = App::start().await;
    let gateway = app.register("one").await;
    let key = format!("api-key: {}\r\n", gateway.token);
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let connect = format!("{key}{upgrade}");
    for (path, headers, good) in [("/health", "", "200"), (POLL, &key, "200"), (WS, &connect, "101")] {
        let ask = async |version: &str, host: &str| {
            said(&app, &format!("GET {path} HTTP/{version}\r\n{host}{headers}\r\n")).await
        };
        for host in ["Host: a\r\n", "host: \r\n", "Host: [::1]:8443\r\n"] {
            assert_eq!(status(&ask("1.1", host).await), Some(good), "{path} {host}");
        }
        for host in ["", "Host: a\r\nHost: a\r\n", "Host: a, b\r\n", "Host: a@b\r\n"] {
            let said = ask("1.1", host).await;
            assert_eq!(status(&said), Some("400"), "{path} {host}");
            assert!(said.contains("application/problem+json"), "{said}");
        }
    }
    let said = said(&app, "GET /api/v1/gateways HTTP/1.1\r\n\r\n").await;
    assert_eq!(problem(&said)["errors"][0]["field"], json!("Host"), "{said}");
    let old = raw(&mut tls(app.address, &[]).await.unwrap(), "GET /health HTTP/1.0\r\n\r\n", "}").await;
    assert_eq!(status(&old), Some("200"), "{old}");
}
