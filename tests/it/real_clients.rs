//! Other people's clients: curl, Python's `websockets`, and a program that behaves as the real gateways do.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::{Instant, timeout};

use crate::platform::{ORGANIZATION, Platform, Registered};
use crate::process::{Process, Served};
use crate::wire::PATIENCE;

const API: &str = "23826f9e-8daf-4638-b295-14898312759f";
const REVISION: &str = "90d10e1c-8560-5c36-9d5a-124ecaa17485";
const SSE: &str = "/api/internal/v1/sse/gateways/connect";
const POLL: &str = "/api/internal/v1/poll/gateways/connect";
const WS: &str = "/api/internal/v1/ws/gateways/connect";

fn in_project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Python with `websockets`.
fn python(args: &[&OsStr]) -> Process {
    let python = in_project("target/venv/bin/python");
    assert!(python.exists(), "{} is missing: run scripts/setup-tests", python.display());
    Process::spawn(Command::new(python).args(args))
}

/// A program that behaves as the real gateways do.
fn gateway_program(platform: &Platform, gateway: &Registered) -> Process {
    let (program, address, id) =
        (in_project("tests/it/gateway.py"), platform.address.to_string(), gateway.id.to_string());
    python(&[program.as_ref(), address.as_ref(), id.as_ref(), gateway.token.as_ref()])
}

/// The next line of JSON, which must have this member.
async fn line(process: &mut Process, member: &str) -> Value {
    let line = process.out.line().await.unwrap_or_default();
    let value: Value = serde_json::from_str(&line).unwrap_or_default();
    if value.get(member).is_none() {
        panic!("{member} in {line:?}; it wrote {:#?}", process.err.so_far());
    }
    value[member].clone()
}

fn curl(args: &[&str]) -> Process {
    let found =
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join("curl").exists()));
    assert!(found, "curl is missing: run scripts/setup-tests");
    Process::spawn(Command::new("curl").args(["-k", "-sS"]).args(args))
}

/// What curl prints, once it has ended well.
async fn curled(args: &[&str]) -> String {
    let mut curl = curl(args);
    assert_eq!(curl.ended().await.code(), Some(0), "{:?}", curl.err.whole().await);
    curl.out.whole().await.join("\n")
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| panic!("JSON, not {text:?}"))
}

async fn deploy(platform: &Platform, gateway: &Registered) -> Value {
    let element = json!([{"gatewayId": gateway.id.to_string(), "vhost": "mg.wso2.com"}]);
    let (status, answer) =
        platform.post(&format!("/api/v1/apis/{API}/deploy-revision?revisionId={REVISION}"), element).await;
    assert_eq!(status, 200, "{answer}");
    answer[0].clone()
}

#[tokio::test]
async fn a_program_like_the_real_gateway_connects_fetches_what_is_deployed_and_acknowledges_it() {
    let data = tempfile::tempdir().unwrap();
    let Served { process: _server, platform } = Served::dev(data.path(), &[]).await;
    let gateway = platform.register("one").await;
    let put = platform.http.put(platform.url(&format!("/api/v1/apis/{API}?revisionId={REVISION}")));
    assert!(
        put.header("content-type", "application/yaml").body("name: pets\n").send().await.unwrap().status().is_success()
    );
    let mut program = gateway_program(&platform, &gateway);
    assert_ne!(line(&mut program, "wellKnown").await, 200);
    assert_eq!(line(&mut program, "ack").await["gatewayId"], gateway.id.to_string());
    assert_eq!(line(&mut program, "manifest").await, 204);
    let answer = deploy(&platform, &gateway).await;
    let heard = json_of(&program.out.line().await.unwrap());
    assert_eq!(
        (&heard["event"]["eventId"], &heard["event"]["payload"]["deploymentId"]),
        (&answer["eventId"], &answer["deploymentId"])
    );
    assert_eq!(heard["files"], json!({format!("api-{API}.yaml"): "name: pets\n"}));
    // Faster than it can fetch: nothing is lost, nothing overtakes, nobody is declared dead.
    let events = futures::future::join_all((0..100).map(|n| platform.publish(gateway.id, n))).await;
    let mut ids = Vec::new();
    while ids.len() < events.len() {
        let said = json_of(&program.out.line().await.unwrap());
        assert!(said["left"].is_null(), "{said}");
        if let Some(id) = said["event"]["eventId"].as_str() {
            assert_eq!(said["files"], Value::Null, "no artifact of that API: survivable");
            ids.push(id.to_owned());
        }
    }
    let seq = |id: &String| id.split('-').nth(1).unwrap().parse::<u64>().unwrap();
    assert!(ids.is_sorted_by_key(seq), "in order");
    let (mut heard, mut stored) = (ids, events);
    heard.sort();
    stored.sort();
    assert_eq!(heard, stored);
    assert!(program.runs());
}

