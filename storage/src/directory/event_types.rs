use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::edit::Edit;
use super::{Directory, DirectoryError};

/// A registered event type. The caller has checked name, schema and pointer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventType {
    /// Its name, as in an event's `type`.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// What payloads must be: JSON Schema 2020-12.
    pub schema: serde_json::Value,
    /// Where in a payload the entity's key is: a JSON Pointer (RFC 6901).
    pub key_pointer: Option<String>,
    /// Its events are tombstones: the entity is gone.
    #[serde(default)]
    pub ends_key: bool,
    /// The first put.
    pub created_at: DateTime<Utc>,
    /// The last put.
    pub updated_at: DateTime<Utc>,
}

impl Directory {
    /// Puts an event type, replacing the one of its name, whose [`EventType::created_at`] is kept.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn put_event_type(&self, kind: EventType) -> Result<Arc<EventType>, DirectoryError> {
        self.write(move |model| {
            let created_at = model.event_type(&kind.name).map_or(kind.created_at, |before| before.created_at);
            let kind = Arc::new(EventType { created_at, ..kind });
            Ok((vec![Edit::PutEventType(Arc::clone(&kind))], kind))
        })
        .await
    }

    /// An event type by name.
    #[must_use]
    pub fn event_type(&self, name: &str) -> Option<Arc<EventType>> {
        self.read().event_type(name).cloned()
    }

    /// All event types, by name.
    #[must_use]
    pub fn event_types(&self) -> Vec<Arc<EventType>> {
        self.read().event_types()
    }

    /// Deletes an event type; says whether there was one. Idempotent.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn delete_event_type(&self, name: &str) -> Result<bool, DirectoryError> {
        let name = name.to_owned();
        self.write(move |model| {
            let existed = model.event_type(&name).is_some();
            Ok((if existed { vec![Edit::DropEventType(name)] } else { Vec::new() }, existed))
        })
        .await
    }
}
