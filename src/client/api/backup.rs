use bytes::Bytes;

use super::BACKUP_TIMEOUT;
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
    /// [`ApiError::Unanswered`] if it breaks off.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, ApiError> {
        self.response.chunk().await.map_err(|error| ApiError::without_answer(error, BACKUP_TIMEOUT, false))
    }
}
