//! One long-poll request.

use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, timeout};

use super::head::kind;
use super::{Credential, Head, Probe, Unopened, cut};
use crate::client::link::{ANSWER_TIMEOUT, DIAL_TIMEOUT, LAST_EVENT_ID};
use crate::client::long_poll::{Reply, body};
use crate::client::message::{Ack, Message};
use crate::client::picker::Transport;
use crate::client::sse::refusal;

/// What to ask.
#[derive(Debug, Clone)]
pub struct PollAsk {
    /// `Last-Event-ID`.
    pub cursor: Option<String>,
    /// Goes on with this connection.
    pub connection: Option<String>,
    /// How long the server may hold it, in whole seconds.
    pub hold_s: u64,
}

/// An answer of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Polled {
    /// Its head.
    pub head: Head,
    /// From the request to the end of the answer.
    pub took: Duration,
    /// The connection's name.
    pub connection: Option<String>,
    /// Where to go on.
    pub cursor: Option<String>,
    /// The acknowledgement, if the poll opened a connection.
    pub ack: Option<Ack>,
    /// Whether the server says goodbye.
    pub goodbye: bool,
    /// Whether there is anything in it.
    pub has_events: bool,
}

impl Probe {
    /// Asks once.
    ///
    /// # Errors
    /// If it is answered by anything but a server of ours that grants it.
    pub async fn poll(&self, by: Credential, ask: &PollAsk) -> Result<Polled, Unopened> {
        let mut url = self.url(Transport::LongPoll);
        url.query_pairs_mut().append_pair("timeout", &ask.hold_s.to_string());
        if let Some(connection) = &ask.connection {
            url.query_pairs_mut().append_pair("connectionId", connection);
        }
        let request = self.link.http.get(url).headers(self.headers(by, ask.cursor.as_deref()));
        let patience = Duration::from_secs(ask.hold_s) + DIAL_TIMEOUT + ANSWER_TIMEOUT;
        let start = Instant::now();
        match timeout(patience, exchange(request, start)).await {
            Ok(polled) => polled,
            Err(_) => Err(Unopened::Late { after: patience }),
        }
    }
}

async fn exchange(request: reqwest::RequestBuilder, start: Instant) -> Result<Polled, Unopened> {
    let response = request.send().await.map_err(|error| cut(start.elapsed(), error))?;
    let head = Head::read(response.status(), response.headers());
    let reply = match response.status() {
        StatusCode::NO_CONTENT => {
            let cursor = response.headers().get(LAST_EVENT_ID).and_then(|value| value.to_str().ok());
            Reply { last_event_id: cursor.map(str::to_owned), ..Reply::default() }
        }
        StatusCode::OK if kind(response.headers()).starts_with("application/json") => {
            let bytes = body(response).await;
            let bytes = bytes.map_err(|error| Unopened::Cut { after: start.elapsed(), reason: error.to_string() })?;
            Reply::parse(&bytes).map_err(|error| Unopened::Altered(error.to_string()))?
        }
        _ => {
            let refusal = refusal(response).await;
            return Err(Unopened::Refused(Box::new(head.refusing(refusal, start.elapsed()))));
        }
    };
    let mut polled = Polled {
        head,
        took: start.elapsed(),
        connection: reply.connection_id,
        cursor: reply.last_event_id,
        ack: None,
        goodbye: false,
        has_events: !reply.events.is_empty(),
    };
    for raw in reply.events {
        match Message::parse(raw.get()) {
            Ok(Message::Ack(ack)) => polled.ack = Some(ack),
            Ok(Message::Goodbye { .. }) => polled.goodbye = true,
            Ok(_) => {}
            Err(error) => return Err(Unopened::Altered(error.to_string())),
        }
    }
    Ok(polled)
}
