//! `/openapi.json` and `/asyncapi.json`: true of what a running server answers and sends.

use std::collections::BTreeSet;
use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use crate::app::App;
use crate::wire::{PATIENCE, Sse, Ws};

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
    let rest =
        ["--exclude-path-regex", "gateways/connect$", "--suppress-health-check", "all", "--request-timeout", "60"];
    let said = venv("st", &[&args[..], &bounds, &rest].concat()).await;
    assert!(said.contains("Operations:       41 selected / 44 total"), "{said}");
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
