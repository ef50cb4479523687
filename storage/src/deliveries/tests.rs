use bytes::Bytes;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::clock::ManualClock;
use crate::ids::Epoch;
use crate::memory::MemoryRecords;
use crate::records::Durability;

fn gateway(number: u128) -> GatewayId {
    GatewayId(Uuid::from_u128(number))
}

fn cursor(seq: u64) -> Cursor {
    Cursor { epoch: Epoch(1), seq: Seq(seq) }
}

fn failure(of: u128, seq: u64, clock: &ManualClock) -> Failure {
    Failure {
        gateway: gateway(of),
        replica: None,
        event: cursor(seq),
        events: 1,
        event_type: Some("api.deployed".to_owned()),
        correlation_id: Some("c".to_owned()),
        reason: FailureReason::NotConnected,
        at: clock.now(),
    }
}

fn replica(name: &str) -> Replica {
    Replica::Named(name.into())
}

async fn open(records: &Arc<MemoryRecords>, clock: &Arc<ManualClock>, limits: DeliveryLimits) -> Deliveries {
    let records = Arc::clone(records) as Arc<dyn Records>;
    Deliveries::open(records, Arc::clone(clock) as Arc<dyn Clock>, limits).await.unwrap()
}

fn all(deliveries: &Deliveries) -> Vec<FailedDelivery> {
    deliveries.query(&DeliveryFilter::default(), 0, usize::MAX).1
}

/// The numbers of what is on disk.
async fn stored(records: &MemoryRecords) -> Vec<u64> {
    let rows = records.scan(Table::Deliveries).await.unwrap();
    let groups = rows.iter().flat_map(|(key, row)| group::decode(group::parse_key(key).unwrap(), row).unwrap());
    let numbers: Vec<_> = groups.map(|failure| failure.number).collect();
    assert_eq!(rows.iter().map(|(key, row)| in_row(key, row)).sum::<u64>(), numbers.len() as u64);
    numbers
}

fn seqs(rows: &[FailedDelivery]) -> Vec<u64> {
    rows.iter().map(|row| row.event.seq.0).collect()
}

#[tokio::test]
async fn flushed_failures_survive_a_reopen() {
    let (records, clock) = (Arc::default(), Arc::new(ManualClock::default()));
    let deliveries = open(&records, &clock, DeliveryLimits::default()).await;
    for seq in 1..=5 {
        deliveries.record(failure(1, seq, &clock));
    }
    assert_eq!(deliveries.recovered(gateway(1), (Seq(1), cursor(3)), &replica("r"), clock.now()), 2);
    deliveries.flush().await.unwrap();
    let before = all(&deliveries);
    assert_eq!(deliveries.totals().count, 5);
    drop(deliveries);

    let again = open(&records, &clock, DeliveryLimits::default()).await;
    assert_eq!(all(&again), before);
    assert_eq!(again.totals(), DeliveryTotals::default(), "totals count from the start of the process");
    assert_eq!(again.record(failure(1, 6, &clock)), 6, "numbers go on");
    assert_eq!(again.recovered(gateway(1), (Seq(0), cursor(9)), &replica("r"), clock.now()), 4);
    again.forget(gateway(1));
    again.flush().await.unwrap();
    assert_eq!(records.scan(Table::Deliveries).await.unwrap(), []);
}

#[tokio::test]
async fn only_later_events_of_the_same_epoch_recover() {
    let (records, clock) = (Arc::default(), Arc::new(ManualClock::default()));
    let deliveries = open(&records, &clock, DeliveryLimits::default()).await;
    for seq in 1..=4 {
        deliveries.record(failure(1, seq, &clock));
    }
    let other_epoch = Cursor { epoch: Epoch(2), seq: Seq(9) };
    assert_eq!(deliveries.recovered(gateway(1), (Seq(0), other_epoch), &replica("r"), clock.now()), 0);
    assert_eq!(deliveries.recovered(gateway(2), (Seq(0), cursor(9)), &replica("r"), clock.now()), 0);
    assert_eq!(deliveries.recovered(gateway(1), (Seq(3), cursor(3)), &replica("r"), clock.now()), 0);
    assert_eq!(deliveries.recovered(gateway(1), (Seq(2), cursor(3)), &replica("r"), clock.now()), 1);
    assert_eq!(deliveries.recovered(gateway(1), (Seq(2), cursor(3)), &replica("r"), clock.now()), 0, "once");
    let open: Vec<_> = all(&deliveries).into_iter().filter(|row| row.recovered_at.is_none()).collect();
    assert_eq!(seqs(&open), [4, 2, 1]);
}

