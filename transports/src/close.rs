//! Why a connection ends, and how each transport says so (CONTRACT.md § 7).

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The server drains; the peer shall come back in its own slot.
    Shutdown {
        /// Milliseconds to wait before reconnecting.
        reconnect_after_ms: u64,
    },
    /// The token was revoked.
    TokenRevoked,
    /// The token ran out.
    TokenExpired,
    /// The gateway was deleted.
    GatewayDeleted,
    /// No sign of life within the limit.
    NoLife,
    /// Another poll of the same connection took over (long-poll only).
    Superseded,
}
