//! Why a connection ends, and how each transport says so: the one table (CONTRACT.md § 7).

use crate::transport::Frame;

/// Why a connection ends. The first group is the session's to say, the second the transports'.
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
    /// The gateway may no longer come from its address, or by its certificate.
    AccessWithdrawn,
    /// No sign of life within the limit.
    NoLife,
    /// Another poll of the same connection took over (long-poll only).
    Superseded,

    /// The peer closed: over WebSocket by a close frame, so it had no wish for more.
    PeerClosed,
    /// The socket broke or ended without a close frame, so what was on its way may not have arrived (WebSocket only).
    SocketBroken,
    /// The peer did not take what was written for [`Timing::write_stall`](crate::Timing::write_stall).
    WriteStalled,
    /// The upgraded socket never came (WebSocket only).
    UpgradeFailed,
    /// The peer broke RFC 6455.
    Protocol,
    /// The peer sent a binary message; only text is understood.
    NotText,
    /// The peer sent text that is not UTF-8.
    BadUtf8,
    /// The peer sent a message over the limit.
    TooBig,
}

/// How the three transports end a connection: one row of the table.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ending {
    /// WebSocket: close code (RFC 6455 § 7.4.1) and text of the close frame; `None` drops the socket without one.
    pub close: Option<(u16, &'static str)>,
    /// The last message: over SSE the last event, over WebSocket a text message before the close frame if
    /// [`Ending::spoken`], over long-poll the last of a reply's events if [`Ending::spoken`].
    pub last: Option<Frame>,
    /// Whether `last` is also said over WebSocket and long-poll, which otherwise have their codes for it
    /// (close code; the status of the next poll; a poll that is under way then ends with 204).
    pub spoken: bool,
    /// Whether the peer does well to come back.
    pub reconnect: bool,
}

impl CloseReason {
    /// Every short name there is: what counts endings can begin all of them at 0.
    pub const NAMES: [&'static str; 15] = [
        "shutdown",
        "token-revoked",
        "token-expired",
        "gateway-deleted",
        "access-withdrawn",
        "no-sign-of-life",
        "superseded",
        "peer-closed",
        "socket-broken",
        "write-stalled",
        "upgrade-failed",
        "protocol-error",
        "not-text",
        "bad-utf8",
        "too-big",
    ];

    /// The row of the table for this reason.
    #[must_use]
    pub fn ending(self) -> Ending {
        let code = |code, text, reconnect| Ending { close: Some((code, text)), last: None, spoken: false, reconnect };
        let refused = |text, name| Ending { last: Some(error(name)), ..code(POLICY, text, false) };
        match self {
            Self::Shutdown { reconnect_after_ms } => {
                let last = Some(goodbye(reconnect_after_ms));
                Ending { last, spoken: true, ..code(NORMAL, "server shutdown", true) }
            }
            Self::TokenRevoked => refused("token revoked", "TOKEN_REVOKED"),
            Self::TokenExpired => refused("token expired", "TOKEN_EXPIRED"),
            Self::GatewayDeleted => refused("gateway deleted", "GATEWAY_DELETED"),
            Self::AccessWithdrawn => refused("access withdrawn", "ACCESS_WITHDRAWN"),
            Self::NoLife => code(INTERNAL, "no sign of life", true),
            Self::Superseded => code(NORMAL, "superseded", true),
            Self::PeerClosed | Self::SocketBroken | Self::WriteStalled | Self::UpgradeFailed => {
                Ending { close: None, last: None, spoken: false, reconnect: true }
            }
            Self::Protocol => code(PROTOCOL, "protocol error", true),
            Self::NotText => code(UNSUPPORTED, "text messages only", true),
            Self::BadUtf8 => code(INVALID_DATA, "not UTF-8", true),
            Self::TooBig => code(TOO_BIG, "message too big", true),
        }
    }

