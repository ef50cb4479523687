//! What happens, as it happens, for people.

use std::io::Write;
use std::time::Duration;

use tokio::time::{Instant, interval_at};

use super::super::printable::printable;
use super::super::seconds::seconds;
use crate::client::Transport;
use crate::client::probe::{Polled, Reached, Unopened, Unreached, Watched};

/// A line this often while nothing else is said.
const EVERY: Duration = Duration::from_secs(10);

/// Says what happens; nothing to programs.
pub(super) struct Progress<'o> {
    pub(super) out: Option<&'o mut dyn Write>,
}

impl Progress<'_> {
    fn say(&mut self, line: &str) {
        let Some(out) = &mut self.out else { return };
        // The report goes to the same output, and tells what is wrong with it.
        let _ = writeln!(out, "{}", printable(line)).and_then(|()| out.flush());
    }

    pub(super) fn starting(&mut self, url: &str, idle: Duration) {
        self.say(&format!("Examining the way to {url}, for about {}...", seconds(idle)))
    }

    pub(super) fn reached(&mut self, reached: &Result<Reached, Unreached>) {
        let Ok(reached) = reached else { return self.say("✗ not reached") };
        let addresses: Vec<_> = reached.addresses.iter().map(ToString::to_string).collect();
        self.say(&format!("✓ name: {}", addresses.join(", ")));
        self.say(&format!("✓ TCP to {} in {} ms", reached.address, reached.tcp.as_millis()));
        match reached.tls {
            None => self.say("! no TLS: the key is sent in the clear"),
            Some((took, http2)) => {
                let offered = if http2 { "HTTP/2 is offered too" } else { "HTTP/1.1 only" };
                self.say(&format!(
                    "✓ TLS in {} ms; {offered} (gatecast's own clients speak HTTP/1.1)",
                    took.as_millis()
                ))
            }
        }
    }

    pub(super) fn answered(&mut self, opening: &Result<Polled, Unopened>) {
        match opening {
            Ok(polled) => self.say(&format!("✓ a poll is answered in {} ms", polled.took.as_millis())),
            Err(_) => self.say("✗ a poll is not granted"),
        }
    }

    /// Waits for `all`, saying now and then that it does.
    pub(super) async fn during<T>(&mut self, idle: Duration, all: impl Future<Output = T>) -> T {
        self.say("… watching websocket, sse and long-poll side by side");
        let (start, mut all) = (Instant::now(), std::pin::pin!(all));
        let mut ticks = interval_at(start + EVERY, EVERY);
        loop {
            tokio::select! {
                biased;
                done = &mut all => return done,
                _ = ticks.tick() => {
                    self.say(&format!("… watched for {} of {}", seconds(start.elapsed()), seconds(idle)));
                }
            }
        }
    }

    pub(super) fn held(&mut self, transport: Transport, watched: &Result<Watched, Unopened>) {
        match watched {
            Ok(watched) if watched.end.is_none() => {
                self.say(&format!("✓ {transport} held for {}", seconds(watched.held)))
            }
            Ok(watched) => self.say(&format!("✗ {transport} ended after {}", seconds(watched.held))),
            Err(_) => self.say(&format!("✗ {transport} is not opened")),
        }
    }
}
