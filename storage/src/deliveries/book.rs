use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use super::failure::Cure;
use super::group::{self, GROUP};
use super::pending::Pending;
use super::rows::Rows;
use super::sorted::Sorted;
use super::{DeliveryFilter, DeliveryLimits, DeliveryTotals, FailedDelivery, Failure};
use crate::ids::{Cursor, GatewayId, Seq};
use crate::receipts::Replica;
use crate::records::{Change, StoreError, Table};

/// The rows in memory and what of them is not on disk yet.
pub(super) struct Book {
    limits: DeliveryLimits,
    rows: Rows,
    gateways: HashMap<GatewayId, OfGateway>,
    pending: Arc<Pending>,
    next: u64,
    /// [Groups](group) to be written or, if none of their numbers is kept, deleted, and the change that made them so.
    dirty: BTreeMap<u64, u64>,
    changes: u64,
    /// The disk may hold these, so dropping all of one needs a delete there.
    on_disk: BTreeSet<u64>,
    /// Failures that have a row of before, which goes when their group is written.
    before: BTreeSet<u64>,
    totals: DeliveryTotals,
}

#[derive(Default)]
struct OfGateway {
    numbers: Sorted<u64>,
    /// Those that may recover and have not: (epoch, last seq, number).
    pending: Sorted<(u32, Seq, u64)>,
}

impl Book {
    pub(super) fn new(limits: DeliveryLimits) -> Self {
        Self {
            limits,
            rows: Rows::default(),
            gateways: HashMap::new(),
            pending: Arc::default(),
            next: 1,
            dirty: BTreeMap::new(),
            changes: 0,
            on_disk: BTreeSet::new(),
            before: BTreeSet::new(),
            totals: DeliveryTotals::default(),
        }
    }

    /// Takes in a row from disk.
    pub(super) fn load(&mut self, key: &[u8], row: &[u8]) -> Result<(), StoreError> {
        let malformed = |detail: String| StoreError::Malformed(format!("delivery: {detail}"));
        if let Some(group) = group::parse_key(key) {
            let deliveries = group::decode(group, row).ok_or_else(|| malformed("a group".to_owned()))?;
            self.on_disk.insert(group);
            deliveries.into_iter().for_each(|delivery| self.load_one(delivery));
            return Ok(());
        }
        let delivery: FailedDelivery = serde_json::from_slice(row).map_err(|error| malformed(error.to_string()))?;
        if *key != group::key_before(delivery.number) {
            return Err(malformed("its key is of another".to_owned()));
        }
        self.before.insert(delivery.number);
        self.on_disk.insert(group::of(delivery.number));
        self.touch(delivery.number);
        self.load_one(delivery);
        Ok(())
    }

    fn load_one(&mut self, delivery: FailedDelivery) {
        self.next = self.next.max(delivery.number.saturating_add(1));
        self.insert(delivery);
    }

    /// What is kept of a number has changed.
    fn touch(&mut self, number: u64) {
        self.changes += 1;
        self.dirty.insert(group::of(number), self.changes);
    }

    pub(super) fn record(&mut self, failure: Failure) -> u64 {
        let number = self.next;
        self.next += 1;
        let Failure { gateway, replica, event, events, event_type, correlation_id, reason, at } = failure;
        self.totals.count(reason, at);
        let recovered_at = None;
        let [event_type, correlation_id] = [event_type, correlation_id].map(|text| text.map(Arc::from));
        let mut delivery = FailedDelivery {
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
        };
        if let Some(before) = self.take_before(&delivery) {
            delivery.event_type = delivery.event_type.or(before.event_type);
            delivery.correlation_id = delivery.correlation_id.or(before.correlation_id);
        }
        // Not before: what it replaces may have been all that was to be written of their group.
        self.touch(number);
        self.insert(delivery);
        number
    }

