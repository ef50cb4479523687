use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What a replica that does not say who it is counts as.
pub const ANONYMOUS_INSTANCE: &str = "default";

/// One replica of a gateway, as far as it can be told from others.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Replica {
    /// By the name it gives.
    Named(Box<str>),
    /// One of those that share the instance `default`: by where it comes from. Several behind one address look alike.
    Anonymous(IpAddr),
}

impl Replica {
    /// The replica of a request.
    #[must_use]
    pub fn of(instance: Option<&str>, address: IpAddr) -> Self {
        match instance {
            Some(name) if name != ANONYMOUS_INSTANCE => Self::Named(name.into()),
            _ => Self::Anonymous(address.to_canonical()),
        }
    }

    /// Its instance's name.
    #[must_use]
    pub fn instance(&self) -> &str {
        match self {
            Self::Named(name) => name,
            Self::Anonymous(_) => ANONYMOUS_INSTANCE,
        }
    }

    /// Where it comes from, if that is what tells it from others.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Named(_) => None,
            Self::Anonymous(address) => Some(*address),
        }
    }

    /// As in a row's key: a tag, then the name or address.
    pub(super) fn key(&self) -> String {
        match self {
            Self::Named(name) => format!("n{name}"),
            Self::Anonymous(address) => format!("a{address}"),
        }
    }

    pub(super) fn parse(key: &str) -> Option<Self> {
        if let Some(name) = key.strip_prefix('n') {
            return Some(Self::Named(name.into()));
        }
        key.strip_prefix('a')?.parse().ok().map(Self::Anonymous)
    }
}

impl From<Replica> for String {
    fn from(replica: Replica) -> Self {
        replica.key()
    }
}

impl TryFrom<String> for Replica {
    type Error = &'static str;

    fn try_from(key: String) -> Result<Self, Self::Error> {
        Self::parse(&key).ok_or("not a replica")
    }
}

impl fmt::Display for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Anonymous(address) => write!(f, "{ANONYMOUS_INSTANCE}@{address}"),
        }
    }
}
