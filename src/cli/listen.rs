//! `listen`: the quickstart's test client, on all three transports.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::api_key::ApiKeySource;
use super::exit::Exit;
use super::failure::Failure;
use super::json_view::JsonView;
use super::output::Output;
use super::remote::{Environment, Remote};
use super::resume::{Resume, ResumeFile};
use super::text_view::TextView;
use super::view::View;
use crate::client::{Client, ClientConfig, Identity, Incoming, TransportChoice};

#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  gatecast -k listen --api-key guDgqzePBJTMD8iElVH-q4_hc3IWZE87PgBqfzS_qPA
  gatecast listen --api-key … --url wss://example.com/api/internal/v1/ws/gateways/connect
  gatecast listen --api-key … --transport sse --resume cursor.txt
  gatecast listen --cert edge-1.pem --key edge-1.key --ca ca.pem
  gatecast --json listen --api-key … --resume earliest --count 10 | jq .message

A connection that is lost is resumed where it was, after 1 s to 60 s or when the server says.
Ends with 0 on Ctrl+C, SIGTERM or after --count events; with 77 if the key is refused.")]
pub(super) struct Listen {
    #[command(flatten)]
    api_key: ApiKeySource,

    /// A client certificate that proves the gateway, its chain as PEM; then no token is needed
    #[arg(long, value_name = "PEM", requires = "key")]
    cert: Option<PathBuf>,

    /// The certificate's private key
    #[arg(long, value_name = "PEM", requires = "cert")]
    key: Option<PathBuf>,

    /// ws, sse, poll, or auto: the first of these that gets through
    #[arg(long, value_name = "TRANSPORT", default_value = "auto")]
    transport: TransportChoice,

    /// Where to start: a cursor (6f3a9c21-42), earliest, latest or stored; or a file
    ///
    /// A file is read if it exists and rewritten after each event, so that the next run goes on where this one
    /// stopped. A value that is no existing file and reads as a cursor or one of the words is taken as that;
    /// write ./earliest for a file of that name.
    #[arg(long, value_name = "CURSOR|FILE")]
    resume: Option<String>,

    /// Names this replica of the gateway's cluster [default: the server's, `default`]
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,

    /// Stop after this many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

impl Listen {
    /// Listens until `stop`, or the end.
    pub(super) async fn run(
        self,
        remote: &Remote,
        env: &Environment,
        output: &mut Output<'_>,
        stop: impl Future<Output = ()>,
    ) -> Result<(), Failure> {
        let resume = self.resume.as_deref().map(Resume::parse);
        let (start, file) = match resume {
            Some(Resume::At(position)) => (Some(position), None),
            Some(Resume::File(file)) => (file.load()?, Some(file)),
            None => (None, None),
        };
        let identity = self.cert.clone().zip(self.key.clone()).map(|(cert, key)| Identity { cert, key });
        let api_key = match &identity {
            Some(_) => self.api_key.read_if_any(env)?,
            None => Some(self.api_key.read(env)?),
        };
        let config = ClientConfig {
            identity,
            instance: self.instance.clone(),
            transport: self.transport,
            resume: start,
            trust: remote.trust(),
            ..ClientConfig::new(remote.endpoint(env)?, api_key)
        };
        let has_key = config.api_key.is_some();
        let client = Client::new(config)?;
        let (mut text, mut json);
        let view: &mut dyn View = if output.json {
            json = JsonView { out: output.out };
            &mut json
        } else {
            text = TextView { out: output.out };
            &mut text
        };
        Session { client, view, file, saved: None, has_key }.follow(self.count, stop).await
    }
}

struct Session<'v> {
    client: Client,
    view: &'v mut dyn View,
    file: Option<ResumeFile>,
    saved: Option<String>,
    has_key: bool,
}

impl Session<'_> {
    async fn follow(mut self, count: Option<u64>, stop: impl Future<Output = ()>) -> Result<(), Failure> {
        let mut stop = std::pin::pin!(stop);
        let mut events = 0;
        self.view.connecting(&self.client.address())?;
        loop {
            let incoming = tokio::select! {
                biased;
                () = &mut stop => {
                    self.view.interrupted()?;
                    return self.close().await;
                }
                incoming = self.client.next() => incoming,
            };
            self.view.incoming(&incoming, &self.client.address())?;
            // After it was shown: a crash in between shows an event twice, never not at all.
            self.save()?;
            match incoming {
                Incoming::Event { .. } => events += 1,
                Incoming::Fatal { status, code, detail } => {
                    return Err(Failure::Rejected { status, code, detail, has_key: self.has_key });
                }
                _ => {}
            }
            if count == Some(events) {
                return self.close().await;
            }
        }
    }

    async fn close(mut self) -> Result<(), Failure> {
        let closed = self.client.close().await;
        Ok(self.view.closed(closed)?)
    }

    fn save(&mut self) -> Result<(), Failure> {
        let (Some(file), Some(cursor)) = (&self.file, self.client.cursor()) else { return Ok(()) };
        if self.saved.as_deref() != Some(cursor) {
            file.save(cursor)?;
            self.saved = Some(cursor.to_owned());
        }
        Ok(())
    }
}

/// How long what is under way may take to end after a signal.
const GRACE: Duration = Duration::from_millis(1500);

/// Resolves at Ctrl+C or SIGTERM. Both are heard from the moment of the call, on a task of their own: whatever has not
/// ended [`GRACE`] later, such as a write that nobody takes or the look-up of a name, ends with the process, by `overdue`.
#[cfg(unix)]
pub(super) fn interrupted(overdue: Exit) -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let heard = tokio::spawn(async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        // A thread outlives the runtime, which ends tasks but waits for look-ups.
        std::thread::spawn(move || {
            std::thread::park_timeout(GRACE);
            std::process::exit(overdue.code().into());
        });
    });
    // The task only ends otherwise with the runtime.
    Ok(async move { drop(heard.await) })
}

/// Resolves at Ctrl+C.
#[cfg(not(unix))]
pub(super) fn interrupted(_: Exit) -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        // Where it cannot be heard, the process ends by the system's default.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
