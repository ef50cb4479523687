use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::edit::Edit;
use super::model::Model;
use super::{ApiId, Directory, DirectoryError};
use crate::ids::{Cursor, GatewayId};

/// How far a deployment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DeploymentStatus {
    /// The event is out; no replica has confirmed.
    Deploying,
    /// The gateway serves the API.
    Deployed,
    /// The gateway could not apply it.
    Failed,
    /// The event is out; no replica has confirmed.
    Undeploying,
    /// The gateway no longer serves the API.
    Undeployed,
}

/// What was last asked of a gateway about an API: one row per (API, gateway).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Names this request; gateways confirm by it.
    pub id: Uuid,
    /// The API.
    pub api: ApiId,
    /// The gateway.
    pub gateway: GatewayId,
    /// The API's revision.
    pub revision: String,
    /// The host it is served under.
    pub vhost: String,
    /// The environment it is served in.
    pub environment: String,
    /// How far it is.
    pub status: DeploymentStatus,
    /// The event that told the gateway; `None` while that is pending.
    pub event: Option<Cursor>,
    /// When it was asked for; the same on every replay.
    pub performed_at: DateTime<Utc>,
    /// The last change of status.
    pub updated_at: DateTime<Utc>,
    /// Set until it is known that the event is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Pending>,
    /// What it replaced, newest first, at most [`EARLIER_MAX`]: a gateway may still report what became of that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Earlier>,
    /// When its API was deleted, since which nothing is asked: the row is there for what the gateway may still report, and
    /// shown to nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<DateTime<Utc>>,
}

/// What was asked before of the same gateway about the same API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earlier {
    /// As gateways confirm it.
    pub id: Uuid,
    /// The event that told the gateway.
    pub event: Cursor,
}

/// What was told of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Whom.
    pub gateway: GatewayId,
    /// With which event; `None` while that is pending.
    pub event: Option<Cursor>,
}

impl Deployment {
    /// What a row in place of this one has as earlier.
    fn earlier_then(&self) -> Vec<Earlier> {
        let this = self.event.map(|event| Earlier { id: self.id, event });
        this.into_iter().chain(self.earlier.iter().copied()).take(EARLIER_MAX).collect()
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.deleted_at.is_some()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = Uuid> {
        [self.id].into_iter().chain(self.earlier.iter().map(|earlier| earlier.id))
    }
}

/// Who deploys again before a report came is mostly one step ahead of it.
pub const EARLIER_MAX: usize = 4;
/// Deployments of deleted APIs that are known, the last deleted: one of each of 100,000 gateways.
pub const DELETED_MAX: usize = 100_000;

/// That a deployment was begun: its event may or may not be stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// What to go back to if it is not.
    pub replaces: Option<Arc<Deployment>>,
}

impl Directory {
    /// Puts what gateways are about to be told, all in one commit, each in place of the row of its API and gateway, which
    /// it keeps until [`Self::end_deployments`] says what became of its event. The API need not have an artifact here:
    /// it may live elsewhere.
    ///
    /// # Errors
    /// [`DirectoryError::NoSuchGateway`] if one is missing, [`DirectoryError::Unsettled`] if one was begun and not ended
    /// (nothing is put then), or the store failed.
    pub async fn begin_deployments(&self, rows: Vec<Deployment>) -> Result<(), DirectoryError> {
        self.write(move |model| {
            let begun = rows.into_iter().map(|row| {
                if model.gateway(row.gateway).is_none() {
                    return Err(DirectoryError::NoSuchGateway(row.gateway));
                }
                let replaces = model.deployment(&row.api, row.gateway).cloned();
                if replaces.as_ref().is_some_and(|before| before.pending.is_some()) {
                    return Err(DirectoryError::Unsettled);
                }
                let earlier = replaces.as_ref().map_or_else(Vec::new, |before| before.earlier_then());
                let pending = Some(Pending { replaces });
                Ok(Edit::PutDeployment(Arc::new(Deployment { event: None, pending, earlier, deleted_at: None, ..row })))
            });
            Ok((begun.collect::<Result<_, _>>()?, ()))
        })
        .await
    }

