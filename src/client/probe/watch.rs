//! A stream that is opened and held for a while: what it shows of life, and when.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use http::{HeaderValue, StatusCode, header};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message as Frame};

use super::head::kind;
use super::{Credential, Head, INSTANCE, Probe, Unopened, cut};
use crate::client::attempt::is_transient;
use crate::client::link::{ANSWER_TIMEOUT, DIAL_TIMEOUT, WRITE_TIMEOUT};
use crate::client::message::{Ack, Message};
use crate::client::picker::Transport;
use crate::client::sse::refusal;
use crate::client::sse_parser::{SseItem, SseParser};
use crate::client::trouble::{Refusal, causes};
use crate::client::websocket::{dial, expulsion, handshake, request};

/// A stream as it was seen. All times count from its request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Watched {
    /// The head of the answer.
    pub head: Head,
    /// What came, in order.
    pub signs: Vec<(Duration, Sign)>,
    /// If it ended before its time.
    pub end: Option<Ending>,
    /// For how long it was watched.
    pub held: Duration,
}

/// A sign of life.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Sign {
    /// The acknowledgement.
    Ack(Box<Ack>),
    /// A ping or a comment of the server.
    Beat,
    /// The answer to a ping of ours.
    Pong,
    /// A message.
    Message,
    /// The server is about to end it.
    Goodbye,
}

/// The end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// When.
    pub at: Duration,
    /// How.
    pub why: Why,
}

/// How a stream ends.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// By a close frame.
    Closed {
        /// Its code.
        code: u16,
        /// Its words.
        reason: String,
    },
    /// By the server, for good: with an `error` message, or a close frame that says as much.
    Expelled {
        /// Its stable code.
        code: String,
        /// Its words.
        detail: String,
    },
    /// Without a word, or with the network's.
    Lost(String),
    /// What came is not what a server of ours says.
    Altered(String),
}

impl Probe {
    /// Opens a WebSocket and holds it.
    ///
    /// # Errors
    /// If it is not opened.
    pub async fn websocket(&self, by: Credential, cursor: Option<&str>, hold: Duration) -> Result<Watched, Unopened> {
        let start = Instant::now();
        let mut watch = Watch { start, seen: Watched::default() };
        let url = self.url(Transport::WebSocket);
        let address = url.as_str().replacen("http", "ws", 1);
        let altered = |error: &dyn std::error::Error| Unopened::Altered(causes(error));
        let request = request(&address, self.headers(by, cursor)).map_err(|error| altered(&error))?;
        let open = async {
            let socket = dial(&self.link, &url).await.map_err(Error::Io)?;
            handshake(socket, request).await
        };
        let mut stream = match timeout(DIAL_TIMEOUT + ANSWER_TIMEOUT, open).await {
            Ok(Ok((stream, answer))) => {
                watch.seen.head = Head::read(answer.status(), answer.headers());
                stream
            }
            Ok(Err(Error::Http(answer))) => {
                let body = answer.body().as_deref().unwrap_or_default();
                let refusal = Refusal::read(answer.status(), answer.headers(), body);
                let head = Head::read(answer.status(), answer.headers());
                return Err(Unopened::Refused(Box::new(head.refusing(refusal, start.elapsed()))));
            }
            Ok(Err(Error::Protocol(ProtocolError::HttparseError(_)))) => return Err(Unopened::NotHttp),
            Ok(Err(error)) => {
                let after = start.elapsed();
                return Err(match ended(&error) {
                    Why::Altered(reason) => Unopened::Altered(reason),
                    _ => Unopened::Cut { after, reason: causes(&error) },
                });
            }
            Err(_) => return Err(Unopened::Late { after: DIAL_TIMEOUT + ANSWER_TIMEOUT }),
        };
        // Answered at once, if nothing in between swallows it: the server's own pings are 20 s apart.
        let asked = timeout(WRITE_TIMEOUT, stream.send(Frame::Ping(INSTANCE.into()))).await;
        match asked {
            Ok(Ok(())) => watch.frames(&mut stream, Instant::now() + hold).await,
            Ok(Err(error)) => watch.end(ended(&error)),
            Err(_) => watch.end(Why::Lost("the server does not read".to_owned())),
        }
        Ok(watch.finish())
    }

