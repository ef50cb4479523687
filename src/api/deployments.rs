//! Deploying and undeploying.
//!
//! A deployment's row is stored before its event, because the gateway asks for the artifact as soon as the event
//! arrives and gets it only if the API is deployed to it. A crash in between leaves a row that says `DEPLOYING` and
//! names no event.

mod elements;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gatecast_storage::{ApiId, Deployment, DeploymentStatus, DirectoryError, GatewayId};
use http::StatusCode;
use serde::de::value::StrDeserializer;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::MutexGuard;
use tracing::info;
use uuid::Uuid;

use self::elements::{Defaults, Element};
use super::append::{EventId, append_each};
use super::error::{ApiError, Missing};
use super::page::PageRequest;
use super::reply::{self, Answer, Time};
use super::{Api, Platform, Request, apis, to_the_end};
use crate::publish::{CheckedEvent, NewEvent, Published};
use crate::receipts::standing::{TIMED_OUT, standing};

/// The longest wait for deployments that came before.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
const STATUS_EXPECTED: &str = "one of DEPLOYING, DEPLOYED, FAILED, UNDEPLOYING, UNDEPLOYED";

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
    gateway_name: Option<String>,
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
    let id = request.query.parsed::<ApiId>("apiId", "the id of an API")?;
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
pub(super) async fn delete_api(api: &Platform, id: &ApiId) -> Result<bool, ApiError> {
    let _turn = turn(api).await?;
    let rows = api.directory.deployments_of_api(id).into_iter();
    let rows: Vec<_> = rows.filter(|row| row.status != DeploymentStatus::Undeployed).collect();
    let performed_at = api.clock.now();
    let events = rows.iter().map(|row| {
        let row = Deployment { id: Uuid::new_v4(), performed_at, ..(**row).clone() };
        Ok((row.gateway, check(api, &row, Order::Delete)?))
    });
    let events = events.collect::<Result<_, ApiError>>()?;
    for (_, result) in append_each(api, events).await {
        match result {
            // The gateway was deleted meanwhile.
            Ok(_) | Err(ApiError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(api.directory.delete_api(id.clone()).await?)
}

/// All elements are checked before anything is stored; from then on each has its own outcome.
async fn order(api: &Arc<Platform>, request: &Request<'_>, order: Order) -> Answer {
    let id = apis::valid_id(request)?;
    let revision = apis::revision(request)?;
    let as_deployed = order == Order::Undeploy;
    let defaults = Defaults { id: &id, revision: revision.as_deref(), as_deployed };
    let elements = elements::of(api, &request.json()?, &defaults)?;
    let api = Arc::clone(api);
    let views = to_the_end(async move {
        let _turn = turn(&api).await?;
        carry_out(&api, &id, elements, order).await
    })
    .await?;
    reply::json(StatusCode::OK, &views)
}

async fn carry_out(api: &Api, id: &ApiId, elements: Vec<Element>, order: Order) -> Result<Vec<View>, ApiError> {
    let shown: Vec<_> = elements.iter().map(|element| element.display_on_devportal).collect();
    let rows: Vec<_> = elements.into_iter().map(|element| row(api, id, element, order)).collect();
    let events = rows.iter().map(|row| Ok((row.gateway, check(api, row, order)?)));
    let events = events.collect::<Result<_, ApiError>>()?;
    let rows = api.directory.put_deployments(rows).await?;
    let mut results = append_each(api, events).await;
    let rows: Vec<_> = rows.iter().zip(&results).map(|(row, (_, result))| settled(api, row, result)).collect();
    keep(api, rows.clone()).await?;
    if results.iter().all(|(_, result)| result.is_err())
        && let Some((_, Err(error))) = results.pop()
    {
        // Nobody was told anything: that is an error like that of any other call, to be repeated.
        return Err(error);
    }
    let told = rows.iter().filter(|row| row.event.is_some()).count();
    info!(api.id = %id, gateways = rows.len(), told, ?order, "Deployment ordered.");
    let outcomes = rows.iter().zip(results).zip(shown);
    Ok(outcomes.map(|((row, (_, result)), shown)| outcome(row, result, shown)).collect())
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
    }
}

/// The row once its event is stored, or not. What a gateway has reported meanwhile stays.
fn settled(api: &Api, row: &Deployment, result: &Result<Published, ApiError>) -> Deployment {
    let now = api.directory.deployment(&row.api, row.gateway).filter(|now| now.id == row.id);
    let mut row = now.map_or_else(|| row.clone(), |now| (*now).clone());
    match result {
        Ok(published) => row.event = Some(published.event_id),
        Err(_) => row.status = DeploymentStatus::Failed,
    }
    row.updated_at = api.clock.now();
    row
}

/// Keeps the rows of the gateways that are still there.
async fn keep(api: &Api, mut rows: Vec<Deployment>) -> Result<(), ApiError> {
    loop {
        match api.directory.put_deployments(rows.clone()).await {
            Err(DirectoryError::NoSuchGateway(gone)) => rows.retain(|row| row.gateway != gone),
            result => return result.map(drop).map_err(ApiError::from),
        }
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

async fn turn(api: &Platform) -> Result<MutexGuard<'_, ()>, ApiError> {
    tokio::time::timeout(TURN_TIMEOUT, api.deployments_turn.lock()).await.map_err(|_| ApiError::timeout())
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

fn outcome(row: &Deployment, result: Result<Published, ApiError>, shown: Option<bool>) -> View {
    // The platform that the quickstart is from calls the time of the order `deployedTime`.
    let view = View { display_on_devportal: shown, deployed_time: Some(Time(row.performed_at)), ..view(row) };
    match result {
        Ok(done) => View { correlation_id: Some(done.correlation_id), connections: Some(done.connections), ..view },
        Err(error) => View { code: Some(error.logged_code()), ..view },
    }
}
