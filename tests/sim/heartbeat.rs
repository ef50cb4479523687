//! A peer that shows no life is gone 30.0 s after its last sign, on every transport; one that does stays.

use std::time::Duration;

use gatecast_transports::CloseReason;
use gatecast_transports::scripted::Seen;
use tokio::time::{Instant, timeout};

use crate::world::{ALL, Via, World, handshake};

const LIMIT: Duration = Duration::from_secs(30);

async fn is_gone(world: &World) {
    while !world.hub.registry.is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_websocket_is_closed_30_s_after_its_last_sign_exactly() {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut client = world.connect(Via::WebSocket, &member, None).await.unwrap();
    client.pongs = false;
    client.message().await.unwrap();
    tokio::time::sleep(Duration::from_secs(7)).await;
    client.peer.say_life();
    tokio::task::yield_now().await;
    let last = Instant::now();
    assert_eq!(client.message().await, Err(CloseReason::NoLife));
    assert_eq!(last.elapsed(), LIMIT);
    is_gone(&world).await;
}

#[tokio::test(start_paused = true)]
async fn a_stuck_sse_peer_is_gone_within_30_s() {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut client = world.connect(Via::Sse, &member, None).await.unwrap();
    client.message().await.unwrap();
    client.peer.read(false);
    let last = Instant::now();
    // The comment at 15 s is not taken for 10 s.
    assert_eq!(client.message().await, Err(CloseReason::WriteStalled));
    assert!(last.elapsed() <= LIMIT, "{:?}", last.elapsed());
    is_gone(&world).await;
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_connection_ends_30_s_after_its_last_poll_exactly() {
    let world = World::new().await;
    let member = world.gateway().await;
    let transport = Via::LongPoll.transport();
    let mut poll = world.hub.gate.admit(handshake(&transport, &member, None)).await.unwrap();
    poll.next(gatecast_transports::Room { frames: 1, bytes: 1 }).await;
    poll.written();
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(world.hub.registry.len(), 1, "a poll under way keeps its connection");
    drop(poll);
    let ended = Instant::now();
    tokio::time::sleep(LIMIT - Duration::from_millis(1)).await;
    assert_eq!(world.hub.registry.len(), 1);
    is_gone(&world).await;
    assert!(ended.elapsed() <= LIMIT + Duration::from_millis(1), "{:?}", ended.elapsed());
}

#[tokio::test(start_paused = true)]
async fn each_long_poll_connection_ends_30_s_after_its_own_last_poll_whatever_polls_came_before() {
    let world = World::new().await;
    let transport = Via::LongPoll.transport();
    let (often, once) = (world.gateway().await, world.gateway().await);
    let poll = async |member| drop(world.hub.gate.admit(handshake(&transport, member, Some("latest"))).await.unwrap());
    poll(&once).await;
    for _ in 0..7 {
        poll(&often).await;
        tokio::time::sleep(Duration::from_secs(7)).await;
    }
    assert_eq!(world.hub.registry.connections_of(once.id), 0, "42 s without a poll");
    poll(&often).await;
    tokio::time::sleep(LIMIT - Duration::from_millis(1)).await;
    assert_eq!(world.hub.registry.connections_of(often.id), 1);
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert!(world.hub.registry.is_empty());
}

/// The poll lies unread while the server stands still.
#[tokio::test(start_paused = true)]
async fn a_poll_that_came_while_the_server_stood_still_finds_its_connection() {
    let world = World::new().await;
    let (member, other) = (world.gateway().await, world.gateway().await);
    let transport = Via::LongPoll.transport();
    let poll = world.hub.gate.admit(handshake(&transport, &member, None)).await.unwrap();
    let connection = poll.connection_id();
    drop(poll);
    tokio::time::sleep(Duration::from_secs(20)).await;
    tokio::time::advance(LIMIT).await;
    let yields = async || {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    };
    yields().await;
    // Whatever else there is to do for its leases: others come, and go.
    drop(world.hub.gate.admit(handshake(&transport, &other, None)).await.unwrap());
    yields().await;
    world.revoke(&other).await;
    yields().await;
    assert_eq!(world.hub.registry.len(), 1);
    let again = world.hub.gate.admit(handshake(&transport, &member, None)).await.unwrap();
    assert_eq!(again.connection_id(), connection);
    drop(again);
    tokio::time::advance(LIMIT * 2).await;
    is_gone(&world).await;
}

/// The process was stopped, or its machine asleep: nothing that was due in between was done in time.
#[tokio::test(start_paused = true)]
async fn who_was_not_pinged_while_the_server_stood_still_is_pinged_first_and_stays_if_it_answers() {
    let world = World::new().await;
    let member = world.gateway().await;
    let [mut answers, mut silent] =
        [world.connect(Via::WebSocket, &member, None).await, world.connect(Via::WebSocket, &member, None).await]
            .map(Result::unwrap);
    for client in [&mut answers, &mut silent] {
        client.message().await.unwrap();
    }
    silent.pongs = false;
    tokio::time::advance(Duration::from_secs(45)).await;
    let back = Instant::now();
    let ended = async {
        assert_eq!(silent.message().await, Err(CloseReason::NoLife));
        back.elapsed()
    };
    let (ended, stays) = tokio::join!(ended, timeout(LIMIT * 4, answers.message()));
    assert_eq!(ended, Duration::from_secs(10), "as long as after a ping in time");
    assert!(stays.is_err(), "its pings are answered: {stays:?}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_peer_that_answers_stays_for_an_hour_and_is_pinged_every_20_s() {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut client = world.connect(Via::WebSocket, &member, None).await.unwrap();
    let start = Instant::now();
    let mut pings = Vec::new();
    while start.elapsed() < Duration::from_secs(3_600) {
        match client.peer.next().await {
            Some(Seen::Ping(payload)) => {
                pings.push(start.elapsed());
                client.peer.say_pong(payload);
            }
            Some(Seen::Frame(_)) => {}
            other => panic!("{other:?} after {:?}", start.elapsed()),
        }
    }
    let gaps: Vec<_> = pings.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap == Duration::from_secs(20)), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn pings_go_out_every_20_s_however_busy_the_stream_is() {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut client = world.connect(Via::WebSocket, &member, None).await.unwrap();
    let (hub, id) = (world, member.id);
    let publisher = tokio::spawn(async move {
        for n in 0..1_000 {
            hub.publish(id, n).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let mut last = Instant::now();
    while !publisher.is_finished() {
        if let Some(Seen::Ping(payload)) = client.peer.next().await {
            assert!(last.elapsed() <= Duration::from_secs(20));
            last = Instant::now();
            client.peer.say_pong(payload);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pings_go_out_while_the_log_takes_its_time_and_the_events_come_after() {
    let world = World::new().await;
    let member = world.gateway().await;
    for n in 0..10 {
        world.publish(member.id, n).await;
    }
    let slow = world.reads.clone().acquire_many_owned(u32::MAX).await.unwrap();
    world.reads.forget_permits(usize::MAX);
    let mut client = world.connect(Via::WebSocket, &member, Some("earliest")).await.unwrap();
    client.message().await.unwrap();
    let start = Instant::now();
    for round in 1..=10 {
        let ping = timeout(Duration::from_secs(21), client.peer.next()).await.expect("in time");
        let Some(Seen::Ping(payload)) = ping else { panic!("{ping:?}") };
        assert_eq!(start.elapsed(), round * Duration::from_secs(20));
        client.peer.say_pong(payload);
    }
    drop(slow);
    assert_eq!(client.numbers(10).await, (0..10).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn who_hangs_up_is_gone_at_once() {
    let world = World::new().await;
    let member = world.gateway().await;
    for via in ALL.into_iter().filter(|via| *via != Via::LongPoll) {
        let mut client = world.connect(via, &member, None).await.unwrap();
        client.message().await.unwrap();
        client.peer.hang_up();
        assert_eq!(client.message().await, Err(CloseReason::PeerClosed));
        assert!(world.hub.registry.is_empty());
    }
}
