//! What every attempt of one client shares: address, secret, trust, limits.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use reqwest::redirect;

use super::api_key::ApiKey;
use super::endpoint::Endpoint;
use super::tls::{self, Identity, TlsError, Trust};

/// TCP and TLS together.
pub(super) const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// From the request to the answer's head.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// From the connection to its acknowledgement, as the real gateway client has it (CONTRACT.md § 8).
pub(super) const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// From the wish to leave to the server's consent: who leaves on a signal does not wait long.
pub(super) const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
/// A server is dead after this long without a byte.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(35);
/// One write to the socket.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Names one replica of a gateway.
const INSTANCE: HeaderName = HeaderName::from_static("gateway-instance");
/// The gateway's secret.
pub(super) const API_KEY: HeaderName = HeaderName::from_static("api-key");
/// The cursor, on every transport.
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Shared by all attempts.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) endpoint: Endpoint,
    pub(super) http: reqwest::Client,
    pub(super) tls: Arc<rustls::ClientConfig>,
    /// `None` for who is proven by a certificate.
    pub(super) api_key: Option<ApiKey>,
    instance: Option<HeaderValue>,
}

impl Link {
    pub(super) fn new(
        endpoint: Endpoint,
        api_key: Option<ApiKey>,
        instance: Option<HeaderValue>,
        (trust, identity): (&Trust, Option<&Identity>),
    ) -> Result<Self, LinkError> {
        let tls = tls::client_config(trust, identity)?;
        let http = http_client(&tls)?;
        Ok(Self { endpoint, http, tls, api_key, instance })
    }

    /// The headers of every connect request.
    pub(super) fn headers(&self, cursor: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(api_key) = &self.api_key {
            headers.insert(API_KEY, api_key.header());
        }
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        if let Some(instance) = &self.instance {
            headers.insert(INSTANCE, instance.clone());
        }
        // A cursor that no header can carry came from a server and is dropped: the server will then say where we are.
        if let Some(cursor) = cursor.and_then(|cursor| HeaderValue::from_str(cursor).ok()) {
            headers.insert(LAST_EVENT_ID, cursor);
        }
        headers
    }
}

pub(super) const USER_AGENT: &str = concat!("gatecast/", env!("CARGO_PKG_VERSION"));

/// A client that never follows a redirect (it would carry the secret elsewhere) and never takes a proxy from the
/// environment.
pub(crate) fn http_client(tls: &Arc<rustls::ClientConfig>) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls.as_ref().clone())
        .redirect(redirect::Policy::none())
        .no_proxy()
        .http1_only()
        .connect_timeout(DIAL_TIMEOUT)
        .user_agent(USER_AGENT)
        .build()
}

/// The client cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] TlsError),
    /// The HTTP client cannot be set up.
    #[error("HTTP cannot be set up: {0}")]
    Http(#[from] reqwest::Error),
}
