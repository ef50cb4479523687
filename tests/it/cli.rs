//! The command line as its user has it: the real binary against a real server.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::app::App;
use crate::platform::{ORGANIZATION, Platform};
use crate::process::{Said, run};
use crate::tls::write_certificate;

const API: &str = "23826f9e-8daf-4638-b295-14898312759f";
const REVISION: &str = "90d10e1c-8560-5c36-9d5a-124ecaa17485";
const NOBODY: &str = "d1aa71bc-8cb5-4294-8a26-fe1273c28632";
const CONFIG: &str = "gateway.config.updated";

/// Runs a command against a server.
async fn at(server: &Platform, args: &[&str]) -> Said {
    let url = format!("https://{}", server.address);
    run(&[&["-k", "--url", &url], args].concat(), &[]).await
}

/// The JSON answer of a command that must succeed.
async fn json_of(server: &Platform, args: &[&str]) -> Value {
    let said = at(server, &[&["--json"], args].concat()).await;
    assert_eq!(said.exit, 0, "{said:?}");
    serde_json::from_str(&said.out).unwrap_or(Value::Null)
}

async fn words_of(server: &Platform, args: &[&str]) -> String {
    let said = at(server, args).await;
    assert_eq!(said.exit, 0, "{said:?}");
    said.out
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("text, not {value}"))
}

/// Every command, and what its help must have.
const COMMANDS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "serve",
            "config",
            "gateway",
            "token",
            "event-type",
            "deploy",
            "undeploy",
            "publish",
            "stats",
            "listen",
            "Exit codes:",
            "64",
            "69",
            "77",
        ],
    ),
    ("serve", &["--dev", "--config", "--listen", "--data-dir", "--tls", "--tls-cert", "--tls-key", "--store", "--log"]),
    ("config", &["--dev", "--json", "--config"]),
    ("doctor", &["--api-key", "--api-key-file", "--idle", "--connection-timeout", "catchUp: stored"]),
    ("gateway create", &["--organization", "--name", "--display-name", "For people [default: the name]"]),
    ("gateway create", GATEWAY_PROPERTIES),
    ("gateway update", &["<ID>", "--display-name"]),
    ("gateway update", GATEWAY_PROPERTIES),
    ("gateway list", &["--organization", "--connected", "--limit", "--offset"]),
    ("gateway delete", &["<ID>"]),
    ("token create", &["--gateway", "--expires-at"]),
    ("token list", &["--gateway", "--limit"]),
    ("token revoke", &["--gateway", "<ID>"]),
    ("event-type list", &["--limit", "--offset"]),
    ("event-type show", &["<TYPE>"]),
    ("event-type set", &["<TYPE>", "--schema", "--description", "--key", "--ends-key"]),
    ("event-type delete", &["<TYPE>"]),
    ("deploy", &["--api", "--revision", "--gateway", "--vhost", "--idempotency-key", "--file"]),
    ("undeploy", &["--api", "--revision", "--gateway", "--vhost", "--idempotency-key"]),
    ("publish", &["--gateway", "--organization", "--all", "--type", "--payload", "--idempotency-key", "--if-match"]),
    ("stats", &["--gateway"]),
    (
        "listen",
        &["--api-key", "--cert", "--key", "--transport", "--resume", "--instance", "ws, sse, poll", "auto", "Ctrl+C"],
    ),
];

/// What may be said of a gateway both when it is registered and later.
const GATEWAY_PROPERTIES: &[&str] =
    &["--description", "--vhost", "--catch-up", "--allowed-address", "--certificate-name"];

#[tokio::test]
async fn help_of_every_command_exits_0_and_shows_its_options_with_an_example() {
    for &(command, parts) in COMMANDS {
        let args: Vec<_> = command.split_whitespace().chain(["--help"]).collect();
        let said = run(&args, &[]).await;
        assert_eq!((said.exit, said.err.as_str()), (0, ""), "{command}");
        for part in ["Usage: gatecast", "Example", "--url", "--insecure", "--json"].iter().chain(parts) {
            assert!(said.out.contains(part), "{command}: {part} in {}", said.out);
        }
    }
    for group in ["gateway", "token", "event-type", "undeploy"] {
        assert_eq!(run(&[group, "--help"], &[]).await.exit, 0, "{group}");
    }
}

