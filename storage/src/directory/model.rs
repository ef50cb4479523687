use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::by_age::{self, ByAge};
use super::edit::Edit;
use super::{Api, ApiId, Deployment, EventType, Gateway, OrganizationId, Token, TokenHash, TokenId};
use crate::ids::GatewayId;
use crate::records::{Records, StoreError, Table, each_row};

/// All rows but the artifacts, and the indexes that make every look-up a few steps.
#[derive(Default)]
pub(super) struct Model {
    gateways: HashMap<GatewayId, Arc<Gateway>>,
    by_age: ByAge,
    organizations: HashMap<OrganizationId, Organization>,
    by_certificate: HashMap<String, GatewayId>,
    /// Oldest first; a gateway has a handful.
    tokens: HashMap<GatewayId, Vec<Arc<Token>>>,
    by_hash: HashMap<TokenHash, Arc<Token>>,
    token_ids: HashMap<TokenId, GatewayId>,
    apis: BTreeMap<ApiId, Arc<Api>>,
    deployments: BTreeMap<(GatewayId, ApiId), Arc<Deployment>>,
    by_api: HashMap<ApiId, BTreeSet<GatewayId>>,
    /// Those of deleted APIs, the first deleted first.
    deleted: BTreeSet<(DateTime<Utc>, GatewayId, ApiId)>,
    /// Also of what a deployment replaced.
    deployment_ids: HashMap<Uuid, (GatewayId, ApiId)>,
    event_types: BTreeMap<String, Arc<EventType>>,
    meta: BTreeMap<String, Bytes>,
}

/// What is known of an organization: its gateways.
#[derive(Default)]
struct Organization {
    by_age: ByAge,
    /// The gateways' own names, not copies of them.
    names: HashSet<Arc<str>>,
}

impl Model {
    pub(super) async fn load(records: &dyn Records) -> Result<Self, StoreError> {
        let mut model = Self::default();
        let mut gateways = Vec::new();
        load_rows(records, Table::Gateways, |row: Arc<Gateway>| gateways.push(row)).await?;
        // Each is the youngest so far then, which is put at the end.
        gateways.sort_by_cached_key(|gateway| by_age::age(gateway));
        gateways.into_iter().for_each(|row| model.apply(Edit::PutGateway(row)));
        load_rows(records, Table::Tokens, |row| model.apply(Edit::PutToken(row))).await?;
        load_rows(records, Table::Apis, |row| model.apply(Edit::PutApi(row, Bytes::new()))).await?;
        load_rows(records, Table::Deployments, |row| model.apply(Edit::PutDeployment(row))).await?;
        load_rows(records, Table::EventTypes, |row| model.apply(Edit::PutEventType(row))).await?;
        each_row(records, Table::Meta, |key, value| {
            let key = String::from_utf8(key.to_vec()).map_err(|e| StoreError::Malformed(e.to_string()))?;
            model.apply(Edit::PutMeta(key, value));
            Ok(())
        })
        .await?;
        Ok(model)
    }

    pub(super) fn apply(&mut self, edit: Edit) {
        match edit {
            Edit::PutGateway(gateway) => self.put_gateway(gateway),
            Edit::DropGateway(id) => self.drop_gateway(id),
            Edit::PutToken(token) => self.put_token(token),
            Edit::DropToken(gateway, id) => self.drop_token(gateway, id),
            Edit::PutApi(api, _) => drop(self.apis.insert(api.id.clone(), api)),
            Edit::DropApi(id) => drop(self.apis.remove(&id)),
            Edit::PutDeployment(deployment) => self.put_deployment(deployment),
            Edit::DropDeployment(api, gateway) => self.drop_deployment(api, gateway),
            Edit::PutEventType(kind) => drop(self.event_types.insert(kind.name.clone(), kind)),
            Edit::DropEventType(name) => drop(self.event_types.remove(&name)),
            Edit::PutMeta(key, value) => drop(self.meta.insert(key, value)),
        }
    }