#[tokio::test]
async fn count_and_age_are_bounded_and_one_gateway_cannot_push_out_another() {
    let (records, clock) = (Arc::default(), Arc::new(ManualClock::default()));
    let limits = DeliveryLimits { total: 6, per_gateway: 3, age: Duration::from_secs(60) };
    let deliveries = open(&records, &clock, limits).await;
    deliveries.record(failure(1, 1, &clock));
    for seq in 1..=100 {
        deliveries.record(failure(2, seq, &clock));
    }
    assert_eq!(seqs(&all(&deliveries)), [100, 99, 98, 1]);
    for of in 3..=5 {
        deliveries.record(failure(of, 7, &clock));
    }
    assert_eq!(seqs(&all(&deliveries)), [7, 7, 7, 100, 99, 98]);
    deliveries.flush().await.unwrap();
    assert_eq!(stored(&records).await, [99, 100, 101, 102, 103, 104]);

    clock.advance(Duration::from_secs(60));
    deliveries.record(failure(6, 8, &clock));
    assert_eq!(all(&deliveries).len(), 6, "as old as allowed");
    clock.advance(Duration::from_secs(1));
    assert_eq!(seqs(&all(&deliveries)), [8]);
    deliveries.flush().await.unwrap();
    assert_eq!(stored(&records).await, [105]);
}

#[tokio::test]
async fn a_query_filters_pages_and_counts() {
    let (records, clock) = (Arc::default(), Arc::new(ManualClock::default()));
    let deliveries = open(&records, &clock, DeliveryLimits::default()).await;
    let start = clock.now();
    for seq in 1..=10 {
        let reason = if seq % 2 == 0 { FailureReason::Overwritten } else { FailureReason::WriteStalled };
        deliveries.record(Failure { reason, ..failure(u128::from(seq) % 3, seq, &clock) });
        clock.advance(Duration::from_secs(1));
    }
    let query = |filter: DeliveryFilter, offset, limit| {
        let (total, rows) = deliveries.query(&filter, offset, limit);
        (total, seqs(&rows))
    };
    let of_one = DeliveryFilter { gateway: Some(gateway(1)), ..DeliveryFilter::default() };
    assert_eq!(query(of_one, 0, 10), (4, vec![10, 7, 4, 1]));
    assert_eq!(query(of_one, 1, 2), (4, vec![7, 4]));
    let overwritten = DeliveryFilter { reason: Some(FailureReason::Overwritten), ..of_one };
    assert_eq!(query(overwritten, 0, 10), (2, vec![10, 4]));
    let second = |n| Some(start + chrono::TimeDelta::seconds(n));
    let span = DeliveryFilter { since: second(2), until: second(5), ..DeliveryFilter::default() };
    assert_eq!(query(span, 0, 10), (3, vec![5, 4, 3]));
    assert_eq!(query(span, 3, 10), (3, vec![]));
}

#[tokio::test]
async fn a_failure_of_a_replica_recovers_when_the_last_of_its_events_reaches_that_replica() {
    let (records, clock) = (Arc::default(), Arc::new(ManualClock::default()));
    let deliveries = open(&records, &clock, DeliveryLimits::default()).await;
    let reason = FailureReason::ConnectionLost;
    deliveries.record(Failure { replica: Some(replica("a")), events: 5, reason, ..failure(1, 3, &clock) });
    deliveries.flush().await.unwrap();
    drop(deliveries);
    // Over a restart, as a row that keeps whose it is and how much.
    let deliveries = open(&records, &clock, DeliveryLimits::default()).await;
    let reached =
        |by, after, up_to| deliveries.recovered(gateway(1), (Seq(after), cursor(up_to)), &replica(by), clock.now());
    assert_eq!(reached("b", 0, 9), 0, "somebody else");
    assert_eq!(reached("a", 2, 6), 0, "not the last one yet");
    assert_eq!(reached("a", 7, 9), 0, "later ones");
    assert_eq!(reached("a", 6, 8), 1);
}

#[tokio::test]
async fn what_a_replica_could_not_apply_recovers_by_its_success_alone() {
    let (records, clock) = (Arc::default(), Arc::new(ManualClock::default()));
    let deliveries = open(&records, &clock, DeliveryLimits::default()).await;
    let reason = FailureReason::FailedByGateway;
    deliveries.record(Failure { replica: Some(replica("a")), reason, ..failure(1, 3, &clock) });
    let now = clock.now();
    assert_eq!(deliveries.recovered(gateway(1), (Seq(0), cursor(9)), &replica("a"), now), 0, "given again");
    assert_eq!(deliveries.applied(gateway(1), cursor(3), &replica("b"), now), 0, "by another one");
    assert_eq!(deliveries.applied(gateway(1), cursor(3), &replica("a"), now), 1);
}

