//! Every refusal of an event or a platform call (CONTRACT.md §§ 6, 9), and that nothing was stored.

use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{App, Registered};
use crate::platform::{ORGANIZATION, answer};
use crate::wire::{Sse, Ws};

const API: &str = "23826f9e-8daf-4638-b295-14898312759f";
const NOBODY: &str = "d1aa71bc-8cb5-4294-8a26-fe1273c28632";
const MIB: usize = 1 << 20;
/// The longest cursor is so much longer than that of a log's first event; a log may grow, so room is kept for it.
const ROOM_FOR_CURSOR: usize = 19;

fn events_of(gateway: &Registered) -> String {
    format!("/api/internal/v1/gateways/{}/events", gateway.id)
}

/// Sends a body as it is; checks that the answer is a problem of this status and code.
async fn refused(app: &App, method: Method, path: &str, body: &str, expected: (u16, &str)) -> Value {
    let request = app.http.request(method.clone(), app.url(path)).header("content-type", "application/json");
    let response = request.body(body.to_owned()).send().await.unwrap();
    let is_problem = response.headers()["content-type"] == "application/problem+json";
    let retry_after = response.headers().contains_key("retry-after");
    let (status, problem) = answer(response).await;
    let said = (status.as_u16(), problem["code"].as_str().unwrap_or_default());
    assert_eq!(said, expected, "{method} {path} {body}: {problem}");
    assert!(is_problem && !retry_after, "{problem}");
    problem
}

fn fields(problem: &Value) -> Vec<&str> {
    problem["errors"].as_array().unwrap().iter().map(|error| error["field"].as_str().unwrap()).collect()
}

/// A publisher counts on it.
#[tokio::test]
async fn what_says_how_a_call_is_meant_is_never_passed_over() {
    let app = App::start().await;
    let gateway = app.register("one").await;
    let newest = app.publish(gateway.id, 1).await;
    let before = app.bounds(gateway.id).await;
    let (one, many) = (events_of(&gateway), "/api/internal/v1/events");
    let mut event = json!({"type": "api.deployed", "payload": {"apiId": API}});
    event["targets"] = json!({"gatewayIds": [gateway.id]});
    let send = async |method: Method, path: &str, kind: &str, name: &str, values: &[&str]| {
        let request = app.http.request(method, app.url(path)).header("content-type", kind).body(event.to_string());
        let request = values.iter().fold(request, |request, value| request.header(name, *value));
        let (status, problem) = answer(request.send().await.unwrap()).await;
        (status.as_u16(), problem)
    };
    for (path, name, values) in [
        (&*one, "If-Match", &[&*newest, "00000000-7"][..]),
        (&*one, "Idempotency-Key", &["a", "b"]),
        (many, "Idempotency-Key", &["a", "a"]),
        // There is no newest event of several gateways.
        (many, "If-Match", &[&*newest]),
    ] {
        let (status, problem) = send(Method::POST, path, "application/json", name, values).await;
        assert_eq!((status, fields(&problem)), (400, vec![name]), "{problem}");
    }
    let artifact = format!("/api/v1/apis/{API}");
    for (method, path, kind) in [(Method::POST, &one, "application/json"), (Method::PUT, &artifact, "application/yaml")]
    {
        let (status, problem) = send(method, path, kind, "Content-Encoding", &["gzip"]).await;
        assert_eq!((status, &problem["code"]), (415, &json!("UNSUPPORTED_MEDIA_TYPE")), "{problem}");
    }
    assert_eq!(app.get(&artifact).await.0, 404, "an artifact that nobody can read is not kept");
    assert_eq!(app.bounds(gateway.id).await, before);
    let (status, _) = send(Method::POST, &one, "application/json", "Content-Encoding", &["identity"]).await;
    assert_eq!(status, 201);
}

