//! What every transport promises.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::client::{Client, Got};
use super::script::{ACK, Act, Script, ack, frame};
use super::server::Server;
use super::{PATIENCE, raw::Raw, short};
use crate::close::CloseReason;
use crate::timing::Timing;
use crate::transport::Frame;

/// A script and a server for it.
pub async fn stage<C: Client>(acts: impl IntoIterator<Item = Act>, timing: Timing) -> (Script, Server) {
    let script = Script::new(acts);
    let transport = C::transport(timing, TaskTracker::new());
    let server = Server::start(transport.as_ref(), &script).await;
    (script, server)
}

async fn connect<C: Client>(server: &Server) -> C {
    C::connect(server.addr).await.unwrap_or_else(|(head, _)| panic!("refused: {head:?}"))
}

async fn message<C: Client>(client: &mut C) -> String {
    match client.next().await {
        Got::Message(text) => text,
        other => panic!("a message was due, not {other:?}"),
    }
}

/// The acknowledgement is first; after it, messages come in order, byte by byte as they were made.
pub async fn first_message_is_the_acknowledgement_and_bytes_and_order_are_kept<C: Client>() {
    let mut texts: Vec<String> =
        (1..=600).map(|seq| format!(r#"{{"seq":{seq},"odd":"ä€𝄞 \u00e4 \"\\ : ]}}"}}"#)).collect();
    texts.push(format!(r#"{{"large":"{}"}}"#, "x".repeat(200_000)));
    let frames: Vec<Arc<Frame>> = texts.iter().map(|text| frame("e-1", "test", text.as_str())).collect();
    let acts = frames.chunks(100).map(|chunk| Act::Deliver(chunk.to_vec()));
    let (script, server) = stage::<C>([ack()].into_iter().chain(acts), Timing::default()).await;
    let mut client: C = connect(&server).await;
    assert_eq!(message(&mut client).await, ACK);
    for text in &texts {
        assert_eq!(&message(&mut client).await, text);
    }
    script.until("all is written", |state| state.acts.is_empty()).await;
}

/// A single event is delivered however large it is.
pub async fn an_event_of_three_mebibytes_arrives_whole<C: Client>() {
    let text = format!(r#"{{"large":"{}"}}"#, "x".repeat(3 << 20));
    let (_script, server) =
        stage::<C>([ack(), Act::Deliver(vec![frame("e-1", "test", text.as_str())])], Timing::default()).await;
    let mut client: C = connect(&server).await;
    assert_eq!(message(&mut client).await, ACK);
    assert!(message(&mut client).await == text);
}

/// Each reason is told in the transport's own words, the session hears it too, and is then dropped.
pub async fn every_close_reason_is_told_as_the_table_says<C: Client>() {
    let reasons = [
        CloseReason::Shutdown { reconnect_after_ms: 1234 },
        CloseReason::TokenRevoked,
        CloseReason::TokenExpired,
        CloseReason::GatewayDeleted,
        CloseReason::AccessWithdrawn,
        CloseReason::NoLife,
        CloseReason::Superseded,
    ];
    for reason in reasons {
        let (script, server) = stage::<C>([ack()], Timing::default()).await;
        let mut client: C = connect(&server).await;
        assert_eq!(message(&mut client).await, ACK);
        script.play([Act::Close(reason)]);
        let (last, code) = C::told(&reason.ending());
        if let Some(last) = last {
            assert_eq!(message(&mut client).await, last, "{reason:?}");
            // A long-poll would only ask again.
            script.change(|state| state.acts = [Act::Close(CloseReason::NoLife)].into());
        }
        assert_eq!(client.next().await, Got::End(code), "{reason:?}");
        script.until("the session is dropped", |state| state.alive == 0).await;
        assert_eq!(script.look(|state| state.ended.first().copied()), Some(reason));
    }
}

/// Whoever is refused reads the gate's answer, unchanged, and there is no session.
pub async fn a_refusal_passes_through_untouched<C: Client>() {
    let (script, server) = stage::<C>([ack()], Timing::default()).await;
    script.change(|state| state.refuse = Some((429, ("retry-after", "7"), r#"{"code":"RATE_LIMITED"}"#)));
    let Err((head, body)) = C::connect(server.addr).await else { panic!("was let in") };
    assert_eq!((head.status, head.header("retry-after")), (429, Some("7")));
    assert_eq!(body, br#"{"code":"RATE_LIMITED"}"#);
}

/// What is no handshake is answered by the gate, which is not asked to admit it.
pub async fn a_malformed_handshake_is_the_gates_to_answer<C: Client>() {
    let (script, server) = stage::<C>([ack()], Timing::default()).await;
    for query in ["instance=a%20b".to_owned(), format!("instance={}", "x".repeat(129)), "instance=a&instance=b".into()]
    {
        let mut raw = Raw::connect(server.addr).await;
        raw.request("GET", &format!("{}?{query}", C::PATH), C::HEADERS).await;
        assert_eq!(raw.head().await.status, 400, "{query}");
    }
    assert_eq!(script.look(|state| (state.admitted, state.rejected.len())), (0, 3));
}

/// A peer that is gone is noticed while nothing is written to it.
pub async fn a_session_is_dropped_when_its_peer_goes<C: Client>() {
    let (script, server) = stage::<C>([], Timing::default()).await;
    let raw = C::connect_and_ignore(server.addr).await;
    script.until("the session waits", |state| state.alive == 1).await;
    drop(raw);
    script.until("the session is dropped", |state| state.alive == 0).await;
    let gone = |reason: &CloseReason| matches!(reason, CloseReason::PeerClosed | CloseReason::SocketBroken);
    assert!(script.look(|state| state.ended.iter().all(gone)));
}

/// Events of which not even one fits into a socket's buffers (4 MiB to send, 6 MiB to receive).
fn flood() -> Vec<Act> {
    let text = format!(r#"{{"large":"{}"}}"#, "x".repeat(FLOOD_BYTES));
    (1..=FLOOD_EVENTS).map(|seq| Act::Deliver(vec![frame(&format!("e-{seq}"), "test", text.as_str())])).collect()
}

const FLOOD_BYTES: usize = 12 << 20;
const FLOOD_EVENTS: usize = 3;

/// A peer that doesn't read ends by the write stall, and the step that it did not take is given to the next connection.
pub async fn a_peer_that_does_not_read_ends_and_loses_nothing<C: Client>() {
    let (script, server) = stage::<C>(flood(), short()).await;
    let _raw = C::connect_and_ignore(server.addr).await;
    script.until("there is a session", |state| state.admitted == 1).await;
    script.until("the session is dropped", |state| state.alive == 0).await;
    let (left, written) = script.look(|state| (state.acts.len(), state.written));
    // A long-poll's position moves when its reply is made, as the one that counts is its client's.
    assert_eq!((left, written), if C::STREAMS { (FLOOD_EVENTS, 0) } else { (FLOOD_EVENTS - 1, 1) });
    let ended = script.look(|state| state.ended.clone());
    assert_eq!(ended, if C::STREAMS { vec![CloseReason::WriteStalled] } else { vec![] });
}

/// A revocation stops a write that is under way: the socket ends within a second, and what was not sent never is.
pub async fn a_cut_stops_a_stalled_write<C: Client>() {
    let (script, server) = stage::<C>(flood(), Timing::default()).await;
    let mut raw = C::connect_and_ignore(server.addr).await;
    script.until("there is a session", |state| state.admitted == 1).await;
    raw.until_written_to().await;
    let before = Instant::now();
    script.change(|state| state.cut = Some(CloseReason::TokenRevoked));
    // Read at once: what is cut may not go on just because the peer now could take it.
    let read = timeout(PATIENCE, raw.drain()).await.expect("the socket ends");
    script.until("the session is dropped", |state| state.alive == 0).await;
    assert_eq!(script.look(|state| state.ended.clone()), [CloseReason::TokenRevoked]);
    assert!(before.elapsed() < Duration::from_secs(1), "took {:?}", before.elapsed());
    assert!(read < FLOOD_BYTES, "all of the event arrived");
}
