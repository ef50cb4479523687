use std::borrow::Cow;
use std::str::FromStr;

use super::error::ApiError;

/// The parameters of a query string. Unknown ones are ignored; an empty one counts as absent.
pub(crate) struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self(text)
    }

    /// As it stood after the question mark.
    pub(crate) fn raw(&self) -> &'a str {
        self.0
    }

    /// The first of this name.
    pub(crate) fn get(&self, name: &str) -> Option<Cow<'a, str>> {
        let mut pairs = form_urlencoded::parse(self.0.as_bytes());
        pairs.find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value)
    }

    /// The first of this name, which must parse.
    pub(crate) fn parsed<T: FromStr>(&self, name: &'static str, expected: &str) -> Result<Option<T>, ApiError> {
        self.parsed_by(name, expected, |text| text.parse().ok())
    }

    /// The first of this name, which `parse` must take.
    pub(crate) fn parsed_by<T>(
        &self,
        name: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match parse(&text) {
            Some(value) => Ok(Some(value)),
            None => Err(ApiError::InvalidParameter { name, expected: expected.to_owned() }),
        }
    }
}
