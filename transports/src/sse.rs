//! Server-Sent Events (WHATWG HTML § 9.2): a response that never ends, for curl and simple clients.
//!
//! - `spell`: a frame as an event.
//! - `connection`: one task per connection; a `pipe` leads to the response body.
//! - `direct`: the same on a socket that was taken out of hyper, which over HTTP/1.1 is where every stream goes as soon as
//!   its first bytes are written ([`crate::hand_over`]). A task of its own, smaller than the one before.
//!
//! What a peer that does not read holds: one step here (48 KiB, or one event), and in hyper one piece of it (64 KiB) and
//! a buffer (`max_buf_size`, which the accept loop keeps small).

mod connection;
mod direct;
mod spell;

use std::sync::Arc;

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio_util::task::TaskTracker;
use warp::filters::BoxedFilter;
use warp::reply::{Reply, Response};
use warp::{Filter, Rejection};

use crate::pipe::pipe;
use crate::request::{self, ConnectRequest};
use crate::timing::Timing;
use crate::transport::{Gate, Liveness, Transport};

pub(crate) use self::direct::chunk_of as chunk;

/// The SSE transport: `GET /api/internal/v1/sse/gateways/connect`, or another path over another gate ([`Sse::at`]).
///
/// `HEAD` answers the same headers, without asking the gate: it opens no connection, so there is nothing to admit.
/// `Accept` is not looked at: this resource has one form, and RFC 9110 § 12.5.1 lets a server send it regardless.
#[derive(Debug, Clone)]
pub struct Sse {
    path: &'static str,
    timing: Arc<Timing>,
    tasks: TaskTracker,
}

impl Sse {
    /// A transport whose connections each run as a task of `tasks`: wait for those to know that all have said goodbye.
    #[must_use]
    pub fn new(timing: Timing, tasks: TaskTracker) -> Self {
        Self { path: CONNECT, timing: Arc::new(timing), tasks }
    }

    /// The same at another path, such as `/api/dashboard/stream`: for a gate that lets others in than gateways.
    #[must_use]
    pub fn at(self, path: &'static str) -> Self {
        Self { path, ..self }
    }

    async fn connect(&self, gate: &dyn Gate, mut request: ConnectRequest) -> Response {
        let session = match request.admit(gate, self.name(), Liveness::WriteOnly).await {
            Ok(session) => session,
            Err(refusal) => return request::refuse(refusal),
        };
        let (inlet, outlet) = pipe();
        if let Some(hand_over) = request.hand_over.take() {
            hand_over.offer(&outlet);
        }
        let (tasks, sever) = (self.tasks.clone(), request.sever.take());
        drop(self.tasks.spawn(connection::run(inlet, session, self.timing.clone(), sever, tasks)));
        let mut answer = warp::reply::stream(outlet).into_response();
        put_headers(answer.headers_mut());
        answer
    }
}

impl Transport for Sse {
    fn name(&self) -> &'static str {
        "sse"
    }

    fn routes(&self, gate: Arc<dyn Gate>) -> BoxedFilter<(Response,)> {
        let (transport, refuser) = (self.clone(), Arc::clone(&gate));
        let path = request::path(self.path);
        let connect = path
            .clone()
            .and(get_or_head())
            .and(request::parts())
            .then(move |method, request| {
                let (transport, gate) = (transport.clone(), Arc::clone(&gate));
                async move {
                    if method == Method::HEAD {
                        headers_only()
                    } else {
                        transport.connect(gate.as_ref(), request).await
                    }
                }
            })
            .boxed();
        request::or_not_allowed(connect, path, refuser, "GET, HEAD")
    }
}

const CONNECT: &str = "/api/internal/v1/sse/gateways/connect";

fn get_or_head() -> impl Filter<Extract = (Method,), Error = Rejection> + Clone {
    warp::get().or(warp::head()).unify().and(warp::method())
}

fn headers_only() -> Response {
    let mut answer = request::status(http::StatusCode::OK);
    put_headers(answer.headers_mut());
    answer.map(Into::into)
}

fn put_headers(headers: &mut HeaderMap) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    // nginx and its kin: don't collect the response before passing it on.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
}
