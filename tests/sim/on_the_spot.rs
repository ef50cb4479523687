//! Replicas that are served where the news is, over WebSocket and long-poll: each sees what it would of its own task,
//! whatever its socket takes, whenever its task runs, and whenever it asks.

use std::time::Duration;

use futures::FutureExt;
use gatecast_transports::{LongPoll, Timing, WebSocket};
use proptest::prelude::*;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_util::task::TaskTracker;

use crate::world::{Member, World};

/// One replica, which reads when it is told to.
struct Replica {
    socket: DuplexStream,
    unread: Vec<u8>,
    /// The numbers of the events that it got.
    seen: Vec<u64>,
    client: Client,
}

enum Client {
    WebSocket {
        is_upgraded: bool,
        /// Pings that it has not answered.
        pings: Vec<Vec<u8>>,
    },
    LongPoll {
        head: String,
        cursor: Option<String>,
        is_asking: bool,
    },
}

impl Replica {
    async fn connect(world: &World, member: &Member, name: usize, (is_poll, pipe_bytes): (bool, usize)) -> Self {
        let (tasks, timing) = (TaskTracker::new(), Timing::default());
        let who = format!("Host: x\r\nApi-Key: {}\r\nGateway-Instance: replica-{name}\r\n", member.key);
        let (socket, request, client) = if is_poll {
            let head = format!("GET /api/internal/v1/poll/gateways/connect?timeout=60&max=2 HTTP/1.1\r\n{who}");
            let client = Client::LongPoll { head: head.clone(), cursor: None, is_asking: true };
            (world.socket(LongPoll::new(timing, tasks), pipe_bytes), head, client)
        } else {
            let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
            let head = format!("GET /api/internal/v1/ws/gateways/connect HTTP/1.1\r\n{who}{upgrade}");
            let client = Client::WebSocket { is_upgraded: false, pings: Vec::new() };
            (world.socket(WebSocket::new(timing, tasks), pipe_bytes), head, client)
        };
        let mut replica = Self { socket, unread: Vec::new(), seen: Vec::new(), client };
        replica.send(format!("{request}\r\n").as_bytes()).await;
        while !matches!(
            replica.client,
            Client::WebSocket { is_upgraded: true, .. } | Client::LongPoll { is_asking: false, .. }
        ) {
            tokio::task::yield_now().await;
            replica.read(usize::MAX);
        }
        replica
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    /// Reads what is there, up to so much.
    fn read(&mut self, max: usize) {
        let mut space = vec![0; max.min(64 * 1024)];
        if let Some(read) = self.socket.read(&mut space).now_or_never() {
            let read = read.unwrap();
            assert!(read > 0, "nobody ends it");
            self.unread.extend_from_slice(&space[..read]);
        }
        while self.message() {}
    }

    /// Takes what it has read whole; whether that was anything.
    fn message(&mut self) -> bool {
        match &mut self.client {
            Client::WebSocket { is_upgraded: upgraded @ false, .. } => {
                let Some(end) = end_of_head(&self.unread) else { return false };
                self.unread.drain(..end);
                *upgraded = true;
            }
            Client::WebSocket { .. } => {
                let Some((first, payload)) = self.frame() else { return false };
                match (first, &mut self.client) {
                    (0x81, _) => self.saw(&serde_json::from_slice(&payload).unwrap()),
                    (0x89, Client::WebSocket { pings, .. }) => pings.push(payload),
                    (other, _) => panic!("{other:x}"),
                }
            }
            Client::LongPoll { cursor, is_asking, .. } => {
                let Some(end) = end_of_head(&self.unread) else { return false };
                let head = String::from_utf8(self.unread[..end].to_vec()).unwrap();
                assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
                let (_, len) = head.split_once("content-length: ").unwrap();
                let len: usize = len.split_once('\r').unwrap().0.parse().unwrap();
                let Some(body) = self.unread.get(end..end + len) else { return false };
                let reply: Value = serde_json::from_slice(body).unwrap();
                self.unread.drain(..end + len);
                *cursor = Some(reply["lastEventId"].as_str().unwrap().to_owned());
                assert!(std::mem::take(is_asking), "it is answered once");
                reply["events"].as_array().unwrap().iter().for_each(|event| self.saw(event));
            }
        }
        true
    }

    fn saw(&mut self, event: &Value) {
        self.seen.extend(event["payload"]["n"].as_u64());
    }

    fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let (head, len) = match *self.unread.get(1)? {
            126 => (4, usize::from(u16::from_be_bytes(self.unread.get(2..4)?.try_into().unwrap()))),
            len => (2, usize::from(len)),
        };
        let payload = self.unread.get(head..head + len)?.to_vec();
        Some((self.unread.drain(..head + len).next()?, payload))
    }