#[tokio::test]
async fn clients_that_are_idle_for_more_than_60_seconds_stay_alive_by_ping_and_pong() {
    let data = tempfile::tempdir().unwrap();
    let Served { process: _server, platform } = Served::dev(data.path(), &[]).await;
    let gateway = platform.register("one").await;
    let mut sse = curl(&["-N", "-H", &format!("api-key: {}", gateway.token), &platform.url(SSE)]);
    sse.out.containing("event: connection.ack").await;
    let mut program = gateway_program(&platform, &gateway);
    line(&mut program, "wellKnown").await;
    let connected = line(&mut program, "ack").await;
    let since = Instant::now();
    line(&mut program, "manifest").await;
    while since.elapsed() <= Duration::from_secs(60) {
        line(&mut program, "ping").await;
    }
    let answer = deploy(&platform, &gateway).await;
    assert_eq!(line(&mut program, "event").await["eventId"], answer["eventId"]);
    sse.out.containing(&format!("id: {}", answer["eventId"].as_str().unwrap())).await;
    let (_, stats) = platform.get("/api/internal/v1/stats").await;
    let connections = stats["gatewayConnections"]["connections"].as_array().unwrap();
    assert_eq!(connections.len(), 2, "{stats}");
    assert!(connections.iter().any(|still| still["connectionId"] == connected["connectionId"]), "the same connection");
}

/// As short as a user of the library writes it.
const WEBSOCKETS: &str = "
import asyncio, ssl, sys, websockets
async def main(url, key):
    tls = ssl._create_unverified_context()
    async with websockets.connect(url, ssl=tls, additional_headers={'api-key': key}) as socket:
        async for message in socket:
            print(message, flush=True)
            if '\"n\":2' in message:
                break
asyncio.run(main(*sys.argv[1:]))
";

#[tokio::test]
async fn pythons_websockets_connects_over_wss_and_closes_cleanly() {
    let data = tempfile::tempdir().unwrap();
    let Served { process: _server, platform } = Served::dev(data.path(), &[]).await;
    let gateway = platform.register("one").await;
    let url = format!("wss://{}/api/internal/v1/ws/gateways/connect", platform.address);
    let mut client = python(&["-c".as_ref(), WEBSOCKETS.as_ref(), url.as_ref(), gateway.token.as_ref()]);
    assert_eq!(line(&mut client, "type").await, "connection.ack");
    for n in [1, 2] {
        let id = platform.publish(gateway.id, n).await;
        assert_eq!(line(&mut client, "eventId").await, json!(id));
    }
    assert_eq!(client.ended().await.code(), Some(0), "{:?}", client.err.whole().await);
}

