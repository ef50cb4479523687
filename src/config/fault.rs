//! What can be wrong with a configuration. Faults are collected, never thrown one at a time.

use std::path::PathBuf;

use super::source::Source;
use super::value::ValueError;

/// The process exit code of a bad configuration (`EX_USAGE` of sysexits).
pub const EXIT_CONFIG: u8 = 64;

/// One fault. The text of a secret is in none of them.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigFault {
    /// A value is not usable.
    #[error("{name}={written} ({source_}): {problem}")]
    Invalid {
        /// The setting.
        name: &'static str,
        /// What was written, quoted; `(hidden)` for a secret.
        written: String,
        /// Where it was written.
        source_: Source,
        /// What is wrong with it.
        problem: ValueError,
    },
    /// No setting has this name.
    #[error("{name} ({source_}): there is no such setting{}", did_you_mean(*.nearest))]
    Unknown {
        /// What was written.
        name: String,
        /// Where it was written.
        source_: Source,
        /// The most similar known name.
        nearest: Option<&'static str>,
    },
    /// A value in the environment is not UTF-8.
    #[error("{name} (environment): the value is not UTF-8")]
    NotText {
        /// The variable.
        name: String,
    },
    /// A line of the configuration file is not `NAME=VALUE`.
    #[error("{}, line {line}: {problem}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A file that the configuration names cannot be read.
    #[error("{name}: {} cannot be read: {problem}", .path.display())]
    Unreadable {
        /// The setting or flag that names it.
        name: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's word.
        problem: String,
    },
    /// What the files that settings name hold is not what it is to be.
    #[error("{names} cannot be used: {problem}")]
    Unusable {
        /// The settings.
        names: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// Values that are fine alone and not together.
    #[error("{0}")]
    Together(&'static str),
}

fn did_you_mean(nearest: Option<&'static str>) -> String {
    nearest.map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}