    /// Says what is its turn to say: pongs, or the next poll.
    async fn answer(&mut self) {
        let said = match &mut self.client {
            Client::WebSocket { pings, .. } => {
                let pongs = std::mem::take(pings).into_iter().map(|ping| {
                    // Masked with zeros (RFC 6455 § 5.3).
                    let head = [0x8a, 0x80 | u8::try_from(ping.len()).unwrap(), 0, 0, 0, 0];
                    [&head, &ping[..]].concat()
                });
                pongs.flatten().collect()
            }
            Client::LongPoll { is_asking: true, .. } => return,
            Client::LongPoll { head, cursor, is_asking } => {
                *is_asking = true;
                format!("{head}Last-Event-ID: {}\r\n\r\n", cursor.as_deref().unwrap_or_default()).into_bytes()
            }
        };
        self.send(&said).await;
    }
}

fn end_of_head(read: &[u8]) -> Option<usize> {
    read.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4)
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Publish(u64),
    Read {
        who: usize,
        bytes: usize,
    },
    Answer {
        who: usize,
    },
    /// Tasks run.
    Run(usize),
    /// Together less than a stalled write has.
    Wait {
        ms: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1_u64..4).prop_map(Step::Publish),
        4 => (0_usize..3, prop_oneof![1_usize..400, Just(64 * 1024)]).prop_map(|(who, bytes)| Step::Read { who, bytes }),
        2 => (0_usize..3).prop_map(|who| Step::Answer { who }),
        4 => (1_usize..6).prop_map(Step::Run),
        1 => (1_u64..100).prop_map(|ms| Step::Wait { ms }),
    ];
    proptest::collection::vec(step, 1..60)
}

/// Whether it polls, and how much its socket takes: of an upgrade all at once, as else it is hyper's.
fn replica() -> impl Strategy<Value = (bool, usize)> {
    prop_oneof![
        (Just(true), prop_oneof![Just(100), Just(1_024)]),
        (Just(false), prop_oneof![Just(1_024), Just(64 * 1024)]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn each_replica_sees_every_event_once_and_in_order(steps in steps(), replicas_are in proptest::collection::vec(replica(), 1..=3)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let world = World::new().await;
            let member = world.gateway().await;
            let mut replicas = Vec::new();
            for (name, how) in replicas_are.into_iter().enumerate() {
                replicas.push(Replica::connect(&world, &member, name, how).await);
            }
            let mut published = 0;
            for step in steps {
                match step {
                    Step::Publish(events) => for _ in 0..events {
                        world.publish(member.id, published).await;
                        published += 1;
                    },
                    Step::Read { who, bytes } => if let Some(replica) = replicas.get_mut(who) {
                        replica.read(bytes);
                    },
                    Step::Answer { who } => if let Some(replica) = replicas.get_mut(who) {
                        replica.answer().await;
                    },
                    Step::Run(turns) => for _ in 0..turns {
                        tokio::task::yield_now().await;
                    },
                    Step::Wait { ms } => tokio::time::sleep(Duration::from_millis(ms)).await,
                }
            }
            let all: Vec<_> = (0..published).collect();
            for replica in &mut replicas {
                for _ in 0..1_000 {
                    if replica.seen.len() >= all.len() {
                        break;
                    }
                    replica.read(usize::MAX);
                    replica.answer().await;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                replica.read(usize::MAX);
                assert_eq!(replica.seen, all);
            }
        });
    }
}
