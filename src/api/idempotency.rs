//! `Idempotency-Key`: a publisher that repeats a call it got no answer to gets the answer of the first.
//!
//! What was answered for a gateway is stored with its event ([`gatecast_storage::answers`]), so a restart forgets nothing.
//! A call to one gateway that failed leaves nothing, so that it may be repeated. One to several leaves what it set out to
//! do, whatever became of that: repeated, it does the rest of it. The first call of a key runs, others wait for it.
//!
//! The key is looked up before anything that may have changed since, such as the event's type and who is there.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderName, HeaderValue, Response};
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::Request;
use super::error::ApiError;
use crate::publish::Call;

/// The longest key, in bytes.
const KEY_BYTES_MAX: usize = 255;
/// The header that holds the key.
const KEY: &str = "Idempotency-Key";
/// The header of an answer that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The call that a request makes, if it has a key. `kind` is the scope of the key; `terms` is what is asked beside the
/// body.
pub(super) fn call(request: &Request<'_>, kind: impl Display, terms: &str) -> Result<Option<Call>, ApiError> {
    let Some(key) = request.header(KEY)? else { return Ok(None) };
    let key =
        key.to_str().ok().filter(|key| (1..=KEY_BYTES_MAX).contains(&key.len())).ok_or_else(|| {
            ApiError::InvalidParameter { name: KEY, expected: "1 to 255 visible characters".to_owned() }
        })?;
    // No kind and no terms contain the byte that divides them from what follows.
    let name = Sha256::new().chain_update(kind.to_string()).chain_update([0]).chain_update(key).finalize();
    let asked = Sha256::new().chain_update(terms).chain_update([0]).chain_update(&request.body).finalize();
    let mut key = [0; 16];
    key.copy_from_slice(&name[..16]);
    Ok(Some(Call { key, asked: asked.into() }))
}

/// Marks an answer as given before.
pub(super) fn replayed<B>(mut answer: Response<B>) -> Response<B> {
    answer.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    answer
}

/// The calls with a key that are under way: one at a time of each key.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<[u8; 16], Arc<AsyncMutex<()>>>>);

/// The turn of a call; the next one of its key begins when this is dropped.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    key: [u8; 16],
    held: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits until no other call of this key is under way.
    pub(super) async fn take(&self, call: &Call) -> Turn<'_> {
        let lock = Arc::clone(self.map().entry(call.key).or_default());
        Turn { turns: self, key: call.key, held: Some(lock.lock_owned().await) }
    }

    /// A poisoned lock is used on: no step under it can panic half-way.
    fn map(&self) -> MutexGuard<'_, HashMap<[u8; 16], Arc<AsyncMutex<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut map = self.turns.map();
        self.held = None;
        // Whoever waits holds the lock as well.
        if map.get(&self.key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            map.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_call_of_a_key_is_under_way_at_a_time_and_none_is_remembered() {
        let turns = Turns::default();
        let [one, two] = [1, 2].map(|key| Call { key: [key; 16], asked: [0; 32] });
        let first = turns.take(&one).await;
        let other = turns.take(&two).await;
        let mut second = Box::pin(turns.take(&one));
        assert!(futures::poll!(&mut second).is_pending());
        drop((first, other));
        drop(second.await);
        assert!(turns.map().is_empty());
    }
}
