use std::sync::Arc;

use gatecast_storage::Cursor;
use serde_json::Value;

use super::LAST;
use super::ledger::Ledger;
use crate::platform::Registered;

/// Epoch and seq.
pub(super) type Place = (String, u64);

/// What somebody was told: at this place of this gateway's log stands the event with this number.
pub(super) type Told = (gatecast_storage::GatewayId, Place, u64);

pub(super) fn place(event_id: &str) -> Place {
    let cursor: Cursor = event_id.parse().unwrap();
    (cursor.epoch.to_string(), cursor.seq.0)
}

/// What one subscriber of a gateway saw, over all its connections. Each message is checked against what came before:
/// events come densely from the cursor on, or a reset has said exactly which do not.
pub(super) struct Seen {
    pub(super) gateway: Registered,
    pub(super) told: Vec<Told>,
    /// Events that never come, as the resets say.
    pub(super) lost: u64,
    pub(super) resets: usize,
    epoch: String,
    /// The last event that was handled.
    last: u64,
    /// Where the ring goes on, once this much of the compacted state came.
    next: u64,
    compacted: u64,
    /// The ack announced a reset.
    reset_is_due: bool,
    /// Of all.
    ledger: Arc<Ledger>,
}

impl Seen {
    /// Nothing yet, of a log with this epoch.
    pub(super) fn nothing(gateway: Registered, epoch: String, ledger: Arc<Ledger>) -> Self {
        let (told, next) = (Vec::new(), 1);
        Self { gateway, told, lost: 0, resets: 0, epoch, last: 0, next, compacted: 0, reset_is_due: false, ledger }
    }

    pub(super) fn cursor(&self) -> String {
        format!("{}-{}", self.epoch, self.last)
    }

    pub(super) fn done(&self) -> bool {
        self.told.last().is_some_and(|(_, _, n)| *n == LAST)
    }

    pub(super) fn take(&mut self, message: &Value) {
        match message["type"].as_str().unwrap() {
            "connection.ack" => self.ack(message),
            "stream.reset" => self.reset(&message["payload"]),
            "api.deployed" => self.event(message),
            _ => panic!("{message}"),
        }
    }

    fn ack(&mut self, message: &Value) {
        assert_eq!(message["position"], self.cursor(), "{message}");
        assert!(message["resume"] == "resumed" || message["resume"] == "reset", "{message}");
        (self.next, self.compacted) = (self.last + 1, 0);
        self.reset_is_due = message["resume"] == "reset";
    }

    fn reset(&mut self, payload: &Value) {
        assert_eq!((&payload["reason"], &payload["complete"]), (&"overwritten".into(), &true.into()), "{payload}");
        let (epoch, position) = place(payload["requested"].as_str().unwrap());
        // Where the compacted state ends a connection stands before the ring, wherever the last event was.
        let stands = position == self.last || (self.compacted == 0 && position + 1 == self.next);
        assert!(stands && epoch == self.epoch, "{payload}");
        let (epoch, oldest) = place(payload["oldest"].as_str().unwrap());
        assert_eq!(epoch, self.epoch);
        let number = |name: &str| payload[name].as_u64().unwrap();
        (self.next, self.compacted) = (oldest, number("compacted"));
        assert_eq!(position + number("lost") + self.compacted + 1, oldest, "exactly what is not there: {payload}");
        self.lost = position - self.told.len() as u64 + number("lost");
        self.resets += 1;
        self.reset_is_due = false;
    }

    fn event(&mut self, message: &Value) {
        let (epoch, seq) = place(message["eventId"].as_str().unwrap());
        assert!(epoch == self.epoch && message["gatewayId"] == self.gateway.id.to_string(), "of this log: {message}");
        assert!(!self.reset_is_due, "the reset comes first: {message}");
        if self.compacted > 0 {
            assert!((self.last + 1..self.next).contains(&seq), "in order, of the compacted state: {message}");
            self.compacted -= 1;
        } else {
            assert_eq!(seq, self.next, "dense, in order, each once: {message}");
            self.next += 1;
        }
        self.last = seq;
        let told = (self.gateway.id, (epoch, seq), message["payload"]["n"].as_u64().unwrap());
        self.ledger.note(&told);
        self.told.push(told);
    }
}
