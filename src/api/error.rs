//! The one place where errors become HTTP: status, stable code, safe words.
//!
//! Transient trouble is 429 or 503 with a jittered `Retry-After`, never 401, 403, 404, 409 or 422: the real gateway
//! client exits its process on those (CONTRACT.md § 8).

use std::time::Duration;

use bytes::Bytes;
use gatecast_storage::{Cursor, DirectoryError, GatewayId, LogError, StoreError};
use http::header::{ALLOW, CONNECTION, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use tracing::{debug, error, warn};
use uuid::Uuid;

pub use super::problem::FieldError;
use super::problem::Problem;
use crate::auth::{AuthError, RandomSourceFailed};
use crate::publish::{Fault, PublishError};

/// A cause to be logged, not shown.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// `Retry-After` of trouble that passes by itself, in seconds: 1 to 5, drawn anew for each answer.
const RETRY_SECONDS: std::ops::RangeInclusive<u32> = 1..=5;
/// What is added at random to the time that a rate limit asks for, in seconds.
const RATE_JITTER_SECONDS: std::ops::RangeInclusive<u32> = 0..=3;

/// What does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// Nothing is served at this path.
    Path,
    /// A gateway; the pointer says where the request names it, if not in the path.
    Gateway(Option<String>),
    /// A token of the gateway.
    Token,
    /// An API, or its artifact, or its deployment to the gateway that asks.
    Api,
    /// A deployment: nothing is deployed to the gateway.
    Deployment,
    /// An event type.
    EventType,
    /// An event; it may have been held once.
    Event,
    /// A resource of other control planes that this one does not have.
    Unsupported,
}

/// Why a call was not done.
#[derive(Debug)]
pub enum ApiError {
    /// The body is not JSON; the text says where.
    InvalidJson(String),
    /// Members of the body are wrong.
    InvalidBody(Vec<FieldError>),
    /// A query parameter or header is wrong.
    InvalidParameter {
        /// Its name.
        name: &'static str,
        /// What it must be.
        expected: String,
    },
    /// A cursor is not of the form of one.
    InvalidCursor,
    /// The body ended before it was complete.
    IncompleteBody,
    /// An event's type is not registered.
    UnknownEventType(String),
    /// No credential that counts.
    Unauthorized,
    /// A good credential, for something else.
    Forbidden,
    /// A browser's cookie, sent by a page that is not ours.
    CrossSite,
    /// It does not exist.
    NotFound(Missing),
    /// The path exists, the method does not.
    MethodNotAllowed {
        /// The methods that do.
        allow: String,
    },
    /// The body did not arrive in time.
    BodyTimeout,
    /// The organization has a gateway of this name.
    NameTaken,
    /// Certificates of this name are another gateway's.
    CertificateNameTaken(String),
    /// The gateway has as many active tokens as it may have.
    TooManyTokens {
        /// The limit.
        max: usize,
    },
    /// The event type is part of the product.
    BuiltInType,
    /// There are as many event types as there may be.
    TooManyEventTypes {
        /// The limit.
        max: usize,
    },
    /// The log's head is another event than the one expected.
    PreconditionFailed {
        /// The head.
        head: Cursor,
    },
    /// The body or the event has too many bytes.
    TooLarge {
        /// How many it may have.
        limit: usize,
    },
    /// The body is of another media type.
    UnsupportedMediaType {
        /// What it may be.
        expected: &'static str,
    },
    /// The path takes WebSocket upgrades only.
    UpgradeRequired,
    /// The path takes another WebSocket version only.
    UnsupportedVersion,
    /// Too many attempts from one address.
    RateLimited {
        /// When the next may be made.
        retry_after: Duration,
    },
    /// Too many connections.
    CapacityExceeded,
    /// The server is about to stop.
    Draining,
    /// The store's file system is full: what is published cannot be kept now.
    StoreFull,
    /// Something the server needs does not work now.
    Unavailable(Cause),
}

/// The log or the directory did not answer in time.
#[derive(Debug, thiserror::Error)]
#[error("the store did not answer in time; the change may still be made")]
struct TimedOut;

