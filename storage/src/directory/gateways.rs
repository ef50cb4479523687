use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::edit::Edit;
use super::model::Model;
use super::{Access, Directory, DirectoryError};
use crate::ids::GatewayId;

/// Whose a gateway is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OrganizationId(pub Uuid);

impl fmt::Display for OrganizationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for OrganizationId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

/// Where a replica that names no cursor starts (CONTRACT.md § 3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CatchUp {
    /// At the newest event.
    #[default]
    Live,
    /// At the position that the server keeps for the instance.
    Stored,
}

/// A registered gateway. The caller has checked its texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// Never changes.
    pub id: GatewayId,
    /// Never changes.
    pub organization: OrganizationId,
    /// Unique in its organization; never changes.
    pub name: Arc<str>,
    /// For people.
    pub display_name: Box<str>,
    /// For people.
    pub description: Option<Box<str>>,
    /// The host that the gateway serves by default.
    pub vhost: Option<Box<str>>,
    /// Where a replica that names no cursor starts.
    pub catch_up: CatchUp,
    /// Who may come in its name. Absent in rows of the first version.
    #[serde(default)]
    pub access: Access,
    /// Never changes.
    pub created_at: DateTime<Utc>,
    /// The last change.
    pub updated_at: DateTime<Utc>,
}

/// What may change of a gateway; every member replaces what was there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayUpdate {
    /// As in [`Gateway::display_name`].
    pub display_name: Box<str>,
    /// As in [`Gateway::description`].
    pub description: Option<Box<str>>,
    /// As in [`Gateway::vhost`].
    pub vhost: Option<Box<str>>,
    /// As in [`Gateway::catch_up`].
    pub catch_up: CatchUp,
    /// As in [`Gateway::access`].
    pub access: Access,
}

impl Directory {
    /// Registers a gateway.
    ///
    /// # Errors
    /// [`DirectoryError::IdTaken`], [`DirectoryError::NameTaken`] in its organization, [`DirectoryError::CertificateNameTaken`], or
    /// the store failed.
    pub async fn create_gateway(&self, gateway: Gateway) -> Result<Arc<Gateway>, DirectoryError> {
        let gateway = Arc::new(gateway);
        self.write(move |model| {
            if model.gateway(gateway.id).is_some() {
                return Err(DirectoryError::IdTaken);
            }
            if model.has_name(gateway.organization, &gateway.name) {
                return Err(DirectoryError::NameTaken);
            }
            check_names(model, gateway.id, &gateway.access)?;
            Ok((vec![Edit::PutGateway(Arc::clone(&gateway))], gateway))
        })
        .await
    }

    /// A gateway by id.
    #[must_use]
    pub fn gateway(&self, id: GatewayId) -> Option<Arc<Gateway>> {
        self.read().gateway(id).cloned()
    }

    /// The gateway that certificates of this name are of.
    #[must_use]
    pub fn gateway_of_certificate(&self, name: &str) -> Option<Arc<Gateway>> {
        self.read().gateway_of_certificate(name).cloned()
    }

    /// The gateways of an organization or all, sorted by creation time, then id.
    #[must_use]
    pub fn gateways(&self, organization: Option<OrganizationId>) -> Vec<Arc<Gateway>> {
        self.read().gateways(organization)
    }

    /// How many gateways there are.
    #[must_use]
    pub fn gateway_count(&self) -> usize {
        self.read().gateway_count()
    }

    /// Replaces what may change of a gateway.
    ///
    /// # Errors
    /// [`DirectoryError::NoSuchGateway`], [`DirectoryError::CertificateNameTaken`], or the store failed.
    pub async fn update_gateway(
        &self,
        id: GatewayId,
        update: GatewayUpdate,
        now: DateTime<Utc>,
    ) -> Result<Arc<Gateway>, DirectoryError> {
        self.write_urgently(move |model| {
            let before = model.gateway(id).ok_or(DirectoryError::NoSuchGateway(id))?;
            check_names(model, id, &update.access)?;
            let GatewayUpdate { display_name, description, vhost, catch_up, access } = update;
            let changed = Gateway { display_name, description, vhost, catch_up, access, ..(**before).clone() };
            let after = Arc::new(Gateway { updated_at: now, ..changed });
            Ok((vec![Edit::PutGateway(Arc::clone(&after))], after))
        })
        .await
    }

    /// Deletes a gateway with its tokens and deployments, in one commit; says whether there was one. Idempotent.
    /// The gateway's log is not the directory's: see [`EventLog::forget`](crate::EventLog::forget).
    ///
    /// # Errors
    /// If the store failed.
    pub async fn delete_gateway(&self, id: GatewayId) -> Result<bool, DirectoryError> {
        self.write(move |model| {
            let edits = deletion(model, id);
            let existed = !edits.is_empty();
            Ok((edits, existed))
        })
        .await
    }
}

/// A certificate's name is of one gateway, so that nobody can take another's place or shut it out.
fn check_names(model: &Model, id: GatewayId, access: &Access) -> Result<(), DirectoryError> {
    let is_others = |name: &String| model.gateway_of_certificate(name).is_some_and(|other| other.id != id);
    match access.certificate_names.iter().find(|name| is_others(name)) {
        Some(name) => Err(DirectoryError::CertificateNameTaken(name.clone())),
        None => Ok(()),
    }
}

/// Dependents first, so that the model never holds a token of no gateway.
fn deletion(model: &Model, id: GatewayId) -> Vec<Edit> {
    if model.gateway(id).is_none() {
        return Vec::new();
    }
    let tokens = model.tokens(id).iter().map(|token| Edit::DropToken(id, token.id));
    let deployments = model.deployments_of_gateway(id).map(|row| Edit::DropDeployment(row.api.clone(), id));
    tokens.chain(deployments).chain([Edit::DropGateway(id)]).collect()
}
