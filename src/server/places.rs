//! How many sockets are open at once: so many in all, and of these only a share to one address.
//!
//! A socket has its place until it ends, or until a WebSocket or an SSE stream over HTTP/1.1 is admitted: then the
//! registry counts it. Whoever opens sockets and says nothing has thus a share of them, and the others the rest.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracing::warn;

use crate::limits::block;
use crate::proxies::Proxies;

/// Sockets beyond the connections that may be registered: requests, handshakes, connections about to end.
const SPARE_SOCKETS: usize = 1_024;
/// How many sockets an address may have for each that is free: two thirds of all if it is the only one that has many, and
/// less with each other that has. All gateways may be behind one address, and come back before their old sockets are gone.
const SOCKETS_PER_FREE: usize = 2;
/// How often one thing is warned of.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The places of a server's sockets.
pub(super) struct Places {
    free: Arc<Semaphore>,
    /// How many there may be.
    max: Mutex<usize>,
    /// How many sockets the process may have, these and those of registered connections, if that has a limit.
    sockets_max: Option<usize>,
    taken: Arc<Taken>,
    /// Whoever is behind them has no address here.
    proxies: Proxies,
    full: Warning,
    unfair: Warning,
}

/// A place for the next socket.
pub(super) struct Free(OwnedSemaphorePermit);

/// A socket's place.
pub(super) struct Place {
    _free: OwnedSemaphorePermit,
    _address: Option<OfAddress>,
}

impl Places {
    /// For so many connections that may be registered, where the process may have so many sockets.
    pub(super) fn new(connections_max: usize, sockets_max: Option<usize>, proxies: Proxies) -> Self {
        let max = places_max(connections_max, sockets_max);
        Self {
            free: Arc::new(Semaphore::new(max)),
            max: Mutex::new(max),
            sockets_max,
            taken: Arc::default(),
            proxies,
            full: Warning::default(),
            unfair: Warning::default(),
        }
    }

    /// How many connections may be registered from now on. Fewer places than are taken end no connection: as many as
    /// are free are given up.
    pub(super) fn set_connections_max(&self, connections_max: usize) {
        let wanted = places_max(connections_max, self.sockets_max);
        let mut now = self.max.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted > *now {
            self.free.add_permits(wanted - *now);
            *now = wanted;
        } else {
            *now -= self.free.forget_permits(*now - wanted);
        }
    }

    /// Waits until there is a free place.
    pub(super) async fn free(&self) -> Option<Free> {
        let free = self.free.clone();
        let Ok(free) = free.clone().try_acquire_owned() else {
            if self.full.is_due() {
                warn!("As many sockets are open as there may be; newcomers wait.");
            }
            // Never closed.
            return free.acquire_owned().await.ok().map(Free);
        };
        Some(Free(free))
    }

    /// Takes a place for a socket from this address; `None` if that has its share.
    pub(super) fn take(&self, Free(free): Free, from: IpAddr) -> Option<Place> {
        let from = from.to_canonical();
        if self.proxies.trusts(from) {
            return Some(Place { _free: free, _address: None });
        }
        let share = self.free.available_permits() * SOCKETS_PER_FREE;
        match Taken::count(&self.taken, block(from), share) {
            Ok(address) => Some(Place { _free: free, _address: Some(address) }),
            Err(sockets) => {
                if self.unfair.is_due() {
                    warn!(peer.ip = %from, sockets, "An address has its share of the sockets that may be open; it gets no more.");
                }
                None
            }
        }
    }
}

/// Where there may be fewer sockets than it takes (the log has said so), registered connections leave half of them: an
/// address could else take all that can be opened with its share.
fn places_max(connections_max: usize, sockets_max: Option<usize>) -> usize {
    let wanted = connections_max.saturating_mul(2) + SPARE_SOCKETS;
    sockets_max.map_or(wanted, |max| wanted.min(max.saturating_sub(connections_max).max(max / 2)))
}

/// How many sockets each address has, of those that have any.
#[derive(Default)]
struct Taken(Mutex<HashMap<IpAddr, usize>>);

/// One of them.
struct OfAddress {
    taken: Arc<Taken>,
    address: IpAddr,
}

