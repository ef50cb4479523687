//! Where a publisher's trace goes on: the `traceparent` of W3C Trace Context, which we carry and never change.

use std::fmt;
use std::str::FromStr;

use http::HeaderMap;

/// `<version>-<trace id>-<parent id>-<flags>` in lower-case hex (Trace Context § 3.2), 55 bytes: safe to be put into JSON
/// as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceParent(String);

/// The text is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent of W3C Trace Context")]
pub struct InvalidTraceParent;

impl TraceParent {
    /// That of a request. One that is wrong or given twice counts as absent: tracing must not fail a call (§ 4.3).
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut all = headers.get_all("traceparent").iter();
        let (first, more) = (all.next()?, all.next());
        first.to_str().ok()?.parse().ok().filter(|_| more.is_none())
    }

    /// The trace, in hex.
    pub(crate) fn trace_id(&self) -> &str {
        self.field(1)
    }

    /// The publisher's span, in hex.
    pub(crate) fn parent_id(&self) -> &str {
        self.field(2)
    }

    /// Whether the publisher records the trace (§ 3.2.2.5.1).
    pub(crate) fn is_sampled(&self) -> bool {
        u8::from_str_radix(self.field(3), 16).is_ok_and(|flags| flags & 1 == 1)
    }

    fn field(&self, index: usize) -> &str {
        // Parsing has seen four.
        self.0.split('-').nth(index).unwrap_or_default()
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TraceParent {
    type Err = InvalidTraceParent;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = |text: &str, len| text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let is_set = |text: &str| text.bytes().any(|b| b != b'0');
        let fields: Vec<_> = text.split('-').collect();
        match fields[..] {
            [version, trace, parent, flags]
                if hex(version, 2)
                    && version != "ff"
                    && hex(trace, 32)
                    && is_set(trace)
                    && hex(parent, 16)
                    && is_set(parent)
                    && hex(flags, 2) =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(InvalidTraceParent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn only_what_the_recommendation_allows_is_one() {
        assert_eq!(GOOD.parse::<TraceParent>().unwrap().as_str(), GOOD);
        let good: TraceParent = GOOD.parse().unwrap();
        assert_eq!((good.trace_id(), good.parent_id()), ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"));
        let sampled = |flags: &str| GOOD.replace("-01", flags).parse::<TraceParent>().unwrap().is_sampled();
        assert!(sampled("-01") && sampled("-03") && !sampled("-00") && !sampled("-02"));
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4bf92f3577b34da6a3ce929d0e0e473\"-00f067aa0ba902b7-01",
        ] {
            assert!(bad.parse::<TraceParent>().is_err(), "{bad}");
        }
    }

    #[test]
    fn two_of_them_are_none() {
        let mut headers = HeaderMap::new();
        headers.append("traceparent", GOOD.parse().unwrap());
        assert!(TraceParent::of(&headers).is_some());
        headers.append("traceparent", GOOD.parse().unwrap());
        assert_eq!(TraceParent::of(&headers), None);
    }
}
