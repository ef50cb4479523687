//! Which transport to try: what the user chose, or what works.

use std::fmt;
use std::str::FromStr;

/// How events travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// RFC 6455.
    WebSocket,
    /// Server-sent events.
    Sse,
    /// Long-poll.
    LongPoll,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WebSocket => "websocket",
            Self::Sse => "sse",
            Self::LongPoll => "long-poll",
        })
    }
}

/// What the user asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TransportChoice {
    /// WebSocket, else SSE, else long-poll; what worked is kept.
    #[default]
    Auto,
    /// WebSocket only.
    Ws,
    /// SSE only.
    Sse,
    /// Long-poll only.
    Poll,
}

/// Not the name of a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be one of ws, sse, poll, auto")]
pub struct InvalidTransport;

impl FromStr for TransportChoice {
    type Err = InvalidTransport;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "ws" | "websocket" => Ok(Self::Ws),
            "sse" => Ok(Self::Sse),
            "poll" | "long-poll" => Ok(Self::Poll),
            _ => Err(InvalidTransport),
        }
    }
}

/// The transport to try now.
#[derive(Debug, Clone)]
pub(super) struct Picker {
    auto: bool,
    current: Transport,
    proven: bool,
}

impl Picker {
    pub(super) fn new(choice: TransportChoice) -> Self {
        let current = match choice {
            TransportChoice::Auto | TransportChoice::Ws => Transport::WebSocket,
            TransportChoice::Sse => Transport::Sse,
            TransportChoice::Poll => Transport::LongPoll,
        };
        Self { auto: choice == TransportChoice::Auto, current, proven: false }
    }

    pub(super) fn current(&self) -> Transport {
        self.current
    }

    /// The current one acknowledged a connection: keep it.
    pub(super) fn works(&mut self) {
        self.proven = true;
    }

    /// The current one cannot be established here. The next one to try, if there is one.
    pub(super) fn fall_back(&mut self) -> Option<Transport> {
        self.proven = false;
        let next = match self.current {
            Transport::WebSocket => Transport::Sse,
            Transport::Sse => Transport::LongPoll,
            Transport::LongPoll => return None,
        };
        self.auto.then(|| {
            self.current = next;
            next
        })
    }

    /// The network failed: no word about transports, so one that never worked has not earned to be kept.
    pub(super) fn lost(&mut self) {
        if self.auto && !self.proven {
            self.current = Transport::WebSocket;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_falls_back_in_order_and_keeps_what_works() {
        let mut picker = Picker::new(TransportChoice::Auto);
        assert_eq!(picker.current(), Transport::WebSocket);
        assert_eq!(picker.fall_back(), Some(Transport::Sse));
        picker.works();
        picker.lost();
        assert_eq!(picker.current(), Transport::Sse);
        assert_eq!(picker.fall_back(), Some(Transport::LongPoll));
        assert_eq!(picker.fall_back(), None);
        picker.lost();
        assert_eq!(picker.current(), Transport::WebSocket);
    }

    #[test]
    fn a_choice_is_final() {
        let mut picker = Picker::new(TransportChoice::Ws);
        assert_eq!(picker.fall_back(), None);
        assert_eq!(picker.current(), Transport::WebSocket);
    }
}
