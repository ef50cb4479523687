//! What a connection is asked, and has not answered to the end.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::sleep;

/// Requests whose responses have not ended.
#[derive(Default)]
pub(super) struct InFlight {
    count: AtomicUsize,
    /// Requests ever begun: tells whether there was one between two looks.
    begun: AtomicUsize,
}

/// A request, until its response has ended.
pub(super) struct Entered(Arc<InFlight>);

impl InFlight {
    /// A request begins.
    pub(super) fn enter(this: &Arc<Self>) -> Entered {
        this.count.fetch_add(1, Ordering::AcqRel);
        this.begun.fetch_add(1, Ordering::AcqRel);
        Entered(this.clone())
    }

    /// Resolves when there was no request in flight for at least `limit`, and at most twice that.
    pub(super) async fn idle_for(&self, limit: Duration) {
        loop {
            let begun = self.begun.load(Ordering::Acquire);
            let idle = self.count.load(Ordering::Acquire) == 0;
            sleep(limit).await;
            if idle && begun == self.begun.load(Ordering::Acquire) {
                return;
            }
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A response body that counts as in flight until it is dropped.
pub(super) struct Counted {
    body: <warp::reply::Response as IntoBody>::Body,
    _counted: Entered,
}

impl Counted {
    pub(super) fn new(body: <warp::reply::Response as IntoBody>::Body, counted: Entered) -> Self {
        Self { body, _counted: counted }
    }
}

/// Names the body of a response, which warp does not.
pub(super) trait IntoBody {
    type Body: Body<Data = Bytes, Error = warp::Error> + Send + Unpin;
}

impl<B: Body<Data = Bytes, Error = warp::Error> + Send + Unpin> IntoBody for Response<B> {
    type Body = B;
}

impl Body for Counted {
    type Data = Bytes;
    type Error = warp::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
