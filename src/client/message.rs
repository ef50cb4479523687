//! One message of the server, the same bytes on every transport.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// The first message of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ack {
    /// The gateway that the key belongs to.
    #[serde(default)]
    pub gateway_id: String,
    /// This connection.
    #[serde(default)]
    pub connection_id: String,
    /// The server's time.
    #[serde(default)]
    pub timestamp: String,
    /// The cursor that the connection starts from.
    pub position: Option<String>,
    /// `live`, `resumed` or `reset`.
    pub resume: Option<String>,
    /// The transport as the server calls it.
    pub transport: Option<String>,
    /// The message as it came.
    #[serde(skip)]
    pub raw: String,
}

/// Events after the cursor are gone; the compacted state follows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Reset {
    /// `overwritten`, `unknown-epoch`, `ahead` or `foreign`.
    pub reason: String,
    /// The cursor that was asked for.
    pub requested: Option<String>,
    /// The oldest event still held.
    pub oldest: Option<String>,
    /// The newest event.
    pub newest: Option<String>,
    /// How many events will never be delivered; `None` if no one knows.
    pub lost: Option<u64>,
    /// How many events of compacted state follow.
    pub compacted: Option<u64>,
    /// Whether what follows leads to the state of a gateway that never left.
    pub complete: Option<bool>,
    /// The message as it came.
    #[serde(skip)]
    pub raw: String,
}

/// What a message is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Message {
    Ack(Ack),
    Event {
        cursor: String,
        event_type: String,
    },
    Reset(Reset),
    Goodbye {
        reconnect_after: Option<Duration>,
    },
    Error {
        code: String,
        detail: String,
    },
    /// A type that this client does not know, to be ignored.
    Unknown,
}

/// The text is not a JSON object with a `type`.
#[derive(Debug, thiserror::Error)]
#[error("the server sent what is no message: {0}")]
pub(super) struct NoMessage(String);

impl Message {
    pub(super) fn parse(raw: &str) -> Result<Self, NoMessage> {
        let top = Members::of(raw)?;
        let event_type: String = top.get("type").ok_or_else(|| NoMessage("it has no type".to_owned()))?;
        if let Some(cursor) = top.get("eventId") {
            return Ok(Self::Event { cursor, event_type });
        }
        match event_type.as_str() {
            "connection.ack" => {
                let ack = serde_json::from_str::<Ack>(raw).map_err(|e| NoMessage(e.to_string()))?;
                Ok(Self::Ack(Ack { raw: raw.to_owned(), ..ack }))
            }
            "stream.reset" => {
                let reset = serde_json::from_str::<Reset>(top.payload().unwrap_or(raw));
                let reset = reset.map_err(|e| NoMessage(e.to_string()))?;
                Ok(Self::Reset(Reset { raw: raw.to_owned(), ..reset }))
            }
            "server.goodbye" => {
                let millis = top.here_or_in_payload("reconnectAfterMs");
                Ok(Self::Goodbye { reconnect_after: millis.map(Duration::from_millis) })
            }
            "error" => {
                let word = |name: &str| top.here_or_in_payload::<String>(name).unwrap_or_default();
                let (code, detail) = (word("code"), word("detail"));
                // The server may leave the words to the code.
                let words = || code.to_ascii_lowercase().replace('_', " ");
                let detail = if detail.is_empty() { words() } else { detail };
                Ok(Self::Error { code, detail })
            }
            _ => Ok(Self::Unknown),
        }
    }
}

/// The members of an object, as they came: what nobody asks for is not parsed, so it may be as deep as it likes.
#[derive(Deserialize)]
struct Members<'a>(#[serde(borrow)] HashMap<String, &'a RawValue>);

impl<'a> Members<'a> {
    fn of(raw: &'a str) -> Result<Self, NoMessage> {
        serde_json::from_str(raw).map_err(|e| NoMessage(e.to_string()))
    }

    /// The member, if there is one of that shape.
    fn get<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.0.get(name)?.get()).ok()
    }

    fn payload(&self) -> Option<&'a str> {
        self.0.get("payload").map(|raw| raw.get()).filter(|raw| raw.starts_with('{'))
    }

    /// A member of a control message, which stands beside its type or in its payload.
    fn here_or_in_payload<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        self.get(name).or_else(|| Members::of(self.payload()?).ok()?.get(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_are_told_apart() {
        let ack =
            Message::parse(r#"{"type":"connection.ack","gatewayId":"g","connectionId":"c","timestamp":"t","new":1}"#);
        assert!(matches!(ack, Ok(Message::Ack(Ack { gateway_id, position: None, .. })) if gateway_id == "g"));
        let event = Message::parse(r#"{"type":"connection.ack","eventId":"6f3a9c21-1","payload":{}}"#);
        assert!(matches!(event, Ok(Message::Event { cursor, .. }) if cursor == "6f3a9c21-1"));
        let reset = Message::parse(r#"{"type":"stream.reset","payload":{"reason":"overwritten","lost":7}}"#);
        assert!(matches!(reset, Ok(Message::Reset(Reset { lost: Some(7), .. }))));
        let unsure = Message::parse(r#"{"type":"stream.reset","payload":{"reason":"unknown-epoch","lost":null}}"#);
        assert!(matches!(unsure, Ok(Message::Reset(Reset { lost: None, .. }))));
        assert!(matches!(Message::parse(r#"{"type":"new.thing"}"#), Ok(Message::Unknown)));
        assert!(Message::parse("[]").is_err() && Message::parse(r#"{"type":7}"#).is_err());
    }

    #[test]
    fn what_an_event_carries_is_not_parsed_however_deep_it_is() {
        let deep = format!("{}1{}", r#"{"a":"#.repeat(200), "}".repeat(200));
        let event = Message::parse(&format!(r#"{{"type":"t","eventId":"6f3a9c21-1","payload":{deep}}}"#));
        assert!(matches!(event, Ok(Message::Event { cursor, .. }) if cursor == "6f3a9c21-1"));
        assert!(matches!(Message::parse(&format!(r#"{{"type":"new.thing","payload":{deep}}}"#)), Ok(Message::Unknown)));
    }

    #[test]
    fn an_error_without_words_is_told_by_its_code() {
        let message = Message::parse(r#"{"type":"error","code":"TOKEN_REVOKED","payload":{"code":"TOKEN_REVOKED"}}"#);
        let expected = Message::Error { code: "TOKEN_REVOKED".to_owned(), detail: "token revoked".to_owned() };
        assert_eq!(message.unwrap(), expected);
    }

    #[test]
    fn a_goodbye_names_its_slot_beside_its_type_or_in_its_payload() {
        for raw in [
            r#"{"type":"server.goodbye","reconnectAfterMs":250}"#,
            r#"{"type":"server.goodbye","payload":{"reconnectAfterMs":250}}"#,
        ] {
            let slot = Some(Duration::from_millis(250));
            assert_eq!(Message::parse(raw).unwrap(), Message::Goodbye { reconnect_after: slot });
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            let _ = Message::parse(&text);
            let _ = Message::parse(&format!("{{\"type\":\"stream.reset\",\"payload\":{text}}}"));
        }
    }
}
