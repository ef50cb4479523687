//! Calls to the platform API of a server, wherever it runs.

use std::net::SocketAddr;

use gatecast_storage::GatewayId;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

/// A server's API, as an operator and a publisher see it.
#[derive(Debug, Clone)]
pub(crate) struct Platform {
    pub(crate) address: SocketAddr,
    pub(crate) scheme: &'static str,
    pub(crate) http: reqwest::Client,
    pub(crate) admin: Option<String>,
}

/// A gateway with its token.
#[derive(Debug, Clone)]
pub(crate) struct Registered {
    pub(crate) id: GatewayId,
    pub(crate) token: String,
    pub(crate) token_id: String,
}

pub(crate) const ORGANIZATION: &str = "9a1f6d7e-30c6-4c7e-8f0a-5b0f6a0f3d11";

/// Limits out of the way of tests that are not about them.
pub(crate) const SPACIOUS: [(&str, &str); 3] = [
    ("WS_MAX_CONNECTIONS", "20000"),
    ("WS_RATE_LIMIT_PER_MINUTE", "1000000"),
    ("GATECAST_MAX_CONNECTIONS_PER_GATEWAY", "10000"),
];

/// These settings, and the limits that they leave alone.
pub(crate) fn spacious<'s>(settings: &[(&'s str, &'s str)]) -> Vec<(&'s str, &'s str)> {
    let given = |name: &str| settings.iter().any(|(given, _)| *given == name);
    settings.iter().copied().chain(SPACIOUS.into_iter().filter(|(name, _)| !given(name))).collect()
}

impl Platform {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let tls = crate::wire::trusting_all(&[b"h2", b"http/1.1"]);
        let http = reqwest::Client::builder().tls_backend_preconfigured(tls).build().unwrap();
        Self { address, scheme: "https", http, admin: None }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let mut request = self.http.request(method, self.url(path));
        if let Some(admin) = &self.admin {
            request = request.bearer_auth(admin);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        answer(request.send().await.unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.call(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.call(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> StatusCode {
        self.call(Method::DELETE, path, None).await.0
    }

    pub(crate) async fn register(&self, name: &str) -> Registered {
        let gateway = json!({"organizationId": ORGANIZATION, "name": name, "displayName": name});
        let (status, gateway) = self.post("/api/v1/gateways", gateway).await;
        assert_eq!(status, StatusCode::CREATED, "{gateway}");
        let id: GatewayId = gateway["id"].as_str().unwrap().parse().unwrap();
        let (token_id, token) = self.token(id).await;
        Registered { id, token, token_id }
    }

    pub(crate) async fn token(&self, id: GatewayId) -> (String, String) {
        let (status, token) = self.call(Method::POST, &format!("/api/v1/gateways/{id}/tokens"), None).await;
        assert_eq!(status, StatusCode::CREATED, "{token}");
        (token["id"].as_str().unwrap().to_owned(), token["token"].as_str().unwrap().to_owned())
    }

    /// Publishes an event with number `n` and returns its id.
    pub(crate) async fn publish(&self, to: GatewayId, n: u64) -> String {
        let event = json!({"type": "api.deployed", "payload": {"apiId": format!("api-{n}"), "n": n}});
        let (status, answer) = self.post(&format!("/api/internal/v1/gateways/{to}/events"), event).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        answer["eventId"].as_str().unwrap().to_owned()
    }

    /// What the server holds of a gateway: oldest, newest, events, bytes.
    pub(crate) async fn bounds(&self, of: GatewayId) -> [Value; 4] {
        let (status, stream) = self.get(&format!("/api/internal/v1/gateways/{of}/stream")).await;
        assert_eq!(status, StatusCode::OK, "{stream}");
        ["oldest", "newest", "events", "bytes"].map(|name| stream[name].clone())
    }

    /// A poll: status, body, and the cursor of a 204.
    pub(crate) async fn poll(&self, token: &str, query: &str) -> reqwest::Result<(u16, Value, Option<String>)> {
        let url = self.url(&format!("/api/internal/v1/poll/gateways/connect?{query}"));
        let response = self.http.get(url).header("api-key", token).send().await?;
        let status = response.status().as_u16();
        let cursor = response.headers().get("last-event-id").map(|id| id.to_str().unwrap().to_owned());
        Ok((status, serde_json::from_slice(&response.bytes().await?).unwrap_or_default(), cursor))
    }
}

/// What a response says, whatever it is.
pub(crate) async fn answer(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}