#[tokio::test]
async fn what_a_replica_cannot_apply_however_often_it_tries_is_one_row_and_pushes_out_no_other() {
    let (records, clock) = (Arc::default(), Arc::new(ManualClock::default()));
    let limits = DeliveryLimits { per_gateway: 4, ..DeliveryLimits::default() };
    let deliveries = open(&records, &clock, limits).await;
    let reason = FailureReason::FailedByGateway;
    let failed = |by: &str, seq| {
        let failure = failure(1, seq, &clock);
        deliveries.record(Failure { replica: Some(replica(by)), event_type: None, reason, ..failure })
    };
    deliveries.record(failure(1, 3, &clock));
    failed("b", 3);
    let first = failed("a", 3);
    deliveries.describe(first, "api.deployed".to_owned(), "c".to_owned());
    for _ in 0..100 {
        clock.advance(Duration::from_secs(1));
        failed("a", 3);
    }
    failed("a", 4);
    let rows = all(&deliveries);
    let short: Vec<_> = rows.iter().map(|row| (row.reason, row.event.seq.0, row.replica.clone())).collect();
    let by = |name| Some(replica(name));
    assert_eq!(
        short,
        [(reason, 4, by("a")), (reason, 3, by("a")), (reason, 3, by("b")), (FailureReason::NotConnected, 3, None)]
    );
    assert_eq!((rows[1].at, rows[1].event_type.as_deref()), (clock.now(), Some("api.deployed")), "the latest");
    assert_eq!(deliveries.totals().of(reason), 103);
    deliveries.flush().await.unwrap();
    assert_eq!(all(&open(&records, &clock, limits).await), rows);
    assert_eq!(deliveries.applied(gateway(1), cursor(3), &replica("a"), clock.now()), 1);
    failed("a", 3);
    assert_eq!(all(&deliveries).iter().filter(|row| row.replica == by("a")).count(), 3, "what has recovered stays");
}

#[tokio::test]
async fn what_takes_the_place_of_a_failure_that_was_not_written_yet_is_written() {
    let (records, clock) = (Arc::default(), Arc::new(ManualClock::default()));
    let deliveries = open(&records, &clock, DeliveryLimits::default()).await;
    for _ in 0..2 {
        let reason = FailureReason::FailedByGateway;
        deliveries.record(Failure { replica: Some(replica("a")), reason, ..failure(1, 3, &clock) });
    }
    deliveries.flush().await.unwrap();
    let rows = all(&deliveries);
    assert_eq!(seqs(&rows), [3]);
    assert_eq!(all(&open(&records, &clock, DeliveryLimits::default()).await), rows);
}

#[tokio::test]
async fn what_an_event_is_may_be_said_later() {
    let (records, clock) = (Arc::default(), Arc::new(ManualClock::default()));
    let deliveries = open(&records, &clock, DeliveryLimits::default()).await;
    let [first, second] = [1, 2]
        .map(|seq| deliveries.record(Failure { event_type: None, correlation_id: None, ..failure(1, seq, &clock) }));
    deliveries.flush().await.unwrap();
    for number in [first, second, 99] {
        deliveries.describe(number, "api.deployed".to_owned(), "c".to_owned());
    }
    let rows = all(&deliveries);
    for row in &rows {
        assert_eq!((row.event_type.as_deref(), row.correlation_id.as_deref()), (Some("api.deployed"), Some("c")));
    }
    deliveries.flush().await.unwrap();
    assert_eq!(all(&open(&records, &clock, DeliveryLimits::default()).await), rows);
    assert_eq!(deliveries.recovered(gateway(1), (Seq(0), cursor(9)), &replica("a"), clock.now()), 2);
}

#[tokio::test]
async fn what_was_overwritten_never_recovers() {
    let (records, clock) = (Arc::default(), Arc::new(ManualClock::default()));
    let deliveries = open(&records, &clock, DeliveryLimits::default()).await;
    let reason = FailureReason::Overwritten;
    deliveries.record(Failure { replica: Some(replica("a")), reason, ..failure(1, 3, &clock) });
    assert_eq!(deliveries.recovered(gateway(1), (Seq(0), cursor(9)), &replica("a"), clock.now()), 0);
    assert!(!deliveries.may_recover(gateway(1)), "nobody looks for it");
}

