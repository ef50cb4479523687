use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::deployments::deletion;
use super::edit::{Edit, api_key};
use super::{Directory, DirectoryError};
use crate::records::{StoreError, Table};

/// The longest [`ApiId`], in bytes.
const API_ID_BYTES_MAX: usize = 128;

/// The id of an API: 1 to 128 of the characters that a URL leaves as they are, `[A-Za-z0-9._~-]`. Usually a UUID.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ApiId(String);

impl ApiId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Sorts before every id; for ranges only.
    pub(super) fn lowest() -> Self {
        Self(String::new())
    }
}

/// The text is not 1 to 128 characters of `[A-Za-z0-9._~-]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an API id: expected 1 to 128 letters, digits, or any of . _ ~ -")]
pub struct InvalidApiId;

impl TryFrom<String> for ApiId {
    type Error = InvalidApiId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let unreserved = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'~' | b'-');
        let fits = (1..=API_ID_BYTES_MAX).contains(&text.len());
        // A path segment of dots alone means another resource to every HTTP client (RFC 3986 § 5.2.4).
        let is_path_step = matches!(text.as_str(), "." | "..");
        if fits && text.bytes().all(unreserved) && !is_path_step { Ok(Self(text)) } else { Err(InvalidApiId) }
    }
}

impl FromStr for ApiId {
    type Err = InvalidApiId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.to_owned().try_into()
    }
}

impl From<ApiId> for String {
    fn from(id: ApiId) -> Self {
        id.0
    }
}

impl fmt::Display for ApiId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An API whose artifact is kept. The artifact itself is on disk only: [`Directory::api_artifact`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Api {
    /// Its id.
    pub id: ApiId,
    /// The revision of the artifact.
    pub revision: Option<String>,
    /// When the artifact was put.
    pub updated_at: DateTime<Utc>,
    /// Bytes of the artifact.
    pub size: u64,
}

impl Directory {
    /// Keeps an API and its artifact, replacing both. [`Api::size`] is set from the artifact.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn put_api(&self, api: Api, artifact: Bytes) -> Result<Arc<Api>, DirectoryError> {
        let api = Arc::new(Api { size: artifact.len() as u64, ..api });
        self.write(move |_| Ok((vec![Edit::PutApi(Arc::clone(&api), artifact)], api))).await
    }

    /// An API by id.
    #[must_use]
    pub fn api(&self, id: &ApiId) -> Option<Arc<Api>> {
        self.read().api(id).cloned()
    }

    /// All APIs, by id.
    #[must_use]
    pub fn apis(&self) -> Vec<Arc<Api>> {
        self.read().apis()
    }

    /// The artifact of an API, read from the store.
    ///
    /// # Errors
    /// If the store cannot be read now.
    pub async fn api_artifact(&self, id: &ApiId) -> Result<Option<Bytes>, StoreError> {
        self.shared.records.get(Table::Artifacts, &api_key(id)).await
    }

    /// Deletes an API, its artifact and its deployments, in one commit; says whether there was anything. Idempotent.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn delete_api(&self, id: ApiId, now: DateTime<Utc>) -> Result<bool, DirectoryError> {
        self.write_urgently(move |model| {
            let mut edits = deletion(model, &id, now);
            if model.api(&id).is_some() {
                edits.push(Edit::DropApi(id));
            }
            let existed = !edits.is_empty();
            Ok((edits, existed))
        })
        .await
    }
}
