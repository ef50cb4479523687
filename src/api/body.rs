use std::pin::pin;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{Stream, StreamExt};

use super::error::ApiError;

/// A body that has not arrived after this long is given up: a slow sender must not hold a call for ever.
pub(crate) const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// Collects a body of at most `max` bytes, by [`BODY_DEADLINE`]. Its length need not be declared.
pub(crate) async fn collect<S, B, E>(body: S, declared: Option<u64>, max: usize) -> Result<Bytes, ApiError>
where
    S: Stream<Item = Result<B, E>>,
    B: Buf,
{
    if declared.is_some_and(|bytes| bytes > max as u64) {
        return Err(ApiError::TooLarge { limit: max });
    }
    tokio::time::timeout(BODY_DEADLINE, chunks(body, max)).await.map_err(|_| ApiError::BodyTimeout)?
}

/// A body of one chunk, which nearly all are, is not copied.
async fn chunks<S, B, E>(body: S, max: usize) -> Result<Bytes, ApiError>
where
    S: Stream<Item = Result<B, E>>,
    B: Buf,
{
    let mut body = pin!(body);
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(chunk) = body.next().await {
        let mut chunk = chunk.map_err(|_| ApiError::IncompleteBody)?;
        if first.len() + all.len() + chunk.remaining() > max {
            return Err(ApiError::TooLarge { limit: max });
        }
        if first.is_empty() && all.is_empty() {
            first = chunk.copy_to_bytes(chunk.remaining());
            continue;
        }
        all.put(std::mem::take(&mut first));
        all.put(chunk);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    fn body(chunks: &[&'static str]) -> impl Stream<Item = Result<Bytes, ()>> {
        stream::iter(chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk.as_bytes()))).collect::<Vec<_>>())
    }

    #[tokio::test]
    async fn chunks_are_joined_up_to_the_limit() {
        assert_eq!(collect(body(&["ab", "", "cd", "e"]), None, 5).await.unwrap(), "abcde");
        assert_eq!(collect(body(&["abcde"]), Some(5), 5).await.unwrap(), "abcde");
        assert_eq!(collect(body(&[]), None, 0).await.unwrap(), "");
        for (chunks, declared) in [(&["ab", "cd", "ef"][..], None), (&["abcdef"], None), (&["a"], Some(6))] {
            assert!(matches!(collect(body(chunks), declared, 5).await, Err(ApiError::TooLarge { limit: 5 })));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_arrive_is_given_up() {
        let stuck = body(&["ab"]).chain(stream::pending());
        let before = tokio::time::Instant::now();
        assert!(matches!(collect(stuck, None, 5).await, Err(ApiError::BodyTimeout)));
        assert_eq!(before.elapsed().as_secs(), BODY_DEADLINE.as_secs());
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_not_taken_for_a_short_one() {
        let broken = body(&["ab"]).chain(stream::iter([Err(())]));
        assert!(matches!(collect(broken, None, 5).await, Err(ApiError::IncompleteBody)));
    }
}
