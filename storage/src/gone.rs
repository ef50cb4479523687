//! What deletions have left that did not come to their end.
//!
//! A deletion takes a gateway out of the [`Directory`] first, so that nobody is admitted any more, and then drops what is
//! kept of it. A crash between the two, or a log that cannot be written then, leaves a log that nobody asks for again: a
//! new gateway has a new id. So does one within the second after it leave what belongs to the log, which is written behind.
//! So does who was under way meanwhile and asks for the log or appends to it, which makes it anew: whoever may have looks
//! afterwards ([`forget_if_gone`]). [`forget_gone`] finds what is left after a start, beside everything else: 100,000 logs
//! take it 0.2 s, of which none is a start's.

use std::collections::HashSet;
use std::time::Duration;

use tokio::task::yield_now;

use crate::deliveries::Deliveries;
use crate::directory::Directory;
use crate::ids::GatewayId;
use crate::log::{EventLog, LogError};
use crate::receipts::Receipts;

/// How long after a start it is looked for them: first come all who were connected.
const LOOK_AFTER: Duration = Duration::from_secs(60);
/// Gateways that are looked at before others get a turn.
const GATEWAYS_AT_ONCE: usize = 1_024;

/// Forgets, once and some time after it is called, what is kept of gateways that are not in the directory: logs, and
/// what belongs to them. What cannot be forgotten then is at the next start.
pub async fn forget_gone(directory: &Directory, log: &dyn EventLog, receipts: &Receipts, deliveries: &Deliveries) {
    tokio::time::sleep(LOOK_AFTER).await;
    match forget_all(directory, log, receipts, deliveries).await {
        Ok(0) => {}
        Ok(gateways) => {
            tracing::info!(gateways, "What was kept of gateways whose deletion had not come to its end is gone.")
        }
        Err(error) => tracing::warn!(%error, "Logs of deleted gateways may be left; the next start looks again."),
    }
}

/// Drops what is kept of a gateway that is not in the directory any more; says whether it is not. A log that cannot be dropped
/// now is left to the next start.
pub async fn forget_if_gone(
    of: GatewayId,
    directory: &Directory,
    log: &dyn EventLog,
    receipts: &Receipts,
    deliveries: &Deliveries,
) -> bool {
    let is_gone = directory.gateway(of).is_none();
    if is_gone && let Err(error) = forget(of, log, receipts, deliveries).await {
        tracing::warn!(gateway.id = %of, %error, "The log of a deleted gateway could not be dropped; that is made up for after the next start.");
    }
    is_gone
}

async fn forget(
    of: GatewayId,
    log: &dyn EventLog,
    receipts: &Receipts,
    deliveries: &Deliveries,
) -> Result<(), LogError> {
    deliveries.forget(of);
    receipts.forget(of);
    log.forget(of).await
}