#[tokio::test]
async fn curl_shows_events_at_once_over_http_1_and_2() {
    let data = tempfile::tempdir().unwrap();
    let Served { process: _server, platform } = Served::dev(data.path(), &[]).await;
    let gateway = platform.register("one").await;
    let key = format!("api-key: {}", gateway.token);
    for (version, status) in [("--http1.1", "HTTP/1.1 200"), ("--http2", "HTTP/2 200")] {
        let mut stream =
            curl(&["-N", "-i", version, "-H", &key, "-H", "Accept: text/event-stream", &platform.url(SSE)]);
        assert!(stream.out.line().await.unwrap().starts_with(status), "{version}");
        for part in ["retry: ", "event: connection.ack", "data: {\"type\":\"connection.ack\""] {
            stream.out.containing(part).await;
        }
        for n in 0..3 {
            // The next is published when the one before is shown: nothing in between holds them back.
            let id = platform.publish(gateway.id, n).await;
            stream.out.containing("id: ").await.ends_with(&id).then_some(()).expect("its id");
            assert!(stream.out.containing("data: ").await.contains(&format!("\"n\":{n}")));
        }
        assert!(stream.runs());
    }
}

#[tokio::test]
async fn a_curl_loop_without_connection_id_is_one_connection_and_misses_nothing() {
    let data = tempfile::tempdir().unwrap();
    let Served { process: _server, platform } = Served::dev(data.path(), &[]).await;
    let gateway = platform.register("one").await;
    let (key, url) = (format!("api-key: {}", gateway.token), platform.url(POLL));
    let opened = json_of(&curled(&["-H", &key, &url]).await);
    assert_eq!(opened["events"][0]["type"], "connection.ack");
    let (mut cursor, mut seen) = (opened["lastEventId"].as_str().unwrap().to_owned(), Vec::new());
    let publishing = async {
        for n in 0..20 {
            platform.publish(gateway.id, n).await;
        }
    };
    let polling = async {
        while seen.len() < 20 {
            let reply = json_of(&curled(&["-H", &key, "-H", &format!("Last-Event-ID: {cursor}"), &url]).await);
            seen.extend(
                reply["events"].as_array().unwrap().iter().map(|event| event["payload"]["n"].as_u64().unwrap()),
            );
            reply["lastEventId"].as_str().unwrap().clone_into(&mut cursor);
            assert_eq!(reply["connectionId"], opened["connectionId"]);
        }
    };
    timeout(PATIENCE, async { tokio::join!(publishing, polling) }).await.expect("all events in time");
    assert!(seen.into_iter().eq(0..20));
    let quiet =
        curled(&["-i", "-H", &key, "-H", &format!("Last-Event-ID: {cursor}"), &format!("{url}?timeout=1")]).await;
    assert!(quiet.contains(" 204") && quiet.to_lowercase().contains(&format!("last-event-id: {cursor}")), "{quiet}");
    let (_, stats) = platform.get("/api/internal/v1/stats").await;
    assert_eq!(stats["gatewayConnections"]["totalActive"], 1);
}

/// Over HTTP/2 a byte after the head of an answer to `HEAD` is an error of the whole stream.
#[tokio::test]
async fn curl_asks_for_heads_over_http_1_and_2() {
    let data = tempfile::tempdir().unwrap();
    let Served { process: _server, platform } = Served::dev(data.path(), &[]).await;
    for version in ["--http1.1", "--http2"] {
        for (path, status) in [
            ("/", "200"),
            ("/dashboard/app.js", "200"),
            ("/openapi.json", "200"),
            ("/nothing", "404"),
            (POLL, "405"),
            (WS, "405"),
            (SSE, "200"),
        ] {
            let url = platform.url(path);
            let head = curled(&["-I", version, &url]).await.to_lowercase();
            assert_eq!(head.split(' ').nth(1), Some(status), "{version} {path}: {head}");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            match path {
                SSE => assert_eq!(length, None, "a stream has no length"),
                POLL | WS => assert!(length.is_some(), "{version} {path}: {head}"),
                _ => {
                    let got = curled(&["-o", "/dev/null", "-w", "%{size_download}", version, &url]).await;
                    assert_eq!(length, Some(&*got), "{version} {path}");
                }
            }
        }
    }
}

