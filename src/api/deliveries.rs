use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gatecast_storage::{Budget, Cursor, DeliveryFilter, FailedDelivery, FailureReason, GatewayId, LogError, Page};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::append::EventId;
use super::fields::{TIME_EXPECTED, time};
use super::page::PageRequest;
use super::reply::{self, Answer, Time};
use super::{Api, Platform, Request};
use crate::envelope;

/// How long the log may take to say what the events of a page are; what it has not said by then is `null`.
const EVENTS_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View {
    gateway_id: GatewayId,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway_name: Option<Arc<str>>,
    /// The replica that the events did not reach; `null` if none was connected.
    instance: Option<String>,
    /// What tells replicas apart that give no name.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    event_id: EventId,
    /// How many events from that one on.
    events: u64,
    /// Of the first event; `null` if it is no longer held.
    #[serde(rename = "type")]
    event_type: Option<Arc<str>>,
    correlation_id: Option<Arc<str>>,
    reason: &'static str,
    failed_at: Time,
    recovered: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered_at: Option<Time>,
}

/// What of an event is shown.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct About {
    #[serde(rename = "type")]
    kind: Arc<str>,
    correlation_id: Arc<str>,
}

/// Failed deliveries, newest first: `since` ≤ time < `until`.
pub(super) async fn list(api: &Arc<Platform>, request: &Request<'_>) -> Answer {
    let page = PageRequest::of(&request.query)?;
    let reasons = FailureReason::ALL.map(FailureReason::as_str).join(", ");
    let filter = DeliveryFilter {
        gateway: request.query.parsed("gatewayId", "a UUID")?,
        since: request.query.parsed_by("since", TIME_EXPECTED, time)?,
        until: request.query.parsed_by("until", TIME_EXPECTED, time)?,
        reason: request.query.parsed("reason", &format!("one of {reasons}"))?,
    };
    let (total, mut rows) = api.deliveries.query(&filter, page.offset, page.limit);
    name_events(api, &mut rows).await;
    reply::json(StatusCode::OK, &page.page(total, rows.into_iter().map(|row| view(api, row)).collect()))
}

/// A failure at the end of a connection is recorded without a look at its events: who asks, looks. A log that fails
/// costs the names only.
async fn name_events(api: &Api, rows: &mut [FailedDelivery]) {
    let deadline = Instant::now() + EVENTS_TIMEOUT;
    let unnamed = |row: &&mut FailedDelivery| row.event_type.is_none() && api.directory.gateway(row.gateway).is_some();
    for row in rows.iter_mut().filter(unnamed) {
        match timeout_at(deadline, about(api, row.gateway, row.event)).await {
            Ok(Ok(about)) => (row.event_type, row.correlation_id) = about.map(|a| (a.kind, a.correlation_id)).unzip(),
            Ok(Err(error)) => return warn!(%error, "The events of failed deliveries could not be read."),
            Err(_) => return warn!("The events of failed deliveries could not be read in time."),
        }
    }
}

async fn about(api: &Api, gateway: GatewayId, event: Cursor) -> Result<Option<About>, LogError> {
    let before = Cursor { seq: event.seq.prev(), ..event };
    let Page::Entries(entries) = api.log.read(gateway, before, Budget { events: 1, bytes: 1 }).await? else {
        return Ok(None);
    };
    let frame = entries.first().and_then(|entry| envelope::seal(event.epoch, entry));
    Ok(frame.and_then(|frame| serde_json::from_str(frame.text()).ok()))
}

fn view(api: &Api, row: FailedDelivery) -> View {
    View {
        gateway_name: api.directory.gateway(row.gateway).map(|gateway| gateway.name.clone()),
        gateway_id: row.gateway,
        instance: row.replica.as_ref().map(|replica| replica.instance().to_owned()),
        address: row.replica.as_ref().and_then(gatecast_storage::Replica::address),
        event_id: EventId(row.event),
        events: row.events,
        event_type: row.event_type,
        correlation_id: row.correlation_id,
        reason: row.reason.as_str(),
        failed_at: Time(row.at),
        recovered: row.recovered_at.is_some(),
        recovered_at: row.recovered_at.map(Time),
    }
}
