//! Deploying and undeploying.
//!
//! A deployment's row is stored before its event, because the gateway asks for the artifact as soon as the event
//! arrives and gets it only if the API is deployed to it. Until it is known that the event is stored the row is pending;
//! if it is not, or was not when the server crashed, the row from before holds again ([`gatecast_storage::orders`]). So
//! what the rows say and what gateways are told is one, whatever fails in between.

mod elements;

use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use chrono::{DateTime, Utc};
use gatecast_storage::{ApiId, Cursor, Deployment, DeploymentStatus, DirectoryError, GatewayId, Orders};
use http::StatusCode;
use serde::de::value::StrDeserializer;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::MutexGuard;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};
use uuid::Uuid;

use self::elements::{Defaults, Element};
use super::append::{EventId, append_each, many_in_time, refused};
use super::error::{ApiError, Missing};
use super::events::no_if_match;
use super::page::PageRequest;
use super::reply::{self, Answer, Time};
use super::{Api, Platform, Request, apis, idempotency, to_the_end};
use crate::publish::{Call, CheckedEvent, NewEvent, Outgoing, Published};
use crate::receipts::standing::{TIMED_OUT, standing};

/// The longest wait for deployments that came before.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// How soon the directory is told again what it could not store.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const STATUS_EXPECTED: &str = "one of DEPLOYING, DEPLOYED, FAILED, UNDEPLOYING, UNDEPLOYED";

/// What became of deployments that the directory does not know of yet.
#[derive(Default)]
pub(super) struct Outcomes {
    known: Vec<(Uuid, Option<Cursor>)>,
    /// Somebody tells it again and again.
    is_retried: bool,
}

/// What is asked of gateways about an API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Deploy,
    Undeploy,
    Delete,
}

/// The payload of the event: the names of old gateways (`apiUuid`, `revisionId`) and of new ones (CONTRACT.md § 8).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Payload<'a> {
    api_uuid: &'a ApiId,
    api_id: &'a ApiId,
    revision_id: &'a str,
    deployment_id: Uuid,
    vhost: &'a str,
    environment: &'a str,
    performed_at: Time,
}

/// A deployment, and with the answer of a deploy what became of its event.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct View {
    deployment_id: Uuid,
    api_id: ApiId,
    revision_id: String,
    gateway_id: GatewayId,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway_name: Option<Arc<str>>,
    status: DeploymentStatus,
    vhost: String,
    environment: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    display_on_devportal: Option<bool>,
    event_id: Option<EventId>,
    performed_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    deployed_time: Option<Time>,
    updated_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<usize>,
    /// Replicas that applied it, of as many that are connected or have reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    applied: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instances: Option<usize>,
    /// Why it is not applied everywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasons: Option<Vec<Reason>>,
    /// Why its event was not stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
}

/// Why a replica has not applied a deployment.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reason {
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    /// What tells replicas apart that give no name.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Time>,
}

pub(super) async fn deploy(api: &Arc<Platform>, request: &Request<'_>) -> Answer {
    order(api, request, Order::Deploy).await
}

pub(super) async fn undeploy(api: &Arc<Platform>, request: &Request<'_>) -> Answer {
    order(api, request, Order::Undeploy).await
}

pub(super) fn list(api: &Api, request: &Request<'_>) -> Answer {
    let page = PageRequest::of(&request.query)?;
    let id = apis::known_id(request)?;
    let rows = api.directory.deployments_of_api(&id);
    if rows.is_empty() && api.directory.api(&id).is_none() {
        return Err(ApiError::NotFound(Missing::Api));
    }
    reply::json(StatusCode::OK, &page.cut(rows, |row| shown(api, &row)))
}

/// What was last asked of each gateway about each API, newest first: `?gatewayId=&apiId=&status=`.
pub(super) fn list_all(api: &Api, request: &Request<'_>) -> Answer {
    let page = PageRequest::of(&request.query)?;
    let gateway = request.query.parsed::<GatewayId>("gatewayId", "a UUID")?;
    let id = request.query.parsed::<ApiId>("apiId", apis::ID_EXPECTED)?;
    let status = request.query.parsed_by("status", STATUS_EXPECTED, |text| {
        DeploymentStatus::deserialize(StrDeserializer::<serde::de::value::Error>::new(text)).ok()
    })?;
    let mut rows = api.directory.deployments();
    rows.retain(|row| {
        gateway.is_none_or(|gateway| row.gateway == gateway) && id.as_ref().is_none_or(|id| row.api == *id)
    });
    // What is shown is what replicas made of it, so that is what is asked for.
    if let Some(status) = status {
        let now = api.clock.now();
        rows.retain(|row| standing(row, &api.receipts, now).status == status);
    }
    reply::json(StatusCode::OK, &page.cut(rows, |row| shown(api, &row)))
}

