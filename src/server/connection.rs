//! One accepted socket: TLS, then HTTP/1.1 or HTTP/2 as agreed by ALPN, until it ends or is upgraded away.
//!
//! Every wait on a peer has a deadline: the TLS handshake, a request's head (and the pause before it), an HTTP/2
//! connection without a stream, an answer of which the peer takes nothing, the peer's end behind the last answer to a poll
//! ([`Lingering`]), unacknowledged bytes (`TCP_USER_TIMEOUT`: half the
//! limit of silence, or all of it where a transport watches its peer). A connection may hold 64 KiB in each direction in
//! user space. A transport whose peer does not read what it has to end severs the socket ([`Sever`]).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use gatecast_transports::{BoxSocket, ConnInfo, Direct, HandOver, Http1, Lingering, Newcomer, Rewound, Sever};
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response, Version};
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;
use tracing::{debug, warn};

use super::certificate_names::certificate_names;
use super::in_flight::{Counted, InFlight};
use super::places::{Place, Places};
use super::socket::{Socket, UNSENT_BYTES};
use super::streams::Streams;
use super::tls::Tls;
use super::unread::Lent;
use super::{target, unread};
use crate::api::error::problem;
use crate::api::{Endpoints, Publishing};

const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an HTTP/2 connection may be without a stream.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an idle HTTP/2 connection may take to agree that it is over.
const GOAWAY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a draining connection may be without a request: for a head that has begun, or to agree that it is over.
const DRAIN_IDLE_TIMEOUT: Duration = Duration::from_secs(2);
const HTTP2_PING_EVERY: Duration = Duration::from_secs(15);
const HTTP2_PONG_TIMEOUT: Duration = Duration::from_secs(10);
const HTTP2_STREAMS_MAX: u32 = 256;
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Buffered per connection and direction in HTTP/1.1, per stream in HTTP/2.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Limits of the sockets of a server.
pub(super) struct Wire {
    pub(super) places: Places,
    unacknowledged_max: Duration,
    /// The same where the transport has a deadline of its own for its peer.
    life_limit: Duration,
}

impl Wire {
    /// For a limit of silence.
    pub(super) fn new(life_limit: Duration, places: Places) -> Self {
        // An SSE peer gets a byte every half limit: a peer that vanished right after one acknowledges no later one,
        // so half the limit for that leaves it dead within the limit. A second is left for the retransmit timer.
        let unacknowledged_max = (life_limit / 2).saturating_sub(Duration::from_secs(1)).max(Duration::from_secs(1));
        Self { places, unacknowledged_max, life_limit }
    }

    /// Sets what is asked of every socket on the one that listens.
    pub(super) fn tune(&self, listening: SockRef<'_>) {
        let set = listening.set_tcp_user_timeout(Some(self.unacknowledged_max));
        if let Err(error) = set.and_then(|()| listening.set_tcp_nodelay(true)) {
            warn!(%error, "A socket option was not taken: dead peers of SSE are found late.");
        }
        if let Err(error) = listening.set_tcp_notsent_lowat(UNSENT_BYTES) {
            warn!(%error, "A socket option was not taken: slow readers may be cut off.");
        }
    }

    /// An accepted socket as it is served.
    pub(super) fn served(&self, stream: TcpStream) -> Socket {
        Socket::new(stream, Sever::new(), self.life_limit)
    }
}

/// Who answers requests.
#[derive(Clone)]
pub(super) struct Service {
    /// By whatever version of HTTP.
    pub(super) endpoints: Endpoints,
    /// Serve what they can over HTTP/1.1 before hyper does.
    pub(super) direct: Arc<[Arc<dyn Direct>]>,
}

