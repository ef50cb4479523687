//! Clients that are no more than what the wire needs: bytes in, bytes out.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use gatecast::client::{Trust, client_config};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// Longer than anything that should happen takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) type Tls = TlsStream<TcpStream>;

pub(crate) fn trusting_all(alpn: &[&[u8]]) -> ClientConfig {
    let mut config = (*client_config(&Trust::Anyone, None).unwrap()).clone();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

pub(crate) async fn tls(address: SocketAddr, alpn: &[&[u8]]) -> std::io::Result<Tls> {
    tls_over(TcpStream::connect(address).await?, alpn).await
}

pub(crate) async fn tls_over(tcp: TcpStream, alpn: &[&[u8]]) -> std::io::Result<Tls> {
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(trusting_all(alpn))).connect(name, tcp).await
}

/// A WebSocket client.
pub(crate) struct Ws {
    pub(crate) socket: WebSocketStream<Tls>,
    pub(crate) pings: usize,
}

/// How a WebSocket ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    Closed(u16, String),
    Broken,
}

impl Ws {
    /// Connects, or returns the status of the refusal.
    pub(crate) async fn connect(address: SocketAddr, token: &str, cursor: Option<&str>) -> Result<Self, u16> {
        Self::dial(address, token, cursor).await.map_err(|status| status.expect("a server that answers"))
    }

    /// The same for a server that may be gone: then there is no status.
    pub(crate) async fn dial(address: SocketAddr, token: &str, cursor: Option<&str>) -> Result<Self, Option<u16>> {
        let url = format!("wss://localhost:{}/api/internal/v1/ws/gateways/connect", address.port());
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert("api-key", token.parse().unwrap());
        if let Some(cursor) = cursor {
            request.headers_mut().insert("last-event-id", cursor.parse().unwrap());
        }
        let stream = tls(address, &[b"http/1.1"]).await.map_err(|_| None)?;
        match tokio_tungstenite::client_async(request, stream).await {
            Ok((socket, _)) => Ok(Self { socket, pings: 0 }),
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => Err(Some(response.status().as_u16())),
            Err(_) => Err(None),
        }
    }

    pub(crate) async fn message(&mut self) -> Result<Value, End> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("a message in time");
            match next {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                // The library answers it with the next flush.
                Some(Ok(Message::Ping(_))) => {
                    self.pings += 1;
                    self.socket.flush().await.ok();
                }
                Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) => {
                    return Err(End::Closed(code.into(), reason.to_string()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(End::Broken),
            }
        }
    }
}

/// One event of an SSE stream, as its lines say.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct SseEvent {
    pub(crate) id: Option<String>,
    pub(crate) event: Option<String>,
    pub(crate) data: String,
    pub(crate) retry: Option<u64>,
}

impl SseEvent {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap()
    }
}

/// An SSE client over any response body.
pub(crate) struct Sse {
    response: reqwest::Response,
    buffer: String,
    ready: VecDeque<SseEvent>,
    pub(crate) comments: usize,
}

impl Sse {
    pub(crate) fn new(response: reqwest::Response) -> Self {
        Self { response, buffer: String::new(), ready: VecDeque::new(), comments: 0 }
    }

    pub(crate) async fn connect(
        http: &reqwest::Client,
        address: SocketAddr,
        token: &str,
        cursor: Option<&str>,
    ) -> Result<Self, u16> {
        Self::dial(http, address, token, cursor).await.map_err(|status| status.expect("a server that answers"))
    }

    /// The same for a server that may be gone: then there is no status.
    pub(crate) async fn dial(
        http: &reqwest::Client,
        address: SocketAddr,
        token: &str,
        cursor: Option<&str>,
    ) -> Result<Self, Option<u16>> {
        let url = format!("https://{address}/api/internal/v1/sse/gateways/connect");
        let mut request = http.get(url).header("api-key", token).header("accept", "text/event-stream");
        if let Some(cursor) = cursor {
            request = request.header("last-event-id", cursor);
        }
        let response = request.send().await.map_err(|_| None)?;
        if response.status() == 200 { Ok(Self::new(response)) } else { Err(Some(response.status().as_u16())) }
    }

    /// The next event that has data; `None` at the end of the stream.
    pub(crate) async fn event(&mut self) -> Option<SseEvent> {
        loop {
            while let Some(event) = self.ready.pop_front() {
                if !event.data.is_empty() {
                    return Some(event);
                }
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("a chunk in time");
            self.buffer.push_str(std::str::from_utf8(&chunk.ok()??).unwrap());
            while let Some(end) = self.buffer.find("\n\n") {
                let block: String = self.buffer.drain(..end + 2).collect();
                self.take(&block);
            }
        }
    }

    fn take(&mut self, block: &str) {
        let mut event = SseEvent::default();
        for line in block.lines() {
            match line.split_once(": ").or_else(|| line.split_once(':')) {
                Some(("", _)) => self.comments += 1,
                Some(("id", id)) => event.id = Some(id.to_owned()),
                Some(("event", name)) => event.event = Some(name.to_owned()),
                Some(("data", data)) => event.data.push_str(data),
                Some(("retry", ms)) => event.retry = ms.parse().ok(),
                Some(other) => panic!("{other:?}"),
                None => {}
            }
        }
        self.ready.push_back(event);
    }
}

/// One raw HTTP/1.1 exchange: writes `request` and reads until `until` or the end.
pub(crate) async fn raw(stream: &mut Tls, request: &str, until: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    // TLS keeps what the socket does not take at once, which is also when a task has used up its turn.
    stream.flush().await.unwrap();
    let mut seen = Vec::new();
    let read = async {
        loop {
            let mut buffer = [0; 4096];
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(n) => seen.extend_from_slice(&buffer[..n]),
            }
            if String::from_utf8_lossy(&seen).contains(until) {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("an answer in time");
    String::from_utf8_lossy(&seen).into_owned()
}
