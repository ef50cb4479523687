use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Who may come in a gateway's name, beside whoever has its token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Access {
    /// Networks that its replicas come from; empty for any.
    pub addresses: Vec<IpNet>,
    /// Names of client certificates that are as good as a token: DNS names in lower case, or URIs. A name is of one
    /// gateway.
    pub certificate_names: Vec<String>,
}

impl Access {
    /// Whether a replica may come from this address.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.addresses.is_empty() || self.addresses.iter().any(|network| network.contains(&address))
    }

    /// Whether a certificate of this name is as good as a token.
    #[must_use]
    pub fn knows(&self, certificate_name: &str) -> bool {
        self.certificate_names.iter().any(|name| name == certificate_name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_network_is_any_and_a_mapped_address_is_an_ipv4_address() {
        let at = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(Access::default().allows(at("192.0.2.1")));
        let networks = ["10.0.0.0/8", "2001:db8::/32"].map(|network| network.parse().unwrap()).to_vec();
        let access = Access { addresses: networks, ..Access::default() };
        for (address, allowed) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("2001:db8::1", true),
            ("11.0.0.1", false),
            ("2001:db9::1", false),
        ] {
            assert_eq!(access.allows(at(address)), allowed, "{address}");
        }
    }
}
