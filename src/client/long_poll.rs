//! Long-poll: one request after another, each with the cursor that confirms everything before it.

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::connection::{Connection, Signal};
use super::link::{ACK_TIMEOUT, ANSWER_TIMEOUT, DIAL_TIMEOUT, LAST_EVENT_ID, Link, SILENCE_MAX};
use super::message::Message;
use super::picker::Transport;
use super::sse::refusal;
use super::sse_parser::EVENT_BYTES_MAX;
use super::trouble::{Refusal, Trouble, causes};

/// How long the server may hold a poll.
const HOLD: Duration = Duration::from_secs(25);
/// An empty answer that comes faster than this is followed by a pause: something in between must not turn long-poll
/// into a busy loop.
const EMPTY_ANSWER_MIN: Duration = Duration::from_millis(500);
/// That pause.
const EMPTY_ANSWER_PAUSE: Duration = Duration::from_secs(1);

/// Asks once; what is answered has not been acknowledged yet.
pub(super) async fn open(link: &Link, cursor: Option<&str>) -> Result<Box<dyn Connection>, Trouble> {
    let template = Template {
        http: link.http.clone(),
        url: link.endpoint.connect(Transport::LongPoll),
        headers: link.headers(None),
    };
    // A poll that names no connection goes on with the one that this token, instance and address already has, without
    // an acknowledgement: another process's, or this one's from before a fault. An id that no server knows is as an
    // expired one: it opens a connection (CONTRACT.md § 4), whose own id the reply tells.
    let connection_id = Uuid::new_v4().to_string();
    let within = DIAL_TIMEOUT + ACK_TIMEOUT;
    let Ok(answer) = timeout(within, template.ask(cursor, &connection_id)).await else {
        let reason = format!("not answered within {} s", within.as_secs());
        return Err(Trouble::Unsuited { reason, refusal: None });
    };
    let reply = Reply::read(answer?).await?;
    let cursor = cursor.map(str::to_owned);
    let mut opened = LongPoll { template, cursor, connection_id, ready: VecDeque::new(), under_way: None };
    opened.take(reply);
    Ok(Box::new(opened))
}

struct LongPoll {
    template: Template,
    cursor: Option<String>,
    connection_id: String,
    ready: VecDeque<Signal>,
    /// Kept here so that a cancelled `next` loses no reply.
    under_way: Option<BoxFuture<'static, Result<Reply, Trouble>>>,
}

#[async_trait]
impl Connection for LongPoll {
    async fn next(&mut self) -> Signal {
        loop {
            if let Some(signal) = self.ready.pop_front() {
                return signal;
            }
            let (template, cursor, connection) = (&self.template, self.cursor.as_deref(), self.connection_id.as_str());
            let reply = self.under_way.get_or_insert_with(|| template.poll(cursor, connection).boxed()).await;
            self.under_way = None;
            match reply {
                Ok(reply) => self.take(reply),
                Err(trouble) => return Signal::Ended(trouble),
            }
        }
    }

    async fn close(&mut self) -> bool {
        // The server forgets the connection 30 s after the last poll; there is no way to say it earlier.
        self.under_way = None;
        true
    }
}

impl LongPoll {
    fn take(&mut self, reply: Reply) {
        let says_goodbye = reply.events.last().is_some_and(|raw| is_goodbye(raw.get()));
        if let Some(id) = reply.connection_id {
            self.connection_id = id;
        }
        self.ready.extend(reply.events.into_iter().map(|raw| Signal::Message(Box::<str>::from(raw).into_string())));
        if let Some(cursor) = reply.last_event_id {
            // After the events: the client's position moves once they are handed out.
            self.ready.push_back(Signal::Position(cursor.clone()));
            self.cursor = Some(cursor);
        }
        if says_goodbye {
            // The other transports are closed by the server; here not asking again is all there is to it.
            self.ready.push_back(Signal::Ended(Trouble::Lost("the server said goodbye".to_owned())));
        }
    }
}

