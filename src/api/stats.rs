use std::cmp::Reverse;
use std::sync::Arc;

use gatecast_storage::{DeliveryFilter, Gateway, GatewayId};
use http::StatusCode;
use serde::Serialize;

use super::append::EventId;
use super::error::ApiError;
use super::gateways::is_called;
use super::page::{PageRequest, Pagination};
use super::query::Query;
use super::reply::{self, Answer, Time};
use super::{Api, Request};
use crate::registry::ConnectionInfo;

const SORTS: &str = "one of connected, lag, heard";
/// As transports call themselves.
const TRANSPORTS: [&str; 3] = ["websocket", "sse", "long-poll"];

/// The shape of the plan's stats endpoint, and more.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    gateway_connections: Connections,
    event_delivery: Delivery,
    /// Only if asked for: the logs of those that are furthest behind are looked at for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    gateways: Option<Gateways>,
    /// Messages of gateways that were no receipts, or wrong ones, since the start of the server.
    messages_ignored: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Connections {
    total_active: usize,
    connections: Vec<Connection>,
    /// Where these lie among those that match; absent where all are shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pagination: Option<Pagination>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Connection {
    gateway_id: GatewayId,
    /// `null` while the gateway is being deleted.
    gateway_name: Option<Arc<str>>,
    connection_id: String,
    connected_at: Time,
    last_heartbeat: Time,
    status: &'static str,
    instance: String,
    transport: &'static str,
    peer: String,
    position: EventId,
    /// Events that were not yet written to it.
    lag: u64,
    events_sent: u64,
}

/// How all gateways are.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Gateways {
    registered: usize,
    connected: usize,
    /// Those with events that a replica has not got yet.
    behind: usize,
    /// Failed deliveries that may recover and have not.
    pending_deliveries: u64,
    /// The ten of those behind that lack the most.
    furthest_behind: Vec<Laggard>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Laggard {
    gateway_id: GatewayId,
    /// `null` while the gateway is being deleted.
    gateway_name: Option<Arc<str>>,
    connections: usize,
    /// Events after the position of its replica that is furthest behind.
    lag: u64,
    /// Until that replica loses one of them; `null` if nothing says so.
    time_to_gap_seconds: Option<f64>,
}

/// Which connections to show, and in what order.
struct Choice {
    /// Part of a gateway's names or id, of an instance or of a peer's address.
    search: Option<String>,
    transport: Option<&'static str>,
    sort: Sort,
    /// `None`: all.
    page: Option<PageRequest>,
}

#[derive(Clone, Copy)]
enum Sort {
    /// The oldest connection first.
    Connected,
    /// The furthest behind first.
    Lag,
    /// The one longest silent first.
    Heard,
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
/// kept: what was sent on its present connections, and the failed deliveries on record. `?search=&transport=&sort=`
/// choose among connections; all of them are listed unless `?limit=` or `?offset=` asks for a page. `?gateways=true`
/// adds how all gateways are.
pub(super) async fn read(api: &Api, request: &Request<'_>) -> Answer {
    let gateway = request.query.parsed::<GatewayId>("gatewayId", "a UUID")?;
    if gateway.is_some_and(|id| api.directory.gateway(id).is_none()) {
        return Err(ApiError::no_gateway());
    }
    let choice = Choice::of(&request.query)?;
    let with_gateways = request.query.parsed::<bool>("gateways", "true or false")?.unwrap_or(false);
    let connections = api.registry.connections(gateway);
    let total_active = connections.len();
    let event_delivery = match gateway {
        None => overall(api),
        Some(gateway) => of_gateway(api, gateway, &connections),
    };
    let (connections, pagination) = choice.made(api, connections);
    let connections = connections.into_iter().map(|info| connection(api, info)).collect();
    let gateway_connections = Connections { total_active, connections, pagination };
    let gateways = if with_gateways { Some(all_gateways(api).await) } else { None };
    let messages_ignored = api.reports.ignored();
    reply::json(StatusCode::OK, &Stats { gateway_connections, event_delivery, gateways, messages_ignored })
}

async fn all_gateways(api: &Api) -> Gateways {
    let behind = api.metrics.gateways_behind().await;
    let name = |id| api.directory.gateway(id).map(|gateway| gateway.name.clone());
    let furthest_behind = behind.furthest.iter().map(|one| Laggard {
        gateway_id: one.gateway,
        gateway_name: name(one.gateway),
        connections: api.registry.connections_of(one.gateway),
        lag: one.events,
        time_to_gap_seconds: one.time_to_gap_seconds.map(|seconds| (seconds * 1_000.0).round() / 1_000.0),
    });
    Gateways {
        registered: api.directory.gateway_count(),
        connected: behind.connected,
        behind: behind.gateways,
        pending_deliveries: api.deliveries.unrecovered().into_iter().map(|(_, count)| count).sum(),
        furthest_behind: furthest_behind.collect(),
    }
}

impl Choice {
    fn of(query: &Query<'_>) -> Result<Self, ApiError> {
        let sort = query.parsed_by("sort", SORTS, |text| match text {
            "connected" => Some(Sort::Connected),
            "lag" => Some(Sort::Lag),
            "heard" => Some(Sort::Heard),
            _ => None,
        })?;
        let is_paged = query.get("limit").is_some() || query.get("offset").is_some();
        Ok(Self {
            search: query.get("search").map(|text| text.to_lowercase()),
            transport: query.parsed_by("transport", &format!("one of {}", TRANSPORTS.join(", ")), |text| {
                TRANSPORTS.into_iter().find(|name| *name == text)
            })?,
            sort: sort.unwrap_or(Sort::Connected),
            page: if is_paged { Some(PageRequest::of(query)?) } else { None },
        })
    }

    /// The connections chosen, of those that come oldest first.
    fn made(self, api: &Api, mut all: Vec<ConnectionInfo>) -> (Vec<ConnectionInfo>, Option<Pagination>) {
        if let Some(transport) = self.transport {
            all.retain(|info| info.transport == transport);
        }
        if let Some(text) = &self.search {
            all.retain(|info| is_about(api, info, text));
        }
        match self.sort {
            Sort::Connected => {}
            Sort::Lag => all.sort_by_key(|info| Reverse(info.lag)),
            Sort::Heard => all.sort_by_key(|info| info.last_heartbeat),
        }
        match self.page {
            None => (all, None),
            Some(page) => {
                let pagination = page.within(all.len());
                (all.into_iter().skip(page.offset).take(page.limit).collect(), Some(pagination))
            }
        }
    }
}

fn is_about(api: &Api, info: &ConnectionInfo, text: &str) -> bool {
    info.instance.to_lowercase().contains(text)
        || info.peer.to_string().contains(text)
        || api.directory.gateway(info.gateway).is_some_and(|gateway| is_called(&gateway, text))
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

fn connection(api: &Api, info: ConnectionInfo) -> Connection {
    let name = |gateway: Arc<Gateway>| gateway.name.clone();
    Connection {
        gateway_name: api.directory.gateway(info.gateway).map(name),
        gateway_id: info.gateway,
        connection_id: info.connection.to_string(),
        connected_at: Time(info.connected_at),
        last_heartbeat: Time(info.last_heartbeat),
        status: "connected",
        instance: info.instance,
        transport: info.transport,
        peer: info.peer.to_string(),
        position: EventId(info.position),
        lag: info.lag,
        events_sent: info.events_sent,
    }
}
