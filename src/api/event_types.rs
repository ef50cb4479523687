use std::sync::Arc;

use gatecast_storage::EventType;
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use tracing::info;

use super::error::{ApiError, FieldError, Missing};
use super::fields::Fields;
use super::page::PageRequest;
use super::reply::{self, Answer, Time};
use super::{Api, Platform, Request, to_the_end};
use crate::event_types::{CheckedType, TypeName};

/// Event types in all.
const EVENT_TYPES_MAX: usize = 1_000;
/// Characters of a description.
const DESCRIPTION_CHARS: std::ops::RangeInclusive<usize> = 0..=1024;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    schema: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_pointer: Option<&'a str>,
    ends_key: bool,
    built_in: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<Time>,
}

pub(super) fn list(api: &Api, request: &Request<'_>) -> Answer {
    let page = PageRequest::of(&request.query)?;
    let all = api.event_types.list();
    let list = all.iter().skip(page.offset).take(page.limit).map(|kind| view(kind)).collect();
    reply::json(StatusCode::OK, &page.page(all.len(), list))
}

pub(super) fn read(api: &Api, request: &Request<'_>) -> Answer {
    let kind = api.event_types.get(&name(request)?).ok_or(ApiError::NotFound(Missing::EventType))?;
    reply::json(StatusCode::OK, &view(&kind))
}

/// Registers a type: stored first, then in effect, so that no event of it is stored without it.
pub(super) async fn put(api: &Arc<Platform>, request: &Request<'_>) -> Answer {
    let [name, _] = request.params;
    if name.parse().is_ok_and(|name| api.event_types.is_built_in(&name)) {
        return Err(ApiError::BuiltInType);
    }
    let row = row(api, name, &request.json()?)?;
    let compiled = row.clone();
    let compiled = api.checks.take(move || CheckedType::compile(compiled)).await?;
    let mut kind =
        compiled.map_err(|faults| ApiError::InvalidBody(faults.into_iter().map(FieldError::from).collect()))?;
    let api = Arc::clone(api);
    let (kind, is_new) = to_the_end(async move {
        let _turn = api.event_types_turn.lock().await;
        let is_new = api.event_types.get(&kind.name).is_none();
        if is_new && api.event_types.list().len() >= EVENT_TYPES_MAX {
            return Err(ApiError::TooManyEventTypes { max: EVENT_TYPES_MAX });
        }
        let stored = api.directory.put_event_type(row).await?;
        kind.created_at = Some(stored.created_at);
        info!(event.kind = %kind.name, "Event type registered.");
        Ok((api.event_types.install(kind), is_new))
    })
    .await?;
    if is_new {
        return reply::created(&format!("/api/internal/v1/event-types/{}", kind.name), &view(&kind));
    }
    reply::json(StatusCode::OK, &view(&kind))
}

/// Deletes a type: from the store first, so that a failure leaves it in effect.
pub(super) async fn delete(api: &Arc<Platform>, request: &Request<'_>) -> Answer {
    let name = name(request)?;
    if api.event_types.is_built_in(&name) {
        return Err(ApiError::BuiltInType);
    }
    let api = Arc::clone(api);
    to_the_end(async move {
        let _turn = api.event_types_turn.lock().await;
        if !api.directory.delete_event_type(name.as_str()).await? {
            return Err(ApiError::NotFound(Missing::EventType));
        }
        api.event_types.remove(&name);
        info!(event.kind = %name, "Event type deleted.");
        Ok(())
    })
    .await?;
    reply::no_content()
}

fn row(api: &Api, name: &str, body: &Value) -> Result<EventType, ApiError> {
    let mut fields = Fields::of(body, "")?;
    if fields.get("type").is_some_and(|kind| kind.as_str() != Some(name)) {
        fields.fault("type", "must be the type in the path, or absent");
    }
    let description = fields.text("description", DESCRIPTION_CHARS);
    let key_pointer = fields.parsed::<String>("keyPointer", "a JSON Pointer into the payload");
    let ends_key = fields.bool("endsKey").unwrap_or(false);
    let schema = fields.get("schema").cloned();
    fields.require("schema");
    if schema.as_ref().is_some_and(|schema| !schema.is_object() && !schema.is_boolean()) {
        fields.fault("schema", "must be an object, true or false");
    }
    let schema = fields.finish(schema)?;
    let now = api.clock.now();
    Ok(EventType {
        name: name.to_owned(),
        description,
        schema,
        key_pointer,
        ends_key,
        created_at: now,
        updated_at: now,
    })
}

fn name(request: &Request<'_>) -> Result<TypeName, ApiError> {
    let [name, _] = request.params;
    name.parse().map_err(|_| ApiError::NotFound(Missing::EventType))
}

fn view(kind: &CheckedType) -> View<'_> {
    View {
        kind: kind.name.as_str(),
        description: kind.description.as_deref(),
        schema: &kind.schema,
        key_pointer: kind.key.pointer(),
        ends_key: kind.ends_key,
        built_in: kind.built_in,
        created_at: kind.created_at.map(Time),
        updated_at: kind.updated_at.map(Time),
    }
}