/// Serves one accepted socket to its end.
pub(super) async fn serve(
    socket: Socket,
    peer: SocketAddr,
    tls: Option<Arc<Tls>>,
    service: Service,
    drain: CancellationToken,
    place: Place,
) {
    let sever = socket.sever().clone();
    // Boxed, so that what a handshake needs is not kept for the life of the connection.
    let opened = Box::pin(drain.run_until_cancelled(open(socket, peer, tls))).await;
    let Some(Some(Opened { socket, is_http2, info })) = opened else { return };
    let Service { endpoints, direct } = service;
    let info = Arc::new(info);
    let requests = Requests { endpoints, info, sever, hand_over: None, streams: None, in_flight: Arc::default() };
    if is_http2 {
        Box::pin(serve_http2(socket, requests, drain, place)).await;
    } else {
        Box::pin(serve_http1(socket, requests, direct, drain, place)).await;
    }
}

/// A socket as HTTP is spoken over it.
struct Opened {
    socket: BoxSocket,
    is_http2: bool,
    info: ConnInfo,
}

async fn open(socket: Socket, peer: SocketAddr, tls: Option<Arc<Tls>>) -> Option<Opened> {
    let mut info = ConnInfo::of(peer);
    let Some(tls) = tls else { return Some(Opened { socket: Box::new(socket), is_http2: false, info }) };
    match timeout(TLS_HANDSHAKE_TIMEOUT, tls.accept(socket)).await {
        Ok(Ok(stream)) => {
            let session = stream.session();
            let is_http2 = session.alpn_protocol() == Some(b"h2");
            if let Some(certificate) = session.peer_certificates().and_then(|chain| chain.first()) {
                info.certificate_names = certificate_names(certificate);
            }
            return Some(Opened { socket: Box::new(stream), is_http2, info });
        }
        Ok(Err(error)) => debug!(peer.ip = %peer.ip(), %error, "TLS handshake failed."),
        Err(_) => debug!(peer.ip = %peer.ip(), "TLS handshake timed out."),
    }
    None
}

async fn serve_http1(
    socket: BoxSocket,
    requests: Requests,
    direct: Arc<[Arc<dyn Direct>]>,
    drain: CancellationToken,
    place: Place,
) {
    let mut stream = Rewound::from(socket);
    for direct in direct.iter() {
        let (info, sever) = (requests.info.clone(), requests.sever.clone());
        let newcomer = Newcomer { socket: stream, info, sever, drain: drain.clone() };
        let Some(left) = direct.serve(newcomer).await else { return };
        stream = left;
    }
    // A fresh box: what hyper needs is not held while it is not asked.
    Box::pin(serve_by_hyper(stream, requests, drain, place)).await;
}

async fn serve_by_hyper(stream: Rewound, requests: Requests, drain: CancellationToken, _place: Place) {
    let (sever, in_flight, hand_over) = (requests.sever.clone(), requests.in_flight.clone(), HandOver::new());
    let requests = Requests { hand_over: Some(hand_over.clone()), ..requests };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(gatecast_transports::Timing::default().head)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(hand_over.watch(stream, sever.clone())), requests)
        .with_upgrades();
    let mut connection = Http1::new(connection, hand_over);
    let mut severed = pin!(severed(&sever, &in_flight));
    let ended = tokio::select! {
        biased;
        ended = &mut connection => ended,
        () = &mut severed => Ok(()),
        () = drain.cancelled() => {
            connection.graceful_shutdown();
            tokio::select! {
                biased;
                ended = connection => ended,
                () = severed => Ok(()),
                () = in_flight.idle_for(DRAIN_IDLE_TIMEOUT) => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        debug!(%error, "HTTP/1.1 connection failed.");
    }
}

async fn serve_http2(stream: BoxSocket, requests: Requests, drain: CancellationToken, _place: Place) {
    let (sever, in_flight, streams) = (requests.sever.clone(), requests.in_flight.clone(), Streams::default());
    let requests = Requests { streams: Some(streams.clone()), ..requests };
    let connection = http2::Builder::new(streams)
        .timer(TokioTimer::new())
        .keep_alive_interval(HTTP2_PING_EVERY)
        .keep_alive_timeout(HTTP2_PONG_TIMEOUT)
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .max_send_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(Lingering::new(stream, sever.clone())), requests);
    let mut connection = pin!(connection);
    let mut severed = pin!(severed(&sever, &in_flight));
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = &mut severed => Ok(()),
        () = drain.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                biased;
                ended = connection => ended,
                () = severed => Ok(()),
                () = in_flight.idle_for(DRAIN_IDLE_TIMEOUT) => Ok(()),
            }
        }
        () = in_flight.idle_for(IDLE_TIMEOUT) => {
            connection.as_mut().graceful_shutdown();
            timeout(GOAWAY_TIMEOUT, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        debug!(%error, "HTTP/2 connection failed.");
    }
}

