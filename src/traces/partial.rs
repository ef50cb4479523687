//! What a collector did not take of a batch that it took (OTLP specification § Partial Success).

use serde::Deserialize;
use serde_json::Value;

/// A longer answer is not looked at, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Of what the collector says so many characters go to the log.
const MESSAGE_CHARS_MAX: usize = 200;

/// Spans that were rejected, and why; or only a warning.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Partial {
    pub(super) rejected: u64,
    pub(super) message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    partial_success: Option<PartialSuccess>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct PartialSuccess {
    /// 64-bit numbers are text in Protobuf's JSON; some write numbers.
    rejected_spans: Value,
    error_message: String,
}

impl Partial {
    /// What the body of a 200 says; nothing if it cannot be read, as the spans are taken in any case.
    pub(super) async fn of(mut answer: reqwest::Response) -> Self {
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = answer.chunk().await {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Self::default();
            }
            body.extend_from_slice(&chunk);
        }
        Self::parsed(&body)
    }

    fn parsed(body: &[u8]) -> Self {
        let partial = serde_json::from_slice::<Answer>(body).ok().and_then(|answer| answer.partial_success);
        let PartialSuccess { rejected_spans, error_message } = partial.unwrap_or_default();
        let rejected = rejected_spans.as_u64().or_else(|| rejected_spans.as_str()?.parse().ok());
        let message = error_message.chars().take(MESSAGE_CHARS_MAX).collect();
        Self { rejected: rejected.unwrap_or_default(), message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_rejected_is_read_as_text_or_number_and_anything_else_is_nothing() {
        for (body, rejected, message) in [
            (r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"too old"}}"#, 3, "too old"),
            (r#"{"partialSuccess":{"rejectedSpans":3}}"#, 3, ""),
            (r#"{"partialSuccess":{"errorMessage":"deprecated"}}"#, 0, "deprecated"),
            (r#"{"partialSuccess":{"rejectedSpans":-1}}"#, 0, ""),
            (r#"{"partialSuccess":null}"#, 0, ""),
            ("{}", 0, ""),
            ("", 0, ""),
            ("\u{1}protobuf", 0, ""),
        ] {
            assert_eq!(Partial::parsed(body.as_bytes()), Partial { rejected, message: message.to_owned() }, "{body}");
        }
        let long = format!(r#"{{"partialSuccess":{{"errorMessage":"{}"}}}}"#, "é".repeat(1_000));
        assert_eq!(Partial::parsed(long.as_bytes()).message.chars().count(), MESSAGE_CHARS_MAX);
    }
}