    /// Opens an event stream and holds it.
    ///
    /// # Errors
    /// If it is not opened.
    pub async fn sse(&self, by: Credential, cursor: Option<&str>, hold: Duration) -> Result<Watched, Unopened> {
        let start = Instant::now();
        let accept = HeaderValue::from_static("text/event-stream");
        let request = self.link.http.get(self.url(Transport::Sse)).headers(self.headers(by, cursor));
        let sent = timeout(DIAL_TIMEOUT + ANSWER_TIMEOUT, request.header(header::ACCEPT, accept).send()).await;
        let sent = sent.map_err(|_| Unopened::Late { after: DIAL_TIMEOUT + ANSWER_TIMEOUT })?;
        let mut response = sent.map_err(|error| cut(start.elapsed(), error))?;
        let head = Head::read(response.status(), response.headers());
        if response.status() != StatusCode::OK || !kind(response.headers()).starts_with("text/event-stream") {
            let refusal = refusal(response).await;
            return Err(Unopened::Refused(Box::new(head.refusing(refusal, start.elapsed()))));
        }
        let is_readable = head.encoding.as_deref().is_none_or(|encoding| encoding == "identity");
        let mut watch = Watch { start, seen: Watched { head, ..Watched::default() } };
        let (until, mut parser) = (Instant::now() + hold, SseParser::new());
        while let Ok(chunk) = timeout_at(until, response.chunk()).await {
            match chunk {
                Ok(Some(chunk)) if is_readable => watch.chunk(&chunk, &mut parser),
                Ok(Some(_)) => watch.sign(Sign::Message),
                Ok(None) => watch.end(Why::Lost("the stream ended".to_owned())),
                Err(error) => watch.end(Why::Lost(causes(&error.without_url()))),
            }
            if watch.seen.end.is_some() {
                break;
            }
        }
        Ok(watch.finish())
    }
}

struct Watch {
    start: Instant,
    seen: Watched,
}

impl Watch {
    fn sign(&mut self, sign: Sign) {
        self.seen.signs.push((self.start.elapsed(), sign));
    }

    fn end(&mut self, why: Why) {
        self.seen.end = Some(Ending { at: self.start.elapsed(), why });
    }

    fn finish(mut self) -> Watched {
        self.seen.held = self.start.elapsed();
        self.seen
    }

    fn message(&mut self, raw: &str) {
        match Message::parse(raw) {
            Ok(Message::Ack(ack)) => self.sign(Sign::Ack(Box::new(ack))),
            Ok(Message::Goodbye { .. }) => self.sign(Sign::Goodbye),
            Ok(Message::Error { code, detail }) if !is_transient(&code) => self.end(Why::Expelled { code, detail }),
            Ok(_) => self.sign(Sign::Message),
            Err(error) => self.end(Why::Altered(error.to_string())),
        }
    }

    fn chunk(&mut self, chunk: &[u8], parser: &mut SseParser) {
        let mut items = Vec::new();
        let parsed = parser.push(chunk, &mut items);
        for item in items {
            match item {
                SseItem::Event { data, .. } => self.message(&data),
                SseItem::Position(_) => self.sign(Sign::Message),
                SseItem::Comment => self.sign(Sign::Beat),
                SseItem::Retry(_) => {}
            }
        }
        if let Err(error) = parsed {
            self.end(Why::Altered(error.to_string()));
        }
    }

    async fn frames<S>(&mut self, stream: &mut WebSocketStream<S>, until: Instant)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        while self.seen.end.is_none() {
            let Ok(frame) = timeout_at(until, stream.next()).await else { return close(stream).await };
            match frame {
                Some(Ok(Frame::Text(text))) => self.message(&text),
                Some(Ok(Frame::Ping(_))) => {
                    self.sign(Sign::Beat);
                    // The pong is queued; without it the server takes us for dead.
                    if let Ok(Err(error)) = timeout(WRITE_TIMEOUT, stream.flush()).await {
                        self.end(ended(&error));
                    }
                }
                Some(Ok(Frame::Pong(_))) => self.sign(Sign::Pong),
                Some(Ok(Frame::Close(frame))) => self.end(closed(frame)),
                Some(Ok(Frame::Binary(_) | Frame::Frame(_))) => {
                    self.end(Why::Altered("a binary frame, which the server never sends".to_owned()));
                }
                Some(Err(error)) => self.end(ended(&error)),
                None => self.end(Why::Lost("the connection ended".to_owned())),
            }
        }
    }
}

async fn close<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut WebSocketStream<S>) {
    let frame = CloseFrame { code: CloseCode::Normal, reason: "the doctor is leaving".into() };
    let farewell = async {
        if stream.close(Some(frame)).await.is_ok() {
            while let Some(Ok(_)) = stream.next().await {}
        }
    };
    // Nothing depends on the answer; without one the server sees the socket close.
    let _ = timeout(ANSWER_TIMEOUT, farewell).await;
}

fn closed(frame: Option<CloseFrame>) -> Why {
    let Some(frame) = frame else { return Why::Closed { code: 1005, reason: String::new() } };
    let (code, reason) = (u16::from(frame.code), frame.reason.to_string());
    match expulsion(&frame) {
        Some(code) => Why::Expelled { code, detail: reason },
        None => Why::Closed { code, reason },
    }
}

fn ended(error: &Error) -> Why {
    match error {
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake | ProtocolError::HandshakeIncomplete)
        | Error::Io(_)
        | Error::ConnectionClosed
        | Error::AlreadyClosed => Why::Lost(causes(error)),
        _ => Why::Altered(causes(error)),
    }
}
