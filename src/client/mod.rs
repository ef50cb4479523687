//! A client of gatecast for all three transports: it reconnects, resumes and falls back by itself.
//!
//! # Layout
//! Start here: [`Client::next`] is a small state machine over a `Connection`, which `websocket`, `sse` and `long_poll`
//! implement and `attempt` opens. `backoff` and `picker` decide, purely, when and how to try again; `trouble` says what
//! a failure means. [`api`] is the admin side, for the command line; [`probe`] looks at each part of the way, for `doctor`.
//!
//! # What holds
//! - The cursor moves to an event when [`Client::next`] hands it out, never before; a reconnect resumes from there.
//! - Nothing is deduplicated: what the server sends twice is handed out twice, with the same cursor.
//! - Every wait on the server has a deadline.

pub mod api;
mod api_key;
mod attempt;
mod backoff;
mod connection;
mod dial;
mod endpoint;
mod heard;
mod incoming;
mod link;
mod long_poll;
mod message;
mod picker;
pub mod probe;
mod problem;
mod quiet;
mod sse;
mod sse_parser;
#[cfg(test)]
mod tests;
mod tls;
mod trouble;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::HeaderValue;
use tokio::time::{Instant, sleep_until};

pub use api_key::{ApiKey, InvalidApiKey};
use attempt::{Opened, is_transient};
pub(crate) use backoff::Backoff;
pub use backoff::BackoffBounds;
use backoff::TOLD_MAX;
use connection::{Connection, Signal};
pub use endpoint::{DEFAULT_URL, Endpoint, InvalidUrl};
pub use incoming::{Closed, Incoming};
use link::Link;
pub use link::LinkError;
pub(crate) use link::http_client;
use message::Message;
pub use message::{Ack, Reset};
use picker::Picker;
pub use picker::{InvalidTransport, Transport, TransportChoice};
pub use problem::{FieldError, Problem};
pub(crate) use tls::authorities;
pub use tls::{Identity, TlsError, Trust, client_config};
pub(crate) use trouble::retry_after;
use trouble::{Refusal, Trouble};

/// A connection that lived this long was healthy: the next loss starts with the shortest wait again.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// How to connect.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Where the server is.
    pub url: Endpoint,
    /// The gateway's token; it needs none if a certificate proves it.
    pub api_key: Option<ApiKey>,
    /// Names this replica of the gateway: 1 to 128 visible ASCII characters.
    pub instance: Option<String>,
    /// Which transport.
    pub transport: TransportChoice,
    /// Where to start: an `eventId`, `earliest`, `latest` or `stored`; `None` leaves it to the gateway's setting.
    pub resume: Option<String>,
    /// Whose certificates are accepted.
    pub trust: Trust,
    /// What proves the gateway beside its token, or instead.
    pub identity: Option<Identity>,
    /// The waits between attempts.
    pub backoff: BackoffBounds,
}

impl ClientConfig {
    /// The usual: any transport, the system's authorities, waits of 1 s to 60 s.
    #[must_use]
    pub fn new(url: Endpoint, api_key: impl Into<Option<ApiKey>>) -> Self {
        let (transport, trust, backoff) = Default::default();
        let api_key = api_key.into();
        Self { url, api_key, instance: None, transport, resume: None, trust, identity: None, backoff }
    }
}

/// A client cannot be made of this configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The instance is not 1 to 128 visible ASCII characters.
    #[error("an instance is named by 1 to 128 visible ASCII characters")]
    Instance,
    /// The starting point is not visible ASCII.
    #[error("a cursor is visible ASCII, such as 6f3a9c21-42, earliest, latest or stored")]
    Resume,
    /// TLS or HTTP cannot be set up.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// A client of one gateway's stream.
pub struct Client {
    link: Arc<Link>,
    picker: Picker,
    backoff: Backoff,
    /// What the next attempt asks for: a cursor, or at the start a word such as `earliest`.
    resume: Option<String>,
    /// Whether `resume` is a cursor that the server gave.
    is_cursor: bool,
    was_connected: bool,
    state: State,
}

