//! The command line as a whole.

use std::io;

use clap::CommandFactory;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::config::setting;

const GATEWAY: &str = "d1aa71bc-8cb5-4294-8a26-fe1273c28632";

struct Ran {
    exit: Exit,
    out: String,
    err: String,
}

async fn gatecast(args: &[&str], env: &[(&str, &str)]) -> Ran {
    let mut out = Vec::new();
    let ran = writing_to(&mut out, args, env).await;
    Ran { out: String::from_utf8(out).unwrap(), ..ran }
}

async fn writing_to(out: &mut dyn Write, args: &[&str], env: &[(&str, &str)]) -> Ran {
    let cli = Cli::try_parse_from(std::iter::once(&"gatecast").chain(args)).unwrap();
    let env = Environment::new(env.iter().map(|(name, value)| (name.into(), value.into())));
    let mut err = Vec::new();
    let exit = run(cli, Io { env, out, err: &mut err }, |effective, _| async move {
        Err(format!("serving on {}", effective.config.listen).into())
    })
    .await;
    Ran { exit, out: String::new(), err: String::from_utf8(err).unwrap() }
}

/// Answers requests in turn and gives back what was asked: request line, headers and body.
async fn answers(listener: TcpListener, answers: Vec<(&str, String)>) -> Vec<String> {
    let mut asked = Vec::new();
    for (status, body) in answers {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        let whole = |request: &[u8]| {
            let text = String::from_utf8_lossy(request).to_lowercase();
            let (head, body) = text.split_once("\r\n\r\n")?;
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok());
            (body.len() >= length.unwrap_or(0)).then_some(())
        };
        while whole(&request).is_none() {
            request.push(socket.read_u8().await.unwrap());
        }
        let kind = match status {
            _ if body.starts_with('<') => "text/html",
            _ if status.starts_with('2') => "application/json",
            _ => "application/problem+json",
        };
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\nconnection: close\r\ncontent-length: {length}");
        socket.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.unwrap();
        asked.push(String::from_utf8(request).unwrap());
    }
    asked
}

async fn with_server(args: &[&str], script: Vec<(&str, String)>) -> (Ran, Vec<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let args = [&["--url", &url, "--admin-token", "an-admin-token-of-tests"], args].concat();
    let env = [];
    let (ran, asked) = tokio::join!(gatecast(&args, &env), answers(listener, script));
    (ran, asked)
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_has_help_with_an_example() {
    fn check(command: &clap::Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        assert!(command.get_about().is_some(), "{path} has no description");
        let leaf = command.get_subcommands().next().is_none();
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(!leaf || after.contains("Example"), "{path} has no example");
        command.get_subcommands().for_each(|sub| check(sub, &path));
    }
    check(&Cli::command(), "");
    let help = Cli::command().render_long_help().to_string();
    assert!(help.contains("77  the token") && help.contains("64  the server's"), "{help}");
}

#[tokio::test]
async fn serve_hands_on_a_checked_configuration_or_lists_all_faults() {
    let ran = gatecast(&["serve", "--dev", "--listen", "127.0.0.1:0"], &[]).await;
    assert_eq!((ran.exit.code(), ran.err.contains("serving on 127.0.0.1:0")), (1, true), "{}", ran.err);
    let ran = gatecast(&["serve", "--listen", "here"], &[("WS_MAX_CONNECTIONS", "0"), ("GATECAST_LOGS", "x")]).await;
    assert_eq!(ran.exit.code(), 64);
    for part in ["GATECAST_LISTEN", "WS_MAX_CONNECTIONS", "did you mean GATECAST_LOG?", "GATECAST_TLS_CERT"] {
        assert!(ran.err.contains(part), "{part}: {}", ran.err);
    }
    let ran = gatecast(&["serve", "--dev", "--config", "/nowhere", "--log", "loud"], &[]).await;
    assert!(ran.exit.code() == 64 && ran.err.contains("/nowhere") && ran.err.contains("loud"), "{}", ran.err);
}

#[tokio::test]
async fn the_authorities_of_a_collector_are_looked_at_if_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let [missing, no_pem] = ["missing", "no.pem"].map(|name| dir.path().join(name).display().to_string());
    std::fs::write(&no_pem, "no PEM").unwrap();
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:4318");
    let made = rcgen::generate_simple_self_signed(["collector.example".to_owned()]).unwrap();
    let latin_1 = dir.path().join("latin-1.pem");
    std::fs::write(&latin_1, [b"# Soci\xe9t\xe9\n", made.cert.pem().as_bytes()].concat()).unwrap();
    let certificate = ("OTEL_EXPORTER_OTLP_CERTIFICATE", latin_1.to_str().unwrap());
    let ran = gatecast(&["config", "--dev"], &[endpoint, certificate]).await;
    assert_eq!(ran.exit, Exit::Ok, "what stands beside the certificates need not be UTF-8: {}", ran.err);
    for file in [&missing, &no_pem] {
        let certificate = ("OTEL_EXPORTER_OTLP_CERTIFICATE", file.as_str());
        for command in ["serve", "config"] {
            let ran = gatecast(&[command, "--dev"], &[endpoint, certificate, ("WS_MAX_CONNECTIONS", "0")]).await;
            let told = [certificate.0, file, "WS_MAX_CONNECTIONS"].iter().all(|part| ran.err.contains(part));
            assert!(ran.exit == Exit::Config && told, "{command}: {}", ran.err);
        }
        let ran = gatecast(&["config", "--dev"], &[certificate]).await;
        assert_eq!(ran.exit, Exit::Ok, "{}", ran.err);
    }
}

