//! What goes on while the server is brought down again and again: publishers and subscribers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use gatecast_storage::GatewayId;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use super::ledger::Ledger;
use super::seen::{Seen, Told, place};
use crate::platform::Platform;
use crate::random::Random;
use crate::wire::{End, PATIENCE, Sse, Ws};

/// Entities that events are about.
pub(super) const ENTITIES: u64 = 5;
/// Every so many events one is large, so that the store puts it into a file of its own.
const LARGE_EVERY: u64 = 16;
const LARGE_BYTES: usize = 150_000;

/// Where the server is now. It is another address after each kill.
pub(super) type Here = watch::Receiver<Option<SocketAddr>>;

/// What publishers share.
#[derive(Clone)]
pub(super) struct Work {
    pub(super) here: Here,
    /// The number of the next event.
    pub(super) numbers: Arc<AtomicU64>,
    pub(super) answers: Arc<watch::Sender<u64>>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) ledger: Arc<Ledger>,
}

impl Work {
    pub(super) fn stops(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

/// The server's address once it is another one than `dead`.
pub(super) async fn other_than(here: &mut Here, dead: Option<SocketAddr>) -> SocketAddr {
    let alive = here.wait_for(|now| now.is_some() && *now != dead);
    // A server that is killed while it starts, and one that is not, each in its time.
    timeout(3 * PATIENCE, alive).await.expect("a server in time").unwrap().unwrap()
}

/// Publishes one event after the other, to one gateway after the other, and notes what was answered.
pub(super) async fn publisher(mut work: Work, gateways: Vec<GatewayId>) -> Vec<Told> {
    let (mut told, mut dead) = (Vec::new(), None);
    while !work.stops() {
        let address = other_than(&mut work.here, dead).await;
        let platform = Platform::new(address);
        while !work.stops() {
            let n = work.numbers.fetch_add(1, Ordering::Relaxed);
            let to = gateways[usize::try_from(n).unwrap() % gateways.len()];
            let padding = if n.is_multiple_of(LARGE_EVERY) { "x".repeat(LARGE_BYTES) } else { String::new() };
            let payload = json!({"apiId": format!("api-{}", n % ENTITIES), "n": n, "padding": padding});
            let event = json!({"type": "api.deployed", "payload": payload});
            let url = platform.url(&format!("/api/internal/v1/gateways/{to}/events"));
            let Ok(response) = platform.http.post(url).json(&event).send().await else { break };
            assert_eq!(response.status(), 201);
            // What broke off in the middle of the answer was not answered.
            let Ok(answer) = response.json::<Value>().await else { break };
            let answered = (to, place(answer["eventId"].as_str().unwrap()), n);
            work.ledger.note(&answered);
            told.push(answered);
            work.answers.send_modify(|answers| *answers += 1);
        }
        dead = Some(address);
    }
    told
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Over {
    WebSocket,
    Sse,
    LongPoll,
}

/// Reads until the gateway's last event, resuming with its cursor whenever the server is gone; after that it stays away
/// for up to this many answers.
pub(super) async fn subscriber(over: Over, mut work: Work, mut seen: Seen, mut away: Random, away_max: u64) -> Seen {
    let mut dead = None;
    while !seen.done() {
        let address = other_than(&mut work.here, dead).await;
        read(over, &mut seen, address).await;
        dead = Some(address);
        let back = *work.answers.borrow() + away.in_range(0..away_max + 1);
        let mut answers = work.answers.subscribe();
        // However long it takes: whoever kills the server sees to it that there are answers.
        answers.wait_for(|answers| *answers >= back || work.stops()).await.unwrap();
    }
    seen
}

/// Reads until the gateway's last event, or until the server is gone.
pub(super) async fn read(over: Over, seen: &mut Seen, address: SocketAddr) {
    match over {
        Over::WebSocket => over_websocket(seen, address).await,
        Over::Sse => over_sse(seen, address).await,
        Over::LongPoll => over_long_poll(seen, address).await,
    }
}

async fn over_websocket(seen: &mut Seen, address: SocketAddr) {
    let mut ws = match Ws::dial(address, &seen.gateway.token, Some(&seen.cursor())).await {
        Ok(ws) => ws,
        Err(status) => return assert_eq!(status, None, "refused"),
    };
    while !seen.done() {
        match ws.message().await {
            Ok(message) => seen.take(&message),
            Err(end) => return assert_eq!(end, End::Broken),
        }
    }
}

async fn over_sse(seen: &mut Seen, address: SocketAddr) {
    let http = Platform::new(address).http;
    let mut sse = match Sse::dial(&http, address, &seen.gateway.token, Some(&seen.cursor())).await {
        Ok(sse) => sse,
        Err(status) => return assert_eq!(status, None, "refused"),
    };
    while !seen.done() {
        let Some(event) = sse.event().await else { return };
        seen.take(&event.json());
    }
}

async fn over_long_poll(seen: &mut Seen, address: SocketAddr) {
    let platform = Platform::new(address);
    let mut connection = String::new();
    while !seen.done() {
        let query = format!("lastEventId={}{connection}", seen.cursor());
        let Ok((status, reply, _)) = platform.poll(&seen.gateway.token, &query).await else { return };
        assert!(status == 200 || status == 204, "{status}: {reply}");
        for message in reply["events"].as_array().into_iter().flatten() {
            seen.take(message);
        }
        if let Some(id) = reply["connectionId"].as_str() {
            connection = format!("&connectionId={id}");
        }
    }
}
