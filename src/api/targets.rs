use std::collections::BTreeSet;
use std::sync::Arc;

use gatecast_storage::{GatewayId, OrganizationId};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::append::{EventId, append_each};
use super::error::{ApiError, Missing};
use super::events::event;
use super::fields::Fields;
use super::reply::{self, Answer, Time};
use super::{Api, Platform, Request};
use crate::traceparent::TraceParent;

/// Gateways that one call may name.
const TARGETS_MAX: usize = 10_000;

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    targets: Value,
}

#[derive(Serialize)]
struct Results {
    count: usize,
    results: Vec<Outcome>,
}

/// What became of the event for one gateway: an eventId, or the code of an error.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    gateway_id: GatewayId,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<EventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
}

/// Publishes one event to several gateways. Targets and event are checked before anything is stored; from then on
/// each gateway has its own outcome.
pub(super) async fn publish(api: &Arc<Platform>, request: &Request<'_>) -> Answer {
    request.expect_json()?;
    let event = event(&request.body, TraceParent::of(request.headers))?;
    let Body { targets } =
        serde_json::from_slice(&request.body).map_err(|error| ApiError::InvalidJson(error.to_string()))?;
    let targets = resolve(api, &targets)?;
    let event = api.publisher.check(event)?;
    let events = targets.into_iter().map(|to| (to, event.clone())).collect();
    let results: Vec<_> = append_each(api, events)
        .await
        .into_iter()
        .map(|(gateway_id, result)| match result {
            Ok(done) => Outcome {
                gateway_id,
                event_id: Some(EventId(done.event_id)),
                correlation_id: Some(done.correlation_id),
                timestamp: Some(Time(done.timestamp)),
                connections: Some(done.connections),
                code: None,
            },
            Err(error) => Outcome {
                gateway_id,
                event_id: None,
                correlation_id: None,
                timestamp: None,
                connections: None,
                code: Some(error.logged_code()),
            },
        })
        .collect();
    reply::json(StatusCode::OK, &Results { count: results.len(), results })
}

/// The gateways meant, each once.
fn resolve(api: &Api, targets: &Value) -> Result<Vec<GatewayId>, ApiError> {
    if targets.is_null() {
        return Err(ApiError::field("/targets", "is required"));
    }
    let mut fields = Fields::of(targets, "/targets")?;
    let named = ["gatewayIds", "organizationId", "all"].into_iter().filter(|name| fields.get(name).is_some());
    match named.collect::<Vec<_>>()[..] {
        ["gatewayIds"] => named_gateways(api, fields.get("gatewayIds")),
        ["organizationId"] => {
            let organization = fields.parsed::<OrganizationId>("organizationId", "a UUID");
            let organization = fields.finish(organization)?;
            Ok(api.directory.gateways(Some(organization)).iter().map(|gateway| gateway.id).collect())
        }
        ["all"] if fields.bool("all") == Some(true) => {
            Ok(api.directory.gateways(None).iter().map(|gateway| gateway.id).collect())
        }
        _ => Err(ApiError::field("/targets", "must be one of {gatewayIds: […]}, {organizationId} and {all: true}")),
    }
}

fn named_gateways(api: &Api, ids: Option<&Value>) -> Result<Vec<GatewayId>, ApiError> {
    let ids = ids.and_then(Value::as_array).filter(|ids| (1..=TARGETS_MAX).contains(&ids.len()));
    let Some(ids) = ids else {
        return Err(ApiError::field("/targets/gatewayIds", format!("must be a list of 1 to {TARGETS_MAX} ids")));
    };
    let mut seen = BTreeSet::new();
    let mut targets = Vec::with_capacity(ids.len());
    for (index, id) in ids.iter().enumerate() {
        let at = format!("/targets/gatewayIds/{index}");
        let id: Option<GatewayId> = id.as_str().and_then(|id| id.parse().ok());
        let id = id.ok_or_else(|| ApiError::field(&at, "must be a UUID"))?;
        if api.directory.gateway(id).is_none() {
            return Err(ApiError::NotFound(Missing::Gateway(Some(at))));
        }
        if seen.insert(id) {
            targets.push(id);
        }
    }
    Ok(targets)
}
