//! Polls that follow each other on one socket: what is known from the one before spares work and lets nobody in.

use std::time::Duration;

use gatecast_storage::{Access, GatewayUpdate};
use gatecast_transports::{LongPoll, Timing};
use proptest::prelude::*;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_util::task::TaskTracker;

use crate::world::{Member, Settings, Via, World};

/// A socket that polls.
struct Line(DuplexStream);

impl Line {
    fn new(world: &World) -> Self {
        Self::with(world, Timing::default())
    }

    fn with(world: &World, timing: Timing) -> Self {
        Self(world.socket(LongPoll::new(timing, TaskTracker::new()), 64 * 1024))
    }

    /// The answer to a poll.
    async fn poll(&mut self, key: &str, cursor: &str) -> String {
        self.poll_as("a", key, cursor).await
    }

    /// As one of several replicas.
    async fn poll_as(&mut self, instance: &str, key: &str, cursor: &str) -> String {
        let request = format!(
            "GET /api/internal/v1/poll/gateways/connect?timeout=0 HTTP/1.1\r\nHost: x\r\nApi-Key: {key}\r\n\
             Gateway-Instance: {instance}\r\nLast-Event-ID: {cursor}\r\n\r\n"
        );
        self.0.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 64 * 1024];
        let len = self.0.read(&mut answer).await.unwrap();
        String::from_utf8(answer[..len].to_vec()).unwrap()
    }

    /// A poll that is answered with nothing, by a gateway that has nothing; the cursor that it gave.
    async fn idle(&mut self, member: &Member, cursor: &str) -> String {
        let answer = self.poll(&member.key, cursor).await;
        assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
        let at = answer.split("last-event-id: ").nth(1).unwrap();
        at.split("\r\n").next().unwrap().to_owned()
    }

    /// Opens a connection; then polls twice, so that what can be known is.
    async fn settle(&mut self, member: &Member) -> String {
        assert!(self.poll(&member.key, "latest").await.starts_with("HTTP/1.1 200"));
        let cursor = self.idle(member, "latest").await;
        self.idle(member, &cursor).await
    }

    async fn is_refused(&mut self, key: &str, cursor: &str) {
        let answer = self.poll(key, cursor).await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    }
}

