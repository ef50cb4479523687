use proptest::prelude::*;

use super::*;
use crate::clock::ManualClock;
use crate::ids::Seq;
use crate::memory::MemoryRecords;

const GATEWAY: GatewayId = GatewayId(Uuid::from_u128(1));
const EPOCH: Epoch = Epoch(7);

fn cursor(seq: u64) -> Cursor {
    Cursor { epoch: EPOCH, seq: Seq(seq) }
}

fn from(host: u8) -> Replica {
    Replica::Anonymous([192, 0, 2, host].into())
}

fn named(name: &str) -> Replica {
    Replica::of(Some(name), [192, 0, 2, 1].into())
}

fn outcome(applied: bool, code: &str, at: DateTime<Utc>) -> Outcome {
    let error_code = (!applied).then(|| code.to_owned());
    Outcome { applied, at, error_code, message: None }
}

struct World {
    records: Arc<MemoryRecords>,
    clock: Arc<ManualClock>,
    receipts: Receipts,
}

impl World {
    async fn new() -> Self {
        let (records, clock) = (Arc::new(MemoryRecords::new()), Arc::new(ManualClock::default()));
        let receipts = Receipts::open(records.clone(), clock.clone()).await.unwrap();
        Self { records, clock, receipts }
    }

    async fn restart(&mut self) {
        self.receipts.flush().await.unwrap();
        self.receipts = Receipts::open(self.records.clone(), self.clock.clone()).await.unwrap();
    }

    fn stored(&self, of: &Replica) -> Option<u64> {
        self.receipts.stored(GATEWAY, of, EPOCH).map(|cursor| cursor.seq.0)
    }

    fn enter(&self, of: &Replica, at: u64) -> Seat {
        self.receipts.enter(GATEWAY, of.clone(), Start::After(cursor(at)), true)
    }
}

#[tokio::test(start_paused = true)]
async fn who_idles_and_does_not_ask_to_be_caught_up_costs_no_row_until_it_received_an_event() {
    let world = World::new().await;
    let rows = async || {
        world.receipts.flush().await.unwrap();
        world.records.scan(Table::Positions).await.unwrap().len()
    };
    let enter = |name| world.receipts.enter(GATEWAY, named(name), Start::After(cursor(3)), false);
    drop(enter("idle"));
    let (idle, seat) = (enter("idle"), enter("hears"));
    assert_eq!(rows().await, 0);
    seat.sent(cursor(4), world.clock.millis());
    seat.confirmed(cursor(4), world.clock.now());
    drop((idle, seat));
    assert_eq!(rows().await, 1, "also when it left before its row was written");
    drop(enter("hears"));
    assert_eq!(rows().await, 1);
}

#[tokio::test]
async fn a_replica_begins_where_it_left_also_after_a_restart() {
    let mut world = World::new().await;
    assert_eq!(world.stored(&named("a")), None);
    let seat = world.enter(&named("a"), 3);
    seat.confirmed(cursor(9), world.clock.now());
    seat.confirmed(cursor(5), world.clock.now());
    assert_eq!(world.stored(&named("a")), Some(9));
    world.restart().await;
    assert_eq!(world.stored(&named("a")), Some(9), "left by the crash");
    drop(world.enter(&named("a"), 9));
    assert_eq!(world.stored(&named("b")), None, "a name of its own");
    world.clock.advance(TAKEN_KEPT + LEFT_KEPT * 30);
    drop(world.enter(&named("a"), 20));
    world.clock.advance(LEFT_KEPT * 30);
    world.restart().await;
    assert_eq!(world.stored(&named("a")), Some(20), "the last one is kept for ever");
}

#[tokio::test]
async fn two_that_look_alike_are_both_served_from_the_lower_position() {
    let world = World::new().await;
    let (a, b) = (world.enter(&from(1), 10), world.enter(&from(1), 5));
    drop((a, b));
    assert_eq!(world.stored(&from(1)), Some(5));
    let first = world.enter(&from(1), 5);
    first.confirmed(cursor(40), world.clock.now());
    world.clock.advance(TAKEN_KEPT * 4);
    assert_eq!(world.stored(&from(1)), Some(5), "the other may still be there");
    let second = world.enter(&from(1), 5);
    second.confirmed(cursor(50), world.clock.now());
    world.clock.advance(TAKEN_KEPT * 2);
    drop(second);
    assert_eq!(world.stored(&from(1)), Some(40), "both have come back");
}

