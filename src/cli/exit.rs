//! Exit codes, in the manner of sysexits.

use std::process::ExitCode;

use crate::config::EXIT_CONFIG;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or ended by Ctrl+C or SIGTERM.
    Ok,
    /// Anything that no other code names.
    Failure,
    /// The command line is not understood.
    Usage,
    /// No such gateway, token, API or event type.
    NotFound,
    /// The server's configuration has faults.
    Config,
    /// The server refuses what it was given, a file cannot be used, or the store is damaged.
    Data,
    /// The server cannot be reached, or what answers is none.
    Unreachable,
    /// The server is busy, draining, limits the rate or gives no answer, or another has the data directory open: try later.
    TryLater,
    /// The token or key is missing, wrong, revoked or expired.
    Unauthorized,
}

impl Exit {
    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Config => EXIT_CONFIG,
            Self::Data => 65,
            Self::Unreachable => 69,
            Self::TryLater => 75,
            Self::Unauthorized => 77,
        }
    }

    /// What an HTTP status of the server means for the process.
    #[must_use]
    pub fn from_status(status: u16) -> Self {
        match status {
            401 | 403 => Self::Unauthorized,
            404 => Self::NotFound,
            408 | 425 | 429 | 502..=504 => Self::TryLater,
            400..500 => Self::Data,
            _ => Self::Failure,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// For `--help`.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
   0  done, or ended by Ctrl+C or SIGTERM
   1  failed in a way that no other code names
   2  the command line is not understood
   3  no such gateway, token, API or event type
  64  the server's configuration has faults (all are listed)
  65  the server refuses the data, a file cannot be used, or the store is damaged
  69  the server cannot be reached, or what answers is none
  75  the server is busy, draining, limits the rate or gives no answer, or another has the data directory open: try later
  77  the token or key is missing, wrong, revoked or expired";
