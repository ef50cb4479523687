//! Polls on a socket that hyper has not seen: head, answer, head, answer.
//!
//! A parked poll is what a long-poll gateway is nearly all the time. Inside hyper one over TLS was measured at 35 KB (42
//! after reconnects); here it is a socket and a session. Every request that is not a plain poll ([`super::head`])
//! goes to hyper with its socket, unread, and so does all that follows it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE};
use http::{HeaderValue, Response, StatusCode};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::head::{self, Head, PollHead};
use super::reply::cut_off;
use super::{Answer, LongPoll};
use crate::bare::{BareSocket, Rewound};
use crate::handshake::ConnInfo;
use crate::query::Query;
use crate::request::ConnectRequest;
use crate::transport::{Direct, Gate, Newcomer};

/// Polls outside hyper.
pub(super) struct Polls {
    pub(super) transport: LongPoll,
    pub(super) gate: Arc<dyn Gate>,
}

#[async_trait]
impl Direct for Polls {
    async fn serve(&self, newcomer: Newcomer) -> Option<Rewound> {
        let Newcomer { socket, info, sever, drain } = newcomer;
        let mut line = Line { socket: BareSocket::new(socket, Some(sever)), input: Vec::new(), info, drain };
        loop {
            match line.head(Instant::now() + self.transport.timing.head).await {
                Next::Poll(poll) => line.serve(self, poll).await?,
                Next::Other => return Some(Rewound::new(line.input, line.socket.into_inner())),
                Next::Over => return None,
            }
        }
    }
}

/// A socket and what was read from it beyond what was served.
struct Line {
    socket: BareSocket,
    input: Vec<u8>,
    info: Arc<ConnInfo>,
    drain: CancellationToken,
}

/// What a socket asks for next.
enum Next {
    /// Boxed, as it is part of no parked poll.
    Poll(Box<PollHead>),
    Other,
    Over,
}

impl Line {
    async fn head(&mut self, deadline: Instant) -> Next {
        loop {
            match head::read(&self.input) {
                Head::Poll(poll) => return Next::Poll(Box::new(poll)),
                Head::Other => return Next::Other,
                Head::Partial => {}
            }
            let idle = self.input.is_empty();
            let Self { socket, input, drain, .. } = self;
            let read = tokio::select! {
                biased;
                read = timeout_at(deadline, socket.read(|bytes| input.extend_from_slice(bytes))) => read,
                () = drain.cancelled(), if idle => return Next::Over,
            };
            if !matches!(read, Ok(Ok(1..))) {
                return Next::Over;
            }
        }
    }

    /// Answers a poll; `None` if that was the last.
    async fn serve(&mut self, polls: &Polls, poll: Box<PollHead>) -> Option<()> {
        let mut closes = poll.closes;
        self.input.drain(..poll.len);
        if self.input.is_empty() {
            // A parked poll holds no buffer.
            self.input = Vec::new();
        }
        let answer = polls.transport.answer(polls.gate.as_ref(), self.request(*poll));
        let answer = tokio::select! {
            biased;
            () = gone(&mut self.socket, &mut self.input) => return None,
            answer = answer => answer,
        };
        closes |= self.drain.is_cancelled();
        self.write(polls, answer, closes).await?;
        if closes {
            self.socket.end(&[], polls.transport.timing.last_words).await;
            return None;
        }
        Some(())
    }

    fn request(&self, poll: PollHead) -> ConnectRequest {
        let PollHead { headers, query, .. } = poll;
        ConnectRequest {
            headers,
            query: Query::parse(&query),
            info: Some(Arc::clone(&self.info)),
            ..ConnectRequest::default()
        }
    }

    /// Writes an answer. As long as there is a session, it may cut it off.
    async fn write(&mut self, polls: &Polls, answer: Answer, closes: bool) -> Option<()> {
        let timing = polls.transport.timing;
        let bytes = spell(&answer.head, &answer.body, closes);
        let Some(mut session) = answer.session else {
            return self.socket.tell(&bytes, timing.write_stall).await;
        };
        match self.socket.write(&bytes, session.as_mut(), timing.write_stall).await {
            Ok(()) => Some(()),
            Err(unwritten) => {
                cut_off(session, unwritten.reason);
                self.socket.sever();
                None
            }
        }
    }
}

/// Resolves when the peer is gone. A client may send its next request early; so much that it looks like none is the end.
async fn gone(socket: &mut BareSocket, input: &mut Vec<u8>) {
    while input.len() < EARLY_BYTES_MAX {
        if !matches!(socket.read(|bytes| input.extend_from_slice(bytes)).await, Ok(1..)) {
            return;
        }
    }
}

/// An answer as HTTP/1.1 (RFC 9112 § 4).
fn spell(head: &Response<()>, body: &[u8], closes: bool) -> Bytes {
    let status = head.status();
    let mut text = BytesMut::with_capacity(HEAD_BYTES + body.len());
    text.put_slice(b"HTTP/1.1 ");
    text.put_slice(status.as_str().as_bytes());
    text.put_u8(b' ');
    text.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    text.put_slice(b"\r\n");
    let mut line = |name: &str, value: &[u8]| {
        text.put_slice(name.as_bytes());
        text.put_slice(b": ");
        text.put_slice(value);
        text.put_slice(b"\r\n");
    };
    for (name, value) in head.headers() {
        line(name.as_str(), value.as_bytes());
    }
    // RFC 9110 § 8.6: a 204 has none.
    if status != StatusCode::NO_CONTENT && !head.headers().contains_key(CONTENT_LENGTH) {
        line(CONTENT_LENGTH.as_str(), HeaderValue::from(body.len()).as_bytes());
    }
    if closes {
        line(CONNECTION.as_str(), b"close");
    }
    line(DATE.as_str(), date().as_bytes());
    text.put_slice(b"\r\n");
    text.put_slice(body);
    text.freeze()
}

#[expect(clippy::disallowed_methods, reason = "as hyper does: no decision hangs on it")]
fn date() -> String {
    httpdate::fmt_http_date(std::time::SystemTime::now())
}

/// A head is mostly smaller.
const HEAD_BYTES: usize = 256;
/// Requests that come while another is served are kept up to here.
const EARLY_BYTES_MAX: usize = 32 * 1024;
