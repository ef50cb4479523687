use std::fmt;
use std::str::FromStr;

/// The name of an event type: 1–128 of `a-z A-Z 0-9 . _ -`, starting with a letter, such as `api.deployed`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeName(String);

/// The longest name.
const NAME_BYTES_MAX: usize = 128;

impl TypeName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TypeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is no name of an event type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an event type is 1 to 128 of a-z, A-Z, 0-9, '.', '_' and '-', starting with a letter")]
pub struct InvalidTypeName;

impl FromStr for TypeName {
    type Err = InvalidTypeName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let valid = text.len() <= NAME_BYTES_MAX
            && text.bytes().all(allowed)
            && text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic());
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidTypeName) }
    }
}