#[tokio::test]
async fn every_fault_of_a_configuration_is_told_at_once_with_64() {
    let faulty = [
        ("WS_MAX_CONNECTIONS", "0"),
        ("GATECAST_LISTN", "x"),
        ("GATECAST_STORE", "tape"),
        ("GATECAST_RING_MAX_AGE", "soon"),
    ];
    for command in [["serve", "--dev"], ["config", "--dev"]] {
        let said = run(&command, &faulty).await;
        assert_eq!((said.exit, said.out.as_str()), (64, ""), "{said:?}");
        for (name, _) in faulty {
            assert!(said.err.contains(name), "{name} in {}", said.err);
        }
        let said = run(&[&command[..], &["--json"]].concat(), &faulty).await;
        let error: Value = serde_json::from_str(&said.err).unwrap();
        assert_eq!((said.exit, error["error"]["faults"].as_array().unwrap().len()), (64, faulty.len()), "{error}");
    }
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_a_fault_of_the_configuration() {
    let dir = tempfile::TempDir::new().unwrap();
    let (data, no_pem) = (dir.path().join("data"), dir.path().join("no.pem"));
    std::fs::write(&no_pem, "no PEM").unwrap();
    for file in [no_pem, dir.path().join("missing")] {
        let file = file.to_str().unwrap();
        let settings = [
            ("GATECAST_DATA_DIR", data.to_str().unwrap()),
            ("GATECAST_TLS_CERT", file),
            ("GATECAST_TLS_KEY", file),
            ("GATECAST_ADMIN_TOKEN", "an-admin-token-for-tests"),
        ];
        let said = run(&["serve", "--listen", "127.0.0.1:0"], &settings).await;
        assert!(said.exit == 64 && said.err.contains(file), "{said:?}");
        assert!(!data.exists(), "nothing is made");
    }
}

#[tokio::test]
async fn faults_of_files_are_told_with_all_others_and_by_config_too() {
    let dir = tempfile::TempDir::new().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    for made in [&one, &two] {
        fs::create_dir(made).unwrap();
        write_certificate(made);
    }
    let path = |of: &Path, name: &str| of.join(name).display().to_string();
    let data = path(dir.path(), "data");
    let settings = |cert: &str, key: &str, ca: &str| {
        [
            ("GATECAST_DATA_DIR", data.clone()),
            ("GATECAST_TLS_CERT", cert.to_owned()),
            ("GATECAST_TLS_KEY", key.to_owned()),
            ("GATECAST_TLS_CLIENT_CA", ca.to_owned()),
        ]
    };
    let [no_cert, no_key, no_ca] = ["no-cert.pem", "no-key.pem", "no-ca.pem"].map(|name| path(dir.path(), name));
    let missing = settings(&no_cert, &no_key, &no_ca);
    let unlike = settings(&path(&one, "cert.pem"), &path(&two, "key.pem"), &no_ca);
    let beside: &[(&str, &str)] = &[("WS_MAX_CONNECTIONS", "0"), ("GATECAST_STORE", "tape")];
    for (settings, others, parts) in [
        (&missing, beside, vec!["WS_MAX_CONNECTIONS", "GATECAST_STORE", &no_cert, &no_key, &no_ca]),
        (&missing, &[], vec![&no_cert, &no_key, &no_ca]),
        (&unlike, &[], vec!["GATECAST_TLS_CERT and GATECAST_TLS_KEY", &no_ca]),
    ] {
        let env: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let env = [&env[..], others].concat();
        for command in [&["config"][..], &["serve", "--listen", "127.0.0.1:0"]] {
            let said = run(&[&["--json"], command].concat(), &env).await;
            assert_eq!((said.exit, said.out.as_str()), (64, ""), "{said:?}");
            // Of a server there are lines of its log before.
            let error: Value = serde_json::from_str(said.err.lines().last().unwrap()).unwrap();
            let faults = error["error"]["faults"].as_array().unwrap();
            assert_eq!(faults.len(), parts.len(), "{command:?}: {error}");
            for part in &parts {
                assert!(faults.iter().any(|fault| text(fault).contains(part)), "{command:?}, {part}: {error}");
            }
        }
    }
    assert!(!Path::new(&data).exists(), "nothing is made");
}

#[tokio::test]
async fn exit_codes_tell_failures_apart() {
    let app = App::with(&[("GATECAST_ADMIN_TOKEN", "an-admin-token-for-tests")]).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = format!("https://{free}");
    let said = run(&["-k", "--url", &nobody, "stats"], &[]).await;
    assert_eq!(said.exit, 69, "{said:?}");
    assert!(said.err.contains("gatecast serve --dev"), "a hint: {said:?}");
    let admin = ["--admin-token", "an-admin-token-for-tests"];
    let publish = ["publish", "--gateway", NOBODY, "--type", CONFIG, "--payload", "{}"];
    let cases: [(i32, &[&str], &[&str]); 8] = [
        (77, &[], &["stats"]),
        (77, &["--admin-token", "not-the-admin-token"], &["stats"]),
        (77, &[], &["listen", "--api-key", "invalid-key"]),
        (3, &admin, &publish),
        (3, &admin, &["gateway", "delete", NOBODY]),
        (3, &admin, &["token", "list", "--gateway", NOBODY]),
        (65, &admin, &["gateway", "create", "--organization", ORGANIZATION, "--name", "No Name"]),
        (2, &[], &["deploi"]),
    ];
    for (exit, who, args) in cases {
        let said = at(&app, &[who, args].concat()).await;
        assert_eq!(said.exit, exit, "{args:?}: {said:?}");
        assert!(!said.err.is_empty() && !said.err.contains("panicked"), "{said:?}");
    }
    let said = at(&app, &["--json", "stats"]).await;
    let error: Value = serde_json::from_str(said.err.lines().last().unwrap()).unwrap();
    assert_eq!(error["error"]["exitCode"], 77, "{error}");
    // From the environment it works.
    let url = format!("https://{}", app.address);
    let env = [("GATECAST_URL", url.as_str()), ("GATECAST_ADMIN_TOKEN", "an-admin-token-for-tests")];
    assert_eq!(run(&["-k", "stats"], &env).await.exit, 0);
}

#[tokio::test]
async fn a_file_that_cannot_be_used_ends_with_65_and_is_named() {
    let commands: [&[&str]; 4] = [
        &["--ca", "/nowhere.pem", "gateway", "list"],
        &["--ca", "/nowhere.pem", "listen", "--api-key", "k"],
        &["-k", "listen", "--cert", "/nowhere.pem", "--key", "/nowhere.pem"],
        &["--admin-token-file", "/nowhere.pem", "stats"],
    ];
    for args in commands {
        let said = run(args, &[]).await;
        assert!(said.exit == 65 && said.err.contains("/nowhere.pem"), "{args:?}: {said:?}");
    }
}

#[tokio::test]
async fn a_command_line_that_is_not_understood_is_told_as_json_to_who_asks_for_json() {
    let publish = ["publish", "--type", CONFIG, "--payload", "{}", "--gateway", "zz"];
    let cases: [(&[&str], &str); 4] =
        [(&publish, "'zz'"), (&["deploi"], "'deploi'"), (&["stats", "--nonsense"], "'--nonsense'"), (&[], "command")];
    for (args, part) in cases {
        let said = run(&[&["--json"], args].concat(), &[]).await;
        let error: Value = serde_json::from_str(&said.err).unwrap_or_else(|error| panic!("{error}: {said:?}"));
        let message = text(&error["error"]["message"]);
        assert!(message.contains(part) && !message.starts_with("error"), "{error}");
        assert_eq!((said.exit, &error["error"]["exitCode"], said.out.as_str()), (2, &json!(2), ""));
        assert!(text(&error["error"]["hint"]).contains("--help"), "{error}");
        let said = run(args, &[]).await;
        assert!(said.exit == 2 && said.err.contains("--help") && !said.err.starts_with('{'), "{said:?}");
    }
    // What comes after `--` is no option.
    assert!(run(&["event-type", "show", "--", "--json", "x"], &[]).await.err.contains("Usage: gatecast"));
    let help = run(&["--json", "--help"], &[]).await;
    assert!(help.exit == 0 && help.out.contains("Usage: gatecast") && help.err.is_empty(), "{help:?}");
}

#[tokio::test]
async fn config_as_json_says_values_units_and_where_each_is_from() {
    let said = run(
        &["config", "--dev", "--json", "--data-dir", "/tmp/x"],
        &[("WS_MAX_CONNECTIONS", "5000"), ("GATECAST_ADMIN_TOKEN", "a-secret-that-is-not-shown")],
    )
    .await;
    assert_eq!(said.exit, 0, "{said:?}");
    assert!(!said.out.contains("a-secret-that"), "{}", said.out);
    let settings: Vec<Value> = serde_json::from_str(&said.out).unwrap();
    let one = |name: &str| settings.iter().find(|setting| setting["name"] == name).unwrap_or_else(|| panic!("{name}"));
    let connections = one("WS_MAX_CONNECTIONS");
    assert_eq!(
        (&connections["value"], &connections["default"], &connections["source"]),
        (&json!("5000"), &json!("1000"), &json!("environment"))
    );
    assert_eq!(
        (&one("GATECAST_DATA_DIR")["value"], &one("WS_CONNECTION_TIMEOUT")["source"]),
        (&json!("/tmp/x"), &json!("default"))
    );
    for setting in &settings {
        assert!(setting["unit"].is_string() && setting["meaning"].is_string(), "{setting}");
    }
    for name in
        ["WS_CONNECTION_TIMEOUT", "WS_RATE_LIMIT_PER_MINUTE", "GATECAST_SHUTDOWN_GRACE", "GATECAST_MAX_EVENT_BYTES"]
    {
        one(name);
    }
}

#[tokio::test]
async fn who_may_come_as_a_gateway_is_set_and_changed_and_the_rest_stays() {
    let app = App::start().await;
    let create = ["gateway", "create", "--organization", ORGANIZATION, "--name", "edge-1", "--vhost", "api.example"];
    let access = ["--allowed-address", "10.1.0.0/16,192.0.2.7", "--certificate-name", "edge-1.example"];
    let made = json_of(&app, &[&create[..], &access].concat()).await;
    assert_eq!(made["allowedAddresses"], json!(["10.1.0.0/16", "192.0.2.7/32"]));
    assert_eq!(made["certificateNames"], json!(["edge-1.example"]));
    let update = ["gateway", "update", text(&made["id"])];
    let two = ["--certificate-name", "a.example", "--certificate-name", "b.example", "--catch-up", "stored"];
    let changed = json_of(&app, &[&update[..], &two].concat()).await;
    assert_eq!(
        (&changed["certificateNames"], &changed["catchUp"]),
        (&json!(["a.example", "b.example"]), &json!("stored"))
    );
    for name in ["allowedAddresses", "vhost", "displayName", "name"] {
        assert_eq!(changed[name], made[name], "{name}");
    }
    let words = words_of(&app, &[&update[..], &["--allowed-address", "", "--vhost", ""]].concat()).await;
    assert_eq!(words, "✓ Updated gateway edge-1\n");
    let left = json_of(&app, &[&update[..], &["--display-name", "Edge"]].concat()).await;
    assert_eq!((left.get("allowedAddresses"), left.get("vhost"), &left["displayName"]), (None, None, &json!("Edge")));
    assert_eq!(at(&app, &[&update[..], &["--allowed-address", "10.0.0.0/99"]].concat()).await.exit, 65);
}

#[tokio::test]
async fn gateways_are_created_listed_and_deleted() {
    let app = App::start().await;
    let create = ["gateway", "create", "--organization", ORGANIZATION, "--name", "edge-1", "--display-name", "Edge 1"];
    let gateway = json_of(&app, &create).await;
    let id = text(&gateway["id"]);
    assert_eq!((&gateway["name"], &gateway["displayName"]), (&json!("edge-1"), &json!("Edge 1")));
    let again = at(&app, &create).await;
    assert!(again.exit == 65 && again.err.contains("NAME_TAKEN"), "{again:?}");
    let words = words_of(&app, &["gateway", "create", "--organization", ORGANIZATION, "--name", "edge-2"]).await;
    assert!(
        words.contains("✓ Registered gateway edge-2") && words.contains("gatecast token create --gateway"),
        "{words}"
    );
    let list = json_of(&app, &["gateway", "list"]).await;
    assert_eq!((&list["count"], &list["pagination"]["total"]), (&json!(2), &json!(2)));
    let table = words_of(&app, &["gateway", "list", "--connected", "false", "--limit", "1"]).await;
    assert!(table.starts_with("ID ") && table.contains("1 of 2"), "{table}");
    assert!(words_of(&app, &["gateway", "delete", id]).await.contains(&format!("✓ Deleted gateway {id}")));
    assert_eq!(at(&app, &["gateway", "delete", id]).await.exit, 3);
    assert_eq!(json_of(&app, &["gateway", "list"]).await["count"], 1);
}

#[tokio::test]
async fn event_types_are_set_listed_shown_and_deleted_and_their_faults_have_pointers() {
    let app = App::start().await;
    let gateway = app.register("one").await.id.to_string();
    let set = |schema: &'static str| ["event-type", "set", "order.shipped", "--key", "/id", "--schema", schema];
    let wrong = at(&app, &set(r#"{"properties":{"id":{"type":"nonsense"}}}"#)).await;
    assert!(wrong.exit == 65 && wrong.err.contains("- /schema/properties/id/type: "), "{wrong:?}");
    let no_json = at(&app, &set("{")).await;
    assert!(no_json.exit == 65 && no_json.err.contains("--schema is not JSON"), "{no_json:?}");
    assert_eq!(at(&app, &["event-type", "set", "no/name", "--schema", "{}"]).await.exit, 2);
    let publish = ["publish", "--gateway", &gateway, "--type", "order.shipped", "--payload"];
    let unknown = at(&app, &[&publish[..], &["{}"]].concat()).await;
    assert!(unknown.exit == 65 && unknown.err.contains("gatecast event-type list"), "{unknown:?}");

    let words = words_of(&app, &set(r#"{"type":"object","required":["id"]}"#)).await;
    assert!(words.contains("✓ Set event type order.shipped"), "{words}");
    let shown = json_of(&app, &["event-type", "show", "order.shipped"]).await;
    assert_eq!((&shown["keyPointer"], &shown["schema"]["required"]), (&json!("/id"), &json!(["id"])));
    let words = words_of(&app, &["event-type", "show", "api.deleted"]).await;
    assert!(words.starts_with("api.deleted (built in)") && words.contains("ends its key"), "{words}");
    let list = words_of(&app, &["event-type", "list"]).await;
    assert!(list.starts_with("TYPE ") && list.contains("order.shipped") && list.contains("6 of 6"), "{list}");
    let invalid = at(&app, &[&publish[..], &["{}"]].concat()).await;
    assert!(invalid.exit == 65 && invalid.err.contains("- /payload: "), "{invalid:?}");
    words_of(&app, &[&publish[..], &[r#"{"id":"o-1"}"#]].concat()).await;

    let built_in = at(&app, &["event-type", "delete", "api.deployed"]).await;
    assert!(built_in.exit == 65 && built_in.err.contains("BUILT_IN_TYPE"), "{built_in:?}");
    assert!(words_of(&app, &["event-type", "delete", "order.shipped"]).await.contains("✓ Deleted event type"));
    let gone = at(&app, &["event-type", "show", "order.shipped"]).await;
    assert!(gone.exit == 3 && gone.err.contains("gatecast event-type list"), "{gone:?}");
}

#[tokio::test]
async fn tokens_are_shown_once_listed_without_secret_and_revoked_at_once() {
    let app = App::start().await;
    let create = ["gateway", "create", "--organization", ORGANIZATION, "--name", "edge-1"];
    let gateway = json_of(&app, &create).await;
    let id = text(&gateway["id"]);
    let token = json_of(&app, &["token", "create", "--gateway", id, "--expires-at", "2099-01-31T00:00:00Z"]).await;
    let secret = text(&token["token"]);
    assert_eq!(secret.len(), 43);
    let words = words_of(&app, &["token", "create", "--gateway", id]).await;
    assert!(words.contains("  Token: ") && words.contains("not shown again"), "{words}");
    let third = at(&app, &["token", "create", "--gateway", id]).await;
    assert!(third.exit == 65 && third.err.contains("TOO_MANY_TOKENS"), "{third:?}");
    let list = words_of(&app, &["token", "list", "--gateway", id]).await;
    assert!(list.contains("2099-01-31") && list.contains(text(&token["id"])) && !list.contains(secret), "{list}");
    let listen = ["listen", "--api-key", secret, "--resume", "earliest", "--count", "1"];
    json_of(&app, &["publish", "--gateway", id, "--type", CONFIG, "--payload", "{}"]).await;
    assert_eq!(at(&app, &listen).await.exit, 0);
    for _ in 0..2 {
        words_of(&app, &["token", "revoke", "--gateway", id, text(&token["id"])]).await;
    }
    let refused = at(&app, &listen).await;
    assert_eq!(refused.exit, 77, "{refused:?}");
    assert!(refused.out.contains("✗ Connection rejected: 401"), "{refused:?}");
}

#[tokio::test]
async fn an_artifact_is_deployed_and_undeployed_and_the_gateway_hears_both() {
    let app = App::start().await;
    let gateway = app.register("edge-1").await;
    let (id, dir) = (gateway.id.to_string(), tempfile::tempdir().unwrap());
    let file = dir.path().join("api.yaml");
    fs::write(&file, "name: pets\n").unwrap();
    let what = ["--api", API, "--revision", REVISION, "--gateway", &id];
    let deploy = [&["deploy"], &what[..], &["--vhost", "mg.wso2.com", "--file", file.to_str().unwrap()]].concat();
    let words = words_of(&app, &deploy).await;
    assert!(words.contains(&format!("✓ Deployed to gateway {id}")), "{words}");
    let fetched = app
        .http
        .get(app.url(&format!("/api/internal/v1/api-runtime-artifacts/{API}")))
        .header("api-key", &gateway.token);
    assert_eq!(
        fetched.header("accept", "application/yaml").send().await.unwrap().text().await.unwrap(),
        "name: pets\n"
    );
    let undeployed = json_of(&app, &[&["undeploy"], &what[..]].concat()).await;
    assert_eq!(undeployed[0]["gatewayId"], id.as_str());
    let (_, heard, _) = app.poll(&gateway.token, "lastEventId=earliest").await.unwrap();
    let types: Vec<_> =
        heard["events"].as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["connection.ack", "api.deployed", "api.undeployed"]);
    let missing = at(&app, &[&["deploy"], &what[..], &["--file", "/nowhere.yaml"]].concat()).await;
    assert_eq!(missing.exit, 65, "{missing:?}");
}

#[tokio::test]
async fn events_are_published_to_one_several_and_all_and_stats_count_them() {
    let app = App::start().await;
    let (one, two) = (app.register("one").await, app.register("two").await);
    let (id, other) = (one.id.to_string(), two.id.to_string());
    let event = ["--type", CONFIG, "--payload", r#"{"level":"debug"}"#];
    let stored = json_of(&app, &[&["publish", "--gateway", &id], &event[..]].concat()).await;
    let stale = at(&app, &[&["publish", "--gateway", &id, "--if-match", "00000000-7"], &event[..]].concat()).await;
    assert!(stale.exit == 65 && stale.err.contains("PRECONDITION_FAILED"), "{stale:?}");
    let fresh = [&["publish", "--gateway", &id, "--if-match", text(&stored["eventId"])], &event[..]].concat();
    assert!(words_of(&app, &fresh).await.contains("✓ Stored event "));
    for target in [vec!["--all"], vec!["--organization", ORGANIZATION], vec!["--gateway", &id, "--gateway", &other]] {
        let all = json_of(&app, &[&["publish"], &target[..], &event[..]].concat()).await;
        assert_eq!(all["results"].as_array().unwrap().len(), 2, "{all}");
    }
    let unknown = at(&app, &["publish", "--all", "--type", "no.such.type", "--payload", "{}"]).await;
    assert!(unknown.exit == 65 && unknown.err.contains("UNKNOWN_EVENT_TYPE"), "{unknown:?}");
    assert_eq!(app.bounds(one.id).await[2], 5);
    let stats = json_of(&app, &["stats"]).await;
    assert_eq!(stats["eventDelivery"]["failedDeliveries"], 8, "{stats}");
    let words = words_of(&app, &["stats", "--gateway", &other]).await;
    assert!(words.contains("Connections: 0") && words.contains("Failed deliveries: 3"), "{words}");
}

#[tokio::test]
async fn a_token_or_payload_that_begins_with_a_hyphen_is_a_value() {
    let app = App::with(&[("GATECAST_ADMIN_TOKEN", "-an-admin-token-for-tests")]).await;
    let gateway = app.register("one").await;
    // One in 64 tokens begins so.
    let refused = at(&app, &["listen", "--api-key", "-DgqzePBJTMD8iElVH-q4_hc3IWZE87PgBqfzS_qPAx"]).await;
    assert_eq!(refused.exit, 77, "{refused:?}");
    assert_eq!(at(&app, &["--admin-token", "-an-admin-token-for-tests", "stats"]).await.exit, 0);
    let id = gateway.id.to_string();
    let event = [
        "publish",
        "--gateway",
        &id,
        "--type",
        "no.such.type",
        "--payload",
        "-1",
        "--correlation-id",
        "-c",
        "--key",
        "-k",
        "--idempotency-key",
        "-i",
    ];
    let published = at(&app, &[&["--admin-token", "-an-admin-token-for-tests"], &event[..]].concat()).await;
    assert!(published.exit == 65 && published.err.contains("UNKNOWN_EVENT_TYPE"), "{published:?}");
}
