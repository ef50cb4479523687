//! What is left of a request's body when its answer is there.
//!
//! An answer that overtakes the body that it is about ends the stream, and an HTTP/2 client that is still sending reports
//! the reset (seen with curl 7.88), not the answer. Over HTTP/1.1 the socket is closed under it. So what nobody wanted is
//! taken in first, within bounds.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Buf;
use http::Request;
use http::header::EXPECT;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How much of a body that nobody wants is taken in, and how long.
const DISCARDED_BYTES_MAX: usize = 32 * 1024 * 1024;
const DISCARD_DEADLINE: Duration = Duration::from_secs(2);

/// A body that goes back when it is dropped: whoever answers reads what is wanted of it.
pub(super) struct Lent<B> {
    lent: Option<(B, oneshot::Sender<B>)>,
    /// Its peer sends it when it is asked for, which is when it is first read (RFC 9110 § 10.1.1).
    is_held_back: bool,
}

/// Where it goes back to.
pub(super) struct Unread<B>(oneshot::Receiver<B>);

/// Lends out a request's body.
pub(super) fn lend<B>(request: Request<B>) -> (Request<Lent<B>>, Unread<B>) {
    let (back, unread) = oneshot::channel();
    let is_held_back = request.headers().contains_key(EXPECT);
    (request.map(|body| Lent { lent: Some((body, back)), is_held_back }), Unread(unread))
}

impl<B: Body<Data: Buf> + Unpin> Unread<B> {
    /// Takes in what is left, to a bound; nothing while it is still lent, or if its peer still holds it back.
    pub(super) async fn discard(mut self) {
        let Ok(mut body) = self.0.try_recv() else { return };
        // As of nearly every request.
        if body.is_end_stream() {
            return;
        }
        let rest = async {
            let mut bytes = 0;
            while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await
                && bytes < DISCARDED_BYTES_MAX
            {
                bytes += frame.data_ref().map_or(0, Buf::remaining);
            }
        };
        // Whoever sends on is cut off.
        let _ = timeout(DISCARD_DEADLINE, rest).await;
    }
}

impl<B> Drop for Lent<B> {
    fn drop(&mut self) {
        if let Some((body, back)) = self.lent.take()
            && !self.is_held_back
        {
            // Fails if nobody waits for the answer any more.
            let _ = back.send(body);
        }
    }
}

impl<B: Body + Unpin> Body for Lent<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.is_held_back = false;
        match &mut self.lent {
            Some((body, _)) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.lent.as_ref().is_none_or(|(body, _)| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.lent.as_ref().map_or_else(SizeHint::default, |(body, _)| body.size_hint())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use tokio::time::Instant;

    use super::*;

    /// So many bytes in pieces, and then an end or nothing more.
    struct Sent {
        bytes: usize,
        ends: bool,
    }

    impl Body for Sent {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let piece = self.bytes.min(64 * 1024);
            self.bytes -= piece;
            match piece {
                0 if self.ends => Poll::Ready(None),
                0 => Poll::Pending,
                _ => Poll::Ready(Some(Ok(Frame::data(vec![0; piece].into())))),
            }
        }
    }

    /// How long it takes to discard a body of which a piece was read.
    async fn discarded(bytes: usize, ends: bool) -> Duration {
        discarded_of(Request::new(Sent { bytes, ends })).await
    }

    async fn discarded_of(request: Request<Sent>) -> Duration {
        let (request, unread) = lend(request);
        let mut body = request.into_body();
        poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.unwrap().unwrap();
        drop(body);
        let before = Instant::now();
        unread.discard().await;
        before.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn an_unwanted_body_is_taken_in_for_a_while_only() {
        assert_eq!(discarded(1 << 20, true).await, Duration::ZERO);
        assert_eq!(discarded(1 << 20, false).await, DISCARD_DEADLINE, "it does not end");
        assert_eq!(discarded(usize::MAX, true).await, Duration::ZERO, "it has too many bytes");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_its_peer_holds_back_is_not_asked_for() {
        let held_back = || {
            let sent = Sent { bytes: 1 << 20, ends: false };
            Request::builder().header(EXPECT, "100-continue").body(sent).unwrap()
        };
        let (request, unread) = lend(held_back());
        drop(request);
        let before = Instant::now();
        unread.discard().await;
        assert_eq!(before.elapsed(), Duration::ZERO);
        assert_eq!(discarded_of(held_back()).await, DISCARD_DEADLINE, "it was already");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_still_wanted_is_left_alone() {
        let (request, unread) = lend(Request::new(Sent { bytes: 1, ends: false }));
        let before = Instant::now();
        unread.discard().await;
        assert_eq!(before.elapsed(), Duration::ZERO);
        assert!(!request.body().is_end_stream());
    }
}
