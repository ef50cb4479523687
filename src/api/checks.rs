use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Platform;
use super::error::ApiError;
use crate::publish::{CheckedEvent, NewEvent};

/// Events and schemas that may take long and are being checked or compiled. What waits for its turn takes no thread.
const AT_ONCE: usize = 2;
/// The longest wait for those that came before.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);

/// Turns of what may take long, on threads of their own: on one of the runtime's, a payload of a megabyte under a schema of
/// thousands of subschemas would hold up for seconds all who are served there, and a schema of many patterns for a tenth of
/// one while it is compiled.
pub(super) struct Checks(Arc<Semaphore>);

/// As much is being checked as may be, and nothing of it was done in time.
#[derive(Debug, thiserror::Error)]
#[error("what takes long to check came before, and took too long")]
struct NoTurn;

impl Default for Checks {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Checks {
    /// Does what may take long, once it is its turn. It goes on if nobody waits for it any more, and keeps its turn.
    pub(super) async fn take<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let turn = timeout(TURN_TIMEOUT, Arc::clone(&self.0).acquire_owned()).await;
        // Nobody closes it.
        let Ok(Ok(turn)) = turn else { return Err(ApiError::Unavailable(Box::new(NoTurn))) };
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        // It fails only if it panicked or the runtime shuts down.
        done.await.map_err(|error| ApiError::Unavailable(Box::new(error)))
    }
}

/// Checks an event against its type: at once, unless that may take long.
pub(super) async fn check(api: &Arc<Platform>, event: NewEvent) -> Result<CheckedEvent, ApiError> {
    if !api.publisher.may_take_long(&event) {
        return Ok(api.publisher.check(event)?);
    }
    let publisher = Arc::clone(&api.publisher);
    Ok(api.checks.take(move || publisher.check(event)).await??)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn two_take_their_turns_at_once_and_who_gives_up_keeps_its_turn_until_it_is_done() {
        let checks = Checks::default();
        let (mut begun, hold) = (tokio::sync::mpsc::unbounded_channel(), [mpsc::channel(), mpsc::channel()]);
        let [(go_on, first), (_never, second)] = hold;
        for held in [first, second] {
            let begun = begun.0.clone();
            let work = checks.take(move || {
                begun.send(()).unwrap();
                held.recv()
            });
            assert!(futures::poll!(Box::pin(work)).is_pending(), "and nobody waits for it any more");
        }
        for _ in 0..AT_ONCE {
            begun.1.recv().await.unwrap();
        }
        let mut third = Box::pin(checks.take(|| ()));
        assert!(futures::poll!(&mut third).is_pending());
        assert_eq!(checks.0.available_permits(), 0);
        go_on.send(()).unwrap();
        third.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_get_a_turn_in_time_may_come_again() {
        let checks = Checks::default();
        let _turns = checks.0.acquire_many(u32::try_from(AT_ONCE).unwrap()).await.unwrap();
        assert!(matches!(checks.take(|| ()).await, Err(ApiError::Unavailable(_))));
    }
}
