//! A gap is an event and never a silence: every cursor that cannot be resumed is told so, on every transport.

use std::time::Duration;

use gatecast_storage::{Compaction, Cursor, Retention};
use serde_json::{Value, json};

use crate::world::{ALL, Member, Settings, Via, World};

async fn short_ring() -> (World, Member) {
    let retention = Retention { max_events: 10, ..Settings::default().retention };
    let world = World::with(Settings { retention, ..Settings::default() }).await;
    let member = world.gateway().await;
    (world, member)
}

/// Ack, the message after it, and the numbers of the events after that.
async fn resume(world: &World, via: Via, member: &Member, cursor: &str, events: usize) -> (Value, Value, Vec<u64>) {
    let mut client = world.connect(via, member, Some(cursor)).await.unwrap();
    let ack = crate::world::json(&client.message().await.unwrap());
    let next = crate::world::json(&client.message().await.unwrap());
    (ack, next, client.numbers(events).await)
}

#[tokio::test(start_paused = true)]
async fn an_overwritten_cursor_is_told_exactly_what_is_lost() {
    let (world, member) = short_ring().await;
    let first = world.publish(member.id, 1).await.event_id;
    for n in 2..=25 {
        world.publish(member.id, n).await;
    }
    for via in ALL {
        let (ack, reset, rest) = resume(&world, via, &member, &first.to_string(), 17).await;
        assert_eq!(ack["resume"], "reset");
        assert_eq!(reset["type"], "stream.reset");
        let at = |seq: u64| Cursor { epoch: first.epoch, seq: gatecast_storage::Seq(seq) }.to_string();
        assert_eq!(
            reset["payload"],
            json!({"reason": "overwritten", "requested": at(1), "oldest": at(16), "newest": at(25), "lost": 7,
                "compacted": 7, "complete": true})
        );
        assert_eq!(rest, (9..=25).collect::<Vec<_>>(), "seven APIs, then the ring");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cursor_from_elsewhere_is_accepted_and_reset() {
    let (world, member) = short_ring().await;
    let other = world.gateway().await;
    let foreign = world.publish(other.id, 0).await.event_id;
    let head = world.publish(member.id, 1).await.event_id;
    let ahead = Cursor { seq: head.seq.next(), ..head };
    let unknown = Cursor { epoch: gatecast_storage::Epoch(head.epoch.0 ^ foreign.epoch.0 ^ 1), ..head };
    for (cursor, reason, lost) in
        [(foreign, "foreign", json!(0)), (ahead, "ahead", json!(0)), (unknown, "unknown-epoch", Value::Null)]
    {
        for via in ALL {
            let (ack, reset, rest) = resume(&world, via, &member, &cursor.to_string(), 1).await;
            assert_eq!((&ack["resume"], &ack["position"]), (&json!("reset"), &json!(cursor.to_string())));
            assert_eq!((&reset["payload"]["reason"], &reset["payload"]["lost"]), (&json!(reason), &lost));
            assert_eq!(rest, [1]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cursor_from_elsewhere_is_given_the_compacted_state() {
    let (world, member) = short_ring().await;
    let other = world.gateway().await;
    let foreign = world.publish(other.id, 0).await.event_id;
    let mut head = world.publish(member.id, 1).await.event_id;
    for n in 2..=25 {
        head = world.publish(member.id, n).await.event_id;
    }
    let ahead = Cursor { seq: head.seq.next(), ..head };
    let unknown = Cursor { epoch: gatecast_storage::Epoch(head.epoch.0 ^ foreign.epoch.0 ^ 1), ..head };
    for (cursor, lost, complete) in [(foreign, json!(8), true), (ahead, json!(0), true), (unknown, Value::Null, false)]
    {
        for via in ALL {
            let (_, reset, rest) = resume(&world, via, &member, &cursor.to_string(), 17).await;
            let payload = &reset["payload"];
            assert_eq!((&payload["lost"], &payload["compacted"]), (&lost, &json!(7)));
            assert_eq!(payload["complete"], complete);
            assert_eq!(rest, (9..=25).collect::<Vec<_>>());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_state_that_had_to_be_cut_is_said_to_be_incomplete() {
    let compaction = Compaction { max_keys: 4, ..Compaction::DEFAULT };
    let retention = Retention { max_events: 10, compaction, ..Settings::default().retention };
    let world = World::with(Settings { retention, ..Settings::default() }).await;
    let member = world.gateway().await;
    let first = world.publish(member.id, 1).await.event_id;
    for n in 2..=25 {
        world.publish(member.id, n).await;
    }
    // Of the seven APIs' latest, 9 to 15, the first three went: what a reader after 10 lacks is 11.
    for (seq, lost, complete) in [(1, 10, false), (10, 1, false), (11, 0, true)] {
        let cursor = Cursor { seq: gatecast_storage::Seq(seq), ..first }.to_string();
        let (_, reset, rest) = resume(&world, Via::Sse, &member, &cursor, 14).await;
        let payload = &reset["payload"];
        assert_eq!((&payload["lost"], &payload["complete"]), (&json!(lost), &json!(complete)), "after {seq}");
        assert_eq!(rest, (12..=25).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn a_cursor_at_the_edge_of_the_ring_resumes() {
    let (world, member) = short_ring().await;
    let mut events = Vec::new();
    for n in 1..=25 {
        events.push(world.publish(member.id, n).await.event_id);
    }
    for via in ALL {
        let mut client = world.connect(via, &member, Some(&events[14].to_string())).await.unwrap();
        let ack = crate::world::json(&client.message().await.unwrap());
        assert_eq!((&ack["resume"], &ack["position"]), (&json!("resumed"), &json!(events[14].to_string())));
        assert_eq!(client.numbers(10).await, (16..=25).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_slower_than_its_ring_is_reset_in_mid_stream() {
    let (world, member) = short_ring().await;
    for via in [Via::WebSocket, Via::Sse] {
        let mut client = world.connect(via, &member, Some("latest")).await.unwrap();
        client.message().await.unwrap();
        client.peer.read(false);
        let before = world.publish(member.id, 0).await.event_id.seq.0;
        // It holds the one that it is being written, and the window another 256.
        for n in 1..=600 {
            world.publish(member.id, n).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        client.peer.read(true);
        let (mut seen, mut lost, mut last) = (0, 0, before - 1);
        while last < before + 600 {
            let message = crate::world::json(&client.message().await.unwrap());
            let cursor = |text: &Value| text.as_str().unwrap().parse::<Cursor>().unwrap().seq.0;
            if message["type"] == "stream.reset" {
                assert_eq!(message["payload"]["reason"], "overwritten");
                lost = cursor(&message["payload"]["requested"]) + 1 - before - seen;
                lost += message["payload"]["lost"].as_u64().unwrap();
            } else {
                assert!(cursor(&message["eventId"]) > last);
                last = cursor(&message["eventId"]);
                seen += 1;
            }
        }
        assert!(lost > 0 && seen + lost == 601, "{seen} seen, {lost} lost");
    }
}

#[tokio::test(start_paused = true)]
async fn earliest_gives_all_that_is_held_without_a_reset() {
    let (world, member) = short_ring().await;
    for n in 1..=25 {
        world.publish(member.id, n).await;
    }
    for via in ALL {
        let mut client = world.connect(via, &member, Some("earliest")).await.unwrap();
        assert_eq!(crate::world::json(&client.message().await.unwrap())["resume"], "resumed");
        assert_eq!(client.numbers(17).await, (9..=25).collect::<Vec<_>>(), "seven APIs, then the ring");
    }
}

#[tokio::test(start_paused = true)]
async fn latest_and_no_cursor_begin_live() {
    let (world, member) = short_ring().await;
    world.publish(member.id, 1).await;
    for (round, cursor) in [None, Some("latest")].into_iter().enumerate() {
        for via in ALL {
            let mut client = world.connect(via, &member, cursor).await.unwrap();
            assert_eq!(crate::world::json(&client.message().await.unwrap())["resume"], "live");
            let n = 100 + round as u64;
            world.publish(member.id, n).await;
            assert_eq!(client.numbers(1).await, [n]);
            client.peer.hang_up();
        }
    }
}
