//! Whose address a connection counts by: the peer's, unless the peer is a trusted proxy.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use gatecast_transports::{ConnInfo, Handshake, forwarded, forwarded_for};
use http::HeaderMap;
use ipnet::IpNet;

/// The proxies whose word on addresses counts. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    trusted: Arc<ArcSwap<Vec<IpNet>>>,
}

impl Proxies {
    /// Trusts the peers in these networks.
    #[must_use]
    pub fn new(trusted: Vec<IpNet>) -> Self {
        Self { trusted: Arc::new(ArcSwap::from_pointee(trusted)) }
    }

    /// Trusts the peers in these networks and no others from now on.
    pub fn set_trusted(&self, trusted: Vec<IpNet>) {
        self.trusted.store(Arc::new(trusted));
    }

    /// The client's address: the last one that a trusted proxy reported and that is not a trusted proxy itself.
    /// Each proxy appends the peer it saw, so the list is believed from its end and only as far as trust goes;
    /// `Forwarded` (RFC 7239) is asked before `X-Forwarded-For`.
    pub(crate) fn client(&self, handshake: &Handshake) -> IpAddr {
        self.resolve(handshake.peer, handshake.forwarded.as_deref(), handshake.forwarded_for.as_deref())
    }

    /// The same of a call that is no request to connect.
    pub(crate) fn caller(&self, info: &ConnInfo, headers: &HeaderMap) -> IpAddr {
        self.resolve(info.peer, forwarded(headers).as_deref(), forwarded_for(headers).as_deref())
    }

    fn resolve(&self, peer: SocketAddr, forwarded: Option<&str>, list: Option<&str>) -> IpAddr {
        let mut client = peer.ip().to_canonical();
        let reported = match (forwarded, list) {
            (Some(forwarded), _) => forwarded.split(',').map(element).collect(),
            (None, Some(list)) => list.split(',').map(address).collect(),
            (None, None) => Vec::new(),
        };
        for hop in reported.into_iter().rev() {
            if !self.trusts(client) {
                break;
            }
            // What can't be read (`unknown`, an obfuscated name) hides whoever is behind it: the proxy answers for them.
            let Some(hop) = hop else { break };
            client = hop;
        }
        client
    }

    /// Whether it is a proxy whose word counts.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.load().iter().any(|network| network.contains(&address))
    }
}

/// The `for` parameter of one element of `Forwarded`.
fn element(element: &str) -> Option<IpAddr> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| address(value.trim().trim_matches('"')))?
    })
}

/// An address, with or without a port, IPv6 with or without brackets.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatecast_transports::Liveness;
    use proptest::prelude::*;

    fn client(trusted: &[&str], peer: &str, forwarded_for: Option<&str>, forwarded: Option<&str>) -> String {
        let proxies = Proxies::new(trusted.iter().map(|net| net.parse().unwrap()).collect());
        let handshake = Handshake {
            transport: "sse",
            liveness: Liveness::WriteOnly,
            peer: SocketAddr::new(peer.parse().unwrap(), 4711),
            certificate_names: Arc::default(),
            forwarded_for: forwarded_for.map(Into::into),
            forwarded: forwarded.map(Into::into),
            credential: None,
            cursor: None,
            instance: None,
            connection: None,
            gateway: None,
            cookie: None,
            fetch_site: None,
            is_asked_as_loopback: true,
        };
        proxies.client(&handshake).to_string()
    }

    #[test]
    fn a_stranger_cannot_choose_its_address() {
        assert_eq!(client(&[], "192.0.2.1", Some("198.51.100.1"), None), "192.0.2.1");
        assert_eq!(client(&["10.0.0.0/8"], "192.0.2.1", Some("198.51.100.1"), None), "192.0.2.1");
    }

    #[test]
    fn a_trusted_proxy_is_believed_as_far_as_trust_goes() {
        let trusted = ["10.0.0.0/8", "2001:db8::/32"];
        assert_eq!(client(&trusted, "10.0.0.1", Some("203.0.113.9, 198.51.100.1"), None), "198.51.100.1");
        assert_eq!(client(&trusted, "10.0.0.1", Some("203.0.113.9, 198.51.100.1,10.1.1.1"), None), "198.51.100.1");
        assert_eq!(
            client(&trusted, "::ffff:10.0.0.1", None, Some(r#"for=1.2.3.4, For="[2001:db9::7]:80";proto=https"#)),
            "2001:db9::7"
        );
        assert_eq!(client(&trusted, "10.0.0.1", None, Some("for=unknown")), "10.0.0.1");
        assert_eq!(client(&trusted, "10.0.0.1", Some("198.51.100.1:99"), None), "198.51.100.1");
    }

    proptest! {
        #[test]
        fn no_header_panics(list in "\\PC{0,60}", forwarded in proptest::option::of("[a-z=\",;:\\[\\]0-9. ]{0,60}")) {
            client(&["10.0.0.0/8"], "10.0.0.1", Some(&list), forwarded.as_deref());
        }
    }
}
