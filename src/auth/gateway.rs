use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use gatecast_storage::{Directory, Gateway, TokenId, TokenState};
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
    /// Until when.
    pub valid: Validity,
}

/// How long it holds that a gateway has proved itself.
#[derive(Debug, Clone, Copy)]
pub struct Validity {
    /// The directory's, before it was asked.
    pub(crate) generation: u64,
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
        // Before the look-ups.
        let generation = self.directory.generation();
        let certified = self.certified(claim.certificate_names, generation)?;
        let proven = match (claim.credential, certified) {
            (Some(credential), certified) => {
                let proven = self.by_token(credential, generation, now)?;
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

    /// Whether what was found of a claim would be found again.
    pub(crate) fn is_valid(&self, valid: Validity, now: DateTime<Utc>) -> bool {
        valid.generation == self.directory.generation() && valid.expires_at.is_none_or(|at| now < at)
    }

    fn by_token(&self, credential: &Secret, generation: u64, now: DateTime<Utc>) -> Result<Proven, AuthError> {
        // No token has another length, so nobody makes us hash a long one.
        if credential.expose().len() != TOKEN_CHARS {
            return Err(AuthError::Unknown);
        }
        let hash = hash_of(credential.expose());
        let (token, gateway) = self.directory.token_by_hash(&hash).ok_or(AuthError::Unknown)?;
        match token.state(now) {
            TokenState::Active => {
                let valid = Validity { generation, expires_at: token.expires_at };
                Ok(Proven { gateway, proof: Proof::Token(token.id), valid })
            }
            TokenState::Expired => Err(AuthError::Expired),
            TokenState::Revoked => Err(AuthError::Revoked),
        }
    }

    /// The one gateway that a certificate is of; names of nobody do no harm.
    fn certified(&self, names: &[Box<str>], generation: u64) -> Result<Option<Proven>, AuthError> {
        let mut found: Option<Proven> = None;
        for name in names {
            let Some(gateway) = self.directory.gateway_of_certificate(name) else { continue };
            match &found {
                Some(first) if first.gateway.id != gateway.id => return Err(AuthError::SeveralGateways),
                Some(_) => {}
                None => {
                    let valid = Validity { generation, expires_at: None };
                    found = Some(Proven { gateway, proof: Proof::Certificate(name.clone()), valid });
                }
            }
        }
        Ok(found)
    }
}
