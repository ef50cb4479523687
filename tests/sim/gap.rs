//! The time to a gap that operators are shown is right within 10 % while events come steadily.

use std::time::Duration;

use gatecast::gap::Outlook;
use gatecast_storage::{Clock as _, Cursor, Retention, Seq};

use crate::world::{Settings, World};

/// Publishes every `interval`; after `before` events predicts when a replica at `position` has a gap, and goes on until
/// it has.
async fn predicted_and_true(retention: Retention, interval: Duration, before: u64, position: u64) -> (f64, f64) {
    let world = World::with(Settings { retention, ..Settings::default() }).await;
    let member = world.gateway().await;
    for n in 0..before {
        world.clock.advance(interval);
        world.publish(member.id, n).await;
    }
    world.clock.advance(interval / 3);
    let (log, start) = (world.hub.log.as_ref(), world.clock.now());
    let bounds = log.bounds(member.id).await.unwrap();
    let position = Cursor { epoch: bounds.epoch, seq: Seq(position) };
    let outlook = Outlook::of(log, member.id, bounds, retention, start).await.unwrap();
    let predicted = outlook.time_to_gap(log, position).await.unwrap().unwrap();
    world.clock.advance(interval - interval / 3);
    for n in before.. {
        world.publish(member.id, n).await;
        if log.bounds(member.id).await.unwrap().oldest > position.seq.next() {
            break;
        }
        world.clock.advance(interval);
    }
    (predicted, (world.clock.now() - start).as_seconds_f64())
}

#[tokio::test(start_paused = true)]
async fn the_time_to_a_gap_is_predicted_within_a_tenth() {
    let wide = Settings::default().retention;
    let by_count = Retention { max_events: 500, ..wide };
    let by_bytes = Retention { max_bytes: 60_000, ..wide };
    let by_age = Retention { max_age: Duration::from_secs(120), ..wide };
    for (retention, before, position) in
        [(by_count, 100, 100), (by_count, 400, 30), (by_bytes, 150, 100), (by_age, 200, 180), (by_age, 50, 50)]
    {
        for interval in [Duration::from_millis(250), Duration::from_secs(1)] {
            let (predicted, truly) = predicted_and_true(retention, interval, before, position).await;
            let off = (predicted - truly).abs() / truly;
            assert!(off < 0.1, "predicted {predicted} s, it took {truly} s: {retention:?}, {interval:?}, {position}");
        }
    }
}
