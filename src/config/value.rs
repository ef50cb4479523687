//! From the text of one value to its type. Pure; every bound is named by the caller.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

/// Why a value is not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// Zero, where people may mean "unlimited".
    #[error("0 is not allowed: it never means unlimited; {0}")]
    Zero(String),
    /// Below or above what is sane.
    #[error("must be from {min} to {max}")]
    OutOfRange {
        /// The least.
        min: String,
        /// The most.
        max: String,
    },
    /// Not a whole number.
    #[error("must be a whole number")]
    NotANumber,
    /// A duration without a unit, where none is implied.
    #[error("needs a unit: ms, s, m, h or d, such as {0}")]
    NoUnit(&'static str),
    /// A unit that is not known.
    #[error("unknown unit {found:?}; known are {known}")]
    UnknownUnit {
        /// What was written.
        found: String,
        /// What may be written.
        known: &'static str,
    },
    /// Neither of the words that may be written.
    #[error("must be one of {0}")]
    NotOneOf(&'static str),
    /// Not an address with a port.
    #[error("must be an IP address and a port, such as 127.0.0.1:8443 or [::1]:8443")]
    NotAnAddress,
    /// Not an address or network.
    #[error("{0:?} is not an IP address or network, such as 10.0.0.0/8")]
    NotANetwork(String),
    /// A network of everything.
    #[error("{0} trusts every address, so any client could choose its own; name the proxies' networks")]
    EveryNetwork(String),
    /// Anything else, said in full.
    #[error("{0}")]
    Other(String),
}

/// Units that [`duration`] knows.
const DURATION_UNITS: &str = "ms, s, m, h, d";

/// A whole number within bounds.
///
/// # Errors
/// If it is not a number, zero, or out of bounds.
pub(super) fn number<N>(text: &str, bounds: RangeInclusive<N>) -> Result<N, ValueError>
where
    N: FromStr + PartialOrd + Display + Default,
{
    let (digits, unit) = split_unit(text);
    if digits.is_empty() || !unit.is_empty() {
        return Err(ValueError::NotANumber);
    }
    // All digits: a number that does not parse is one that does not fit.
    let number = digits.parse().map_err(|_| out_of_range(&bounds))?;
    within(number, bounds)
}

/// A duration such as `10s`. A plain number counts `plain`, if that is given.
///
/// # Errors
/// If it is no duration, has no or an unknown unit, is zero, or out of bounds.
pub(crate) fn duration(
    text: &str,
    plain: Option<Duration>,
    example: &'static str,
    bounds: RangeInclusive<Duration>,
) -> Result<Duration, ValueError> {
    let (digits, unit) = split_unit(text);
    if digits.is_empty() {
        return Err(ValueError::NotANumber);
    }
    let unit = match unit.to_ascii_lowercase().as_str() {
        "" => plain.ok_or(ValueError::NoUnit(example))?,
        "ms" => Duration::from_millis(1),
        "s" | "sec" => Duration::from_secs(1),
        "m" | "min" => Duration::from_secs(60),
        "h" => Duration::from_secs(60 * 60),
        "d" => Duration::from_secs(24 * 60 * 60),
        _ => return Err(ValueError::UnknownUnit { found: unit.to_owned(), known: DURATION_UNITS }),
    };
    let bounds = Span(*bounds.start())..=Span(*bounds.end());
    let count = digits.parse::<u32>().map_err(|_| out_of_range(&bounds))?;
    let whole = unit.checked_mul(count).ok_or_else(|| out_of_range(&bounds))?;
    within(Span(whole), bounds).map(|span| span.0)
}

/// A duration as people write it: in the largest unit that loses nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span(pub(super) Duration);

impl Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const UNITS: [(u128, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
        let millis = self.0.as_millis();
        for (size, unit) in UNITS {
            if millis >= size && millis.is_multiple_of(size) {
                return write!(f, "{}{unit}", millis / size);
            }
        }
        write!(f, "{millis}ms")
    }
}

/// An address to listen on.
///
/// # Errors
/// If it is no IP address with a port.
pub(super) fn address(text: &str) -> Result<SocketAddr, ValueError> {
    text.parse().map_err(|_| ValueError::NotAnAddress)
}

/// Networks, separated by commas or spaces. A bare address is a network of one.
///
/// # Errors
/// At the first that is none, or that is every address.
pub(super) fn networks(text: &str) -> Result<Vec<IpNet>, ValueError> {
    text.split([',', ' ', '\t']).filter(|part| !part.is_empty()).map(network).collect()
}

fn network(text: &str) -> Result<IpNet, ValueError> {
    let net = crate::network::network(text).ok_or_else(|| ValueError::NotANetwork(text.to_owned()))?;
    if net.prefix_len() == 0 { Err(ValueError::EveryNetwork(text.to_owned())) } else { Ok(net) }
}

/// Digits at the front, the rest trimmed.
pub(super) fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    (digits, unit.trim_start())
}