/// A deployment with what its replicas made of it.
fn shown(api: &Api, row: &Deployment) -> View {
    let standing = standing(row, &api.receipts, api.clock.now());
    if standing.applied > 0 && standing.status != row.status {
        api.reports.settle(row.gateway, row.id);
    }
    let failures = standing.failures.into_iter().map(|(replica, outcome)| Reason {
        instance: Some(replica.instance().to_owned()),
        address: replica.address(),
        error_code: outcome.error_code,
        message: outcome.message,
        at: Some(Time(outcome.at)),
    });
    let late = standing.is_late.then(|| Reason {
        instance: None,
        address: None,
        error_code: Some(TIMED_OUT.to_owned()),
        message: Some("No replica has reported on it in time.".to_owned()),
        at: None,
    });
    View {
        gateway_name: api.directory.gateway(row.gateway).map(|gateway| gateway.name.clone()),
        status: standing.status,
        applied: Some(standing.applied),
        instances: Some(standing.of),
        reasons: Some(failures.chain(late).collect()),
        ..view(row)
    }
}

/// Tells the gateways that an API is deployed to that it is deleted, then deletes it; says whether there was one.
/// If not all can be told, it stays, and the call may be repeated.
pub(super) async fn delete_api(api: &Arc<Platform>, id: &ApiId) -> Result<bool, ApiError> {
    let mut turn = turn(api).await?;
    let now = api.clock.now();
    let results = loop {
        match tell(api, &mut turn, &deletions(api, id, now), Order::Delete, None).await {
            // One was deleted since the look, and nobody was told yet: it is in no way of the others.
            Err(ApiError::NotFound(Missing::Gateway(_))) => {}
            told => break told?,
        }
    };
    for result in results {
        match result {
            Ok(_) | Err(ApiError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    // What gateways were told of a deleted API stays known only if its rows say so.
    end(api, &mut turn).await?;
    Ok(api.directory.delete_api(id.clone(), now).await?)
}

/// What the gateways that an API is deployed to are told when it is deleted. Those that are deleted meanwhile are gone with
/// their rows.
fn deletions(api: &Api, id: &ApiId, now: DateTime<Utc>) -> Vec<Deployment> {
    let rows = api.directory.deployments_of_api(id).into_iter();
    let rows = rows.filter(|row| row.status != DeploymentStatus::Undeployed).map(|row| {
        let status = DeploymentStatus::Undeploying;
        Deployment { id: Uuid::new_v4(), status, event: None, performed_at: now, updated_at: now, ..(*row).clone() }
    });
    rows.filter(|row| api.directory.gateway(row.gateway).is_some()).collect()
}

/// All elements are checked before anything is stored; from then on each has its own outcome.
async fn order(api: &Arc<Platform>, request: &Request<'_>, order: Order) -> Answer {
    let id = apis::valid_id(request)?;
    let revision = apis::revision(request)?;
    no_if_match(request)?;
    let body = request.json()?;
    let call = idempotency::call(request, format_args!("{order:?} {id}"), revision.as_deref().unwrap_or_default())?;
    let api = Arc::clone(api);
    many_in_time(to_the_end(async move {
        let _call = match &call {
            Some(call) => Some(api.turns.take(call).await),
            None => None,
        };
        let as_deployed = order == Order::Undeploy;
        let defaults = Defaults { id: &id, revision: revision.as_deref(), as_deployed };
        // What is deployed now is what is undeployed if the call does not say.
        let mut turn = turn(&api).await?;
        let elements = elements(&api, &body, &defaults, call.as_ref()).await?;
        carry_out(&api, &mut turn, &id, elements, order, call.as_ref()).await
    }))
    .await
}

/// What a call is about: what the first call of its key was, else what it says.
async fn elements(
    api: &Api,
    body: &Value,
    defaults: &Defaults<'_>,
    call: Option<&Call>,
) -> Result<Vec<Element>, ApiError> {
    let Some(call) = call else { return elements::of(api, body, defaults) };
    if let Some(begun) = api.publisher.begun(call)? {
        return Ok(begun);
    }
    let elements = elements::of(api, body, defaults)?;
    api.publisher.begin(call, elements.iter().map(|element| element.gateway), &elements).await?;
    Ok(elements)
}

/// What the call was answered before stays; the other elements are ordered.
async fn carry_out(
    api: &Arc<Platform>,
    turn: &mut Outcomes,
    id: &ApiId,
    elements: Vec<Element>,
    order: Order,
    call: Option<&Call>,
) -> Answer {
    let mut known = Vec::with_capacity(elements.len());
    for element in elements {
        let shown = element.display_on_devportal;
        let (row, result) = match first(api, element.gateway, call)? {
            Some((row, first)) => (row, Some(Ok(first))),
            None => {
                let is_gone = api.directory.gateway(element.gateway).is_none();
                (row(api, id, element, order), is_gone.then(|| Err(ApiError::no_gateway())))
            }
        };
        known.push((row, result, shown));
    }
    let is_replay = known.iter().all(|(_, result, _)| matches!(result, Some(Ok(_))));
    let rows: Vec<_> = known.iter().filter(|(_, result, _)| result.is_none()).map(|(row, ..)| row.clone()).collect();
    let results = tell(api, turn, &rows, order, call).await?;
    let told = results.iter().filter(|result| result.is_ok()).count();
    info!(api.id = %id, gateways = rows.len(), told, ?order, "Deployment ordered.");
    let mut results = results.into_iter();
    let mut results: Vec<_> = known
        .into_iter()
        .filter_map(|(row, result, shown)| Some((row, result.or_else(|| results.next())?, shown)))
        .collect();
    if results.iter().all(|(_, result, _)| result.is_err())
        && let Some((_, Err(error), _)) = results.pop()
    {
        // Nobody was told anything: that is an error like that of any other call, to be repeated.
        return Err(error);
    }
    let views: Vec<_> = results.into_iter().map(|(row, result, shown)| outcome(api, row, result, shown)).collect();
    let answer = reply::json(StatusCode::OK, &views)?;
    Ok(if is_replay { idempotency::replayed(answer) } else { answer })
}

/// What an earlier call with the same key ordered of a gateway.
fn first(api: &Api, of: GatewayId, call: Option<&Call>) -> Result<Option<(Deployment, Published)>, ApiError> {
    let Some(call) = call else { return Ok(None) };
    let Some(first) = api.publisher.first(of, call)? else { return Ok(None) };
    let row = first.about.as_ref().map(|row| serde_json::from_str(row.get()));
    let row = row.transpose().map_err(|error| ApiError::Unavailable(Box::new(error)))?;
    Ok(row.map(|row| (row, first)))
}

/// Tells gateways what the rows say: rows and events are stored, each with the other or not at all. Answers for each row.
async fn tell(
    api: &Arc<Platform>,
    turn: &mut Outcomes,
    rows: &[Deployment],
    order: Order,
    call: Option<&Call>,
) -> Result<Vec<Result<Published, ApiError>>, ApiError> {
    let events = rows.iter().map(|row| check(api, row, order)).collect::<Result<Vec<_>, _>>()?;
    api.directory.begin_deployments(rows.to_vec()).await?;
    let events = rows.iter().zip(&events).map(|(row, event)| {
        let about = call.and_then(|_| to_raw_value(row).ok());
        Outgoing { about, beside: vec![Orders::beside(row.id)], ..Outgoing::new(row.gateway, event) }
    });
    let results = append_each(api, events.collect(), call).await;
    for (row, result) in rows.iter().zip(&results) {
        match result {
            Ok(published) => turn.known.push((row.id, Some(published.event_id))),
            // The next start knows.
            Err(error) if error.may_be_stored() => {}
            Err(_) => turn.known.push((row.id, None)),
        }
    }
    if let Err(error) = end(api, turn).await {
        // That changes nothing of what gateways were told.
        warn!(%error, deployments = turn.known.len(), "What became of deployments could not be stored; it is tried again.");
        if !std::mem::replace(&mut turn.is_retried, true) {
            drop(tokio::spawn(retry(Arc::downgrade(api))));
        }
    }
    Ok(results)
}

/// Tells the directory what became of deployments. What it cannot store now stays to be told.
async fn end(api: &Api, turn: &mut Outcomes) -> Result<(), DirectoryError> {
    if turn.known.is_empty() {
        return Ok(());
    }
    api.directory.end_deployments(turn.known.clone(), api.clock.now()).await?;
    let known = std::mem::take(&mut turn.known).into_iter();
    let told: Vec<_> = known.filter_map(|(id, event)| event.map(|_| id)).collect();
    told.iter().for_each(|id| api.reports.told(*id));
    if let Err(error) = api.orders.ended(told).await {
        warn!(%error, "Rows of deployments that ended are deleted at the next start only.");
    }
    Ok(())
}

/// Tells the directory until it knows, though no other call comes: until then its rows show what gateways may not have
/// been told.
async fn retry(api: Weak<Platform>) {
    loop {
        sleep(RETRY_AFTER).await;
        let Some(api) = api.upgrade() else { return };
        let mut turn = api.deployments_turn.lock().await;
        if end(&api, &mut turn).await.is_ok() {
            turn.is_retried = false;
            return;
        }
    }
}

fn row(api: &Api, id: &ApiId, element: Element, order: Order) -> Deployment {
    let now = api.clock.now();
    Deployment {
        id: Uuid::new_v4(),
        api: id.clone(),
        gateway: element.gateway,
        revision: element.revision,
        vhost: element.vhost,
        environment: element.environment,
        status: if order == Order::Deploy { DeploymentStatus::Deploying } else { DeploymentStatus::Undeploying },
        event: None,
        performed_at: now,
        updated_at: now,
        pending: None,
        earlier: Vec::new(),
        deleted_at: None,
    }
}

fn check(api: &Api, row: &Deployment, order: Order) -> Result<CheckedEvent, ApiError> {
    let name = match order {
        Order::Deploy => "api.deployed",
        Order::Undeploy => "api.undeployed",
        Order::Delete => "api.deleted",
    };
    let kind = name.parse().map_err(|_| ApiError::UnknownEventType(name.to_owned()))?;
    let payload = payload(row).map_err(|error| ApiError::Unavailable(Box::new(error)))?;
    Ok(api.publisher.check(NewEvent { kind, payload, correlation_id: None, key: None, traceparent: None })?)
}

fn payload(row: &Deployment) -> Result<Box<RawValue>, serde_json::Error> {
    to_raw_value(&Payload {
        api_uuid: &row.api,
        api_id: &row.api,
        revision_id: &row.revision,
        deployment_id: row.id,
        vhost: &row.vhost,
        environment: &row.environment,
        performed_at: Time(row.performed_at),
    })
}

/// The turn of a call. What became of those before is stored first: the call looks at the rows.
async fn turn(api: &Platform) -> Result<MutexGuard<'_, Outcomes>, ApiError> {
    let turn = timeout(TURN_TIMEOUT, api.deployments_turn.lock()).await;
    let mut turn = turn.map_err(|_| ApiError::timeout())?;
    end(api, &mut turn).await?;
    Ok(turn)
}

/// A deployment as it stands.
pub(super) fn view(row: &Deployment) -> View {
    View {
        deployment_id: row.id,
        api_id: row.api.clone(),
        revision_id: row.revision.clone(),
        gateway_id: row.gateway,
        gateway_name: None,
        status: row.status,
        vhost: row.vhost.clone(),
        environment: row.environment.clone(),
        display_on_devportal: None,
        event_id: row.event.map(EventId),
        performed_at: Time(row.performed_at),
        deployed_time: None,
        updated_at: Time(row.updated_at),
        correlation_id: None,
        connections: None,
        applied: None,
        instances: None,
        reasons: None,
        code: None,
    }
}

fn outcome(api: &Api, row: Deployment, result: Result<Published, ApiError>, shown: Option<bool>) -> View {
    // The platform that the quickstart is from calls the time of the order `deployedTime`.
    let view = View { display_on_devportal: shown, deployed_time: Some(Time(row.performed_at)), ..view(&row) };
    match result {
        Ok(done) => View {
            event_id: Some(EventId(done.event_id)),
            correlation_id: Some(done.correlation_id),
            connections: Some(done.connections),
            ..view
        },
        Err(error) => View { status: DeploymentStatus::Failed, code: Some(refused(api, &error)), ..view },
    }
}
