//! What happens as one JSON object a line, told apart by `kind`.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::view::View;
use crate::client::{Closed, Incoming};

/// Lines for programs.
pub(super) struct JsonView<'a> {
    pub(super) out: &'a mut dyn Write,
}

/// A message in the server's own bytes.
#[derive(Serialize)]
struct Verbatim<'a> {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    transport: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<&'a str>,
    message: &'a RawValue,
}

impl JsonView<'_> {
    fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut *self.out, value)?;
        writeln!(self.out)?;
        self.out.flush()
    }

    fn verbatim(
        &mut self,
        kind: &'static str,
        transport: Option<String>,
        cursor: Option<&str>,
        raw: &str,
    ) -> io::Result<()> {
        self.line(&Verbatim { kind, transport, cursor, message: serde_json::from_str(raw)? })
    }
}

impl View for JsonView<'_> {
    fn connecting(&mut self, address: &str) -> io::Result<()> {
        self.line(&json!({ "kind": "connecting", "url": address }))
    }

    fn incoming(&mut self, incoming: &Incoming, address: &str) -> io::Result<()> {
        match incoming {
            Incoming::Connected { ack, transport } => {
                self.verbatim("connected", Some(transport.to_string()), None, &ack.raw)
            }
            Incoming::Event { cursor, raw, .. } => self.verbatim("event", None, Some(cursor), raw),
            Incoming::Reset(reset) => self.verbatim("reset", None, None, &reset.raw),
            Incoming::Goodbye { reconnect_after } => {
                self.line(&json!({ "kind": "goodbye", "reconnectAfterMs": reconnect_after.map(millis) }))
            }
            Incoming::Ping => self.line(&json!({ "kind": "ping" })),
            Incoming::PongSent => self.line(&json!({ "kind": "pong" })),
            Incoming::Error { code, detail } => self.line(&json!({ "kind": "error", "code": code, "detail": detail })),
            Incoming::Disconnected { reason, retry_in } => {
                let retry = millis(*retry_in);
                self.line(&json!({ "kind": "disconnected", "reason": reason, "retryInMs": retry, "url": address }))
            }
            Incoming::Fatal { status, code, detail } => {
                self.line(&json!({ "kind": "fatal", "status": status, "code": code, "detail": detail }))
            }
        }
    }

    fn interrupted(&mut self) -> io::Result<()> {
        self.line(&json!({ "kind": "interrupted" }))
    }

    fn closed(&mut self, how: Closed) -> io::Result<()> {
        self.line(&json!({ "kind": "closed", "byServer": how == Closed::ByServer }))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_with_its_own_bytes() {
        let raw = r#"{"type":"t","eventId":"6f3a9c21-1","n":1.50}"#.to_owned();
        let event = Incoming::Event { cursor: "6f3a9c21-1".into(), event_type: "t".into(), raw: raw.clone() };
        let mut out = Vec::new();
        JsonView { out: &mut out }.incoming(&event, "").unwrap();
        let expected = format!("{{\"kind\":\"event\",\"cursor\":\"6f3a9c21-1\",\"message\":{raw}}}\n");
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
