//! The platform API (CONTRACT.md §§ 6 and 9) as typed calls, for the command line.

mod backup;
mod error;
mod shapes;

use std::time::Duration;

use http::{Method, header};
use reqwest::{RequestBuilder, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use super::endpoint::Endpoint;
use super::link::{LinkError, http_client};
use super::tls::{Trust, client_config};
use crate::config::AdminToken;
use crate::event_types::TypeName;
pub use backup::Backup;
pub use error::ApiError;
pub use shapes::{
    Answer, Deployed, Deployment, End, EventType, FreshToken, Gateway, GatewayFilter, List, NewEvent, NewEventType,
    NewGateway, Outcome, Outcomes, Page, PublishConditions, Published, Stats, Targets, Token,
};

/// One call, from the dial to the end of the answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// A backup, from the dial to its last byte.
const BACKUP_TIMEOUT: Duration = Duration::from_secs(3600);
const EVENT_TYPES: &str = "/api/internal/v1/event-types";

/// The admin side of a server.
#[derive(Debug)]
pub struct ApiClient {
    http: reqwest::Client,
    endpoint: Endpoint,
    token: Option<AdminToken>,
}

impl ApiClient {
    /// A client that connects when it is first asked something.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new(endpoint: Endpoint, token: Option<AdminToken>, trust: &Trust) -> Result<Self, LinkError> {
        Ok(Self { http: http_client(&client_config(trust, None)?)?, endpoint, token })
    }

    /// Registers a gateway.
    ///
    /// # Errors
    /// If the server is not reached or refuses; so for every call below.
    pub async fn create_gateway(&self, new: &NewGateway) -> Result<Answer<Gateway>, ApiError> {
        self.call(self.request(Method::POST, "/api/v1/gateways").json(new)).await
    }

    /// Lists gateways.
    ///
    /// # Errors
    /// As above.
    pub async fn list_gateways(&self, filter: &GatewayFilter, page: Page) -> Result<Answer<List<Gateway>>, ApiError> {
        self.call(self.request(Method::GET, "/api/v1/gateways").query(filter).query(&page)).await
    }

    /// One gateway.
    ///
    /// # Errors
    /// As above.
    pub async fn gateway(&self, id: Uuid) -> Result<Answer<Gateway>, ApiError> {
        self.call(self.request(Method::GET, &format!("/api/v1/gateways/{id}"))).await
    }

    /// Sets what may change of a gateway; what `to` lacks is set to its default.
    ///
    /// # Errors
    /// As above.
    pub async fn put_gateway(&self, id: Uuid, to: &Value) -> Result<Answer<Gateway>, ApiError> {
        self.call(self.request(Method::PUT, &format!("/api/v1/gateways/{id}")).json(to)).await
    }

    /// Deletes a gateway with its log and its connections.
    ///
    /// # Errors
    /// As above.
    pub async fn delete_gateway(&self, id: Uuid) -> Result<Answer<()>, ApiError> {
        self.call(self.request(Method::DELETE, &format!("/api/v1/gateways/{id}"))).await
    }

    /// Makes a token; the answer is the only place that ever shows it.
    ///
    /// # Errors
    /// As above.
    pub async fn create_token(&self, gateway: Uuid, expires_at: Option<&str>) -> Result<Answer<FreshToken>, ApiError> {
        let request = self.request(Method::POST, &format!("/api/v1/gateways/{gateway}/tokens"));
        match expires_at {
            Some(at) => self.call(request.json(&json!({ "expiresAt": at }))).await,
            // The seeds' quickstart sends no body either.
            None => self.call(request).await,
        }
    }

    /// Lists the tokens of a gateway, without their secrets.
    ///
    /// # Errors
    /// As above.
    pub async fn list_tokens(&self, gateway: Uuid, page: Page) -> Result<Answer<List<Token>>, ApiError> {
        self.call(self.request(Method::GET, &format!("/api/v1/gateways/{gateway}/tokens")).query(&page)).await
    }

    /// Revokes a token and ends its connections.
    ///
    /// # Errors
    /// As above.
    pub async fn revoke_token(&self, gateway: Uuid, token: Uuid) -> Result<Answer<()>, ApiError> {
        self.call(self.request(Method::DELETE, &format!("/api/v1/gateways/{gateway}/tokens/{token}"))).await
    }

    /// Lists event types.
    ///
    /// # Errors
    /// As above.
    pub async fn list_event_types(&self, page: Page) -> Result<Answer<List<EventType>>, ApiError> {
        self.call(self.request(Method::GET, EVENT_TYPES).query(&page)).await
    }

    /// One event type.
    ///
    /// # Errors
    /// As above.
    pub async fn event_type(&self, name: &TypeName) -> Result<Answer<EventType>, ApiError> {
        self.call(self.request(Method::GET, &format!("{EVENT_TYPES}/{name}"))).await
    }

    /// Registers an event type, or replaces it.
    ///
    /// # Errors
    /// As above.
    pub async fn put_event_type(&self, name: &TypeName, to: &NewEventType) -> Result<Answer<EventType>, ApiError> {
        self.call(self.request(Method::PUT, &format!("{EVENT_TYPES}/{name}")).json(to)).await
    }

    /// Deletes an event type.
    ///
    /// # Errors
    /// As above.
    pub async fn delete_event_type(&self, name: &TypeName) -> Result<Answer<()>, ApiError> {
        self.call(self.request(Method::DELETE, &format!("{EVENT_TYPES}/{name}"))).await
    }

    /// Stores the artifact of an API, which gateways fetch.
    ///
    /// # Errors
    /// As above.
    pub async fn put_api(&self, api: Uuid, revision: &str, yaml: Vec<u8>) -> Result<Answer<Value>, ApiError> {
        let request = self.request(Method::PUT, &format!("/api/v1/apis/{api}")).query(&[("revisionId", revision)]);
        self.call(request.header(header::CONTENT_TYPE, "application/yaml").body(yaml)).await
    }

    /// Deploys a revision to gateways. A repeat with the same key tells nobody twice.
    ///
    /// # Errors
    /// As above.
    pub async fn deploy(
        &self,
        api: Uuid,
        revision: &str,
        to: &[Deployment],
        key: &str,
    ) -> Result<Answer<Vec<Deployed>>, ApiError> {
        let request = self.request(Method::POST, &format!("/api/v1/apis/{api}/deploy-revision"));
        self.call(keyed(request.query(&[("revisionId", revision)]).json(to), key)).await
    }

    /// Takes a revision from gateways. A repeat with the same key tells nobody twice.
    ///
    /// # Errors
    /// As above.
    pub async fn undeploy(
        &self,
        api: Uuid,
        revision: &str,
        from: &[Deployment],
        key: &str,
    ) -> Result<Answer<Vec<Deployed>>, ApiError> {
        let request = self.request(Method::POST, &format!("/api/v1/apis/{api}/undeploy-revision"));
        self.call(keyed(request.query(&[("revisionId", revision)]).json(from), key)).await
    }

    /// Publishes an event to one gateway; the answer means that it is stored durably.
    ///
    /// # Errors
    /// As above.
    pub async fn publish(
        &self,
        gateway: Uuid,
        event: &NewEvent,
        conditions: &PublishConditions,
    ) -> Result<Answer<Published>, ApiError> {
        let request = self.request(Method::POST, &format!("/api/internal/v1/gateways/{gateway}/events"));
        self.call(conditioned(request.json(event), conditions)).await
    }

    /// Publishes an event to several gateways; the answer tells of each.
    ///
    /// # Errors
    /// As above.
    pub async fn publish_to(
        &self,
        targets: &Targets,
        event: &NewEvent,
        conditions: &PublishConditions,
    ) -> Result<Answer<Outcomes>, ApiError> {
        #[derive(Serialize)]
        struct Body<'a> {
            targets: &'a Targets,
            #[serde(flatten)]
            event: &'a NewEvent,
        }
        let request = self.request(Method::POST, "/api/internal/v1/events").json(&Body { targets, event });
        self.call(conditioned(request, conditions)).await
    }

    /// Connections and deliveries.
    ///
    /// # Errors
    /// As above.
    pub async fn stats(&self, gateway: Option<Uuid>) -> Result<Answer<Stats>, ApiError> {
        let filter: Vec<_> = gateway.map(|id| ("gatewayId", id.to_string())).into_iter().collect();
        self.call(self.request(Method::GET, "/api/internal/v1/stats").query(&filter)).await
    }

    /// All of the store.
    ///
    /// # Errors
    /// As above.
    pub async fn backup(&self) -> Result<Backup, ApiError> {
        let unanswered = |error| ApiError::without_answer(error, BACKUP_TIMEOUT, false);
        let request = self.request(Method::POST, "/api/internal/v1/backup").timeout(BACKUP_TIMEOUT);
        let response = request.send().await.map_err(unanswered)?;
        let (status, headers) = (response.status(), response.headers().clone());
        if status.is_success() {
            return Ok(Backup { response });
        }
        let body = response.bytes().await.map_err(unanswered)?;
        Err(ApiError::refused(status, &headers, &body, false))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, self.url(path)).header(header::ACCEPT, "application/json");
        match &self.token {
            Some(token) => request.bearer_auth(token.reveal()),
            None => request,
        }
    }

    fn url(&self, path: &str) -> Url {
        self.endpoint.at(path)
    }

    async fn call<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<Answer<T>, ApiError> {
        let (http, request) = request.timeout(CALL_TIMEOUT).build_split();
        let changes = request.as_ref().is_ok_and(|request| !request.method().is_safe());
        let unanswered = |error| ApiError::without_answer(error, CALL_TIMEOUT, changes);
        let response = http.execute(request.map_err(unanswered)?).await.map_err(unanswered)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.map_err(unanswered)?;
        if !status.is_success() {
            return Err(ApiError::refused(status, &headers, &body, changes));
        }
        // 204 and empty bodies are an answer too.
        let json = if body.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&body) };
        let json: Value = json.map_err(|e| ApiError::Strange(e.to_string()))?;
        let value = T::deserialize(&json).map_err(|e| ApiError::Strange(e.to_string()))?;
        Ok(Answer { value, json })
    }
}

fn conditioned(mut request: RequestBuilder, conditions: &PublishConditions) -> RequestBuilder {
    if let Some(key) = &conditions.idempotency_key {
        request = keyed(request, key);
    }
    if let Some(head) = &conditions.if_match {
        request = request.header(header::IF_MATCH, head);
    }
    request
}

fn keyed(request: RequestBuilder, key: &str) -> RequestBuilder {
    request.header("Idempotency-Key", key)
}