/// An answer that overtakes the body that it is about ends the stream, and curl then reports that instead.
#[tokio::test]
async fn curl_is_answered_whatever_it_is_still_sending() {
    let data = tempfile::tempdir().unwrap();
    let Served { process: _server, platform } = Served::dev(data.path(), &[]).await;
    let gateway = platform.register("one").await;
    let body = data.path().join("body");
    std::fs::write(&body, vec![b'x'; 2 << 20]).unwrap();
    let (body, key) = (format!("@{}", body.display()), format!("api-key: {}", gateway.token));
    let manifest = format!("/api/internal/v1/gateways/{}/manifest", gateway.id);
    for version in ["--http1.1", "--http2"] {
        for (method, path, key, status) in [
            ("POST", WS, &*key, "405"),
            ("POST", SSE, &key, "405"),
            ("POST", POLL, &key, "405"),
            ("GET", WS, &key, "426"),
            ("GET", SSE, "api-key: wrong", "401"),
            ("GET", POLL, "api-key: wrong", "401"),
            ("GET", "/dashboard/app.js", &key, "200"),
            ("POST", "/nothing", &key, "404"),
            ("PUT", "/health", &key, "405"),
            ("POST", "/api/v1/gateways", &key, "413"),
            // A real gateway exits on a 4xx.
            ("POST", &manifest, &key, "204"),
        ] {
            let say = ["-o", "/dev/null", "-w", "%{http_code}", "--data-binary", &body, "-X", method, "-H", key];
            let url = platform.url(path);
            let asked = [&say[..], &["-H", "Expect:", version, &url]].concat();
            assert_eq!(curled(&asked).await, status, "{version} {method} {path}");
        }
    }
}

#[tokio::test]
async fn the_seeds_quickstart_works_verbatim_with_curl() {
    let data = tempfile::tempdir().unwrap();
    let Served { process: _server, platform } = Served::dev(data.path(), &[]).await;
    let body = format!(
        r#"{{
    "organizationId": "{ORGANIZATION}",
    "name": "test-gateway",
    "displayName": "Test Gateway"
  }}"#
    );
    let gateways = platform.url("/api/v1/gateways");
    let gateway =
        json_of(&curled(&["-X", "POST", &gateways, "-H", "Content-Type: application/json", "-d", &body]).await);
    for (name, value) in [("name", "test-gateway"), ("displayName", "Test Gateway"), ("organizationId", ORGANIZATION)] {
        assert_eq!(gateway[name], value);
    }
    let id = gateway["id"].as_str().unwrap();
    let token =
        json_of(&curled(&["-X", "POST", &format!("{gateways}/{id}/tokens"), "-H", "Accept: application/json"]).await);
    assert_eq!(
        (token["token"].as_str().unwrap().len(), &token["message"]),
        (43, &json!("New token generated successfully."))
    );
    let mut sse = curl(&["-N", "-H", &format!("api-key: {}", token["token"].as_str().unwrap()), &platform.url(SSE)]);
    sse.out.containing("event: connection.ack").await;
    let body = format!(
        r#"[{{
    "revisionId": "{REVISION}",
    "gatewayId": "{id}",
    "status": "CREATED",
    "vhost": "mg.wso2.com",
    "displayOnDevportal": true
  }}]"#
    );
    let url = platform.url(&format!("/api/v1/apis/{API}/deploy-revision?revisionId={REVISION}"));
    let deployed = json_of(
        &curled(&[
            "-X",
            "POST",
            &url,
            "-H",
            "Content-Type: application/json",
            "-H",
            "Accept: application/json",
            "-d",
            &body,
        ])
        .await,
    );
    assert_eq!((&deployed[0]["gatewayId"], &deployed[0]["vhost"]), (&json!(id), &json!("mg.wso2.com")));
    let event = json_of(sse.out.containing("api.deployed\",").await.trim_start_matches("data: "));
    assert_eq!((&event["payload"]["apiUuid"], &event["payload"]["environment"]), (&json!(API), &json!("production")));
    assert!(curled(&[&platform.url("/health")]).await.len() > 1);
}
