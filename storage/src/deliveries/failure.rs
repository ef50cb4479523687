use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::ids::{Cursor, GatewayId, Seq};
use crate::receipts::Replica;

/// Why events were not handed over. The texts are public and stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureReason {
    /// No replica of the gateway was connected when the event was published.
    NotConnected,
    /// The peer stopped reading.
    WriteStalled,
    /// The peer showed no life.
    NoSignOfLife,
    /// The connection broke, or its peer ended it.
    ConnectionLost,
    /// The token was revoked or expired.
    Revoked,
    /// The ring let go of the events before they were sent, and nothing has taken their place.
    Overwritten,
    /// The gateway received the event and reported that it could not apply it.
    FailedByGateway,
}

/// What makes a failure good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cure {
    /// The events reach the replica after all.
    Delivery,
    /// The replica reports success.
    Success,
    /// Nothing does: the events are gone.
    None,
}

impl FailureReason {
    /// All reasons.
    pub const ALL: [Self; 7] = [
        Self::NotConnected,
        Self::WriteStalled,
        Self::NoSignOfLife,
        Self::ConnectionLost,
        Self::Revoked,
        Self::Overwritten,
        Self::FailedByGateway,
    ];

    pub(super) fn cure(self) -> Cure {
        match self {
            Self::NotConnected | Self::WriteStalled | Self::NoSignOfLife | Self::ConnectionLost | Self::Revoked => {
                Cure::Delivery
            }
            Self::FailedByGateway => Cure::Success,
            Self::Overwritten => Cure::None,
        }
    }

    /// The public text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotConnected => "not-connected",
            Self::WriteStalled => "write-stalled",
            Self::NoSignOfLife => "no-sign-of-life",
            Self::ConnectionLost => "connection-lost",
            Self::Revoked => "revoked",
            Self::Overwritten => "overwritten",
            Self::FailedByGateway => "failed-by-gateway",
        }
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no [`FailureReason`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a reason for a failed delivery")]
pub struct UnknownReason;

impl FromStr for FailureReason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text).ok_or(UnknownReason)
    }
}

/// A failed delivery to be recorded: of one event, or of several that follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Whose events they were.
    pub gateway: GatewayId,
    /// The replica that they did not reach; `None` if none was there.
    pub replica: Option<Replica>,
    /// The first event.
    pub event: Cursor,
    /// How many from there on; at least 1.
    pub events: u64,
    /// The first event's type, if it is at hand.
    pub event_type: Option<String>,
    /// The first event's correlation id, if it is at hand.
    pub correlation_id: Option<String>,
    /// What went wrong.
    pub reason: FailureReason,
    /// When.
    pub at: DateTime<Utc>,
}

/// A failed delivery as kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedDelivery {
    /// Grows with every failure recorded.
    pub number: u64,
    /// As in [`Failure::gateway`].
    pub gateway: GatewayId,
    /// As in [`Failure::replica`].
    #[serde(default)]
    pub replica: Option<Replica>,
    /// As in [`Failure::event`].
    pub event: Cursor,
    /// As in [`Failure::events`].
    #[serde(default = "one")]
    pub events: u64,
    /// As in [`Failure::event_type`].
    pub event_type: Option<Arc<str>>,
    /// As in [`Failure::correlation_id`].
    pub correlation_id: Option<Arc<str>>,
    /// As in [`Failure::reason`].
    pub reason: FailureReason,
    /// As in [`Failure::at`].
    pub at: DateTime<Utc>,
    /// When the last of the events was handed over after all, or applied.
    pub recovered_at: Option<DateTime<Utc>>,
}

impl FailedDelivery {
    /// The last event that it is about.
    #[must_use]
    pub fn last(&self) -> Seq {
        Seq(self.event.seq.0.saturating_add(self.events.saturating_sub(1)))
    }
}

/// Rows that were written before there was a count are about one event each.
fn one() -> u64 {
    1
}

/// Which failed deliveries to list; an absent member matches all.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeliveryFilter {
    /// Of this gateway.
    pub gateway: Option<GatewayId>,
    /// At or after this time.
    pub since: Option<DateTime<Utc>>,
    /// Before this time.
    pub until: Option<DateTime<Utc>>,
    /// For this reason.
    pub reason: Option<FailureReason>,
}

impl DeliveryFilter {
    /// Whether the row is to be listed.
    #[must_use]
    pub fn matches(&self, row: &FailedDelivery) -> bool {
        self.gateway.is_none_or(|gateway| row.gateway == gateway)
            && self.since.is_none_or(|since| row.at >= since)
            && self.until.is_none_or(|until| row.at < until)
            && self.reason.is_none_or(|reason| row.reason == reason)
    }
}

/// What failed since the start of the process, recovered or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeliveryTotals {
    /// How many.
    pub count: u64,
    /// When the last one did.
    pub last_time: Option<DateTime<Utc>>,
    /// Why the last one did.
    pub last_reason: Option<FailureReason>,
    /// How many for each of [`FailureReason::ALL`], in its order.
    by_reason: [u64; FailureReason::ALL.len()],
}

impl DeliveryTotals {
    /// How many for this reason.
    #[must_use]
    pub fn of(&self, reason: FailureReason) -> u64 {
        FailureReason::ALL.iter().zip(self.by_reason).find(|(of, _)| **of == reason).map_or(0, |(_, count)| count)
    }

    pub(super) fn count(&mut self, reason: FailureReason, at: DateTime<Utc>) {
        self.count += 1;
        (self.last_time, self.last_reason) = (Some(at), Some(reason));
        for (_, count) in FailureReason::ALL.iter().zip(&mut self.by_reason).filter(|(of, _)| **of == reason) {
            *count += 1;
        }
    }
}
