//! A number of bytes that people write and read with a unit.

use std::fmt;
use std::ops::RangeInclusive;

use super::value::{ValueError, out_of_range, split_unit, within};

/// A number of bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// 1,024 bytes.
pub(super) const KIB: u64 = 1024;
/// 1,024² bytes.
pub(super) const MIB: u64 = 1024 * KIB;
/// 1,024³ bytes.
pub(super) const GIB: u64 = 1024 * MIB;
/// 1,024⁴ bytes.
pub(super) const TIB: u64 = 1024 * GIB;

const UNITS: &str = "B, KiB, MiB, GiB, TiB (1,024) and KB, MB, GB, TB (1,000)";

impl ByteSize {
    /// A size such as `64MiB`; a plain number counts bytes.
    ///
    /// # Errors
    /// If it is no size, has an unknown unit, is zero, or out of bounds.
    pub fn parse(text: &str, bounds: RangeInclusive<Self>) -> Result<Self, ValueError> {
        let (digits, unit) = split_unit(text);
        if digits.is_empty() {
            return Err(ValueError::NotANumber);
        }
        let unit = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kib" => KIB,
            "mib" => MIB,
            "gib" => GIB,
            "tib" => TIB,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(ValueError::UnknownUnit { found: unit.to_owned(), known: UNITS }),
        };
        let whole = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit));
        within(Self(whole.ok_or_else(|| out_of_range(&bounds))?), bounds)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (size, unit) in [(TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")] {
            if self.0 >= size && self.0.is_multiple_of(size) {
                return write!(f, "{}{unit}", self.0 / size);
            }
        }
        write!(f, "{}B", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: RangeInclusive<ByteSize> = ByteSize(1)..=ByteSize(u64::MAX);

    proptest! {
        #[test]
        fn a_shown_size_parses_back(bytes in 1u64..) {
            prop_assert_eq!(ByteSize::parse(&ByteSize(bytes).to_string(), ALL), Ok(ByteSize(bytes)));
        }
    }

    #[test]
    fn units_are_told_apart() {
        assert_eq!(ByteSize::parse("64 mib", ALL), Ok(ByteSize(64 * MIB)));
        assert_eq!(ByteSize::parse("64MB", ALL), Ok(ByteSize(64_000_000)));
        assert!(matches!(ByteSize::parse("64M", ALL), Err(ValueError::UnknownUnit { .. })));
    }

    #[test]
    fn hostile_sizes_are_refused() {
        for text in ["", "MiB", "-1MiB", "1.5MiB", "18446744073709551616", "18446744073709551615TiB", "0", "0MiB"] {
            assert!(ByteSize::parse(text, ALL).is_err(), "{text:?}");
        }
    }
}
