//! What a request to connect says, read the same way for every transport (CONTRACT.md § 3).

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE};

use crate::query::Query;
use crate::transport::Liveness;

/// Facts about the socket under a request, put into its extensions (as `Arc<ConnInfo>`) by the accept loop.
#[derive(Debug, Clone)]
pub struct ConnInfo {
    /// The other end of the socket: the peer, or a proxy.
    pub peer: SocketAddr,
    /// The names of the client certificate that it presented and that was verified.
    pub certificate_names: Arc<[Box<str>]>,
}

impl ConnInfo {
    /// A peer without a certificate.
    #[must_use]
    pub fn of(peer: SocketAddr) -> Self {
        Self { peer, certificate_names: Arc::default() }
    }
}

/// A credential as it was presented. Shows nothing of itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a credential.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The credential, for checking.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A request to connect.
#[derive(Debug, Clone)]
pub struct Handshake {
    /// The transport's name.
    pub transport: &'static str,
    /// How it notices a dead peer.
    pub liveness: Liveness,
    /// The other end of the socket.
    pub peer: SocketAddr,
    /// As in [`ConnInfo::certificate_names`].
    pub certificate_names: Arc<[Box<str>]>,
    /// `X-Forwarded-For`, all lines joined by commas; trusted or not is the server's to say.
    pub forwarded_for: Option<String>,
    /// `Forwarded` (RFC 7239), all lines joined by commas.
    pub forwarded: Option<String>,
    /// `api-key`, or the bearer token of `Authorization`.
    pub credential: Option<Secret>,
    /// `Last-Event-ID`, or else `?lastEventId=`; empty counts as absent.
    pub cursor: Option<String>,
    /// `gateway-instance`, or else `?instance=`.
    pub instance: Option<String>,
    /// `?connectionId=`: the connection that a poll renews.
    pub connection: Option<String>,
    /// `?gatewayId=`: whose stream is asked for, by a peer that may see several.
    pub gateway: Option<String>,
    /// `Cookie`, all lines joined by semicolons: how browsers present credentials.
    pub cookie: Option<Secret>,
}

impl Handshake {
    /// Reads a request. `query` is raw, as it stood after the question mark.
    ///
    /// A header that comes twice is ambiguous: an `api-key` or `Authorization` that does counts as no credential at
    /// all, any other is an error. A secret in the query string is never read: it would end in access logs.
    ///
    /// # Errors
    /// [`HandshakeError::InvalidParameter`] for a cursor or an instance out of bounds.
    pub fn read(
        transport: &'static str,
        liveness: Liveness,
        info: &ConnInfo,
        headers: &HeaderMap,
        query: &str,
    ) -> Result<Self, HandshakeError> {
        Self::read_parsed(transport, liveness, info, headers, &Query::parse(query))
    }

    pub(crate) fn read_parsed(
        transport: &'static str,
        liveness: Liveness,
        info: &ConnInfo,
        headers: &HeaderMap,
        query: &Query,
    ) -> Result<Self, HandshakeError> {
        let cursor = either(headers, query, CURSOR, "lastEventId")?;
        let instance = either(headers, query, INSTANCE, "instance")?;
        let connection = query.get("connectionId")?.map(str::to_owned);
        let gateway = query.get("gatewayId")?.map(str::to_owned);
        Ok(Self {
            transport,
            liveness,
            peer: info.peer,
            certificate_names: info.certificate_names.clone(),
            forwarded_for: forwarded_for(headers),
            forwarded: forwarded(headers),
            credential: credential(headers),
            cursor: checked(cursor, "lastEventId", is_cursor, "at most 256 bytes without control characters")?,
            instance: checked(instance, "instance", is_name, "1 to 128 visible ASCII characters")?,
            connection: checked(connection, "connectionId", is_name, "1 to 128 visible ASCII characters")?,
            gateway: checked(gateway, "gatewayId", is_name, "1 to 128 visible ASCII characters")?,
            cookie: joined(headers, COOKIE.as_str(), "; ").map(Secret::new),
        })
    }
}

