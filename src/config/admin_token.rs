//! The secret that admin and publishing calls carry.

use std::fmt;
use std::ops::RangeInclusive;

use super::value::ValueError;

/// An admin token. Its `Debug` shows nothing, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken(String);

/// Bytes of a token.
const LENGTH: RangeInclusive<usize> = 1..=512;

impl AdminToken {
    /// Checks that the text can be a bearer token: 1 to 512 visible ASCII characters.
    ///
    /// # Errors
    /// If it cannot; the error does not contain the text.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        if !LENGTH.contains(&text.len()) {
            return Err(ValueError::Other(format!("must have {} to {} characters", LENGTH.start(), LENGTH.end())));
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(ValueError::Other("must be visible ASCII without spaces".to_owned()));
        }
        Ok(Self(text.to_owned()))
    }

    /// The secret itself: for hashing, and for the header that carries it. Never log it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        let token = AdminToken::parse("correct-horse-battery").unwrap();
        assert_eq!(format!("{token:?}"), "AdminToken(..)");
    }

    #[test]
    fn what_a_header_cannot_carry_is_refused_without_showing_it() {
        for text in
            ["has a space in the middle", "line\nbreak-line\nbreak", "ünïcödé-ünïcödé-ünïcödé", &"x".repeat(513)]
        {
            let fault = AdminToken::parse(text).unwrap_err().to_string();
            assert!(!fault.contains(text), "{fault}");
        }
    }
}
