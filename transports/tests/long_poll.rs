//! What only the long-poll transport promises.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

use gatecast_transports::contract::cases::stage;
use gatecast_transports::contract::client::Client;
use gatecast_transports::contract::poll::{PollClient, events, poll};
use gatecast_transports::contract::raw::Raw;
use gatecast_transports::contract::script::{ACK, Act, ack, frame};
use gatecast_transports::{CloseReason, Timing};

fn event(seq: usize, bytes: usize) -> Act {
    Act::Deliver(vec![frame(&format!("e-{seq}"), "test", format!(r#""{}""#, "x".repeat(bytes)))])
}

#[tokio::test]
async fn a_reply_joins_the_same_bytes() {
    let acts = [ack(), Act::Deliver(vec![frame("e-1", "test", r#"{"a": "\u00e4"}"#)])];
    let (script, server) = stage::<PollClient>(acts, Timing::default()).await;
    let (head, body) = poll(server.addr, "").await;
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-type"), Some("application/json"));
    assert_eq!(head.header("cache-control"), Some("no-store"));
    let expected = format!(r#"{{"connectionId":"c-1","events":[{ACK},{{"a": "\u00e4"}}],"lastEventId":"e-1"}}"#);
    assert_eq!(String::from_utf8(body).unwrap(), expected);
    assert_eq!(script.look(|state| (state.written, state.ended.len())), (2, 0), "the connection lives on");
}

#[tokio::test]
async fn without_events_the_timeout_answers_204_with_the_position() {
    let (script, server) = stage::<PollClient>([], Timing::default()).await;
    let (head, body) = poll(server.addr, "timeout=0").await;
    assert_eq!((head.status, head.header("last-event-id"), body.len()), (204, Some("e-0"), 0));
    script.until("the session is dropped", |state| state.alive == 0).await;
}

#[tokio::test]
async fn a_reply_ends_at_a_mebibyte_and_the_rest_is_the_next_ones() {
    let (script, server) = stage::<PollClient>((1..=3).map(|seq| event(seq, 600 << 10)), Timing::default()).await;
    for seq in 1..=3 {
        let (head, body) = poll(server.addr, "").await;
        assert_eq!((head.status, events(&body).len()), (200, 1), "reply {seq}");
        assert!(String::from_utf8(body).unwrap().ends_with(&format!(r#","lastEventId":"e-{seq}"}}"#)));
    }
    assert!(script.look(|state| state.acts.is_empty()));
}

#[tokio::test]
async fn a_parked_poll_answers_as_soon_as_there_is_an_event() {
    let (script, server) = stage::<PollClient>([], Timing::default()).await;
    let waiting = tokio::spawn(async move { poll(server.addr, "timeout=60&max=1").await });
    script.until("the poll waits", |state| state.alive == 1).await;
    script.play([event(1, 1), event(2, 1)]);
    let (head, body) = waiting.await.unwrap();
    assert_eq!((head.status, events(&body).len()), (200, 1));
}

#[tokio::test]
async fn the_goodbye_is_the_last_of_the_events_that_were_gathered() {
    let acts = [event(1, 1), Act::Close(CloseReason::Shutdown { reconnect_after_ms: 3 })];
    let (_script, server) = stage::<PollClient>(acts, Timing::default()).await;
    let (head, body) = poll(server.addr, "").await;
    let events = events(&body);
    assert_eq!((head.status, events.len()), (200, 2));
    assert!(events.back().unwrap().contains("server.goodbye"));
}

#[tokio::test]
async fn what_was_gathered_and_is_not_given_moves_no_client() {
    for reason in [CloseReason::TokenRevoked, CloseReason::Superseded] {
        let acts = [event(1, 1), event(2, 1), Act::Close(reason)];
        let (script, server) = stage::<PollClient>(acts, Timing::default()).await;
        let (head, body) = poll(server.addr, "").await;
        assert_eq!((head.status, head.header("last-event-id"), body.len()), (204, Some("e-0"), 0));
        assert_eq!(script.look(|state| state.ended.clone()), [reason]);
    }
}

#[tokio::test]
async fn garbage_wishes_are_refused_before_the_gate_is_asked() {
    let (script, server) = stage::<PollClient>([ack()], Timing::default()).await;
    for query in ["timeout=soon", "timeout=-1", "timeout=1.5", "max=0", "max=many", "connectionId=a%00b"] {
        let mut raw = Raw::connect(server.addr).await;
        raw.request("GET", &format!("{}?{query}", PollClient::PATH), PollClient::HEADERS).await;
        assert_eq!(raw.head().await.status, 400, "{query}");
    }
    assert_eq!(script.look(|state| state.admitted), 0);
}
