use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};

use super::failure::Cure;
use super::pending::Pending;
use super::{DeliveryFilter, DeliveryLimits, DeliveryTotals, FailedDelivery, Failure};
use crate::ids::{Cursor, GatewayId, Seq};
use crate::receipts::Replica;
use crate::records::{Change, StoreError, Table};

/// The rows in memory and what of them is not on disk yet.
pub(super) struct Book {
    limits: DeliveryLimits,
    /// By number, so oldest first.
    rows: BTreeMap<u64, Row>,
    gateways: HashMap<GatewayId, OfGateway>,
    pending: Arc<Pending>,
    next: u64,
    /// Numbers to be written or, if they are in no row, deleted.
    dirty: BTreeSet<u64>,
    totals: DeliveryTotals,
}

struct Row {
    delivery: FailedDelivery,
    /// The disk may hold it, so dropping it needs a delete there.
    on_disk: bool,
}

#[derive(Default)]
struct OfGateway {
    numbers: BTreeSet<u64>,
    /// Those that may recover and have not: (epoch, last seq, number).
    pending: BTreeSet<(u32, Seq, u64)>,
}

impl Book {
    pub(super) fn new(limits: DeliveryLimits) -> Self {
        Self {
            limits,
            rows: BTreeMap::new(),
            gateways: HashMap::new(),
            pending: Arc::default(),
            next: 1,
            dirty: BTreeSet::new(),
            totals: DeliveryTotals::default(),
        }
    }

    /// Takes in a row from disk.
    pub(super) fn load(&mut self, delivery: FailedDelivery) {
        self.next = self.next.max(delivery.number.saturating_add(1));
        self.insert(Row { delivery, on_disk: true });
    }

    pub(super) fn record(&mut self, failure: Failure) -> u64 {
        let number = self.next;
        self.next += 1;
        let Failure { gateway, replica, event, events, event_type, correlation_id, reason, at } = failure;
        self.totals.count(reason, at);
        self.dirty.insert(number);
        let recovered_at = None;
        let delivery = FailedDelivery {
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
        self.insert(Row { delivery, on_disk: false });
        number
    }

    fn insert(&mut self, row: Row) {
        let FailedDelivery { number, gateway, event, reason, recovered_at, .. } = row.delivery;
        let of_gateway = self.gateways.entry(gateway).or_default();
        of_gateway.numbers.insert(number);
        let may_recover = recovered_at.is_none() && reason.cure() != Cure::None;
        if may_recover && of_gateway.pending.insert((event.epoch.0, row.delivery.last(), number)) {
            self.pending.add(gateway);
        }
        let surplus = of_gateway.numbers.len() > self.limits.per_gateway;
        let oldest_of_gateway = of_gateway.numbers.first().copied().filter(|_| surplus);
        self.rows.insert(number, row);
        if let Some(oldest) = oldest_of_gateway {
            self.remove(oldest);
        }
        while self.rows.len() > self.limits.total
            && let Some((&oldest, _)) = self.rows.first_key_value()
        {
            self.remove(oldest);
        }
    }

    /// Drops what is too old. Rows are in the order in which they were recorded, which is that of time but for a
    /// clock set back: then a row is dropped late, never early.
    pub(super) fn expire(&mut self, now: DateTime<Utc>) {
        let age = TimeDelta::from_std(self.limits.age).unwrap_or(TimeDelta::MAX);
        while let Some((&oldest, row)) = self.rows.first_key_value()
            && now.signed_duration_since(row.delivery.at) > age
        {
            self.remove(oldest);
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
        let rows = &mut self.rows;
        let healed = of_gateway.pending.range(span).copied();
        let healed: Vec<_> =
            healed.filter(|(_, _, number)| rows.get(number).is_some_and(|row| heals(&row.delivery))).collect();
        for entry in &healed {
            of_gateway.pending.remove(entry);
            self.pending.sub(gateway);
            let (_, _, number) = *entry;
            if let Some(row) = rows.get_mut(&number) {
                row.delivery.recovered_at = Some(now);
                self.dirty.insert(number);
            }
        }
        healed.len()
    }

    pub(super) fn query(&self, filter: &DeliveryFilter, offset: usize, limit: usize) -> (usize, Vec<FailedDelivery>) {
        let mut total = 0;
        let mut page = Vec::new();
        let mut take = |row: &Row| {
            if filter.matches(&row.delivery) {
                if total >= offset && page.len() < limit {
                    page.push(row.delivery.clone());
                }
                total += 1;
            }
        };
        match filter.gateway {
            None => self.rows.values().rev().for_each(&mut take),
            Some(gateway) => {
                let numbers = self.gateways.get(&gateway).into_iter().flat_map(|of| of.numbers.iter().rev());
                numbers.filter_map(|number| self.rows.get(number)).for_each(&mut take);
            }
        }
        (total, page)
    }

    pub(super) fn forget(&mut self, gateway: GatewayId) {
        let numbers = self.gateways.get(&gateway).map(|of| of.numbers.clone());
        for number in numbers.into_iter().flatten() {
            self.remove(number);
        }
    }

    fn remove(&mut self, number: u64) {
        let Some(row) = self.rows.remove(&number) else { return };
        let (gateway, epoch, last) = (row.delivery.gateway, row.delivery.event.epoch.0, row.delivery.last());
        if row.on_disk {
            self.dirty.insert(number)
        } else {
            self.dirty.remove(&number)
        };
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

    /// Up to `max` rows to be written, with the state of each as it is now. From here on the disk may hold them.
    pub(super) fn dirty_rows(&mut self, max: usize) -> Result<(Vec<Written>, Vec<Change>), StoreError> {
        let numbers: Vec<u64> = self.dirty.iter().copied().take(max).collect();
        let mut written = Vec::with_capacity(numbers.len());
        let mut changes = Vec::with_capacity(numbers.len());
        // Grows once and not with every row.
        let mut json = Vec::new();
        for number in numbers {
            let row = self.rows.get_mut(&number);
            let recovered = row.as_ref().map(|row| row.delivery.recovered_at.is_some());
            let row = row.map(|row| {
                row.on_disk = true;
                json.clear();
                serde_json::to_writer(&mut json, &row.delivery).map(|()| Bytes::copy_from_slice(&json))
            });
            let row = row.transpose().map_err(|e| StoreError::Malformed(e.to_string()))?;
            let key = Bytes::copy_from_slice(&number.to_be_bytes());
            changes.push(Change { table: Table::Deliveries, key, row });
            written.push(Written { number, recovered });
        }
        Ok((written, changes))
    }

    /// Rows were written: those that did not change meanwhile are clean.
    pub(super) fn written(&mut self, written: &[Written]) {
        for Written { number, recovered } in written {
            let now = self.rows.get(number).map(|row| row.delivery.recovered_at.is_some());
            if now == *recovered {
                self.dirty.remove(number);
            }
        }
    }
}

/// A row as it was handed to the store: absent, unrecovered or recovered. Nothing else of a row ever changes.
pub(super) struct Written {
    number: u64,
    recovered: Option<bool>,
}
