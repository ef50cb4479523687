//! `/openapi.json` and `/asyncapi.json`: true of what a running server answers and sends.

use std::collections::BTreeSet;
use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use crate::app::App;
use crate::wire::{PATIENCE, Sse, SseEvent, Ws};

/// What schemathesis looks at in each answer. That wrong input is refused is `bad_input`'s: for us an empty parameter is
/// an absent one, which it does not know.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance";

async fn description(app: &App, path: &str) -> Value {
    let (status, described) = app.get(path).await;
    assert_eq!(status, 200, "{described}");
    described
}

/// A program of the tests' venv, which must end well.
async fn venv(program: &str, args: &[&str]) -> String {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin").join(program);
    assert!(program.exists(), "{} is missing: run scripts/setup-tests", program.display());
    // It keeps what it found in its working directory.
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(program);
    command.args(args).current_dir(dir.path()).kill_on_drop(true);
    let output = timeout(3 * PATIENCE, command.output()).await.expect("it ends").unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_every_answer_as_openapi_describes_it() {
    let app = App::with(&[("GATECAST_ADMIN_TOKEN", "the-admin-token-of-schemathesis")]).await;
    let gateway = app.register("one").await;
    let (key, admin) = (format!("api-key: {}", gateway.token), "Authorization: Bearer the-admin-token-of-schemathesis");
    let url = app.url("/openapi.json");
    let args = ["run", &url, "--tls-verify", "false", "-H", &key, "-H", admin, "--checks", CHECKS, "--no-color"];
    let bounds =
        ["--phases", "examples,coverage,fuzzing", "--max-examples", "20", "--seed", "1", "--continue-on-failure"];
    // The streams do not end, and the test below is theirs.
    let rest = [
        "--exclude-path-regex",
        "(gateways/connect|dashboard/stream)$",
        "--suppress-health-check",
        "all",
        "--request-timeout",
        "60",
    ];
    let said = venv("st", &[&args[..], &bounds, &rest].concat()).await;
    assert!(said.contains("Operations:       41 selected / 45 total"), "{said}");
}

#[tokio::test]
async fn the_openapi_document_is_valid() {
    let app = App::start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("openapi.json");
    std::fs::write(&path, description(&app, "/openapi.json").await.to_string()).unwrap();
    venv("openapi-spec-validator", &["--schema", "3.1", path.to_str().unwrap()]).await;
}

/// Every `$ref` below a value.
fn refs(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|value| refs(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| refs(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn every_reference_leads_somewhere() {
    let app = App::start().await;
    for path in ["/openapi.json", "/asyncapi.json"] {
        let document = description(&app, path).await;
        let mut found = BTreeSet::new();
        refs(&document, &mut found);
        assert!(found.len() > 20, "{path}: {found:?}");
        for reference in found {
            let pointer = reference.strip_prefix('#').expect("of the same document").replace("~1", "/");
            assert!(document.pointer(&pointer).is_some(), "{path}: {reference}");
        }
    }
}

/// Checks messages against the streams' description.
struct Described(Value);

impl Described {
    /// What a stream of server-sent events sends must be a message of its channel.
    fn assert_sent(&self, channel: &str, event: &SseEvent) {
        let name = event.event.as_deref().expect("a name");
        let pointer = |reference: &Value| reference["$ref"].as_str().unwrap().trim_start_matches('#').to_owned();
        let messages = self.0["channels"][channel]["messages"].as_object().unwrap().values();
        let mut messages = messages.map(|message| self.0.pointer(&pointer(message)).unwrap());
        let message = messages.find(|message| message["name"] == name);
        let message =
            message.unwrap_or_else(|| panic!("{channel} sends {name}, which is not described: {}", event.data));
        let schema = pointer(&message["payload"]);
        self.assert(schema.rsplit('/').next().unwrap(), &event.json());
    }

    /// The message must be what its schema says, and of no other kind.
    fn assert(&self, name: &str, message: &Value) {
        let mut schema = json!({ "$ref": format!("#/components/schemas/{name}") });
        schema["components"] = self.0["components"].clone();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let faults: Vec<_> = validator.iter_errors(message).map(|error| error.to_string()).collect();
        assert!(faults.is_empty(), "{name}: {faults:?} of {message}");
    }
}

#[tokio::test]
async fn every_message_of_every_transport_is_as_asyncapi_describes_it() {
    let mut app = App::with(&[("GATECAST_RING_MAX_EVENTS", "2")]).await;
    let described = Described(description(&app, "/asyncapi.json").await);
    let gateway = app.register("one").await;
    let first = app.publish(gateway.id, 1).await;
    for n in 2..=4 {
        app.publish(gateway.id, n).await;
    }
    let mut ws = Ws::connect(app.address, &gateway.token, Some(&first)).await.unwrap();
    let mut sse = Sse::connect(&app.http, app.address, &gateway.token, Some(&first)).await.unwrap();
    for name in ["Ack", "Reset", "Event"] {
        described.assert(name, &ws.message().await.unwrap());
        described.assert(name, &sse.event().await.unwrap().json());
    }
    let (_, reply, _) = app.poll(&gateway.token, &format!("lastEventId={first}&instance=p")).await.unwrap();
    described.assert("Ack", &reply["events"][0]);
    let second = app.register("two").await;
    let mut ended = Sse::connect(&app.http, app.address, &second.token, None).await.unwrap();
    ended.event().await.unwrap();
    let token = format!("/api/v1/gateways/{}/tokens/{}", second.id, second.token_id);
    app.call(Method::DELETE, &token, None).await;
    described.assert("Error", &ended.event().await.unwrap().json());
    app.drain();
    loop {
        let message = ws.message().await.unwrap();
        if message["type"] == "server.goodbye" {
            described.assert("Goodbye", &message);
            break;
        }
        described.assert("Event", &message);
    }
}

#[tokio::test]
async fn every_message_of_the_dashboards_stream_is_as_asyncapi_describes_it() {
    let mut app = App::with(&[("GATECAST_RING_MAX_EVENTS", "2")]).await;
    let described = Described(description(&app, "/asyncapi.json").await);
    let (gateway, other) = (app.register("one").await, app.register("two").await);
    let watch = async |query: &str| {
        let url = app.url(&format!("/api/internal/v1/dashboard/stream?{query}"));
        Sse::new(app.http.get(url).send().await.unwrap())
    };
    let (mut pulse, mut deleted) = (watch("").await, watch(&format!("gatewayId={}", other.id)).await);
    let mut ws = Ws::connect(app.address, &gateway.token, None).await.unwrap();
    ws.message().await.unwrap();
    let first = app.publish(gateway.id, 1).await;
    for n in 2..=4 {
        app.publish(gateway.id, n).await;
    }
    // What leads back to the ring: a reset, the compacted state, the ring.
    let mut following = watch(&format!("gatewayId={}&lastEventId={first}", gateway.id)).await;
    let mut names = BTreeSet::new();
    while names.len() < 2 {
        let event = following.event().await.unwrap();
        described.assert_sent("dashboard", &event);
        names.extend(event.event);
    }
    // A beat with a delivery in it, and one without.
    let (mut quiet, mut busy) = (false, false);
    while !(quiet && busy) {
        let beat = pulse.event().await.unwrap();
        described.assert_sent("dashboard", &beat);
        let is_quiet = beat.json()["deliveryMs"].is_null();
        (quiet, busy) = (quiet || is_quiet, busy || !is_quiet);
    }
    app.delete(&format!("/api/v1/gateways/{}", other.id)).await;
    let mut ending = async |stream: &mut Sse| {
        while let Some(event) = stream.event().await {
            described.assert_sent("dashboard", &event);
            names.extend(event.event);
        }
    };
    ending(&mut deleted).await;
    app.drain();
    ending(&mut pulse).await;
    let sent: Vec<_> = names.iter().map(String::as_str).collect();
    assert_eq!(sent, ["beat", "error", "event", "server.goodbye", "stream.reset"]);
}
