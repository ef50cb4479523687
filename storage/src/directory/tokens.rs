use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::edit::Edit;
use super::{Directory, DirectoryError, Gateway};
use crate::ids::GatewayId;

/// Expired and revoked tokens kept per gateway, for people to look at; older ones are dropped.
pub const INACTIVE_TOKENS_MAX: usize = 20;

/// A token's public name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenId(pub Uuid);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for TokenId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

/// The SHA-256 of a token. Tokens are 32 random bytes, so the hash needs no salt and may be looked up by equality:
/// what timing could tell about it does not help to find the token.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenHash(pub [u8; 32]);

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

/// What a gateway shows to connect. The token itself is nowhere stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its public name.
    pub id: TokenId,
    /// Whose it is.
    pub gateway: GatewayId,
    /// What it is looked up by.
    pub hash: TokenHash,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// From then on it is [`TokenState::Expired`].
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// Whether a token opens a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenState {
    /// It does.
    Active,
    /// Its time has passed.
    Expired,
    /// It was revoked, whether or not it expired as well.
    Revoked,
}

impl Token {
    /// The token's state at `now`. A token is expired from the very moment of [`Token::expires_at`].
    #[must_use]
    pub fn state(&self, now: DateTime<Utc>) -> TokenState {
        match (self.revoked_at, self.expires_at) {
            (Some(_), _) => TokenState::Revoked,
            (None, Some(end)) if end <= now => TokenState::Expired,
            _ => TokenState::Active,
        }
    }

    fn is_active(&self, now: DateTime<Utc>) -> bool {
        self.state(now) == TokenState::Active
    }
}

impl Directory {
    /// Adds a token to its gateway, unless `max_active` of the gateway's tokens are active at `now`. Check and insert
    /// are one step. Drops the oldest of more than [`INACTIVE_TOKENS_MAX`] inactive ones.
    ///
    /// # Errors
    /// [`DirectoryError::NoSuchGateway`], [`DirectoryError::TooManyTokens`], [`DirectoryError::IdTaken`] (id or
    /// hash), or the store failed.
    pub async fn create_token(
        &self,
        token: Token,
        max_active: usize,
        now: DateTime<Utc>,
    ) -> Result<Arc<Token>, DirectoryError> {
        let token = Arc::new(token);
        self.write(move |model| {
            if model.gateway(token.gateway).is_none() {
                return Err(DirectoryError::NoSuchGateway(token.gateway));
            }
            if model.has_token_id(token.id) || model.token_by_hash(&token.hash).is_some() {
                return Err(DirectoryError::IdTaken);
            }
            let tokens = model.tokens(token.gateway);
            if tokens.iter().filter(|other| other.is_active(now)).count() >= max_active {
                return Err(DirectoryError::TooManyTokens { max: max_active });
            }
            let mut edits = surplus(tokens.iter(), now);
            edits.push(Edit::PutToken(Arc::clone(&token)));
            Ok((edits, token))
        })
        .await
    }

    /// The token of a hash and its gateway. The caller checks [`Token::state`].
    #[must_use]
    pub fn token_by_hash(&self, hash: &TokenHash) -> Option<(Arc<Token>, Arc<Gateway>)> {
        let model = self.read();
        let token = model.token_by_hash(hash)?;
        let gateway = model.gateway(token.gateway)?;
        Some((Arc::clone(token), Arc::clone(gateway)))
    }

    /// The tokens of a gateway, oldest first, inactive ones among them.
    #[must_use]
    pub fn tokens(&self, gateway: GatewayId) -> Vec<Arc<Token>> {
        self.read().tokens(gateway).to_vec()
    }

    /// Revokes a token and returns it. Idempotent: a revoked one keeps its first [`Token::revoked_at`].
    ///
    /// # Errors
    /// [`DirectoryError::NotFound`] if the gateway has no such token, or the store failed.
    pub async fn revoke_token(
        &self,
        gateway: GatewayId,
        id: TokenId,
        now: DateTime<Utc>,
    ) -> Result<Arc<Token>, DirectoryError> {
        self.write_urgently(move |model| {
            let tokens = model.tokens(gateway);
            let before = tokens.iter().find(|token| token.id == id).ok_or(DirectoryError::NotFound)?;
            if before.revoked_at.is_some() {
                return Ok((Vec::new(), Arc::clone(before)));
            }
            let after = Arc::new(Token { revoked_at: Some(now), ..(**before).clone() });
            // The one revoked now is left out, so that it is listed whatever its age: up to one more than the limit.
            let mut edits = surplus(tokens.iter().filter(|token| token.id != id), now);
            edits.push(Edit::PutToken(Arc::clone(&after)));
            Ok((edits, after))
        })
        .await
    }
}

/// Drops the oldest of the inactive tokens, so that one more makes [`INACTIVE_TOKENS_MAX`] at most.
fn surplus<'a>(oldest_first: impl Iterator<Item = &'a Arc<Token>>, now: DateTime<Utc>) -> Vec<Edit> {
    let inactive: Vec<_> = oldest_first.filter(|token| !token.is_active(now)).collect();
    let excess = (inactive.len() + 1).saturating_sub(INACTIVE_TOKENS_MAX);
    inactive.into_iter().take(excess).map(|token| Edit::DropToken(token.gateway, token.id)).collect()
}
