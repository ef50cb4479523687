//! How often one address may try to connect: a sliding minute, exact, in a table that is bounded and forgets.
//!
//! An address costs 16 bytes for each attempt of its last minute, of which it has at most the limit, and is forgotten
//! when that minute was quiet and room is needed. IPv6 peers count by /64, the smallest block that a site is given
//! (RFC 6177).

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The window that the limit counts in.
const MINUTE: Duration = Duration::from_secs(60);
/// A full table is looked through for what may be forgotten no oftener: that is every address in it, while others wait.
const TIDY_EVERY: Duration = Duration::from_secs(1);
/// Addresses remembered at once. When all are in use, new ones share one entry.
const ADDRESSES_MAX: usize = 100_000;
/// Where addresses count when the table is full.
const OVERFLOW: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// Attempts to connect, by address.
pub struct RateTable {
    per_minute: AtomicUsize,
    addresses_max: usize,
    attempts: Mutex<Attempts>,
}

struct Attempts {
    by_address: HashMap<IpAddr, VecDeque<Instant>>,
    tidied: Instant,
}

impl RateTable {
    /// A table that lets each address try `per_minute` times in any minute.
    #[must_use]
    pub fn new(per_minute: u32) -> Self {
        Self::with_size(per_minute, ADDRESSES_MAX)
    }

    fn with_size(per_minute: u32, addresses_max: usize) -> Self {
        let attempts = Mutex::new(Attempts { by_address: HashMap::new(), tidied: Instant::now() });
        Self { per_minute: AtomicUsize::new(per_minute as usize), addresses_max, attempts }
    }

    /// Lets each address try so many times from now on; what it has tried counts.
    pub fn set_per_minute(&self, per_minute: u32) {
        self.per_minute.store(per_minute as usize, Ordering::Relaxed);
    }

    /// Counts an attempt.
    ///
    /// # Errors
    /// How long to wait, when the address has had its share; the attempt is then not counted.
    pub fn attempt(&self, from: IpAddr) -> Result<(), Duration> {
        let now = Instant::now();
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut address = block(from);
        if attempts.by_address.len() >= self.addresses_max && !attempts.by_address.contains_key(&address) {
            attempts.tidy(now);
            if attempts.by_address.len() >= self.addresses_max {
                address = OVERFLOW;
            }
        }
        let times = attempts.by_address.entry(address).or_default();
        while times.front().is_some_and(|first| now - *first >= MINUTE) {
            times.pop_front();
        }
        match times.front() {
            Some(first) if times.len() >= self.per_minute.load(Ordering::Relaxed) => Err(MINUTE - (now - *first)),
            _ => {
                times.push_back(now);
                Ok(())
            }
        }
    }
}

impl Attempts {
    /// Forgets whose last minute was quiet, unless it was looked for just now.
    fn tidy(&mut self, now: Instant) {
        if now - self.tidied >= TIDY_EVERY {
            self.tidied = now;
            self.by_address.retain(|_, times| times.back().is_some_and(|last| now - *last < MINUTE));
        }
    }
}

/// What an address counts by.
pub(crate) fn block(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[tokio::test(start_paused = true)]
    async fn the_eleventh_attempt_in_a_minute_waits_and_is_let_in_after_it() {
        let table = RateTable::new(10);
        assert!((0..10).all(|_| table.attempt(HOST).is_ok()));
        let wait = table.attempt(HOST).unwrap_err();
        assert!(table.attempt(IpAddr::from([192, 0, 2, 2])).is_ok(), "another address has its own share");
        tokio::time::advance(wait - Duration::from_millis(1)).await;
        assert!(table.attempt(HOST).is_err());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(table.attempt(HOST), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn another_limit_holds_at_once_and_counts_what_was_tried() {
        let table = RateTable::new(2);
        assert!((0..2).all(|_| table.attempt(HOST).is_ok()));
        assert!(table.attempt(HOST).is_err());
        table.set_per_minute(3);
        assert!(table.attempt(HOST).is_ok());
        assert!(table.attempt(HOST).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded_and_forgets() {
        let table = RateTable::with_size(10, 100);
        for n in 0..=255_u8 {
            let _ = table.attempt(IpAddr::from([198, 51, 100, n]));
        }
        assert!(table.attempts.lock().unwrap().by_address.len() <= 101);
        tokio::time::advance(3 * MINUTE).await;
        assert!(table.attempt(HOST).is_ok());
        assert!(table.attempts.lock().unwrap().by_address.len() <= 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_table_is_not_looked_through_at_every_attempt() {
        let table = RateTable::with_size(10, 100);
        let fill = |from: u8| (from..from + 100).for_each(|n| assert!(table.attempt([198, 51, 100, n].into()).is_ok()));
        let len = || table.attempts.lock().unwrap().by_address.len();
        fill(0);
        tokio::time::advance(MINUTE - Duration::from_millis(300)).await;
        assert!(table.attempt(HOST).is_ok());
        tokio::time::advance(Duration::from_millis(600)).await;
        assert!(table.attempt(HOST).is_ok());
        assert_eq!(len(), 101, "it was just now");
        tokio::time::advance(Duration::from_millis(400)).await;
        assert!(table.attempt(HOST).is_ok());
        assert_eq!(len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn one_site_counts_as_one_address() {
        let table = RateTable::new(1);
        assert!(table.attempt("2001:db8::1".parse().unwrap()).is_ok());
        assert!(table.attempt("2001:db8::ffff:2".parse().unwrap()).is_err());
        assert!(table.attempt("2001:db8:0:1::1".parse().unwrap()).is_ok());
        assert!(table.attempt("192.0.2.1".parse().unwrap()).is_ok());
        assert!(table.attempt("::ffff:192.0.2.1".parse().unwrap()).is_err(), "mapped IPv4 is IPv4");
    }

    proptest! {
        #[test]
        fn no_minute_admits_more_than_the_limit(limit in 1_u32..50, gaps in proptest::collection::vec(0_u64..20_000, 1..300)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let table = RateTable::new(limit);
                let mut admitted = Vec::new();
                for gap in gaps {
                    tokio::time::advance(Duration::from_millis(gap)).await;
                    if table.attempt(HOST).is_ok() {
                        admitted.push(Instant::now());
                    }
                }
                for (index, first) in admitted.iter().enumerate() {
                    let within = admitted[index..].iter().take_while(|at| **at - *first < MINUTE).count();
                    prop_assert!(within <= limit as usize);
                }
                Ok(())
            })?;
        }
    }
}