    pub(super) fn gateway(&self, id: GatewayId) -> Option<&Arc<Gateway>> {
        self.gateways.get(&id)
    }

    pub(super) fn gateway_of_certificate(&self, name: &str) -> Option<&Arc<Gateway>> {
        self.gateways.get(self.by_certificate.get(name)?)
    }

    /// Oldest first.
    pub(super) fn gateways(&self, organization: Option<OrganizationId>) -> Vec<Arc<Gateway>> {
        let listed = match organization {
            None => Some(&self.by_age),
            Some(organization) => self.organizations.get(&organization).map(|of| &of.by_age),
        };
        listed.into_iter().flat_map(|by_age| by_age.iter().cloned()).collect()
    }

    pub(super) fn gateway_count(&self) -> usize {
        self.gateways.len()
    }

    pub(super) fn has_name(&self, organization: OrganizationId, name: &str) -> bool {
        self.organizations.get(&organization).is_some_and(|of| of.names.contains(name))
    }

    /// Oldest first.
    pub(super) fn tokens(&self, gateway: GatewayId) -> &[Arc<Token>] {
        self.tokens.get(&gateway).map_or(&[], Vec::as_slice)
    }

    pub(super) fn token_by_hash(&self, hash: &TokenHash) -> Option<&Arc<Token>> {
        self.by_hash.get(hash)
    }

    pub(super) fn has_token_id(&self, id: TokenId) -> bool {
        self.token_ids.contains_key(&id)
    }

    pub(super) fn api(&self, id: &ApiId) -> Option<&Arc<Api>> {
        self.apis.get(id)
    }

    pub(super) fn apis(&self) -> Vec<Arc<Api>> {
        self.apis.values().cloned().collect()
    }

    pub(super) fn deployment(&self, api: &ApiId, gateway: GatewayId) -> Option<&Arc<Deployment>> {
        self.deployments.get(&(gateway, api.clone()))
    }

    pub(super) fn deployments(&self) -> impl Iterator<Item = &Arc<Deployment>> {
        self.deployments.values()
    }

    pub(super) fn deployments_of_gateway(&self, gateway: GatewayId) -> impl Iterator<Item = &Arc<Deployment>> {
        let first = (gateway, ApiId::lowest());
        self.deployments.range(first..).take_while(move |((of, _), _)| *of == gateway).map(|(_, row)| row)
    }

    pub(super) fn deployments_of_api(&self, api: &ApiId) -> impl Iterator<Item = &Arc<Deployment>> {
        let gateways = self.by_api.get(api).into_iter().flatten();
        gateways.filter_map(|gateway| self.deployments.get(&(*gateway, api.clone())))
    }

    pub(super) fn pending_deployments(&self) -> impl Iterator<Item = &Arc<Deployment>> {
        self.deployments.values().filter(|row| row.pending.is_some())
    }

    /// Those of deleted APIs, the first deleted first.
    pub(super) fn deleted_deployments(&self) -> impl ExactSizeIterator<Item = &(DateTime<Utc>, GatewayId, ApiId)> {
        self.deleted.iter()
    }

    pub(super) fn deployment_by_id(&self, id: Uuid) -> Option<&Arc<Deployment>> {
        self.deployment_that_knows(id).filter(|row| row.id == id)
    }

    /// The row of this id, or one that replaced it.
    pub(super) fn deployment_that_knows(&self, id: Uuid) -> Option<&Arc<Deployment>> {
        self.deployments.get(self.deployment_ids.get(&id)?)
    }

    pub(super) fn event_type(&self, name: &str) -> Option<&Arc<EventType>> {
        self.event_types.get(name)
    }

    pub(super) fn event_types(&self) -> Vec<Arc<EventType>> {
        self.event_types.values().cloned().collect()
    }

    pub(super) fn meta(&self, key: &str) -> Option<Bytes> {
        self.meta.get(key).cloned()
    }

