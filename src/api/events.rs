use std::net::IpAddr;
use std::sync::Arc;

use gatecast_storage::{Budget, Cursor, GatewayId, Page, Passage};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::append::{EventId, append_each, in_time};
use super::checks::check;
use super::error::{ApiError, Missing};
use super::fields::{self, Fields};
use super::reply::{self, Answer, Time};
use super::{Api, Platform, Request, idempotency, to_the_end};
use crate::envelope;
use crate::event_types::TypeName;
use crate::publish::{Call, CheckedEvent, NewEvent, Outgoing, Published};
use crate::traceparent::TraceParent;

/// The header that says which event has to be the newest.
const IF_MATCH: &str = "If-Match";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    #[serde(rename = "type")]
    kind: String,
    payload: Box<RawValue>,
    correlation_id: Option<String>,
    key: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Receipt<'a> {
    event_id: EventId,
    correlation_id: &'a str,
    timestamp: Time,
    connections: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    event: &'a RawValue,
    stored_at: Time,
    /// How far it has come, for each replica that it was written to or that is connected.
    timeline: Vec<Passing>,
}

/// How far an event has come at one replica. A time is `null` where only the fact is known any more.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Passing {
    instance: String,
    /// What tells replicas apart that give no name.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    connected: bool,
    /// The last step: stored, sent, received, applied or failed.
    status: &'static str,
    sent_at: Option<Time>,
    received_at: Option<Time>,
    /// When it was applied or failed.
    reported_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// What of an event says which deployment it is about.
