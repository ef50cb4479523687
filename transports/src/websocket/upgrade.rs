//! The opening handshake (RFC 6455 § 4.2). No extension and no subprotocol is ever agreed to.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use warp::reply::Response;

use crate::handshake::HandshakeError;
use crate::request;

/// Checks a request (RFC 6455 § 4.2.1) and gives the value of `Sec-WebSocket-Accept`.
///
/// # Errors
/// What is missing, in the order in which a client can do something about it.
pub(super) fn check(headers: &HeaderMap) -> Result<HeaderValue, HandshakeError> {
    if !lists(headers, CONNECTION, "upgrade") || !lists(headers, UPGRADE, "websocket") {
        return Err(HandshakeError::UpgradeRequired);
    }
    let mut versions = headers.get_all(SEC_WEBSOCKET_VERSION).iter();
    if versions.next().is_none_or(|version| version != "13") || versions.next().is_some() {
        return Err(HandshakeError::UnsupportedVersion);
    }
    accept(headers)
        .ok_or(HandshakeError::InvalidParameter { name: "Sec-WebSocket-Key", expected: "16 bytes as base64, once" })
}

/// `101 Switching Protocols`.
pub(super) fn switching_protocols(accept: HeaderValue) -> Response {
    let mut answer = request::status(StatusCode::SWITCHING_PROTOCOLS);
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    answer.map(Into::into)
}

fn accept(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let key = keys.next().filter(|_| keys.next().is_none())?.as_bytes().trim_ascii();
    STANDARD.decode(key).ok().filter(|nonce| nonce.len() == NONCE_BYTES)?;
    HeaderValue::try_from(derive_accept_key(key)).ok()
}

/// Whether a header holds a token in its comma-separated lists (RFC 9110 § 5.6.1), in any case.
fn lists(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let mut lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines.any(|line| line.split(',').any(|item| item.trim().eq_ignore_ascii_case(token)))
}

const NONCE_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn check_with(changes: &[(&'static str, &'static str)]) -> Result<HeaderValue, HandshakeError> {
        let mut headers = HeaderMap::new();
        let good = [
            ("connection", "keep-alive, UpGrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        for (name, value) in good.iter().chain(changes) {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        check(&headers)
    }

    #[test]
    fn accept_key_is_the_one_of_rfc_6455_section_1_3() {
        assert_eq!(check_with(&[]).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn what_is_no_upgrade_is_named() {
        assert_eq!(check_with(&[("connection", "close")]), Err(HandshakeError::UpgradeRequired));
        assert_eq!(check_with(&[("upgrade", "h2c")]), Err(HandshakeError::UpgradeRequired));
        assert_eq!(check_with(&[("sec-websocket-version", "8")]), Err(HandshakeError::UnsupportedVersion));
        for key in ["", "dGhlIHNhbXBsZQ==", "not base64 at all !!!!!!"] {
            let error = check_with(&[("sec-websocket-key", key)]).unwrap_err();
            assert!(matches!(error, HandshakeError::InvalidParameter { .. }), "{key}");
        }
    }
}
