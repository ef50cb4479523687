//! Sets of which most have one element or two: all gateways may be away at once. A [`BTreeSet`](std::collections::BTreeSet)
//! has room for eleven from the first one on, which is 280 bytes for what this takes 32 for.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

/// A set in order. What comes last is added, and what came first is removed, at once; anywhere else what is on one side
/// of it moves, of a thousand at most.
#[derive(Debug)]
pub(super) struct Sorted<T>(VecDeque<T>);

impl<T> Default for Sorted<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T: Ord + Copy> Sorted<T> {
    /// Says whether it is new.
    pub(super) fn insert(&mut self, element: T) -> bool {
        let Err(place) = self.0.binary_search(&element) else { return false };
        if self.0.is_empty() {
            self.0.reserve_exact(1);
        }
        self.0.insert(place, element);
        true
    }

    /// Says whether it was there.
    pub(super) fn remove(&mut self, element: &T) -> bool {
        let Ok(place) = self.0.binary_search(element) else { return false };
        self.0.remove(place);
        true
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn first(&self) -> Option<T> {
        self.0.front().copied()
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = T> {
        self.0.iter().copied()
    }

    pub(super) fn range(&self, span: RangeInclusive<T>) -> impl Iterator<Item = T> {
        let (first, last) = span.into_inner();
        let rest = self.0.range(self.0.partition_point(|element| *element < first)..);
        rest.copied().take_while(move |element| *element <= last)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set_in_order(steps: Vec<(bool, u8)>, first: u8, last: u8) {
            let (mut sorted, mut set) = (Sorted::default(), BTreeSet::new());
            for (adds, element) in steps {
                let element = element % 32;
                if adds {
                    prop_assert_eq!(sorted.insert(element), set.insert(element));
                } else {
                    prop_assert_eq!(sorted.remove(&element), set.remove(&element));
                }
                prop_assert_eq!((sorted.len(), sorted.first()), (set.len(), set.first().copied()));
            }
            prop_assert!(sorted.iter().eq(set.iter().copied()));
            let within = set.iter().copied().filter(|element| (first..=last).contains(element));
            prop_assert!(sorted.range(first..=last).eq(within));
        }
    }

    #[test]
    fn one_element_has_room_for_one() {
        let mut sorted = Sorted::default();
        sorted.insert(7_u64);
        assert_eq!(sorted.0.capacity(), 1);
    }
}
