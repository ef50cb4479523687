//! What a request to connect says, read the same way for every transport (CONTRACT.md § 3).

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE, HOST};

use crate::host;
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
#[derive(Clone)]
pub struct Secret(Box<str>);

impl Secret {
    /// Wraps a credential.
    #[must_use]
    pub fn new(text: impl Into<Box<str>>) -> Self {
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
    /// `Last-Event-ID`, or else `?lastEventId=`, as it came, which may be no cursor; empty counts as absent. More than one
    /// are joined by commas, and what is not UTF-8 is replaced: neither makes a cursor, and who may ask is looked at first.
    pub cursor: Option<String>,
    /// `gateway-instance`, or else `?instance=`.
    pub instance: Option<String>,
    /// `?connectionId=`: the connection that a poll renews.
    pub connection: Option<String>,
    /// `?gatewayId=`: whose stream is asked for, by a peer that may see several.
    pub gateway: Option<String>,
    /// `Cookie`, all lines joined by semicolons: how browsers present credentials.
    pub cookie: Option<Secret>,
    /// `Sec-Fetch-Site` (Fetch Metadata), all lines joined by commas: from where a browser asks.
    pub fetch_site: Option<String>,
    /// `Host`, if there is one, [is a name of this machine](host::is_loopback) for itself.
    pub is_asked_as_loopback: bool,
}

impl Handshake {
    /// Reads a request. `query` is raw, as it stood after the question mark.
    ///
    /// A header that comes twice is ambiguous: an `api-key` or `Authorization` that does counts as no credential at
    /// all, any other is an error. A secret in the query string is never read: it would end in access logs.
    ///
    /// # Errors
    /// [`HandshakeError::InvalidParameter`] for an instance, a connection or a gateway out of bounds.
    pub fn read(
        transport: &'static str,
        liveness: Liveness,
        info: &ConnInfo,
        headers: &HeaderMap,
        query: &str,
    ) -> Result<Self, HandshakeError> {
        Self::read_parsed(transport, liveness, info, &headers.into(), &Query::parse(query))
    }

    pub(crate) fn read_parsed(
        transport: &'static str,
        liveness: Liveness,
        info: &ConnInfo,
        headers: &Headers<'_>,
        query: &Query<'_>,
    ) -> Result<Self, HandshakeError> {
        let cursor =
            headers.cursor.joined(",").map(|text| text.trim_ascii().to_owned()).filter(|text| !text.is_empty());
        let instance = headers.instance.or(query, "instance")?;
        let connection = query.get("connectionId")?.map(str::to_owned);
        let gateway = query.get("gatewayId")?.map(str::to_owned);
        Ok(Self {
            transport,
            liveness,
            peer: info.peer,
            certificate_names: info.certificate_names.clone(),
            forwarded_for: headers.forwarded_for.joined(","),
            forwarded: headers.forwarded.joined(","),
            credential: headers.credential(),
            cursor: cursor.or_else(|| query.joined("lastEventId", ",")),
            instance: checked(instance, "instance", is_name, "1 to 128 visible ASCII characters")?,
            connection: checked(connection, "connectionId", is_name, "1 to 128 visible ASCII characters")?,
            gateway: checked(gateway, "gatewayId", is_name, "1 to 128 visible ASCII characters")?,
            cookie: headers.cookie.joined("; ").map(Secret::new),
            fetch_site: headers.fetch_site.joined(","),
            is_asked_as_loopback: headers
                .host
                .first
                .iter()
                .chain(&headers.host.more)
                .all(|value| host::is_loopback(value)),
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

/// The headers that a handshake is read from, whoever parsed them: each found in one pass over all.
#[derive(Default)]
pub(crate) struct Headers<'a> {
    api_key: Values<'a>,
    authorization: Values<'a>,
    cursor: Values<'a>,
    instance: Values<'a>,
    forwarded_for: Values<'a>,
    forwarded: Values<'a>,
    cookie: Values<'a>,
    fetch_site: Values<'a>,
    host: Values<'a>,
}

/// The values of one header, in order.
#[derive(Default)]
struct Values<'a> {
    first: Option<&'a [u8]>,
    more: Vec<&'a [u8]>,
}

impl<'a> Headers<'a> {
    pub(crate) fn find(all: impl Iterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut found = Self::default();
        for (name, value) in all {
            let Some(values) = found.named(name) else { continue };
            if values.first.is_none() {
                values.first = Some(value);
            } else {
                values.more.push(value);
            }
        }
        found
    }

    /// The cursor's value, if it is given once.
    pub(crate) fn cursor(&self) -> Option<&'a [u8]> {
        self.cursor.first.filter(|value| self.cursor.more.is_empty() && !value.is_empty())
    }

    fn named(&mut self, name: &str) -> Option<&mut Values<'a>> {
        let all = [
            (API_KEY, &mut self.api_key),
            (AUTHORIZATION.as_str(), &mut self.authorization),
            (CURSOR, &mut self.cursor),
            (INSTANCE, &mut self.instance),
            (FORWARDED_FOR, &mut self.forwarded_for),
            (FORWARDED, &mut self.forwarded),
            (COOKIE.as_str(), &mut self.cookie),
            (FETCH_SITE, &mut self.fetch_site),
            (HOST.as_str(), &mut self.host),
        ];
        all.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, values)| values)
    }

    /// `api-key` if there is one, else the bearer token.
    fn credential(&self) -> Option<Secret> {
        let secret = if self.api_key.first.is_some() {
            self.api_key.sole()?.trim_ascii()
        } else {
            let (scheme, token) = self.authorization.sole()?.split_once(' ')?;
            // RFC 9110 § 11.1: the scheme is case-insensitive.
            Some(token.trim_ascii()).filter(|_| scheme.eq_ignore_ascii_case("bearer"))?
        };
        Some(secret).filter(|text| !text.is_empty()).map(Secret::new)
    }
}

