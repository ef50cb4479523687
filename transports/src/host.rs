//! `Host` in a request: whether it is one, and whose.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether a request with these values of `Host` names its host as it must: once, by what could be one (RFC 9112 § 3.2).
/// It may be empty. Whose host it is makes no difference here.
#[must_use]
pub fn is_named<'v>(hosts: impl IntoIterator<Item = &'v [u8]>) -> bool {
    let mut hosts = hosts.into_iter();
    hosts.next().is_some_and(is_host) && hosts.next().is_none()
}

/// Whether it is how a machine calls itself: `localhost` or a loopback address, at any port.
#[must_use]
pub fn is_loopback(value: &[u8]) -> bool {
    let Some(Ok(name)) = parts(value).map(|(name, _)| str::from_utf8(name)) else { return false };
    let address = match unbracketed(name.as_bytes()).map(str::from_utf8) {
        Some(inner) => inner.ok().and_then(|inner| inner.parse().ok()).map(|address: Ipv6Addr| IpAddr::from(address)),
        None => name.parse().ok().map(|address: Ipv4Addr| IpAddr::from(address)),
    };
    name.eq_ignore_ascii_case("localhost") || address.is_some_and(|address| address.is_loopback())
}

/// A name or address, and maybe a port (RFC 3986 § 3.2.2).
fn is_host(value: &[u8]) -> bool {
    let Some((name, port)) = parts(value) else { return false };
    let address = unbracketed(name);
    let is_of_name =
        |byte: &u8| byte.is_ascii_alphanumeric() || NAME.contains(byte) || (address.is_some() && *byte == b':');
    let name = address.unwrap_or(name);
    let is_port = port.is_empty() || port.strip_prefix(b":").is_some_and(|port| port.iter().all(u8::is_ascii_digit));
    name.iter().all(is_of_name) && is_port
}

/// What comes before the port, and the port with its colon.
fn parts(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = if value.first() == Some(&b'[') {
        value.iter().position(|byte| *byte == b']').map(|at| at + 1)
    } else {
        value.iter().position(|byte| *byte == b':').or(Some(value.len()))
    };
    value.split_at_checked(end?)
}

/// What stands in brackets, where an address of IPv6 does.
fn unbracketed(name: &[u8]) -> Option<&[u8]> {
    name.strip_prefix(b"[")?.strip_suffix(b"]")
}

/// Besides letters and digits.
const NAME: &[u8] = b"-._~%!$&'()*+,;=";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_named_once_by_what_could_be_one() {
        let named = |hosts: &[&str]| is_named(hosts.iter().map(|host| host.as_bytes()));
        for host in ["", "a", "a.example:8443", "a_b", "127.0.0.1:1", "[::1]", "[fe80::1%25eth0]:8443", "a:", "xn--4ca"]
        {
            assert!(named(&[host]), "{host}");
        }
        for hosts in [
            &[][..],
            &["a", "a"],
            &["", ""],
            &["a b"],
            &["a, b"],
            &["a@b"],
            &["http://a"],
            &["a/b"],
            &["a:b"],
            &["a:1:2"],
            &["::1"],
            &["[::1"],
            &["[::1]x"],
            &["ä"],
        ] {
            assert!(!named(hosts), "{hosts:?}");
        }
    }

    #[test]
    fn a_machine_calls_itself_localhost_or_by_a_loopback_address() {
        for host in ["localhost", "LOCALHOST:1", "127.0.0.1", "127.1.2.3:8443", "[::1]", "[::1]:8443"] {
            assert!(is_loopback(host.as_bytes()), "{host}");
        }
        for host in [
            "",
            ":8443",
            "a",
            "localhost.a",
            "a.localhost@b",
            "127.0.0.1.a",
            "128.0.0.1",
            "::1",
            "[::1",
            "[::2]",
            "[127.0.0.1]",
            "[localhost]",
            "localhost, a",
            "0.0.0.0",
        ] {
            assert!(!is_loopback(host.as_bytes()), "{host}");
        }
    }
}
