use std::sync::Arc;

use gatecast_storage::{Bounds, Cursor, GatewayId};
use http::StatusCode;
use serde::Serialize;

use super::append::EventId;
use super::reply::{self, Answer, Time};
use super::{Platform, Request};
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
    connections: Vec<Connection>,
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
    let stream = Stream {
        gateway_id: gateway,
        epoch: bounds.epoch.to_string(),
        oldest: (bounds.events() > 0).then_some(EventId(Cursor { epoch: bounds.epoch, seq: bounds.oldest })),
        newest: EventId(bounds.head()),
        events: bounds.events(),
        bytes: bounds.bytes,
        connections: connections.map(|info| connection(info, &bounds)).collect(),
    };
    reply::json(StatusCode::OK, &stream)
}

fn connection(info: ConnectionInfo, log: &Bounds) -> Connection {
    // A position read after the bounds may lie beyond them.
    let lag = (info.position.epoch == log.epoch).then(|| log.newest.0.saturating_sub(info.position.seq.0));
    Connection {
        connection_id: info.connection.to_string(),
        instance: info.instance,
        transport: info.transport,
        position: EventId(info.position),
        lag,
        connected_at: Time(info.connected_at),
        last_heartbeat: Time(info.last_heartbeat),
    }
}
