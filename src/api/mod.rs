//! The platform API (CONTRACT.md §§ 6 and 9): what publishers, operators and gateways call, but for connecting.
//!
//! # Layout
//! - `router`: one table of methods, paths, who may call and how large a body may be. Start there.
//! - One file per resource holds its calls; `reply`, `page`, `fields`, `query`, `body` are what they share.
//! - [`error`]: the one map from errors to HTTP; `problem` is what it looks like on the wire.
//!
//! A call is routed, authenticated, and only then is its body read: at most as many bytes as its row says, within 30 s.

mod accept;
mod apis;
mod append;
mod artifacts;
mod backup;
mod body;
mod checks;
mod copies;
mod deliveries;
mod deployments;
mod descriptions;
pub mod error;
mod event_types;
mod events;
pub(crate) mod fields;
mod gateways;
mod health;
mod idempotency;
mod metrics;
mod page;
mod problem;
mod publishing;
mod query;
mod receipts;
mod reply;
mod router;
mod session;
mod stats;
mod stream;
mod targets;
mod tokens;

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::{Buf, Bytes};
use futures::Stream;
use gatecast_storage::{
    Backup, Clock, Deliveries, Directory, EventLog, Gateway, GatewayId, Orders, Receipts, Retention,
};
use gatecast_transports::{ConnInfo, Secret};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Response};
use tokio::sync::Mutex;
use tracing::warn;
use warp::Filter;
use warp::filters::BoxedFilter;

use self::error::{ApiError, Missing, problem};
pub(crate) use self::publishing::Publishing;
use self::query::Query;
use self::reply::Answer;
use self::router::{Access, Action, BodyLimit, Call};
use crate::auth::{AuthError, Authenticator, Claim, Operators, gateway_credential};
use crate::event_types::{EventTypes, SCHEMA_BYTES_MAX};
use crate::metrics::Metrics;
use crate::proxies::Proxies;
use crate::publish::Publisher;
use crate::receipts::Reports;
use crate::refusal_log::{RefusalLog, Refused};
use crate::registry::Registry;
use crate::sparse_log::Line;

/// A body of a few members, in bytes.
const SMALL_BODY_BYTES_MAX: usize = 64 * 1024;
/// A list of elements, in bytes.
const LIST_BODY_BYTES_MAX: usize = 1024 * 1024;
/// What an event's body may have beyond the event: white space and member names, in bytes.
const EVENT_BODY_ROOM_BYTES: usize = 64 * 1024;
/// What a list of targets may have beyond that, in bytes.
const TARGETS_BYTES_MAX: usize = 512 * 1024;
/// An API's artifact, in bytes.
const ARTIFACT_BYTES_MAX: usize = 10 * 1024 * 1024;

/// What a line of the log has of a path, in characters: more than any path that is called has.
const LOGGED_PATH_CHARS_MAX: usize = 256;

/// All that the platform API works on.
pub struct Api {
    /// Gateways, tokens, APIs, deployments, stored event types.
    pub directory: Arc<Directory>,
    /// The write path.
    pub publisher: Arc<Publisher>,
    /// What events may be.
    pub event_types: Arc<EventTypes>,
    /// Who is connected.
    pub registry: Arc<Registry>,
    /// What could not be handed over.
    pub deliveries: Arc<Deliveries>,
    /// How far replicas are and what they reported.
    pub receipts: Arc<Receipts>,
    /// Takes what gateways report.
    pub reports: Arc<Reports>,
    /// Deployments whose event is stored.
    pub orders: Arc<Orders>,
    /// Proxies whose word on a gateway's address counts.
    pub proxies: Proxies,
    /// The gateways' logs.
    pub log: Arc<dyn EventLog>,
    /// Who may call.
    pub admin: Arc<Operators>,
    pub(crate) refusal_log: Arc<RefusalLog>,
    /// Which gateways may call.
    pub authenticator: Arc<Authenticator>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// How much of each log is kept.
    pub retention: Retention,
    /// The server is about to stop: it is not ready any more.
    pub draining: Arc<AtomicBool>,
    /// Copies of the whole store, if it can be copied.
    pub backup: Option<Arc<Backup>>,
    /// What is measured.
    pub metrics: Metrics,
}

