//! Identifiers. The only constructors parse or count; no bare `String` or `u64` crosses a module.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A gateway: the owner of one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GatewayId(pub Uuid);

impl fmt::Display for GatewayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for GatewayId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

/// A dense position in one gateway's log: the first event is 1, and 0 is "before everything".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The position before this one; zero stays zero.
    #[must_use]
    pub fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The life of one log: new whenever a gateway's log is created or lost. Written as 8 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u32);

impl Epoch {
    /// An epoch that no earlier log had, but for a chance of 2⁻³².
    #[must_use]
    pub fn random() -> Self {
        let [a, b, c, d, ..] = *Uuid::new_v4().as_bytes();
        Self(u32::from_be_bytes([a, b, c, d]))
    }

    /// A random epoch that is not in use: among 100,000 logs two would otherwise share one as likely as not.
    #[must_use]
    pub fn unused(is_used: impl Fn(Self) -> bool) -> Self {
        loop {
            let epoch = Self::random();
            if !is_used(epoch) {
                return epoch;
            }
        }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// A position in a gateway's log, `<epoch>-<seq>` (CONTRACT.md § 2): the one cursor on every transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Cursor {
    /// The life of the log that `seq` counts in.
    pub epoch: Epoch,
    /// The last event seen; 0 for none.
    pub seq: Seq,
}

impl Cursor {
    /// Shows the text in one piece: each delivery spells a cursor or two, and numbers that are formatted took six times as
    /// long.
    fn spell<T>(self, show: impl FnOnce(&str) -> T) -> T {
        let mut text = [b'-'; TEXT_BYTES_MAX];
        // Each number from its last digit on; the text has room for the longest of both.
        for (digit, byte) in text[..EPOCH_DIGITS].iter_mut().rev().enumerate() {
            *byte = b"0123456789abcdef"[(self.epoch.0 >> (4 * digit)) as usize & 15];
        }
        let len = EPOCH_DIGITS + 1 + self.seq.0.checked_ilog10().map_or(1, |log| log as usize + 1);
        let mut seq = self.seq.0;
        for byte in text[EPOCH_DIGITS + 1..len].iter_mut().rev() {
            *byte = b"0123456789"[(seq % 10) as usize];
            seq /= 10;
        }
        show(std::str::from_utf8(&text[..len]).unwrap_or_default())
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.spell(|text| f.write_str(text))
    }
}

const EPOCH_DIGITS: usize = 8;
/// Both numbers and the hyphen.
const TEXT_BYTES_MAX: usize = EPOCH_DIGITS + 1 + 20;

/// The text is not of the form `<8 lower-case hex digits>-<decimal without leading zeros>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor: expected 8 hex digits, '-', and a decimal number")]
pub struct InvalidCursor;

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (epoch, seq) = text.split_once('-').ok_or(InvalidCursor)?;
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if epoch.len() != 8 || !epoch.bytes().all(hex) {
            return Err(InvalidCursor);
        }
        let plain = seq == "0" || (!seq.starts_with('0') && seq.bytes().all(|b| b.is_ascii_digit()));
        if seq.is_empty() || !plain {
            return Err(InvalidCursor);
        }
        Ok(Self {
            epoch: Epoch(u32::from_str_radix(epoch, 16).map_err(|_| InvalidCursor)?),
            seq: Seq(seq.parse().map_err(|_| InvalidCursor)?),
        })
    }
}

impl From<Cursor> for String {
    /// A third of what `to_string` takes, which lets it grow.
    fn from(cursor: Cursor) -> Self {
        cursor.spell(str::to_owned)
    }
}

impl TryFrom<String> for Cursor {
    type Error = InvalidCursor;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_cursor_survives_its_text(epoch: u32, seq: u64) {
            let cursor = Cursor { epoch: Epoch(epoch), seq: Seq(seq) };
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }

        #[test]
        fn any_text_that_parses_is_canonical(text in "\\PC{0,40}") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }

    #[test]
    fn near_misses_are_refused() {
        for text in [
            "",
            "-",
            "6f3a9c21",
            "6f3a9c21-",
            "6f3a9c2-1",
            "6F3A9C21-1",
            "6f3a9c21-01",
            "6f3a9c21-+1",
            "6f3a9c21--1",
            "6f3a9c21-18446744073709551616",
            " 6f3a9c21-1",
            "6f3a9c21-1 ",
            "earliest",
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(InvalidCursor), "{text:?}");
        }
    }
}