#[tokio::test]
async fn rows_of_before_there_were_groups_are_read_and_replaced() {
    let (records, clock) = (Arc::<MemoryRecords>::default(), Arc::new(ManualClock::default()));
    let before = |number: u64| FailedDelivery {
        number,
        gateway: gateway(1),
        replica: (number == 3).then(|| replica("r")),
        event: cursor(number),
        events: 1,
        event_type: Some("api.deployed".into()),
        correlation_id: None,
        reason: FailureReason::NotConnected,
        at: clock.now(),
        recovered_at: (number == 5).then(|| clock.now()),
    };
    let mut rows: Vec<_> = (3..2_500).map(before).collect();
    let change = |row: &FailedDelivery| Change {
        table: Table::Deliveries,
        key: Bytes::copy_from_slice(&row.number.to_be_bytes()),
        row: Some(serde_json::to_vec(row).unwrap().into()),
    };
    records.commit(rows.iter().map(change).collect(), Durability::Synced).await.unwrap();
    rows.reverse();
    let limits = DeliveryLimits { per_gateway: 100_000, ..DeliveryLimits::default() };
    let deliveries = open(&records, &clock, limits).await;
    assert_eq!(all(&deliveries), rows);
    deliveries.record(failure(1, 9, &clock));
    deliveries.flush().await.unwrap();
    assert_eq!(stored(&records).await, (3..2_501).collect::<Vec<_>>(), "nothing is left in the old form");
    assert_eq!(all(&open(&records, &clock, limits).await), all(&deliveries));
}

#[test]
fn a_row_of_before_there_were_replicas_is_read() {
    let row = r#"{"number":1,"gateway":"00000000-0000-0000-0000-000000000001","event":"00000001-2","event_type":"t",
        "correlation_id":"c","reason":"not-connected","at":"2026-11-20T17:00:00Z","recovered_at":null}"#;
    let row: FailedDelivery = serde_json::from_str(row).unwrap();
    assert_eq!(
        (row.replica.is_none(), row.events, row.last(), row.event_type.as_deref()),
        (true, 1, Seq(2), Some("t"))
    );
}

#[test]
fn reasons_have_one_text_everywhere() {
    for reason in FailureReason::ALL {
        assert_eq!(reason.to_string().parse(), Ok(reason));
        assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
    }
    assert_eq!("Not-Connected".parse::<FailureReason>(), Err(UnknownReason));
}

#[derive(Debug, Clone)]
enum Step {
    Record(u128, u64, u64, FailureReason),
    Recovered(u128, u64, u64),
    Advance(u64),
    Forget(u128),
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4u128, 1..20u64, 1..4u64, proptest::sample::select(&FailureReason::ALL[..]))
            .prop_map(|(of, seq, events, reason)| Step::Record(of, seq, events, reason)),
        3 => (0..4u128, 0..20u64, 0..20u64).prop_map(|(of, a, b)| Step::Recovered(of, a, b)),
        2 => (0..30u64).prop_map(Step::Advance),
        1 => (0..4u128).prop_map(Step::Forget),
        1 => Just(Step::Flush),
    ]
}

proptest! {
    #[test]
    fn disk_follows_memory_and_the_counters_follow_the_rows(steps in proptest::collection::vec(step(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (records, clock) = (Arc::default(), Arc::new(ManualClock::default()));
            let limits = DeliveryLimits { total: 8, per_gateway: 4, age: Duration::from_secs(60) };
            let deliveries = open(&records, &clock, limits).await;
            for step in steps {
                match step {
                    Step::Record(of, seq, events, reason) => {
                        let replica = Some(replica(if seq % 2 == 0 { "r" } else { "s" }));
                        deliveries.record(Failure { replica, events, reason, ..failure(of, seq, &clock) });
                    }
                    Step::Recovered(of, a, b) => drop(deliveries.recovered(gateway(of), (Seq(a), cursor(b)), &replica("r"), clock.now())),
                    Step::Advance(seconds) => clock.advance(Duration::from_secs(seconds)),
                    Step::Forget(of) => deliveries.forget(gateway(of)),
                    Step::Flush => deliveries.flush().await.unwrap(),
                }
            }
            let rows = all(&deliveries);
            deliveries.flush().await.unwrap();
            let may_recover = |row: &FailedDelivery| row.recovered_at.is_none() && row.reason != FailureReason::Overwritten;
            for of in (0..4).map(gateway) {
                let any = rows.iter().any(|row| row.gateway == of && may_recover(row));
                assert_eq!(deliveries.may_recover(of), any);
            }
            assert_eq!(all(&open(&records, &clock, limits).await), rows);
        });
    }
}
