use std::net::IpAddr;
use std::sync::Arc;

use gatecast_storage::{Bounds, Cursor, GatewayId, ReplicaInfo};
use http::StatusCode;
use serde::Serialize;

use super::append::EventId;
use super::error::ApiError;
use super::reply::{self, Answer, Time};
use super::{Platform, Request};
use crate::gap::Outlook;
use crate::registry::ConnectionInfo;

/// A gateway's log, and how far its replicas are in it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stream {
    gateway_id: GatewayId,
    epoch: String,
    /// The first event held; `null` when none is.
    oldest: Option<EventId>,
    /// The newest position, whether or not its event is still held.
    newest: EventId,
    events: u64,
    bytes: u64,
    instances: Vec<Instance>,
    connections: Vec<Connection>,
}

/// A replica, connected or not.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Instance {
    instance: String,
    /// What tells replicas apart that give no name.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    connections: usize,
    /// Up to here it is known to have received everything, by pongs, cursors of polls and receipts: over SSE by
    /// receipts alone.
    position: Option<EventId>,
    /// Events after that; `null` while it is in another life of the log.
    lag: Option<u64>,
    last_receipt_at: Option<Time>,
    /// How long until an event after its position is let go, if it stays there; `null` if nothing says so.
    time_to_gap_seconds: Option<f64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Connection {
    connection_id: String,
    instance: String,
    transport: &'static str,
    position: EventId,
    /// Events that were not yet written to it; `null` while it is in another life of the log.
    lag: Option<u64>,
    connected_at: Time,
    last_heartbeat: Time,
}

pub(super) async fn read(api: &Arc<Platform>, request: &Request<'_>) -> Answer {
    let gateway = request.gateway(api)?.id;
    let bounds = api.log.bounds(gateway).await?;
    let connections = api.registry.connections(Some(gateway)).into_iter();
    let outlook = Outlook::of(api.log.as_ref(), gateway, bounds, api.retention, api.clock.now()).await?;
    let mut instances = Vec::new();
    for info in api.receipts.replicas(gateway, bounds.epoch) {
        instances.push(instance(api, info, &bounds, &outlook).await?);
    }
    let stream = Stream {
        gateway_id: gateway,
        epoch: bounds.epoch.to_string(),
        oldest: (bounds.events() > 0).then_some(EventId(Cursor { epoch: bounds.epoch, seq: bounds.oldest })),
        newest: EventId(bounds.head()),
        events: bounds.events(),
        bytes: bounds.bytes,
        instances,
        connections: connections.map(|info| connection(info, &bounds)).collect(),
    };
    reply::json(StatusCode::OK, &stream)
}

async fn instance(api: &Platform, info: ReplicaInfo, log: &Bounds, outlook: &Outlook) -> Result<Instance, ApiError> {
    let time_to_gap_seconds = match info.position {
        Some(position) => outlook.time_to_gap(api.log.as_ref(), position).await?,
        None => None,
    };
    Ok(Instance {
        instance: info.replica.instance().to_owned(),
        address: info.replica.address(),
        connections: info.connections,
        position: info.position.map(EventId),
        lag: info.position.and_then(|position| lag(position, log)),
        last_receipt_at: info.last_receipt.map(Time),
        time_to_gap_seconds: time_to_gap_seconds.map(|seconds| (seconds * 1_000.0).round() / 1_000.0),
    })
}

/// A position read after the bounds may lie beyond them.
fn lag(position: Cursor, log: &Bounds) -> Option<u64> {
    (position.epoch == log.epoch).then(|| log.newest.0.saturating_sub(position.seq.0))
}

fn connection(info: ConnectionInfo, log: &Bounds) -> Connection {
    Connection {
        connection_id: info.connection.to_string(),
        instance: info.instance,
        transport: info.transport,
        position: EventId(info.position),
        lag: lag(info.position, log),
        connected_at: Time(info.connected_at),
        last_heartbeat: Time(info.last_heartbeat),
    }
}
