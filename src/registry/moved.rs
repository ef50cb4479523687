//! Where a connection is polled from that was polled from elsewhere before, as behind a pool of addresses.
//!
//! Its gateway may bar one of them and keep the others: what was answered to each is known apart, to be thrown away alone.

use std::net::IpAddr;

use gatecast_transports::Answered;

/// Where a connection is polled from, and was before.
pub(super) struct Moved {
    pub(super) to: IpAddr,
    /// What was answered elsewhere, as long as a socket of it is open.
    before: Vec<(IpAddr, Answered)>,
}

impl Moved {
    /// Of a connection that was polled from one address only.
    pub(super) fn from(address: IpAddr) -> Self {
        Self { to: address, before: Vec::new() }
    }

    /// From here it is polled now, after this was answered where it was until now; what was answered here before.
    pub(super) fn go(&mut self, to: IpAddr, answered: Answered) -> Answered {
        self.before.push((std::mem::replace(&mut self.to, to), answered));
        self.before.retain(|(_, answered)| !answered.is_gone());
        let here = self.before.iter().position(|(address, _)| *address == to);
        here.map_or_else(Answered::default, |here| self.before.swap_remove(here).1)
    }

    /// Silences what was answered elsewhere, if it is of one of these addresses.
    pub(super) fn silence(&mut self, whose: impl Fn(IpAddr) -> bool) {
        self.before.retain_mut(|(address, answered)| {
            let is_meant = whose(*address);
            if is_meant {
                answered.silence();
            }
            !is_meant
        });
    }
}

#[cfg(test)]
mod tests {
    use gatecast_transports::Sever;

    use super::*;

    #[test]
    fn what_was_answered_elsewhere_is_known_by_its_address_for_as_long_as_its_socket_is_open() {
        let [here, there, nowhere] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|address| address.parse().unwrap());
        let over = |socket: &Sever| {
            let mut answered = Answered::default();
            answered.over(socket);
            answered
        };
        let [first, second] = [(); 2].map(|()| Sever::new());
        let mut moved = Moved::from(here);
        assert!(moved.go(there, over(&first)).is_gone());
        assert!(!moved.go(here, over(&second)).is_gone(), "the first again");
        assert!(moved.go(nowhere, over(&first)).is_gone());
        moved.silence(|address| address == there);
        assert!(second.take_silenced() && !first.take_silenced());
        drop(first);
        assert!(
            moved.go(here, Answered::default()).is_gone() && moved.before.is_empty(),
            "nothing is kept of who left"
        );
    }
}