fn is_goodbye(raw: &str) -> bool {
    matches!(Message::parse(raw), Ok(Message::Goodbye { .. }))
}

/// What all polls of a connection have in common.
struct Template {
    http: reqwest::Client,
    url: reqwest::Url,
    headers: http::HeaderMap,
}

impl Template {
    /// Asks; the answer's head is waited for without end.
    fn ask(
        &self,
        cursor: Option<&str>,
        connection: &str,
    ) -> impl Future<Output = Result<reqwest::Response, Trouble>> + Send + 'static + use<> {
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("timeout", &HOLD.as_secs().to_string());
        url.query_pairs_mut().append_pair("connectionId", connection);
        let mut request = self.http.get(url).headers(self.headers.clone());
        if let Some(cursor) = cursor {
            request = request.header(LAST_EVENT_ID, cursor);
        }
        async move { request.send().await.map_err(|e| Trouble::Lost(causes(&e.without_url()))) }
    }

    fn poll(
        &self,
        cursor: Option<&str>,
        connection: &str,
    ) -> impl Future<Output = Result<Reply, Trouble>> + Send + 'static + use<> {
        let asked = self.ask(cursor, connection);
        async move {
            let start = Instant::now();
            let answer = timeout(HOLD + DIAL_TIMEOUT + ANSWER_TIMEOUT, asked).await;
            let answer = answer.map_err(|_| Trouble::Lost("the poll was not answered in time".to_owned()))??;
            let reply = Reply::read(answer).await?;
            if reply.events.is_empty() && start.elapsed() < EMPTY_ANSWER_MIN {
                sleep(EMPTY_ANSWER_PAUSE).await;
            }
            Ok(reply)
        }
    }
}

/// The body of a reply, within bounds: it may take as long as something of it comes.
pub(super) async fn body(mut response: reqwest::Response) -> Result<Vec<u8>, Trouble> {
    let mut body = Vec::new();
    let silent = |_| Trouble::Lost(format!("silent for {} s", SILENCE_MAX.as_secs()));
    loop {
        let chunk = timeout(SILENCE_MAX, response.chunk()).await.map_err(silent)?;
        let Some(chunk) = chunk.map_err(|e| Trouble::Lost(causes(&e.without_url())))? else { return Ok(body) };
        if body.len() + chunk.len() > EVENT_BYTES_MAX {
            return Err(Trouble::Lost(format!("the reply has more than {EVENT_BYTES_MAX} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Reply {
    pub(super) connection_id: Option<String>,
    /// As they came, byte for byte.
    pub(super) events: Vec<Box<RawValue>>,
    pub(super) last_event_id: Option<String>,
}

impl Reply {
    async fn read(response: reqwest::Response) -> Result<Self, Trouble> {
        match response.status() {
            StatusCode::OK => Self::parse(&body(response).await?),
            StatusCode::NO_CONTENT => {
                let header = response.headers().get(LAST_EVENT_ID).and_then(|value| value.to_str().ok());
                Ok(Self { last_event_id: header.map(str::to_owned), ..Self::default() })
            }
            _ => Err(Trouble::Refused(refusal(response).await)),
        }
    }

    pub(super) fn parse(body: &[u8]) -> Result<Self, Trouble> {
        serde_json::from_slice(body).map_err(|error| {
            // A captive portal's page with status 200, for example.
            Trouble::Refused(Refusal {
                status: 200,
                code: "NO_REPLY".to_owned(),
                detail: format!("the answer is not a poll's reply: {error}"),
                retry_after: None,
                is_problem: false,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_keep_their_bytes() {
        let reply =
            Reply::parse(br#"{"connectionId":"c","events":[{"b": 1.0,"a":2}],"lastEventId":"6f3a9c21-1","new":0}"#)
                .ok()
                .unwrap();
        assert_eq!(reply.events[0].get(), r#"{"b": 1.0,"a":2}"#);
        assert!(Reply::parse(b"<html>").is_err());
    }
}
