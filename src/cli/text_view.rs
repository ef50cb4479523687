//! What happens in the words of the quickstart's test client.

use std::io::{self, Write};

use super::pretty::pretty;
use super::printable::printable;
use super::seconds::seconds;
use super::view::View;
use crate::client::{Ack, Closed, Incoming, Reset};

/// Words for people.
pub(super) struct TextView<'a> {
    pub(super) out: &'a mut dyn Write,
}

impl View for TextView<'_> {
    fn connecting(&mut self, address: &str) -> io::Result<()> {
        writeln!(self.out, "Connecting to {}...", printable(address))?;
        self.out.flush()
    }

    fn incoming(&mut self, incoming: &Incoming, address: &str) -> io::Result<()> {
        match incoming {
            Incoming::Connected { ack, transport } => self.connected(ack, &transport.to_string())?,
            Incoming::Event { raw, .. } => writeln!(self.out, "{}", pretty(raw))?,
            Incoming::Reset(reset) => self.reset(reset)?,
            Incoming::Goodbye { reconnect_after } => {
                let slot = reconnect_after.map(|slot| format!("; reconnecting in {}", seconds(slot)));
                writeln!(self.out, "← Received GOODBYE from server{}", slot.unwrap_or_default())?;
            }
            Incoming::Ping => writeln!(self.out, "← Received PING from server")?,
            Incoming::PongSent => writeln!(self.out, "→ Sent PONG to server")?,
            Incoming::Error { code, detail } => {
                writeln!(self.out, "✗ Error from server: {} ({})", printable(detail), printable(code))?;
            }
            Incoming::Disconnected { reason, retry_in } => {
                writeln!(self.out, "✗ Disconnected: {}", printable(reason))?;
                writeln!(self.out, "Reconnecting to {} in {}...", printable(address), seconds(*retry_in))?;
            }
            Incoming::Fatal { status, code, detail } => {
                let status = status.map(|status| format!("{status} ")).unwrap_or_default();
                writeln!(self.out, "✗ Connection rejected: {status}{} ({})", printable(detail), printable(code))?;
            }
        }
        self.out.flush()
    }

    fn interrupted(&mut self) -> io::Result<()> {
        writeln!(self.out, "\nInterrupt received, closing connection...")?;
        self.out.flush()
    }

    fn closed(&mut self, how: Closed) -> io::Result<()> {
        writeln!(
            self.out,
            "{}",
            match how {
                Closed::ByServer => "Connection closed by server",
                Closed::Abandoned => "Connection closed; the server did not confirm",
                Closed::NotOpen => "No connection was open",
            }
        )?;
        self.out.flush()
    }
}

impl TextView<'_> {
    fn connected(&mut self, ack: &Ack, transport: &str) -> io::Result<()> {
        writeln!(self.out, "✓ Connected successfully!\n✓ Received connection ACK:")?;
        let members = [
            ("Gateway ID", Some(ack.gateway_id.as_str())),
            ("Connection ID", Some(&ack.connection_id)),
            ("Timestamp", Some(&ack.timestamp)),
            ("Position", ack.position.as_deref()),
            ("Resume", ack.resume.as_deref()),
            ("Transport", Some(ack.transport.as_deref().unwrap_or(transport))),
        ];
        for (name, value) in members {
            if let Some(value) = value {
                writeln!(self.out, "  {name}: {}", printable(value))?;
            }
        }
        writeln!(self.out, "\nConnection established. Waiting for messages...\nPress Ctrl+C to disconnect\n---")
    }

    fn reset(&mut self, reset: &Reset) -> io::Result<()> {
        let unknown = "(unknown)";
        let word = |text: &Option<String>| printable(text.as_deref().unwrap_or(unknown)).into_owned();
        let lost = reset.lost.map_or_else(|| "an unknown number of".to_owned(), |lost| lost.to_string());
        writeln!(self.out, "!!! STREAM RESET ({}): lost {lost} events !!!", printable(&reset.reason))?;
        writeln!(self.out, "!!! asked for what follows {}", word(&reset.requested))?;
        writeln!(self.out, "!!! still held: {} to {}", word(&reset.oldest), word(&reset.newest))?;
        let compacted = reset.compacted.map(|compacted| format!(" ({compacted} events)")).unwrap_or_default();
        writeln!(self.out, "!!! the gateway's compacted state follows{compacted}")?;
        if reset.complete == Some(false) {
            writeln!(self.out, "!!! it is not complete: what was deleted meanwhile may not be told")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Transport;

    fn shown(incoming: &Incoming) -> String {
        let mut out = Vec::new();
        TextView { out: &mut out }.incoming(incoming, "wss://h/p").unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_seeds_words() {
        let ack = Ack {
            gateway_id: "d1aa71bc".to_owned(),
            connection_id: "85d759e5".to_owned(),
            timestamp: "2025-10-19T07:11:04+05:30".to_owned(),
            position: Some("6f3a9c21-41".to_owned()),
            resume: Some("live".to_owned()),
            transport: Some("websocket".to_owned()),
            raw: String::new(),
        };
        let said = shown(&Incoming::Connected { ack, transport: Transport::WebSocket });
        let expected = "\
✓ Connected successfully!
✓ Received connection ACK:
  Gateway ID: d1aa71bc
  Connection ID: 85d759e5
  Timestamp: 2025-10-19T07:11:04+05:30
  Position: 6f3a9c21-41
  Resume: live
  Transport: websocket

Connection established. Waiting for messages...
Press Ctrl+C to disconnect
---
";
        assert_eq!(said, expected);
        assert_eq!(shown(&Incoming::Ping), "← Received PING from server\n");
        assert_eq!(shown(&Incoming::PongSent), "→ Sent PONG to server\n");
    }

    #[test]
    fn a_reset_is_loud_about_what_is_lost() {
        let reset = Reset { reason: "overwritten".to_owned(), lost: Some(1234), ..Reset::default() };
        assert!(shown(&Incoming::Reset(reset)).contains("lost 1234 events"));
        assert!(shown(&Incoming::Reset(Reset::default())).contains("an unknown number of"));
    }

    #[test]
    fn an_event_is_indented_and_harmless() {
        let raw = r#"{"type":"t","payload":{"x":1}}"#.to_owned();
        let said = shown(&Incoming::Event { cursor: String::new(), event_type: String::new(), raw });
        assert_eq!(said, "{\n  \"type\": \"t\",\n  \"payload\": {\n    \"x\": 1\n  }\n}\n");
        let hostile = Incoming::Error { code: "\u{1b}]0;x\u{7}".to_owned(), detail: "d".to_owned() };
        assert!(!shown(&hostile).contains('\u{1b}'));
    }
}
