//! The rows in memory: in the [groups](super::group) in which they are on disk, since a map by number takes twice their
//! size. A row takes 136 bytes, and its texts what they take unless the row before it says the same: a call to many
//! gateways that are away makes one of each.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::FailedDelivery;
use super::group::{self, GROUP};

/// Failed deliveries by number, so oldest first.
#[derive(Default)]
pub(super) struct Rows {
    groups: BTreeMap<u64, Vec<FailedDelivery>>,
    len: usize,
    /// The texts of the row that was added last.
    event_type: Option<Arc<str>>,
    correlation_id: Option<Arc<str>>,
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, number: u64) -> Option<&FailedDelivery> {
        let rows = self.of_group(group::of(number));
        rows.get(place(rows, number).ok()?)
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut FailedDelivery> {
        let rows = self.groups.get_mut(&group::of(number))?;
        let place = place(rows, number).ok()?;
        rows.get_mut(place)
    }

    pub(super) fn oldest(&self) -> Option<&FailedDelivery> {
        self.groups.first_key_value()?.1.first()
    }

    pub(super) fn newest_first(&self) -> impl Iterator<Item = &FailedDelivery> {
        self.groups.values().rev().flat_map(|rows| rows.iter().rev())
    }

    /// Those of a group, oldest first.
    pub(super) fn of_group(&self, group: u64) -> &[FailedDelivery] {
        self.groups.get(&group).map_or(&[], Vec::as_slice)
    }

    /// Adds a row, in place of one with the same number.
    pub(super) fn insert(&mut self, mut row: FailedDelivery) {
        share(&mut row.event_type, &mut self.event_type);
        share(&mut row.correlation_id, &mut self.correlation_id);
        let new = || Vec::with_capacity(usize::try_from(GROUP).unwrap_or(0));
        let rows = self.groups.entry(group::of(row.number)).or_insert_with(new);
        match place(rows, row.number) {
            Ok(place) => rows.get_mut(place).map_or((), |before| *before = row),
            Err(place) => {
                rows.insert(place, row);
                self.len += 1;
            }
        }
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<FailedDelivery> {
        let group = group::of(number);
        let rows = self.groups.get_mut(&group)?;
        let row = rows.remove(place(rows, number).ok()?);
        self.len -= 1;
        if rows.is_empty() {
            self.groups.remove(&group);
        } else if rows.len() * 4 <= rows.capacity() {
            // Of a gateway that fails a lot the newest are kept, of many groups one row.
            rows.shrink_to_fit();
        }
        Some(row)
    }
}

/// Where a number is, or would be.
fn place(rows: &[FailedDelivery], number: u64) -> Result<usize, usize> {
    rows.binary_search_by_key(&number, |row| row.number)
}

/// Makes the text the last one if it says the same, and the last one otherwise.
fn share(text: &mut Option<Arc<str>>, last: &mut Option<Arc<str>>) {
    if text == last {
        text.clone_from(last);
    } else if text.is_some() {
        last.clone_from(text);
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::deliveries::FailureReason;
    use crate::ids::{Cursor, Epoch, GatewayId, Seq};

    fn row(number: u64, text: &str) -> FailedDelivery {
        FailedDelivery {
            number,
            gateway: GatewayId(Uuid::from_u128(1)),
            replica: None,
            event: Cursor { epoch: Epoch(1), seq: Seq(number) },
            events: 1,
            event_type: Some(text.into()),
            correlation_id: None,
            reason: FailureReason::NotConnected,
            at: DateTime::UNIX_EPOCH,
            recovered_at: None,
        }
    }

    proptest! {
        #[test]
        fn they_are_a_map_by_number(steps: Vec<(bool, u8, String)>) {
            let (mut rows, mut map) = (Rows::default(), BTreeMap::new());
            for (adds, number, text) in steps {
                let number = u64::from(number % 64);
                if adds {
                    rows.insert(row(number, &text));
                    map.insert(number, row(number, &text));
                } else {
                    prop_assert_eq!(rows.remove(number), map.remove(&number));
                }
                prop_assert_eq!(rows.get(number), map.get(&number));
                prop_assert_eq!((rows.len(), rows.oldest()), (map.len(), map.values().next()));
            }
            prop_assert!(rows.newest_first().eq(map.values().rev()));
        }
    }

    #[test]
    fn a_row_is_small_and_shares_its_texts_with_the_one_before() {
        assert!(size_of::<FailedDelivery>() <= 136);
        let mut rows = Rows::default();
        (0..3).for_each(|number| rows.insert(row(number, if number < 2 { "a" } else { "b" })));
        let text = |number| rows.get(number).unwrap().event_type.clone().unwrap();
        assert!(Arc::ptr_eq(&text(0), &text(1)));
        assert_eq!([&*text(1), &*text(2)], ["a", "b"]);
    }

    #[test]
    fn a_group_of_which_most_is_gone_gives_its_room_back() {
        let mut rows = Rows::default();
        (0..GROUP).for_each(|number| rows.insert(row(number, "a")));
        (1..GROUP).for_each(|number| assert!(rows.remove(number).is_some()));
        assert!(rows.groups.values().all(|rows| rows.capacity() < 5));
    }
}
