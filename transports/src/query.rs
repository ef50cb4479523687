//! A query string: percent-decoded, every name at most once.

use std::borrow::Cow;

use crate::handshake::HandshakeError;

/// The parameters of a request (`application/x-www-form-urlencoded`, WHATWG URL § 5.1).
#[derive(Debug)]
pub(crate) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Decodes a query string. Never fails: what does not decode shows when it is asked for.
    pub(crate) fn parse(raw: &'a str) -> Self {
        if raw.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
            return Self(form_urlencoded::parse(raw.as_bytes()).collect());
        }
        let pairs = raw.split('&').filter(|pair| !pair.is_empty());
        Self(pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (k.into(), v.into())).collect())
    }

    /// A parameter; empty counts as absent.
    ///
    /// # Errors
    /// It is given twice (two readers of the request could disagree which one holds), or is not UTF-8.
    pub(crate) fn get(&self, name: &'static str) -> Result<Option<&str>, HandshakeError> {
        let mut values = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| &**value);
        let value = values.next();
        if values.next().is_some() {
            return Err(HandshakeError::InvalidParameter { name, expected: "given once" });
        }
        match value {
            // The decoder puts U+FFFD where bytes are not UTF-8.
            Some(text) if text.contains(char::REPLACEMENT_CHARACTER) => {
                Err(HandshakeError::InvalidParameter { name, expected: "UTF-8 text" })
            }
            other => Ok(other.filter(|text| !text.is_empty())),
        }
    }

    /// All values of a parameter as one list, whatever they are; empty counts as absent.
    pub(crate) fn joined(&self, name: &str, by: &str) -> Option<String> {
        let values: Vec<_> = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| &**value).collect();
        Some(values.join(by)).filter(|text| !text.is_empty())
    }

    /// A number: `default` if absent, `max` if larger, refused if it is none or smaller than `min`.
    pub(crate) fn number(
        &self,
        name: &'static str,
        (min, default, max): (u32, u32, u32),
        expected: &'static str,
    ) -> Result<u32, HandshakeError> {
        let invalid = HandshakeError::InvalidParameter { name, expected };
        let Some(text) = self.get(name)? else { return Ok(default) };
        // Digits only: `parse` would also take a plus sign.
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(invalid);
        }
        let number = text.parse().unwrap_or(max).min(max);
        if number < min { Err(invalid) } else { Ok(number) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_query_is_read_or_refused(raw in "\\PC{0,60}|((max|timeout|a)=(%?[0-9a-f+]{0,9}|[0-9]{0,30})&?){0,4}") {
            let query = Query::parse(&raw);
            for name in ["max", "timeout", "a"] {
                prop_assert!(query.get(name).is_ok_and(|value| value != Some("")) || query.get(name).is_err());
                prop_assert!(query.number(name, LIMITS, "1 to 1000").is_ok_and(|n| (1..=1000).contains(&n)) || query.number(name, LIMITS, "").is_err());
            }
        }
    }

    const LIMITS: (u32, u32, u32) = (1, 256, 1000);

    proptest! {
        #[test]
        fn what_needs_no_decoding_is_split_as_the_decoder_would(raw in "([a-c&=é]|\\PC){0,20}") {
            let raw = raw.replace(['%', '+'], "");
            let decoded: Vec<_> = form_urlencoded::parse(raw.as_bytes()).collect();
            prop_assert_eq!(Query::parse(&raw).0, decoded);
        }
    }

    #[test]
    fn values_are_percent_decoded_and_empty_is_absent() {
        let query = Query::parse("lastEventId=6f3a9c21%2D42&instance=&x=a+b");
        assert_eq!(query.get("lastEventId"), Ok(Some("6f3a9c21-42")));
        assert_eq!(query.get("instance"), Ok(None));
        assert_eq!(query.get("x"), Ok(Some("a b")));
    }

    #[test]
    fn doubled_and_broken_values_are_refused() {
        assert!(Query::parse("a=1&a=2").get("a").is_err());
        assert!(Query::parse("a=%ff").get("a").is_err());
    }

    #[test]
    fn numbers_are_clamped_above_and_refused_below() {
        let number = |raw| Query::parse(raw).number("max", LIMITS, "1 to 1000").ok();
        assert_eq!(number(""), Some(256));
        assert_eq!(number("max=7"), Some(7));
        assert_eq!(number("max=99999999999999999999"), Some(1000));
        for bad in ["max=0", "max=-1", "max=%2B1", "max=1.5", "max=x"] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }
}
