//! One attempt to connect: it ends with an acknowledged connection, or with the reason why there is none.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::backoff::TOLD_MAX;
use super::connection::{Connection, Signal};
use super::link::{ACK_TIMEOUT, Link};
use super::message::{Ack, Message};
use super::picker::Transport;
use super::trouble::Trouble;
use super::{long_poll, sse, websocket};

/// An acknowledged connection.
pub(super) struct Opened {
    pub(super) connection: Box<dyn Connection>,
    /// How long to wait, at least, once it is lost.
    pub(super) retry: Option<Duration>,
    pub(super) ack: Ack,
}

/// One attempt, up to and with the acknowledgement.
pub(super) async fn open(link: Arc<Link>, transport: Transport, resume: Option<String>) -> Result<Opened, Trouble> {
    let resume = resume.as_deref();
    let connection = match transport {
        Transport::WebSocket => websocket::open(&link, resume).await?,
        Transport::Sse => sse::open(&link, resume).await?,
        Transport::LongPoll => long_poll::open(&link, resume).await?,
    };
    acknowledged(connection).await
}

async fn acknowledged(mut connection: Box<dyn Connection>) -> Result<Opened, Trouble> {
    let Ok(heard) = timeout(ACK_TIMEOUT, acknowledgement(connection.as_mut())).await else {
        // Something in between may hold it back; another transport may get through.
        let reason = format!("no acknowledgement within {} s", ACK_TIMEOUT.as_secs());
        return Err(Trouble::Unsuited { reason, refusal: None });
    };
    let (ack, retry) = heard?;
    Ok(Opened { connection, retry, ack })
}

async fn acknowledgement(connection: &mut dyn Connection) -> Result<(Ack, Option<Duration>), Trouble> {
    let mut retry = None;
    loop {
        match connection.next().await {
            Signal::Retry(wait) => retry = Some(wait.min(TOLD_MAX)),
            Signal::Position(_) | Signal::Ping | Signal::PongSent => {}
            Signal::Ended(trouble) => return Err(trouble),
            Signal::Message(raw) => match Message::parse(&raw) {
                Ok(Message::Ack(ack)) => return Ok((ack, retry)),
                Ok(Message::Error { code, detail }) if is_transient(&code) => {
                    return Err(Trouble::Lost(format!("{detail} ({code})")));
                }
                Ok(Message::Error { code, detail }) => return Err(Trouble::Expelled { code, detail }),
                // An event before the acknowledgement would be lost here, so this is no server of ours.
                Ok(_) => return Err(Trouble::Lost("the first message is no acknowledgement".to_owned())),
                Err(broken) => return Err(Trouble::Lost(broken.to_string())),
            },
        }
    }
}

/// An `error` message with one of these codes before the end does not mean "for good".
pub(super) fn is_transient(code: &str) -> bool {
    matches!(code, "DRAINING" | "UNAVAILABLE" | "CAPACITY_EXCEEDED" | "RATE_LIMITED" | "TIMEOUT" | "HEARTBEAT_TIMEOUT")
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use tokio::time::Instant;

    /// Says what it is given, then nothing.
    struct Scripted(Vec<Signal>);

    #[async_trait]
    impl Connection for Scripted {
        async fn next(&mut self) -> Signal {
            match self.0.pop() {
                Some(signal) => signal,
                None => std::future::pending().await,
            }
        }

        async fn close(&mut self) -> bool {
            true
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_not_acknowledged_in_five_seconds_is_another_transports_turn() {
        let start = Instant::now();
        let silent = Scripted(vec![Signal::Retry(Duration::from_secs(1))]);
        let opened = acknowledged(Box::new(silent)).await;
        assert!(matches!(opened, Err(Trouble::Unsuited { refusal: None, .. })));
        assert_eq!(start.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_before_the_acknowledgement_is_no_connection() {
        let event = Signal::Message(r#"{"type":"t","eventId":"6f3a9c21-1"}"#.to_owned());
        assert!(matches!(acknowledged(Box::new(Scripted(vec![event]))).await, Err(Trouble::Lost(_))));
    }
}