/// The answer to a call that was not done. A 5xx is logged here, once, with its tracking id.
#[must_use]
pub fn problem(error: &ApiError) -> Response<Bytes> {
    let (status, code) = status_and_code(error);
    let mut problem = Problem::new(status, code, detail(error));
    problem.tracking_id = status.is_server_error().then(Uuid::new_v4);
    if let Some(id) = problem.tracking_id {
        log(error, id);
    }
    match error {
        ApiError::InvalidBody(errors) => problem.errors.clone_from(errors),
        ApiError::NotFound(Missing::Gateway(Some(pointer))) => {
            problem.errors.push(at(pointer, "there is no such gateway"))
        }
        ApiError::UnknownEventType(_) => problem.errors.push(at("/type", "is not a registered event type")),
        ApiError::InvalidParameter { name, expected } => problem.errors.push(at(name, expected)),
        ApiError::PreconditionFailed { head } => problem.head = Some(head.to_string()),
        _ => {}
    }
    let mut response = problem.into_response();
    response.headers_mut().extend(headers(error));
    response
}

/// The map itself.
fn status_and_code(error: &ApiError) -> (StatusCode, &'static str) {
    match error {
        ApiError::InvalidJson(_) => (StatusCode::BAD_REQUEST, "INVALID_JSON"),
        ApiError::InvalidBody(_) => (StatusCode::BAD_REQUEST, "VALIDATION_FAILED"),
        ApiError::InvalidParameter { .. } => (StatusCode::BAD_REQUEST, "INVALID_PARAMETER"),
        ApiError::InvalidCursor => (StatusCode::BAD_REQUEST, "INVALID_CURSOR"),
        ApiError::IncompleteBody => (StatusCode::BAD_REQUEST, "INCOMPLETE_BODY"),
        ApiError::UnknownEventType(_) => (StatusCode::BAD_REQUEST, "UNKNOWN_EVENT_TYPE"),
        ApiError::Unauthorized => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
        ApiError::Forbidden => (StatusCode::FORBIDDEN, "FORBIDDEN"),
        ApiError::CrossSite => (StatusCode::FORBIDDEN, "CROSS_SITE"),
        ApiError::NotFound(missing) => (StatusCode::NOT_FOUND, missing.code()),
        ApiError::MethodNotAllowed { .. } => (StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED"),
        ApiError::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "BODY_TIMEOUT"),
        ApiError::NameTaken => (StatusCode::CONFLICT, "NAME_TAKEN"),
        ApiError::CertificateNameTaken(_) => (StatusCode::CONFLICT, "CERTIFICATE_NAME_TAKEN"),
        ApiError::TooManyTokens { .. } => (StatusCode::CONFLICT, "TOO_MANY_TOKENS"),
        ApiError::BuiltInType => (StatusCode::CONFLICT, "BUILT_IN_TYPE"),
        ApiError::TooManyEventTypes { .. } => (StatusCode::CONFLICT, "TOO_MANY_EVENT_TYPES"),
        ApiError::PreconditionFailed { .. } => (StatusCode::PRECONDITION_FAILED, "PRECONDITION_FAILED"),
        ApiError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE"),
        ApiError::UnsupportedMediaType { .. } => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE"),
        ApiError::UpgradeRequired => (StatusCode::UPGRADE_REQUIRED, "UPGRADE_REQUIRED"),
        ApiError::UnsupportedVersion => (StatusCode::UPGRADE_REQUIRED, "UNSUPPORTED_VERSION"),
        ApiError::RateLimited { .. } => (StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED"),
        ApiError::CapacityExceeded => (StatusCode::SERVICE_UNAVAILABLE, "CAPACITY_EXCEEDED"),
        ApiError::Draining => (StatusCode::SERVICE_UNAVAILABLE, "DRAINING"),
        ApiError::StoreFull => (StatusCode::SERVICE_UNAVAILABLE, "STORE_FULL"),
        ApiError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
    }
}

/// Words for people; nothing internal, nothing secret.
fn detail(error: &ApiError) -> String {
    match error {
        ApiError::InvalidJson(detail) => format!("The body is not valid JSON: {detail}."),
        ApiError::InvalidBody(_) => "The body is not valid; errors says where.".to_owned(),
        ApiError::InvalidParameter { name, expected } => format!("The parameter {name} must be {expected}."),
        ApiError::InvalidCursor => {
            "A cursor is the eventId of an event, or one of earliest, latest and stored.".to_owned()
        }
        ApiError::IncompleteBody => "The body ended before it was complete.".to_owned(),
        ApiError::UnknownEventType(kind) => {
            format!("There is no event type {kind}; register it, or check the spelling.")
        }
        ApiError::Unauthorized => "A valid credential is required.".to_owned(),
        ApiError::Forbidden => "The credential is valid, but not for this gateway.".to_owned(),
        ApiError::CrossSite => {
            "A browser may call this from the dashboard only; programs send Authorization: Bearer. A server without an admin \
             token is asked as localhost only."
                .to_owned()
        }
        ApiError::NotFound(missing) => missing.detail().to_owned(),
        ApiError::MethodNotAllowed { allow } => format!("This path takes {allow}."),
        ApiError::BodyTimeout => "The body did not arrive in time.".to_owned(),
        ApiError::NameTaken => "The organization has another gateway of this name.".to_owned(),
        ApiError::CertificateNameTaken(name) => format!("Certificates named {name} are another gateway's."),
        ApiError::TooManyTokens { max } => {
            format!("The gateway has {max} active tokens, the most it may have; revoke one first.")
        }
        ApiError::BuiltInType => "This event type is built in; it cannot be changed or deleted.".to_owned(),
        ApiError::TooManyEventTypes { max } => {
            format!("There are {max} event types, the most there may be; delete one first.")
        }
        ApiError::PreconditionFailed { head } => format!("The newest event of the gateway is {head}."),
        ApiError::TooLarge { limit } => format!("At most {limit} bytes are taken."),
        ApiError::UnsupportedMediaType { expected } => format!("The body must be {expected}."),
        ApiError::UpgradeRequired => "This path takes WebSocket upgrades only.".to_owned(),
        ApiError::UnsupportedVersion => "WebSocket version 13 is the only one taken.".to_owned(),
        ApiError::RateLimited { .. } => "Too many attempts; retry later.".to_owned(),
        ApiError::CapacityExceeded => "The server has as many connections as it may have; retry later.".to_owned(),
        ApiError::Draining => "The server is about to stop; retry later.".to_owned(),
        ApiError::StoreFull => "The server has no room to store this now; retry later.".to_owned(),
        ApiError::Unavailable(_) => "The server cannot do this now; retry later.".to_owned(),
    }
}

fn headers(error: &ApiError) -> Vec<(HeaderName, HeaderValue)> {
    let fixed = HeaderValue::from_static;
    match error {
        ApiError::Unauthorized => vec![(WWW_AUTHENTICATE, fixed("Bearer"))],
        ApiError::MethodNotAllowed { allow } => {
            HeaderValue::from_str(allow).map(|allow| vec![(ALLOW, allow)]).unwrap_or_default()
        }
        // What follows on this connection is the rest of a body that nobody reads.
        ApiError::BodyTimeout => vec![(CONNECTION, fixed("close"))],
        // RFC 9110 § 15.5.22: a 426 always says to what.
        ApiError::UpgradeRequired => vec![(UPGRADE, fixed("websocket")), (CONNECTION, fixed("upgrade"))],
        ApiError::UnsupportedVersion => {
            vec![(UPGRADE, fixed("websocket")), (CONNECTION, fixed("upgrade")), (SEC_WEBSOCKET_VERSION, fixed("13"))]
        }
        ApiError::RateLimited { retry_after } => {
            let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
            vec![(RETRY_AFTER, HeaderValue::from(seconds.max(1) + u64::from(random_of(RATE_JITTER_SECONDS))))]
        }
        ApiError::CapacityExceeded | ApiError::Draining | ApiError::StoreFull | ApiError::Unavailable(_) => {
            vec![(RETRY_AFTER, HeaderValue::from(random_of(RETRY_SECONDS)))]
        }
        _ => Vec::new(),
    }
}

/// Full and draining are states, logged where they begin; one line for each refusal would be a flood.
fn log(error: &ApiError, id: Uuid) {
    match error {
        ApiError::Unavailable(cause) if cause.is::<TimedOut>() => warn!(tracking.id = %id, %cause, "A call timed out."),
        ApiError::Unavailable(cause) => error!(tracking.id = %id, %cause, "A call failed."),
        _ => debug!(tracking.id = %id, ?error, "A call was refused for now."),
    }
}

/// Without randomness the answer is the lower bound: worse spread, still right.
fn random_of(range: std::ops::RangeInclusive<u32>) -> u32 {
    let span = range.end() - range.start() + 1;
    range.start() + getrandom::u32().unwrap_or(0) % span
}

fn at(field: &str, message: &str) -> FieldError {
    FieldError { field: field.to_owned(), message: message.to_owned() }
}

impl Missing {
    fn code(&self) -> &'static str {
        match self {
            Self::Path | Self::Unsupported => "NOT_FOUND",
            Self::Gateway(_) => "GATEWAY_NOT_FOUND",
            Self::Token => "TOKEN_NOT_FOUND",
            Self::Api => "API_NOT_FOUND",
            Self::Deployment => "DEPLOYMENT_NOT_FOUND",
            Self::EventType => "EVENT_TYPE_NOT_FOUND",
            Self::Event => "EVENT_NOT_FOUND",
        }
    }

    fn detail(&self) -> &'static str {
        match self {
            Self::Path => "Nothing is served at this path.",
            Self::Unsupported => "This server has no such resource.",
            Self::Gateway(_) => "There is no such gateway.",
            Self::Token => "The gateway has no such token.",
            Self::Api => "There is no such API, or none that may be seen with this credential.",
            Self::Deployment => "Nothing is deployed to this gateway.",
            Self::EventType => "There is no such event type.",
            Self::Event => "There is no such event, or it is no longer held.",
        }
    }
}

