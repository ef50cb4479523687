use std::ops::RangeInclusive;
use std::sync::Arc;

use gatecast_storage::{Access, CatchUp, Gateway, GatewayId, GatewayUpdate, OrganizationId};
use http::StatusCode;
use ipnet::IpNet;
use serde::Serialize;
use tracing::info;
use uuid::Uuid;

use super::error::ApiError;
use super::fields::Fields;
use super::page::PageRequest;
use super::reply::{self, Answer, Time};
use super::{Api, Platform, Request, to_the_end};
use crate::gate::in_time;
use crate::network::network;

/// Bytes of a name.
const NAME_BYTES: RangeInclusive<usize> = 3..=64;
/// Characters of a display name.
const DISPLAY_NAME_CHARS: RangeInclusive<usize> = 1..=128;
/// Characters of a description.
const DESCRIPTION_CHARS: RangeInclusive<usize> = 0..=1024;
/// Characters of a host name (RFC 1035 § 2.3.4).
pub(super) const VHOST_CHARS: RangeInclusive<usize> = 1..=253;

/// Networks of one gateway.
const ADDRESSES_MAX: usize = 64;
/// Names of certificates of one gateway.
const CERTIFICATE_NAMES_MAX: usize = 64;
/// Bytes of a certificate's name.
const NAME_OF_CERTIFICATE_BYTES: RangeInclusive<usize> = 1..=253;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    id: GatewayId,
    name: &'a str,
    display_name: &'a str,
    organization_id: OrganizationId,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vhost: Option<&'a str>,
    catch_up: CatchUp,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    allowed_addresses: &'a [IpNet],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    certificate_names: &'a [String],
    created_at: Time,
    updated_at: Time,
    connected: bool,
    connections: usize,
}

pub(super) async fn create(api: &Arc<Platform>, request: &Request<'_>) -> Answer {
    let body = request.json()?;
    let mut fields = Fields::of(&body, "")?;
    let organization = fields.parsed::<OrganizationId>("organizationId", "a UUID");
    fields.require("organizationId");
    let name = fields.text("name", NAME_BYTES);
    fields.require("name");
    if name.as_deref().is_some_and(|name| !is_name(name)) {
        fields.fault("name", "must be of a-z, 0-9 and '-', and neither begin nor end with '-'");
    }
    let update = changeable(&mut fields);
    let (organization, name, update) =
        fields.finish(organization.zip(name).zip(update).map(|((o, n), u)| (o, n, u)))?;
    let now = api.clock.now();
    let GatewayUpdate { display_name, description, vhost, catch_up, access } = update;
    let gateway = Gateway {
        id: GatewayId(Uuid::new_v4()),
        organization,
        name: name.into(),
        display_name,
        description,
        vhost,
        catch_up,
        access,
        created_at: now,
        updated_at: now,
    };
    let gateway = api.directory.create_gateway(gateway).await?;
    info!(gateway.id = %gateway.id, gateway.name = &*gateway.name, "Gateway registered.");
    reply::created(&format!("/api/v1/gateways/{}", gateway.id), &view(&gateway, 0))
}

pub(super) fn list(api: &Api, request: &Request<'_>) -> Answer {
    let page = PageRequest::of(&request.query)?;
    let organization = request.query.parsed::<OrganizationId>("organizationId", "a UUID")?;
    let connected = request.query.parsed::<bool>("connected", "true or false")?;
    let mut gateways = api.directory.gateways(organization);
    if let Some(wanted) = connected {
        gateways.retain(|gateway| (api.registry.connections_of(gateway.id) > 0) == wanted);
    }
    if let Some(wanted) = request.query.get("search") {
        let wanted = wanted.to_lowercase();
        gateways.retain(|gateway| is_called(gateway, &wanted));
        // Who knows the whole name finds it on the first page, however many others contain it.
        gateways.sort_by_key(|gateway| *gateway.name != *wanted);
    }
    let total = gateways.len();
    let on_page: Vec<_> = gateways.iter().skip(page.offset).take(page.limit).collect();
    let list = on_page.iter().map(|gateway| view(gateway, api.registry.connections_of(gateway.id))).collect();
    reply::json(StatusCode::OK, &page.page(total, list))
}

/// Whether a gateway's id or one of its names contains a text in lower case.
pub(super) fn is_called(gateway: &Gateway, text: &str) -> bool {
    gateway.name.contains(text)
        || gateway.display_name.to_lowercase().contains(text)
        || gateway.id.to_string().contains(text)
}

pub(super) fn read(api: &Api, request: &Request<'_>) -> Answer {
    let gateway = request.gateway(api)?;
    reply::json(StatusCode::OK, &view(&gateway, api.registry.connections_of(gateway.id)))
}

