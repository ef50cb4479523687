//! How many files and sockets the process may have open at once.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};

/// What a registered connection may take: its own socket, and two of who asks for something meanwhile (the permit of an
/// accepted socket goes to the next one once a transport has it).
const PER_CONNECTION: u64 = 3;
/// Sockets beyond these, and [`FILES`].
const SPARE: u64 = 1_024 + FILES;
/// What is open that is no socket of a peer: the store's files, mostly.
const FILES: u64 = 76;

/// Lets the process open as much as it may ever, and says so if that is too little for so many connections. The limit of
/// a shell or an init is often 1,024, for programs that use `select`.
pub(crate) fn raise_limit(connections_max: u32) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
        debug!(before = current, now = maximum, is_raised = raised.is_ok(), "The limit of open files.");
    }
    let limit = getrlimit(Resource::Nofile).current;
    let needed = needed(connections_max);
    if let Some(limit) = limit.filter(|limit| *limit < needed) {
        warn!(
            limit,
            needed,
            "The process may open {limit} files and sockets, fewer than {connections_max} connections may need: set \
             LimitNOFILE (ulimit -n) to {needed}, or WS_MAX_CONNECTIONS to less."
        );
    }
}

/// How many sockets of peers the process may have open at once; `None` if that has no limit.
pub(crate) fn sockets_max() -> Option<usize> {
    let limit = getrlimit(Resource::Nofile).current?;
    Some(usize::try_from(limit.saturating_sub(FILES)).unwrap_or(usize::MAX))
}

fn needed(connections_max: u32) -> u64 {
    u64::from(connections_max) * PER_CONNECTION + SPARE
}
