use std::collections::BTreeSet;

use gatecast_storage::{ApiId, GatewayId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::Api;
use super::super::apis::REVISION_CHARS;
use super::super::error::{ApiError, FieldError, Missing};
use super::super::fields::Fields;
use super::super::gateways::VHOST_CHARS;

/// Elements of one call.
const ELEMENTS_MAX: usize = 1_000;
/// Characters of an environment's name.
const ENVIRONMENT_CHARS: std::ops::RangeInclusive<usize> = 1..=128;
/// Where APIs are served unless an element says otherwise.
const ENVIRONMENT_DEFAULT: &str = "production";

/// One gateway that is told to serve a revision, or to stop.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Element {
    pub(super) gateway: GatewayId,
    pub(super) revision: String,
    pub(super) vhost: String,
    pub(super) environment: String,
    pub(super) display_on_devportal: Option<bool>,
}

/// What elements leave out.
pub(super) struct Defaults<'a> {
    /// The API.
    pub(super) id: &'a ApiId,
    /// The revision that the call names.
    pub(super) revision: Option<&'a str>,
    /// Whether to take what is deployed now before anything else: for undeploying.
    pub(super) as_deployed: bool,
}

/// The elements of a body; all that is wrong is reported at once.
pub(super) fn of(api: &Api, body: &Value, defaults: &Defaults<'_>) -> Result<Vec<Element>, ApiError> {
    let list = body.as_array().filter(|list| (1..=ELEMENTS_MAX).contains(&list.len()));
    let list = list.ok_or_else(|| ApiError::field("", format!("must be a list of 1 to {ELEMENTS_MAX} elements")))?;
    let mut faults: Vec<FieldError> = Vec::new();
    let mut missing = None;
    let mut seen = BTreeSet::new();
    let mut elements = Vec::with_capacity(list.len());
    for (index, value) in list.iter().enumerate() {
        let mut fields = match Fields::of(value, format!("/{index}")) {
            Ok(fields) => fields,
            Err(ApiError::InvalidBody(errors)) => {
                faults.extend(errors);
                continue;
            }
            Err(other) => return Err(other),
        };
        let gateway = fields.parsed::<GatewayId>("gatewayId", "a UUID");
        fields.require("gatewayId");
        if let Some(gateway) = gateway {
            if !seen.insert(gateway) {
                fields.fault("gatewayId", "is that of an earlier element");
            }
            if missing.is_none() && api.directory.gateway(gateway).is_none() {
                missing = Some(format!("/{index}/gatewayId"));
            }
        }
        elements.extend(gateway.and_then(|gateway| element(api, gateway, &mut fields, defaults)));
        faults.extend(fields.into_faults());
    }
    match missing {
        _ if !faults.is_empty() => Err(ApiError::InvalidBody(faults)),
        Some(pointer) => Err(ApiError::NotFound(Missing::Gateway(Some(pointer)))),
        None => Ok(elements),
    }
}

fn element(api: &Api, gateway: GatewayId, fields: &mut Fields<'_>, defaults: &Defaults<'_>) -> Option<Element> {
    let gateway = api.directory.gateway(gateway)?;
    let deployed = api.directory.deployment(defaults.id, gateway.id).filter(|_| defaults.as_deployed);
    let deployed = deployed.as_deref();
    // One that is there and wrong is reported already.
    let revision = fields.text("revisionId", REVISION_CHARS).or_else(|| defaults.revision.map(str::to_owned));
    let revision = revision.or_else(|| deployed.map(|row| row.revision.clone()));
    if revision.is_none() && fields.get("revisionId").is_none() {
        fields.fault("revisionId", "is required, here or as the parameter revisionId");
    }
    let vhost = fields.text("vhost", VHOST_CHARS).or_else(|| deployed.map(|row| row.vhost.clone()));
    let vhost = vhost.or_else(|| gateway.vhost.as_deref().map(str::to_owned));
    if vhost.is_none() && fields.get("vhost").is_none() {
        fields.fault("vhost", "is required: the gateway has none of its own");
    }
    let environment = fields.text("environment", ENVIRONMENT_CHARS);
    let environment = environment.or_else(|| deployed.map(|row| row.environment.clone()));
    let display_on_devportal = fields.bool("displayOnDevportal");
    Some(Element {
        gateway: gateway.id,
        revision: revision?,
        vhost: vhost?,
        environment: environment.unwrap_or_else(|| ENVIRONMENT_DEFAULT.to_owned()),
        display_on_devportal,
    })
}
