//! Until when the server's certificate is valid. When it is not any more the whole fleet is cut off at once, so it is told
//! before: to who scrapes the metrics, and in the log.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use gatecast_storage::Clock;
use rustls::pki_types::{CertificateDer, UnixTime};
use tracing::{error, warn};
use webpki::{EndEntityCert, Error, KeyUsage};

/// From so long before its end on the log tells of it.
const TOLD_BEFORE: TimeDelta = TimeDelta::days(14);
/// How often it does.
const TOLD_EVERY: TimeDelta = TimeDelta::days(1);

/// The end of the certificate in use. Shared by who reads certificates and who tells.
pub struct Expiry {
    known: Mutex<Known>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct Known {
    at: Option<DateTime<Utc>>,
    told: Option<DateTime<Utc>>,
}

impl Expiry {
    /// No end is known yet.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { known: Mutex::default(), clock }
    }

    /// Another certificate is in use, with this end if that is known.
    pub(crate) fn set(&self, at: Option<DateTime<Utc>>) {
        *self.known() = Known { at, told: None };
        self.tell();
    }

    /// When the certificate in use ends.
    pub(crate) fn at(&self) -> Option<DateTime<Utc>> {
        self.known().at
    }

    /// Logs that the end is near, or was, unless that was told within a day.
    pub(crate) fn tell(&self) {
        let (mut known, now) = (self.known(), self.clock.now());
        let Some(at) = known.at.filter(|at| *at - now <= TOLD_BEFORE) else { return };
        // However far ahead it was told of: clocks are set back.
        if known.told.is_some_and(|told| (now - told).abs() < TOLD_EVERY) {
            return;
        }
        known.told = Some(now);
        if at <= now {
            error!(expires_at = %at, "The certificate has expired: gateways that check it stay away. Replace the files; no restart is needed.");
        } else {
            let days = (at - now).num_days();
            warn!(expires_at = %at, days, "The certificate expires soon. Replace the files; no restart is needed.");
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When a certificate ends: what webpki says of it at the end of time, which is looked at before who issued it.
pub(crate) fn end_of(certificate: &CertificateDer<'_>) -> Option<DateTime<Utc>> {
    let end_of_time = UnixTime::since_unix_epoch(Duration::MAX);
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let verified =
        certificate.verify_for_usage(&[], &[], &[], end_of_time, KeyUsage::server_auth(), None, None).map(drop);
    let Err(Error::CertExpired { not_after, .. }) = verified else { return None };
    DateTime::from_timestamp(i64::try_from(not_after.as_secs()).ok()?, 0)
}

#[cfg(test)]
mod tests {
    use gatecast_storage::ManualClock;
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd};

    use super::*;

    fn made(change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(["edge-1.example".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2027, 2, 3);
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn the_end_is_found_whoever_issued_it_and_whatever_it_is_for() {
        let end = DateTime::from_timestamp(1_801_612_800, 0);
        assert_eq!(end_of(&made(|_| {})), end);
        assert_eq!(end_of(&made(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))), end);
        let of_clients = vec![ExtendedKeyUsagePurpose::ClientAuth];
        assert_eq!(end_of(&made(|params| params.extended_key_usages = of_clients)), end);
        let never = made(|params| params.not_after = date_time_ymd(9999, 12, 31));
        assert_eq!(end_of(&never).unwrap().to_rfc3339(), "9999-12-31T00:00:00+00:00");
        assert_eq!(end_of(&CertificateDer::from(b"no certificate".to_vec())), None);
    }

    #[test]
    fn an_end_that_is_near_is_told_once_a_day_and_of_each_certificate() {
        let clock = Arc::new(ManualClock::default());
        let (expiry, at) = (Expiry::new(clock.clone()), clock.now() + TimeDelta::days(30));
        let is_told = || expiry.known().told == Some(clock.now());
        let is_told_after = |hours: u64| {
            clock.advance(Duration::from_secs(hours * 3_600));
            expiry.tell();
            is_told()
        };
        expiry.set(Some(at));
        assert!(!is_told() && !is_told_after(15 * 24), "15 days left");
        assert!(is_told_after(24) && !is_told_after(23) && is_told_after(1));
        assert!(is_told_after(14 * 24), "it was yesterday");
        expiry.set(Some(at));
        assert!(is_told() && !is_told_after(23), "another one, which has expired too");
        clock.turn_back(Duration::from_secs(5 * 86_400));
        expiry.tell();
        assert!(is_told(), "the clock was set back: a day of before is not waited for");
        expiry.set(None);
        assert_eq!((expiry.at(), expiry.known().told), (None, None));
    }
}