    /// What a replica reports once more of an event takes the place of what it reported before: it may try without end.
    fn take_before(&mut self, again: &FailedDelivery) -> Option<FailedDelivery> {
        let is_before = |row: &&FailedDelivery| {
            (row.reason, row.event, &row.replica) == (again.reason, again.event, &again.replica)
        };
        let of_gateway = self.gateways.get(&again.gateway).filter(|_| again.reason.cure() == Cure::Success)?;
        let at = |number| (again.event.epoch.0, again.last(), number);
        let pending = of_gateway.pending.range(at(0)..=at(u64::MAX));
        let before = pending.filter_map(|(_, _, number)| self.rows.get(number)).find(is_before).cloned()?;
        self.remove(before.number);
        Some(before)
    }

    /// What a failure lacks of its first event.
    pub(super) fn describe(&mut self, number: u64, [event_type, correlation_id]: [Arc<str>; 2]) {
        let Some(row) = self.rows.get(number).cloned() else { return };
        // In its own place, so that it shares its texts.
        self.rows.insert(FailedDelivery { event_type: Some(event_type), correlation_id: Some(correlation_id), ..row });
        self.touch(number);
    }

    fn insert(&mut self, row: FailedDelivery) {
        let FailedDelivery { number, gateway, event, reason, recovered_at, .. } = row;
        let of_gateway = self.gateways.entry(gateway).or_default();
        of_gateway.numbers.insert(number);
        let may_recover = recovered_at.is_none() && reason.cure() != Cure::None;
        if may_recover && of_gateway.pending.insert((event.epoch.0, row.last(), number)) {
            self.pending.add(gateway);
        }
        let surplus = of_gateway.numbers.len() > self.limits.per_gateway;
        let oldest_of_gateway = of_gateway.numbers.first().filter(|_| surplus);
        self.rows.insert(row);
        if let Some(oldest) = oldest_of_gateway {
            self.remove(oldest);
        }
        while self.rows.len() > self.limits.total
            && let Some(oldest) = self.rows.oldest()
        {
            self.remove(oldest.number);
        }
    }

    /// Drops what is too old. Rows are in the order in which they were recorded, which is that of time but for a
    /// clock set back: then a row is dropped late, never early.
    pub(super) fn expire(&mut self, now: DateTime<Utc>) {
        let age = TimeDelta::from_std(self.limits.age).unwrap_or(TimeDelta::MAX);
        while let Some(oldest) = self.rows.oldest()
            && now.signed_duration_since(oldest.at) > age
        {
            self.remove(oldest.number);
        }
    }

    /// Events after `after` up to `up_to` have reached `by`.
    pub(super) fn recovered(
        &mut self,
        gateway: GatewayId,
        (after, up_to): (Seq, Cursor),
        by: &Replica,
        now: DateTime<Utc>,
    ) -> usize {
        self.heal(gateway, (after, up_to), now, |row| {
            row.reason.cure() == Cure::Delivery && row.replica.as_ref().is_none_or(|replica| replica == by)
        })
    }

    /// `by` has applied an event.
    pub(super) fn applied(&mut self, gateway: GatewayId, event: Cursor, by: &Replica, now: DateTime<Utc>) -> usize {
        self.heal(gateway, (event.seq.prev(), event), now, |row| {
            row.reason.cure() == Cure::Success && row.replica.as_ref().is_none_or(|replica| replica == by)
        })
    }

    fn heal(
        &mut self,
        gateway: GatewayId,
        (after, up_to): (Seq, Cursor),
        now: DateTime<Utc>,
        heals: impl Fn(&FailedDelivery) -> bool,
    ) -> usize {
        let Some(of_gateway) = self.gateways.get_mut(&gateway) else { return 0 };
        let epoch = up_to.epoch.0;
        if after >= up_to.seq || of_gateway.pending.is_empty() {
            return 0;
        }
        let span = (epoch, after.next(), 0)..=(epoch, up_to.seq, u64::MAX);
        let rows = &self.rows;
        let healed = of_gateway.pending.range(span);
        let healed: Vec<_> = healed.filter(|(_, _, number)| rows.get(*number).is_some_and(&heals)).collect();
        for entry in &healed {
            of_gateway.pending.remove(entry);
            self.pending.sub(gateway);
            let (_, _, number) = *entry;
            if let Some(row) = self.rows.get_mut(number) {
                row.recovered_at = Some(now);
            }
        }
        healed.iter().for_each(|(_, _, number)| self.touch(*number));
        healed.len()
    }

