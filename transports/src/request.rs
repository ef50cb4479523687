//! What every transport's routes have in common: the request in parts, and answers made elsewhere.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Response as HttpResponse, StatusCode};
use hyper::upgrade::OnUpgrade;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, Rejection};

use crate::hand_over::HandOver;
use crate::handshake::{ConnInfo, Handshake, HandshakeError};
use crate::sever::Sever;
use crate::transport::{Gate, Liveness, Refusal, Session};

/// A request to connect, not yet read.
#[derive(Default)]
pub(crate) struct ConnectRequest {
    pub(crate) headers: HeaderMap,
    /// As it stood after the question mark.
    pub(crate) query: String,
    pub(crate) info: Option<Arc<ConnInfo>>,
    pub(crate) sever: Option<Sever>,
    pub(crate) hand_over: Option<HandOver>,
    pub(crate) upgrade: Option<OnUpgrade>,
}

impl ConnectRequest {
    /// Reads the request and asks the gate.
    ///
    /// # Errors
    /// The answer to send instead.
    pub(crate) async fn admit(
        &self,
        gate: &dyn Gate,
        transport: &'static str,
        liveness: Liveness,
    ) -> Result<Box<dyn Session>, Refusal> {
        let Some(info) = self.info() else { return Err(nobody()) };
        let handshake = Handshake::read(transport, liveness, info, &self.headers, &self.query)
            .map_err(|error| gate.reject(error))?;
        gate.admit(handshake).await
    }

    /// Facts about its socket; a request without is [`nobody`]'s.
    pub(crate) fn info(&self) -> Option<&ConnInfo> {
        if self.info.is_none() {
            tracing::error!("The accept loop put no ConnInfo into a request; it is refused.");
        }
        self.info.as_deref()
    }
}

/// The answer to whoever comes from nowhere: without the peer's address no rate limit holds, so nobody is let in.
pub(crate) fn nobody() -> Refusal {
    Refusal(status(StatusCode::INTERNAL_SERVER_ERROR))
}

/// Matches this path and no other.
pub(crate) fn path(path: &'static str) -> BoxedFilter<()> {
    let segments = path.split('/').filter(|segment| !segment.is_empty());
    segments.rev().fold(warp::path::end().boxed(), |rest, segment| warp::path(segment).and(rest).boxed())
}

/// Takes a request apart. Matches everything: path and method are the caller's.
pub(crate) fn parts() -> BoxedFilter<(ConnectRequest,)> {
    let raw = warp::query::raw().or_else(|_: Rejection| async { Ok::<_, Rejection>((String::new(),)) });
    warp::header::headers_cloned()
        .and(raw)
        .and(warp::ext::optional::<Arc<ConnInfo>>())
        .and(warp::ext::optional::<Sever>())
        .and(warp::ext::optional::<HandOver>())
        .and(warp::ext::optional::<OnUpgrade>())
        .map(|headers, query, info, sever, hand_over, upgrade| ConnectRequest {
            headers,
            query,
            info,
            sever,
            hand_over,
            upgrade,
        })
        .boxed()
}

/// The routes of a path: `connect` for the methods in `allow`, for any other the gate's word on it.
pub(crate) fn or_not_allowed(
    connect: BoxedFilter<(Response,)>,
    path: BoxedFilter<()>,
    gate: Arc<dyn Gate>,
    allow: &'static str,
) -> BoxedFilter<(Response,)> {
    let refusal = path.map(move || reject(gate.as_ref(), HandshakeError::MethodNotAllowed { allow }));
    connect.or(refusal).unify().boxed()
}

/// `GET` on a connect path; other methods are told so.
pub(crate) fn get<C, F>(path: BoxedFilter<()>, gate: Arc<dyn Gate>, connect: C) -> BoxedFilter<(Response,)>
where
    C: Fn(Arc<dyn Gate>, ConnectRequest) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let refuser = Arc::clone(&gate);
    let connect =
        path.clone().and(warp::get()).and(parts()).then(move |request| connect(Arc::clone(&gate), request)).boxed();
    or_not_allowed(connect, path, refuser, "GET")
}

/// The gate's answer to a request that is none of this transport.
pub(crate) fn reject(gate: &dyn Gate, error: HandshakeError) -> Response {
    refuse(gate.reject(error))
}

/// A refusal, as it was made.
pub(crate) fn refuse(refusal: Refusal) -> Response {
    refusal.0.map(Into::into)
}

/// An answer without a body.
pub(crate) fn status(status: StatusCode) -> HttpResponse<Bytes> {
    let mut answer = HttpResponse::new(Bytes::new());
    *answer.status_mut() = status;
    answer
}