#[tokio::test]
async fn a_name_is_one_replica_and_goes_on_where_it_was_last() {
    let world = World::new().await;
    let mut seat = world.enter(&named("a"), 3);
    for to in [6, 66, 70] {
        seat.confirmed(cursor(to), world.clock.now());
        drop(seat);
        assert_eq!(world.stored(&named("a")), Some(to));
        seat = world.enter(&named("a"), to);
    }
    // It is dead, and nobody has noticed.
    let next = world.enter(&named("a"), 70);
    next.confirmed(cursor(90), world.clock.now());
    drop(seat);
    drop(next);
    assert_eq!(world.stored(&named("a")), Some(90));
    drop(world.enter(&named("a"), 20));
    assert_eq!(world.stored(&named("a")), Some(20), "it may have been set back");
    // One is dead that nobody has noticed, while two come and go.
    let dead = world.enter(&named("a"), 20);
    let next = world.enter(&named("a"), 20);
    next.confirmed(cursor(50), world.clock.now());
    drop(next);
    let last = world.enter(&named("a"), 20);
    last.confirmed(cursor(80), world.clock.now());
    drop(dead);
    drop(last);
    assert_eq!(world.stored(&named("a")), Some(80));
}

#[tokio::test]
async fn a_dead_connection_that_is_noticed_late_takes_nothing_from_its_replica() {
    let world = World::new().await;
    let dead = world.enter(&named("a"), 4);
    dead.confirmed(cursor(6), world.clock.now());
    let next = world.enter(&named("a"), 6);
    next.confirmed(cursor(8), world.clock.now());
    drop(next);
    drop(dead);
    assert_eq!(world.stored(&named("a")), Some(8));
}

#[tokio::test]
async fn a_name_that_two_give_is_served_from_the_lower_position_once_both_were_heard() {
    let world = World::new().await;
    let (one, other) = (world.enter(&named("a"), 10), world.enter(&named("a"), 10));
    other.confirmed(cursor(40), world.clock.now());
    one.confirmed(cursor(12), world.clock.now());
    drop(one);
    assert_eq!(world.stored(&named("a")), Some(12));
    drop(other);
    let one = world.enter(&named("a"), 12);
    one.confirmed(cursor(60), world.clock.now());
    assert_eq!(world.stored(&named("a")), Some(12), "the other may still come");
}

#[tokio::test]
async fn what_is_shown_of_who_is_here_is_not_where_it_once_was() {
    let world = World::new().await;
    let shown = || world.receipts.replicas(GATEWAY, EPOCH).pop().unwrap().position.unwrap().seq.0;
    drop(world.enter(&from(1), 10));
    let seat = world.enter(&from(1), 10);
    seat.confirmed(cursor(70), world.clock.now());
    assert_eq!((shown(), world.stored(&from(1))), (70, Some(10)), "it may have been another that left");
}

#[tokio::test]
async fn who_speaks_beside_its_connection_is_the_last_to_come_of_its_name_and_else_alone() {
    let world = World::new().await;
    let said = |of: &Replica, to| world.receipts.received(GATEWAY, of, cursor(to));
    assert!(!said(&named("a"), 1), "nobody is here");
    let (_dead, seat) = (world.enter(&named("a"), 3), world.enter(&named("a"), 3));
    seat.sent(cursor(9), world.clock.millis());
    assert!(said(&named("a"), 9) && !said(&named("a"), 10), "it was not sent that");
    assert_eq!(seat.position(), cursor(9));
    let seats = [(); 2].map(|()| world.enter(&from(1), 3));
    seats.iter().for_each(|seat| seat.sent(cursor(9), world.clock.millis()));
    assert!(!said(&from(1), 9), "which of them?");
    let [seat, other] = seats;
    drop(other);
    assert!(said(&from(1), 9));
    assert_eq!(seat.position(), cursor(9));
}

