use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::error::{ApiError, FieldError};

/// The members of a JSON object, taken one by one; all that is wrong is reported at once. `null` counts as absent;
/// members that nobody asks for are ignored.
pub(crate) struct Fields<'a> {
    object: &'a Map<String, Value>,
    /// Where the object is in the body: a JSON Pointer.
    at: String,
    faults: Vec<FieldError>,
}

/// Parses a body.
pub(crate) fn json(body: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::InvalidJson(error.to_string()))
}

/// Parses a body that is an object, without a [`Value`] of it. serde alone reads a struct from an array as well, member
/// by member.
pub(crate) fn object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = json.deserialize_map(Members(PhantomData))?;
    json.end()?;
    Ok(read)
}

/// Reads a struct from an object.
struct Members<T>(PhantomData<T>);

impl<'a, T: Deserialize<'a>> Visitor<'a> for Members<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, members: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members))
    }
}

impl<'a> Fields<'a> {
    /// The members of `value`, which is at the JSON Pointer `at` of the body.
    pub(crate) fn of(value: &'a Value, at: impl Into<String>) -> Result<Self, ApiError> {
        let at = at.into();
        match value.as_object() {
            Some(object) => Ok(Self { object, at, faults: Vec::new() }),
            None => Err(ApiError::field(at, "must be an object")),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn fault(&mut self, name: &str, message: impl Into<String>) {
        self.faults.push(FieldError { field: format!("{}/{name}", self.at), message: message.into() });
    }

    /// A text whose length in characters is within bounds and that holds no control characters.
    pub(crate) fn text(&mut self, name: &str, chars: RangeInclusive<usize>) -> Option<String> {
        let value = self.get(name)?;
        let Some(text) = value.as_str() else {
            self.fault(name, "must be a string");
            return None;
        };
        if !chars.contains(&text.chars().count()) {
            self.fault(name, format!("must have {} to {} characters", chars.start(), chars.end()));
            return None;
        }
        if text.chars().any(char::is_control) {
            self.fault(name, "must not contain control characters");
            return None;
        }
        Some(text.to_owned())
    }

    /// A text that parses.
    pub(crate) fn parsed<T: FromStr>(&mut self, name: &str, expected: &str) -> Option<T> {
        let parsed = self.get(name)?.as_str().and_then(|text| text.parse().ok());
        if parsed.is_none() {
            self.fault(name, format!("must be {expected}"));
        }
        parsed
    }

    /// A list of texts that parse, at most `max`; none if it is absent.
    pub(crate) fn texts<T>(
        &mut self,
        name: &str,
        max: usize,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Some(value) = self.get(name) else { return Some(Vec::new()) };
        let parsed = value
            .as_array()
            .filter(|list| list.len() <= max)
            .and_then(|list| list.iter().map(|text| text.as_str().and_then(&parse)).collect::<Option<Vec<T>>>());
        if parsed.is_none() {
            self.fault(name, format!("must be a list of at most {max} {expected}"));
        }
        parsed
    }

    pub(crate) fn bool(&mut self, name: &str) -> Option<bool> {
        let value = self.get(name)?.as_bool();
        if value.is_none() {
            self.fault(name, "must be true or false");
        }
        value
    }

    pub(crate) fn time(&mut self, name: &str) -> Option<DateTime<Utc>> {
        let time = self.get(name)?.as_str().and_then(time);
        if time.is_none() {
            self.fault(name, format!("must be {TIME_EXPECTED}"));
        }
        time
    }

    /// Reports that a member is missing, unless it is there (and perhaps wrong, which is reported already).
    pub(crate) fn require(&mut self, name: &str) {
        if self.get(name).is_none() {
            self.fault(name, "is required");
        }
    }

    /// Refuses a member that says something else than what is, however it spells it: it can't be changed.
    pub(crate) fn unchanged<T: FromStr + PartialEq>(&mut self, name: &str, now: &T) {
        let is_now =
            |value: &Value| value.as_str().and_then(|text| text.parse().ok()).is_some_and(|said: T| said == *now);
        if self.get(name).is_some_and(|value| !is_now(value)) {
            self.fault(name, "cannot be changed");
        }
    }

    pub(crate) fn into_faults(self) -> Vec<FieldError> {
        self.faults
    }

    /// What was taken, if nothing is wrong. `None` must mean that a fault was reported.
    pub(crate) fn finish<T>(self, taken: Option<T>) -> Result<T, ApiError> {
        match taken {
            Some(taken) if self.faults.is_empty() => Ok(taken),
            _ => Err(ApiError::InvalidBody(self.faults)),
        }
    }
}

/// What [`time`] takes.
pub(crate) const TIME_EXPECTED: &str = "a time as in 2026-11-20T17:00:00.000Z (RFC 3339)";

/// A time. Years are those of RFC 3339, so that it can be written again.
pub(crate) fn time(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text).ok()?.to_utc();
    let years = DateTime::from_timestamp(-62_167_219_200, 0)?..DateTime::from_timestamp(253_402_300_800, 0)?;
    years.contains(&time).then_some(time)
}
