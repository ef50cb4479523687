//! Which server a command talks to, and with what right.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use super::failure::Failure;
use crate::client::api::ApiClient;
use crate::client::{DEFAULT_URL, Endpoint, Trust};
use crate::config::AdminToken;

/// Options of every command that talks to a server.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Reaching a server")]
pub(super) struct Remote {
    /// The server's address; `wss://host/full/path` works too [env: GATECAST_URL] [default: https://localhost:8443]
    #[arg(long, global = true, value_name = "URL")]
    url: Option<String>,

    /// The admin token; prefer the environment or a file, other users see command lines [env: GATECAST_ADMIN_TOKEN]
    #[arg(long, global = true, value_name = "TOKEN", allow_hyphen_values = true, conflicts_with = "admin_token_file")]
    pub(super) admin_token: Option<Hidden>,

    /// A file whose first line is the admin token [env: GATECAST_ADMIN_TOKEN_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) admin_token_file: Option<PathBuf>,

    /// Trust the certificate authorities in this PEM file, and no others
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "insecure")]
    ca: Option<PathBuf>,

    /// Accept any certificate, as `curl -k` does: for `serve --dev`, never for production
    #[arg(long, short = 'k', global = true)]
    pub(super) insecure: bool,
}

/// A secret on the command line. Its `Debug` shows nothing.
#[derive(Clone)]
pub(super) struct Hidden(pub(super) String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hidden(..)")
    }
}

impl std::str::FromStr for Hidden {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl Remote {
    pub(super) fn endpoint(&self, env: &Environment) -> Result<Endpoint, Failure> {
        let written = self.url.clone().or_else(|| env.get("GATECAST_URL"));
        Ok(Endpoint::parse(written.as_deref().unwrap_or(DEFAULT_URL))?)
    }

    pub(super) fn trust(&self) -> Trust {
        match &self.ca {
            _ if self.insecure => Trust::Anyone,
            Some(path) => Trust::File(path.clone()),
            None => Trust::System,
        }
    }

    pub(super) fn api(&self, env: &Environment) -> Result<ApiClient, Failure> {
        Ok(ApiClient::new(self.endpoint(env)?, self.token(env)?, &self.trust())?)
    }

    /// Flags before the environment, the token itself before its file.
    fn token(&self, env: &Environment) -> Result<Option<AdminToken>, Failure> {
        let text = match (&self.admin_token, &self.admin_token_file) {
            (Some(token), _) => Some(token.0.clone()),
            (None, Some(path)) => Some(first_line(path)?),
            (None, None) => match (env.get("GATECAST_ADMIN_TOKEN"), env.get("GATECAST_ADMIN_TOKEN_FILE")) {
                (Some(token), _) => Some(token),
                (None, Some(path)) => Some(first_line(Path::new(&path))?),
                (None, None) => None,
            },
        };
        text.map(|text| AdminToken::parse(text.trim()).map_err(Failure::AdminToken)).transpose()
    }
}

/// The first line of a file that holds a secret.
pub(super) fn first_line(path: &Path) -> Result<String, Failure> {
    let text = fs::read_to_string(path).map_err(|source| Failure::File { path: path.to_owned(), source })?;
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// The process environment, handed in by `main`.
#[derive(Debug, Clone, Default)]
pub struct Environment(Vec<(OsString, OsString)>);

impl Environment {
    /// From `std::env::vars_os()`.
    pub fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self(variables.into_iter().collect())
    }

    /// A variable that is set, is not empty, and is UTF-8.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        let (_, value) = self.0.iter().find(|(key, _)| key == name)?;
        value.to_str().map(str::trim).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    pub(super) fn all(&self) -> Vec<(OsString, OsString)> {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Environment {
        Environment::new(pairs.iter().map(|(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn flags_win_over_the_environment() {
        let env = env(&[("GATECAST_URL", "https://env:1"), ("GATECAST_ADMIN_TOKEN", "token-from-environment")]);
        let mut remote = Remote::default();
        assert_eq!(remote.endpoint(&env).unwrap(), Endpoint::parse("https://env:1").unwrap());
        assert_eq!(remote.token(&env).unwrap().unwrap().reveal(), "token-from-environment");
        remote.url = Some("https://flag:2".to_owned());
        remote.admin_token = Some(Hidden("token-from-a-flag".to_owned()));
        assert_eq!(remote.endpoint(&env).unwrap(), Endpoint::parse("https://flag:2").unwrap());
        assert_eq!(remote.token(&env).unwrap().unwrap().reveal(), "token-from-a-flag");
        assert!(!format!("{remote:?}").contains("token-from"));
    }

    #[test]
    fn a_token_file_gives_its_first_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "token-from-a-file\r\nmore\n").unwrap();
        let remote = Remote { admin_token_file: Some(file.path().to_owned()), ..Remote::default() };
        assert_eq!(remote.token(&env(&[])).unwrap().unwrap().reveal(), "token-from-a-file");
    }
}
