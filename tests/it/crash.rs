//! kill -9 of the real binary at random points under load, with subscribers on all transports: what was answered stays,
//! in its place; nobody is told anything twice or out of order; what is lost to a ring is counted exactly.
//!
//! `CRASH_KILLS` makes it as many kills as one likes, `CRASH_SEED` repeats a run's random choices (`scripts/crash`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::clerk::clerk;
use self::ledger::Ledger;
use self::load::{ENTITIES, Over, Work, publisher, read, subscriber};
use self::power::Power;
use self::seen::{Seen, Told, place};
use crate::process::{Process, Served};
use crate::random::Random;
use crate::wire::PATIENCE;

mod clerk;
mod disk;
mod ledger;
mod load;
mod power;
mod seen;

/// Unless `CRASH_KILLS` says otherwise.
const KILLS: u64 = 20;
const GATEWAYS: usize = 3;
const PUBLISHERS: usize = 5;
/// Answers between a start and its kill.
const ANSWERS: std::ops::Range<u64> = 5..120;
/// How long after the last of these answers the kill comes, in microseconds.
const DELAY_US: std::ops::Range<u64> = 0..20_000;
/// How long after the start the kill comes when it is to meet the start, in microseconds.
const START_DELAY_US: std::ops::Range<u64> = 0..400_000;
/// The payload of the last event of each gateway.
const LAST: u64 = u64::MAX;

/// One run: what brings the server down, and what is special about the load.
struct Ordeal {
    kills: u64,
    ring_max_events: &'static str,
    /// For how many answers a subscriber stays away at most, once it lost its server.
    away_max: u64,
    loses_power: bool,
}

/// What came of it.
struct Outcome {
    answered: Vec<Vec<Told>>,
    seen: Vec<Seen>,
    /// What the last server has of each gateway's log, from its beginning.
    held: Vec<Seen>,
}

/// Brings servers down over one data directory.
struct Killer<'a> {
    data: &'a Path,
    settings: Vec<(&'a str, &'a str)>,
    power: Option<&'a mut Power>,
    random: Random,
}

impl Killer<'_> {
    async fn start(&self) -> Served {
        let served = Served::dev(self.data, &self.settings).await;
        assert!(self.power.as_ref().is_none_or(|power| power.is_on()), "it notes what it does");
        let said = served.process.err.so_far();
        assert!(!said.iter().any(|line| line.contains("set aside")), "the store is whole: {said:#?}");
        served
    }

    async fn kill(&mut self, process: &mut Process) {
        process.kill().await;
        // For who has to find out why a check failed later.
        let said = process.err.so_far();
        said.iter().filter(|line| line.contains("ERROR") || line.contains("sled")).for_each(|line| println!("{line}"));
        if let Some(power) = &mut self.power {
            power.cut(&mut self.random);
        }
    }

    /// Kills and restarts the server, and returns the last one.
    async fn kill_and_kill_again(
        &mut self,
        mut served: Served,
        kills: u64,
        here: &watch::Sender<Option<SocketAddr>>,
        work: &Work,
    ) -> Served {
        for round in 1..=kills {
            let wanted = *work.answers.borrow() + self.random.in_range(ANSWERS);
            let mut answers = work.answers.subscribe();
            let answered = timeout(PATIENCE, answers.wait_for(|answers| *answers >= wanted)).await;
            let said = || served.process.err.so_far();
            answered
                .unwrap_or_else(|_| panic!("round {round}: the server answers after its restart: {:#?}", said()))
                .unwrap();
            // What was lost has been answered anew by now, with other payloads.
            work.ledger.is_consistent();
            tokio::time::sleep(Duration::from_micros(self.random.in_range(DELAY_US))).await;
            self.kill(&mut served.process).await;
            if round % 4 == 0 {
                let mut starting = Process::spawn(&mut Served::command(&["--dev"], self.data, &self.settings));
                tokio::time::sleep(Duration::from_micros(self.random.in_range(START_DELAY_US))).await;
                self.kill(&mut starting).await;
            }
            served = self.start().await;
            here.send_replace(Some(served.platform.address));
        }
        served
    }
}

