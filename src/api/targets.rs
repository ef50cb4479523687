use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use gatecast_storage::{GatewayId, OrganizationId};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::info;

use super::append::{EventId, append_each, many_in_time, refused};
use super::checks::check;
use super::error::{ApiError, Missing};
use super::events::{event, no_if_match};
use super::fields::{self, Fields};
use super::reply::{self, Answer, Time};
use super::{Api, Platform, Request, idempotency, to_the_end};
use crate::publish::{Call, CheckedEvent, NewEvent, Outgoing, Published};
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

/// A gateway, and what it was told, or the code of why it was not.
type Told = (GatewayId, Result<Published, &'static str>);

/// What a call with a key sets out to do.
#[derive(Serialize, Deserialize)]
struct Plan {
    to: Vec<GatewayId>,
    correlation_id: String,
}

/// What a call says.
struct Asked {
    body: Bytes,
    traceparent: Option<TraceParent>,
}

/// Publishes one event to several gateways. Targets and event are checked before anything is stored; from then on
/// each gateway has its own outcome. Repeated with its key, the call publishes to those of the same that have none yet.
pub(super) async fn publish(api: &Arc<Platform>, request: &Request<'_>) -> Answer {
    request.expect_json()?;
    no_if_match(request)?;
    let call = idempotency::call(request, "events", "")?;
    let asked = Asked { body: request.body.clone(), traceparent: TraceParent::of(request.headers) };
    let Some(call) = call else {
        let (to, event) = asked.check(api).await?;
        return many_in_time(async { answer(publish_to(api, to, &event, None).await) }).await;
    };
    let api = Arc::clone(api);
    many_in_time(to_the_end(async move {
        let _turn = api.turns.take(&call).await;
        publish_once(&api, &asked, &call).await
    }))
    .await
}

impl Asked {
    /// Whom the call names, and the event.
    async fn check(&self, api: &Arc<Platform>) -> Result<(Vec<GatewayId>, CheckedEvent), ApiError> {
        let event = self.event()?;
        let Body { targets } = fields::object(&self.body).map_err(|error| ApiError::InvalidJson(error.to_string()))?;
        Ok((resolve(api, &targets)?, check(api, event).await?))
    }

    fn event(&self) -> Result<NewEvent, ApiError> {
        event(&self.body, self.traceparent.clone())
    }
}

/// What the first call of the key set out to do is done to the end; nothing else that holds now counts.
async fn publish_once(api: &Arc<Platform>, asked: &Asked, call: &Call) -> Answer {
    let begun: Option<Plan> = api.publisher.begun(call)?;
    let is_repeat = begun.is_some();
    let (Plan { to, correlation_id }, event) = match begun {
        Some(plan) => (plan, None),
        None => {
            let (to, event) = asked.check(api).await?;
            let plan = Plan { to, correlation_id: event.correlation_id().to_owned() };
            api.publisher.begin(call, plan.to.iter().copied(), &plan).await?;
            (plan, Some(event))
        }
    };
    let known = to.iter().map(|to| known(api, *to, call)).collect::<Result<Vec<_>, ApiError>>()?;
    let is_replay = is_repeat && known.iter().all(|known| matches!(known, Some(Ok(_))));
    let fresh: Vec<_> = to.iter().zip(&known).filter(|(_, known)| known.is_none()).map(|(to, _)| *to).collect();
    let published = match event {
        _ if fresh.is_empty() => Vec::new(),
        Some(event) => publish_to(api, fresh, &event, Some(call)).await,
        None => {
            let event = NewEvent { correlation_id: Some(correlation_id), ..asked.event()? };
            match check(api, event).await {
                Ok(event) => publish_to(api, fresh, &event, Some(call)).await,
                // What is stored stays so: only the rest is refused.
                Err(error) if known.iter().any(|known| matches!(known, Some(Ok(_)))) => {
                    let code = refused(api, &error);
                    fresh.into_iter().map(|to| (to, Err(code))).collect()
                }
                Err(error) => return Err(error),
            }
        }
    };
    let mut published = published.into_iter();
    let results = to.into_iter().zip(known);
    let results = results.filter_map(|(to, known)| known.map(|known| (to, known)).or_else(|| published.next()));
    let answer = answer(results.collect())?;
    Ok(if is_replay { idempotency::replayed(answer) } else { answer })
}

/// What is known of a gateway before it is told anything: what it was told by an earlier call, or that it is gone.
fn known(api: &Api, to: GatewayId, call: &Call) -> Result<Option<Result<Published, &'static str>>, ApiError> {
    let first = api.publisher.first(to, call)?;
    let is_gone = first.is_none() && api.directory.gateway(to).is_none();
    Ok(first.map(Ok).or_else(|| is_gone.then(|| Err(refused(api, &ApiError::no_gateway())))))
}

async fn publish_to(api: &Api, to: Vec<GatewayId>, event: &CheckedEvent, call: Option<&Call>) -> Vec<Told> {
    let outgoing = to.iter().map(|to| Outgoing::new(*to, event)).collect();
    let results = to.iter().copied().zip(append_each(api, outgoing, call).await);
    let results: Vec<_> = results.map(|(to, result)| (to, result.map_err(|error| refused(api, &error)))).collect();
    let failed = results.iter().filter(|(_, result)| result.is_err()).count();
    info!(gateways = results.len(), failed, "An event was published to several gateways.");
    results
}

fn answer(results: Vec<Told>) -> Answer {
    let results: Vec<_> = results.into_iter().map(|(to, result)| outcome(to, result)).collect();
    reply::json(StatusCode::OK, &Results { count: results.len(), results })
}

fn outcome(gateway_id: GatewayId, result: Result<Published, &'static str>) -> Outcome {
    match result {
        Ok(done) => Outcome {
            gateway_id,
            event_id: Some(EventId(done.event_id)),
            correlation_id: Some(done.correlation_id),
            timestamp: Some(Time(done.timestamp)),
            connections: Some(done.connections),
            code: None,
        },
        Err(code) => Outcome {
            gateway_id,
            event_id: None,
            correlation_id: None,
            timestamp: None,
            connections: None,
            code: Some(code),
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
