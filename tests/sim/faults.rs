//! A store that fails, hangs or is slow: publishers are told so and nothing is half done, who is connected waits and goes
//! on, who connects is asked to come back, and nobody is told of a loss that is none.

use std::time::Duration;

use bytes::Bytes;
use gatecast::auth::AdminAuth;
use gatecast_storage::{Cursor, DeliveryFilter, DirectoryError, FailureReason, Seq, Token, TokenId, TokenState};
use gatecast_transports::scripted::Seen;
use gatecast_transports::{CloseReason, Refusal, Room, Sse, Step, Timing};
use http::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::faulty_log::{Call, Fault};
use crate::faulty_records::Commits;
use crate::world::{ALL, Client, Member, Via, World, handshake, json as parsed, number};

const ADMIN: &str = "the-admin-token-of-the-simulation";
const ROOM: Room = Room { frames: 256, bytes: 1 << 20 };

impl World {
    /// A call of the admin.
    async fn call(&self, method: &str, path: &str, body: Value) -> Response<Bytes> {
        let admin = AdminAuth::from_config(Some(ADMIN), &self.hub.directory, |_| Ok(())).await.unwrap();
        let bearer = format!("Bearer {ADMIN}");
        let request = warp::test::request().method(method).path(path).header("authorization", bearer);
        let request = request.header("content-type", "application/json");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let endpoints = self.hub.endpoints(admin, &[], &Sse::new(Timing::default(), TaskTracker::new()));
        request.body(body).reply(&endpoints.routes).await
    }

    async fn head(&self, member: &Member) -> Cursor {
        self.hub.log.bounds(member.id).await.unwrap().head()
    }

    fn active_tokens(&self, member: &Member) -> usize {
        let tokens = self.hub.directory.tokens(member.id);
        tokens
            .iter()
            .filter(|token| token.state(gatecast_storage::Clock::now(self.clock.as_ref())) == TokenState::Active)
            .count()
    }
}

fn event(n: u64) -> Value {
    json!({"type": "api.deployed", "payload": {"apiId": "a", "n": n}})
}

