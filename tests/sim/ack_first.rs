//! The ack is the first message of every connection, whatever is published meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt;
use gatecast_transports::{CloseReason, Handshake, Room, Session, Step};

use crate::world::{ALL, Client, Via, World, handshake, json};

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

const ROOM: Room = Room { frames: 256, bytes: 1 << 20 };

/// A session that is given everything, of a gateway with three events.
async fn behind_by_three(world: &World) -> Box<dyn Session> {
    let member = world.gateway().await;
    for n in 0..3 {
        world.publish(member.id, n).await;
    }
    let handshake = handshake(&Via::WebSocket.transport(), &member, Some("earliest"));
    world.hub.gate.admit(handshake).await.unwrap_or_else(|_| unreachable!())
}

/// The types of what is to be written now, if anything is.
fn step(session: &mut dyn Session, room: Room) -> Option<Vec<String>> {
    match session.next(room).now_or_never()? {
        Step::Deliver(frames) => Some(frames.iter().map(|frame| frame.name().to_owned()).collect()),
        _ => None,
    }
}

#[tokio::test]
async fn what_is_at_hand_goes_with_the_ack() {
    let world = World::new().await;
    let mut session = behind_by_three(&world).await;
    let first = step(session.as_mut(), ROOM).unwrap();
    assert_eq!((first.len(), first[0].as_str()), (4, "connection.ack"));
    assert_eq!(step(session.as_mut(), ROOM).unwrap(), first, "it was not written, so it is given again");
    session.written();
    assert!(session.position().ends_with("-3") && !session.ready());
    assert_eq!(step(session.as_mut(), ROOM), None);
}

#[tokio::test]
async fn the_ack_takes_of_the_room() {
    let world = World::new().await;
    let mut session = behind_by_three(&world).await;
    for (room, steps) in [(1, 1), (2, 2)] {
        let given = step(session.as_mut(), Room { frames: room, ..ROOM }).unwrap();
        assert_eq!((given.len(), given[0].as_str()), (steps, "connection.ack"));
    }
    session.written();
    assert!(session.position().ends_with("-1"));
    assert_eq!(step(session.as_mut(), ROOM).unwrap().len(), 2);
}

#[tokio::test]
async fn the_ack_waits_for_no_disk() {
    let world = World::new().await;
    let held = world.reads.forget_permits(usize::MAX);
    let mut session = behind_by_three(&world).await;
    assert_eq!(step(session.as_mut(), ROOM).unwrap(), ["connection.ack"]);
    session.written();
    assert_eq!(step(session.as_mut(), ROOM), None);
    world.reads.add_permits(held);
    assert_eq!(step(session.as_mut(), ROOM).unwrap().len(), 3);
}

#[tokio::test]
async fn the_ack_comes_before_a_goodbye_and_not_before_a_silence() {
    for is_drain in [true, false] {
        let world = World::new().await;
        let member = world.gateway().await;
        let asked = handshake(&Via::WebSocket.transport(), &member, None);
        let mut session = world.hub.gate.admit(asked).await.unwrap_or_else(|_| unreachable!());
        if is_drain {
            world.hub.drain();
            assert_eq!(step(session.as_mut(), ROOM).unwrap(), ["connection.ack"]);
            session.written();
        } else {
            world.revoke(&member).await;
        }
        let Some(Step::Close(reason)) = session.next(ROOM).now_or_never() else { panic!("it goes on") };
        assert_eq!(matches!(reason, CloseReason::Shutdown { .. }), is_drain, "{reason:?}");
    }
}
