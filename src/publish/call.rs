//! A call that may be repeated, and what is kept of its answer until it is.

use bytes::Bytes;
use gatecast_storage::{Answer, AnswerName, GatewayId, LogError, StoreError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::PublishError;

/// A call that may be repeated: its events are published once, its answers stay the first.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// A hash of the kind of call and the publisher's key.
    pub key: [u8; 16],
    /// The SHA-256 of what is asked.
    pub asked: [u8; 32],
}

impl Call {
    /// Refuses another call than the one that this was kept of.
    pub(super) fn must_fit(&self, kept: &Answer) -> Result<(), PublishError> {
        if kept.asked == self.asked { Ok(()) } else { Err(PublishError::KeyReused) }
    }

    /// What its answer for a gateway is kept under.
    pub(super) fn name(&self, gateway: GatewayId) -> AnswerName {
        AnswerName { gateway, key: self.key }
    }
}

/// What is kept of an answer, beside the position and the time.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Note {
    #[serde(rename = "id")]
    pub(super) correlation_id: String,
    #[serde(rename = "n")]
    pub(super) connections: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) about: Option<Box<RawValue>>,
}

/// What is kept of a call, as bytes.
pub(super) fn encode(kept: &impl Serialize) -> Bytes {
    // Text and numbers always have a JSON form.
    serde_json::to_vec(kept).unwrap_or_default().into()
}

/// What was kept of a call, from its bytes.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, PublishError> {
    let kept = serde_json::from_slice(bytes);
    kept.map_err(|error| LogError::from(StoreError::Malformed(format!("an answer: {error}"))).into())
}
