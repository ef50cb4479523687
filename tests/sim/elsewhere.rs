//! A connection is polled from wherever its gateway may come; what its gateway bars is where a poll came from, and that alone.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gatecast_transports::{CloseReason, Handshake, LongPoll, Refusal, Room, Session, Sever, Step, Timing};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::world::{Member, Via, World, handshake};

const HERE: &str = "192.0.2.7";
const THERE: &str = "198.51.100.7";
const ROOM: Room = Room { frames: 9, bytes: 9_999 };

/// A poll from an address, of the connection that it names.
async fn poll(
    world: &World,
    member: &Member,
    from: &str,
    (connection, cursor): (Option<&str>, Option<&str>),
) -> Result<Box<dyn Session>, Refusal> {
    let transport = Via::LongPoll.transport();
    let mut handshake: Handshake = handshake(&transport, member, cursor);
    handshake.peer.set_ip(from.parse::<IpAddr>().unwrap());
    handshake.connection = connection.map(str::to_owned);
    world.hub.gate.admit(handshake).await
}

/// Answers a poll with what there is, over a socket.
async fn answer(mut poll: Box<dyn Session>, over: &Sever) -> String {
    let Step::Deliver(_) = poll.next(ROOM).await else { panic!("nothing is given") };
    poll.written();
    poll.answered(over);
    poll.position()
}

#[tokio::test(start_paused = true)]
async fn what_was_answered_to_an_address_is_thrown_away_when_that_is_barred_wherever_its_connection_is() {
    let world = World::new().await;
    let member = world.gateway().await;
    let [here, there] = [(); 2].map(|()| Sever::new());
    let opens = poll(&world, &member, HERE, (None, None)).await.unwrap();
    let id = opens.connection_id();
    let cursor = answer(opens, &here).await;
    world.publish(member.id, 0).await;
    let goes_on = poll(&world, &member, THERE, (Some(&id), Some(&cursor))).await.unwrap();
    assert_eq!(goes_on.connection_id(), id);
    let cursor = answer(goes_on, &there).await;
    world.allow(&member, &[THERE]).await;
    assert!(here.take_silenced() && !there.take_silenced());
    assert!(poll(&world, &member, HERE, (Some(&id), Some(&cursor))).await.is_err());
    let still = poll(&world, &member, THERE, (Some(&id), Some(&cursor))).await.unwrap();
    assert_eq!(still.connection_id(), id);
    drop(still);
    world.allow(&member, &[HERE]).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(there.take_silenced() && world.hub.registry.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_was_answered_to_any_address_is_thrown_away_with_the_token() {
    let world = World::new().await;
    let member = world.gateway().await;
    let sockets = [(); 2].map(|()| Sever::new());
    let opens = poll(&world, &member, HERE, (None, None)).await.unwrap();
    let id = opens.connection_id();
    let cursor = answer(opens, &sockets[0]).await;
    world.publish(member.id, 0).await;
    answer(poll(&world, &member, THERE, (Some(&id), Some(&cursor))).await.unwrap(), &sockets[1]).await;
    world.revoke(&member).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(sockets.iter().all(Sever::take_silenced));
}

#[tokio::test(start_paused = true)]
async fn polls_that_are_under_way_end_when_their_connection_is_polled_from_elsewhere() {
    let world = World::new().await;
    let member = world.gateway().await;
    let opens = poll(&world, &member, HERE, (None, None)).await.unwrap();
    let id = opens.connection_id();
    let cursor = answer(opens, &Sever::new()).await;
    // One that names none overlaps others, as long as they come from where it does.
    let mut waits = poll(&world, &member, HERE, (None, Some(&cursor))).await.unwrap();
    let named = poll(&world, &member, HERE, (Some(&id), Some(&cursor))).await.unwrap();
    assert!(timeout(Duration::from_secs(1), waits.next(ROOM)).await.is_err());
    drop(named);
    let mut moved = poll(&world, &member, THERE, (Some(&id), Some(&cursor))).await.unwrap();
    world.publish(member.id, 0).await;
    assert!(matches!(waits.next(ROOM).await, Step::Close(CloseReason::Superseded)));
    assert_eq!(timeout(Duration::ZERO, waits.cut()).await, Ok(CloseReason::Superseded), "also what is being written");
    let late = Sever::new();
    waits.answered(&late);
    assert!(late.take_silenced(), "it is written already");
    waits.ended(CloseReason::Superseded);
    assert!(matches!(moved.next(ROOM).await, Step::Deliver(_)));
    let anew = poll(&world, &member, HERE, (None, Some(&cursor))).await.unwrap();
    assert_ne!(anew.connection_id(), id, "who names none has that of its address");
}

/// It asks again as it did before, which is known to be good.
#[tokio::test(start_paused = true)]
async fn a_socket_whose_connection_is_elsewhere_goes_on_with_another() {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut line = world.socket(LongPoll::new(Timing::default(), TaskTracker::new()), 64 * 1024);
    let mut cursor = "latest".to_owned();
    let mut asks = async || {
        let request = format!(
            "GET /api/internal/v1/poll/gateways/connect?timeout=0 HTTP/1.1\r\nHost: x\r\nApi-Key: {}\r\n\
             Last-Event-ID: {cursor}\r\n\r\n",
            member.key
        );
        line.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 64 * 1024];
        let len = line.read(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer[..len].to_vec()).unwrap();
        if let Some(after) = answer.split("last-event-id: ").nth(1) {
            after.split("\r\n").next().unwrap().clone_into(&mut cursor);
        }
        answer
    };
    for status in ["200", "204", "204", "204"] {
        assert!(asks().await.starts_with(&format!("HTTP/1.1 {status}")));
    }
    let id = world.hub.registry.connections(None)[0].connection.to_string();
    drop(poll(&world, &member, THERE, (Some(&id), Some("latest"))).await.unwrap());
    let answer = asks().await;
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains(&id), "{answer}");
    assert_eq!(world.hub.registry.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_from_elsewhere_that_races_with_the_bar_gets_nothing_after_it() {
    let world = Arc::new(World::new().await);
    for round in 0..300 {
        let member = world.gateway().await;
        let opens = poll(&world, &member, HERE, (None, None)).await.unwrap();
        let id = opens.connection_id();
        let cursor = answer(opens, &Sever::new()).await;
        let is_barred = Arc::new(AtomicBool::new(false));
        let (polling, peer, told) = (world.clone(), member.clone(), is_barred.clone());
        let last = tokio::spawn(async move {
            loop {
                drop(poll(&polling, &peer, HERE, (Some(&id), Some(&cursor))).await);
                match poll(&polling, &peer, THERE, (Some(&id), Some(&cursor))).await {
                    Ok(_) if !told.load(Ordering::Acquire) => {}
                    last => return last.ok(),
                }
            }
        });
        tokio::task::yield_now().await;
        world.allow(&member, &[HERE]).await;
        is_barred.store(true, Ordering::Release);
        world.publish(member.id, round).await;
        if let Some(mut last) = last.await.unwrap() {
            let step = timeout(Duration::from_secs(5), last.next(ROOM)).await.expect("it ends");
            assert!(matches!(step, Step::Close(CloseReason::AccessWithdrawn)), "round {round}");
            last.ended(CloseReason::AccessWithdrawn);
        }
    }
}