#[tokio::test]
async fn a_bad_event_is_refused_with_its_reason_and_nothing_is_stored() {
    let app = App::start().await;
    let gateway = app.register("one").await;
    app.publish(gateway.id, 1).await;
    let before = app.bounds(gateway.id).await;
    let (path, post) = (events_of(&gateway), Method::POST);
    for body in [
        "",
        "{",
        "nothing",
        r#"{"type":"api.deployed","payload":{"apiId":"a"}"#,
        r#"{"type":"api.deployed" "payload":1}"#,
    ] {
        refused(&app, post.clone(), &path, body, (400, "INVALID_JSON")).await;
    }
    for (body, field) in [
        (r#"{"payload":{}}"#, "/type"),
        (r#"{"type":"api.deployed"}"#, "/payload"),
        (r#"{"type":7,"payload":{}}"#, "/type"),
        (r#"{"type":"no name","payload":{}}"#, "/type"),
        (r#"{"type":"api.deployed","payload":{"apiId":"a"},"correlationId":7}"#, "/correlationId"),
        (r#"{"type":"api.deployed","payload":{"apiId":"a"},"key":[]}"#, "/key"),
    ] {
        let problem = refused(&app, post.clone(), &path, body, (400, "VALIDATION_FAILED")).await;
        assert_eq!(fields(&problem), [field], "{body}");
    }
    refused(&app, post.clone(), &path, r#"{"type":"no.such.type","payload":{}}"#, (400, "UNKNOWN_EVENT_TYPE")).await;
    let body = r#"{"type":"api.deployed","payload":{"apiId":"","vhost":7}}"#;
    let problem = refused(&app, post.clone(), &path, body, (400, "VALIDATION_FAILED")).await;
    let mut pointers = fields(&problem);
    pointers.sort_unstable();
    assert_eq!(pointers, ["/payload/apiId", "/payload/vhost"]);
    let body = r#"{"type":"gateway.config.updated","payload":[]}"#;
    assert_eq!(fields(&refused(&app, post.clone(), &path, body, (400, "VALIDATION_FAILED")).await), ["/payload"]);
    let good = r#"{"type":"gateway.config.updated","payload":{}}"#;
    for nobody in [NOBODY, "no-uuid"] {
        let path = format!("/api/internal/v1/gateways/{nobody}/events");
        refused(&app, post.clone(), &path, good, (404, "GATEWAY_NOT_FOUND")).await;
    }
    let typed = app.http.post(app.url(&path)).header("content-type", "text/plain").body(good).send().await.unwrap();
    assert_eq!(typed.status(), 415);
    assert_eq!(app.bounds(gateway.id).await, before, "nothing was stored");
}

#[tokio::test]
async fn if_match_appends_only_at_the_head() {
    let app = App::start().await;
    let gateway = app.register("one").await;
    let [first, second] = [app.publish(gateway.id, 1).await, app.publish(gateway.id, 2).await];
    let before = app.bounds(gateway.id).await;
    let if_match = async |value: &str| {
        let event = json!({"type": "gateway.config.updated", "payload": {}});
        let request = app.http.post(app.url(&events_of(&gateway))).header("if-match", value).json(&event);
        answer(request.send().await.unwrap()).await
    };
    for (value, status, code) in [
        (first.as_str(), 412, "PRECONDITION_FAILED"),
        ("00000000-2", 412, "PRECONDITION_FAILED"),
        ("*x", 400, "INVALID_PARAMETER"),
    ] {
        let (answered, problem) = if_match(value).await;
        assert_eq!((answered.as_u16(), &problem["code"]), (status, &json!(code)), "{problem}");
        assert_eq!(problem["head"].as_str(), (status == 412).then_some(second.as_str()), "{problem}");
    }
    assert_eq!(app.bounds(gateway.id).await, before, "nothing was stored");
    assert_eq!(if_match(&second).await.0, 201);
    assert_eq!(if_match(&format!("\"{second}\"")).await.0, 412);
}

/// Publishes an event whose payload is `pad` bytes longer than the shortest; its status, and its code or id.
async fn padded(app: &App, gateway: &Registered, pad: usize) -> (u16, String) {
    let event = json!({"type": "gateway.config.updated", "payload": {"x": "x".repeat(pad)}});
    let (status, said) = app.post(&events_of(gateway), event).await;
    let word = if status == 201 { "eventId" } else { "code" };
    (status.as_u16(), said[word].as_str().unwrap().to_owned())
}

/// The bytes of the newest event's envelope.
async fn newest_bytes(app: &App, gateway: &Registered) -> usize {
    let id = app.bounds(gateway.id).await[1].as_str().unwrap().to_owned();
    let url = app.url(&format!("/api/internal/v1/events/{}/{id}", gateway.id));
    let whole = app.http.get(url).send().await.unwrap().text().await.unwrap();
    // `{"event":` before, `,"storedAt":"2026-11-20T17:00:00.123Z"}` after.
    whole.len() - r#"{"event":,"storedAt":"2026-11-20T17:00:00.123Z"}"#.len()
}

#[tokio::test]
async fn an_event_at_the_size_limit_is_stored_and_one_byte_more_gets_413() {
    for (setting, limit) in [("2KiB", 2048), ("1MiB", MIB)] {
        let app = App::with(&[("GATECAST_MAX_EVENT_BYTES", setting)]).await;
        let gateway = app.register("one").await;
        assert_eq!(padded(&app, &gateway, 0).await.0, 201);
        let room = limit - newest_bytes(&app, &gateway).await;
        let mut accepted = None;
        // The limit holds for the longest cursor that the event could have.
        for pad in (room - ROOM_FOR_CURSOR..=room).rev() {
            let before = app.bounds(gateway.id).await;
            let (status, said) = padded(&app, &gateway, pad).await;
            if status == 201 {
                accepted = Some(pad);
                break;
            }
            assert_eq!((status, said.as_str()), (413, "PAYLOAD_TOO_LARGE"));
            assert_eq!(app.bounds(gateway.id).await, before, "nothing was stored");
        }
        let pad = accepted.expect("an event of the limit less the room for its cursor");
        assert!(newest_bytes(&app, &gateway).await <= limit);
        assert_eq!(padded(&app, &gateway, pad + 1).await.0, 413, "one byte more");
        assert_eq!(padded(&app, &gateway, 10 * limit).await.0, 413, "refused before it is read whole");
    }
}

#[tokio::test]
async fn the_largest_event_is_delivered_on_all_three_transports() {
    let app = App::start().await;
    let gateway = app.register("one").await;
    padded(&app, &gateway, 0).await;
    let pad = MIB - newest_bytes(&app, &gateway).await - ROOM_FOR_CURSOR;
    let mut ws = Ws::connect(app.address, &gateway.token, None).await.unwrap();
    let mut sse = Sse::connect(&app.http, app.address, &gateway.token, None).await.unwrap();
    ws.message().await.unwrap();
    sse.event().await.unwrap();
    let (_, opened, _) = app.poll(&gateway.token, "").await.unwrap();
    let (status, id) = padded(&app, &gateway, pad).await;
    assert_eq!(status, 201, "{id}");
    let query = format!("lastEventId={}", opened["lastEventId"].as_str().unwrap());
    let polled = app.poll(&gateway.token, &query).await.unwrap().1["events"][0].clone();
    for event in [ws.message().await.unwrap(), sse.event().await.unwrap().json(), polled] {
        assert_eq!(
            (event["eventId"].as_str(), event["payload"]["x"].as_str().map(str::len)),
            (Some(id.as_str()), Some(pad))
        );
    }
}

#[tokio::test]
async fn a_bad_target_of_several_stores_nothing_anywhere() {
    let app = App::start().await;
    let gateway = app.register("one").await;
    let before = app.bounds(gateway.id).await;
    let (id, path) = (gateway.id.to_string(), "/api/internal/v1/events");
    for (targets, expected) in [
        (json!(null), (400, "VALIDATION_FAILED")),
        (json!({}), (400, "VALIDATION_FAILED")),
        (json!({"all": false}), (400, "VALIDATION_FAILED")),
        (json!({"gatewayIds": []}), (400, "VALIDATION_FAILED")),
        (json!({"gatewayIds": [id, "x"]}), (400, "VALIDATION_FAILED")),
        (json!({"all": true, "gatewayIds": [id]}), (400, "VALIDATION_FAILED")),
        (json!({"gatewayIds": [id, NOBODY]}), (404, "GATEWAY_NOT_FOUND")),
    ] {
        let body = json!({"targets": targets, "type": "gateway.config.updated", "payload": {}}).to_string();
        refused(&app, Method::POST, path, &body, expected).await;
    }
    let body = json!({"targets": {"all": true}, "type": "no.such.type", "payload": {}}).to_string();
    refused(&app, Method::POST, path, &body, (400, "UNKNOWN_EVENT_TYPE")).await;
    let deploy = format!("/api/v1/apis/{API}/deploy-revision?revisionId=r1");
    for (second, expected) in [
        (json!({"gatewayId": NOBODY, "vhost": "v"}), (404, "GATEWAY_NOT_FOUND")),
        (json!({"gatewayId": id}), (400, "VALIDATION_FAILED")),
        (json!({"vhost": "v"}), (400, "VALIDATION_FAILED")),
    ] {
        let body = json!([{"gatewayId": id, "vhost": "v"}, second]).to_string();
        refused(&app, Method::POST, &deploy, &body, expected).await;
    }
    assert_eq!(app.bounds(gateway.id).await, before, "nothing was stored");
}

#[tokio::test]
async fn the_platform_refuses_what_is_invalid_missing_or_taken() {
    let app = App::start().await;
    let gateway = app.register("one").await;
    let of = |id: &str| format!("/api/v1/gateways/{id}");
    let (own, types) = (of(&gateway.id.to_string()), "/api/internal/v1/event-types");
    app.token(gateway.id).await;
    let named = |name: &str| json!({"organizationId": ORGANIZATION, "name": name, "displayName": "x"}).to_string();
    let built_in = json!({"type": "api.deployed", "schema": {}}).to_string();
    let bad_schema = json!({"type": "a.b", "schema": {"type": "nothing"}}).to_string();
    let moved = json!({"name": "other", "displayName": "x"}).to_string();
    let past = json!({"expiresAt": "2020-01-01T00:00:00Z"}).to_string();
    let tokens = format!("{own}/tokens");
    for (method, path, body, expected) in [
        ("POST", "/api/v1/gateways", named("one").as_str(), (409, "NAME_TAKEN")),
        ("POST", "/api/v1/gateways", &named("x"), (400, "VALIDATION_FAILED")),
        ("POST", "/api/v1/gateways", &named("-a-"), (400, "VALIDATION_FAILED")),
        ("POST", "/api/v1/gateways", &named("Upper"), (400, "VALIDATION_FAILED")),
        ("POST", "/api/v1/gateways", "[", (400, "INVALID_JSON")),
        ("PUT", &own, &moved, (400, "VALIDATION_FAILED")),
        ("GET", &of(NOBODY), "", (404, "GATEWAY_NOT_FOUND")),
        ("DELETE", &of(NOBODY), "", (404, "GATEWAY_NOT_FOUND")),
        ("POST", &format!("{}/tokens", of(NOBODY)), "", (404, "GATEWAY_NOT_FOUND")),
        ("POST", &tokens, &past, (400, "VALIDATION_FAILED")),
        ("POST", &tokens, "", (409, "TOO_MANY_TOKENS")),
        ("DELETE", &format!("{tokens}/{NOBODY}"), "", (404, "TOKEN_NOT_FOUND")),
        ("PUT", &format!("{types}/api.deployed"), &built_in, (409, "BUILT_IN_TYPE")),
        ("DELETE", &format!("{types}/api.deployed"), "", (409, "BUILT_IN_TYPE")),
        ("PUT", &format!("{types}/a.b"), &bad_schema, (400, "VALIDATION_FAILED")),
        ("GET", &format!("{types}/a.b"), "", (404, "EVENT_TYPE_NOT_FOUND")),
        ("GET", &format!("/api/v1/apis/{API}"), "", (404, "API_NOT_FOUND")),
        ("GET", &format!("/api/internal/v1/events/{}/00000000-1", gateway.id), "", (404, "EVENT_NOT_FOUND")),
        ("GET", &format!("/api/internal/v1/stats?gatewayId={NOBODY}"), "", (404, "GATEWAY_NOT_FOUND")),
        ("GET", "/api/internal/v1/stats?gatewayId=x", "", (400, "INVALID_PARAMETER")),
        ("GET", "/api/internal/v1/deliveries/failed?since=yesterday", "", (400, "INVALID_PARAMETER")),
        ("GET", "/api/internal/v1/deliveries/failed?reason=mood", "", (400, "INVALID_PARAMETER")),
        ("GET", "/api/v1/gateways?limit=x", "", (400, "INVALID_PARAMETER")),
        ("GET", "/api/v1/nothing", "", (404, "NOT_FOUND")),
    ] {
        refused(&app, method.parse().unwrap(), path, body, expected).await;
    }
    assert_eq!(app.get("/api/v1/gateways").await.1["count"], 1);
}

#[tokio::test]
async fn a_wrong_method_gets_405_with_the_right_ones_in_allow() {
    let app = App::start().await;
    for (method, path, allow) in [
        ("GET", format!("/api/internal/v1/gateways/{NOBODY}/events"), "POST"),
        ("PATCH", format!("/api/v1/gateways/{NOBODY}"), "GET, HEAD, PUT, DELETE"),
        ("DELETE", "/api/v1/gateways".to_owned(), "GET, HEAD, POST"),
        ("POST", "/health".to_owned(), "GET, HEAD"),
        ("GET", format!("/api/v1/apis/{API}/deploy-revision"), "POST"),
    ] {
        let response = app.http.request(method.parse().unwrap(), app.url(&path)).send().await.unwrap();
        let mut allowed: Vec<_> =
            response.headers()["allow"].to_str().unwrap().split(", ").map(str::to_owned).collect();
        let mut expected: Vec<_> = allow.split(", ").collect();
        allowed.sort_unstable();
        expected.sort_unstable();
        assert_eq!(allowed, expected, "{path}");
        let (status, problem) = answer(response).await;
        assert_eq!((status.as_u16(), &problem["code"]), (405, &json!("METHOD_NOT_ALLOWED")));
    }
}

#[tokio::test]
async fn with_an_admin_token_no_admin_call_is_done_without_it() {
    let app = App::with(&[("GATECAST_ADMIN_TOKEN", "an-admin-token-for-tests")]).await;
    let gateway = app.register("one").await;
    let before = app.bounds(gateway.id).await;
    let mut bodies = Vec::new();
    for key in [None, Some("wrong"), Some(gateway.token.as_str())] {
        for (method, path) in [
            (Method::POST, events_of(&gateway)),
            (Method::POST, "/api/internal/v1/events".to_owned()),
            (Method::DELETE, format!("/api/v1/gateways/{}", gateway.id)),
            (Method::GET, "/api/internal/v1/stats".to_owned()),
            (Method::GET, "/api/internal/v1/deliveries/failed".to_owned()),
        ] {
            let mut request = app
                .http
                .request(method, app.url(&path))
                .json(&json!({"type": "api.deleted", "payload": {"apiId": "a"}}));
            request = if let Some(key) = key { request.bearer_auth(key) } else { request };
            let response = request.send().await.unwrap();
            assert!(response.headers().contains_key("www-authenticate"));
            let (status, problem) = answer(response).await;
            assert_eq!((status.as_u16(), &problem["code"]), (401, &json!("UNAUTHORIZED")), "{path}");
            bodies.push(problem);
        }
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "one body for all");
    assert_eq!(app.bounds(gateway.id).await, before);
    for path in ["/health", "/ready"] {
        assert_eq!(app.http.get(app.url(path)).send().await.unwrap().status(), 200, "{path}");
    }
}
