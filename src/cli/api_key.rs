//! The gateway's token, as commands that pose as a gateway take it.

use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use super::remote::{Environment, Hidden, first_line};
use crate::client::ApiKey;

/// Where the token comes from.
#[derive(Debug, Clone, Args)]
pub(super) struct ApiKeySource {
    /// The gateway's token [env: GATECAST_API_KEY]
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true, conflicts_with = "api_key_file")]
    api_key: Option<Hidden>,

    /// A file whose first line is the gateway's token
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
}

impl ApiKeySource {
    pub(super) fn read(&self, env: &Environment) -> Result<ApiKey, Failure> {
        self.read_if_any(env)?.ok_or(Failure::NoApiKey)
    }

    /// The same for who may have none.
    pub(super) fn read_if_any(&self, env: &Environment) -> Result<Option<ApiKey>, Failure> {
        let text = match (&self.api_key, &self.api_key_file) {
            (Some(key), _) => Some(key.0.clone()),
            (None, Some(path)) => Some(first_line(path)?),
            (None, None) => env.get("GATECAST_API_KEY"),
        };
        Ok(text.map(|text| ApiKey::parse(&text)).transpose()?)
    }
}
