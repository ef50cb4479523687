//! The ack is the first message of every connection, whatever is published meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gatecast_transports::Handshake;

use crate::world::{ALL, Client, World, handshake, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ack_is_first_in_10_000_connects_under_concurrent_publishing() {
    let world = Arc::new(World::new().await);
    let member = world.gateway().await;
    let stop = Arc::new(AtomicBool::new(false));
    let publishers: Vec<_> = (0..2)
        .map(|_| {
            let (world, stop, id) = (world.clone(), stop.clone(), member.id);
            tokio::spawn(async move {
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    n += 1;
                    world.publish(id, n).await;
                    tokio::task::yield_now().await;
                }
                n
            })
        })
        .collect();
    for round in 0..10_000 {
        let cursor = if round % 2 == 0 { None } else { Some("earliest") };
        let transport = ALL[round % 3].transport();
        // A replica of its own each time: a poll of a connection that is open already has no ack.
        let handshake = Handshake { instance: Some(round.to_string()), ..handshake(&transport, &member, cursor) };
        let peer = transport.connect(world.hub.gate.as_ref(), handshake).await.unwrap();
        let mut client = Client { peer, pongs: true, cursor: None };
        let ack = json(&client.message().await.unwrap());
        assert_eq!(ack["type"], "connection.ack", "round {round}");
        assert_eq!(ack["gatewayId"], member.id.to_string());
        if round % 100 == 0 {
            // Right after the ack's position comes the next event, with nothing between.
            let position: gatecast_storage::Cursor = ack["position"].as_str().unwrap().parse().unwrap();
            let event = json(&client.message().await.unwrap());
            assert_eq!(event["eventId"], format!("{}-{}", position.epoch, position.seq.0 + 1));
        }
    }
    stop.store(true, Ordering::Relaxed);
    for publisher in publishers {
        assert!(publisher.await.unwrap() > 0);
    }
}
