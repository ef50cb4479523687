//! Each limit refuses with its own status and code, in the contract's order, and gives its place back.

use gatecast_transports::{CloseReason, Handshake, Refusal, Scripted, Secret};

use crate::world::{ALL, Settings, Via, World, handshake};

fn told(refusal: &Refusal) -> (u16, String) {
    let problem: serde_json::Value = serde_json::from_slice(refusal.0.body()).unwrap();
    (refusal.0.status().as_u16(), problem["code"].as_str().unwrap().to_owned())
}

async fn refused(world: &World, transport: &Scripted, handshake: Handshake) -> (u16, String) {
    told(&transport.connect(world.hub.gate.as_ref(), handshake).await.expect_err("refused"))
}

#[tokio::test(start_paused = true)]
async fn keys_that_are_missing_or_wrong_get_one_and_the_same_answer() {
    let world = World::new().await;
    let member = world.gateway().await;
    world.revoke(&member).await;
    for via in ALL {
        let transport = via.transport();
        let mut answers = Vec::new();
        for key in [None, Some("wrong".to_owned()), Some("A".repeat(43)), Some(member.key.clone())] {
            let handshake = Handshake { credential: key.map(Secret::new), ..transport.handshake() };
            let refusal = transport.connect(world.hub.gate.as_ref(), handshake).await.expect_err("refused");
            assert!(!refusal.0.headers()["www-authenticate"].is_empty());
            assert_eq!(told(&refusal), (401, "UNAUTHORIZED".to_owned()));
            answers.push(refusal.0.body().clone());
        }
        answers.dedup();
        assert_eq!(answers.len(), 1);
    }
    assert!(world.hub.registry.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_eleventh_attempt_in_a_minute_is_429_with_retry_after_and_polls_are_no_attempts() {
    let world = World::with(Settings { attempts_per_minute: 10, ..Settings::default() }).await;
    let member = world.gateway().await;
    for _ in 0..10 {
        world.connect(Via::LongPoll, &member, None).await.unwrap();
    }
    assert_eq!(world.hub.registry.len(), 1, "they are polls of one connection");
    for _ in 0..9 {
        world.connect(Via::Sse, &member, None).await.unwrap();
    }
    let refusal = world.connect(Via::WebSocket, &member, None).await.expect_err("refused");
    assert_eq!(told(&refusal), (429, "RATE_LIMITED".to_owned()));
    let after: u64 = refusal.0.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    tokio::time::advance(std::time::Duration::from_secs(after)).await;
    world.connect(Via::WebSocket, &member, None).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_more_connections_than_there_may_be_and_places_come_back() {
    let world = World::with(Settings { connections: 3, ..Settings::default() }).await;
    let member = world.gateway().await;
    let mut clients = Vec::new();
    for via in ALL {
        let mut client = world.connect(via, &member, None).await.unwrap();
        client.message().await.unwrap();
        clients.push(client);
    }
    let refusal = world.connect(Via::WebSocket, &member, None).await.expect_err("refused");
    assert_eq!(told(&refusal), (503, "CAPACITY_EXCEEDED".to_owned()));
    assert!(refusal.0.headers().contains_key("retry-after"));
    clients[0].peer.hang_up();
    assert_eq!(clients[0].message().await, Err(CloseReason::PeerClosed));
    world.connect(Via::WebSocket, &member, None).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_more_polls_of_a_connection_overlap_than_there_may_be_and_places_come_back() {
    let world = World::new().await;
    let (member, other) = (world.gateway().await, world.gateway().await);
    let mut polls = Vec::new();
    let refusal = loop {
        match world.connect(Via::LongPoll, &member, Some("latest")).await {
            Ok(poll) if polls.len() < 100 => polls.push(poll),
            polled => break polled.expect_err("refused"),
        }
    };
    assert_eq!((polls.len(), world.hub.registry.len()), (64, 1));
    assert_eq!(told(&refusal), (503, "CAPACITY_EXCEEDED".to_owned()));
    assert!(refusal.0.headers().contains_key("retry-after"));
    world.connect(Via::LongPoll, &other, Some("latest")).await.unwrap();
    polls[0].peer.hang_up();
    while polls[0].message().await.is_ok() {}
    world.connect(Via::LongPoll, &member, Some("latest")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_malformed_cursor_is_400_and_a_malformed_key_comes_first() {
    let world = World::new().await;
    let member = world.gateway().await;
    for via in ALL {
        let transport = via.transport();
        for cursor in ["nonsense", "6f3a9c21", "6f3a9c21-01", "-1", "6F3A9C21-1"] {
            let bad = handshake(&transport, &member, Some(cursor));
            assert_eq!(refused(&world, &transport, bad).await, (400, "INVALID_CURSOR".to_owned()));
        }
        let both = Handshake { cursor: Some("nonsense".into()), ..transport.handshake() };
        assert_eq!(refused(&world, &transport, both).await.0, 401);
    }
    assert!(world.hub.registry.is_empty());
}
