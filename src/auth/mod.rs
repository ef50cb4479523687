//! Who may do what: the platform's own callers by the admin token, gateways by their tokens.
//!
//! A gateway may also prove itself by a client certificate, and be bound to the addresses that it may come from.
//! Tokens are 32 random bytes, shown once; only their SHA-256 is kept. A missing, wrong, revoked or expired
//! credential is one and the same refusal to the caller; [`AuthError`] tells them apart for the log alone.
//! A browser exchanges the admin token for a cookie, which counts from our own pages only ([`Operators`]).

mod admin;
mod browsers;
mod credential;
mod gateway;
mod operators;
mod token;

pub use self::admin::{AdminAuth, AdminSetupError};
pub use self::browsers::{Browsers, SignedIn};
pub use self::credential::{bearer, gateway_credential};
pub use self::gateway::{Authenticator, Claim, Proof, Proven, Validity};
pub(crate) use self::operators::cookies;
pub use self::operators::{Operators, Standing};
pub use self::token::{PlainToken, RandomSourceFailed, hash_of};

/// Why a credential was refused. For the log; callers learn only that it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// None was presented.
    #[error("no credential was presented")]
    Missing,
    /// It is not one that was ever given out, or its gateway is gone.
    #[error("the credential is not known")]
    Unknown,
    /// It was revoked.
    #[error("the token was revoked")]
    Revoked,
    /// Its time has passed.
    #[error("the token has expired")]
    Expired,
    /// The gateway may not come from this address.
    #[error("the gateway may not come from this address")]
    Address,
    /// It came with the certificate of another gateway.
    #[error("the certificate is another gateway's")]
    OtherCertificate,
    /// The certificate's names are of several gateways.
    #[error("the certificate is of several gateways")]
    SeveralGateways,
    /// A browser sent it from a page that is not ours.
    #[error("a browser sent it from another site")]
    CrossSite,
}
