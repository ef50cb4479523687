//! Calls of the platform API that were refused, by the code of the answer.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// What alerts watch for: there from the beginning, at 0, as a series that begins with its first count has no increase.
const WATCHED: [&str; 3] = ["STORE_FULL", "UNAUTHORIZED", "UNAVAILABLE"];

/// Refusals by their code; codes are few and fixed.
#[derive(Debug)]
pub struct Refusals(Mutex<BTreeMap<&'static str, u64>>);

impl Default for Refusals {
    fn default() -> Self {
        Self(Mutex::new(WATCHED.map(|code| (code, 0)).into()))
    }
}

impl Refusals {
    /// A call, or an element of one that has a result for each, was refused with this code.
    pub(crate) fn refused(&self, code: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1;
    }

    pub(crate) fn all(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
