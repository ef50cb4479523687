use std::sync::Arc;

use chrono::{DateTime, Utc};
use gatecast_storage::{Directory, Gateway, Token, TokenState};

use super::token::TOKEN_CHARS;
use super::{AuthError, hash_of};

/// Knows gateways by their tokens. One look-up by hash, however many gateways there are.
pub struct Authenticator {
    directory: Arc<Directory>,
}

impl Authenticator {
    /// Over the tokens of `directory`.
    #[must_use]
    pub fn new(directory: Arc<Directory>) -> Self {
        Self { directory }
    }

    /// The token and the gateway of a credential, if it is active at `now`.
    ///
    /// # Errors
    /// [`AuthError`]; the caller of the API must not learn which.
    pub fn gateway(
        &self,
        credential: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<(Arc<Token>, Arc<Gateway>), AuthError> {
        let credential = credential.ok_or(AuthError::Missing)?;
        // No token has another length, so nobody makes us hash a long one.
        if credential.len() != TOKEN_CHARS {
            return Err(AuthError::Unknown);
        }
        let (token, gateway) = self.directory.token_by_hash(&hash_of(credential)).ok_or(AuthError::Unknown)?;
        match token.state(now) {
            TokenState::Active => Ok((token, gateway)),
            TokenState::Expired => Err(AuthError::Expired),
            TokenState::Revoked => Err(AuthError::Revoked),
        }
    }
}