#[tokio::test]
async fn who_speaks_between_two_connections_has_what_the_last_one_sent() {
    let mut world = World::new().await;
    let said = |world: &World, of: &Replica, to| world.receipts.received(GATEWAY, of, cursor(to));
    for of in [named("a"), from(1)] {
        let seat = world.enter(&of, 3);
        seat.sent(cursor(9), world.clock.millis());
        drop(seat);
        assert!(!said(&world, &of, 10), "it was not sent that");
        assert!(said(&world, &of, 7) && said(&world, &of, 5));
        assert_eq!(world.stored(&of), Some(7));
        assert!(world.receipts.timeline(GATEWAY, cursor(7), None).pop().unwrap().received_at.is_some());
        for (event, to) in [(9, 7), (8, 9)] {
            let (subject, now) = (Subject::Event(cursor(event)), world.clock.now());
            world.receipts.report(GATEWAY, &of, (subject, Some(cursor(event))), outcome(true, "", now));
            assert_eq!(world.stored(&of), Some(to), "outcomes of one event after the other");
        }
        world.restart().await;
        assert_eq!(world.stored(&of), Some(9));
        assert!(!said(&world, &of, 10));
        world.receipts.forget(GATEWAY);
    }
    for seat in [3, 4].map(|at| world.enter(&from(1), at)) {
        seat.sent(cursor(9), world.clock.millis());
    }
    assert!(!said(&world, &from(1), 9), "which of them?");
}

#[tokio::test]
async fn who_reports_of_one_event_after_the_other_has_received_them() {
    let world = World::new().await;
    let seat = world.enter(&named("a"), 0);
    seat.sent(cursor(5), world.clock.millis());
    let report = |event: u64, applied| {
        let (subject, now) = (Subject::Event(cursor(event)), world.clock.now());
        world.receipts.report(GATEWAY, &named("a"), (subject, Some(cursor(event))), outcome(applied, "E", now));
        seat.position().seq.0
    };
    assert_eq!(
        [(1, true), (3, true), (4, false), (2, true), (6, true)].map(|(event, ok)| report(event, ok)),
        [1, 1, 1, 4, 4]
    );
    let (subject, now) = (Subject::Deployment(Uuid::from_u128(5)), world.clock.now());
    world.receipts.report(GATEWAY, &named("a"), (subject, Some(cursor(5))), outcome(true, "", now));
    assert_eq!(seat.position(), cursor(5), "by its other name");
}

#[tokio::test]
async fn a_stranger_may_be_any_of_the_others() {
    let world = World::new().await;
    drop(world.enter(&from(1), 10));
    let seat = world.enter(&from(2), 10);
    seat.confirmed(cursor(30), world.clock.now());
    assert_eq!(world.stored(&from(3)), Some(10));
    assert_eq!(world.stored(&from(2)), Some(30), "its own");
    assert_eq!(world.stored(&named("n")), None);
    world.clock.advance(LEFT_KEPT * 2);
    assert_eq!(world.stored(&from(3)), Some(30));
    assert_eq!(world.stored(&from(1)), Some(10), "its own, however long ago");
}

#[tokio::test]
async fn a_position_of_a_lost_log_comes_first() {
    let world = World::new().await;
    let lost = Cursor { epoch: Epoch(1), seq: Seq(900) };
    drop(world.receipts.enter(GATEWAY, from(1), Start::After(lost), true));
    drop(world.enter(&from(1), 5));
    assert_eq!(world.receipts.stored(GATEWAY, &from(1), EPOCH), Some(lost));
}

#[tokio::test]
async fn a_late_success_stands_and_outcomes_survive_a_restart() {
    let mut world = World::new().await;
    let (a, b) = (world.enter(&named("a"), 0), world.enter(&named("b"), 0));
    let (event, deployment) = (Subject::Event(cursor(1)), Subject::Deployment(Uuid::nil()));
    let now = world.clock.now();
    let report = |of: &str, subject, outcome| world.receipts.report(GATEWAY, &named(of), (subject, None), outcome);
    assert_eq!(report("a", event, outcome(false, "E", now)), Reported::New);
    assert_eq!(report("a", event, outcome(false, "E", now)), Reported::Nothing);
    assert_eq!(report("b", deployment, outcome(false, "F", now)), Reported::New);
    assert_eq!(report("a", event, outcome(true, "", now)), Reported::New);
    assert_eq!(report("a", event, outcome(false, "late", now)), Reported::Nothing);
    assert_eq!(report("nobody", event, outcome(true, "", now)), Reported::Unknown);
    drop((a, b));
    world.restart().await;
    let outcomes = world.receipts.outcomes(GATEWAY, &[event, deployment]);
    let shown: Vec<_> =
        outcomes.iter().map(|(replica, outcome)| (replica.instance(), outcome.as_ref().unwrap().applied)).collect();
    assert_eq!(shown, [("a", true), ("b", false)]);
}

