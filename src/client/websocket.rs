//! RFC 6455, over a socket that this module dials itself.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, Request};
use reqwest::Url;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::connection::{Connection, Signal};
use super::dial;
use super::heard::Heard;
use super::link::{ANSWER_TIMEOUT, DIAL_TIMEOUT, FAREWELL_TIMEOUT, Link, SILENCE_MAX, WRITE_TIMEOUT};
use super::picker::Transport;
use super::quiet::Quiet;
use super::sse_parser::EVENT_BYTES_MAX;
use super::trouble::{Refusal, Trouble, causes};

/// How often the server is shown life while a message takes long to come: it counts on a sign each 30 s (CONTRACT.md § 4).
const LIFE_EVERY: Duration = Duration::from_secs(10);

/// A plain or TLS socket.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Wire for T {}
pub(super) type Socket = Pin<Box<dyn Wire>>;

/// Dials, upgrades, and answers a connection that has not been acknowledged yet.
pub(super) async fn open(link: &Link, cursor: Option<&str>) -> Result<Box<dyn Connection>, Trouble> {
    let url = link.endpoint.connect(Transport::WebSocket);
    let socket = match timeout(DIAL_TIMEOUT, dial(link, &url)).await {
        Ok(dialled) => dialled.map_err(|error| Trouble::Lost(causes(&error)))?,
        Err(_) => return Err(Trouble::Lost(format!("no connection within {} s", DIAL_TIMEOUT.as_secs()))),
    };
    let request = request(&link.endpoint.shown(Transport::WebSocket), link.headers(cursor))?;
    Ok(Box::new(upgrade(socket, request).await?))
}

pub(super) async fn dial(link: &Link, url: &Url) -> io::Result<Socket> {
    let tcp = dial::tcp(&dial::addresses(url).await?).await?;
    if url.scheme() == "http" {
        return Ok(Box::pin(tcp));
    }
    Ok(Box::pin(dial::tls(link.tls.clone(), url, tcp).await?))
}

/// The request to upgrade at an address that starts with `ws`.
pub(super) fn request(address: &str, headers: HeaderMap) -> Result<Request<()>, Trouble> {
    let mut request = address.into_client_request().map_err(|e| Trouble::Lost(causes(&e)))?;
    request.headers_mut().extend(headers);
    Ok(request)
}

async fn upgrade<S>(socket: S, request: Request<()>) -> Result<WebSocket<S>, Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let unsuited = |reason: String| Trouble::Unsuited { reason, refusal: None };
    match timeout(ANSWER_TIMEOUT, handshake(Heard::new(socket), request)).await {
        Ok(Ok((stream, _))) => Ok(WebSocket { stream, quiet: Quiet::new(SILENCE_MAX), pong_is_due: false }),
        Ok(Err(Error::Http(answer))) => Err(refused(&answer)),
        Ok(Err(error)) => Err(unsuited(format!("the upgrade failed: {}", causes(&error)))),
        Err(_) => Err(unsuited(format!("the upgrade was not answered within {} s", ANSWER_TIMEOUT.as_secs()))),
    }
}

/// The upgrade itself, with the answer that granted it.
pub(super) async fn handshake<S>(socket: S, request: Request<()>) -> Result<(WebSocketStream<S>, Response), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limits =
        WebSocketConfig::default().max_message_size(Some(EVENT_BYTES_MAX)).max_frame_size(Some(EVENT_BYTES_MAX));
    tokio_tungstenite::client_async_with_config(request, socket, Some(limits)).await
}

fn refused(answer: &Response) -> Trouble {
    let body = answer.body().as_deref().unwrap_or_default();
    let refusal = Refusal::read(answer.status(), answer.headers(), body);
    if refusal.is_about_service() {
        return Trouble::Refused(refusal);
    }
    Trouble::Unsuited { reason: format!("the upgrade was refused: {refusal}"), refusal: Some(refusal) }
}

/// An upgraded connection. tungstenite queues the pong itself; it is flushed by the call after the one that reported
/// the ping, so it is a receipt for everything handed out before.
struct WebSocket<S> {
    stream: WebSocketStream<Heard<S>>,
    quiet: Quiet,
    pong_is_due: bool,
}

