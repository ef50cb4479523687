//! The gatecast binary.

mod logging;

use std::io::{stderr, stdout};
use std::process::ExitCode;

use clap::Parser;
use gatecast::cli::{self, Cli, Environment, Io, ServeError};
use gatecast::config::Config;
use gatecast::server::Server;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let (mut out, mut err) = (stdout(), stderr());
    let io = Io { env: Environment::new(std::env::vars_os()), out: &mut out, err: &mut err };
    runtime.block_on(cli::run(cli, io, serve)).into()
}

/// Runs a server until SIGTERM or Ctrl+C.
async fn serve(config: Config) -> Result<(), ServeError> {
    logging::init(&config);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut server = Server::start(&config).await?;
    if let Some(token) = server.take_created_admin_token() {
        println!("Admin token (shown once, only its hash is kept): {}", token.expose());
    }
    let shutdown = async move {
        let name = tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" };
        info!(signal = name, "Told to stop.");
    };
    Ok(server.serve(shutdown).await?)
}
