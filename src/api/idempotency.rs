//! `Idempotency-Key`: a publisher that repeats a call it got no answer to gets the answer of the first.
//!
//! Answers are kept in memory for 10 minutes, 100,000 at most (some 50 MB), the oldest going first; a restart forgets
//! them. A call that failed leaves nothing, so that it may be repeated. The first call of a key runs, others wait for it.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use gatecast_storage::GatewayId;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use super::error::ApiError;
use super::reply::Answer;

/// How long an answer is kept.
const KEPT: TimeDelta = TimeDelta::minutes(10);
/// Answers kept at once.
const ANSWERS_MAX: usize = 100_000;
/// The longest key, in bytes.
const KEY_BYTES_MAX: usize = 255;
/// The header that holds the key.
const KEY: &str = "idempotency-key";
/// The header of an answer that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A gateway and a publisher's key.
pub(super) type Name = (GatewayId, Box<str>);

/// The answers given lately.
#[derive(Default)]
pub(super) struct Answers(Mutex<Book>);

#[derive(Default)]
struct Book {
    answers: HashMap<Name, Arc<Kept>>,
    /// Oldest first. A name that was used anew after it ran out stands here once for each use.
    by_age: VecDeque<(DateTime<Utc>, Name)>,
}

struct Kept {
    since: DateTime<Utc>,
    /// The SHA-256 of the body that was sent, and what was answered.
    answer: OnceCell<([u8; 32], Response<Bytes>)>,
}

impl Answers {
    /// The answer of an earlier call with this key, or that of `call`. To be run to the end: a caller that goes away
    /// is the one that comes again.
    pub(super) async fn once(
        &self,
        name: Name,
        body: &[u8],
        now: DateTime<Utc>,
        call: impl Future<Output = Answer>,
    ) -> Answer {
        let body: [u8; 32] = Sha256::digest(body).into();
        let kept = self.book().find(name, now);
        let mut is_first = false;
        let first = kept.answer.get_or_try_init(|| {
            is_first = true;
            async { call.await.map(|answer| (body, answer)) }
        });
        let (answered, answer) = first.await?;
        if *answered != body {
            return Err(invalid("used for one body only"));
        }
        let mut answer = answer.clone();
        if !is_first {
            answer.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        }
        Ok(answer)
    }

    /// A poisoned lock is used on: no step under it can panic half-way.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn find(&mut self, name: Name, now: DateTime<Utc>) -> Arc<Kept> {
        while let Some((since, name)) = self.by_age.front()
            && (now - since >= KEPT || self.by_age.len() > ANSWERS_MAX)
        {
            if self.answers.get(name).is_some_and(|kept| kept.since == *since) {
                self.answers.remove(name);
            }
            self.by_age.pop_front();
        }
        if let Some(kept) = self.answers.get(&name) {
            return Arc::clone(kept);
        }
        let kept = Arc::new(Kept { since: now, answer: OnceCell::new() });
        self.by_age.push_back((now, name.clone()));
        self.answers.insert(name, Arc::clone(&kept));
        kept
    }
}

/// The key of a call, if it has one.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<Box<str>>, ApiError> {
    let Some(value) = headers.get(KEY) else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=KEY_BYTES_MAX).contains(&key.len()));
    key.map(|key| Some(key.into())).ok_or_else(|| invalid("1 to 255 visible characters"))
}

fn invalid(expected: &str) -> ApiError {
    ApiError::InvalidParameter { name: "Idempotency-Key", expected: expected.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_by_count_and_age() {
        let mut book = Book::default();
        let gateway = GatewayId(uuid::Uuid::nil());
        for n in 0..ANSWERS_MAX + 10 {
            book.find((gateway, n.to_string().into()), DateTime::UNIX_EPOCH);
        }
        assert!(book.answers.len() <= ANSWERS_MAX + 1 && book.by_age.len() == book.answers.len());
        book.find((gateway, "x".into()), DateTime::UNIX_EPOCH + KEPT);
        assert_eq!((book.answers.len(), book.by_age.len()), (1, 1));
    }
}
