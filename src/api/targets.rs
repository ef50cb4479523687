use std::collections::HashSet;
use std::sync::Arc;

use gatecast_storage::{GatewayId, OrganizationId};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::info;

use super::append::{EventId, append_each, many_in_time, refused};
use super::error::{ApiError, Missing};
use super::events::{event, no_if_match};
use super::fields::Fields;
use super::reply::{self, Answer, Time};
use super::{Api, Platform, Request, idempotency, to_the_end};
use crate::publish::{Call, CheckedEvent, Outgoing, Published};
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
/// each gateway has its own outcome. Repeated with its key, the call publishes to those that have none yet.
pub(super) async fn publish(api: &Arc<Platform>, request: &Request<'_>) -> Answer {
    request.expect_json()?;
    no_if_match(request)?;
    let event = event(&request.body, TraceParent::of(request.headers))?;
    let Body { targets } =
        serde_json::from_slice(&request.body).map_err(|error| ApiError::InvalidJson(error.to_string()))?;
    let targets = resolve(api, &targets)?;
    let event = api.publisher.check(event)?;
    let Some(call) = idempotency::call(request, "events", "")? else {
        return many_in_time(publish_to(api, targets, &event, None)).await;
    };
    let api = Arc::clone(api);
    many_in_time(to_the_end(async move {
        let _turn = api.turns.take(&call).await;
        publish_to(&api, targets, &event, Some(&call)).await
    }))
    .await
}

async fn publish_to(api: &Api, targets: Vec<GatewayId>, event: &CheckedEvent, call: Option<&Call>) -> Answer {
    let mut results = Vec::with_capacity(targets.len());
    let mut fresh = Vec::with_capacity(targets.len());
    for to in targets {
        let first = call.map_or(Ok(None), |call| api.publisher.first(to, call))?;
        if first.is_none() {
            fresh.push(Outgoing::new(to, event));
        }
        results.push((to, first.map(Ok)));
    }
    let is_replay = fresh.is_empty() && !results.is_empty();
    let told = fresh.len();
    let mut published = append_each(api, fresh, call).await.into_iter();
    let results: Vec<_> = results
        .into_iter()
        .filter_map(|(to, first)| Some(outcome(api, to, first.or_else(|| published.next())?)))
        .collect();
    let failed = results.iter().filter(|outcome| outcome.code.is_some()).count();
    info!(gateways = told, failed, "An event was published to several gateways.");
    let answer = reply::json(StatusCode::OK, &Results { count: results.len(), results })?;
    Ok(if is_replay && call.is_some() { idempotency::replayed(answer) } else { answer })
}

fn outcome(api: &Api, gateway_id: GatewayId, result: Result<Published, ApiError>) -> Outcome {
    match result {
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
            code: Some(refused(api, &error)),
        },
    }
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
    let mut seen = HashSet::with_capacity(ids.len());
    let mut targets = Vec::with_capacity(ids.len());
    for (index, id) in ids.iter().enumerate() {
        let at = || format!("/targets/gatewayIds/{index}");
        let id: Option<GatewayId> = id.as_str().and_then(|id| id.parse().ok());
        let id = id.ok_or_else(|| ApiError::field(at(), "must be a UUID"))?;
        if api.directory.gateway(id).is_none() {
            return Err(ApiError::NotFound(Missing::Gateway(Some(at()))));
        }
        if seen.insert(id) {
            targets.push(id);
        }
    }
    Ok(targets)
}
