//! Failed deliveries on disk: [`GROUP`] of consecutive numbers to a row, which is written anew when one of them changes.
//! They are recorded, and let go, in the order of their numbers, so a row is written once or twice and deleted once.
//!
//! - Key: `g`, then the group's number, 8 bytes. Rows of before are one failure each: its number, 8 bytes, and JSON.
//! - Row: version, then of each failure: its place in the group 1, gateway 16, epoch 4, first position 8, how many 8, reason
//!   1, when 12, when it recovered 12, and three texts with their lengths: replica, type, correlation id. A time is seconds
//!   and nanoseconds; numbers are big-endian. What is absent is all ones.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{FailedDelivery, FailureReason};
use crate::ids::{Cursor, Epoch, GatewayId, Seq};
use crate::receipts::Replica;

/// Failures of a row: pages of sled's then stay below what it makes files of, however long the texts are.
pub(super) const GROUP: u64 = 16;
const VERSION: u8 = 1;
const TAG: u8 = b'g';
const NO_TEXT: u16 = u16::MAX;
const NO_TIME: [u8; 12] = [u8::MAX; 12];

/// The group that a number is in.
pub(super) fn of(number: u64) -> u64 {
    number / GROUP
}

pub(super) fn key(group: u64) -> Bytes {
    [&[TAG][..], &group.to_be_bytes()].concat().into()
}

/// The group of a key; `None` for a key of before.
pub(super) fn parse_key(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.strip_prefix(&[TAG])?.try_into().ok()?))
}

/// The key of a failure's row of before.
pub(super) fn key_before(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

/// The row of failures of a group.
pub(super) fn encode(failures: &[FailedDelivery]) -> Bytes {
    let mut row = vec![VERSION];
    for failure in failures {
        // The remainder is smaller than a group.
        row.push(u8::try_from(failure.number % GROUP).unwrap_or(0));
        row.extend_from_slice(failure.gateway.0.as_bytes());
        row.extend_from_slice(&failure.event.epoch.0.to_be_bytes());
        row.extend_from_slice(&failure.event.seq.0.to_be_bytes());
        row.extend_from_slice(&failure.events.to_be_bytes());
        let reason = FailureReason::ALL.iter().position(|reason| *reason == failure.reason);
        row.push(reason.and_then(|reason| u8::try_from(reason).ok()).unwrap_or(u8::MAX));
        row.extend_from_slice(&time(failure.at));
        row.extend_from_slice(&failure.recovered_at.map_or(NO_TIME, time));
        let replica = failure.replica.clone().map(String::from);
        for text in [replica.as_deref(), failure.event_type.as_deref(), failure.correlation_id.as_deref()] {
            // What is longer is not kept; none is.
            let len = text.and_then(|text| u16::try_from(text.len()).ok()).filter(|len| *len != NO_TEXT);
            row.extend_from_slice(&len.unwrap_or(NO_TEXT).to_be_bytes());
            row.extend_from_slice(text.filter(|_| len.is_some()).map_or(b"", str::as_bytes));
        }
    }
    row.into()
}

/// The failures of a group's row; `None` if it is none.
pub(super) fn decode(group: u64, row: &[u8]) -> Option<Vec<FailedDelivery>> {
    let (&version, rest) = row.split_first()?;
    let mut rest = Rest(rest);
    let mut failures = Vec::new();
    while version == VERSION && !rest.0.is_empty() {
        let [place] = rest.take()?;
        let number = group.checked_mul(GROUP)?.checked_add(u64::from(place))?;
        let gateway = GatewayId(Uuid::from_bytes(rest.take()?));
        let (epoch, seq) = (Epoch(u32::from_be_bytes(rest.take()?)), Seq(u64::from_be_bytes(rest.take()?)));
        let events = u64::from_be_bytes(rest.take()?);
        let [reason] = rest.take()?;
        let reason = *FailureReason::ALL.get(usize::from(reason))?;
        let (at, recovered_at) = (moment(rest.take()?)?, rest.take()?);
        let recovered_at = if recovered_at == NO_TIME { None } else { Some(moment(recovered_at)?) };
        let replica = rest.text()?.map(|text| Replica::try_from(text.to_owned())).transpose().ok()?;
        let (event_type, correlation_id) = (rest.text()?.map(Arc::from), rest.text()?.map(Arc::from));
        let event = Cursor { epoch, seq };
        failures.push(FailedDelivery {
            number,
            gateway,
            replica,
            event,
            events,
            event_type,
            correlation_id,
            reason,
            at,
            recovered_at,
        });
    }
    (version == VERSION).then_some(failures)
}

fn time(at: DateTime<Utc>) -> [u8; 12] {
    let mut time = [0; 12];
    time[..8].copy_from_slice(&at.timestamp().to_be_bytes());
    time[8..].copy_from_slice(&at.timestamp_subsec_nanos().to_be_bytes());
    time
}

fn moment(time: [u8; 12]) -> Option<DateTime<Utc>> {
    let (seconds, nanos) = time.split_first_chunk::<8>()?;
    DateTime::from_timestamp(i64::from_be_bytes(*seconds), u32::from_be_bytes(nanos.try_into().ok()?))
}

/// What is left of a row.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn text(&mut self) -> Option<Option<&'a str>> {
        let len = u16::from_be_bytes(self.take()?);
        if len == NO_TEXT {
            return Some(None);
        }
        let (text, rest) = self.0.split_at_checked(usize::from(len))?;
        self.0 = rest;
        Some(Some(str::from_utf8(text).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn failure() -> impl Strategy<Value = FailedDelivery> {
        let times = (-1i64 << 33..1 << 33, 0..1_000_000_000u32, proptest::option::of(0..1i64 << 33));
        let texts = (proptest::option::of("[a-z.]{1,40}"), proptest::option::of("\\PC{0,40}"), any::<u8>());
        let numbers = (0..GROUP, any::<u128>(), any::<u32>(), any::<u64>(), any::<u64>());
        (numbers, times, texts).prop_map(
            |(numbers, (seconds, nanos, recovered), (event_type, correlation_id, kind))| {
                let (place, gateway, epoch, seq, events) = numbers;
                FailedDelivery {
                    number: 7 * GROUP + place,
                    gateway: GatewayId(Uuid::from_u128(gateway)),
                    replica: event_type.clone().filter(|_| kind > 99).map(|name| Replica::Named(name.into())),
                    event: Cursor { epoch: Epoch(epoch), seq: Seq(seq) },
                    events,
                    event_type: event_type.map(Arc::from),
                    correlation_id: correlation_id.map(Arc::from),
                    reason: FailureReason::ALL[usize::from(kind) % FailureReason::ALL.len()],
                    at: DateTime::from_timestamp(seconds, nanos).unwrap(),
                    recovered_at: recovered.map(|seconds| DateTime::from_timestamp(seconds, nanos).unwrap()),
                }
            },
        )
    }

    proptest! {
        #[test]
        fn any_failures_survive_their_row(failures in prop::collection::vec(failure(), 0..GROUP as usize)) {
            prop_assert_eq!(decode(7, &encode(&failures)), Some(failures));
            prop_assert_eq!(parse_key(&key(7)), Some(7));
            prop_assert_eq!(parse_key(&key_before(7)), None);
        }

        #[test]
        fn any_bytes_are_a_row_or_none(bytes: Vec<u8>, cut in 0..100usize, failure in failure()) {
            let _ = decode(u64::MAX, &bytes);
            let row = encode(&[failure]);
            prop_assert_eq!(decode(7, &row[..row.len().saturating_sub(1 + cut).max(2)]), None);
        }
    }
}
