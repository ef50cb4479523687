use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use gatecast_storage::{Directory, Gateway, TokenHash, TokenId, TokenState};
use gatecast_transports::Secret;

use super::token::TOKEN_CHARS;
use super::{AuthError, hash_of};

/// Knows gateways by their tokens and by the names of their certificates. One look-up, however many gateways there are.
pub struct Authenticator {
    directory: Arc<Directory>,
}

/// What someone presents who says to be a gateway.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// A token.
    pub credential: Option<&'a Secret>,
    /// The names of a verified client certificate.
    pub certificate_names: &'a [Box<str>],
    /// Where it comes from.
    pub address: IpAddr,
}

/// What a gateway proved itself by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Proof {
    /// One of its tokens.
    Token(TokenId),
    /// A certificate of this name.
    Certificate(Box<str>),
}

/// A gateway that has proved itself.
#[derive(Debug, Clone)]
pub struct Proven {
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// What by.
    pub proof: Proof,
    /// When the proof ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
}

impl Authenticator {
    /// Over the tokens of `directory`.
    #[must_use]
    pub fn new(directory: Arc<Directory>) -> Self {
        Self { directory }
    }

    /// The gateway of a claim, if that holds at `now`. A token counts more than a certificate; a certificate of another
    /// gateway makes it worthless. The address is looked at last, so that it refuses only who proved themselves; they
    /// are refused as everybody else is.
    ///
    /// # Errors
    /// [`AuthError`]; the caller of the API must not learn which.
    pub fn gateway(&self, claim: &Claim<'_>, now: DateTime<Utc>) -> Result<Proven, AuthError> {
        let certified = self.certified(claim.certificate_names)?;
        let proven = match (claim.credential, certified) {
            (Some(credential), certified) => {
                let proven = self.by_token(credential, now)?;
                if certified.is_some_and(|certified| certified.gateway.id != proven.gateway.id) {
                    return Err(AuthError::OtherCertificate);
                }
                proven
            }
            (None, Some(certified)) => certified,
            (None, None) => return Err(AuthError::Missing),
        };
        if proven.gateway.access.allows(claim.address) { Ok(proven) } else { Err(AuthError::Address) }
    }

    fn by_token(&self, credential: &Secret, now: DateTime<Utc>) -> Result<Proven, AuthError> {
        // No token has another length, so nobody makes us hash a long one.
        if credential.expose().len() != TOKEN_CHARS {
            return Err(AuthError::Unknown);
        }
        let hash = TokenHash(credential.digest(|token| hash_of(token).0));
        let (token, gateway) = self.directory.token_by_hash(&hash).ok_or(AuthError::Unknown)?;
        match token.state(now) {
            TokenState::Active => Ok(Proven { gateway, proof: Proof::Token(token.id), expires_at: token.expires_at }),
            TokenState::Expired => Err(AuthError::Expired),
            TokenState::Revoked => Err(AuthError::Revoked),
        }
    }

    /// The one gateway that a certificate is of; names of nobody do no harm.
    fn certified(&self, names: &[Box<str>]) -> Result<Option<Proven>, AuthError> {
        let mut found: Option<Proven> = None;
        for name in names {
            let Some(gateway) = self.directory.gateway_of_certificate(name) else { continue };
            match &found {
                Some(first) if first.gateway.id != gateway.id => return Err(AuthError::SeveralGateways),
                Some(_) => {}
                None => {
                    found = Some(Proven { gateway, proof: Proof::Certificate(name.clone()), expires_at: None });
                }
            }
        }
        Ok(found)
    }
}
