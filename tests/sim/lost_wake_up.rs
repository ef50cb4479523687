//! A wake-up that is lost costs latency, never an event.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::world::{ALL, World};

#[tokio::test(start_paused = true)]
async fn what_nobody_was_told_of_arrives_within_40_s_in_order() {
    let world = World::new().await;
    let member = world.gateway().await;
    for via in ALL {
        let mut client = world.connect(via, &member, Some("latest")).await.unwrap();
        client.message().await.unwrap();
        world.publish(member.id, 0).await;
        world.deaf.store(true, Ordering::Relaxed);
        for n in 1..=300 {
            world.publish(member.id, n).await;
        }
        let start = Instant::now();
        let arrived = timeout(Duration::from_secs(41), client.numbers(301)).await.expect("within a round of checks");
        assert_eq!(arrived, (0..=300).collect::<Vec<_>>());
        assert!(start.elapsed() > Duration::ZERO, "nobody was told at once");
        world.deaf.store(false, Ordering::Relaxed);
        world.publish(member.id, 301).await;
        assert_eq!(client.numbers(1).await, [301]);
        client.peer.hang_up();
    }
}

/// Two events in quick succession: the second is appended anywhere between the delivery of the first and the wait
/// for the next. In real time, so that a wake-up that falls between a look and a wait is not made good by the check.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wake_up_falls_between_a_look_and_a_wait() {
    let world = Arc::new(World::new().await);
    let member = world.gateway().await;
    let mut client = world.connect(ALL[1], &member, None).await.unwrap();
    client.message().await.unwrap();
    for round in 0..10_000_u64 {
        let (publishing, id) = (world.clone(), member.id);
        let publisher = tokio::spawn(async move {
            publishing.publish(id, 2 * round).await;
            for _ in 0..(round * 7) % 1_000 {
                std::hint::spin_loop();
            }
            publishing.publish(id, 2 * round + 1).await;
        });
        let arrived = timeout(Duration::from_secs(10), client.numbers(2)).await.expect("at once");
        assert_eq!(arrived, [2 * round, 2 * round + 1]);
        publisher.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_not_told_is_not_skipped_when_the_next_is() {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut client = world.connect(ALL[0], &member, None).await.unwrap();
    client.message().await.unwrap();
    world.deaf.store(true, Ordering::Relaxed);
    world.publish(member.id, 0).await;
    world.deaf.store(false, Ordering::Relaxed);
    world.publish(member.id, 1).await;
    assert_eq!(client.numbers(2).await, [0, 1]);
}