#[track_caller]
fn is_unavailable(answer: &Response<Bytes>) {
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{:?}", answer.body());
    let problem: Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!(problem["code"], "UNAVAILABLE");
    let seconds: u32 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=5).contains(&seconds), "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn a_publisher_of_an_append_that_fails_or_hangs_gets_503_and_nothing_is_half_done() {
    for fault in [Fault::Fails, Fault::Hangs] {
        let world = World::new().await;
        let member = world.gateway().await;
        let path = format!("/api/internal/v1/gateways/{}/events", member.id);
        world.faults.always(Call::Append, fault);
        is_unavailable(&world.call("POST", &path, event(0)).await);
        assert_eq!(world.head(&member).await.seq, Seq(0), "{fault:?}");
        assert_eq!(world.hub.deliveries.query(&DeliveryFilter::default(), 0, 1).0, 0, "{fault:?}");
        world.faults.heal();
        assert_eq!(world.call("POST", &path, event(1)).await.status(), StatusCode::CREATED);
        assert_eq!(world.head(&member).await.seq, Seq(1));
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_was_stored_though_its_publisher_was_told_503_is_a_whole_event() {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut client = world.connect(Via::WebSocket, &member, None).await.unwrap();
    let path = format!("/api/internal/v1/gateways/{}/events", member.id);
    world.faults.times(1, Call::Append, Fault::FailsAfter);
    is_unavailable(&world.call("POST", &path, event(0)).await);
    assert_eq!(world.call("POST", &path, event(1)).await.status(), StatusCode::CREATED);
    assert_eq!(client.numbers(2).await, [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn what_a_slow_append_takes_is_part_of_a_deliverys_time() {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut client = world.connect(Via::WebSocket, &member, None).await.unwrap();
    world.faults.always(Call::Append, Fault::Slow(Duration::from_secs(3)));
    world.publish(member.id, 0).await;
    // Who comes while an append is under way gets its event, and is not what took so long.
    let (_, late) = tokio::join!(world.publish(member.id, 1), async {
        sleep(Duration::from_secs(1)).await;
        let mut late = world.connect(Via::Sse, &member, None).await.unwrap();
        late.numbers(1).await
    });
    assert_eq!((client.numbers(2).await, late), (vec![0, 1], vec![1]));
    let page = world.call("GET", "/metrics", Value::Null).await.into_body();
    let page = std::str::from_utf8(&page).unwrap();
    for sample in [
        r#"gatecast_delivery_seconds_sum{transport="websocket"} 6"#,
        r#"gatecast_delivery_seconds_count{transport="websocket"} 2"#,
        r#"gatecast_delivery_seconds_count{transport="sse"} 0"#,
        r#"gatecast_events_delivered_total{transport="sse",kind="replayed"} 1"#,
    ] {
        assert!(page.lines().any(|line| line == sample), "{sample} in {page}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_failed_flush_publishers_get_503_and_what_is_stored_is_delivered() {
    let world = World::new().await;
    let member = world.gateway().await;
    world.publish(member.id, 0).await;
    world.faults.times(1, Call::Flush, Fault::Fails);
    world.hub.flush().await.unwrap_err();
    let path = format!("/api/internal/v1/gateways/{}/events", member.id);
    for _ in 0..2 {
        is_unavailable(&world.call("POST", &path, event(1)).await);
    }
    for via in ALL {
        let mut client = world.connect(via, &member, Some("earliest")).await.unwrap();
        assert_eq!(client.numbers(1).await, [0], "{via:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_log_cannot_be_read_is_kept_alive_and_goes_on_in_order_without_a_reset() {
    let world = World::new().await;
    let member = world.gateway().await;
    for n in 0..300 {
        world.publish(member.id, n).await;
    }
    world.faults.always(Call::Read, Fault::Fails);
    let mut client = world.connect(Via::WebSocket, &member, Some("earliest")).await.unwrap();
    client.message().await.unwrap();
    for round in 0..6 {
        let ping = timeout(Duration::from_secs(21), client.peer.next()).await.expect("a ping every 20 s");
        let Some(Seen::Ping(payload)) = ping else { panic!("{ping:?}") };
        client.peer.say_pong(payload);
        world.publish(member.id, 300 + round).await;
    }
    let reads = world.faults.calls(Call::Read);
    assert!((8..=40).contains(&reads), "{reads} in 120 s");
    world.faults.heal();
    let mut positions = Vec::new();
    while positions.len() < 306 {
        let frame = client.message().await.unwrap();
        assert_ne!(parsed(&frame)["type"], "stream.reset");
        positions.extend(seq(&frame));
    }
    assert_eq!(positions, (1..=306).collect::<Vec<_>>());
}

fn seq(frame: &gatecast_transports::Frame) -> Option<u64> {
    number(frame)?;
    frame.id()?.parse::<Cursor>().ok().map(|cursor| cursor.seq.0)
}

#[tokio::test(start_paused = true)]
async fn a_slow_read_holds_up_neither_siblings_nor_other_gateways_nor_a_revocation() {
    for fault in [Fault::Slow(Duration::from_secs(3_600)), Fault::Hangs] {
        let world = World::new().await;
        let (member, other) = (world.gateway().await, world.gateway().await);
        world.publish(member.id, 0).await;
        world.publish(other.id, 0).await;
        let mut sibling = world.connect(Via::Sse, &member, None).await.unwrap();
        sibling.message().await.unwrap();
        // A channel's window begins with its first event: the one before it has to be read.
        world.faults.always_of(member.id, Call::Read, fault);
        let mut slow = world.connect(Via::WebSocket, &member, Some("earliest")).await.unwrap();
        slow.message().await.unwrap();
        settled().await;
        world.publish(member.id, 1).await;
        assert_eq!(at_once(&mut sibling).await, 1);
        let mut stranger = world.connect(Via::WebSocket, &other, Some("earliest")).await.unwrap();
        assert_eq!(at_once(&mut stranger).await, 0);
        world.revoke(&member).await;
        let end = timeout(Duration::from_secs(1), slow.message()).await.unwrap();
        assert_eq!(end.unwrap_err(), CloseReason::TokenRevoked);
    }
}

async fn at_once(client: &mut Client) -> u64 {
    timeout(Duration::from_secs(1), client.numbers(1)).await.unwrap()[0]
}

/// Gives every task its turn.
async fn settled() {
    sleep(Duration::from_millis(10)).await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_read_is_read_once_and_what_it_finds_is_delivered() {
    let world = World::new().await;
    let member = world.gateway().await;
    for n in 0..10 {
        world.publish(member.id, n).await;
    }
    world.faults.times(1, Call::Read, Fault::Slow(Duration::from_secs(50)));
    let start = Instant::now();
    let mut client = world.connect(Via::WebSocket, &member, Some("earliest")).await.unwrap();
    assert_eq!(client.numbers(10).await, (0..10).collect::<Vec<_>>());
    assert_eq!((start.elapsed(), world.faults.calls(Call::Read)), (Duration::from_secs(50), 1));
}

#[tokio::test(start_paused = true)]
async fn who_connects_while_the_store_fails_or_hangs_is_asked_to_come_back_and_told_of_no_reset() {
    let world = World::new().await;
    let member = world.gateway().await;
    let foreign = "0badcafe-7";
    for via in ALL {
        for fault in [Fault::Fails, Fault::Hangs] {
            for (call, cursor) in [(Call::Bounds, None), (Call::OwnerOf, Some(foreign))] {
                world.faults.always(call, fault);
                let asked = timeout(Duration::from_secs(5), world.peer(via, &member, cursor)).await;
                let Refusal(answer) = asked.expect("a real gateway waits 5 s").expect_err("refused");
                is_unavailable(&answer);
                assert!(world.hub.registry.is_empty());
                world.faults.heal();
            }
        }
        let mut client = world.connect(via, &member, Some(foreign)).await.unwrap();
        assert_eq!(parsed(&client.message().await.unwrap())["resume"], "reset");
        client.peer.hang_up();
        drop(client);
        sleep(Duration::from_secs(31)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_poll_whose_log_cannot_be_read_ends_without_events_and_the_next_one_has_them() {
    let world = World::new().await;
    let member = world.gateway().await;
    world.publish(member.id, 0).await;
    let transport = Via::LongPoll.transport();
    let cursor = format!("{}-0", world.head(&member).await.epoch);
    for fault in [Fault::Fails, Fault::Slow(Duration::from_secs(100)), Fault::Hangs] {
        let opening = world.hub.gate.admit(handshake(&transport, &member, Some(&cursor))).await.unwrap();
        drop(opening);
        world.faults.always(Call::Read, fault);
        let mut poll = world.hub.gate.admit(handshake(&transport, &member, Some(&cursor))).await.unwrap();
        timeout(Duration::from_secs(25), poll.next(ROOM)).await.expect_err("it waits");
        assert_eq!(poll.position(), cursor, "{fault:?}");
        drop(poll);
        world.faults.heal();
        let mut poll = world.hub.gate.admit(handshake(&transport, &member, Some(&cursor))).await.unwrap();
        let Step::Deliver(frames) = timeout(Duration::from_secs(1), poll.next(ROOM)).await.unwrap() else { panic!() };
        assert_eq!(frames.iter().filter_map(|frame| number(frame)).collect::<Vec<_>>(), [0], "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewing_poll_of_a_store_that_fails_is_503_and_its_connection_lives_on() {
    let world = World::new().await;
    let member = world.gateway().await;
    let transport = Via::LongPoll.transport();
    drop(world.hub.gate.admit(handshake(&transport, &member, None)).await.unwrap());
    let id = world.hub.registry.connections(None)[0].connection;
    world.faults.always(Call::Bounds, Fault::Fails);
    let Err(Refusal(answer)) = world.hub.gate.admit(handshake(&transport, &member, Some("latest"))).await else {
        panic!()
    };
    is_unavailable(&answer);
    assert_eq!(world.hub.registry.connections(None)[0].connection, id);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_hangs_does_not_keep_others_from_finding_a_lost_wake_up() {
    let world = World::new().await;
    let (mut waiting, mut stuck) = (Vec::new(), Vec::new());
    // Several of both: in what order they are looked at is not defined.
    for index in 0..9 {
        let member = world.gateway().await;
        let mut client = world.connect(Via::Sse, &member, None).await.unwrap();
        client.message().await.unwrap();
        if index % 3 == 0 {
            world.faults.always_of(member.id, Call::Bounds, Fault::Hangs);
            stuck.push(client);
        } else {
            waiting.push((member, client));
        }
    }
    world.deaf.store(true, std::sync::atomic::Ordering::Relaxed);
    let start = Instant::now();
    for (member, _) in &waiting {
        world.publish(member.id, 7).await;
    }
    for (_, client) in &mut waiting {
        assert_eq!(timeout(Duration::from_secs(100), client.numbers(1)).await.unwrap(), [7]);
    }
    assert!(start.elapsed() <= Duration::from_secs(40 + 3 * 3), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn receipts_are_heard_and_failures_recorded_while_the_store_is_broken() {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut client = world.connect(Via::WebSocket, &member, None).await.unwrap();
    let event = world.publish(member.id, 0).await.event_id;
    client.numbers(1).await;
    world.records_faults.set(Commits::AreRefused);
    world.faults.always(Call::Read, Fault::Hangs);
    for status in ["received", "failed"] {
        let payload = json!({"eventId": event.to_string(), "status": status, "errorCode": "E"});
        client.peer.say_text(json!({"type": "event.receipt", "payload": payload}).to_string());
    }
    sleep(Duration::from_secs(5)).await;
    let (_, failed) = world.hub.deliveries.query(&DeliveryFilter::default(), 0, 9);
    let failed: Vec<_> = failed.iter().map(|row| (row.reason, row.event, row.event_type.is_none())).collect();
    assert_eq!(failed, [(FailureReason::FailedByGateway, event, true)]);
    world.publish(member.id, 1).await;
    assert_eq!(at_once(&mut client).await, 1);
    let path = format!("/api/internal/v1/deliveries/failed?gatewayId={}", member.id);
    let listed = world.call("GET", &path, Value::Null).await;
    let listed: Value = serde_json::from_slice(listed.body()).unwrap();
    assert_eq!((&listed["count"], &listed["list"][0]["type"]), (&json!(1), &Value::Null), "without a log");
}

#[tokio::test(start_paused = true)]
async fn a_write_of_the_directory_that_fails_is_503_leaves_nothing_and_may_be_repeated() {
    let world = World::new().await;
    let member = world.gateway().await;
    let mut client = world.connect(Via::WebSocket, &member, None).await.unwrap();
    client.message().await.unwrap();
    let gateway = json!({"organizationId": Uuid::nil(), "name": "new-one", "displayName": "New"});
    let token = format!("/api/v1/gateways/{}/tokens/{}", member.id, member.token);
    let tokens = format!("/api/v1/gateways/{}/tokens", member.id);
    let calls =
        [("POST", "/api/v1/gateways", gateway), ("POST", &*tokens, Value::Null), ("DELETE", &*token, Value::Null)];
    for (method, path, body) in calls {
        let (gateways, active) = (world.hub.directory.gateways(None).len(), world.active_tokens(&member));
        world.directory_faults.set(Commits::FailOnce);
        is_unavailable(&world.call(method, path, body.clone()).await);
        let after = (world.hub.directory.gateways(None).len(), world.active_tokens(&member));
        assert_eq!(after, (gateways, active), "{method} {path}");
        assert_eq!(world.hub.registry.len(), 1, "a revoke that was not made ends nothing");
        let again = world.call(method, path, body).await;
        assert!(again.status().is_success(), "{method} {path}: {:?}", again.body());
    }
    let end = timeout(Duration::from_secs(1), client.message()).await.unwrap();
    assert_eq!(end.unwrap_err(), CloseReason::TokenRevoked);
}

#[tokio::test(start_paused = true)]
async fn a_directory_whose_sync_failed_refuses_all_writes_and_has_what_is_on_disk_after_a_restart() {
    let world = World::new().await;
    let member = world.gateway().await;
    world.directory_faults.set(Commits::FailAfter);
    let now = gatecast_storage::Clock::now(world.clock.as_ref());
    let revoke = world.hub.directory.revoke_token(member.id, member.token, now).await;
    assert!(matches!(revoke, Err(DirectoryError::Store(_))), "{revoke:?}");
    let token = Token {
        id: TokenId(Uuid::new_v4()),
        gateway: member.id,
        hash: gatecast::auth::PlainToken::random().unwrap().hash(),
        created_at: now,
        expires_at: None,
        revoked_at: None,
    };
    let create = world.hub.directory.create_token(token, 2, now).await;
    assert!(matches!(create, Err(DirectoryError::Store(_))), "{create:?}");
    assert_eq!(world.active_tokens(&member), 1, "as before");
    let world = world.crash().await;
    assert_eq!((world.active_tokens(&member), world.hub.directory.tokens(member.id).len()), (0, 1), "as on disk");
    let refusal = world.connect(Via::WebSocket, &member, None).await.unwrap_err();
    assert_eq!(refusal.0.status(), 401);
}
