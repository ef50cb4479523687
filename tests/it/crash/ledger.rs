use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Mutex, PoisonError};

use gatecast_storage::GatewayId;

use super::LAST;
use super::seen::{Place, Told};

/// What publishers and subscribers were told, all together: every place of every log has one payload, whoever says so, and
/// every payload one place.
#[derive(Default)]
pub(super) struct Ledger(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    at: BTreeMap<(GatewayId, Place), u64>,
    places: BTreeMap<u64, (GatewayId, Place)>,
    contradictions: Vec<String>,
}

impl Ledger {
    pub(super) fn note(&self, (gateway, place, n): &Told) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let here = (*gateway, place.clone());
        let before = *entries.at.entry(here.clone()).or_insert(*n);
        if before != *n {
            entries.contradictions.push(format!("{place:?} of {gateway} has two payloads: {before} and {n}"));
        }
        if *n == LAST {
            return;
        }
        match entries.places.entry(*n) {
            Entry::Vacant(new) => drop(new.insert(here)),
            Entry::Occupied(before) if *before.get() != here => {
                let contradiction = format!("event {n} is in two places: {:?} and {here:?}", before.get());
                entries.contradictions.push(contradiction);
            }
            Entry::Occupied(_) => {}
        }
    }

    /// # Panics
    /// Something that was told before was taken back.
    pub(super) fn is_consistent(&self) {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(entries.contradictions.is_empty(), "{:#?}", entries.contradictions);
    }
}
