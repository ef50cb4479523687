use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gatecast_storage::TokenHash;
use sha2::{Digest, Sha256};

/// Bytes of randomness in a token.
const TOKEN_RANDOM_BYTES: usize = 32;
/// Characters of a token: its random bytes as base64url without padding.
pub(super) const TOKEN_CHARS: usize = 43;

/// A token as its owner knows it: shown once, stored nowhere. It has no `Debug`, so that no log line can hold it.
pub struct PlainToken(String);

/// The operating system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system's source of randomness failed")]
pub struct RandomSourceFailed(#[source] getrandom::Error);

impl PlainToken {
    /// A new token.
    ///
    /// # Errors
    /// If the operating system gives no random bytes.
    pub fn random() -> Result<Self, RandomSourceFailed> {
        let mut bytes = [0; TOKEN_RANDOM_BYTES];
        getrandom::fill(&mut bytes).map_err(RandomSourceFailed)?;
        Ok(Self(URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// What is kept of it.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        hash_of(&self.0)
    }

    /// The token itself, to be shown to its owner.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// The hash under which a credential would be stored.
#[must_use]
pub fn hash_of(credential: &str) -> TokenHash {
    TokenHash(Sha256::digest(credential.as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_43_characters_of_base64url_and_never_the_same() {
        let (a, b) = (PlainToken::random().unwrap(), PlainToken::random().unwrap());
        assert_eq!(a.expose().len(), TOKEN_CHARS);
        assert_eq!(URL_SAFE_NO_PAD.decode(a.expose()).unwrap().len(), TOKEN_RANDOM_BYTES);
        assert_ne!(a.expose(), b.expose());
        assert_eq!(a.hash(), hash_of(a.expose()));
    }

    #[test]
    fn the_hash_is_sha_256() {
        let TokenHash(abc) = hash_of("abc");
        assert_eq!(abc[..4], [0xba, 0x78, 0x16, 0xbf]);
    }
}