enum State {
    Waiting {
        until: Instant,
    },
    /// Kept here so that a cancelled `next` does not start the attempt again.
    Opening(BoxFuture<'static, Result<Opened, Trouble>>),
    Open(Open),
    Over(Incoming),
}

struct Open {
    connection: Box<dyn Connection>,
    since: Instant,
    /// The server's slot for coming back.
    slot: Option<Instant>,
    retry: Option<Duration>,
    /// The last message was this error.
    error: Option<(String, String)>,
}

impl Client {
    /// A client that has not connected yet.
    ///
    /// # Errors
    /// If the configuration cannot work.
    pub fn new(config: ClientConfig) -> Result<Self, ClientError> {
        let visible = |text: &str| !text.is_empty() && text.len() <= 128 && text.bytes().all(|b| b.is_ascii_graphic());
        if config.resume.as_deref().is_some_and(|resume| !visible(resume)) {
            return Err(ClientError::Resume);
        }
        let instance = match &config.instance {
            Some(name) if visible(name) => Some(HeaderValue::from_str(name).map_err(|_| ClientError::Instance)?),
            Some(_) => return Err(ClientError::Instance),
            None => None,
        };
        // Without entropy clients would only spread less.
        let seed = getrandom::u64().unwrap_or_default();
        Ok(Self {
            link: Arc::new(Link::new(config.url, config.api_key, instance, (&config.trust, config.identity.as_ref()))?),
            picker: Picker::new(config.transport),
            backoff: Backoff::new(config.backoff, seed),
            is_cursor: false,
            resume: config.resume,
            was_connected: false,
            state: State::Waiting { until: Instant::now() },
        })
    }

    /// The position after everything handed out so far, once there is one.
    #[must_use]
    pub fn cursor(&self) -> Option<&str> {
        self.resume.as_deref().filter(|_| self.is_cursor)
    }

    /// The transport in use, or to be tried next.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.picker.current()
    }

    /// Where the next attempt goes, as people write it.
    #[must_use]
    pub fn address(&self) -> String {
        self.link.endpoint.shown(self.picker.current())
    }

    /// What happens next: connects if need be, waits, and never ends by itself. Cancel safe.
    pub async fn next(&mut self) -> Incoming {
        loop {
            match &mut self.state {
                State::Waiting { until } => {
                    sleep_until(*until).await;
                    let attempt = attempt::open(self.link.clone(), self.picker.current(), self.resume.clone());
                    self.state = State::Opening(attempt.boxed());
                }
                State::Opening(attempt) => {
                    return match attempt.await {
                        Ok(opened) => self.opened(opened),
                        Err(trouble) => self.failed(trouble),
                    };
                }
                State::Open(open) => {
                    let signal = open.connection.next().await;
                    if let Some(incoming) = self.take(signal) {
                        return incoming;
                    }
                }
                State::Over(fatal) => return fatal.clone(),
            }
        }
    }

    /// Ends the connection cleanly. A later `next` connects again.
    pub async fn close(&mut self) -> Closed {
        match std::mem::replace(&mut self.state, State::Waiting { until: Instant::now() }) {
            State::Open(mut open) => match open.connection.close().await {
                true => Closed::ByServer,
                false => Closed::Abandoned,
            },
            State::Waiting { .. } | State::Opening(_) => Closed::NotOpen,
            over @ State::Over(_) => {
                self.state = over;
                Closed::NotOpen
            }
        }
    }

    fn opened(&mut self, Opened { connection, retry, ack }: Opened) -> Incoming {
        self.picker.works();
        self.was_connected = true;
        self.state = State::Open(Open { connection, since: Instant::now(), slot: None, retry, error: None });
        self.acknowledged(ack)
    }

    fn acknowledged(&mut self, ack: Ack) -> Incoming {
        // A live connection starts at its position. One that resumes or resets still owes what lies before it, so that
        // what was asked for stays the cursor until the first event.
        if ack.resume.as_deref() == Some("live") {
            self.moved_to(ack.position.clone());
        }
        Incoming::Connected { ack, transport: self.picker.current() }
    }

    fn moved_to(&mut self, cursor: Option<String>) {
        if cursor.is_some() {
            self.resume = cursor;
            self.is_cursor = true;
        }
    }

