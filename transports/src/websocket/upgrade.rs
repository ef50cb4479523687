//! The opening handshake (RFC 6455 § 4.2). No extension and no subprotocol is ever agreed to.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use http::header::{CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderValue, Response, StatusCode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::handshake::HandshakeError;
use crate::request;

/// Checks a request's headers (RFC 6455 § 4.2.1), names and values, and gives the value of `Sec-WebSocket-Accept`.
///
/// # Errors
/// What is missing, in the order in which a client can do something about it.
pub(super) fn check<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Result<HeaderValue, HandshakeError> {
    let (mut connection, mut upgrade) = (false, false);
    let (mut version, mut key) = (Once::default(), Once::default());
    for (name, value) in headers {
        let is = |known: HeaderName| known.as_str().eq_ignore_ascii_case(name);
        if is(CONNECTION) {
            connection |= lists(value, "upgrade");
        } else if is(UPGRADE) {
            upgrade |= lists(value, "websocket");
        } else if is(SEC_WEBSOCKET_VERSION) {
            version.take(value);
        } else if is(SEC_WEBSOCKET_KEY) {
            key.take(value);
        }
    }
    if !connection || !upgrade {
        return Err(HandshakeError::UpgradeRequired);
    }
    if version.value() != Some(b"13") {
        return Err(HandshakeError::UnsupportedVersion);
    }
    key.value()
        .and_then(accept)
        .ok_or(HandshakeError::InvalidParameter { name: "Sec-WebSocket-Key", expected: "16 bytes as base64, once" })
}

/// `101 Switching Protocols`.
pub(super) fn switching_protocols(accept: HeaderValue) -> Response<Bytes> {
    let mut answer = request::status(StatusCode::SWITCHING_PROTOCOLS);
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    answer
}

/// The value of a header that may be given once.
#[derive(Default)]
struct Once<'a> {
    first: Option<&'a [u8]>,
    again: bool,
}

impl<'a> Once<'a> {
    fn take(&mut self, value: &'a [u8]) {
        self.again |= self.first.replace(value).is_some();
    }

    fn value(&self) -> Option<&'a [u8]> {
        self.first.filter(|_| !self.again)
    }
}

fn accept(key: &[u8]) -> Option<HeaderValue> {
    let key = key.trim_ascii();
    BASE64.decode(key).ok().filter(|nonce| nonce.len() == NONCE_BYTES)?;
    HeaderValue::try_from(derive_accept_key(key)).ok()
}

/// Whether a comma-separated list (RFC 9110 § 5.6.1) holds a token, in any case.
fn lists(value: &[u8], token: &str) -> bool {
    value.split(|byte| *byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// 22 characters hold 132 bits, 16 bytes 128. What the other four are is nobody's business (RFC 4648 § 3.5), and there is a
/// client that draws all 22 at random.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));
const NONCE_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn check_with(changes: &[(&'static str, &'static str)]) -> Result<HeaderValue, HandshakeError> {
        let good = [
            ("Connection", "keep-alive, UpGrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let kept = good.iter().filter(|(name, _)| changes.iter().all(|(other, _)| !other.eq_ignore_ascii_case(name)));
        check(kept.chain(changes).map(|(name, value)| (*name, value.as_bytes())))
    }

    #[test]
    fn accept_key_is_the_one_of_rfc_6455_section_1_3() {
        assert_eq!(check_with(&[]).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_key_may_have_bits_that_mean_nothing() {
        assert!(check_with(&[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZZ==")]).is_ok());
    }

    #[test]
    fn what_is_no_upgrade_is_named() {
        assert_eq!(check_with(&[("connection", "close")]), Err(HandshakeError::UpgradeRequired));
        assert_eq!(check_with(&[("upgrade", "h2c")]), Err(HandshakeError::UpgradeRequired));
        assert_eq!(check_with(&[("sec-websocket-version", "8")]), Err(HandshakeError::UnsupportedVersion));
        let twice = [("sec-websocket-version", "13"), ("sec-websocket-version", "13")];
        assert_eq!(check_with(&twice), Err(HandshakeError::UnsupportedVersion));
        for key in ["", "dGhlIHNhbXBsZQ==", "not base64 at all !!!!!!"] {
            let error = check_with(&[("sec-websocket-key", key)]).unwrap_err();
            assert!(matches!(error, HandshakeError::InvalidParameter { .. }), "{key}");
        }
    }
}