impl ApiError {
    /// There is no gateway of the id in the path.
    pub(crate) fn no_gateway() -> Self {
        Self::NotFound(Missing::Gateway(None))
    }

    /// One thing is wrong with the body.
    pub(crate) fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::InvalidBody(vec![FieldError { field: field.into(), message: message.into() }])
    }

    /// Whether the events of a call that failed may be stored all the same, which only the next start knows.
    pub(crate) fn may_be_stored(&self) -> bool {
        matches!(self, Self::Unavailable(cause) if cause.downcast_ref().is_some_and(StoreError::may_be_stored))
    }

    /// The store did not answer in time.
    #[must_use]
    pub fn timeout() -> Self {
        Self::Unavailable(Box::new(TimedOut))
    }

    /// Its stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        status_and_code(self).1
    }

    /// Its stable code, for an answer that holds several results. A 5xx is logged, as [`problem`] does it.
    pub(crate) fn logged_code(&self) -> &'static str {
        let (status, code) = status_and_code(self);
        if status.is_server_error() {
            log(self, Uuid::new_v4());
        }
        code
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::CrossSite => Self::CrossSite,
            AuthError::Missing
            | AuthError::Unknown
            | AuthError::Revoked
            | AuthError::Expired
            | AuthError::Address
            | AuthError::OtherCertificate
            | AuthError::SeveralGateways => Self::Unauthorized,
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => Self::StoreFull,
            other => Self::Unavailable(Box::new(other)),
        }
    }
}