/// They were all connected at once, so none could be forgotten then.
#[tokio::test]
async fn of_more_replicas_than_are_remembered_those_that_left_are_forgotten_once_another_comes() {
    let world = World::new().await;
    let seats: Vec<_> = (0..2 * INSTANCES_PER_GATEWAY_MAX).map(|n| world.enter(&named(&n.to_string()), 1)).collect();
    let known = || world.receipts.replicas(GATEWAY, EPOCH).len();
    assert_eq!(known(), 2 * INSTANCES_PER_GATEWAY_MAX);
    for seat in seats {
        world.clock.advance(Duration::from_secs(1));
        drop(seat);
    }
    drop(world.enter(&named("another"), 1));
    world.receipts.flush().await.unwrap();
    assert_eq!(known(), INSTANCES_PER_GATEWAY_MAX);
    assert_eq!(world.records.scan(Table::Positions).await.unwrap().len(), INSTANCES_PER_GATEWAY_MAX);
    assert_eq!(world.stored(&named("0")), None, "who left first went first");
    assert_eq!(world.stored(&named(&(2 * INSTANCES_PER_GATEWAY_MAX - 1).to_string())), Some(1));
}

#[tokio::test]
async fn replicas_and_outcomes_are_bounded_on_disk_too() {
    let world = World::new().await;
    let seat = world.enter(&named("stays"), 1);
    for n in 0..2 * INSTANCES_PER_GATEWAY_MAX {
        drop(world.enter(&named(&n.to_string()), 1));
        world.clock.advance(Duration::from_secs(1));
    }
    for n in 0..2 * EVENT_OUTCOMES_PER_INSTANCE_MAX {
        let outcome = Outcome { message: Some("m".repeat(9_000)), ..outcome(false, "E", world.clock.now()) };
        world.receipts.report(GATEWAY, seat.replica(), (Subject::Event(cursor(n as u64)), None), outcome);
    }
    world.receipts.flush().await.unwrap();
    assert_eq!(world.receipts.replicas(GATEWAY, EPOCH).len(), INSTANCES_PER_GATEWAY_MAX);
    assert_eq!(world.records.scan(Table::Positions).await.unwrap().len(), INSTANCES_PER_GATEWAY_MAX);
    let rows = world.records.scan(Table::Outcomes).await.unwrap();
    assert!(rows.len() == 1 && rows[0].1.len() < EVENT_OUTCOMES_PER_INSTANCE_MAX * 512);
    let oldest = [Subject::Event(cursor(EVENT_OUTCOMES_PER_INSTANCE_MAX as u64 - 1))];
    let outcomes = world.receipts.outcomes(GATEWAY, &oldest);
    assert_eq!(outcomes, [(named("stays"), None)], "connected, and its oldest outcomes are gone");

    world.receipts.set_anchor(GATEWAY, cursor(1));
    world.receipts.flush().await.unwrap();
    world.receipts.forget(GATEWAY);
    drop(seat);
    world.receipts.flush().await.unwrap();
    for table in [Table::Positions, Table::Outcomes] {
        assert_eq!(world.records.scan(table).await.unwrap(), []);
    }
}

/// How many replicas have a deployment is asked for as long as it is deployed.
#[tokio::test]
async fn outcomes_of_deployments_are_not_pushed_out_by_those_of_events_and_are_bounded_too() {
    let world = World::new().await;
    let seat = world.enter(&named("a"), 1);
    let report =
        |subject| world.receipts.report(GATEWAY, seat.replica(), (subject, None), outcome(true, "", world.clock.now()));
    let of = |subject: Subject| world.receipts.outcomes(GATEWAY, &[subject])[0].1.is_some();
    let deployment = |n: usize| Subject::Deployment(Uuid::from_u128(n as u128));
    report(deployment(0));
    for n in 0..2 * EVENT_OUTCOMES_PER_INSTANCE_MAX {
        report(Subject::Event(cursor(n as u64)));
    }
    assert!(of(deployment(0)) && !of(Subject::Event(cursor(0))));
    for n in 1..=DEPLOYMENT_OUTCOMES_PER_INSTANCE_MAX {
        report(deployment(n));
    }
    assert!(!of(deployment(0)) && of(deployment(1)));
    assert!(of(Subject::Event(cursor(EVENT_OUTCOMES_PER_INSTANCE_MAX as u64))), "nor the other way round");
}