pub(super) async fn update(api: &Arc<Platform>, request: &Request<'_>) -> Answer {
    let before = request.gateway(api)?;
    let body = request.json()?;
    let mut fields = Fields::of(&body, "")?;
    fields.unchanged("id", &before.id);
    fields.unchanged("name", &before.name.to_string());
    fields.unchanged("organizationId", &before.organization);
    let update = changeable(&mut fields);
    let update = fields.finish(update)?;
    let (updated, id) = (Arc::clone(api), before.id);
    let gateway = to_the_end(async move {
        let api = updated;
        let gateway = match change(&api, id, update).await {
            // It may have made the log anew.
            Err(_) if api.forget_if_gone(id).await => return Err(ApiError::no_gateway()),
            changed => changed?,
        };
        // As it is now: a later update may have been quicker.
        if let Some(gateway) = api.directory.gateway(id) {
            api.registry.close_barred(&gateway);
        }
        info!(gateway.id = %id, "Gateway updated.");
        Ok(gateway)
    })
    .await?;
    reply::json(StatusCode::OK, &view(&gateway, api.registry.connections_of(gateway.id)))
}

/// First the directory, so that nobody is admitted any more; then who is connected; then what is kept. A log that cannot
/// be dropped now is no reason to call again, for a gateway that is no more: [`gatecast_storage::gone`] has it.
pub(super) async fn delete(api: &Arc<Platform>, request: &Request<'_>) -> Answer {
    let id = request.gateway(api)?.id;
    let api = Arc::clone(api);
    to_the_end(async move {
        if !api.directory.delete_gateway(id).await? {
            return Err(ApiError::no_gateway());
        }
        api.registry.close_gateway(id);
        info!(gateway.id = %id, "Gateway deleted.");
        api.forget_if_gone(id).await;
        Ok(())
    })
    .await?;
    reply::no_content()
}

/// From when on a gateway asks to be caught up, replicas that were never seen are owed everything. Set first and unset
/// last: a crash in between, or a refusal, leaves them owed more, never less. A gateway that is registered so is owed its
/// log from the beginning.
async fn change(api: &Platform, id: GatewayId, update: GatewayUpdate) -> Result<Arc<Gateway>, ApiError> {
    let _turn = api.gateways_turn.lock().await;
    let before = api.directory.gateway(id).ok_or_else(ApiError::no_gateway)?.catch_up;
    if (before, update.catch_up) == (CatchUp::Live, CatchUp::Stored) {
        api.receipts.set_anchor(id, in_time(api.log.bounds(id)).await?.head());
    }
    let gateway = api.directory.update_gateway(id, update, api.clock.now()).await?;
    if (before, gateway.catch_up) == (CatchUp::Stored, CatchUp::Live) {
        api.receipts.clear_anchor(id);
    }
    Ok(gateway)
}

/// The members that may change; what is absent is set to its default.
fn changeable(fields: &mut Fields<'_>) -> Option<GatewayUpdate> {
    let display_name = fields.text("displayName", DISPLAY_NAME_CHARS);
    fields.require("displayName");
    if display_name.as_deref().is_some_and(|name| name.trim().is_empty()) {
        fields.fault("displayName", "must not be blank");
    }
    let description = fields.text("description", DESCRIPTION_CHARS);
    let vhost = fields.text("vhost", VHOST_CHARS);
    let catch_up = match fields.get("catchUp").map(|value| value.as_str()) {
        None | Some(Some("live")) => CatchUp::Live,
        Some(Some("stored")) => CatchUp::Stored,
        Some(_) => {
            fields.fault("catchUp", "must be live or stored");
            return None;
        }
    };
    let access = access(fields);
    let (description, vhost) = (description.map(Into::into), vhost.map(Into::into));
    Some(GatewayUpdate { display_name: display_name?.into(), description, vhost, catch_up, access: access? })
}

fn access(fields: &mut Fields<'_>) -> Option<Access> {
    let addresses = fields.texts("allowedAddresses", ADDRESSES_MAX, "networks such as 10.0.0.0/8", network);
    let expected = "DNS names such as edge-1.example, or URIs, without *, of 1 to 253 visible ASCII characters";
    let certificate_names = fields.texts("certificateNames", CERTIFICATE_NAMES_MAX, expected, certificate_name);
    Some(Access { addresses: addresses?, certificate_names: certificate_names? })
}

/// A name as certificates have it: of a host, whose case does not matter, or a URI.
fn certificate_name(text: &str) -> Option<String> {
    let good =
        NAME_OF_CERTIFICATE_BYTES.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b'*');
    good.then(|| if text.contains(':') { text.to_owned() } else { text.to_ascii_lowercase() })
}

/// `^[a-z0-9]([a-z0-9-]{1,62}[a-z0-9])$`, its length aside.
fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = text.bytes().next().is_some_and(plain) && text.bytes().next_back().is_some_and(plain);
    ends && text.bytes().all(|b| plain(b) || b == b'-')
}

fn view(gateway: &Gateway, connections: usize) -> View<'_> {
    View {
        id: gateway.id,
        name: &gateway.name,
        display_name: &gateway.display_name,
        organization_id: gateway.organization,
        description: gateway.description.as_deref(),
        vhost: gateway.vhost.as_deref(),
        catch_up: gateway.catch_up,
        allowed_addresses: &gateway.access.addresses,
        certificate_names: &gateway.access.certificate_names,
        created_at: Time(gateway.created_at),
        updated_at: Time(gateway.updated_at),
        connected: connections > 0,
        connections,
    }
}