pub(super) fn within<N>(value: N, bounds: RangeInclusive<N>) -> Result<N, ValueError>
where
    N: PartialOrd + Display + Default,
{
    if value == N::default() {
        return Err(ValueError::Zero(out_of_range(&bounds).to_string()));
    }
    if bounds.contains(&value) { Ok(value) } else { Err(out_of_range(&bounds)) }
}

pub(super) fn out_of_range<N: Display>(bounds: &RangeInclusive<N>) -> ValueError {
    ValueError::OutOfRange { min: bounds.start().to_string(), max: bounds.end().to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);
    const DAY: Duration = Duration::from_secs(86_400);

    proptest! {
        #[test]
        fn no_text_panics_and_what_parses_is_in_bounds(text in "\\PC{0,24}") {
            if let Ok(n) = number(&text, 1u32..=100) { prop_assert!((1..=100).contains(&n)); }
            if let Ok(d) = duration(&text, Some(SECOND), "1s", SECOND..=DAY) { prop_assert!((SECOND..=DAY).contains(&d)); }
            let _ = (address(&text), networks(&text));
        }

        #[test]
        fn a_shown_duration_parses_back(millis in 1u32..) {
            let whole = Duration::from_millis(u64::from(millis));
            let back = duration(&Span(whole).to_string(), None, "1s", Duration::from_millis(1)..=DAY * 100);
            prop_assert_eq!(back, Ok(whole));
        }
    }

    #[test]
    fn zero_is_refused_with_the_reason() {
        assert!(matches!(number("0", 1u64..=9), Err(ValueError::Zero(_))));
        assert!(matches!(number("000", 1u64..=9), Err(ValueError::Zero(_))));
        assert!(matches!(duration("0s", None, "1s", SECOND..=DAY), Err(ValueError::Zero(_))));
    }

    #[test]
    fn hostile_numbers_are_refused() {
        for text in ["", "-1", "+1", "1.5", "1e3", "0x10", "٣", "1 2", "1;rm", "unlimited", "\0"] {
            assert!(number(text, 1u32..=100).is_err(), "{text:?}");
        }
        assert!(matches!(number("99999999999999999999", 1u32..=100), Err(ValueError::OutOfRange { .. })));
        assert!(matches!(duration("99999999999d", None, "1s", SECOND..=DAY), Err(ValueError::OutOfRange { .. })));
    }

    #[test]
    fn durations_need_a_unit_unless_one_is_implied() {
        assert_eq!(duration("7", None, "7d", SECOND..=DAY), Err(ValueError::NoUnit("7d")));
        assert_eq!(duration("60", Some(SECOND), "60s", SECOND..=DAY), Ok(SECOND * 60));
        assert_eq!(duration("5 min", None, "5m", SECOND..=DAY), Ok(SECOND * 300));
        assert!(matches!(duration("5y", None, "5m", SECOND..=DAY), Err(ValueError::UnknownUnit { .. })));
    }

    #[test]
    fn networks_take_addresses_and_refuse_everything() {
        let nets = networks("10.1.2.3/8, 192.0.2.1 ::1").unwrap();
        assert_eq!(nets.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "192.0.2.1/32", "::1/128"]);
        assert!(matches!(networks("0.0.0.0/0"), Err(ValueError::EveryNetwork(_))));
        let mapped = networks("::ffff:10.0.0.0/104 ::ffff:192.0.2.1").unwrap();
        assert_eq!(mapped.iter().map(IpNet::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "192.0.2.1/32"]);
        assert!(matches!(networks("::ffff:0.0.0.0/96"), Err(ValueError::EveryNetwork(_))));
        assert!(matches!(networks("10.0.0.0/33"), Err(ValueError::NotANetwork(_))));
    }
}
