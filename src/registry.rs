//! A stand-in with the real registry's signatures, until that is merged.
#![allow(missing_docs, unreachable_pub)]

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use gatecast_storage::{Cursor, GatewayId, TokenId};
use uuid::Uuid;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(Uuid);

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    pub total: usize,
    pub per_gateway: usize,
}

#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    pub gateway: GatewayId,
    pub connection: ConnectionId,
    pub instance: String,
    pub transport: &'static str,
    pub peer: IpAddr,
    pub connected_at: DateTime<Utc>,
    pub last_heartbeat: DateTime<Utc>,
    pub position: Cursor,
    pub events_sent: u64,
}

pub struct Registry;

impl Registry {
    pub fn new(_: Capacity) -> Arc<Self> {
        Arc::new(Self)
    }
    pub fn connections_of(&self, _: GatewayId) -> usize {
        0
    }
    pub fn connections(&self, _: Option<GatewayId>) -> Vec<ConnectionInfo> {
        Vec::new()
    }
    pub fn events_sent_total(&self) -> u64 {
        0
    }
    pub fn close_token(&self, _: TokenId) {}
    pub fn close_gateway(&self, _: GatewayId) {}
}
