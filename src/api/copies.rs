use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use gatecast_storage as storage;
use gatecast_storage::ApiId;
use tokio::sync::OnceCell;

use super::error::ApiError;

/// Artifacts that are on their way to whoever asked for them: one copy of each, however many ask, and none once all have it.
/// All replicas of a gateway ask at once, and one HTTP/2 connection may ask 256 times.
#[derive(Default)]
pub(super) struct Copies(Mutex<HashMap<(ApiId, Form), Weak<Copy>>>);

/// As what an artifact is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// As it was put.
    Yaml,
    /// A zip of one file.
    Zip,
}

struct Copy {
    /// Another one once the artifact was put anew.
    of: Arc<storage::Api>,
    bytes: OnceCell<Bytes>,
}

/// A copy, for as long as its bytes are held.
struct Held(Arc<Copy>);

impl Copies {
    /// The artifact of an API as it is now, which is made if nobody is being sent it.
    pub(super) async fn get(
        &self,
        of: Arc<storage::Api>,
        form: Form,
        make: impl Future<Output = Result<Bytes, ApiError>>,
    ) -> Result<Bytes, ApiError> {
        let copy = self.copy(of, form);
        copy.bytes.get_or_try_init(|| make).await?;
        Ok(Bytes::from_owner(Held(copy)))
    }

    fn copy(&self, of: Arc<storage::Api>, form: Form) -> Arc<Copy> {
        // Never half changed.
        let mut copies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (of.id.clone(), form);
        let held = copies.get(&key).and_then(Weak::upgrade);
        if let Some(copy) = held.filter(|copy| Arc::ptr_eq(&copy.of, &of)) {
            return copy;
        }
        copies.retain(|_, copy| copy.strong_count() > 0);
        let copy = Arc::new(Copy { of, bytes: OnceCell::new() });
        copies.insert(key, Arc::downgrade(&copy));
        copy
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes.get().map_or(&[], |bytes| bytes)
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;

    fn api(id: &str) -> Arc<storage::Api> {
        let updated_at = chrono::DateTime::UNIX_EPOCH;
        Arc::new(storage::Api { id: id.parse().unwrap(), revision: None, updated_at, size: 3 })
    }

    async fn get(copies: &Copies, of: &Arc<storage::Api>, form: Form) -> Bytes {
        let make = async {
            tokio::task::yield_now().await;
            Ok(Bytes::from(b"abc".to_vec()))
        };
        copies.get(of.clone(), form, make).await.unwrap()
    }

    #[tokio::test]
    async fn all_who_are_sent_an_artifact_share_a_copy_that_goes_with_the_last() {
        let (copies, pets) = (Copies::default(), api("pets"));
        let sent = join_all((0..9).map(|_| get(&copies, &pets, Form::Zip))).await;
        assert!(sent.iter().all(|bytes| bytes == "abc" && bytes.as_ptr() == sent[0].as_ptr()));
        // Put anew meanwhile, as something else, and another API.
        for (of, form) in [(api("pets"), Form::Zip), (pets.clone(), Form::Yaml), (api("cats"), Form::Zip)] {
            assert_ne!(get(&copies, &of, form).await.as_ptr(), sent[0].as_ptr());
        }
        drop(sent);
        let _other = get(&copies, &api("dogs"), Form::Zip).await;
        assert_eq!(copies.0.lock().unwrap().len(), 1, "what nobody is sent is gone");
    }

    #[tokio::test]
    async fn what_could_not_be_made_is_made_for_the_next() {
        let (copies, pets) = (Copies::default(), api("pets"));
        let failed = copies.get(pets.clone(), Form::Yaml, async { Err(ApiError::Forbidden) }).await;
        assert!(failed.is_err());
        assert_eq!(get(&copies, &pets, Form::Yaml).await, "abc");
    }
}
