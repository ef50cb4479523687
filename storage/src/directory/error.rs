use crate::ids::GatewayId;
use crate::records::StoreError;

/// Why the directory refused. Nothing is half done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// Another gateway of the organization has the name.
    #[error("the organization has another gateway of this name")]
    NameTaken,
    /// Certificates of this name are another gateway's.
    #[error("certificates named {0} are another gateway's")]
    CertificateNameTaken(String),
    /// The id, or the hash of a token, is in use.
    #[error("the id is in use")]
    IdTaken,
    /// There is no such gateway.
    #[error("there is no gateway {0}")]
    NoSuchGateway(GatewayId),
    /// The gateway has as many active tokens as it may have.
    #[error("the gateway has {max} active tokens, the most it may have")]
    TooManyTokens {
        /// The limit.
        max: usize,
    },
    /// What was asked of the gateway about the API before is not known to be stored; the next start finds out.
    #[error("an earlier deployment is not settled")]
    Unsettled,
    /// What was to be changed does not exist.
    #[error("not found")]
    NotFound,
    /// The store cannot serve now.
    #[error(transparent)]
    Store(#[from] StoreError),
}
