//! The gatecast binary.

mod logging;
mod notify;
mod reload;

use std::io::{stderr, stdout};
use std::process::ExitCode;
use std::sync::Arc;

use gatecast::cli::{self, Cli, Environment, Io, Reread, ServeError};
use gatecast::config::Effective;
use gatecast::server::Server;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use self::notify::Notify;
use self::reload::Reload;

/// Instead of glibc's: an idle WebSocket takes half a kilobyte less, a crowd that comes back a fifth less time, and three
/// reconnects leave less behind (docs/performance.md). `.cargo/config.toml` has its settings.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let (mut out, mut err) = (stdout(), stderr());
    let cli = match Cli::read(std::env::args_os(), &mut err) {
        Ok(cli) => cli,
        Err(exit) => return exit.into(),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let io = Io { env: Environment::new(std::env::vars_os()), out: &mut out, err: &mut err };
    runtime.block_on(cli::run(cli, io, serve)).into()
}

/// Runs a server until SIGTERM or Ctrl+C.
async fn serve(now: Effective, reread: Reread) -> Result<(), ServeError> {
    let logging = logging::init(&now.config);
    // Before anything that takes time: unhandled, it would end the process.
    let hangup = signal(SignalKind::hangup())?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut server = Server::start(&now.config).await?;
    if let Some(token) = server.take_created_admin_token() {
        println!("Admin token (shown once, only its hash is kept): {}", token.expose());
    }
    let notify = Arc::new(Notify::from_env(|name| std::env::var_os(name)));
    notify.ready();
    let manager = notify.clone();
    let shutdown = async move {
        let name = tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" };
        info!(signal = name, "Told to stop.");
        manager.stopping();
    };
    let reload = Reload::new(now, reread, server.reloader(), logging, notify.clone());
    let beside = tokio::spawn(async move { tokio::join!(reload.at_each(hangup), notify.keep_alive()) });
    let served = server.serve(shutdown).await;
    beside.abort();
    Ok(served?)
}
