//! The command line: one binary for the server and for everyone who talks to it.
//!
//! # Layout
//! [`Cli`] is what was typed; [`run`] does it. One file per command; `listen` with its two views is the test client of the
//! quickstart. Commands write to the writers they are given and read the environment they are given.

mod api_key;
mod backup;
mod deploy;
mod doctor;
mod event_type;
mod exit;
mod failure;
mod gateway;
mod json_argument;
mod json_view;
mod listen;
mod output;
mod pretty;
mod printable;
mod publish;
mod remote;
mod resume;
mod seconds;
mod settings;
mod stats;
mod store;
#[cfg(test)]
mod tests;
mod text_view;
mod token;
mod usage;
mod view;

use std::io::Write;
use std::sync::Arc;

use clap::{Parser, Subcommand};

use exit::EXIT_CODES;
pub use exit::Exit;
use failure::Failure;
use output::Output;
pub use remote::Environment;
use remote::Remote;
use settings::Settings;

use crate::config::{ConfigFault, Effective};

const EXAMPLES: &str = "\
Examples:
  gatecast serve --dev
  gatecast -k gateway create --organization 6d1f… --name edge-1
  gatecast -k token create --gateway d1aa71bc-…
  gatecast -k listen --api-key guDgqz…
  gatecast -k publish --gateway d1aa71bc-… --type gateway.config.updated --payload '{\"a\":1}'
";

/// Ordered, durable events from a control plane to its API gateways.
#[derive(Debug, Clone, Parser)]
#[command(name = "gatecast", version, max_term_width = 110, after_help = format!("{EXAMPLES}\n{EXIT_CODES}"))]
pub struct Cli {
    /// Answer in JSON, for programs; errors too, on stderr
    #[arg(long, global = true)]
    json: bool,

    #[command(flatten)]
    remote: Remote,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Run the server until Ctrl+C or SIGTERM
    #[command(after_help = "\
Examples:
  gatecast serve --dev
  gatecast serve --tls-cert cert.pem --tls-key key.pem --data-dir /var/lib/gatecast
  GATECAST_TLS=off gatecast serve --listen 127.0.0.1:8080 --config gatecast.env

Without --dev and without an admin token, the first start makes one and prints it once, to standard output. Where nobody
can read that (it is closed, /dev/null or full), the start ends with exit code 64 and makes none; the next one does.
A configuration with faults ends with exit code 64 after listing all of them.
SIGTERM or Ctrl+C end a start at once, and a server within GATECAST_SHUTDOWN_GRACE and the time its store takes to close.")]
    Serve(Box<Settings>),

    /// Show the effective configuration: values, units, defaults, and where each comes from
    #[command(after_help = "\
Examples:
  gatecast config --dev
  WS_MAX_CONNECTIONS=5000 gatecast config --config gatecast.env --json

Flags win over the environment, the environment over the file, the file over defaults. A configuration with faults, also
of the certificate files that it names, ends with exit code 64 after listing all of them.")]
    Config(Box<Settings>),

    /// Register, list and delete gateways
    #[command(subcommand)]
    Gateway(gateway::GatewayCommand),

    /// Make, list and revoke the tokens that gateways connect with
    #[command(subcommand)]
    Token(token::TokenCommand),

    /// List, show, register and delete the types that events may have
    #[command(subcommand)]
    EventType(event_type::EventTypeCommand),

    /// Deploy a revision of an API to gateways, uploading its artifact first if one is given
    Deploy(deploy::Deploy),

    /// Take a revision of an API from gateways
    Undeploy(deploy::Undeploy),

    /// Publish an event; success means that it is stored durably
    Publish(publish::Publish),

    /// Show who is connected and what was delivered
    Stats(stats::StatsArgs),

    /// Copy all of a running server's store to a file, without interruption
    Backup(backup::Backup),