#[tokio::test]
async fn config_shows_what_holds_and_no_secret() {
    let env = [("GATECAST_ADMIN_TOKEN", "never-show-this-token"), ("WS_MAX_CONNECTIONS", "7")];
    let ran = gatecast(&["config", "--dev"], &env).await;
    assert_eq!(ran.exit, Exit::Ok, "{}", ran.err);
    assert!(ran.out.contains("WS_MAX_CONNECTIONS=7") && ran.out.contains("GATECAST_ADMIN_TOKEN=(set)"), "{}", ran.out);
    let ran = gatecast(&["--json", "config", "--dev"], &env).await;
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert!(json.as_array().unwrap().iter().any(|line| line["source"] == "environment"));
    assert!(!ran.out.contains("never-show-this-token"));
}

#[tokio::test]
async fn a_gateway_is_created_as_the_quickstart_does() {
    let args = ["gateway", "create", "--organization", "org", "--name", "edge-1"];
    let body = format!(r#"{{"id":"{GATEWAY}","name":"edge-1","future":1}}"#);
    let (ran, asked) = with_server(&args, vec![("201 Created", body.clone())]).await;
    assert_eq!(ran.exit, Exit::Ok, "{}", ran.err);
    assert!(ran.out.contains(&format!("ID: {GATEWAY}")), "{}", ran.out);
    assert!(asked[0].starts_with("POST /api/v1/gateways HTTP/1.1"), "{}", asked[0]);
    assert!(asked[0].to_lowercase().contains("authorization: bearer an-admin-token-of-tests"));
    assert!(asked[0].ends_with(r#"{"organizationId":"org","name":"edge-1","displayName":"edge-1"}"#), "{}", asked[0]);
    let (ran, _) = with_server(&[&["--json"], &args[..]].concat(), vec![("201 Created", body)]).await;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&ran.out).unwrap()["future"], 1);
}

#[tokio::test]
async fn deploy_uploads_the_artifact_before_the_deployment() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "kind: http\n").unwrap();
    let path = file.path().display().to_string();
    let args = ["deploy", "--api", GATEWAY, "--revision", "r 1", "--gateway", GATEWAY, "--file", &path];
    let deployed =
        format!(r#"[{{"gatewayId":"{GATEWAY}","deploymentId":"d","eventId":"6f3a9c21-1","status":"DEPLOYING"}}]"#);
    let script = vec![
        ("200 OK", format!(r#"{{"id":"{GATEWAY}","name":"edge-1","vhost":"mg.example.com"}}"#)),
        ("204 No Content", String::new()),
        ("200 OK", deployed),
    ];
    let (ran, asked) = with_server(&args, script).await;
    assert_eq!(ran.exit, Exit::Ok, "{}", ran.err);
    assert!(asked[1].starts_with(&format!("PUT /api/v1/apis/{GATEWAY}?revisionId=r+1 ")), "{}", asked[1]);
    assert!(asked[1].contains("application/yaml") && asked[1].ends_with("kind: http\n"));
    assert!(asked[2].starts_with(&format!("POST /api/v1/apis/{GATEWAY}/deploy-revision?revisionId=r+1 ")));
    assert!(asked[2].contains(r#""vhost":"mg.example.com","displayOnDevportal":true"#), "{}", asked[2]);
    assert!(ran.out.contains("Event: 6f3a9c21-1"), "{}", ran.out);
}

#[tokio::test]
async fn undeploy_leaves_to_the_server_what_is_not_said() {
    let args = ["undeploy", "--api", GATEWAY, "--revision", "r", "--gateway", GATEWAY];
    let undeployed = format!(r#"[{{"gatewayId":"{GATEWAY}","deploymentId":"d","status":"UNDEPLOYING"}}]"#);
    let (ran, asked) = with_server(&args, vec![("200 OK", undeployed)]).await;
    assert_eq!(ran.exit, Exit::Ok, "{}", ran.err);
    assert!(asked[0].ends_with(&format!(r#"[{{"revisionId":"r","gatewayId":"{GATEWAY}"}}]"#)), "{}", asked[0]);
}

#[tokio::test]
async fn publish_chooses_its_call_by_its_targets() {
    let payload = ["--type", "t.x", "--payload", r#"{"n":1.50}"#];
    let one = [&["publish", "--gateway", GATEWAY, "--if-match", "6f3a9c21-1"], &payload[..]].concat();
    let (ran, asked) =
        with_server(&one, vec![("201 Created", r#"{"eventId":"6f3a9c21-2","connections":3}"#.into())]).await;
    assert!(ran.out.contains("6f3a9c21-2") && ran.out.contains("Connections: 3"), "{}", ran.out);
    assert!(asked[0].starts_with(&format!("POST /api/internal/v1/gateways/{GATEWAY}/events ")));
    assert!(asked[0].to_lowercase().contains("if-match: 6f3a9c21-1"));
    assert!(asked[0].ends_with(r#"{"type":"t.x","payload":{"n":1.50}}"#), "{}", asked[0]);
    let all = [&["publish", "--all"], &payload[..]].concat();
    let results = format!(r#"{{"count":1,"results":[{{"gatewayId":"{GATEWAY}","code":"UNAVAILABLE"}}]}}"#);
    let (ran, asked) = with_server(&all, vec![("200 OK", results)]).await;
    assert!(ran.exit == Exit::Failure && ran.out.contains("UNAVAILABLE") && ran.err.contains("1 of 1"), "{}", ran.err);
    // It may be stored all the same, and then not once more.
    assert!(ran.err.contains(&format!("--idempotency-key {}", key_of(&asked[0]))), "{}", ran.err);
    assert!(asked[0].ends_with(r#"{"targets":{"all":true},"type":"t.x","payload":{"n":1.50}}"#), "{}", asked[0]);
}

/// Takes one request and hangs up without an answer. Gives back what was asked.
async fn hangs_up(listener: TcpListener) -> String {
    let (mut socket, _) = listener.accept().await.unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"{}}") {
        request.push(socket.read_u8().await.unwrap());
    }
    String::from_utf8(request).unwrap()
}

/// The key that a publish was sent with.
fn key_of(asked: &str) -> &str {
    asked.split("\r\n").find_map(|line| line.strip_prefix("idempotency-key: ")).expect("a key")
}

#[tokio::test]
async fn a_publish_without_an_answer_may_be_repeated_by_the_key_that_it_was_sent_with() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let args = ["--url", &url, "publish", "--gateway", GATEWAY, "--type", "t.x", "--payload", "{}"];
    let (ran, asked) = tokio::join!(gatecast(&args, &[]), hangs_up(listener));
    let key = key_of(&asked);
    assert_eq!(ran.exit, Exit::TryLater, "{}", ran.err);
    assert!(ran.err.contains("may be stored") && ran.err.contains(&format!("--idempotency-key {key}")), "{}", ran.err);
}

#[tokio::test]
async fn a_publish_that_a_server_or_proxy_gave_up_may_be_repeated_by_its_key() {
    let args = ["publish", "--gateway", GATEWAY, "--type", "t.x", "--payload", "{}"];
    let problem = r#"{"title":"Service Unavailable","code":"UNAVAILABLE","trackingId":"t-1"}"#;
    for (status, body, exit, part) in [
        ("503 Service Unavailable", problem, Exit::TryLater, "tracking id: t-1"),
        ("504 Gateway Time-out", "<html>", Exit::TryLater, "504"),
        ("502 Bad Gateway", "<html>", Exit::TryLater, "502"),
        ("500 Internal Server Error", "<html>", Exit::Failure, "500"),
    ] {
        let (ran, asked) = with_server(&args, vec![(status, body.to_owned())]).await;
        let repeat = format!("--idempotency-key {}", key_of(&asked[0]));
        assert_eq!(ran.exit, exit, "{status}: {}", ran.err);
        for part in [part, "may be stored", &repeat] {
            assert!(ran.err.contains(part), "{part}: {}", ran.err);
        }
        let (ran, asked) = with_server(&[&["--json"], &args[..]].concat(), vec![(status, body.to_owned())]).await;
        let error = serde_json::from_str::<serde_json::Value>(&ran.err).unwrap()["error"].take();
        assert_eq!(error["idempotencyKey"], key_of(&asked[0]), "{error}");
        assert_eq!(error["status"].to_string(), status[..3], "{error}");
    }
    let refused = vec![("429 Too Many Requests", r#"{"code":"RATE_LIMITED"}"#.to_owned())];
    let (ran, _) = with_server(&args, refused).await;
    assert!(ran.exit == Exit::TryLater && !ran.err.contains("may be stored"), "{}", ran.err);
}

#[tokio::test]
async fn a_call_without_an_answer_does_not_say_that_there_is_no_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    for (command, changes) in [(&["stats"][..], false), (&["gateway", "delete", GATEWAY], true)] {
        let hang_up = async { drop(listener.accept().await.unwrap().0) };
        let args = [&["--url", &url], command].concat();
        let (ran, ()) = tokio::join!(gatecast(&args, &[]), hang_up);
        assert_eq!(ran.exit, Exit::TryLater, "{}", ran.err);
        assert!(!ran.err.contains("serve --dev"), "{}", ran.err);
        assert_eq!(ran.err.contains("may have been done"), changes, "{}", ran.err);
    }
}

#[tokio::test]
async fn a_change_that_a_server_or_proxy_gave_up_may_have_been_done() {
    let late = r#"{"title":"Service Unavailable","code":"UNAVAILABLE"}"#;
    let create = ["gateway", "create", "--organization", "org", "--name", "edge-1"];
    for (args, changes) in [
        (&["token", "create", "--gateway", GATEWAY][..], true),
        (&create, true),
        (&["event-type", "delete", "t.x"], true),
        (&["stats"], false),
        (&["gateway", "list"], false),
    ] {
        for (status, body) in [("504 Gateway Time-out", "<html>"), ("503 Service Unavailable\r\nretry-after: 5", late)]
        {
            let (ran, _) = with_server(args, vec![(status, body.to_owned())]).await;
            assert_eq!(ran.exit, Exit::TryLater, "{}", ran.err);
            assert_eq!(ran.err.contains("may have been done"), changes, "{args:?} {status}: {}", ran.err);
        }
        let limited = "429 Too Many Requests\r\nretry-after: 5";
        let (ran, _) = with_server(args, vec![(limited, r#"{"code":"RATE_LIMITED"}"#.to_owned())]).await;
        assert!(!ran.err.contains("may have been done") && ran.err.contains("Try again in 5 s"), "{}", ran.err);
    }
}

#[tokio::test]
async fn a_deployment_that_a_server_or_proxy_gave_up_may_be_repeated_by_its_key() {
    let what = ["--vhost", "h", "--api", GATEWAY, "--revision", "r", "--gateway", GATEWAY];
    let told = format!(r#"[{{"gatewayId":"{GATEWAY}","deploymentId":"d","status":"DEPLOYING","code":"STORE_FULL"}}]"#);
    for command in ["deploy", "undeploy"] {
        let args = [&[command], &what[..]].concat();
        let (ran, asked) = with_server(&args, vec![("504 Gateway Time-out", "<html>".to_owned())]).await;
        let key = key_of(&asked[0]);
        assert_eq!(ran.exit, Exit::TryLater, "{}", ran.err);
        assert!(
            ran.err.contains("may be stored") && ran.err.contains(&format!("--idempotency-key {key}")),
            "{}",
            ran.err
        );
        let again = [&args[..], &["--idempotency-key", key]].concat();
        let (ran, asked) = with_server(&again, vec![("200 OK", told.clone())]).await;
        assert_eq!(key_of(&asked[0]), key);
        assert!(ran.err.contains("1 of 1") && ran.err.contains(&format!("--idempotency-key {key}")), "{}", ran.err);
        let (ran, _) = with_server(&args, vec![("409 Conflict", r#"{"code":"CONFLICT"}"#.to_owned())]).await;
        assert!(!ran.err.contains("may be stored"), "{}", ran.err);
    }
}

#[tokio::test]
async fn what_is_no_gatecast_is_told_from_a_gateway_that_is_not_there() {
    for (status, part) in [
        ("200 OK", "not something in front of it"),
        ("404 Not Found", "not something in front of it"),
        ("301 Moved Permanently\r\nlocation: https://elsewhere.example/", "https://elsewhere.example/"),
    ] {
        for command in
            [&["gateway", "list"][..], &["listen", "--api-key", "key", "--transport", "poll", "--count", "1"]]
        {
            if !status.starts_with("404") && command[0] == "listen" {
                continue;
            }
            let (ran, _) = with_server(command, vec![(status, "<html>".to_owned())]).await;
            assert_eq!(ran.exit, Exit::Unreachable, "{status} {command:?}: {}", ran.err);
            assert!(ran.err.contains(part) && !ran.err.contains("gateway list"), "{}", ran.err);
        }
    }
}

#[tokio::test]
async fn what_answers_anything_with_success_is_no_gatecast_and_has_done_nothing() {
    let event = ["--type", "t.x", "--payload", "{}"];
    let api = ["--api", GATEWAY, "--revision", "r", "--gateway", GATEWAY];
    for args in [
        &[&["publish", "--gateway", GATEWAY], &event[..]].concat()[..],
        &[&["publish", "--all"], &event[..]].concat(),
        &["gateway", "create", "--organization", "org", "--name", "edge-1"],
        &["gateway", "update", GATEWAY, "--vhost", "h"],
        &["gateway", "delete", GATEWAY],
        &["token", "revoke", "--gateway", GATEWAY, GATEWAY],
        &["event-type", "set", "t.x", "--schema", "{}"],
        &["event-type", "show", "t.x"],
        &["event-type", "delete", "t.x"],
        &[&["undeploy"], &api[..]].concat(),
        &["stats"],
    ] {
        for args in [args, &[&["--json"], args].concat()] {
            let (ran, _) = with_server(args, vec![("200 OK", "{}".to_owned())]).await;
            assert!(ran.exit == Exit::Unreachable && ran.out.is_empty(), "{args:?}: {}", ran.out);
            assert!(ran.err.contains("not what a gatecast server says"), "{args:?}: {}", ran.err);
        }
    }
    let neither = format!(r#"{{"results":[{{"gatewayId":"{GATEWAY}"}}]}}"#);
    let (ran, _) = with_server(&[&["publish", "--all"], &event[..]].concat(), vec![("200 OK", neither)]).await;
    assert!(ran.exit != Exit::Ok && ran.out.is_empty(), "{}", ran.out);
}

#[tokio::test]
async fn a_wrong_scheme_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // As a server of TLS says to HTTP: an alert. To who speaks TLS it is no TLS if it is called HTTP.
    for (scheme, answer, other) in [
        ("http", &b"\x15\x03\x03\x00\x02\x02\x46"[..], "https://"),
        ("https", b"HTTP/1.1 400 Bad Request\r\n\r\n", "http://"),
    ] {
        let url = format!("{scheme}://{address}");
        let answer = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.read_u8().await.unwrap();
            socket.write_all(answer).await.unwrap();
            socket.shutdown().await.unwrap();
            socket.read_to_end(&mut Vec::new()).await.ok();
        };
        let args = ["--url", &url, "stats"];
        let (ran, ()) = tokio::join!(gatecast(&args, &[]), answer);
        assert_eq!(ran.exit, Exit::Unreachable, "{}", ran.err);
        assert!(ran.err.contains(&format!("the address starts with {other}")), "{}", ran.err);
        assert!(!ran.err.contains("serve --dev"), "{}", ran.err);
    }
}

/// An output whose reader went away.
struct Unread;

impl Write for Unread {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A command whose server answers so, and whose output nobody reads.
async fn unread(args: &[&str], answer: &str) -> Ran {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let args = [&["--url", &url], args].concat();
    let (mut out, script) = (Unread, vec![("200 OK", answer.to_owned())]);
    tokio::join!(writing_to(&mut out, &args, &[]), answers(listener, script)).0
}

#[tokio::test]
async fn what_was_not_done_is_no_success_though_nobody_reads_of_it() {
    let one = |end: &str| format!(r#"{{"gatewayId":"{GATEWAY}","deploymentId":"d","status":"DEPLOYING",{end}}}"#);
    let told = format!("[{},{}]", one(r#""eventId":"6f3a9c21-1""#), one(r#""eventId":null,"code":"STORE_FULL""#));
    let deployments = ["--api", GATEWAY, "--revision", "r", "--gateway", GATEWAY];
    let results = format!(r#"{{"results":{told}}}"#);
    for (args, answer) in [
        (&["publish", "--all", "--type", "t.x", "--payload", "{}"][..], results),
        (&[&["deploy", "--vhost", "h"], &deployments[..]].concat(), told.clone()),
        (&[&["undeploy"], &deployments[..]].concat(), told),
    ] {
        for args in [args, &[&["--json"], args].concat()] {
            let ran = unread(args, &answer).await;
            assert!(ran.exit == Exit::Failure && ran.err.contains("1 of 2"), "{args:?}: {}", ran.err);
        }
    }
    // Nobody listens at that port.
    let doctor = ["--url", "http://127.0.0.1:1", "doctor", "--api-key", "key"];
    for args in [&doctor[..], &[&["--json"], &doctor[..]].concat()] {
        let ran = writing_to(&mut Unread, args, &[]).await;
        assert_eq!(ran.exit, Exit::Unreachable, "{args:?}: {}", ran.err);
    }
    let ran = unread(&["gateway", "list"], r#"{"list":[]}"#).await;
    assert_eq!((ran.exit, &*ran.err), (Exit::Ok, ""), "who read enough has what it wanted");
}

#[tokio::test]
async fn a_token_that_nobody_was_shown_is_named_so_that_it_can_be_revoked() {
    let args = ["token", "create", "--gateway", GATEWAY];
    for args in [&args[..], &[&["--json"], &args[..]].concat()] {
        let ran = unread(args, r#"{"id":"token-7","token":"secret"}"#).await;
        let revoke = format!("gatecast token revoke --gateway {GATEWAY} token-7");
        assert!(ran.exit == Exit::Failure && ran.err.contains(&revoke), "{args:?}: {}", ran.err);
        assert!(!ran.err.contains("secret"), "{}", ran.err);
    }
}

#[tokio::test]
async fn refusals_say_what_to_do_and_become_exit_codes() {
    let problem = |code: &str| format!(r#"{{"title":"T","detail":"D","code":"{code}"}}"#);
    let list = ["gateway", "list"];
    let (ran, _) = with_server(&list, vec![("401 Unauthorized", problem("UNAUTHORIZED"))]).await;
    assert!(
        ran.exit.code() == 77 && ran.err.contains("UNAUTHORIZED") && ran.err.contains("--admin-token"),
        "{}",
        ran.err
    );
    for (args, code, list) in [
        (&["gateway", "delete", GATEWAY][..], "GATEWAY_NOT_FOUND", "gatecast gateway list"),
        (&["token", "revoke", "--gateway", GATEWAY, GATEWAY], "TOKEN_NOT_FOUND", "gatecast token list"),
        (&["event-type", "show", "t.x"], "EVENT_TYPE_NOT_FOUND", "gatecast event-type list"),
    ] {
        let (ran, _) = with_server(args, vec![("404 Not Found", problem(code))]).await;
        assert!(ran.exit.code() == 3 && ran.err.contains(list), "{}", ran.err);
    }
    let ran = gatecast(&["--url", "http://127.0.0.1:1", "stats"], &[]).await;
    assert!(ran.exit.code() == 69 && ran.err.contains("serve --dev"), "{}", ran.err);
    let ran = gatecast(&["listen"], &[]).await;
    assert!(ran.exit.code() == 77 && ran.err.contains("GATECAST_API_KEY"), "{}", ran.err);
}

#[tokio::test]
async fn listen_counts_saves_its_cursor_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cursor").display().to_string();
    let ack = r#"{"type":"connection.ack","gatewayId":"g","connectionId":"c","timestamp":"t"}"#;
    let event = |n: u32| format!(r#"{{"type":"t","eventId":"6f3a9c21-{n}"}}"#);
    let reply = |n: u32| format!(r#"{{"connectionId":"c","events":[{ack},{},{}]}}"#, event(n), event(n + 1));
    let args = ["listen", "--api-key", "key", "--transport", "poll", "--resume", &file, "--count", "2"];
    let (ran, asked) = with_server(&args, vec![("200 OK", reply(1))]).await;
    assert_eq!(ran.exit, Exit::Ok, "{}", ran.err);
    assert!(ran.out.starts_with("Connecting to http://"), "{}", ran.out);
    assert!(
        ran.out.contains("\"eventId\": \"6f3a9c21-2\"") && ran.out.ends_with("Connection closed by server\n"),
        "{}",
        ran.out
    );
    assert!(!asked[0].contains("last-event-id"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "6f3a9c21-2\n");
    let (ran, asked) = with_server(&[&["--json"], &args[..]].concat(), vec![("200 OK", reply(3))]).await;
    assert!(asked[0].contains("last-event-id: 6f3a9c21-2"), "{}", asked[0]);
    let kinds: Vec<_> =
        ran.out.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["kind"].clone()).collect();
    assert_eq!(kinds, ["connecting", "connected", "event", "event", "closed"]);
}

#[tokio::test]
async fn a_refused_key_ends_listen_with_77() {
    let args = ["listen", "--api-key", "wrong", "--transport", "sse"];
    let (ran, _) =
        with_server(&args, vec![("401 Unauthorized", r#"{"code":"UNAUTHORIZED","detail":"no"}"#.into())]).await;
    assert!(ran.exit.code() == 77 && ran.err.contains("token create"), "{}", ran.err);
    assert!(ran.out.contains("✗ Connection rejected: 401"), "{}", ran.out);
}

#[tokio::test]
async fn who_came_by_a_certificate_alone_is_told_of_no_key() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["edge-1.example".to_owned()]).unwrap();
    let [cert, key] =
        [("cert.pem", made.cert.pem()), ("key.pem", made.signing_key.serialize_pem())].map(|(name, pem)| {
            std::fs::write(dir.path().join(name), pem).unwrap();
            dir.path().join(name).display().to_string()
        });
    let by = ["listen", "--transport", "sse", "--cert", &cert, "--key", &key];
    for (args, part) in [
        (&by[..], "gateway update ID --certificate-name"),
        (&[&by[..], &["--api-key", "wrong"]].concat(), "token create"),
    ] {
        let refused = r#"{"code":"UNAUTHORIZED","detail":"no"}"#;
        let (ran, _) = with_server(args, vec![("401 Unauthorized", refused.to_owned())]).await;
        assert!(ran.exit.code() == 77 && ran.err.contains(part), "{args:?}: {}", ran.err);
    }
}

#[tokio::test]
async fn an_interrupt_ends_listen_cleanly() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let args = ["gatecast", "--url", &url, "listen", "--api-key", "key", "--transport", "poll"];
    let Command::Listen(listen) = Cli::try_parse_from(args).unwrap().command else { unreachable!() };
    let remote = Cli::try_parse_from(args).unwrap().remote;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut out = Vec::new();
    let mut output = Output { json: false, out: &mut out };
    let env = Environment::default();
    let stopped = async { drop(stopped.await) };
    let ack = r#"{"events":[{"type":"connection.ack"}]}"#.to_owned();
    let serve = async {
        let (listener, asked) = (listener, vec![("200 OK", ack)]);
        answers(listener, asked).await;
        stop.send(()).unwrap();
    };
    let (ended, ()) = tokio::join!(listen.run(&remote, &env, &mut output, stopped), serve);
    ended.unwrap();
    let said = String::from_utf8(out).unwrap();
    assert!(said.contains("Interrupt received, closing connection...\n"), "{said}");
}

#[tokio::test]
async fn store_finds_the_data_directory_where_serve_does() {
    let default = setting::DATA_DIR.default.unwrap();
    for (flag, variable, dir) in [
        (None, None, default),
        (None, Some(""), default),
        (None, Some(" /nowhere/at/all  "), "/nowhere/at/all"),
        (Some(""), Some("/nowhere/at/all"), "/nowhere/at/all"),
        (Some("/not/here "), Some("/nowhere/at/all"), "/not/here"),
    ] {
        let args = [&["store", "check"][..], &flag.map_or(vec![], |flag| vec!["--data-dir", flag])].concat();
        let env: Vec<_> = variable.into_iter().map(|value| ("GATECAST_DATA_DIR", value)).collect();
        let ran = gatecast(&args, &env).await;
        let no_store = format!("the data directory {dir} cannot be used: there is no store in it\n");
        assert!(ran.err.contains(&no_store) && ran.exit.code() == 65, "{flag:?} {variable:?}: {}", ran.err);
    }
    let ran = gatecast(&["store", "check"], &[("GATECAST_DATA_DIR", "a\0b")]).await;
    assert!(ran.exit.code() == 64 && ran.err.contains("NUL"), "{}", ran.err);
}
