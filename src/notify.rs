//! Tells the service manager how the service is: datagrams to the socket that `NOTIFY_SOCKET` names, sd_notify(3).

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tracing::warn;

/// The service manager, if there is one that wants to know.
pub(crate) struct Notify {
    to: Option<(UnixDatagram, SocketAddr)>,
    /// It takes a service for hung that says nothing for so long.
    watchdog: Option<Duration>,
}

impl Notify {
    /// As the environment says, of which `var` gives a variable.
    pub(crate) fn from_env(var: impl Fn(&str) -> Option<OsString>) -> Self {
        let address = var("NOTIFY_SOCKET").and_then(|name| match name.as_bytes().split_first()? {
            (b'@', name) => SocketAddr::from_abstract_name(name).ok(),
            _ => SocketAddr::from_pathname(&name).ok(),
        });
        let to = address.and_then(|address| {
            let socket = UnixDatagram::unbound().ok()?;
            // A manager that does not read must not hold the service up.
            socket.set_nonblocking(true).ok()?;
            Some((socket, address))
        });
        let number = |name: &str| var(name)?.to_str()?.parse::<u64>().ok();
        // Without the pid it is meant for whoever reads it.
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| is_ours && *usec > 0).map(Duration::from_micros);
        Self { to, watchdog }
    }

    /// It listens, or goes on after a reload.
    pub(crate) fn ready(&self) {
        self.say("READY=1");
    }

    /// It reads its configuration again.
    pub(crate) fn reloading(&self) {
        self.say("RELOADING=1");
    }

    /// It is about to end.
    pub(crate) fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// Says that it is not hung, for as long as it is polled, if that is asked for.
    pub(crate) async fn keep_alive(&self) {
        let Some(limit) = self.watchdog else { return };
        let mut times = tokio::time::interval(limit / 2);
        loop {
            times.tick().await;
            self.say("WATCHDOG=1");
        }
    }

    fn say(&self, state: &str) {
        let Some((socket, address)) = &self.to else { return };
        if let Err(error) = socket.send_to_addr(state.as_bytes(), address) {
            warn!(%error, state, "The service manager was not told.");
        }
    }
}