impl Ordeal {
    async fn run(self) -> Outcome {
        let data = tempfile::tempdir().unwrap();
        let data = data.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let mut power = self.loses_power.then(|| Power::of(&data));
        let mut settings = vec![("GATECAST_RING_MAX_EVENTS", self.ring_max_events), ("GATECAST_LOG", "info")];
        let preloaded = power.as_ref().map(Power::settings);
        settings.extend(preloaded.iter().flatten().map(|(name, value)| (*name, value.as_str())));
        let mut killer = Killer { data: &data, settings, power: power.as_mut(), random: seeded() };
        let served = killer.start().await;
        let (here, now) = watch::channel(Some(served.platform.address));
        let ledger = Arc::<Ledger>::default();
        let (numbers, answers, stop) = Default::default();
        let work = Work { here: now, numbers, answers, stop, ledger: Arc::clone(&ledger) };
        let (mut gateways, mut subscribers, mut publishers) = (Vec::new(), JoinSet::new(), JoinSet::new());
        for index in 0..GATEWAYS {
            let gateway = served.platform.register(&format!("gateway-{index}")).await;
            let first = work.numbers.fetch_add(1, Ordering::Relaxed);
            let (epoch, _) = place(&served.platform.publish(gateway.id, first).await);
            for over in [Over::WebSocket, Over::Sse, Over::LongPoll] {
                let seen = Seen::nothing(gateway.clone(), epoch.clone(), Arc::clone(&ledger));
                subscribers.spawn(subscriber(
                    over,
                    work.clone(),
                    seen,
                    Random::new(killer.random.in_range(0..u64::MAX)),
                    self.away_max,
                ));
            }
            gateways.push((gateway, epoch));
        }
        let ids: Vec<_> = gateways.iter().map(|(gateway, _)| gateway.id).collect();
        for _ in 0..PUBLISHERS {
            publishers.spawn(publisher(work.clone(), ids.clone()));
        }
        let clerk = tokio::spawn(clerk(work.clone()));
        let served = killer.kill_and_kill_again(served, self.kills, &here, &work).await;
        work.stop.store(true, Ordering::Release);
        work.answers.send_modify(|_| {});
        let answered = timeout(PATIENCE, publishers.join_all()).await.expect("publishers end");
        assert!(clerk.await.unwrap() >= self.kills, "the directory was changed");
        for (gateway, _) in &gateways {
            served.platform.publish(gateway.id, LAST).await;
        }
        let seen = timeout(PATIENCE, subscribers.join_all()).await.expect("subscribers end");
        let mut held = Vec::new();
        for (gateway, epoch) in gateways {
            let mut all = Seen::nothing(gateway, epoch, Arc::clone(&ledger));
            read(Over::LongPoll, &mut all, served.platform.address).await;
            assert!(all.done(), "the server answers");
            held.push(all);
        }
        ledger.is_consistent();
        assert!(answered.iter().flatten().count() as u64 >= self.kills * ANSWERS.start);
        Outcome { answered, seen, held }
    }
}

impl Outcome {
    /// Who publishes one event after the other finds them in that order.
    fn is_ordered(&self) {
        for publisher in &self.answered {
            let mut last = BTreeMap::new();
            for (gateway, place, _) in publisher {
                let before = last.insert(gateway, place);
                assert!(before.is_none_or(|before| before < place), "reordered: {before:?} before {place:?}");
            }
        }
    }

    /// Every answered event is held, and each subscriber saw what is held.
    fn nothing_is_lost(&self) {
        let held: BTreeSet<_> = self.held.iter().flat_map(|seen| &seen.told).collect();
        for told in self.answered.iter().flatten() {
            assert!(held.contains(told), "answered and lost: {told:?}");
        }
        for subscriber in &self.seen {
            let own = self.held.iter().find(|held| held.gateway.id == subscriber.gateway.id).unwrap();
            assert!(own.told == subscriber.told && subscriber.resets == 0, "each subscriber saw what is held");
        }
    }

    /// What a subscriber saw and what it was told is lost are all there was, and of each entity it saw the latest.
    fn what_is_lost_is_counted(&self) {
        for subscriber in self.seen.iter().chain(&self.held) {
            let own = subscriber.gateway.id;
            let (_, (_, newest), _) = subscriber.told.last().unwrap();
            assert_eq!(subscriber.told.len() as u64 + subscriber.lost, *newest, "seen and lost are all");
            let mut latest = BTreeMap::new();
            for (_, (_, seq), n) in &subscriber.told {
                latest.insert(n % ENTITIES, seq);
            }
            for (_, (_, seq), n) in self.answered.iter().flatten().filter(|told| told.0 == own) {
                assert!(latest.get(&(n % ENTITIES)).is_some_and(|seen| *seen >= seq), "the latest of an entity: {n}");
            }
        }
        assert!(self.seen.iter().any(|subscriber| subscriber.resets > 0), "somebody was away for longer than a ring");
    }
}

/// From `CRASH_SEED`, or another one each time; printed, so that a failure can be repeated.
fn seeded() -> Random {
    let seed = uuid::Uuid::new_v4().as_u64_pair().0;
    let seed = std::env::var("CRASH_SEED").map_or(seed, |seed| seed.parse().unwrap());
    println!("CRASH_SEED={seed}");
    Random::new(seed)
}

fn kills(unless_told: u64) -> u64 {
    std::env::var("CRASH_KILLS").map_or(unless_told, |kills| kills.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_kills_under_publishing_lose_reorder_and_reuse_nothing_that_was_answered() {
    let ordeal = Ordeal { kills: kills(KILLS), ring_max_events: "1000000", away_max: 0, loses_power: false };
    let outcome = ordeal.run().await;
    outcome.is_ordered();
    outcome.nothing_is_lost();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resets_are_exact_over_kills_for_who_was_away_too_long() {
    let ordeal = Ordeal { kills: kills(KILLS / 2), ring_max_events: "32", away_max: 400, loses_power: false };
    let outcome = ordeal.run().await;
    outcome.is_ordered();
    outcome.what_is_lost_is_counted();
}

/// kill -9, and of what was not synced only what chance leaves: see [`disk`].
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_loss_takes_nothing_that_was_answered() {
    let ordeal = Ordeal { kills: kills(KILLS / 2), ring_max_events: "1000000", away_max: 0, loses_power: true };
    let outcome = ordeal.run().await;
    outcome.is_ordered();
    outcome.nothing_is_lost();
}

/// With rows and large entries being deleted all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_loss_over_a_small_ring_leaves_resets_exact() {
    let ordeal = Ordeal { kills: kills(KILLS / 4), ring_max_events: "32", away_max: 400, loses_power: true };
    let outcome = ordeal.run().await;
    outcome.is_ordered();
    outcome.what_is_lost_is_counted();
}
