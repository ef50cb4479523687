use gatecast_storage::{DeliveryFilter, GatewayId};
use http::StatusCode;
use serde::Serialize;

use super::append::EventId;
use super::error::ApiError;
use super::reply::{self, Answer, Time};
use super::{Api, Request};
use crate::registry::ConnectionInfo;

/// The shape of the plan's stats endpoint, and more.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    gateway_connections: Connections,
    event_delivery: Delivery,
    /// Messages of gateways that were no receipts, or wrong ones, since the start of the server.
    messages_ignored: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Connections {
    total_active: usize,
    connections: Vec<Connection>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Connection {
    gateway_id: GatewayId,
    connection_id: String,
    connected_at: Time,
    last_heartbeat: Time,
    status: &'static str,
    instance: String,
    transport: &'static str,
    peer: String,
    position: EventId,
    events_sent: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Delivery {
    total_events_sent: u64,
    failed_deliveries: u64,
    last_failure_time: Option<Time>,
    last_failure_reason: Option<&'static str>,
}

/// Without `?gatewayId=` counts are since the start of the server. With it they are of that gateway, as far as is
/// kept: what was sent on its present connections, and the failed deliveries on record.
pub(super) fn read(api: &Api, request: &Request<'_>) -> Answer {
    let gateway = request.query.parsed::<GatewayId>("gatewayId", "a UUID")?;
    if gateway.is_some_and(|id| api.directory.gateway(id).is_none()) {
        return Err(ApiError::no_gateway());
    }
    let connections = api.registry.connections(gateway);
    let event_delivery = match gateway {
        None => overall(api),
        Some(gateway) => of_gateway(api, gateway, &connections),
    };
    let connections: Vec<_> = connections.into_iter().map(connection).collect();
    let gateway_connections = Connections { total_active: connections.len(), connections };
    reply::json(StatusCode::OK, &Stats { gateway_connections, event_delivery, messages_ignored: api.reports.ignored() })
}

fn overall(api: &Api) -> Delivery {
    let failed = api.deliveries.totals();
    Delivery {
        total_events_sent: api.registry.events_sent_total(),
        failed_deliveries: failed.count,
        last_failure_time: failed.last_time.map(Time),
        last_failure_reason: failed.last_reason.map(|reason| reason.as_str()),
    }
}

fn of_gateway(api: &Api, gateway: GatewayId, connections: &[ConnectionInfo]) -> Delivery {
    let filter = DeliveryFilter { gateway: Some(gateway), ..DeliveryFilter::default() };
    let (failed, newest) = api.deliveries.query(&filter, 0, 1);
    let newest = newest.first();
    Delivery {
        total_events_sent: connections.iter().map(|connection| connection.events_sent).sum(),
        failed_deliveries: failed as u64,
        last_failure_time: newest.map(|failure| Time(failure.at)),
        last_failure_reason: newest.map(|failure| failure.reason.as_str()),
    }
}

fn connection(info: ConnectionInfo) -> Connection {
    Connection {
        gateway_id: info.gateway,
        connection_id: info.connection.to_string(),
        connected_at: Time(info.connected_at),
        last_heartbeat: Time(info.last_heartbeat),
        status: "connected",
        instance: info.instance,
        transport: info.transport,
        peer: info.peer.to_string(),
        position: EventId(info.position),
        events_sent: info.events_sent,
    }
}
