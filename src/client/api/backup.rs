use bytes::Bytes;

use super::super::trouble::causes;
use super::error::ApiError;

/// A backup as it comes.
#[derive(Debug)]
pub struct Backup {
    pub(super) response: reqwest::Response,
}

impl Backup {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// [`ApiError::Unreachable`] if it breaks off.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, ApiError> {
        self.response.chunk().await.map_err(|error| ApiError::Unreachable(causes(&error.without_url())))
    }
}
