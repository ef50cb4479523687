//! Revoked means silent: no byte of an event afterwards, whatever races with it.

use std::sync::Arc;
use std::time::Duration;

use gatecast_transports::scripted::Seen;
use gatecast_transports::{CloseReason, Room};
use tokio::time::timeout;

use crate::world::{ALL, Via, World, handshake, number};

#[tokio::test(start_paused = true)]
async fn a_revoked_token_gets_no_event_that_comes_after() {
    for via in ALL {
        let world = World::new().await;
        let member = world.gateway().await;
        let mut client = world.connect(via, &member, None).await.unwrap();
        client.message().await.unwrap();
        world.publish(member.id, 0).await;
        assert_eq!(client.numbers(1).await, [0]);
        world.revoke(&member).await;
        world.publish(member.id, 1).await;
        let end = timeout(Duration::from_secs(1), client.message()).await.expect("within a second");
        assert_eq!(end, Err(CloseReason::TokenRevoked), "{via:?}");
        assert!(world.hub.registry.is_empty());
        assert!(world.connect(via, &member, None).await.is_err_and(|refusal| refusal.0.status() == 401));
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_under_way_is_cut() {
    let world = World::new().await;
    let member = world.gateway().await;
    for via in [Via::WebSocket, Via::Sse] {
        let member = world.token(member.id).await;
        let mut client = world.connect(via, &member, None).await.unwrap();
        client.message().await.unwrap();
        client.peer.read(false);
        world.publish(member.id, 0).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        world.revoke(&member).await;
        client.peer.read(true);
        assert_eq!(client.message().await, Err(CloseReason::TokenRevoked), "the event was not taken before");
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_long_poll_connection_ends_with_its_token() {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut poll = world.hub.gate.admit(handshake(&Via::LongPoll.transport(), &member, None)).await.unwrap();
    poll.next(Room { frames: 1, bytes: 1 }).await;
    poll.written();
    drop(poll);
    assert_eq!(world.hub.registry.len(), 1);
    world.revoke(&member).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(world.hub.registry.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_connection_that_is_revoked_under_its_last_answer_ends_with_that() {
    let world = World::new().await;
    let member = world.gateway().await;
    for polls in 1..3 {
        let mut poll = None;
        for _ in 0..polls {
            drop(poll.take());
            poll = world.hub.gate.admit(handshake(&Via::LongPoll.transport(), &member, Some("latest"))).await.ok();
        }
        world.hub.registry.close_token(member.token);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(world.hub.registry.len(), 1);
        drop(poll);
        assert!(world.hub.registry.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_runs_out_ends_its_connections_then() {
    let world = World::new().await;
    let member = world.gateway().await;
    let plain = gatecast::auth::PlainToken::random().unwrap();
    let now = gatecast_storage::Clock::now(&*world.clock);
    let token = gatecast_storage::Token {
        id: gatecast_storage::TokenId(uuid::Uuid::new_v4()),
        gateway: member.id,
        hash: plain.hash(),
        created_at: now,
        expires_at: Some(now + Duration::from_secs(100)),
        revoked_at: None,
    };
    world.hub.directory.create_token(token.clone(), 2, now).await.unwrap();
    let member = crate::world::Member { id: member.id, token: token.id, key: plain.expose().to_owned() };
    let start = tokio::time::Instant::now();
    let mut client = world.connect(Via::Sse, &member, None).await.unwrap();
    client.message().await.unwrap();
    assert_eq!(client.message().await, Err(CloseReason::TokenExpired));
    assert_eq!(start.elapsed(), Duration::from_secs(100));
}

#[tokio::test(start_paused = true)]
async fn a_revoke_between_the_check_of_the_key_and_the_registration_wins() {
    for via in ALL {
        let world = Arc::new(World::new().await);
        let member = world.gateway().await;
        // Admission has checked the key and now waits for the log.
        let looks = world.looks.clone().acquire_many_owned(u32::MAX).await.unwrap();
        world.looks.forget_permits(usize::MAX);
        let (connecting, peer) = (world.clone(), member.clone());
        let connect = tokio::spawn(async move { connecting.peer(via, &peer, None).await });
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!connect.is_finished());
        world.revoke(&member).await;
        drop(looks);
        let refusal = connect.await.unwrap().expect_err("refused");
        assert_eq!(refusal.0.status(), 401, "{via:?}");
        assert!(world.hub.registry.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_register_and_revoke_never_leave_a_live_connection() {
    let world = Arc::new(World::new().await);
    let gateway = world.gateway().await.id;
    for round in 0..500 {
        let member = world.token(gateway).await;
        let (connecting, peer) = (world.clone(), member.clone());
        let via = ALL[round % 3];
        let connect = tokio::spawn(async move { connecting.peer(via, &peer, None).await });
        if round % 2 == 0 {
            tokio::task::yield_now().await;
        }
        world.revoke(&member).await;
        world.publish(gateway, round as u64).await;
        if let Ok(mut peer) = connect.await.unwrap() {
            let end = async {
                loop {
                    match peer.next().await {
                        Some(Seen::End(reason)) => break reason,
                        Some(Seen::Frame(frame)) => assert_ne!(number(&frame), Some(round as u64), "an event after"),
                        Some(Seen::Ping(_)) => {}
                        None => panic!("no end"),
                    }
                }
            };
            let reason = timeout(Duration::from_secs(5), end).await.expect("the connection ends");
            assert_eq!(reason, CloseReason::TokenRevoked, "round {round}");
        }
    }
    assert!(world.hub.registry.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_drain_tells_everyone_a_slot_of_its_own() {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut clients = Vec::new();
    for index in 0..30 {
        let mut client = world.connect(ALL[index % 2], &member, None).await.unwrap();
        client.message().await.unwrap();
        clients.push(client);
    }
    world.hub.drain();
    let mut slots = Vec::new();
    for client in &mut clients {
        let Err(CloseReason::Shutdown { reconnect_after_ms }) = client.message().await else { panic!("no goodbye") };
        slots.push(reconnect_after_ms);
    }
    slots.sort_unstable();
    slots.dedup();
    assert_eq!(slots.len(), 30, "no two come back together");
    let refused = world.connect(Via::WebSocket, &member, None).await.err().unwrap();
    assert_eq!(refused.0.status(), 503);
    assert!(refused.0.headers().contains_key("retry-after"));
}