    /// Check, repair, export and import a data directory; the server must be stopped
    #[command(subcommand)]
    Store(store::StoreCommand),

    /// Connect as a gateway and print what arrives, until Ctrl+C
    Listen(listen::Listen),

    /// Say which transports work from here, why not, and what to change in what lies between
    Doctor(doctor::Doctor),
}

/// Where a command reads its environment and writes its words.
pub struct Io<'a> {
    /// The process environment.
    pub env: Environment,
    /// Answers.
    pub out: &'a mut dyn Write,
    /// Errors and warnings.
    pub err: &'a mut dyn Write,
}

/// Reads the sources of a configuration again: what holds now, or every fault. It reads files.
pub type Reread = Arc<dyn Fn() -> Result<Effective, Vec<ConfigFault>> + Send + Sync>;

/// What ends a server early.
pub type ServeError = Box<dyn std::error::Error + Send + Sync>;

/// Does what was typed. `serve` runs the server with a checked configuration, and a way to read it
/// again, until it is told to stop.
///
/// # Errors
/// None: failures are written to `io.err` and become the [`Exit`].
pub async fn run<S, F>(cli: Cli, mut io: Io<'_>, serve: S) -> Exit
where
    S: FnOnce(Effective, Reread) -> F,
    F: Future<Output = Result<(), ServeError>>,
{
    let json = cli.json;
    let failure = match dispatch(cli, &mut io, serve).await.and_then(|()| Ok(io.out.flush()?)) {
        Ok(()) => return Exit::Ok,
        Err(failure) => failure,
    };
    if failure.exit() != Exit::Ok {
        let written = if json { failure.write_json(io.err) } else { failure.write_text(io.err) };
        // Nobody reads stderr either: the exit code remains.
        let _ = written.and_then(|()| io.err.flush());
    }
    failure.exit()
}

async fn dispatch<S, F>(cli: Cli, io: &mut Io<'_>, serve: S) -> Result<(), Failure>
where
    S: FnOnce(Effective, Reread) -> F,
    F: Future<Output = Result<(), ServeError>>,
{
    let Cli { json, remote, command } = cli;
    let talks_to_server = !matches!(command, Command::Serve(_) | Command::Config(_) | Command::Store(_));
    if talks_to_server && remote.insecure && !json {
        writeln!(io.err, "warning: --insecure accepts any certificate; who answers is not known")?;
    }
    let env = io.env.clone();
    let mut output = Output { json, out: io.out };
    match command {
        Command::Serve(settings) => {
            let effective = settings.load(&remote, &env).map_err(Failure::Config)?;
            let reread = Arc::new(move || settings.load(&remote, &env));
            serve(effective, reread).await.map_err(Failure::of_server)
        }
        Command::Config(settings) => {
            let effective = settings.load(&remote, &env).map_err(Failure::Config)?;
            settings::show(&effective, json, output.out)
        }
        Command::Gateway(command) => command.run(&remote.api(&env)?, &mut output).await,
        Command::Token(command) => command.run(&remote.api(&env)?, &mut output).await,
        Command::EventType(command) => command.run(&remote.api(&env)?, &mut output).await,
        Command::Deploy(command) => command.run(&remote.api(&env)?, &mut output).await,
        Command::Undeploy(command) => command.run(&remote.api(&env)?, &mut output).await,
        Command::Publish(command) => command.run(&remote.api(&env)?, &mut output).await,
        Command::Stats(command) => command.run(&remote.api(&env)?, &mut output).await,
        Command::Backup(command) => {
            let stop = listen::interrupted(Failure::Interrupted.exit())?;
            command.run(&remote.api(&env)?, &mut output, stop).await
        }
        Command::Store(command) => command.run(&env, &mut output).await,
        Command::Listen(command) => command.run(&remote, &env, &mut output, listen::interrupted(Exit::Ok)?).await,
        Command::Doctor(command) => command.run(&remote, &env, &mut output).await,
    }
}