impl From<RandomSourceFailed> for ApiError {
    fn from(error: RandomSourceFailed) -> Self {
        Self::Unavailable(Box::new(error))
    }
}

impl From<LogError> for ApiError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Conflict { head } => Self::PreconditionFailed { head },
            LogError::Store(error) => error.into(),
            other => Self::Unavailable(Box::new(other)),
        }
    }
}

impl From<DirectoryError> for ApiError {
    fn from(error: DirectoryError) -> Self {
        match error {
            DirectoryError::NameTaken => Self::NameTaken,
            DirectoryError::CertificateNameTaken(name) => Self::CertificateNameTaken(name),
            DirectoryError::NoSuchGateway(GatewayId(_)) => Self::no_gateway(),
            DirectoryError::TooManyTokens { max } => Self::TooManyTokens { max },
            DirectoryError::NotFound => Self::NotFound(Missing::Token),
            DirectoryError::Store(error) => error.into(),
            // A random id that is in use is trouble that a retry cures.
            other => Self::Unavailable(Box::new(other)),
        }
    }
}

impl From<PublishError> for ApiError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::UnknownType(kind) => Self::UnknownEventType(kind.to_string()),
            PublishError::Invalid(faults) => Self::InvalidBody(faults.into_iter().map(FieldError::from).collect()),
            PublishError::TooLarge { limit, .. } => Self::TooLarge { limit },
            PublishError::Log(error) => error.into(),
            PublishError::KeyReused => {
                Self::InvalidParameter { name: "Idempotency-Key", expected: "used for one body only".to_owned() }
            }
        }
    }
}

impl From<Fault> for FieldError {
    fn from(fault: Fault) -> Self {
        Self { field: fault.pointer, message: fault.message }
    }
}