    /// A short name, for statistics: public and stable; one of [`CloseReason::NAMES`].
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shutdown { .. } => "shutdown",
            Self::TokenRevoked => "token-revoked",
            Self::TokenExpired => "token-expired",
            Self::GatewayDeleted => "gateway-deleted",
            Self::AccessWithdrawn => "access-withdrawn",
            Self::NoLife => "no-sign-of-life",
            Self::Superseded => "superseded",
            Self::PeerClosed => "peer-closed",
            Self::SocketBroken => "socket-broken",
            Self::WriteStalled => "write-stalled",
            Self::UpgradeFailed => "upgrade-failed",
            Self::Protocol => "protocol-error",
            Self::NotText => "not-text",
            Self::BadUtf8 => "bad-utf8",
            Self::TooBig => "too-big",
        }
    }

    /// Whether not one more byte of an event may reach the peer (what [`Session::poll_cut`](crate::Session::poll_cut) resolves to).
    #[must_use]
    pub fn silences(self) -> bool {
        matches!(self, Self::TokenRevoked | Self::TokenExpired | Self::GatewayDeleted | Self::AccessWithdrawn)
    }
}

fn goodbye(ms: u64) -> Frame {
    let text = format!(r#"{{"type":"server.goodbye","reconnectAfterMs":{ms},"payload":{{"reconnectAfterMs":{ms}}}}}"#);
    Frame::new(None, "server.goodbye", text)
}

fn error(code: &str) -> Frame {
    Frame::new(None, "error", format!(r#"{{"type":"error","code":"{code}","payload":{{"code":"{code}"}}}}"#))
}

// RFC 6455 § 7.4.1.
const NORMAL: u16 = 1000;
const PROTOCOL: u16 = 1002;
const UNSUPPORTED: u16 = 1003;
const INVALID_DATA: u16 = 1007;
const POLICY: u16 = 1008;
const TOO_BIG: u16 = 1009;
const INTERNAL: u16 = 1011;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_the_reasons() {
        use CloseReason::*;
        let all = [
            Shutdown { reconnect_after_ms: 1 },
            TokenRevoked,
            TokenExpired,
            GatewayDeleted,
            AccessWithdrawn,
            NoLife,
            Superseded,
            PeerClosed,
            SocketBroken,
            WriteStalled,
            UpgradeFailed,
            Protocol,
            NotText,
            BadUtf8,
            TooBig,
        ];
        assert_eq!(all.map(CloseReason::as_str), CloseReason::NAMES);
    }

    #[test]
    fn goodbye_says_when_to_come_back_on_all_transports() {
        let ending = CloseReason::Shutdown { reconnect_after_ms: 42 }.ending();
        let text = r#"{"type":"server.goodbye","reconnectAfterMs":42,"payload":{"reconnectAfterMs":42}}"#;
        assert_eq!(ending.close, Some((1000, "server shutdown")));
        assert_eq!(ending.last.map(|frame| frame.text().to_string()).as_deref(), Some(text));
        assert!(ending.spoken && ending.reconnect);
    }

    #[test]
    fn whoever_is_silenced_gets_1008_and_stays_away() {
        let codes = [
            (CloseReason::TokenRevoked, "TOKEN_REVOKED"),
            (CloseReason::TokenExpired, "TOKEN_EXPIRED"),
            (CloseReason::GatewayDeleted, "GATEWAY_DELETED"),
            (CloseReason::AccessWithdrawn, "ACCESS_WITHDRAWN"),
        ];
        for (reason, code) in codes {
            let ending = reason.ending();
            assert!(reason.silences() && !ending.reconnect && !ending.spoken);
            assert_eq!(ending.close.map(|(code, _)| code), Some(1008));
            let text = format!(r#"{{"type":"error","code":"{code}","payload":{{"code":"{code}"}}}}"#);
            assert_eq!(ending.last.map(|frame| frame.text().to_string()), Some(text));
        }
    }
}