/// Resolves when the socket is to be dropped: it was severed, or its peer does not take what it is answered.
async fn severed(sever: &Sever, in_flight: &InFlight) {
    tokio::select! {
        biased;
        () = sever.severed() => {}
        () = in_flight.stalled_for(gatecast_transports::Timing::default().write_stall) => sever.sever(),
    }
}

/// What hyper calls: each request knows its peer, each response counts until its body has ended.
struct Requests {
    endpoints: Endpoints,
    info: Arc<ConnInfo>,
    sever: Sever,
    /// HTTP/1.1 only: a stream of HTTP/2 has no socket of its own.
    hand_over: Option<HandOver>,
    /// HTTP/2 only.
    streams: Option<Streams>,
    in_flight: Arc<InFlight>,
}

impl hyper::service::Service<Request<Incoming>> for Requests {
    type Response = Response<Counted<<warp::reply::Response as IntoBody>::Body>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let entered = InFlight::enter(&self.in_flight);
        let is_head = request.method() == Method::HEAD;
        let (request, unread) = unread::lend(request);
        let answer = self.answer(request);
        Box::pin(async move {
            let mut response = answer.await?;
            // A stream goes on while the body arrives; what is whole ends at once.
            if response.body().size_hint().exact().is_some() {
                unread.discard().await;
            }
            if is_head {
                response = without_body(response);
            }
            Ok(Counted::answer(response, entered))
        })
    }
}

impl Requests {
    /// The answer to a request, by whoever it is for.
    fn answer(
        &self,
        mut request: Request<Lent<Incoming>>,
    ) -> BoxFuture<'static, Result<warp::reply::Response, Infallible>> {
        let sever = self.streams.as_ref().map_or_else(|| self.sever.clone(), |streams| streams.begin(&self.sever));
        if let Some(fault) = target::fault(&request) {
            let refusal = problem(&fault).map(Into::into);
            return Box::pin(async { Ok(refusal) });
        }
        target::name_host(&mut request);
        if Publishing::takes(&request) {
            // Not a block that awaits it, which has room for it twice and moves it once more: a tenth of a publish.
            return self.endpoints.publishing.answer(request, self.info.clone()).map(Ok).boxed();
        }
        request.extensions_mut().insert(self.info.clone());
        request.extensions_mut().insert(sever);
        // Over HTTP/1.0 a response that never ends has no chunks: hyper knows how to write it.
        if let Some(hand_over) = self.hand_over.as_ref().filter(|_| request.version() == Version::HTTP_11) {
            request.extensions_mut().insert(hand_over.clone());
        }
        Box::pin(warp::service(self.endpoints.routes.clone()).call(request))
    }
}

/// The answer to `HEAD`: that to `GET`, but for its body (RFC 9110 § 9.3.2). hyper leaves that out over HTTP/1.1 only.
fn without_body(mut response: warp::reply::Response) -> warp::reply::Response {
    // An answer that has no body already says what it wants to say of its length.
    if let Some(bytes @ 1..) = response.body().size_hint().exact() {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert(bytes.into());
    }
    response.map(|_| Bytes::new().into())
}

/// Names the body of a response, which warp does not.
trait IntoBody {
    type Body: Body<Data = Bytes, Error = warp::Error> + Send + Unpin;
}

impl<B: Body<Data = Bytes, Error = warp::Error> + Send + Unpin> IntoBody for Response<B> {
    type Body = B;
}
