//! `doctor`: which transports work from here, why not, and what to change.
//!
//! # Layout
//! `examination` asks (by [`crate::client::probe`]), `diagnosis` decides, purely, what that means, `finding` has the
//! words, `report` shows it all, `progress` what happens meanwhile.
//!
//! It poses as a replica of its own, so no receipt or stored position of another is touched, and publishes nothing.

mod diagnosis;
mod examination;
mod finding;
mod progress;
mod report;
#[cfg(test)]
mod tests;

use std::time::Duration;

use clap::Args;
use gatecast_storage::SystemClock;

use super::api_key::ApiKeySource;
use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use super::remote::{Environment, Remote};
use crate::client::probe::Probe;
use crate::config::{ValueError, duration};
use crate::heartbeat::Timing;
use diagnosis::diagnose;
use examination::examine;
use progress::Progress;
use report::Report;

/// The least idle time-out to ask of a proxy: a held poll takes 60 s.
const PROXY_IDLE_MIN: Duration = Duration::from_secs(75);

#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  gatecast doctor --url https://events.example.com --api-key guDgqz…
  gatecast --json doctor --api-key-file key.txt --idle 5m | jq .recommended

It looks up the name, dials, checks the certificate, then connects over all three transports at once, as a replica named
gatecast-doctor, and watches them for --idle. It publishes nothing and moves no position of another replica. While it is
connected it counts as a connection: an event published then has one receiver more. Afterwards its poll counts as connected
for 30 s more, and a gateway with `catchUp: stored` keeps a row of that name among its replicas.
It makes 3 connection attempts (1 or 2 if the key is refused) of those that the server allows an address a minute.

Ends with 0 if the recommended transport works cleanly; 1 if one works with faults, or none for a reason without a code.")]
pub(super) struct Doctor {
    #[command(flatten)]
    api_key: ApiKeySource,

    /// How long to watch for time-outs in between; a poll is held for 60 s of it at most
    #[arg(long, value_name = "DURATION", default_value = "70s", value_parser = idle)]
    idle: Duration,

    /// The server's WS_CONNECTION_TIMEOUT, from which its heartbeats follow
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = connection_timeout)]
    connection_timeout: Duration,
}

fn idle(text: &str) -> Result<Duration, ValueError> {
    duration(text, None, "70s", Duration::from_secs(1)..=Duration::from_secs(24 * 3600))
}

fn connection_timeout(text: &str) -> Result<Duration, ValueError> {
    duration(text, None, "30s", Duration::from_secs(5)..=Duration::from_secs(3600))
}

impl Doctor {
    pub(super) async fn run(self, remote: &Remote, env: &Environment, output: &mut Output<'_>) -> Result<(), Failure> {
        let endpoint = remote.endpoint(env)?;
        let url = endpoint.at("").to_string();
        let probe = Probe::new(endpoint, self.api_key.read(env)?, &remote.trust())?;
        let timing = Timing::new(self.connection_timeout);
        let mut progress = Progress { out: (!output.json).then_some(&mut *output.out) };
        progress.starting(&url, self.idle);
        let seen = examine(&probe, &SystemClock, self.idle, &mut progress).await;
        let diagnosis = diagnose(&seen, &timing, self.idle);
        let idle_timeout = PROXY_IDLE_MIN.max(timing.life_limit * 2);
        let report = Report { url, diagnosis: &diagnosis, timing, idle_timeout, seen: &seen };
        let written = if output.json { report.write_json(output.out) } else { report.write_text(output.out) };
        match diagnosis.exit() {
            Exit::Ok => Ok(written?),
            exit => Err(Failure::Ailing(exit)),
        }
    }
}