#[tokio::test]
async fn a_timeline_tells_how_far_an_event_has_come() {
    let world = World::new().await;
    let seat = world.enter(&named("a"), 0);
    let start = world.clock.now();
    let second = Duration::from_secs(1);
    world.clock.advance(second);
    seat.sent(cursor(2), world.clock.millis());
    world.clock.advance(second);
    seat.confirmed(cursor(1), world.clock.now());
    let timeline = |event| world.receipts.timeline(GATEWAY, cursor(event), None).pop().unwrap();
    let first = timeline(1);
    assert_eq!((first.is_sent, first.is_received), (true, true));
    assert_eq!((first.sent_at, first.received_at), (Some(start + second), Some(start + 2 * second)));
    assert_eq!((timeline(2).is_sent, timeline(2).is_received), (true, false));
    assert!(!timeline(3).is_sent);
    drop(seat);
    assert_eq!(timeline(1), Passage { is_connected: false, ..first });
}

#[tokio::test]
async fn what_was_there_when_a_connection_began_at_the_end_was_not_sent_to_it() {
    let mut world = World::new().await;
    let live = |world: &World, at| world.receipts.enter(GATEWAY, named("a"), Start::AtTheEnd(cursor(at)), true);
    let status = |world: &World, event| {
        let passage = world.receipts.timeline(GATEWAY, cursor(event), None).pop();
        passage.map_or((false, false), |passage| (passage.is_sent, passage.is_received))
    };
    let seat = live(&world, 4);
    seat.sent(cursor(6), world.clock.millis());
    seat.confirmed(cursor(6), world.clock.now());
    assert_eq!([1, 4, 5, 6, 7].map(|event| status(&world, event).1), [false, false, true, true, false]);
    drop(seat);
    drop(live(&world, 9));
    world.restart().await;
    assert_eq!([4, 8, 9].map(|event| status(&world, event)), [(false, false); 3]);
    // It asks for what it has missed.
    let seat = world.enter(&named("a"), 6);
    seat.sent(cursor(9), world.clock.millis());
    assert_eq!([4, 7, 9].map(|event| status(&world, event).0), [false, true, true]);
}