    /// `None` if there is nothing to tell.
    fn take(&mut self, signal: Signal) -> Option<Incoming> {
        let State::Open(open) = &mut self.state else { return None };
        match signal {
            Signal::Message(raw) => return self.message(raw),
            Signal::Position(cursor) => self.moved_to(Some(cursor)),
            Signal::Retry(wait) => open.retry = Some(wait.min(TOLD_MAX)),
            Signal::Ping => return Some(Incoming::Ping),
            Signal::PongSent => return Some(Incoming::PongSent),
            Signal::Ended(trouble) => return Some(self.failed(trouble)),
        }
        None
    }

    fn message(&mut self, raw: String) -> Option<Incoming> {
        let State::Open(open) = &mut self.state else { return None };
        open.error = None;
        let message = match Message::parse(&raw) {
            Ok(message) => message,
            Err(broken) => return Some(self.failed(Trouble::Lost(broken.to_string()))),
        };
        match message {
            Message::Ack(ack) => Some(self.acknowledged(ack)),
            Message::Event { cursor, event_type } => {
                self.moved_to(Some(cursor.clone()));
                Some(Incoming::Event { cursor, event_type, raw })
            }
            Message::Reset(reset) => Some(Incoming::Reset(reset)),
            Message::Goodbye { reconnect_after } => {
                let reconnect_after = reconnect_after.map(|slot| slot.min(TOLD_MAX));
                open.slot = reconnect_after.map(|slot| Instant::now() + slot);
                Some(Incoming::Goodbye { reconnect_after })
            }
            Message::Error { code, detail } => {
                open.error = Some((code.clone(), detail.clone()));
                Some(Incoming::Error { code, detail })
            }
            Message::Unknown => None,
        }
    }

    /// There is no connection (any more): says so and plans the next attempt.
    fn failed(&mut self, trouble: Trouble) -> Incoming {
        let ended = std::mem::replace(&mut self.state, State::Waiting { until: Instant::now() });
        match (trouble, ended) {
            (Trouble::Expelled { code, detail }, _) => self.over(None, code, detail),
            (Trouble::Refused(refusal), _) => self.refused(refusal),
            (Trouble::Unsuited { reason, refusal }, _) => self.unsuited(reason, refusal),
            (Trouble::Lost(reason), State::Open(open)) => self.lost(reason, open),
            (Trouble::Lost(reason), _) => {
                self.picker.lost();
                let wait = self.backoff.wait(None);
                self.retry(reason, wait)
            }
        }
    }

    fn refused(&mut self, refusal: Refusal) -> Incoming {
        if refusal.is_final(self.was_connected) {
            return self.over(Some(refusal.status), refusal.code, refusal.detail);
        }
        let wait = self.backoff.wait(refusal.retry_after);
        self.retry(refusal.to_string(), wait)
    }

    fn unsuited(&mut self, reason: String, refusal: Option<Refusal>) -> Incoming {
        let tried = self.picker.current();
        match (self.picker.fall_back(), refusal) {
            (Some(next), _) => self.retry(format!("{tried}: {reason}; trying {next}"), Duration::ZERO),
            (None, Some(refusal)) => self.refused(refusal),
            (None, None) => {
                self.picker.lost();
                let wait = self.backoff.wait(None);
                self.retry(format!("{tried}: {reason}"), wait)
            }
        }
    }

    fn lost(&mut self, reason: String, open: Open) -> Incoming {
        if let Some((code, detail)) = open.error.filter(|(code, _)| !is_transient(code)) {
            return self.over(None, code, detail);
        }
        if open.since.elapsed() >= HEALTHY_AFTER {
            self.backoff.reset();
        }
        let wait = match open.slot {
            Some(slot) => slot.saturating_duration_since(Instant::now()),
            None => self.backoff.wait(None).max(open.retry.unwrap_or_default()),
        };
        self.retry(reason, wait)
    }

    fn retry(&mut self, reason: String, retry_in: Duration) -> Incoming {
        self.state = State::Waiting { until: Instant::now() + retry_in };
        Incoming::Disconnected { reason, retry_in }
    }

    fn over(&mut self, status: Option<u16>, code: String, detail: String) -> Incoming {
        let fatal = Incoming::Fatal { status, code, detail };
        self.state = State::Over(fatal.clone());
        fatal
    }
}
