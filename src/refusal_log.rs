//! Which refusals get a line in the log: one for each address, reason and minute, as anybody can be refused without end.
//! `/metrics` counts all of gateways and of calls. IPv6 peers count by /64, as in [limits](crate::limits).

use std::net::{IpAddr, Ipv6Addr};

use crate::auth::AuthError;
use crate::limits::block;
use crate::registry::Full;
use crate::sparse_log::{Line, SparseLog};

/// Where addresses count when there are too many.
const OVERFLOW: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// What was refused, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Refused {
    /// An attempt to connect, of too many.
    Rate,
    /// An attempt to connect, for its key.
    Connection(AuthError),
    /// An attempt to connect, for want of room.
    Full(Full),
    /// A call.
    Call(AuthError),
    /// An operator who would watch.
    Watch(AuthError),
}

/// What was refused of late.
#[derive(Default)]
pub(crate) struct RefusalLog(SparseLog<(IpAddr, Refused)>);

impl RefusalLog {
    /// The line for this refusal; `None` if an earlier one speaks for it.
    pub(crate) fn line(&self, from: IpAddr, refused: Refused) -> Option<Line> {
        self.0.line((block(from), refused), (OVERFLOW, refused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn there_is_a_line_for_each_address_and_reason() {
        let log = RefusalLog::default();
        let [host, other, site, same] =
            ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"].map(|address| address.parse().unwrap());
        for (from, refused, has_line) in [
            (host, Refused::Rate, true),
            (host, Refused::Rate, false),
            (host, Refused::Call(AuthError::Missing), true),
            (host, Refused::Call(AuthError::Unknown), true),
            (other, Refused::Rate, true),
            (site, Refused::Rate, true),
            (same, Refused::Rate, false),
        ] {
            assert_eq!(log.line(from, refused).is_some(), has_line, "{from} {refused:?}");
        }
    }
}
