//! RFC 9457 problem details, as the server writes them.

use serde::{Deserialize, Serialize};

/// What went wrong, in the server's words. Every member may be missing: proxies answer too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Problem {
    /// In a few words.
    pub title: Option<String>,
    /// The HTTP status.
    pub status: Option<u16>,
    /// In a sentence.
    pub detail: Option<String>,
    /// Stable, for programs.
    pub code: Option<String>,
    /// What the server's operator can look for in its log.
    pub tracking_id: Option<String>,
    /// Faults of single fields.
    pub errors: Vec<FieldError>,
}

/// The fault of one field.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FieldError {
    /// Where: a field's name or a JSON pointer.
    pub field: String,
    /// What.
    pub message: String,
}
