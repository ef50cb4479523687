//! Where a value was written.

use std::fmt;

/// Where a value comes from, weakest first: a later one wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Nothing was written.
    Default,
    /// Nothing was written and `--dev` chose.
    Dev,
    /// The configuration file.
    File {
        /// The line, from 1.
        line: usize,
    },
    /// The environment.
    Environment,
    /// A command line flag.
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Dev => f.write_str("--dev"),
            Self::File { line } => write!(f, "file, line {line}"),
            Self::Environment => f.write_str("environment"),
            Self::Flag => f.write_str("flag"),
        }
    }
}
