use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::{Api, ApiId, Deployment, EventType, Gateway, Token, TokenId};
use crate::ids::GatewayId;
use crate::records::{Change, StoreError, Table};

/// One step of a write: it knows its row on disk, and the model knows how to apply it. Both come from the one value,
/// so they cannot part ways.
pub(super) enum Edit {
    PutGateway(Arc<Gateway>),
    /// The gateway alone; its tokens and deployments are edits of their own.
    DropGateway(GatewayId),
    PutToken(Arc<Token>),
    DropToken(GatewayId, TokenId),
    /// The API and its artifact.
    PutApi(Arc<Api>, Bytes),
    DropApi(ApiId),
    PutDeployment(Arc<Deployment>),
    DropDeployment(ApiId, GatewayId),
    PutEventType(Arc<EventType>),
    DropEventType(String),
    PutMeta(String, Bytes),
}

impl Edit {
    /// Whether it may change who is known as which gateway.
    pub(super) fn concerns_access(&self) -> bool {
        matches!(self, Self::PutGateway(_) | Self::DropGateway(_) | Self::PutToken(_) | Self::DropToken(..))
    }

    /// Adds the rows that this edit puts or deletes.
    pub(super) fn changes(&self, out: &mut Vec<Change>) -> Result<(), StoreError> {
        match self {
            Self::PutGateway(gateway) => out.push(put(Table::Gateways, gateway_key(gateway.id), &**gateway)?),
            Self::DropGateway(id) => out.push(drop_row(Table::Gateways, gateway_key(*id))),
            Self::PutToken(token) => out.push(put(Table::Tokens, token_key(token.id), &**token)?),
            Self::DropToken(_, id) => out.push(drop_row(Table::Tokens, token_key(*id))),
            Self::PutApi(api, artifact) => {
                out.push(put(Table::Apis, api_key(&api.id), &**api)?);
                let row = Some(artifact.clone());
                out.push(Change { table: Table::Artifacts, key: api_key(&api.id), row });
            }
            Self::DropApi(id) => {
                out.push(drop_row(Table::Apis, api_key(id)));
                out.push(drop_row(Table::Artifacts, api_key(id)));
            }
            Self::PutDeployment(deployment) => {
                let key = deployment_key(&deployment.api, deployment.gateway);
                out.push(put(Table::Deployments, key, &**deployment)?);
            }
            Self::DropDeployment(api, gateway) => {
                out.push(drop_row(Table::Deployments, deployment_key(api, *gateway)));
            }
            Self::PutEventType(kind) => out.push(put(Table::EventTypes, text_key(&kind.name), &**kind)?),
            Self::DropEventType(name) => out.push(drop_row(Table::EventTypes, text_key(name))),
            Self::PutMeta(key, value) => {
                out.push(Change { table: Table::Meta, key: text_key(key), row: Some(value.clone()) });
            }
        }
        Ok(())
    }
}

/// The key of an API's rows, in [`Table::Apis`] and [`Table::Artifacts`].
pub(super) fn api_key(id: &ApiId) -> Bytes {
    text_key(id.as_str())
}

fn gateway_key(id: GatewayId) -> Bytes {
    Bytes::copy_from_slice(id.0.as_bytes())
}

fn token_key(id: TokenId) -> Bytes {
    Bytes::copy_from_slice(id.0.as_bytes())
}

/// The gateway first: its length is fixed, so the key is unambiguous.
fn deployment_key(api: &ApiId, gateway: GatewayId) -> Bytes {
    let mut key = gateway.0.as_bytes().to_vec();
    key.extend_from_slice(api.as_str().as_bytes());
    key.into()
}

fn text_key(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put<T: Serialize>(table: Table, key: Bytes, value: &T) -> Result<Change, StoreError> {
    let row = serde_json::to_vec(value).map_err(|e| StoreError::Malformed(e.to_string()))?;
    Ok(Change { table, key, row: Some(row.into()) })
}

fn drop_row(table: Table, key: Bytes) -> Change {
    Change { table, key, row: None }
}
