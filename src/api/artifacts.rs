//! What gateways fetch. A gateway sees only what is deployed to it; the rest does not exist for it.
//!
//! The real client exits on 401, 403 and 422 and deletes local state on an empty success (CONTRACT.md § 8): what is
//! not there is 404, which it survives.

use std::io::{Cursor, Write};

use gatecast_storage::{ApiId, Deployment, DeploymentStatus, Gateway, GatewayId};
use http::HeaderValue;
use http::StatusCode;
use http::header::VARY;
use serde::Serialize;
use uuid::Uuid;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::append::EventId;
use super::copies::Form;
use super::error::{ApiError, Missing};
use super::reply::{self, Answer, Time};
use super::{Api, Platform, Request, accept, apis};

#[derive(Serialize)]
struct Deployments {
    deployments: Vec<View>,
}

/// A deployment with the names of old and new clients.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View {
    deployment_id: Uuid,
    api_id: ApiId,
    api_uuid: ApiId,
    /// What a client's `deployment.ack` calls it.
    artifact_id: ApiId,
    revision_id: String,
    vhost: String,
    environment: String,
    status: DeploymentStatus,
    event_id: Option<EventId>,
    performed_at: Time,
}

/// The artifact as a zip of one file.
pub(super) async fn fetch_zip(api: &Platform, gateway: &Gateway, request: &Request<'_>) -> Answer {
    artifact(api, gateway, request, Form::Zip).await
}

/// The artifact as it was put, or as a zip if that is wanted more.
pub(super) async fn fetch(api: &Platform, gateway: &Gateway, request: &Request<'_>) -> Answer {
    let wish = |media_type| accept::wish(request.headers, media_type);
    let form = if wish(ZIP) > wish(apis::YAML) { Form::Zip } else { Form::Yaml };
    let mut response = artifact(api, gateway, request, form).await?;
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// What is deployed to the gateway.
pub(super) fn deployments(api: &Api, gateway: &Gateway) -> Answer {
    let rows = api.directory.deployments_of_gateway(gateway.id);
    let deployments: Vec<_> = rows.iter().filter(|row| is_deployed(row)).map(|row| view(row)).collect();
    if deployments.is_empty() {
        return Err(ApiError::NotFound(Missing::Deployment));
    }
    reply::json(StatusCode::OK, &Deployments { deployments })
}

/// A gateway tells what it is. Nothing is done with it, but a client that is refused exits.
pub(super) fn take_manifest(gateway: &Gateway, request: &Request<'_>) -> Answer {
    let [id, _] = request.params;
    if id.parse() == Ok(GatewayId(gateway.id.0)) { reply::no_content() } else { Err(ApiError::Forbidden) }
}

async fn artifact(api: &Platform, gateway: &Gateway, request: &Request<'_>, form: Form) -> Answer {
    let id = apis::known_id(request)?;
    api.directory.deployment(&id, gateway.id).filter(|row| is_deployed(row)).ok_or(ApiError::NotFound(Missing::Api))?;
    match form {
        Form::Yaml => apis::artifact(api, &id).await,
        Form::Zip => {
            let zipped = apis::copy(api, &id, form, |artifact| {
                zip(&id, &artifact).map(Into::into).map_err(|error| ApiError::Unavailable(Box::new(error)))
            });
            Ok(reply::bytes(StatusCode::OK, ZIP, zipped.await?))
        }
    }
}

/// A deployment that failed is one: an earlier revision may be served, and a later try may succeed.
fn is_deployed(row: &Deployment) -> bool {
    match row.status {
        DeploymentStatus::Deploying | DeploymentStatus::Deployed | DeploymentStatus::Failed => true,
        DeploymentStatus::Undeploying | DeploymentStatus::Undeployed => false,
    }
}

/// Stored, not deflated: artifacts are small, and the connection may be compressed.
fn zip(id: &ApiId, artifact: &[u8]) -> zip::result::ZipResult<Vec<u8>> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::with_capacity(artifact.len() + 256)));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    zip.start_file(format!("api-{id}.yaml"), options)?;
    zip.write_all(artifact)?;
    Ok(zip.finish()?.into_inner())
}

fn view(row: &Deployment) -> View {
    View {
        deployment_id: row.id,
        api_id: row.api.clone(),
        api_uuid: row.api.clone(),
        artifact_id: row.api.clone(),
        revision_id: row.revision.clone(),
        vhost: row.vhost.clone(),
        environment: row.environment.clone(),
        status: row.status,
        event_id: row.event.map(EventId),
        performed_at: Time(row.performed_at),
    }
}

const ZIP: &str = "application/zip";