/// Something happens to a gateway between two polls, and the second is refused; the world after it.
async fn is_refused_after(happens: impl AsyncFnOnce(&World, &Member)) -> World {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut line = Line::new(&world);
    let cursor = line.settle(&member).await;
    happens(&world, &member).await;
    line.is_refused(&member.key, &cursor).await;
    world
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_revoked_between_two_polls_is_refused() {
    let world = is_refused_after(async |world, member| world.revoke(member).await).await;
    assert!(world.hub.registry.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_token_whose_time_passes_between_two_polls_is_refused() {
    let world = World::new().await;
    let member = world.gateway().await;
    let member = world.token_until(member.id, Some(Duration::from_secs(100))).await;
    let mut line = Line::new(&world);
    let cursor = line.settle(&member).await;
    world.clock.advance(Duration::from_secs(99));
    let cursor = line.idle(&member, &cursor).await;
    world.clock.advance(Duration::from_secs(1));
    line.is_refused(&member.key, &cursor).await;
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_is_deleted_between_two_polls_is_refused() {
    is_refused_after(async |world, member| {
        world.hub.directory.delete_gateway(member.id).await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_barred_between_two_polls_is_refused() {
    is_refused_after(async |world, member| {
        let before = world.hub.directory.gateway(member.id).unwrap();
        let update = GatewayUpdate {
            display_name: before.display_name.clone(),
            description: None,
            vhost: None,
            catch_up: before.catch_up,
            access: Access { addresses: vec!["192.0.2.0/24".parse().unwrap()], ..Access::default() },
        };
        world.hub.directory.update_gateway(member.id, update, before.updated_at).await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_key_counts_as_it_comes_whatever_came_before() {
    let world = World::new().await;
    let (member, other) = (world.gateway().await, world.gateway().await);
    let second = world.token(member.id).await;
    let mut line = Line::new(&world);
    let cursor = line.settle(&member).await;
    line.is_refused(&member.key.replace(|_: char| true, "x"), &cursor).await;
    assert!(line.poll(&second.key, &cursor).await.starts_with("HTTP/1.1 200"), "a connection of its own");
    assert!(line.poll(&other.key, "latest").await.contains(&other.id.to_string()));
    line.idle(&member, &cursor).await;
    assert_eq!(world.hub.registry.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_lies_after_its_cursor_comes_on_the_same_socket() {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut line = Line::new(&world);
    let cursor = line.settle(&member).await;
    for n in 0..3 {
        world.publish(member.id, n).await;
    }
    for _ in 0..2 {
        let answer = line.poll(&member.key, &cursor).await;
        assert_eq!(answer.matches("\"eventId\"").count(), 3, "{answer}");
    }
    let mut watcher = world.connect(Via::Sse, &member, Some(&cursor)).await.unwrap();
    watcher.message().await.unwrap();
    assert!(line.poll(&member.key, &cursor).await.contains(watcher.message().await.unwrap().text()));
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_lease_ran_out_between_two_polls_is_gone_and_another_begins() {
    let world = World::new().await;
    let member = world.gateway().await;
    // It may be idle for longer than its lease lasts.
    let mut line = Line::with(&world, Timing { head: Duration::from_secs(100), ..Timing::default() });
    let cursor = line.settle(&member).await;
    tokio::time::sleep(Duration::from_millis(29_990)).await;
    let cursor = line.idle(&member, &cursor).await;
    assert_eq!(world.hub.registry.len(), 1);
    tokio::time::sleep(Duration::from_millis(30_010)).await;
    assert!(world.hub.registry.is_empty(), "a socket that is open keeps no connection");
    let answer = line.poll(&member.key, &cursor).await;
    assert!(answer.contains("connection.ack"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_is_told_to_the_poll_that_goes_on() {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut line = Line::new(&world);
    let cursor = line.settle(&member).await;
    world.hub.drain();
    let answer = line.poll(&member.key, &cursor).await;
    assert!(answer.contains("server.goodbye"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn sockets_of_one_client_go_on_beside_each_other_as_one_connection() {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut lines = [Line::new(&world), Line::new(&world)];
    let mut cursor = lines[0].settle(&member).await;
    for n in 0..3 {
        for line in &mut lines {
            line.idle(&member, &cursor).await;
        }
        world.publish(member.id, n).await;
        let [first, second] = &mut lines;
        let answers = [first.poll(&member.key, &cursor).await, second.poll(&member.key, &cursor).await];
        assert_eq!(answers[0], answers[1]);
        cursor = said(&answers[0]).1;
    }
    assert_eq!(world.hub.registry.len(), 1);
}

/// The events of an answer, whoever it is for, and the cursor that it gives.
fn said(answer: &str) -> (Vec<Value>, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    if let Some((_, cursor)) = head.split_once("last-event-id: ") {
        return (Vec::new(), cursor.lines().next().unwrap().to_owned());
    }
    let body: Value = serde_json::from_str(body).unwrap();
    let id = body["connectionId"].as_str().unwrap();
    let events = body["events"].to_string().replace(id, "");
    (serde_json::from_str(&events).unwrap(), body["lastEventId"].as_str().unwrap().to_owned())
}

/// The position of an event, or of a cursor.
fn seq(cursor: &str) -> u64 {
    cursor.split_once('-').unwrap().1.parse().unwrap()
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Publish,
    /// Asks for what follows one of the last cursors that it was given.
    Poll {
        back: usize,
    },
    /// A change of somebody else's, after which the gate is asked.
    Change,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Publish),
        4 => Just(Step::Poll { back: 0 }),
        1 => (1_usize..4).prop_map(|back| Step::Poll { back }),
        1 => Just(Step::Change),
    ];
    prop::collection::vec(step, 1..60)
}

/// Plays the steps for a replica that polls over one socket, and another that opens one for each poll.
async fn play(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let retention = gatecast_storage::Retention { max_events: 6, ..Settings::default().retention };
    let world = World::with(Settings { retention, ..Settings::default() }).await;
    let member = world.gateway().await;
    let mut line = Line::new(&world);
    let mut cursors = vec!["latest".to_owned()];
    let mut head = 0;
    for step in steps {
        match step {
            Step::Publish => {
                head += 1;
                world.publish(member.id, head).await;
            }
            Step::Change => drop(world.gateway().await),
            Step::Poll { back } => {
                let cursor = &cursors[cursors.len().saturating_sub(1 + back)];
                let going_on = said(&line.poll_as("a", &member.key, cursor).await);
                let anew = said(&Line::new(&world).poll_as("b", &member.key, cursor).await);
                if going_on != anew {
                    // The gate asks the log, whose ring may have let go of what is still at hand for who stays.
                    let seqs: Vec<_> =
                        going_on.0.iter().map(|event| seq(event["eventId"].as_str().unwrap_or("-0"))).collect();
                    prop_assert_eq!(&seqs, &(seq(cursor) + 1..=head).collect::<Vec<_>>(), "{:?}", anew);
                    prop_assert!(anew.0.iter().any(|event| event["type"] == "stream.reset"), "{:?}", anew);
                }
                cursors.push(going_on.1);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_socket_that_polls_on_gets_what_sockets_of_one_poll_each_get(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(play(steps))?;
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_early_is_answered_once_the_poll_that_waits_is_and_so_is_a_close() {
    for (more, closes) in [("", false), ("Connection: close\r\n", true)] {
        let world = World::new().await;
        let member = world.gateway().await;
        let head = format!(
            "GET /api/internal/v1/poll/gateways/connect?timeout=60 HTTP/1.1\r\nHost: x\r\nApi-Key: {}\r\n",
            member.key
        );
        let mut line = Line::new(&world);
        let cursor = line.settle(&member).await;
        let waits = format!("{head}Gateway-Instance: a\r\nLast-Event-ID: {cursor}\r\n{more}\r\n");
        // It opens a connection of its own, so it is answered at once.
        let early = format!("{head}Gateway-Instance: b\r\nLast-Event-ID: latest\r\n\r\n");
        line.0.write_all(waits.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
        if !closes {
            line.0.write_all(early.as_bytes()).await.unwrap();
        }
        tokio::task::yield_now().await;
        let since = tokio::time::Instant::now();
        world.publish(member.id, 1).await;
        let mut all = Vec::new();
        if closes {
            line.0.read_to_end(&mut all).await.unwrap();
        } else {
            while !String::from_utf8_lossy(&all).contains("connection.ack") {
                assert!(line.0.read_buf(&mut all).await.unwrap() > 0);
            }
        }
        assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
        assert!(String::from_utf8_lossy(&all).contains(r#""n":1"#));
    }
}

#[tokio::test(start_paused = true)]
async fn a_poll_with_what_is_no_cursor_ends_none_that_waits() {
    let world = World::new().await;
    let member = world.gateway().await;
    let (mut waiting, mut other) = (Line::new(&world), Line::new(&world));
    let opened = waiting.poll(&member.key, "latest").await;
    let (_, id) = opened.split_once(r#""connectionId":""#).unwrap();
    let query = format!("connectionId={}", id.split_once('"').unwrap().0);
    let cursor = waiting.idle(&member, "latest").await;
    let request = |cursor: &str| {
        format!(
            "GET /api/internal/v1/poll/gateways/connect?timeout=60&{query} HTTP/1.1\r\nHost: x\r\nApi-Key: {}\r\n\
             Last-Event-ID: {cursor}\r\n\r\n",
            member.key
        )
    };
    waiting.0.write_all(request(&cursor).as_bytes()).await.unwrap();
    tokio::task::yield_now().await;
    other.0.write_all(request("nonsense").as_bytes()).await.unwrap();
    let mut answer = vec![0; 64 * 1024];
    let len = other.0.read(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer[..len]).starts_with("HTTP/1.1 400"));
    world.publish(member.id, 1).await;
    let len = waiting.0.read(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer[..len]).starts_with("HTTP/1.1 200"));
}