/// The API as it runs.
struct Platform {
    parts: Arc<Api>,
    /// Writes that touch two places (store and memory, rows and log) take turns, so that both see them in one order.
    event_types_turn: Mutex<()>,
    gateways_turn: Mutex<()>,
    deployments_turn: Mutex<deployments::Outcomes>,
    turns: idempotency::Turns,
    checks: checks::Checks,
    copies: copies::Copies,
    /// Held while a backup is collected.
    backup_turn: Mutex<()>,
}

impl Deref for Platform {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.parts
    }
}

/// Who answers requests over HTTP.
#[derive(Clone)]
pub struct Endpoints {
    /// Answer every request that comes to them; those of the platform API come after all others.
    pub routes: BoxedFilter<(warp::reply::Response,)>,
    /// Answers those that publish without the routes.
    pub(crate) publishing: Publishing,
}

impl Api {
    /// As [`gatecast_storage::forget_if_gone`].
    async fn forget_if_gone(&self, of: GatewayId) -> bool {
        gatecast_storage::forget_if_gone(of, &self.directory, &*self.log, &self.receipts, &self.deliveries).await
    }
}

/// The platform API, ready to be called.
pub fn endpoints(api: Arc<Api>) -> Endpoints {
    let api = Arc::new(Platform::new(api));
    Endpoints { routes: routes(api.clone()), publishing: Publishing::new(api) }
}

fn routes(api: Arc<Platform>) -> BoxedFilter<(warp::reply::Response,)> {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::method()
        .and(warp::path::full())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<Arc<ConnInfo>>())
        .and(warp::body::stream())
        .then(move |method: Method, path: warp::path::FullPath, query: String, headers: HeaderMap, peer, body| {
            let api = Arc::clone(&api);
            async move {
                let head = Head { method, path: path.as_str(), query: &query, headers, peer };
                answer(&api, head, body).await
            }
        })
        .boxed()
}

/// A request but for its body.
struct Head<'a> {
    method: Method,
    path: &'a str,
    query: &'a str,
    headers: HeaderMap,
    peer: Option<Arc<ConnInfo>>,
}

/// What a call is given.
struct Request<'a> {
    params: [&'a str; 2],
    query: Query<'a>,
    headers: &'a HeaderMap,
    peer: Option<&'a Arc<ConnInfo>>,
    body: Bytes,
}

impl Request<'_> {
    /// The gateway that the path names first, which must be there.
    fn gateway(&self, api: &Api) -> Result<Arc<Gateway>, ApiError> {
        let [id, _] = self.params;
        id.parse().ok().and_then(|id: GatewayId| api.directory.gateway(id)).ok_or_else(ApiError::no_gateway)
    }

    /// A header that says how the call is meant, so that it must not be given twice.
    fn header(&self, name: &'static str) -> Result<Option<&HeaderValue>, ApiError> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next();
        if values.next().is_some() {
            return Err(ApiError::InvalidParameter { name, expected: "given once".to_owned() });
        }
        Ok(value)
    }

    /// The body as JSON, unless it says that it is something else.
    fn json(&self) -> Result<serde_json::Value, ApiError> {
        self.expect_json()?;
        fields::json(&self.body)
    }

    fn expect_json(&self) -> Result<(), ApiError> {
        let Some(kind) = self.headers.get(CONTENT_TYPE) else { return Ok(()) };
        let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let is_json = kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"));
        if is_json { Ok(()) } else { Err(ApiError::UnsupportedMediaType { expected: "application/json" }) }
    }
}

