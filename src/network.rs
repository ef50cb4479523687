//! Networks as people write them.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

/// Bits in front of an IPv4 address that is mapped into IPv6 (RFC 4291 § 2.5.5.2).
const MAPPED_PREFIX: u8 = 96;

/// A network, or an address, which is a network of one. One of mapped addresses is one of IPv4, as such addresses are.
pub(crate) fn network(text: &str) -> Option<IpNet> {
    let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    Some(ipv4(&network).unwrap_or(network).trunc())
}

fn ipv4(network: &IpNet) -> Option<IpNet> {
    let IpNet::V6(mapped) = network else { return None };
    let address = Ipv6Addr::to_ipv4_mapped(&mapped.addr())?;
    let prefix = mapped.prefix_len().checked_sub(MAPPED_PREFIX)?;
    Some(Ipv4Net::new(address, prefix).ok()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_mapped_addresses_is_one_of_ipv4() {
        for (text, read) in [
            ("10.1.2.3/8", Some("10.0.0.0/8")),
            ("192.0.2.1", Some("192.0.2.1/32")),
            ("2001:db8::1", Some("2001:db8::1/128")),
            ("::ffff:192.0.2.1", Some("192.0.2.1/32")),
            ("::ffff:10.1.2.3/104", Some("10.0.0.0/8")),
            ("::ffff:0:0/96", Some("0.0.0.0/0")),
            ("::ffff:0:0/95", Some("::fffe:0:0/95")),
            ("::/0", Some("::/0")),
            ("10.0.0.0/33", None),
            ("here", None),
        ] {
            assert_eq!(network(text).map(|network| network.to_string()).as_deref(), read, "{text}");
        }
    }
}
