//! `Host` in a request over HTTP/1.1.

/// Whether a request with these values of `Host` names its host as it must: once, by what could be one (RFC 9112 § 3.2).
/// It may be empty. Whose host it is makes no difference here.
#[must_use]
pub fn is_named<'v>(hosts: impl IntoIterator<Item = &'v [u8]>) -> bool {
    let mut hosts = hosts.into_iter();
    hosts.next().is_some_and(is_host) && hosts.next().is_none()
}

/// A name or address, and maybe a port (RFC 3986 § 3.2.2).
fn is_host(value: &[u8]) -> bool {
    let is_bracketed = value.first() == Some(&b'[');
    let end = if is_bracketed {
        value.iter().position(|byte| *byte == b']').map(|at| at + 1)
    } else {
        value.iter().position(|byte| *byte == b':').or(Some(value.len()))
    };
    let Some((name, port)) = end.and_then(|end| value.split_at_checked(end)) else { return false };
    let name = if is_bracketed { name.get(1..name.len() - 1).unwrap_or_default() } else { name };
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || NAME.contains(byte) || (is_bracketed && *byte == b':');
    let is_port = port.is_empty() || port.strip_prefix(b":").is_some_and(|port| port.iter().all(u8::is_ascii_digit));
    name.iter().all(is_of_name) && is_port
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
}
