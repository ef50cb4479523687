//! The double keeps the order of things that the real transports keep, in paused time.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

use std::time::Duration;

use gatecast_transports::contract::script::{Act, Script, ack, frame};
use gatecast_transports::scripted::{Peer, Seen};
use gatecast_transports::{CloseReason, Liveness, Scripted, Timing};
use tokio::time::Instant;

async fn connected(acts: impl IntoIterator<Item = Act>) -> (Script, Peer) {
    let script = Script::new([ack()].into_iter().chain(acts));
    let transport = Scripted::new("scripted", Liveness::PingPong, Timing::default());
    let mut peer = transport.connect(&script, transport.handshake()).await.unwrap();
    assert!(matches!(peer.next().await, Some(Seen::Frame(ack)) if ack.name() == "connection.ack"));
    (script, peer)
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_breaks_off_is_told_from_one_that_hangs_up() {
    let (_, mut peer) = connected([]).await;
    peer.break_off();
    assert_eq!(peer.next().await, Some(Seen::End(CloseReason::SocketBroken)));
}

#[tokio::test(start_paused = true)]
async fn a_peer_sees_steps_and_is_heard() {
    let event = frame("e-1", "test", "{}");
    let (script, mut peer) = connected([Act::Deliver(vec![event.clone()]), Act::Ping("e-1".into())]).await;
    assert_eq!(peer.next().await, Some(Seen::Frame(event)));
    assert_eq!(peer.next().await, Some(Seen::Ping("e-1".into())));
    peer.say_pong("e-1");
    peer.say_text("{}");
    peer.say_life();
    script.until("all is heard", |state| state.heard == ["pong e-1", "text {}", "life"]).await;
    peer.hang_up();
    assert_eq!(peer.next().await, Some(Seen::End(CloseReason::PeerClosed)));
    assert_eq!(peer.next().await, None);
    assert_eq!(script.look(|state| (state.alive, state.ended.len())), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_ends_after_exactly_ten_seconds() {
    let (script, mut peer) = connected([]).await;
    peer.read(false);
    let before = Instant::now();
    script.play([Act::Deliver(vec![frame("e-1", "test", "{}")])]);
    assert_eq!(peer.next().await, Some(Seen::End(CloseReason::WriteStalled)));
    assert_eq!(before.elapsed(), Duration::from_secs(10));
    assert_eq!(script.look(|state| (state.written, state.acts.len())), (1, 1), "the step is still to be given");
}

#[tokio::test(start_paused = true)]
async fn a_cut_ends_a_stalled_write_at_once() {
    let (script, mut peer) = connected([]).await;
    peer.read(false);
    script.play([Act::Deliver(vec![frame("e-1", "test", "{}")])]);
    tokio::task::yield_now().await;
    let before = Instant::now();
    script.change(|state| state.cut = Some(CloseReason::TokenRevoked));
    assert_eq!(peer.next().await, Some(Seen::End(CloseReason::TokenRevoked)));
    assert_eq!(before.elapsed(), Duration::ZERO);
}
