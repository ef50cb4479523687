//! A gateway that stops reading delays no sibling, holds nothing, and is gone 10 s later.

use std::time::Duration;

use gatecast_transports::CloseReason;
use tokio::time::{Instant, timeout};

use crate::world::{Via, World};

#[tokio::test(start_paused = true)]
async fn a_stopped_reader_delays_no_sibling_and_is_dropped_after_10_s() {
    let world = World::new().await;
    let member = world.gateway().await;
    for via in [Via::WebSocket, Via::Sse] {
        let mut stopped = world.connect(via, &member, None).await.unwrap();
        let mut sibling = world.connect(via, &member, None).await.unwrap();
        stopped.message().await.unwrap();
        sibling.message().await.unwrap();
        stopped.peer.read(false);
        let start = Instant::now();
        for n in 0..100 {
            world.publish(member.id, n).await;
            let arrived = timeout(Duration::from_millis(1), sibling.numbers(1)).await;
            assert_eq!(arrived.expect("at once"), [n]);
        }
        assert_eq!(stopped.message().await, Err(CloseReason::WriteStalled));
        assert!(start.elapsed() <= Duration::from_secs(10) + Duration::from_millis(1), "{:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn who_was_dropped_for_not_reading_misses_nothing_when_it_comes_back() {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut client = world.connect(Via::WebSocket, &member, None).await.unwrap();
    client.message().await.unwrap();
    client.peer.read(false);
    for n in 0..500 {
        world.publish(member.id, n).await;
    }
    assert_eq!(client.message().await, Err(CloseReason::WriteStalled));
    let cursor = client.cursor.clone();
    let mut back = world.connect(Via::Sse, &member, cursor.as_deref()).await.unwrap();
    assert_eq!(back.numbers(500).await, (0..500).collect::<Vec<_>>());
}