    /// Id, organization, name and creation time never change, so the index keys of an earlier row are the same.
    fn put_gateway(&mut self, gateway: Arc<Gateway>) {
        self.by_age.put(Arc::clone(&gateway));
        let organization = self.organizations.entry(gateway.organization).or_default();
        organization.by_age.put(Arc::clone(&gateway));
        organization.names.insert(Arc::clone(&gateway.name));
        self.drop_certificates(gateway.id);
        for name in &gateway.access.certificate_names {
            self.by_certificate.insert(name.clone(), gateway.id);
        }
        self.gateways.insert(gateway.id, gateway);
    }

    fn drop_certificates(&mut self, of: GatewayId) {
        for name in self.gateways.get(&of).iter().flat_map(|gateway| &gateway.access.certificate_names) {
            self.by_certificate.remove(name);
        }
    }

    fn drop_gateway(&mut self, id: GatewayId) {
        self.drop_certificates(id);
        let Some(gateway) = self.gateways.remove(&id) else { return };
        self.by_age.remove(&gateway);
        if let Some(organization) = self.organizations.get_mut(&gateway.organization) {
            organization.by_age.remove(&gateway);
            organization.names.remove(&gateway.name);
            if organization.by_age.is_empty() {
                self.organizations.remove(&gateway.organization);
            }
        }
    }

    fn put_token(&mut self, token: Arc<Token>) {
        self.token_ids.insert(token.id, token.gateway);
        self.by_hash.insert(token.hash, Arc::clone(&token));
        let tokens = self.tokens.entry(token.gateway).or_default();
        tokens.retain(|other| other.id != token.id);
        tokens.push(token);
        tokens.sort_unstable_by_key(|token| (token.created_at, token.id));
    }

    fn drop_token(&mut self, gateway: GatewayId, id: TokenId) {
        self.token_ids.remove(&id);
        let Some(tokens) = self.tokens.get_mut(&gateway) else { return };
        let Some(at) = tokens.iter().position(|token| token.id == id) else { return };
        self.by_hash.remove(&tokens.remove(at).hash);
        if tokens.is_empty() {
            self.tokens.remove(&gateway);
        }
    }

    fn put_deployment(&mut self, deployment: Arc<Deployment>) {
        self.by_api.entry(deployment.api.clone()).or_default().insert(deployment.gateway);
        let key = (deployment.gateway, deployment.api.clone());
        if let Some(before) = self.deployments.insert(key.clone(), deployment.clone()) {
            self.drop_indexes(&before);
        }
        self.deleted.extend(deleted_key(&deployment));
        self.deployment_ids.extend(deployment.ids().map(|id| (id, key.clone())));
    }

    fn drop_deployment(&mut self, api: ApiId, gateway: GatewayId) {
        if let Some(gateways) = self.by_api.get_mut(&api) {
            gateways.remove(&gateway);
            if gateways.is_empty() {
                self.by_api.remove(&api);
            }
        }
        if let Some(gone) = self.deployments.remove(&(gateway, api)) {
            self.drop_indexes(&gone);
        }
    }

    fn drop_indexes(&mut self, of: &Deployment) {
        for id in of.ids() {
            self.deployment_ids.remove(&id);
        }
        if let Some(key) = deleted_key(of) {
            self.deleted.remove(&key);
        }
    }
}

fn deleted_key(of: &Deployment) -> Option<(DateTime<Utc>, GatewayId, ApiId)> {
    Some((of.deleted_at?, of.gateway, of.api.clone()))
}

async fn load_rows<T: DeserializeOwned>(
    records: &dyn Records,
    table: Table,
    mut put: impl FnMut(Arc<T>) + Send,
) -> Result<(), StoreError> {
    each_row(records, table, |_, row| {
        let row = serde_json::from_slice(&row).map_err(|e| StoreError::Malformed(format!("{table:?}: {e}")))?;
        put(Arc::new(row));
        Ok(())
    })
    .await
}