async fn answer<S, B, E>(api: &Arc<Platform>, head: Head<'_>, body: S) -> warp::reply::Response
where
    S: Stream<Item = Result<B, E>>,
    B: Buf,
{
    match call(api, head, body).await {
        Ok(Said::Whole(response)) => response.map(Into::into),
        Ok(Said::InPieces(response)) => response,
        Err(error) => {
            api.metrics.refusals.refused(error.code());
            problem(&error).map(Into::into)
        }
    }
}

/// What a call says.
enum Said {
    Whole(Response<Bytes>),
    /// More than is held in memory.
    InPieces(warp::reply::Response),
}

async fn call<S, B, E>(api: &Arc<Platform>, head: Head<'_>, body: S) -> Result<Said, ApiError>
where
    S: Stream<Item = Result<B, E>>,
    B: Buf,
{
    let call = router::route(&head.method, head.path)?;
    let caller = authenticate(api, &call, &head)?;
    let body = match api.bytes_max(call.body) {
        // A gateway would exit on a 4xx, for a body that is hardly looked at.
        Some(_) if call.access == Access::Admin && is_encoded(&head.headers) => {
            return Err(ApiError::UnsupportedMediaType { expected: "sent as it is, without Content-Encoding" });
        }
        Some(max) => {
            let declared = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
            body::collect(body, declared, max).await?
        }
        None => Bytes::new(),
    };
    let query = Query::new(head.query);
    let request = Request { params: call.params, query, headers: &head.headers, peer: head.peer.as_ref(), body };
    let answer = match (caller, call.action) {
        (Some(gateway), action) => for_gateway(api, &gateway, action, &request).await,
        (None, Action::Backup) => return backup::read(api).await.map(Said::InPieces),
        (None, action) => for_admin(api, action, &request).await,
    };
    answer.map(Said::Whole)
}

/// Whether a body is in an encoding, such as gzip: it would be taken for what it is not, and an artifact kept as such.
fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn log_refusal(api: &Api, head: &Head<'_>, error: AuthError) {
    let (_, address) = caller(api, head);
    let Some(Line { unlogged }) = api.refusal_log.line(address, Refused::Call(error)) else { return };
    let path = head.path.char_indices().nth(LOGGED_PATH_CHARS_MAX);
    let path = path.map_or(head.path, |(end, _)| head.path.split_at(end).0);
    warn!(peer.ip = %address, http.method = %head.method, http.path = path, reason = %error, unlogged, "A call was refused.");
}

/// Who calls, and from where.
fn caller(api: &Api, head: &Head<'_>) -> (ConnInfo, IpAddr) {
    let info = head.peer.as_deref().cloned().unwrap_or_else(nowhere);
    let address = api.proxies.caller(&info, &head.headers);
    (info, address)
}

/// A call that came over no socket.
fn nowhere() -> ConnInfo {
    ConnInfo::of(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
}

/// Checks the credential; the gateway if one calls.
fn authenticate(api: &Api, call: &Call<'_>, head: &Head<'_>) -> Result<Option<Arc<Gateway>>, ApiError> {
    let refused = |error| {
        log_refusal(api, head, error);
        ApiError::from(error)
    };
    match call.access {
        Access::Public => Ok(None),
        Access::Admin => api.admin.call(&head.method, &head.headers).map(|()| None).map_err(refused),
        Access::Gateway => {
            let (info, address) = caller(api, head);
            let credential = gateway_credential(&head.headers).map(Secret::new);
            let claim = Claim { credential: credential.as_ref(), certificate_names: &info.certificate_names, address };
            let caller = api.authenticator.gateway(&claim, api.clock.now());
            caller.map(|proven| Some(proven.gateway)).map_err(refused)
        }
    }
}

async fn for_admin(api: &Arc<Platform>, action: Action, request: &Request<'_>) -> Answer {
    match action {
        Action::Publish => events::publish(api, request).await,
        Action::PublishToMany => targets::publish(api, request).await,
        Action::ReadEvent => events::read(api, request).await,
        Action::CreateGateway => gateways::create(api, request).await,
        Action::ListGateways => gateways::list(api, request),
        Action::ReadGateway => gateways::read(api, request),
        Action::UpdateGateway => gateways::update(api, request).await,
        Action::DeleteGateway => gateways::delete(api, request).await,
        Action::CreateToken => tokens::create(api, request).await,
        Action::ListTokens => tokens::list(api, request),
        Action::RevokeToken => tokens::revoke(api, request).await,
        Action::ListEventTypes => event_types::list(api, request),
        Action::ReadEventType => event_types::read(api, request),
        Action::PutEventType => event_types::put(api, request).await,
        Action::DeleteEventType => event_types::delete(api, request).await,
        Action::PutApi => apis::put(api, request).await,
        Action::ReadApi => apis::read(api, request).await,
        Action::DeleteApi => apis::delete(api, request).await,
        Action::Deploy => deployments::deploy(api, request).await,
        Action::Undeploy => deployments::undeploy(api, request).await,
        Action::ListDeployments => deployments::list(api, request),
        Action::ListAllDeployments => deployments::list_all(api, request),
        Action::ReadStats => stats::read(api, request).await,
        Action::ReadMetrics => metrics::read(api).await,
        Action::ReadOpenApi => descriptions::read(descriptions::OPENAPI),
        Action::ReadAsyncApi => descriptions::read(descriptions::ASYNCAPI),
        Action::ListFailures => deliveries::list(api, request).await,
        Action::ReadStream => stream::read(api, request).await,
        Action::SignIn => session::sign_in(api, request),
        Action::ReadSession => session::read(api, request),
        Action::SignOut => session::sign_out(api, request),
        Action::Health => health::health(),
        Action::Ready => health::ready(api),
        Action::FetchApi
        | Action::FetchArtifact
        | Action::FetchDeployments
        | Action::TakeManifest
        | Action::TakeReceipts
        | Action::Backup
        | Action::Unsupported => Err(ApiError::NotFound(Missing::Path)),
    }
}

async fn for_gateway(api: &Platform, gateway: &Gateway, action: Action, request: &Request<'_>) -> Answer {
    match action {
        Action::FetchApi => artifacts::fetch_zip(api, gateway, request).await,
        Action::FetchArtifact => artifacts::fetch(api, gateway, request).await,
        Action::FetchDeployments => artifacts::deployments(api, gateway),
        Action::TakeManifest => artifacts::take_manifest(gateway, request),
        Action::TakeReceipts => receipts::take(api, gateway, request).await,
        _ => Err(ApiError::NotFound(Missing::Unsupported)),
    }
}

impl Platform {
    fn new(parts: Arc<Api>) -> Self {
        Self {
            parts,
            event_types_turn: Mutex::default(),
            gateways_turn: Mutex::default(),
            deployments_turn: Mutex::default(),
            turns: idempotency::Turns::default(),
            checks: checks::Checks::default(),
            copies: copies::Copies::default(),
            backup_turn: Mutex::default(),
        }
    }
}

impl Api {
    /// How many bytes a body may have; `None` if it is not read.
    fn bytes_max(&self, limit: BodyLimit) -> Option<usize> {
        match limit {
            BodyLimit::Unread | BodyLimit::Ignored => None,
            BodyLimit::Small => Some(SMALL_BODY_BYTES_MAX),
            BodyLimit::List => Some(LIST_BODY_BYTES_MAX),
            BodyLimit::Event => Some(self.publisher.event_bytes_max() + EVENT_BODY_ROOM_BYTES),
            BodyLimit::EventAndTargets => {
                Some(self.publisher.event_bytes_max() + EVENT_BODY_ROOM_BYTES + TARGETS_BYTES_MAX)
            }
            BodyLimit::Schema => Some(2 * SCHEMA_BYTES_MAX),
            BodyLimit::Artifact => Some(ARTIFACT_BYTES_MAX),
        }
    }
}

/// Runs a write that consists of several steps in a task of its own: a caller that goes away between two steps, such
/// as revoking a token and ending its connections, cannot leave the first without the second.
async fn to_the_end<T, F>(work: F) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, ApiError>> + Send + 'static,
{
    // The task fails only if it panicked or the runtime shuts down.
    tokio::spawn(work).await.unwrap_or_else(|error| Err(ApiError::Unavailable(Box::new(error))))
}

#[cfg(test)]
pub(crate) mod tests;
