use gatecast_storage::{DeliveryFilter, FailedDelivery, FailureReason, GatewayId};
use http::StatusCode;
use serde::Serialize;

use super::append::EventId;
use super::fields::{TIME_EXPECTED, time};
use super::page::PageRequest;
use super::reply::{self, Answer, Time};
use super::{Api, Request};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View {
    gateway_id: GatewayId,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway_name: Option<String>,
    event_id: EventId,
    #[serde(rename = "type")]
    event_type: String,
    correlation_id: String,
    reason: &'static str,
    failed_at: Time,
    recovered: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered_at: Option<Time>,
}

/// Failed deliveries, newest first: `since` ≤ time < `until`.
pub(super) fn list(api: &Api, request: &Request<'_>) -> Answer {
    let page = PageRequest::of(&request.query)?;
    let reasons = FailureReason::ALL.map(FailureReason::as_str).join(", ");
    let filter = DeliveryFilter {
        gateway: request.query.parsed("gatewayId", "a UUID")?,
        since: request.query.parsed_by("since", TIME_EXPECTED, time)?,
        until: request.query.parsed_by("until", TIME_EXPECTED, time)?,
        reason: request.query.parsed("reason", &format!("one of {reasons}"))?,
    };
    let (total, rows) = api.deliveries.query(&filter, page.offset, page.limit);
    reply::json(StatusCode::OK, &page.page(total, rows.into_iter().map(|row| view(api, row)).collect()))
}

fn view(api: &Api, row: FailedDelivery) -> View {
    View {
        gateway_name: api.directory.gateway(row.gateway).map(|gateway| gateway.name.clone()),
        gateway_id: row.gateway,
        event_id: EventId(row.event),
        event_type: row.event_type,
        correlation_id: row.correlation_id,
        reason: row.reason.as_str(),
        failed_at: Time(row.at),
        recovered: row.recovered_at.is_some(),
        recovered_at: row.recovered_at.map(Time),
    }
}
