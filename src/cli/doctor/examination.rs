//! What is asked, in which order, with as few connections as possible: three that stay, on a clean path.

use std::time::Duration;

use chrono::{DateTime, Utc};
use gatecast_storage::Clock;
use tokio::time::Instant;
use uuid::Uuid;

use super::progress::Progress;
use crate::client::probe::{Credential, Head, PollAsk, Polled, Probe, Reached, Unopened, Unreached, Watched};
use crate::client::{Ack, Transport};

/// No cursor has this form: whoever reads it says so.
const NO_CURSOR: &str = "no-cursor-of-the-doctor";
/// The longest that a server holds a poll, in seconds (CONTRACT.md § 4).
const POLL_S_MAX: u64 = 60;

/// All that was seen.
#[derive(Debug)]
pub(super) struct Examination {
    pub(super) reached: Result<Reached, Unreached>,
    /// `None` if the port was not reached.
    pub(super) streams: Option<Streams>,
}

/// What the transports did.
#[derive(Debug)]
pub(super) struct Streams {
    /// The header that the server took the key from.
    pub(super) credential: Credential,
    /// The poll that opens a connection.
    pub(super) opening: Result<Polled, Unopened>,
    /// When its answer was there, by the clock on the wall.
    pub(super) answered_at: DateTime<Utc>,
    /// Whether `Last-Event-ID` arrives with a poll; `None` if that is not known.
    pub(super) cursor_arrives: Option<bool>,
    /// Polls that were held, each with how long it might have been.
    pub(super) polls: Vec<(Duration, Result<Polled, Unopened>)>,
    /// `None` if the key was refused.
    pub(super) websocket: Option<Result<Watched, Unopened>>,
    pub(super) sse: Option<Result<Watched, Unopened>>,
}

impl Streams {
    /// The server's own word on its time, from the first poll.
    pub(super) fn ack(&self) -> Option<&Ack> {
        self.opening.as_ref().ok()?.ack.as_ref()
    }

    /// The head of the first answer.
    pub(super) fn head(&self) -> Option<&Head> {
        match &self.opening {
            Ok(polled) => Some(&polled.head),
            Err(Unopened::Refused(head)) => Some(head),
            Err(_) => None,
        }
    }
}

/// Asks everything; the transports are held side by side for `idle`.
pub(super) async fn examine(
    probe: &Probe,
    clock: &dyn Clock,
    idle: Duration,
    progress: &mut Progress<'_>,
) -> Examination {
    let reached = probe.reach().await;
    progress.reached(&reached);
    if reached.is_err() {
        return Examination { reached, streams: None };
    }
    let mut credential = Credential::ApiKey;
    let mut opening = open(probe, credential).await;
    if is_unauthorized(&opening) {
        let again = open(probe, Credential::Bearer).await;
        if again.is_ok() {
            (credential, opening) = (Credential::Bearer, again);
        }
    }
    let answered_at = clock.now();
    progress.answered(&opening);
    let mut streams = Streams {
        credential,
        opening,
        answered_at,
        cursor_arrives: None,
        polls: Vec::new(),
        websocket: None,
        sse: None,
    };
    if !is_unauthorized(&streams.opening) {
        hold(probe, &mut streams, idle, progress).await;
    }
    Examination { reached, streams: Some(streams) }
}

async fn open(probe: &Probe, by: Credential) -> Result<Polled, Unopened> {
    // Without a name it would go on with the connection of an examination of a moment ago, and not be acknowledged.
    let connection = Some(Uuid::new_v4().to_string());
    probe.poll(by, &PollAsk { cursor: Some("latest".to_owned()), connection, hold_s: 0 }).await
}

fn is_unauthorized(opening: &Result<Polled, Unopened>) -> bool {
    matches!(opening, Err(Unopened::Refused(head)) if head.status == 401)
}

async fn hold(probe: &Probe, streams: &mut Streams, idle: Duration, progress: &mut Progress<'_>) {
    let by = streams.credential;
    let position = streams.ack().and_then(|ack| ack.position.clone());
    let connection = streams.opening.as_ref().ok().and_then(|polled| polled.connection.clone());
    // A position, and not `latest`: the acknowledgement then tells whether it arrived.
    let cursor = position.as_deref().unwrap_or("latest");
    let all = async {
        tokio::join!(
            probe.websocket(by, Some(cursor), idle),
            probe.sse(by, Some(cursor), idle),
            polls(probe, by, connection, position.clone(), idle)
        )
    };
    let (websocket, sse, (cursor_arrives, polls)) = progress.during(idle, all).await;
    progress.held(Transport::WebSocket, &websocket);
    progress.held(Transport::Sse, &sse);
    (streams.websocket, streams.sse) = (Some(websocket), Some(sse));
    (streams.cursor_arrives, streams.polls) = (cursor_arrives, polls);
}

type Polls = Vec<(Duration, Result<Polled, Unopened>)>;

async fn polls(
    probe: &Probe,
    by: Credential,
    connection: Option<String>,
    mut cursor: Option<String>,
    idle: Duration,
) -> (Option<bool>, Polls) {
    let mut polls = Vec::new();
    if connection.is_none() {
        return (None, polls);
    }
    // Of the same connection: no attempt to connect, and no new one if the header is taken away.
    let nonsense = PollAsk { cursor: Some(NO_CURSOR.to_owned()), connection: connection.clone(), hold_s: 0 };
    let arrives = match probe.poll(by, &nonsense).await {
        Ok(_) => Some(false),
        Err(Unopened::Refused(head)) if head.code.as_deref() == Some("INVALID_CURSOR") => Some(true),
        Err(_) => None,
    };
    let until = Instant::now() + idle;
    // Rounded up: a poll is held for whole seconds, and one is always asked.
    let mut left = idle.as_secs().clamp(1, POLL_S_MAX);
    while left > 0 {
        let ask = PollAsk { cursor: cursor.clone(), connection: connection.clone(), hold_s: left };
        let polled = probe.poll(by, &ask).await;
        if let Ok(polled) = &polled {
            cursor = polled.cursor.clone().or(cursor);
        }
        let is_over = polled.as_ref().map_or(true, |polled| polled.goodbye || !polled.has_events);
        polls.push((Duration::from_secs(left), polled));
        if is_over {
            break;
        }
        // Events came: a quiet time begins again, as far as there is time.
        left = until.saturating_duration_since(Instant::now()).as_secs().min(POLL_S_MAX);
    }
    (arrives, polls)
}
