//! The secret that a gateway connects with.

use std::fmt;

use http::HeaderValue;
use http::header::InvalidHeaderValue;

/// A gateway's token. Its `Debug` shows nothing, and there is no `Display`.
#[derive(Clone)]
pub struct ApiKey(HeaderValue);

/// The text cannot be a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an API key is 1 to 512 visible ASCII characters")]
pub struct InvalidApiKey;

impl ApiKey {
    /// Checks that a header can carry the text.
    ///
    /// # Errors
    /// If it cannot; the error does not contain the text.
    pub fn parse(text: &str) -> Result<Self, InvalidApiKey> {
        let text = text.trim();
        if text.is_empty() || text.len() > 512 || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(InvalidApiKey);
        }
        let mut value = HeaderValue::from_str(text).map_err(|_| InvalidApiKey)?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }

    /// The other header that a server takes the token from.
    pub(super) fn bearer(&self) -> Result<HeaderValue, InvalidHeaderValue> {
        let mut value = HeaderValue::from_bytes(&[b"Bearer ", self.0.as_bytes()].concat())?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_and_headers_cannot_be_split() {
        assert_eq!(format!("{:?}", ApiKey::parse("abc").unwrap()), "ApiKey(..)");
        assert!(ApiKey::parse("a\r\nb: c").is_err() && ApiKey::parse("").is_err());
    }
}
