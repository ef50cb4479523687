//! A client that handles events inside its read loop survives any backlog.

use std::time::Duration;

use gatecast_transports::scripted::Seen;
use tokio::time::{Instant, sleep};

use crate::world::{Via, World, number};

/// Reads like the real gateway client: one message after the other, each event taking its time, a pong only when its
/// ping's turn has come; gives up 35 s after the last ping.
async fn handles_all(backlog: u64, per_event: Duration, live: bool) {
    let world = World::new().await;
    let member = world.gateway().await;
    if !live {
        for n in 0..backlog {
            world.publish(member.id, n).await;
        }
    }
    let cursor = if live { None } else { Some("earliest") };
    let mut client = world.connect(Via::WebSocket, &member, cursor).await.unwrap();
    client.message().await.unwrap();
    if live {
        for n in 0..backlog {
            world.publish(member.id, n).await;
        }
    }
    let (mut handled, mut last_ping) = (0, Instant::now());
    while handled < backlog {
        match client.peer.next().await.unwrap() {
            Seen::Ping(payload) => {
                last_ping = Instant::now();
                client.peer.say_pong(payload);
            }
            Seen::Frame(frame) => {
                assert_eq!(number(&frame), Some(handled));
                sleep(per_event).await;
                handled += 1;
            }
            Seen::End(reason) => panic!("ended by {reason:?} after {handled} events"),
        }
        assert!(last_ping.elapsed() < Duration::from_secs(35), "the client leaves after {handled} events");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_taking_500_ms_an_event_survives_a_backlog_of_1_000() {
    handles_all(1_000, Duration::from_millis(500), false).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_taking_500_ms_an_event_survives_a_burst_of_1_000() {
    handles_all(1_000, Duration::from_millis(500), true).await;
}

#[tokio::test(start_paused = true)]
async fn at_most_256_events_are_in_flight_before_the_first_pong() {
    let world = World::new().await;
    let member = world.gateway().await;
    for n in 0..2_000 {
        world.publish(member.id, n).await;
    }
    let mut client = world.connect(Via::WebSocket, &member, Some("earliest")).await.unwrap();
    client.pongs = false;
    sleep(Duration::from_secs(5)).await;
    let seen = client.peer.seen_so_far();
    let events = seen.iter().filter(|seen| matches!(seen, Seen::Frame(frame) if number(frame).is_some())).count();
    assert!((1..=256).contains(&events), "{events}");
    assert!(matches!(seen.back(), Some(Seen::Ping(_))), "a ping follows the window");
}
