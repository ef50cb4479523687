use std::io;

use bytes::Bytes;
use gatecast_storage::{Directory, DirectoryError, TokenHash};
use subtle::ConstantTimeEq;
use tracing::warn;

use super::{AuthError, PlainToken, RandomSourceFailed, hash_of};

/// A configured admin token with fewer bytes is used, with a warning.
const SAFE_TOKEN_BYTES: usize = 16;
/// Where the directory keeps the SHA-256 of the admin token that the first start created.
const META_KEY: &str = "admin-token-sha256";

/// Who may call the platform API.
#[derive(Debug, Clone)]
pub enum AdminAuth {
    /// Everybody: for `--dev`, which binds loopback only.
    Open,
    /// Whoever knows the token of this hash.
    Token(TokenHash),
}

/// Why there is no admin token to check calls with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminSetupError {
    /// None could be made.
    #[error(transparent)]
    Random(#[from] RandomSourceFailed),
    /// Nobody could be shown it.
    #[error("the new admin token could not be shown, so none was made: {0}")]
    Show(#[source] io::Error),
    /// Its hash could not be kept.
    #[error("the hash of the new admin token could not be stored")]
    Directory(#[from] DirectoryError),
}

impl AdminAuth {
    /// The configured token if there is one, else the one that an earlier start created, else a new one: shown by `show`,
    /// as it cannot be had again, then its hash is kept in `directory`.
    ///
    /// # Errors
    /// [`AdminSetupError`].
    pub async fn from_config(
        configured: Option<&str>,
        directory: &Directory,
        show: impl FnOnce(&PlainToken) -> io::Result<()>,
    ) -> Result<Self, AdminSetupError> {
        if let Some(token) = configured {
            return Ok(Self::configured(token));
        }
        if let Some(hash) = directory.meta(META_KEY).and_then(|kept| <[u8; 32]>::try_from(&kept[..]).ok()) {
            return Ok(Self::Token(TokenHash(hash)));
        }
        let token = PlainToken::random()?;
        // Shown first: one that was shown and is not kept is replaced at the next start, the other way round it is lost.
        show(&token).map_err(AdminSetupError::Show)?;
        let hash = token.hash();
        directory.put_meta(META_KEY, Bytes::copy_from_slice(&hash.0)).await?;
        Ok(Self::Token(hash))
    }

    fn configured(token: &str) -> Self {
        if token.len() < SAFE_TOKEN_BYTES {
            warn!(
                "The admin token has fewer than {SAFE_TOKEN_BYTES} bytes and can be guessed; configure a longer one."
            );
        }
        Self::Token(hash_of(token))
    }

    /// Whether this credential is the admin token. Hashes are compared in constant time.
    ///
    /// # Errors
    /// [`AuthError::Missing`] or [`AuthError::Unknown`].
    pub fn check(&self, credential: Option<&str>) -> Result<(), AuthError> {
        let Self::Token(expected) = self else { return Ok(()) };
        let presented = hash_of(credential.ok_or(AuthError::Missing)?);
        if bool::from(presented.0.ct_eq(&expected.0)) { Ok(()) } else { Err(AuthError::Unknown) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gatecast_storage::MemoryRecords;

    use super::*;

    #[tokio::test]
    async fn the_first_start_creates_a_token_and_later_ones_know_it_by_hash() {
        let directory = Directory::open(Arc::new(MemoryRecords::new())).await.unwrap();
        let mut shown = String::new();
        let show = |token: &PlainToken| {
            token.expose().clone_into(&mut shown);
            Ok(())
        };
        let first = AdminAuth::from_config(None, &directory, show).await.unwrap();
        assert!(first.check(Some(&shown)).is_ok());

        let second = AdminAuth::from_config(None, &directory, |_| unreachable!("shown again")).await.unwrap();
        assert!(second.check(Some(&shown)).is_ok());
        assert_eq!(second.check(None), Err(AuthError::Missing));
        assert_eq!(second.check(Some("something else")), Err(AuthError::Unknown));
    }

    #[tokio::test]
    async fn a_token_that_nobody_is_shown_is_not_kept() {
        let directory = Directory::open(Arc::new(MemoryRecords::new())).await.unwrap();
        let failed = AdminAuth::from_config(None, &directory, |_| Err(io::ErrorKind::StorageFull.into())).await;
        assert!(matches!(failed, Err(AdminSetupError::Show(_))));
        assert_eq!(directory.meta(META_KEY), None);
    }

    #[tokio::test]
    async fn a_configured_token_wins() {
        let directory = Directory::open(Arc::new(MemoryRecords::new())).await.unwrap();
        let configured = AdminAuth::from_config(Some("0123456789abcdef"), &directory, |_| unreachable!("shown"));
        assert!(configured.await.unwrap().check(Some("0123456789abcdef")).is_ok());
    }
}