    pub(super) fn query(&self, filter: &DeliveryFilter, offset: usize, limit: usize) -> (usize, Vec<FailedDelivery>) {
        let mut total = 0;
        let mut page = Vec::new();
        let mut take = |row: &FailedDelivery| {
            if filter.matches(row) {
                if total >= offset && page.len() < limit {
                    page.push(row.clone());
                }
                total += 1;
            }
        };
        match filter.gateway {
            None => self.rows.newest_first().for_each(&mut take),
            Some(gateway) => {
                let numbers = self.gateways.get(&gateway).into_iter().flat_map(|of| of.numbers.iter().rev());
                numbers.filter_map(|number| self.rows.get(number)).for_each(&mut take);
            }
        }
        (total, page)
    }

    pub(super) fn gateways(&self) -> Vec<GatewayId> {
        self.gateways.keys().copied().collect()
    }

    pub(super) fn forget(&mut self, gateway: GatewayId) {
        let numbers: Vec<_> = self.gateways.get(&gateway).into_iter().flat_map(|of| of.numbers.iter()).collect();
        for number in numbers {
            self.remove(number);
        }
    }

    fn remove(&mut self, number: u64) {
        let Some(row) = self.rows.remove(number) else { return };
        let (gateway, epoch, last) = (row.gateway, row.event.epoch.0, row.last());
        self.touch(number);
        let group = group::of(number);
        if !self.on_disk.contains(&group) && self.rows.of_group(group).is_empty() {
            self.dirty.remove(&group);
        }
        let Some(of_gateway) = self.gateways.get_mut(&gateway) else { return };
        of_gateway.numbers.remove(&number);
        if of_gateway.pending.remove(&(epoch, last, number)) {
            self.pending.sub(gateway);
        }
        if of_gateway.numbers.is_empty() {
            self.gateways.remove(&gateway);
        }
    }

    /// How many of which gateways may recover and have not.
    pub(super) fn pending(&self) -> Arc<Pending> {
        Arc::clone(&self.pending)
    }

    pub(super) fn unrecovered(&self) -> Vec<(GatewayId, u64)> {
        let pending = self.gateways.iter().map(|(gateway, of)| (*gateway, of.pending.len() as u64));
        pending.filter(|(_, events)| *events > 0).collect()
    }

    pub(super) fn totals(&self) -> DeliveryTotals {
        self.totals
    }

    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Up to about `max` rows to be written, with the state of each as it is now. From here on the disk may hold them.
    pub(super) fn dirty_rows(&mut self, max: usize) -> (Vec<Written>, Vec<Change>) {
        let (mut written, mut changes) = (Vec::new(), Vec::new());
        for (&group, &change) in &self.dirty {
            if changes.len() >= max {
                break;
            }
            let rows = self.rows.of_group(group);
            let row = (!rows.is_empty()).then(|| group::encode(rows));
            written.push(Written { group, change, is_kept: row.is_some() });
            changes.push(Change { table: Table::Deliveries, key: group::key(group), row });
            let before = self.before.range(numbers(group));
            let gone = |number: &u64| Change { table: Table::Deliveries, key: group::key_before(*number), row: None };
            changes.extend(before.map(gone));
        }
        self.on_disk.extend(written.iter().map(|written| written.group));
        (written, changes)
    }

    /// Rows were written: those that did not change meanwhile are clean.
    pub(super) fn written(&mut self, written: &[Written]) {
        for Written { group, change, is_kept } in written {
            let before: Vec<_> = self.before.range(numbers(*group)).copied().collect();
            for number in before {
                self.before.remove(&number);
            }
            if self.dirty.get(group) == Some(change) {
                self.dirty.remove(group);
                if !is_kept {
                    self.on_disk.remove(group);
                }
            }
        }
    }
}

/// The numbers of a group.
fn numbers(group: u64) -> RangeInclusive<u64> {
    let first = group.saturating_mul(GROUP);
    first..=first.saturating_add(GROUP - 1)
}

/// A group as it was handed to the store.
pub(super) struct Written {
    group: u64,
    change: u64,
    is_kept: bool,
}
