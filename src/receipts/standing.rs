//! How far a deployment is: derived from its row, what replicas reported, and the time.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use gatecast_storage::{Deployment, DeploymentStatus, Outcome, Receipts, Replica, Subject};

/// A deployment of which no replica has said anything for so long counts as failed, until one does.
pub const DEPLOYMENT_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// The code of a deployment that no replica has reported on in time.
pub(crate) const TIMED_OUT: &str = "TIMED_OUT";

/// How far a deployment is.
pub(crate) struct Standing {
    pub(crate) status: DeploymentStatus,
    /// Replicas that applied it.
    pub(crate) applied: usize,
    /// Replicas that are connected or reported.
    pub(crate) of: usize,
    /// Replicas that could not apply it, and what they said.
    pub(crate) failures: Vec<(Replica, Outcome)>,
    /// Nobody has said anything in time.
    pub(crate) is_late: bool,
}

/// The standing of a deployment now. One success is success: that others failed is told by `failures` and by `applied`
/// being less than `of`.
pub(crate) fn standing(row: &Deployment, receipts: &Receipts, now: DateTime<Utc>) -> Standing {
    let subjects: Vec<_> = [Subject::Deployment(row.id)].into_iter().chain(row.event.map(Subject::Event)).collect();
    let outcomes = receipts.outcomes(row.gateway, &subjects);
    of(row, outcomes, now)
}

fn of(row: &Deployment, outcomes: Vec<(Replica, Option<Outcome>)>, now: DateTime<Utc>) -> Standing {
    let of = outcomes.len();
    let reported: Vec<_> = outcomes.into_iter().filter_map(|(replica, outcome)| Some((replica, outcome?))).collect();
    let (applied, failures): (Vec<_>, Vec<_>) = reported.into_iter().partition(|(_, outcome)| outcome.applied);
    let done = match row.status {
        DeploymentStatus::Deploying => Some(DeploymentStatus::Deployed),
        DeploymentStatus::Undeploying => Some(DeploymentStatus::Undeployed),
        DeploymentStatus::Deployed | DeploymentStatus::Failed | DeploymentStatus::Undeployed => None,
    };
    let timeout = TimeDelta::from_std(DEPLOYMENT_TIMEOUT).unwrap_or(TimeDelta::MAX);
    let is_silent = applied.is_empty() && failures.is_empty();
    let is_late = done.is_some() && is_silent && now.signed_duration_since(row.performed_at) >= timeout;
    let status = match done {
        Some(done) if !applied.is_empty() => done,
        Some(_) if !failures.is_empty() || is_late => DeploymentStatus::Failed,
        _ => row.status,
    };
    Standing { status, applied: applied.len(), of, failures, is_late }
}

#[cfg(test)]
mod tests {
    use gatecast_storage::GatewayId;
    use uuid::Uuid;

    use super::*;

    fn row(status: DeploymentStatus) -> Deployment {
        Deployment {
            id: Uuid::nil(),
            api: "a".parse().unwrap(),
            gateway: GatewayId(Uuid::nil()),
            revision: "r".into(),
            vhost: "v".into(),
            environment: "e".into(),
            status,
            event: None,
            performed_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::UNIX_EPOCH,
            pending: None,
            earlier: Vec::new(),
            deleted_at: None,
        }
    }

    fn replicas(outcomes: &[Option<bool>]) -> Vec<(Replica, Option<Outcome>)> {
        let at = DateTime::UNIX_EPOCH;
        let outcome = |applied| Outcome { applied, at, error_code: None, message: None };
        let replica = |n: usize| Replica::Named(n.to_string().into());
        outcomes.iter().enumerate().map(|(n, applied)| (replica(n), applied.map(outcome))).collect()
    }

    #[test]
    fn one_failure_is_k_of_n_and_a_late_success_wins() {
        use DeploymentStatus::{Deployed, Deploying, Failed, Undeployed, Undeploying};
        let (soon, late) = (DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH + DEPLOYMENT_TIMEOUT);
        for (status, outcomes, now, shown, applied) in [
            (Deploying, &[][..], soon, Deploying, 0),
            (Deploying, &[None, None], late, Failed, 0),
            (Deploying, &[None, Some(false)], soon, Failed, 0),
            (Deploying, &[Some(true), Some(false), None], late, Deployed, 1),
            (Undeploying, &[Some(false)], late, Failed, 0),
            (Undeploying, &[Some(true)], late, Undeployed, 1),
            (Deployed, &[Some(false)], late, Deployed, 0),
        ] {
            let standing = of(&row(status), replicas(outcomes), now);
            assert_eq!((standing.status, standing.applied, standing.of), (shown, applied, outcomes.len()));
            assert_eq!(standing.is_late, shown == Failed && outcomes.iter().all(Option::is_none));
        }
    }
}
