//! Polls that follow each other on one socket: what is known from the one before spares work and lets nobody in.

use std::sync::Arc;
use std::time::Duration;

use gatecast_storage::{Access, GatewayUpdate};
use gatecast_transports::{BoxSocket, ConnInfo, LongPoll, Newcomer, Rewound, Sever, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::world::{Member, Via, World};

/// A socket that polls.
struct Line(DuplexStream);

impl Line {
    fn new(world: &World) -> Self {
        let transports: [Box<dyn Transport>; 1] =
            [Box::new(LongPoll::new(gatecast_transports::Timing::default(), TaskTracker::new()))];
        let [direct] = &*world.hub.direct(&transports) else { panic!("polls need no hyper") };
        let (near, far) = tokio::io::duplex(64 * 1024);
        let newcomer = Newcomer {
            socket: Rewound::from(Box::new(near) as BoxSocket),
            info: Arc::new(ConnInfo::of(([127, 0, 0, 1], 1).into())),
            sever: Sever::new(),
            drain: CancellationToken::new(),
        };
        let direct = direct.clone();
        drop(tokio::spawn(async move { direct.serve(newcomer).await }));
        Self(far)
    }

    /// The answer to a poll.
    async fn poll(&mut self, key: &str, cursor: &str) -> String {
        let request = format!(
            "GET /api/internal/v1/poll/gateways/connect?timeout=0 HTTP/1.1\r\nHost: x\r\nApi-Key: {key}\r\n\
             Last-Event-ID: {cursor}\r\n\r\n"
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
    assert!(line.poll(&member.key, &cursor).await.contains(watcher.message().await.unwrap().text().as_str()));
}
