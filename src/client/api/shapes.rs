//! What the platform API takes and answers. Answers tolerate added members, and missing ones that are not what they are
//! about: anything may answer with a success.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

/// An answer, typed and as it came.
#[derive(Debug, Clone)]
pub struct Answer<T> {
    /// The members that this client knows.
    pub value: T,
    /// All of it.
    pub json: Value,
}

/// A gateway to be.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewGateway {
    /// Whose it is.
    pub organization_id: String,
    /// Unique per organization: lower-case letters, digits and hyphens.
    pub name: String,
    /// For people.
    pub display_name: String,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The host name that its APIs are served under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vhost: Option<String>,
    /// What a connection without a cursor starts from: `live` or `stored`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catch_up: Option<String>,
    /// Networks that it may come from; none for any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_addresses: Vec<String>,
    /// Names of client certificates that prove it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificate_names: Vec<String>,
}

/// A registered gateway.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// For people.
    #[serde(default)]
    pub display_name: String,
    /// Whose it is.
    #[serde(default)]
    pub organization_id: String,
    /// The host name that its APIs are served under.
    pub vhost: Option<String>,
    /// When it was registered.
    pub created_at: Option<String>,
    /// Connections that it holds now.
    pub connections: Option<u64>,
}

/// Which gateways to list.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayFilter {
    /// Of this organization only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization_id: Option<String>,
    /// Connected ones only, or only those that are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected: Option<bool>,
}

/// A part of a list.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Page {
    /// Elements at most; the server's default if `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Elements to skip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u32>,
}

/// A list.
#[derive(Debug, Clone, Deserialize)]
pub struct List<T> {
    /// Its elements.
    pub list: Vec<T>,
    /// Where it lies in the whole.
    #[serde(default)]
    pub pagination: Pagination,
}

/// Where a part lies in the whole.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Pagination {
    /// Elements in all.
    pub total: u64,
}

/// A token, as it is listed.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// Its id.
    pub id: String,
    /// When it was made.
    pub created_at: Option<String>,
    /// When it ends by itself.
    pub expires_at: Option<String>,
    /// When it was revoked.
    pub revoked_at: Option<String>,
}

/// A new token with its secret. Its `Debug` does not show it.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FreshToken {
    /// Its id.
    pub id: String,
    token: String,
}

impl FreshToken {
    /// The secret, to be shown once.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.token
    }
}

impl fmt::Debug for FreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FreshToken").field("id", &self.id).finish_non_exhaustive()
    }
}

/// One gateway to deploy to or undeploy from.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    /// The revision.
    pub revision_id: String,
    /// The gateway.
    pub gateway_id: Uuid,
    /// The host name that the API is served under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vhost: Option<String>,
    /// Whether the developer portal shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_on_devportal: Option<bool>,
}

/// What became of one [`Deployment`].
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployed {
    /// The gateway.
    pub gateway_id: String,
    /// The deployment.
    pub deployment_id: String,
    /// The event that told the gateway.
    pub event_id: Option<String>,
    /// How it stands.
    pub status: String,
    /// Why the gateway could not be told.
    pub code: Option<String>,
}

/// An event to be.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewEvent {
    /// A registered event type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Any JSON that the type's schema takes.
    pub payload: Box<RawValue>,
    /// The entity that the event is about, if the type does not name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Ties events together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
}

/// An event type to be.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewEventType {
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The JSON Schema of its payloads.
    pub schema: Box<RawValue>,
    /// Where the payload names its entity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_pointer: Option<String>,
    /// Whether an event of it ends its entity.
    pub ends_key: bool,
}

/// An event type.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventType {
    /// Its name.
    #[serde(rename = "type")]
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// The JSON Schema of its payloads.
    #[serde(default)]
    pub schema: Value,
    /// Where the payload names its entity.
    pub key_pointer: Option<String>,
    /// Whether an event of it ends its entity.
    #[serde(default)]
    pub ends_key: bool,
    /// Whether it is part of the product.
    #[serde(default)]
    pub built_in: bool,
}

/// Conditions of publishing.
#[derive(Debug, Clone, Default)]
pub struct PublishConditions {
    /// A repeat with the same key within 10 minutes publishes nothing new.
    pub idempotency_key: Option<String>,
    /// Publish only if this is the gateway's newest event.
    pub if_match: Option<String>,
}

/// Whom to publish to.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Targets {
    /// These gateways.
    GatewayIds(Vec<Uuid>),
    /// All gateways of an organization.
    OrganizationId(String),
    /// Every gateway: always `true`.
    All(bool),
}

/// A stored event.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Published {
    /// Its cursor.
    pub event_id: String,
    /// Ties events together.
    pub correlation_id: Option<String>,
    /// Connections that it goes to now.
    pub connections: u64,
}

/// What became of an event that was published to several gateways.
#[derive(Debug, Clone, Deserialize)]
pub struct Outcomes {
    /// For each gateway.
    pub results: Vec<Outcome>,
}

/// What became of it for one gateway.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The gateway.
    pub gateway_id: String,
    /// An event, or the code of an error.
    #[serde(flatten)]
    pub end: End,
}

impl Outcome {
    /// Why it was not stored, if it was not.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match &self.end {
            End::Failed { code } => Some(code),
            End::Stored { .. } => None,
        }
    }
}

/// How publishing to one of several gateways ended.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all_fields = "camelCase", untagged)]
pub enum End {
    /// It was not stored.
    Failed {
        /// Why.
        code: String,
    },
    /// It is stored.
    Stored {
        /// Its cursor.
        event_id: String,
    },
}

/// Connections and deliveries.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Who is connected.
    pub gateway_connections: Connections,
    /// What was delivered.
    pub event_delivery: EventDelivery,
}

/// Who is connected.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connections {
    /// How many.
    pub total_active: u64,
    /// Each of them.
    pub connections: Vec<ConnectionStats>,
}

/// One connection.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionStats {
    /// Whose.
    pub gateway_id: String,
    /// Its id.
    pub connection_id: String,
    /// Since when.
    pub connected_at: String,
    /// The last sign of life.
    pub last_heartbeat: Option<String>,
    /// How it stands.
    pub status: String,
}

/// What was delivered.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventDelivery {
    /// Events written to connections.
    pub total_events_sent: u64,
    /// Deliveries that failed.
    pub failed_deliveries: u64,
    /// The last time that one did.
    pub last_failure_time: Option<String>,
    /// And why.
    pub last_failure_reason: Option<String>,
}
