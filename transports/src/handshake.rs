//! What a request to connect says, read the same way for every transport (CONTRACT.md § 3).

use std::fmt;
use std::net::SocketAddr;

use crate::transport::Liveness;

/// Facts about the socket under a request, put into its extensions (as `Arc<ConnInfo>`) by the accept loop.
#[derive(Debug, Clone, Copy)]
pub struct ConnInfo {
    /// The other end of the socket: the peer, or a proxy.
    pub peer: SocketAddr,
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
}

/// A request that is no handshake of its transport. Says what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandshakeError {
    /// Not a WebSocket upgrade: 426 with `Upgrade: websocket`, RFC 9110 § 15.5.22.
    UpgradeRequired,
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