impl Taken {
    /// Counts another one, unless there are more than `most` already: then it is told how many.
    fn count(this: &Arc<Self>, address: IpAddr, most: usize) -> Result<OfAddress, usize> {
        let mut taken = this.lock();
        let sockets = taken.get(&address).copied().unwrap_or_default();
        if sockets > most {
            return Err(sockets);
        }
        taken.insert(address, sockets + 1);
        Ok(OfAddress { taken: this.clone(), address })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // A number more or less, at worst.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OfAddress {
    fn drop(&mut self) {
        if let Entry::Occupied(mut sockets) = self.taken.lock().entry(self.address) {
            match sockets.get() {
                2.. => *sockets.get_mut() -= 1,
                _ => drop(sockets.remove()),
            }
        }
    }
}

/// Something to warn of that may go on for long.
#[derive(Default)]
pub(super) struct Warning(Mutex<Option<Instant>>);

impl Warning {
    /// Whether it is to be said: the last time was a while ago.
    pub(super) fn is_due(&self) -> bool {
        let now = Instant::now();
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| now - last >= WARN_EVERY);
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn places(connections_max: usize, trusted: &[&str]) -> Places {
        Places::new(connections_max, None, Proxies::new(trusted.iter().map(|net| net.parse().unwrap()).collect()))
    }

    /// Takes as many places as there are for it, to a bound.
    fn fill(places: &Places, from: &str, at_most: usize) -> Vec<Place> {
        let next = || places.free().now_or_never()?.and_then(|free| places.take(free, from.parse().unwrap()));
        std::iter::from_fn(next).take(at_most).collect()
    }

    #[tokio::test]
    async fn no_few_addresses_take_all_places() {
        let places = places(1_000, &[]);
        let first = fill(&places, "192.0.2.1", usize::MAX);
        assert_eq!(first.len(), 2_016, "two thirds of 3024");
        let _second = fill(&places, "192.0.2.2", usize::MAX);
        let _third = fill(&places, "192.0.2.3", usize::MAX);
        assert!(!fill(&places, "198.51.100.1", 50).is_empty(), "{} are free", places.free.available_permits());
        drop(first);
        assert!(fill(&places, "192.0.2.1", 500).len() == 500, "they came back");
    }

    #[tokio::test]
    async fn no_address_takes_all_that_can_be_opened_where_that_is_little() {
        let few = Places::new(1_000, Some(948), Proxies::default());
        assert_eq!(fill(&few, "192.0.2.1", usize::MAX).len(), 316, "two thirds of a half");
        few.set_connections_max(200);
        assert_eq!(*few.max.lock().unwrap(), 748);
        few.set_connections_max(1_000_000);
        assert_eq!(places_max(1_000, Some(4_024)), places_max(1_000, None), "as is asked for at a start");
    }

    #[tokio::test]
    async fn all_gateways_may_come_back_at_once_from_one_address_before_they_are_gone() {
        assert!(fill(&places(1_000, &[]), "192.0.2.1", usize::MAX).len() >= 2_000);
        assert!(fill(&places(18_000, &[]), "192.0.2.1", usize::MAX).len() >= 18_000);
    }

    #[tokio::test]
    async fn a_site_is_one_address_and_a_trusted_proxy_is_none() {
        let places = places(1, &["10.0.0.0/8"]);
        let site = fill(&places, "2001:db8::1", usize::MAX);
        assert!(fill(&places, "2001:db8::ffff:2", usize::MAX).is_empty());
        drop(site);
        assert!(places.taken.lock().is_empty());
        assert_eq!(fill(&places, "::ffff:10.0.0.1", usize::MAX).len(), 2 + SPARE_SOCKETS);
    }

    #[tokio::test]
    async fn the_last_place_is_for_whoever_has_none() {
        let places = places(1, &["10.0.0.1/32"]);
        let _almost_all = fill(&places, "10.0.0.1", 1 + SPARE_SOCKETS);
        let last = fill(&places, "192.0.2.1", 2);
        assert_eq!(last.len(), 1);
        assert!(places.free().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_goes_on_is_said_once_a_minute() {
        let warning = Warning::default();
        assert_eq!([warning.is_due(), warning.is_due()], [true, false]);
        tokio::time::advance(WARN_EVERY).await;
        assert!(warning.is_due());
    }
}