#[tokio::test]
async fn what_a_replica_was_led_past_was_not_sent_to_it_until_it_asks_for_that_again() {
    let mut world = World::new().await;
    let skipped = |world: &World| world.receipts.skipped(GATEWAY, &named("a"), cursor(0).epoch);
    let seat = world.enter(&named("a"), 2);
    assert_eq!(skipped(&world), None);
    seat.skipped(Seq(2), cursor(5));
    seat.sent(cursor(8), world.clock.millis());
    drop(seat);
    world.restart().await;
    assert_eq!(skipped(&world), Some(Seq(5)), "kept on disk");
    assert_eq!(world.receipts.skipped(GATEWAY, &named("b"), cursor(0).epoch), None);
    let seat = world.enter(&named("a"), 8);
    seat.skipped(Seq(8), cursor(9));
    assert_eq!(skipped(&world), Some(Seq(9)));
    for (at, left) in [(9, Some(9)), (4, Some(4)), (2, None)] {
        drop(world.enter(&named("a"), at));
        assert_eq!(skipped(&world), left.map(Seq), "{at}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Come(usize),
    Confirm(usize, u64),
    Go(usize),
    Restart,
    Advance(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_usize).prop_map(Step::Come),
        4 => (0..3_usize, 0..10_u64).prop_map(|(who, by)| Step::Confirm(who, by)),
        3 => (0..3_usize).prop_map(Step::Go),
        1 => Just(Step::Restart),
        2 => (0..120_u64).prop_map(Step::Advance),
    ]
}

/// Times after which marks are forgotten, but not positions that were left.
fn slow_step() -> impl Strategy<Value = Step> {
    prop_oneof![4 => step(), 1 => (0..7_200_u64).prop_map(Step::Advance)]
}

/// Lives through the steps; each of three has received everything up to its own mark and must never begin after it.
async fn nobody_is_skipped(steps: Vec<Step>, of: [Replica; 3], within: Duration) {
    let mut world = World::new().await;
    let mut seats: [Option<Seat>; 3] = [None, None, None];
    let mut marks: [Option<u64>; 3] = [None; 3];
    let mut spent = 0;
    for step in steps {
        match step {
            Step::Come(who) => {
                let start = world.stored(&of[who]);
                let mark = marks[who].or(start).unwrap_or(0);
                let start = start.unwrap_or(0);
                assert!(start <= mark, "{who} begins at {start} and has received up to {mark}");
                // A dead connection may not have been noticed yet.
                let before = seats[who].replace(world.enter(&of[who], start));
                drop(before);
                marks[who] = Some(mark);
            }
            Step::Confirm(who, by) => {
                if let (Some(seat), Some(mark)) = (&seats[who], &mut marks[who]) {
                    *mark += by;
                    seat.confirmed(cursor(*mark), world.clock.now());
                }
            }
            Step::Go(who) => seats[who] = None,
            Step::Restart => {
                world.receipts.flush().await.unwrap();
                seats = [None, None, None];
                world.restart().await;
            }
            // Within the times that are promised.
            Step::Advance(seconds) if spent + seconds < within.as_secs() => {
                spent += seconds;
                world.clock.advance(Duration::from_secs(seconds));
            }
            Step::Advance(_) => {}
        }
    }
}

#[derive(Debug, Clone)]
enum StepOfOne {
    /// It is back, before anybody has noticed that it was gone or after.
    Come,
    Confirm(u64),
    /// Its newest connection ends, or it is noticed that an older one has.
    Go(usize),
    Restart,
}

fn step_of_one() -> impl Strategy<Value = StepOfOne> {
    prop_oneof![
        4 => Just(StepOfOne::Come),
        4 => (0..10_u64).prop_map(StepOfOne::Confirm),
        4 => (0..4_usize).prop_map(StepOfOne::Go),
        1 => Just(StepOfOne::Restart),
    ]
}

/// Lives through the steps as one replica of a name, which hears on its newest connection only: it stays known, and begins nowhere
/// after what it has.
async fn one_by_name_goes_on(steps: Vec<StepOfOne>) {
    let (mut world, of) = (World::new().await, named("a"));
    let (mut seats, mut is_up, mut mark) = (Vec::new(), false, 0);
    for step in steps {
        match step {
            StepOfOne::Come => {
                let start = world.stored(&of).unwrap_or(0);
                seats.push(world.enter(&of, start));
                is_up = true;
            }
            StepOfOne::Confirm(by) => {
                if let Some(seat) = seats.last().filter(|_| is_up) {
                    mark += by;
                    seat.confirmed(cursor(mark), world.clock.now());
                }
            }
            StepOfOne::Go(which) if !seats.is_empty() => {
                let which = which % seats.len();
                is_up &= which + 1 < seats.len();
                drop(seats.remove(which));
            }
            StepOfOne::Go(_) => {}
            StepOfOne::Restart => {
                world.receipts.flush().await.unwrap();
                (seats, is_up) = (Vec::new(), false);
                world.restart().await;
            }
        }
        let start = world.stored(&of);
        assert!(mark == 0 || start.is_some(), "nothing is known of it any more");
        assert!(start.unwrap_or(0) <= mark, "it begins at {start:?} and has received up to {mark}");
    }
    world.receipts.flush().await.unwrap();
}

proptest! {
    #[test]
    fn one_of_a_name_is_never_skipped_over_nor_forgotten(steps in proptest::collection::vec(step_of_one(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(one_by_name_goes_on(steps));
    }

    #[test]
    fn three_that_look_alike_are_never_skipped_over(steps in proptest::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(nobody_is_skipped(steps, [from(1), from(1), from(1)], TAKEN_KEPT));
    }

    #[test]
    fn three_at_addresses_of_their_own_are_never_skipped_over(steps in proptest::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(nobody_is_skipped(steps, [from(1), from(2), from(3)], LEFT_KEPT));
    }

    #[test]
    fn three_that_look_alike_and_were_seen_together_are_not_skipped_over_for_a_day(steps in proptest::collection::vec(slow_step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let together = (0..3).map(Step::Come).chain(steps).collect();
        runtime.block_on(nobody_is_skipped(together, [from(1), from(1), from(1)], LEFT_KEPT));
    }
}
