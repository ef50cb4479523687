use gatecast_storage::{Cursor, Subject};
use serde_json::Value;
use uuid::Uuid;

use crate::api::error::{ApiError, FieldError};
use crate::api::fields::Fields;

/// What a gateway says about an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) subject: Subject,
    pub(crate) status: Status,
    pub(crate) error_code: Option<String>,
    pub(crate) message: Option<String>,
}

/// How far the event has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// This one, and all before it, have arrived.
    Received,
    Applied,
    Failed,
}

/// Reads an `event.receipt`, or the `deployment.ack` of the real gateway clients, that is at the JSON Pointer `at`.
/// Members that mean nothing here are ignored, whatever they are.
pub(crate) fn report(message: &Value, at: &str) -> Result<Report, Vec<FieldError>> {
    let mut fields = fields(message, at)?;
    let is_ack = match fields.get("type").and_then(Value::as_str) {
        Some("event.receipt") => false,
        Some("deployment.ack") => true,
        _ => {
            fields.fault("type", "must be event.receipt or deployment.ack");
            return Err(fields.into_faults());
        }
    };
    fields.require("payload");
    let Some(payload) = fields.get("payload") else { return Err(fields.into_faults()) };
    let mut payload = self::fields(payload, &format!("{at}/payload"))?;
    let subject = if is_ack { deployment(&mut payload) } else { event(&mut payload) };
    let status = status(&mut payload, is_ack);
    // Free text: too long or strange is no reason to lose what it explains.
    let text = |name: &str| payload.get(name).and_then(Value::as_str).map(str::to_owned);
    let (error_code, message) = (text("errorCode"), text("message"));
    match (subject, status) {
        (Some(subject), Some(status)) => Ok(Report { subject, status, error_code, message }),
        _ => Err(payload.into_faults()),
    }
}

fn event(payload: &mut Fields<'_>) -> Option<Subject> {
    payload.require("eventId");
    payload.parsed::<Cursor>("eventId", "an eventId").map(Subject::Event)
}

fn deployment(payload: &mut Fields<'_>) -> Option<Subject> {
    payload.require("deploymentId");
    payload.parsed::<Uuid>("deploymentId", "a UUID").map(Subject::Deployment)
}

fn status(payload: &mut Fields<'_>, is_ack: bool) -> Option<Status> {
    let status = match (payload.get("status").and_then(Value::as_str), is_ack) {
        (Some("received"), false) => Some(Status::Received),
        (Some("applied"), false) | (Some("success"), true) => Some(Status::Applied),
        (Some("failed"), _) => Some(Status::Failed),
        _ => None,
    };
    if status.is_none() {
        payload
            .fault("status", if is_ack { "must be success or failed" } else { "must be received, applied or failed" });
    }
    status
}

fn fields<'v>(value: &'v Value, at: &str) -> Result<Fields<'v>, Vec<FieldError>> {
    Fields::of(value, at).map_err(|error| match error {
        ApiError::InvalidBody(faults) => faults,
        _ => Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn receipts_and_the_acks_of_real_clients_are_read() {
        let receipt = json!({"type": "event.receipt", "payload": {"eventId": "0000000a-7", "status": "failed", "errorCode": "E"}});
        let read = report(&receipt, "").unwrap();
        assert_eq!((read.subject, read.status), (Subject::Event("0000000a-7".parse().unwrap()), Status::Failed));
        assert_eq!(read.error_code.as_deref(), Some("E"));
        let ack = json!({"type": "deployment.ack", "timestamp": "x", "payload": {
            "deploymentId": Uuid::nil(), "artifactId": 7, "resourceType": "RestApi", "action": "DEPLOY", "status": "success",
            "performedAt": "2026-11-20T17:00:00Z"}});
        let read = report(&ack, "").unwrap();
        assert_eq!((read.subject, read.status), (Subject::Deployment(Uuid::nil()), Status::Applied));
    }

    #[test]
    fn what_is_wrong_is_told_by_pointer() {
        let fields = |message: Value| {
            let faults = report(&message, "/3").unwrap_err();
            faults.into_iter().map(|fault| fault.field).collect::<Vec<_>>()
        };
        assert_eq!(fields(json!(5)), ["/3"]);
        assert_eq!(fields(json!({})), ["/3/type"]);
        assert_eq!(fields(json!({"type": "event.receipt"})), ["/3/payload"]);
        assert_eq!(fields(json!({"type": "event.receipt", "payload": []})), ["/3/payload"]);
        let payload = json!({"eventId": "x", "status": "success"});
        assert_eq!(
            fields(json!({"type": "event.receipt", "payload": payload})),
            ["/3/payload/eventId", "/3/payload/status"]
        );
        assert_eq!(
            fields(json!({"type": "deployment.ack", "payload": {"status": "received"}})),
            ["/3/payload/deploymentId", "/3/payload/status"]
        );
    }

    proptest! {
        #[test]
        fn any_text_is_a_report_or_is_refused(text in "\\PC{0,200}|\\{\"type\":\"(event.receipt|deployment.ack)\",\"payload\":(\\{\"(eventId|status|deploymentId)\":(\"\\PC{0,9}\"|[0-9]{1,3}|null)\\}|\\PC{0,20})\\}") {
            if let Ok(message) = serde_json::from_str::<Value>(&text) {
                let read = report(&message, "");
                prop_assert!(read.is_ok() || read.is_err_and(|faults| !faults.is_empty()));
            }
        }
    }
}
