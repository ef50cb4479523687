//! The gateways that are furthest behind: at most [`SHOWN_MAX`], so a page of metrics stays as small with 100,000
//! gateways as with ten.
//!
//! Candidates come from memory alone: connected gateways by what is not yet written to one of their connections, the
//! others by their failed deliveries that are not recovered. Only those that are shown have their logs looked at.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use futures::future::join_all;
use gatecast_storage::{Clock, Cursor, Deliveries, Directory, EventLog, GatewayId, LogError, Receipts, Retention};
use tokio::time::timeout;

use crate::gap::Outlook;
use crate::registry::{Lowest, Registry};

/// Gateways shown.
pub(crate) const SHOWN_MAX: usize = 10;
/// A log that is slower than this is left out of the page.
const LOOK_TIMEOUT: Duration = Duration::from_millis(200);

/// A gateway that has not got everything.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Laggard {
    pub(crate) gateway: GatewayId,
    /// Events after the position of the replica that is furthest behind.
    pub(crate) events: u64,
    /// Until that replica loses one of them.
    pub(crate) time_to_gap_seconds: Option<f64>,
}

/// All who are behind.
#[derive(Debug, Default)]
pub(crate) struct Behind {
    pub(crate) gateways: usize,
    /// Gateways that are connected, behind or not.
    pub(crate) connected: usize,
    /// The furthest first.
    pub(crate) furthest: Vec<Laggard>,
}

/// Where the positions, heads and times are to be had.
pub(crate) struct Sources<'s> {
    pub(crate) directory: &'s Directory,
    pub(crate) registry: &'s Registry,
    pub(crate) deliveries: &'s Deliveries,
    pub(crate) receipts: &'s Receipts,
    pub(crate) log: &'s dyn EventLog,
    pub(crate) retention: Retention,
    pub(crate) clock: &'s dyn Clock,
}

/// A gateway by what is known without its log.
#[derive(Clone, Copy)]
struct Candidate {
    gateway: GatewayId,
    events: u64,
    /// `None`: it is not connected.
    position: Option<Cursor>,
}

impl Sources<'_> {
    pub(crate) async fn behind(&self) -> Behind {
        let positions = self.registry.positions();
        let connected = positions.len();
        let mut candidates = self.candidates(positions);
        let gateways = candidates.len();
        if candidates.len() > SHOWN_MAX {
            candidates.select_nth_unstable_by_key(SHOWN_MAX, |candidate| Reverse(candidate.events));
            candidates.truncate(SHOWN_MAX);
        }
        let looks = candidates.into_iter().map(|candidate| timeout(LOOK_TIMEOUT, self.look(candidate)));
        let mut furthest: Vec<_> = join_all(looks).await.into_iter().flatten().flatten().flatten().collect();
        furthest.sort_by_key(|laggard| (Reverse(laggard.events), laggard.gateway));
        Behind { gateways, connected, furthest }
    }

    fn candidates(&self, connected: HashMap<GatewayId, Lowest>) -> Vec<Candidate> {
        let mut away = self.deliveries.unrecovered();
        away.retain(|(gateway, _)| !connected.contains_key(gateway));
        let away = away.into_iter().map(|(gateway, events)| Candidate { gateway, events, position: None });
        let connected = connected
            .into_iter()
            .filter(|(_, lowest)| lowest.events > 0)
            .map(|(gateway, lowest)| Candidate { gateway, events: lowest.events, position: Some(lowest.position) });
        away.chain(connected).collect()
    }

    /// `None` for one that was just deleted, of which a look would make a log.
    async fn look(&self, candidate: Candidate) -> Result<Option<Laggard>, LogError> {
        let Candidate { gateway, mut events, mut position } = candidate;
        if self.directory.gateway(gateway).is_none() {
            return Ok(None);
        }
        let bounds = self.log.bounds(gateway).await?;
        if position.is_none() {
            let known = self.receipts.replicas(gateway, bounds.epoch).into_iter().filter_map(|info| info.position);
            position = known.filter(|known| known.epoch == bounds.epoch).min_by_key(|known| known.seq);
        }
        let mut time_to_gap_seconds = None;
        if let Some(position) = position.filter(|position| position.epoch == bounds.epoch) {
            events = bounds.newest.0.saturating_sub(position.seq.0);
            let outlook = Outlook::of(self.log, gateway, bounds, self.retention, self.clock.now()).await?;
            time_to_gap_seconds = outlook.time_to_gap(self.log, position).await?;
        }
        Ok(Some(Laggard { gateway, events, time_to_gap_seconds }))
    }
}
