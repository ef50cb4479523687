//! A WebSocket client that knows bytes.

use std::net::SocketAddr;

use async_trait::async_trait;
use tokio_util::task::TaskTracker;

use super::client::{Client, Got};
use super::raw::{Head, Raw};
use crate::close::Ending;
use crate::timing::Timing;
use crate::transport::Transport;
use crate::websocket::WebSocket;

/// A WebSocket client.
#[derive(Debug)]
pub struct WsClient(pub Raw);

/// A frame from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WsFrame {
    /// The first byte: FIN, reserved bits, opcode.
    pub first: u8,
    /// The payload.
    pub payload: Vec<u8>,
}

impl WsClient {
    /// Sends a masked frame; `first` holds FIN, reserved bits and opcode.
    pub async fn send(&mut self, first: u8, payload: &[u8]) {
        self.0.send(&masked(first, payload)).await;
    }

    /// Reads a frame; `None` at the end of the stream.
    pub async fn frame(&mut self) -> Option<WsFrame> {
        let head = self.0.take(2).await;
        let &[first, len] = head.as_slice() else { return None };
        let len = match len {
            126 => u16::from_be_bytes(self.0.take(2).await.try_into().ok()?).into(),
            127 => u64::from_be_bytes(self.0.take(8).await.try_into().ok()?),
            // A server never masks: the top bit would make this larger than any frame.
            short => short.into(),
        };
        let payload = self.0.take(usize::try_from(len).unwrap()).await;
        (payload.len() as u64 == len).then_some(WsFrame { first, payload })
    }

    /// Reads up to the close frame and gives its code; `None` if the stream ends without one.
    pub async fn close_code(&mut self) -> Option<u16> {
        loop {
            if let WsFrame { first: 0x88, payload } = self.frame().await? {
                return code(&payload);
            }
        }
    }
}

/// A masked frame, as a client sends it (RFC 6455 § 5.3).
#[must_use]
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..=125 => bytes.push(0x80 | u8::try_from(len).unwrap()),
        len @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(len).unwrap().to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

fn code(payload: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(payload.get(..2)?.try_into().ok()?))
}

const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

#[async_trait]
impl Client for WsClient {
    const PATH: &'static str = "/api/internal/v1/ws/gateways/connect";
    const HEADERS: &'static str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\
        Sec-WebSocket-Protocol: anything\r\n";

    fn transport(timing: Timing, tasks: TaskTracker) -> Box<dyn Transport> {
        Box::new(WebSocket::new(timing, tasks))
    }

    async fn connect(addr: SocketAddr) -> Result<Self, (Head, Vec<u8>)> {
        let mut raw = Raw::connect(addr).await;
        raw.request("GET", Self::PATH, Self::HEADERS).await;
        let head = raw.head().await;
        if head.status != 101 {
            let body = raw.body(&head).await;
            return Err((head, body));
        }
        assert_eq!(head.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(head.header("sec-websocket-extensions"), None, "permessage-deflate is declined");
        assert_eq!(head.header("sec-websocket-protocol"), None, "no subprotocol is agreed to");
        Ok(Self(raw))
    }

    async fn next(&mut self) -> Got {
        match self.frame().await {
            Some(WsFrame { first: 0x81, payload }) => Got::Message(String::from_utf8(payload).unwrap()),
            Some(WsFrame { first: 0x89, payload }) => Got::Ping(payload),
            Some(WsFrame { first: 0x88, payload }) => {
                self.send(0x88, &payload).await;
                assert_eq!(self.0.drain().await, 0, "nothing follows a close frame");
                Got::End(code(&payload))
            }
            None => Got::End(None),
            Some(other) => panic!("unexpected frame {other:?}"),
        }
    }

    fn told(ending: &Ending) -> (Option<String>, Option<u16>) {
        let last = ending.last.as_ref().filter(|_| ending.spoken);
        (last.map(|frame| frame.text().to_string()), ending.close.map(|(code, _)| code))
    }
}