#[async_trait]
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection for WebSocket<S> {
    async fn next(&mut self) -> Signal {
        if self.pong_is_due {
            let flushed = timeout(WRITE_TIMEOUT, self.stream.flush()).await;
            self.pong_is_due = false;
            return match flushed {
                Ok(Ok(())) => Signal::PongSent,
                Ok(Err(error)) => lost(causes(&error)),
                Err(_) => lost("the server does not read".to_owned()),
            };
        }
        loop {
            let frame = match self.frame().await {
                Ok(frame) => frame,
                Err(silence) => return lost(silence),
            };
            match frame {
                Some(Ok(Message::Text(text))) => return Signal::Message(text.as_str().to_owned()),
                Some(Ok(Message::Ping(_))) => {
                    self.pong_is_due = true;
                    return Signal::Ping;
                }
                Some(Ok(Message::Close(frame))) => {
                    // The answer to the close is queued; nothing depends on its arrival.
                    let _ = timeout(WRITE_TIMEOUT, self.stream.flush()).await;
                    return Signal::Ended(closed(frame));
                }
                // Nothing is asked of the server that these could answer.
                Some(Ok(Message::Pong(_) | Message::Binary(_) | Message::Frame(_))) => {}
                Some(Err(error)) => return lost(causes(&error)),
                None => return lost("the connection ended".to_owned()),
            }
        }
    }

    async fn close(&mut self) -> bool {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "client is leaving".into() };
        let goodbye = async {
            self.stream.close(Some(frame)).await.ok()?;
            while let Some(message) = self.stream.next().await {
                if matches!(message.ok()?, Message::Close(_)) {
                    return Some(());
                }
            }
            None
        };
        matches!(timeout(FAREWELL_TIMEOUT, goodbye).await, Ok(Some(())))
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> WebSocket<S> {
    /// The next frame, however long it takes as long as something of it comes; else what to say of the silence.
    async fn frame(&mut self) -> Result<Option<Result<Message, Error>>, String> {
        loop {
            let (deadline, heard) = (self.quiet.deadline(), self.stream.get_ref().last());
            let moment = deadline.min(Instant::now() + LIFE_EVERY);
            if let Ok(frame) = timeout_at(moment, self.stream.next()).await {
                self.quiet.alive();
                return Ok(frame);
            }
            let last = self.stream.get_ref().last();
            if last > heard {
                self.quiet.alive_at(last);
                // What is read for so long answers no ping that comes behind it, and the server takes silence for death.
                let asked = timeout(WRITE_TIMEOUT, self.stream.send(Message::Ping(Bytes::new()))).await;
                asked.map_err(|_| "the server does not read".to_owned())?.map_err(|error| causes(&error))?;
            } else if moment == deadline {
                return Err(format!("silent for {} s", SILENCE_MAX.as_secs()));
            }
        }
    }
}

fn lost(reason: String) -> Signal {
    Signal::Ended(Trouble::Lost(reason))
}

fn closed(frame: Option<CloseFrame>) -> Trouble {
    let Some(frame) = frame else { return Trouble::Lost("closed by the server without a code".to_owned()) };
    if let Some(code) = expulsion(&frame) {
        return Trouble::Expelled { code, detail: format!("closed by the server: {}", frame.reason) };
    }
    Trouble::Lost(format!("closed by the server: {} {}", u16::from(frame.code), frame.reason))
}

/// The stable code of a close for good, as the other transports have it in their `error` message.
pub(super) fn expulsion(frame: &CloseFrame) -> Option<String> {
    let reason = frame.reason.to_ascii_uppercase().replace(' ', "_");
    (frame.code == CloseCode::Policy)
        .then(|| if reason.is_empty() { u16::from(frame.code).to_string() } else { reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncWriteExt, DuplexStream};
    use tokio_tungstenite::tungstenite::protocol::Role;

    async fn pair() -> (WebSocket<DuplexStream>, WebSocketStream<DuplexStream>) {
        let (near, far) = tokio::io::duplex(1 << 16);
        let request = "ws://test/".into_client_request().unwrap();
        let (near, far) = tokio::join!(upgrade(near, request), tokio_tungstenite::accept_async(far));
        (near.unwrap(), far.unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_is_dead_35_seconds_after_its_last_byte() {
        let (mut near, mut far) = pair().await;
        let start = Instant::now();
        let talk = tokio::spawn(async move {
            far.send(Message::text("{}")).await.unwrap();
            tokio::time::sleep(Duration::from_secs(20)).await;
            // A frame of two bytes of which one comes.
            far.get_mut().write_all(&[0x81]).await.unwrap();
            far
        });
        assert!(matches!(near.next().await, Signal::Message(_)));
        let end = near.next().await;
        assert!(matches!(&end, Signal::Ended(Trouble::Lost(reason)) if reason == "silent for 35 s"), "{end:?}");
        assert_eq!(start.elapsed(), Duration::from_secs(55));
        drop(talk.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_may_take_minutes_and_the_server_is_shown_life_meanwhile() {
        let (mut near, far) = pair().await;
        let (far_reads, mut far_writes) = tokio::io::split(far.into_inner());
        let send = async move {
            // A text frame of 120 bytes, one every second.
            for byte in [0x81, 120].into_iter().chain([b'x'; 120]) {
                tokio::time::sleep(Duration::from_secs(1)).await;
                far_writes.write_all(&[byte]).await.unwrap();
            }
            far_writes
        };
        let hear = async move {
            let unheard = tokio::io::sink();
            let mut far =
                WebSocketStream::from_raw_socket(tokio::io::join(far_reads, unheard), Role::Server, None).await;
            let mut last = Instant::now();
            while let Some(Ok(Message::Ping(_))) = far.next().await {
                assert!(last.elapsed() < Duration::from_secs(30), "{:?}", last.elapsed());
                last = Instant::now();
            }
            last
        };
        let start = Instant::now();
        let hear = tokio::spawn(hear);
        let (message, writes) = tokio::join!(near.next(), send);
        assert!(matches!(&message, Signal::Message(text) if text.len() == 120), "{message:?}");
        drop((near, writes));
        assert!(hear.await.unwrap() - start > Duration::from_secs(100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pong_follows_its_ping_with_the_same_payload() {
        let (mut near, mut far) = pair().await;
        far.send(Message::Ping("6f3a9c21-7".into())).await.unwrap();
        assert!(matches!(near.next().await, Signal::Ping));
        assert!(matches!(near.next().await, Signal::PongSent));
        assert_eq!(far.next().await.unwrap().unwrap(), Message::Pong("6f3a9c21-7".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn handling_an_event_for_minutes_is_not_the_servers_silence() {
        let (mut near, mut far) = pair().await;
        far.send(Message::text("1")).await.unwrap();
        assert!(matches!(near.next().await, Signal::Message(_)));
        tokio::time::advance(Duration::from_secs(300)).await;
        far.send(Message::text("2")).await.unwrap();
        assert!(matches!(near.next().await, Signal::Message(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_policy_close_is_final_and_others_are_not() {
        for (code, is_final) in [(CloseCode::Policy, true), (CloseCode::Normal, false), (CloseCode::Error, false)] {
            let (mut near, mut far) = pair().await;
            let frame = CloseFrame { code, reason: "why".into() };
            far.close(Some(frame)).await.unwrap();
            let signal = near.next().await;
            assert!(matches!(signal, Signal::Ended(_)), "{signal:?}");
            assert_eq!(matches!(signal, Signal::Ended(Trouble::Expelled { .. })), is_final, "{signal:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn why_the_server_expels_is_called_as_on_the_other_transports() {
        for (reason, expected) in [("gateway deleted", "GATEWAY_DELETED"), ("", "1008")] {
            let (mut near, mut far) = pair().await;
            far.close(Some(CloseFrame { code: CloseCode::Policy, reason: reason.into() })).await.unwrap();
            let signal = near.next().await;
            let Signal::Ended(Trouble::Expelled { code, .. }) = &signal else { unreachable!("{signal:?}") };
            assert_eq!(code, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn closing_waits_for_the_server_but_not_for_ever() {
        let (mut near, mut far) = pair().await;
        let (confirmed, _) = tokio::join!(near.close(), async { while let Some(Ok(_)) = far.next().await {} });
        assert!(confirmed);
        let (mut near, _silent) = pair().await;
        assert!(!near.close().await);
    }
}
