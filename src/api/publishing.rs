//! Publishing past the routes. warp asks one filter after the other and copies what each takes, headers included; of the call
//! that is made most this was a tenth (6,400 of 62,000 instructions). The routes answer it just as well.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::ready;

use bytes::Bytes;
use futures::{Stream, stream};
use gatecast_transports::ConnInfo;
use http::{Method, Request};
use hyper::body::Body;

use super::{Head, Platform, answer};

/// Answers requests that publish.
#[derive(Clone)]
pub(crate) struct Publishing(Arc<Platform>);

impl Publishing {
    pub(super) fn new(api: Arc<Platform>) -> Self {
        Self(api)
    }

    /// Whether a request is to be answered here.
    pub(crate) fn takes<B>(request: &Request<B>) -> bool {
        request.method() == Method::POST && request.uri().path().ends_with("/events")
    }

    /// The answer to a request, from this peer.
    pub(crate) fn answer<B>(
        &self,
        request: Request<B>,
        peer: Arc<ConnInfo>,
    ) -> impl Future<Output = warp::reply::Response> + Send + use<B>
    where
        B: Body<Data = Bytes, Error: Send> + Send + Unpin,
    {
        let api = self.0.clone();
        let (head, body) = request.into_parts();
        async move {
            let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
            let head = Head { method: head.method, path, query, headers: head.headers, peer: Some(peer) };
            answer(&api, head, data(body)).await
        }
    }
}

/// What a body has besides trailers.
fn data<B: Body + Unpin>(mut body: B) -> impl Stream<Item = Result<B::Data, B::Error>> {
    stream::poll_fn(move |cx| {
        loop {
            match ready!(Pin::new(&mut body).poll_frame(cx)).transpose() {
                Ok(Some(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Some(Ok(data)).into();
                    }
                }
                Ok(None) => return None.into(),
                Err(error) => return Some(Err(error)).into(),
            }
        }
    })
}
