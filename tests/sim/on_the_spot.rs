//! Replicas over WebSocket that are served where the news is: each sees what it would of its own task, whatever its socket
//! takes and whenever its task runs.

use std::time::Duration;

use futures::FutureExt;
use gatecast_transports::{Timing, WebSocket};
use proptest::prelude::*;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_util::task::TaskTracker;

use crate::world::{Member, World};

/// One replica: a WebSocket client that reads when it is told to.
struct Replica {
    socket: DuplexStream,
    unread: Vec<u8>,
    is_upgraded: bool,
    /// The numbers of the events that it got.
    seen: Vec<u64>,
    /// Pings that it has not answered.
    pings: Vec<Vec<u8>>,
}

impl Replica {
    async fn connect(world: &World, member: &Member, name: usize, pipe_bytes: usize) -> Self {
        let mut socket = world.socket(WebSocket::new(Timing::default(), TaskTracker::new()), pipe_bytes);
        let request = format!(
            "GET /api/internal/v1/ws/gateways/connect HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nApi-Key: {}\r\n\
             Gateway-Instance: replica-{name}\r\n\r\n",
            member.key,
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut replica = Self { socket, unread: Vec::new(), is_upgraded: false, seen: Vec::new(), pings: Vec::new() };
        while !replica.is_upgraded {
            tokio::task::yield_now().await;
            replica.read(usize::MAX);
        }
        replica
    }

    /// Reads what is there, up to so much.
    fn read(&mut self, max: usize) {
        let mut space = vec![0; max.min(64 * 1024)];
        if let Some(read) = self.socket.read(&mut space).now_or_never() {
            let read = read.unwrap();
            assert!(read > 0, "nobody ends it");
            self.unread.extend_from_slice(&space[..read]);
        }
        if !self.is_upgraded {
            let Some(end) = self.unread.windows(4).position(|end| end == b"\r\n\r\n") else { return };
            self.unread.drain(..end + 4);
            self.is_upgraded = true;
        }
        while let Some((first, payload)) = self.frame() {
            match first {
                0x81 => {
                    let message: Value = serde_json::from_slice(&payload).unwrap();
                    self.seen.extend(message["payload"]["n"].as_u64());
                }
                0x89 => self.pings.push(payload),
                other => panic!("{other:x}"),
            }
        }
    }

    fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let (head, len) = match *self.unread.get(1)? {
            126 => (4, usize::from(u16::from_be_bytes(self.unread.get(2..4)?.try_into().unwrap()))),
            len => (2, usize::from(len)),
        };
        let payload = self.unread.get(head..head + len)?.to_vec();
        Some((self.unread.drain(..head + len).next()?, payload))
    }

    async fn answer(&mut self) {
        for ping in std::mem::take(&mut self.pings) {
            // Masked with zeros (RFC 6455 § 5.3).
            let head = [0x8a, 0x80 | u8::try_from(ping.len()).unwrap(), 0, 0, 0, 0];
            self.socket.write_all(&[&head, &ping[..]].concat()).await.unwrap();
        }
    }
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn each_replica_sees_every_event_once_and_in_order(steps in steps(), pipes in proptest::collection::vec(prop_oneof![Just(1_024), Just(64 * 1024)], 1..=3)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let world = World::new().await;
            let member = world.gateway().await;
            let mut replicas = Vec::new();
            for (name, pipe_bytes) in pipes.into_iter().enumerate() {
                replicas.push(Replica::connect(&world, &member, name, pipe_bytes).await);
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
