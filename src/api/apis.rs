use std::sync::Arc;

use bytes::Bytes;
use gatecast_storage as storage;
use gatecast_storage::ApiId;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Serialize;
use tracing::info;

use super::copies::Form;
use super::error::{ApiError, Missing};
use super::reply::{self, Answer, Time};
use super::{Platform, Request, deployments, to_the_end};

/// Characters of a revision's id.
pub(super) const REVISION_CHARS: std::ops::RangeInclusive<usize> = 1..=128;
/// What an API's id is.
pub(super) const ID_EXPECTED: &str = "1 to 128 letters, digits, or any of . _ ~ - (not . or .. alone)";
/// What an artifact is.
pub(super) const YAML: &str = "application/yaml";
/// What an artifact may be sent as; nobody registered YAML before RFC 9512 did.
const YAML_TYPES: [&str; 4] = [YAML, "application/x-yaml", "text/yaml", "text/x-yaml"];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    api_id: &'a ApiId,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision_id: Option<&'a str>,
    size_bytes: u64,
    updated_at: Time,
}

pub(super) async fn put(api: &Arc<Platform>, request: &Request<'_>) -> Answer {
    let id = valid_id(request)?;
    let revision = revision(request)?;
    let kind = request.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or(YAML);
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if !YAML_TYPES.contains(&kind.as_str()) {
        return Err(ApiError::UnsupportedMediaType { expected: YAML });
    }
    let text = std::str::from_utf8(&request.body).map_err(|_| ApiError::field("", "must be YAML in UTF-8"))?;
    if text.trim().is_empty() {
        return Err(ApiError::field("", "must not be empty"));
    }
    let is_new = api.directory.api(&id).is_none();
    // The directory sets the size.
    let row = storage::Api { id, revision, updated_at: api.clock.now(), size: 0 };
    let row = api.directory.put_api(row, request.body.clone()).await?;
    info!(api.id = %row.id, api.bytes = row.size, "API artifact stored.");
    let view = View {
        api_id: &row.id,
        revision_id: row.revision.as_deref(),
        size_bytes: row.size,
        updated_at: Time(row.updated_at),
    };
    if is_new { reply::created(&format!("/api/v1/apis/{}", row.id), &view) } else { reply::json(StatusCode::OK, &view) }
}

pub(super) async fn read(api: &Platform, request: &Request<'_>) -> Answer {
    artifact(api, &known_id(request)?).await
}

/// The artifact as it was put.
pub(super) async fn artifact(api: &Platform, id: &ApiId) -> Answer {
    Ok(reply::bytes(StatusCode::OK, YAML, copy(api, id, Form::Yaml, Ok).await?))
}

/// The artifact in some form, which `make` makes of it as it was put.
pub(super) async fn copy(
    api: &Platform,
    id: &ApiId,
    form: Form,
    make: impl FnOnce(Bytes) -> Result<Bytes, ApiError>,
) -> Result<Bytes, ApiError> {
    let missing = || ApiError::NotFound(Missing::Api);
    let of = api.directory.api(id).ok_or_else(missing)?;
    let made = async { make(api.directory.api_artifact(id).await?.ok_or_else(missing)?) };
    api.copies.get(of, form, made).await
}

/// Tells the gateways that have it, then deletes it: if they can't be told, it stays, and the call may be repeated.
pub(super) async fn delete(api: &Arc<Platform>, request: &Request<'_>) -> Answer {
    let id = known_id(request)?;
    let api = Arc::clone(api);
    to_the_end(async move {
        if !deployments::delete_api(&api, &id).await? {
            return Err(ApiError::NotFound(Missing::Api));
        }
        info!(api.id = %id, "API deleted.");
        Ok(())
    })
    .await?;
    reply::no_content()
}

/// The id of an API that is to be made, or need not exist.
pub(super) fn valid_id(request: &Request<'_>) -> Result<ApiId, ApiError> {
    let [id, _] = request.params;
    id.parse().map_err(|_| ApiError::InvalidParameter { name: "apiId", expected: ID_EXPECTED.to_owned() })
}

/// The id of an API that must exist.
pub(super) fn known_id(request: &Request<'_>) -> Result<ApiId, ApiError> {
    let [id, _] = request.params;
    id.parse().map_err(|_| ApiError::NotFound(Missing::Api))
}

/// `?revisionId=`.
pub(super) fn revision(request: &Request<'_>) -> Result<Option<String>, ApiError> {
    request.query.parsed_by("revisionId", "1 to 128 characters, none of them a control character", |text| {
        let fits = REVISION_CHARS.contains(&text.chars().count()) && !text.chars().any(char::is_control);
        fits.then(|| text.to_owned())
    })
}
