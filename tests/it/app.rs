//! A server in this process, with a data directory of its own, and calls to its API.

use std::net::SocketAddr;
use std::sync::Arc;

use gatecast::config::{self, Sources};
use gatecast::hub::Hub;
use gatecast::server::{Server, StartError};
use gatecast_storage::{GatewayId, StoreError};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) struct App {
    pub(crate) address: SocketAddr,
    pub(crate) hub: Arc<Hub>,
    pub(crate) http: reqwest::Client,
    data: Option<tempfile::TempDir>,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<Result<(), StoreError>>>,
}

/// A gateway with its token.
#[derive(Debug, Clone)]
pub(crate) struct Registered {
    pub(crate) id: GatewayId,
    pub(crate) token: String,
    pub(crate) token_id: String,
}

/// Limits out of the way of tests that are not about them.
const SPACIOUS: [(&str, &str); 3] = [
    ("WS_MAX_CONNECTIONS", "20000"),
    ("WS_RATE_LIMIT_PER_MINUTE", "1000000"),
    ("GATECAST_MAX_CONNECTIONS_PER_GATEWAY", "10000"),
];

impl App {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        Self::in_dir(settings, tempfile::tempdir().unwrap()).await
    }

    pub(crate) async fn in_dir(settings: &[(&str, &str)], data: tempfile::TempDir) -> Self {
        let given = |name: &str| settings.iter().any(|(given, _)| *given == name);
        let spacious = SPACIOUS.iter().filter(|(name, _)| !given(name));
        let mut env: Vec<_> = settings.iter().chain(spacious).map(|(n, v)| (n.into(), v.into())).collect();
        env.push(("GATECAST_LISTEN".into(), "127.0.0.1:0".into()));
        env.push(("GATECAST_DATA_DIR".into(), data.path().into()));
        let dev = !given("GATECAST_ADMIN_TOKEN");
        let sources = Sources { dev, env, ..Sources::default() };
        let config = config::load(sources, &|path| Err(format!("{path}: no files here"))).unwrap().config;
        let server = loop {
            match Server::start(&config).await {
                // The tasks of the server that had this directory before are still about to end.
                Err(StartError::Store(StoreError::InUse(_))) => tokio::task::yield_now().await,
                started => break started.unwrap(),
            }
        };
        let (address, hub) = (server.address(), server.hub());
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(server.serve(async { drop(stopped.await) }));
        Self { address, hub, http: client(), data: Some(data), stop: Some(stop), serving: Some(serving) }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let mut request = self.http.request(method, self.url(path));
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

    /// Drains and returns the data directory.
    pub(crate) async fn stop(mut self) -> tempfile::TempDir {
        drop(self.stop.take());
        self.serving.take().unwrap().await.unwrap().unwrap();
        self.data.take().unwrap()
    }

    /// Begins to drain.
    pub(crate) fn drain(&mut self) {
        drop(self.stop.take());
    }
}

pub(crate) const ORGANIZATION: &str = "9a1f6d7e-30c6-4c7e-8f0a-5b0f6a0f3d11";

/// What a response says, whatever it is.
pub(crate) async fn answer(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn client() -> reqwest::Client {
    let tls = crate::wire::trusting_all(&[b"h2", b"http/1.1"]);
    reqwest::Client::builder().tls_backend_preconfigured(tls).build().unwrap()
}
