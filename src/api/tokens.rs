use std::sync::Arc;

use gatecast_storage::{GatewayId, Token, TokenId, TokenState};
use http::StatusCode;
use serde::Serialize;
use tracing::info;
use uuid::Uuid;

use super::error::{ApiError, Missing};
use super::fields::{self, Fields};
use super::page::PageRequest;
use super::reply::{self, Answer, Time};
use super::{Api, Platform, Request, to_the_end};
use crate::auth::PlainToken;

/// Active tokens of one gateway: one in use, and one to rotate to.
const ACTIVE_TOKENS_MAX: usize = 2;

/// The one time that a token is shown.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Created<'a> {
    id: TokenId,
    token: &'a str,
    created_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Time>,
    message: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View {
    id: TokenId,
    gateway_id: GatewayId,
    status: &'static str,
    created_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_at: Option<Time>,
}

pub(super) async fn create(api: &Arc<Platform>, request: &Request<'_>) -> Answer {
    let gateway = request.gateway(api)?.id;
    let now = api.clock.now();
    // A body is optional, and curl calls one of no bytes whatever it likes.
    let body = if request.body.is_empty() { serde_json::json!({}) } else { fields::json(&request.body)? };
    let mut fields = Fields::of(&body, "")?;
    let expires_at = fields.time("expiresAt");
    if expires_at.is_some_and(|end| end <= now) {
        fields.fault("expiresAt", "must be in the future");
    }
    fields.finish(Some(()))?;
    let plain = PlainToken::random()?;
    let id = TokenId(Uuid::new_v4());
    let token = Token { id, gateway, hash: plain.hash(), created_at: now, expires_at, revoked_at: None };
    let token = api.directory.create_token(token, ACTIVE_TOKENS_MAX, now).await?;
    info!(gateway.id = %gateway, token.id = %id, "Token created.");
    let created = Created {
        id,
        token: plain.expose(),
        created_at: Time(token.created_at),
        expires_at: token.expires_at.map(Time),
        message: "New token generated successfully.",
    };
    reply::created(&format!("/api/v1/gateways/{gateway}/tokens/{id}"), &created)
}

pub(super) fn list(api: &Api, request: &Request<'_>) -> Answer {
    let page = PageRequest::of(&request.query)?;
    let gateway = request.gateway(api)?.id;
    let now = api.clock.now();
    let view = |token: Arc<Token>| View {
        id: token.id,
        gateway_id: token.gateway,
        status: match token.state(now) {
            TokenState::Active => "active",
            TokenState::Expired => "expired",
            TokenState::Revoked => "revoked",
        },
        created_at: Time(token.created_at),
        expires_at: token.expires_at.map(Time),
        revoked_at: token.revoked_at.map(Time),
    };
    reply::json(StatusCode::OK, &page.cut(api.directory.tokens(gateway), view))
}

/// First the directory, so that nobody is admitted with it any more; then those who were.
pub(super) async fn revoke(api: &Arc<Platform>, request: &Request<'_>) -> Answer {
    let gateway = request.gateway(api)?.id;
    let [_, id] = request.params;
    let id: TokenId = id.parse().map_err(|_| ApiError::NotFound(Missing::Token))?;
    let now = api.clock.now();
    let api = Arc::clone(api);
    to_the_end(async move {
        api.directory.revoke_token(gateway, id, now).await?;
        api.registry.close_token(id);
        info!(gateway.id = %gateway, token.id = %id, "Token revoked.");
        Ok(())
    })
    .await?;
    reply::no_content()
}