async fn forget_all(
    directory: &Directory,
    log: &dyn EventLog,
    receipts: &Receipts,
    deliveries: &Deliveries,
) -> Result<u64, LogError> {
    // Looked up after something of it was found: a gateway is in the directory before there is anything.
    let is_gone = |of: &GatewayId| directory.gateway(*of).is_none();
    let (mut forgotten, mut last) = (0, None);
    loop {
        let gateways = log.gateways(last, GATEWAYS_AT_ONCE).await?;
        let Some(of) = gateways.last() else { break };
        last = Some(*of);
        for gone in gateways.into_iter().filter(is_gone) {
            forget(gone, log, receipts, deliveries).await?;
            forgotten += 1;
        }
    }
    let known: HashSet<_> = receipts.gateways().into_iter().chain(deliveries.gateways()).collect();
    for (n, of) in known.into_iter().enumerate() {
        if is_gone(&of) {
            deliveries.forget(of);
            receipts.forget(of);
            forgotten += 1;
        }
        if n % GATEWAYS_AT_ONCE == 0 {
            yield_now().await;
        }
    }
    Ok(forgotten)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::{Clock as _, ManualClock};
    use crate::contract::{ROOMY, gateway};
    use crate::deliveries::{DeliveryFilter, DeliveryLimits, Failure, FailureReason};
    use crate::directory::{Access, CatchUp, Gateway, OrganizationId};
    use crate::log::NoFollower;
    use crate::receipts::{Replica, Start};
    use crate::stores::open_memory;

    fn registered(id: GatewayId, clock: &ManualClock) -> Gateway {
        Gateway {
            id,
            organization: OrganizationId(uuid::Uuid::from_u128(1)),
            name: id.to_string().into(),
            display_name: "".into(),
            description: None,
            vhost: None,
            catch_up: CatchUp::Live,
            access: Access::default(),
            created_at: clock.now(),
            updated_at: clock.now(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_of_gateways_that_are_gone_is_forgotten_and_nothing_of_others() {
        let clock = Arc::new(ManualClock::default());
        let stores = open_memory(ROOMY, clock.clone(), Arc::new(NoFollower));
        let directory = Directory::open(stores.directory_records.clone()).await.unwrap();
        let receipts = Receipts::open(stores.events_records.clone(), clock.clone()).await.unwrap();
        let deliveries = Deliveries::open(stores.events_records.clone(), clock.clone(), DeliveryLimits::default());
        let deliveries = deliveries.await.unwrap();
        let (mut heads, mut gone) = (Vec::new(), Vec::new());
        for n in 0..3 * GATEWAYS_AT_ONCE {
            let of = gateway();
            let head = stores.log.bounds(of).await.unwrap().head();
            drop(receipts.enter(of, Replica::of(Some("a"), [127, 0, 0, 1].into()), Start::After(head), true));
            if n % 3 == 0 {
                gone.push((of, head));
            } else {
                directory.create_gateway(registered(of, &clock)).await.unwrap();
                heads.push((of, head));
            }
        }
        forget_gone(&directory, &*stores.log, &receipts, &deliveries).await;
        for (of, head) in heads {
            assert_eq!(stores.log.owner_of(head.epoch).await.unwrap(), Some(of));
            assert_eq!(receipts.replicas(of, head.epoch).len(), 1);
        }
        for (of, head) in gone {
            assert_eq!(stores.log.owner_of(head.epoch).await.unwrap(), None);
            assert_eq!(receipts.replicas(of, head.epoch).len(), 0);
        }
    }

    /// Its log goes at once, and what belongs to that a second later.
    #[tokio::test(start_paused = true)]
    async fn what_is_kept_of_gateways_whose_log_is_gone_is_forgotten_too() {
        let clock = Arc::new(ManualClock::default());
        let stores = open_memory(ROOMY, clock.clone(), Arc::new(NoFollower));
        let directory = Directory::open(stores.directory_records.clone()).await.unwrap();
        let [kept, of_receipts, of_deliveries, of_both] = [(); 4].map(|()| gateway());
        directory.create_gateway(registered(kept, &clock)).await.unwrap();
        let receipts = Receipts::open(stores.events_records.clone(), clock.clone()).await.unwrap();
        let deliveries = Deliveries::open(stores.events_records.clone(), clock.clone(), DeliveryLimits::default());
        let deliveries = deliveries.await.unwrap();
        let head = stores.log.bounds(kept).await.unwrap().head();
        for of in [kept, of_receipts, of_both] {
            drop(receipts.enter(of, Replica::of(Some("a"), [127, 0, 0, 1].into()), Start::After(head), true));
        }
        for gateway in [kept, of_deliveries, of_both] {
            let (event_type, correlation_id, reason) = (None, None, FailureReason::NotConnected);
            let (at, event, events, replica) = (clock.now(), head, 1, None);
            deliveries.record(Failure { gateway, replica, event, events, event_type, correlation_id, reason, at });
        }
        forget_gone(&directory, &*stores.log, &receipts, &deliveries).await;
        for of in [kept, of_receipts, of_deliveries, of_both] {
            let failed = DeliveryFilter { gateway: Some(of), ..DeliveryFilter::default() };
            let left = (receipts.replicas(of, head.epoch).len(), deliveries.query(&failed, 0, 1).0);
            assert_eq!(left, if of == kept { (1, 1) } else { (0, 0) });
        }
    }
}