impl Values<'_> {
    /// The only value, if there is exactly one and that is visible ASCII.
    fn sole(&self) -> Option<&str> {
        let value = self.first.filter(|_| self.more.is_empty())?;
        let is_visible = value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
        std::str::from_utf8(value).ok().filter(|_| is_visible)
    }

    /// The value, or else a query parameter; empty counts as absent.
    fn or(&self, query: &Query<'_>, parameter: &'static str) -> Result<Option<String>, HandshakeError> {
        if !self.more.is_empty() {
            return Err(HandshakeError::InvalidParameter { name: parameter, expected: "given once" });
        }
        match self.first.map(|value| std::str::from_utf8(value).map(str::trim_ascii)) {
            Some(Err(_)) => Err(HandshakeError::InvalidParameter { name: parameter, expected: "UTF-8 text" }),
            Some(Ok(text)) if !text.is_empty() => Ok(Some(text.to_owned())),
            _ => Ok(query.get(parameter)?.map(str::to_owned)),
        }
    }

    /// All lines as one list (RFC 9110 § 5.3). What is not UTF-8 is kept as replacement characters: leaving it out would
    /// shift the hops, and a shifted hop is a forged address.
    fn joined(&self, by: &str) -> Option<String> {
        let mut list = String::from_utf8_lossy(self.first?).into_owned();
        for line in &self.more {
            list.push_str(by);
            list.push_str(&String::from_utf8_lossy(line));
        }
        Some(list)
    }
}

impl<'a> From<&'a HeaderMap> for Headers<'a> {
    fn from(headers: &'a HeaderMap) -> Self {
        Self::find(headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())))
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

fn is_name(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// `X-Forwarded-For`, all lines joined by commas.
#[must_use]
pub fn forwarded_for(headers: &HeaderMap) -> Option<String> {
    Headers::from(headers).forwarded_for.joined(",")
}

/// `Forwarded` (RFC 7239), all lines joined by commas.
#[must_use]
pub fn forwarded(headers: &HeaderMap) -> Option<String> {
    Headers::from(headers).forwarded.joined(",")
}

const API_KEY: &str = "api-key";
const CURSOR: &str = "last-event-id";
const INSTANCE: &str = "gateway-instance";
const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED: &str = "forwarded";
const FETCH_SITE: &str = "sec-fetch-site";
const NAME_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests;