#[derive(Deserialize)]
struct About {
    payload: AboutPayload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AboutPayload {
    deployment_id: Option<Uuid>,
}

pub(super) async fn publish(api: &Arc<Platform>, request: &Request<'_>) -> Answer {
    let gateway = request.gateway(api)?.id;
    request.expect_json()?;
    let expect = if_match(request)?;
    let call = idempotency::call(request, format_args!("events {gateway}"), "")?;
    let (api, body, traceparent) = (Arc::clone(api), request.body.clone(), TraceParent::of(request.headers));
    let event = async move |api: &Arc<Platform>| check(api, event(&body, traceparent)?).await;
    let Some(call) = call else {
        return in_time(async { publish_to(&api, gateway, expect, &event(&api).await?, None).await }).await;
    };
    in_time(to_the_end(async move {
        let _turn = api.turns.take(&call).await;
        match api.publisher.first(gateway, &call)? {
            Some(first) => receipt(gateway, &first).map(idempotency::replayed),
            None => publish_to(&api, gateway, expect, &event(&api).await?, Some(&call)).await,
        }
    }))
    .await
}

async fn publish_to(
    api: &Api,
    gateway: GatewayId,
    expect: Option<Cursor>,
    event: &CheckedEvent,
    call: Option<&Call>,
) -> Answer {
    let outgoing = Outgoing { expect, ..Outgoing::new(gateway, event) };
    let results = append_each(api, vec![outgoing], call).await;
    // One event, one result.
    let published = results.into_iter().next().unwrap_or_else(|| Err(ApiError::timeout()))?;
    receipt(gateway, &published)
}

fn receipt(gateway: GatewayId, published: &Published) -> Answer {
    let receipt = Receipt {
        event_id: EventId(published.event_id),
        correlation_id: &published.correlation_id,
        timestamp: Time(published.timestamp),
        connections: published.connections,
    };
    reply::created(&format!("/api/internal/v1/events/{gateway}/{}", published.event_id), &receipt)
}

pub(super) async fn read(api: &Arc<Platform>, request: &Request<'_>) -> Answer {
    let gateway = request.gateway(api)?.id;
    let [_, id] = request.params;
    let missing = || ApiError::NotFound(Missing::Event);
    let id: Cursor = id.parse().map_err(|_| missing())?;
    let before = Cursor { epoch: id.epoch, seq: id.seq.prev() };
    let one = Budget { events: 1, bytes: 1 };
    let entries = match api.log.read(gateway, before, one).await? {
        Page::Entries(entries) => entries,
        // It may be the latest of its key.
        Page::Truncated { .. } => api.log.compacted(gateway, before, one).await?.entries,
        _ => return Err(missing()),
    };
    let entry = entries.first().filter(|entry| entry.seq == id.seq).ok_or_else(missing)?;
    let frame = envelope::seal(id.epoch, entry).ok_or_else(missing)?;
    let event = serde_json::from_str(frame.text()).map_err(|error| ApiError::Unavailable(Box::new(error)))?;
    // Another payload than an object is about no deployment.
    let about = serde_json::from_str::<About>(frame.text()).ok().and_then(|about| about.payload.deployment_id);
    let timeline = api.receipts.timeline(gateway, id, about).into_iter().map(passing).collect();
    reply::json(StatusCode::OK, &View { event, stored_at: Time(entry.at), timeline })
}

fn passing(passage: Passage) -> Passing {
    let status = match &passage.outcome {
        Some(outcome) if outcome.applied => "applied",
        Some(_) => "failed",
        None if passage.is_received => "received",
        None if passage.is_sent => "sent",
        None => "stored",
    };
    let reported_at = passage.outcome.as_ref().map(|outcome| Time(outcome.at));
    let (error_code, message) = passage.outcome.map_or((None, None), |outcome| (outcome.error_code, outcome.message));
    Passing {
        instance: passage.replica.instance().to_owned(),
        address: passage.replica.address(),
        connected: passage.is_connected,
        status,
        sent_at: passage.sent_at.map(Time),
        received_at: passage.received_at.map(Time),
        reported_at,
        error_code,
        message,
    }
}

/// The event that a body states. The payload is not looked into.
pub(super) fn event(body: &[u8], traceparent: Option<TraceParent>) -> Result<NewEvent, ApiError> {
    // What is wrong is found out only when something is: this is the call that is made most.
    let Body { kind, payload, correlation_id, key } = fields::object(body).map_err(|error| faults(body, &error))?;
    let kind = kind.parse::<TypeName>().map_err(|error| ApiError::field("/type", error.to_string()))?;
    Ok(NewEvent { kind, payload, correlation_id, key, traceparent })
}

/// Why a body is no event: not JSON, or members that are missing or of another type.
fn faults(body: &[u8], error: &serde_json::Error) -> ApiError {
    let members = |body: &serde_json::Value| {
        let mut fields = Fields::of(body, "")?;
        let _ = fields.parsed::<TypeName>("type", "the name of an event type");
        fields.require("type");
        // `null` is a payload.
        if body.get("payload").is_none() {
            fields.fault("payload", "is required");
        }
        for name in ["correlationId", "key"] {
            let _ = fields.parsed::<String>(name, "a string");
        }
        Ok(fields.into_faults())
    };
    match fields::json(body).and_then(|body| members(&body)) {
        Ok(faults) if faults.is_empty() => ApiError::InvalidJson(error.to_string()),
        Ok(faults) => ApiError::InvalidBody(faults),
        Err(error) => error,
    }
}

/// `If-Match: <eventId>`, with or without quotes.
fn if_match(request: &Request<'_>) -> Result<Option<Cursor>, ApiError> {
    let Some(value) = request.header(IF_MATCH)? else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let expected = "one eventId, or <epoch>-0 for an empty log".to_owned();
    text.parse().map(Some).map_err(|_| ApiError::InvalidParameter { name: IF_MATCH, expected })
}

/// Calls about several gateways take no `If-Match`. It is not to be passed over: whoever sends it counts on it.
pub(super) fn no_if_match(request: &Request<'_>) -> Result<(), ApiError> {
    if request.header(IF_MATCH)?.is_some() {
        let expected = "absent: it is about the newest event of one gateway".to_owned();
        return Err(ApiError::InvalidParameter { name: IF_MATCH, expected });
    }
    Ok(())
}
