//! Server-sent events over a streaming response.

use std::collections::VecDeque;

use async_trait::async_trait;
use http::{HeaderValue, StatusCode, header};
use tokio::time::{timeout, timeout_at};

use super::connection::{Connection, Signal};
use super::link::{ANSWER_TIMEOUT, DIAL_TIMEOUT, Link, SILENCE_MAX};
use super::picker::Transport;
use super::quiet::Quiet;
use super::sse_parser::{SseItem, SseParser};
use super::trouble::{Refusal, Trouble, causes};

/// The largest body of a refusal that is read, in bytes.
pub(super) const REFUSAL_BYTES_MAX: usize = 64 * 1024;

const EVENT_STREAM: &str = "text/event-stream";

/// Asks for the stream; what it answers has not been acknowledged yet.
pub(super) async fn open(link: &Link, cursor: Option<&str>) -> Result<Box<dyn Connection>, Trouble> {
    let request = link.http.get(link.endpoint.connect(Transport::Sse)).headers(link.headers(cursor));
    let request = request.header(header::ACCEPT, HeaderValue::from_static(EVENT_STREAM));
    let unsuited = |reason: String| Trouble::Unsuited { reason, refusal: None };
    let response = match timeout(DIAL_TIMEOUT + ANSWER_TIMEOUT, request.send()).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) if error.is_connect() => return Err(Trouble::Lost(causes(&error.without_url()))),
        Ok(Err(error)) => return Err(unsuited(causes(&error.without_url()))),
        Err(_) => {
            return Err(unsuited(
                "the stream was not answered in time: something in between may hold it back".to_owned(),
            ));
        }
    };
    if response.status() != StatusCode::OK {
        let refusal = refusal(response).await;
        let reason = format!("the stream was refused: {refusal}");
        return Err(match refusal.is_about_service() {
            true => Trouble::Refused(refusal),
            false => Trouble::Unsuited { reason, refusal: Some(refusal) },
        });
    }
    let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !content_type.starts_with(EVENT_STREAM) {
        return Err(unsuited(format!("the answer is {content_type:?} and not {EVENT_STREAM}")));
    }
    let (parser, quiet) = (SseParser::new(), Quiet::new(SILENCE_MAX));
    Ok(Box::new(Sse { response, parser, quiet, ready: VecDeque::new() }))
}

/// Reads a refusal, as much of it as is sane.
pub(super) async fn refusal(mut response: reqwest::Response) -> Refusal {
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = Vec::new();
    let read = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() > REFUSAL_BYTES_MAX {
                break;
            }
        }
    };
    // A body that never ends says no more than its head.
    let _ = timeout(ANSWER_TIMEOUT, read).await;
    Refusal::read(status, &headers, &body)
}

struct Sse {
    response: reqwest::Response,
    parser: SseParser,
    quiet: Quiet,
    ready: VecDeque<Signal>,
}

#[async_trait]
impl Connection for Sse {
    async fn next(&mut self) -> Signal {
        loop {
            if let Some(signal) = self.ready.pop_front() {
                return signal;
            }
            let deadline = self.quiet.deadline();
            let Ok(chunk) = timeout_at(deadline, self.response.chunk()).await else {
                return lost(format!("silent for {} s", SILENCE_MAX.as_secs()));
            };
            self.quiet.alive();
            match chunk {
                Ok(Some(chunk)) => self.take(&chunk),
                Ok(None) => return lost("the stream ended".to_owned()),
                Err(error) => return lost(causes(&error.without_url())),
            }
        }
    }

    async fn close(&mut self) -> bool {
        // Dropping the response is all there is to say.
        true
    }
}

impl Sse {
    fn take(&mut self, chunk: &[u8]) {
        let mut items = Vec::new();
        let parsed = self.parser.push(chunk, &mut items);
        self.ready.extend(items.into_iter().filter_map(|item| match item {
            // A message's own `eventId` is its position, so that the `id:` beside it says nothing new.
            SseItem::Event { data, .. } => Some(Signal::Message(data)),
            SseItem::Position(id) => Some(Signal::Position(id)),
            SseItem::Retry(wait) => Some(Signal::Retry(wait)),
            SseItem::Comment => None,
        }));
        if let Err(error) = parsed {
            self.ready.push_back(lost(error.to_string()));
        }
    }
}

fn lost(reason: String) -> Signal {
    Signal::Ended(Trouble::Lost(reason))
}