/// A request that is no handshake of its transport. Says what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandshakeError {
    /// Not a WebSocket upgrade: 426 with `Upgrade: websocket`, RFC 9110 § 15.5.22.
    UpgradeRequired,
    /// The path does not take the method: 405 with `Allow`, RFC 9110 § 15.5.6.
    MethodNotAllowed {
        /// The methods that it takes.
        allow: &'static str,
    },
    /// A WebSocket version other than 13: 426 with `Sec-WebSocket-Version: 13`, RFC 6455 § 4.4.
    UnsupportedVersion,
    /// A query parameter or header is malformed: 400.
    InvalidParameter {
        /// Its name.
        name: &'static str,
        /// What it must be.
        expected: &'static str,
    },
}

/// `api-key` if there is one, else the bearer token.
fn credential(headers: &HeaderMap) -> Option<Secret> {
    let secret = if headers.contains_key(API_KEY) {
        sole(headers, API_KEY)?.trim()
    } else {
        let (scheme, token) = sole(headers, AUTHORIZATION.as_str())?.split_once(' ')?;
        // RFC 9110 § 11.1: the scheme is case-insensitive.
        Some(token.trim()).filter(|_| scheme.eq_ignore_ascii_case("bearer"))?
    };
    Some(secret).filter(|text| !text.is_empty()).map(Secret::new)
}

/// A header's only value, if it has exactly one and that is ASCII text.
fn sole<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

/// A header, or else a query parameter; empty counts as absent.
fn either(
    headers: &HeaderMap,
    query: &Query,
    header: &str,
    parameter: &'static str,
) -> Result<Option<String>, HandshakeError> {
    let mut values = headers.get_all(header).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(HandshakeError::InvalidParameter { name: parameter, expected: "to be given once" });
    }
    match value.map(|value| std::str::from_utf8(value.as_bytes()).map(str::trim)) {
        Some(Err(_)) => Err(HandshakeError::InvalidParameter { name: parameter, expected: "UTF-8 text" }),
        Some(Ok(text)) if !text.is_empty() => Ok(Some(text.to_owned())),
        _ => Ok(query.get(parameter)?.map(str::to_owned)),
    }
}

fn checked(
    value: Option<String>,
    name: &'static str,
    good: fn(&str) -> bool,
    expected: &'static str,
) -> Result<Option<String>, HandshakeError> {
    match value {
        Some(text) if !good(&text) => Err(HandshakeError::InvalidParameter { name, expected }),
        other => Ok(other),
    }
}

fn is_cursor(text: &str) -> bool {
    text.len() <= CURSOR_BYTES_MAX && !text.chars().any(char::is_control)
}

fn is_name(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// `X-Forwarded-For`, all lines joined by commas.
#[must_use]
pub fn forwarded_for(headers: &HeaderMap) -> Option<String> {
    joined(headers, "x-forwarded-for", ",")
}

/// `Forwarded` (RFC 7239), all lines joined by commas.
#[must_use]
pub fn forwarded(headers: &HeaderMap) -> Option<String> {
    joined(headers, "forwarded", ",")
}

/// All lines of a header as one list (RFC 9110 § 5.3). What is not UTF-8 is kept as replacement characters: leaving
/// it out would shift the hops, and a shifted hop is a forged address.
fn joined(headers: &HeaderMap, name: &str, by: &str) -> Option<String> {
    let lines: Vec<_> = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    if lines.is_empty() { None } else { Some(lines.join(by)) }
}

/// The headers that a handshake is read from.
pub(crate) const HEADERS: [&str; 6] = [API_KEY, "authorization", CURSOR, INSTANCE, "x-forwarded-for", "forwarded"];
const API_KEY: &str = "api-key";
const CURSOR: &str = "last-event-id";
const INSTANCE: &str = "gateway-instance";
const CURSOR_BYTES_MAX: usize = 256;
const NAME_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests;