    /// What became of deployments that were begun: the event that told the gateway, or `None` if it is not stored; then
    /// the row from before is put back. What a replica has reported meanwhile stays. All in one commit. Those that are
    /// gone with their gateway, or ended before, are left alone.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn end_deployments(
        &self,
        outcomes: Vec<(Uuid, Option<Cursor>)>,
        now: DateTime<Utc>,
    ) -> Result<(), DirectoryError> {
        self.write_urgently(move |model| {
            let edits = outcomes.into_iter().filter_map(|(id, event)| {
                let row = model.deployment_by_id(id)?;
                Some(match (event, row.pending.as_ref()?) {
                    (Some(_), _) => {
                        let row = Deployment { event, pending: None, updated_at: now, ..(**row).clone() };
                        Edit::PutDeployment(Arc::new(row))
                    }
                    (None, Pending { replaces: Some(before) }) => Edit::PutDeployment(Arc::clone(before)),
                    (None, Pending { replaces: None }) => Edit::DropDeployment(row.api.clone(), row.gateway),
                })
            });
            Ok((edits.collect(), ()))
        })
        .await
    }

    /// The deployments that were begun and not ended.
    #[must_use]
    pub fn pending_deployments(&self) -> Vec<Arc<Deployment>> {
        self.read().pending_deployments().cloned().collect()
    }

    /// A replica of the gateway did what a deployment asked for: `DEPLOYING` becomes `DEPLOYED`, `UNDEPLOYING` becomes
    /// `UNDEPLOYED`. The row then; `None` if something else was asked for since, or it was known.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn settle_deployment(
        &self,
        gateway: GatewayId,
        id: Uuid,
        now: DateTime<Utc>,
    ) -> Result<Option<Arc<Deployment>>, DirectoryError> {
        self.write(move |model| {
            let Some(row) = model.deployment_by_id(id).filter(|row| row.gateway == gateway) else {
                return Ok((Vec::new(), None));
            };
            let status = match row.status {
                DeploymentStatus::Deploying => DeploymentStatus::Deployed,
                DeploymentStatus::Undeploying => DeploymentStatus::Undeployed,
                DeploymentStatus::Deployed | DeploymentStatus::Failed | DeploymentStatus::Undeployed => {
                    return Ok((Vec::new(), None));
                }
            };
            let row = Arc::new(Deployment { status, updated_at: now, ..(**row).clone() });
            Ok((vec![Edit::PutDeployment(Arc::clone(&row))], Some(row)))
        })
        .await
    }

    /// Who was told of the deployment of this id, and how, if it or one of the [`EARLIER_MAX`] after it is what was last
    /// asked, and its API is there or one of the [`DELETED_MAX`] were deleted after it.
    #[must_use]
    pub fn told_of_deployment(&self, id: Uuid) -> Option<Told> {
        let model = self.read();
        let row = model.deployment_that_knows(id)?;
        let earlier = row.earlier.iter().find(|earlier| earlier.id == id);
        Some(Told { gateway: row.gateway, event: earlier.map_or(row.event, |earlier| Some(earlier.event)) })
    }

    /// What was last asked of the gateway about the API.
    #[must_use]
    pub fn deployment(&self, api: &ApiId, gateway: GatewayId) -> Option<Arc<Deployment>> {
        self.read().deployment(api, gateway).filter(|row| !row.is_deleted()).cloned()
    }

    /// All deployments, what was asked for last first.
    #[must_use]
    pub fn deployments(&self) -> Vec<Arc<Deployment>> {
        let mut all = asked(self.read().deployments());
        all.sort_by_key(|row| (std::cmp::Reverse(row.performed_at), row.id));
        all
    }

    /// The deployments of an API, by gateway id.
    #[must_use]
    pub fn deployments_of_api(&self, api: &ApiId) -> Vec<Arc<Deployment>> {
        asked(self.read().deployments_of_api(api))
    }

    /// The deployments of a gateway, by API id.
    #[must_use]
    pub fn deployments_of_gateway(&self, gateway: GatewayId) -> Vec<Arc<Deployment>> {
        asked(self.read().deployments_of_gateway(gateway))
    }
}

/// Those whose API is not deleted.
fn asked<'a>(rows: impl Iterator<Item = &'a Arc<Deployment>>) -> Vec<Arc<Deployment>> {
    rows.filter(|row| !row.is_deleted()).cloned().collect()
}

/// Takes the deployments of an API away. What gateways were told stays known, of the last [`DELETED_MAX`].
pub(super) fn deletion(model: &Model, api: &ApiId, now: DateTime<Utc>) -> Vec<Edit> {
    let mut edits = Vec::new();
    let mut kept = 0;
    for row in asked(model.deployments_of_api(api)) {
        if row.event.is_some() && kept < DELETED_MAX {
            kept += 1;
            edits.push(Edit::PutDeployment(Arc::new(Deployment { deleted_at: Some(now), ..(*row).clone() })));
        } else {
            edits.push(Edit::DropDeployment(row.api.clone(), row.gateway));
        }
    }
    let known = model.deleted_deployments();
    let too_many = (known.len() + kept).saturating_sub(DELETED_MAX);
    edits.extend(known.take(too_many).map(|(_, gateway, api)| Edit::DropDeployment(api.clone(), *gateway)));
    edits
}
