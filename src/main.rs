//! The gatecast binary.

mod logging;
mod notify;
mod reload;
mod show;

use std::cell::OnceCell;
use std::io::{self, stdout};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use gatecast::cli::{self, Cli, Environment, Io, Reread, ServeError};
use gatecast::config::Effective;
use gatecast::server::Server;
use gatecast_storage::Closed;
use rustix::process::Signal;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info};

use self::logging::Backlog;
use self::notify::Notify;
use self::reload::Reload;

/// Instead of glibc's: an idle WebSocket takes half a kilobyte less, a crowd that comes back a fifth less time, and three
/// reconnects leave less behind (docs/performance.md). `.cargo/config.toml` has its settings.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long the store may take to close once it is flushed.
const CLOSE_MAX: Duration = Duration::from_secs(10);
/// How long the end waits for whoever reads the log.
const LOG_MAX: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    // Of a server, errors come after what it has logged.
    let backlog = Arc::new(Backlog::default());
    let (mut out, mut err) = (stdout(), &*backlog);
    let cli = match Cli::read(std::env::args_os(), &mut err) {
        Ok(cli) => cli,
        Err(exit) => return exit.into(),
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let io = Io { env: Environment::new(std::env::vars_os()), out: &mut out, err: &mut err };
    let closed = OnceCell::new();
    let exit = runtime.block_on(cli::run(cli, io, |now, reread| serve(now, reread, &closed, &backlog)));
    // Tasks are dropped, which closes the store; what hangs on a blocking thread is left behind: a look-up of a name, the
    // opening of a store whose start was cut off.
    runtime.shutdown_background();
    if closed.get().is_some_and(|closed: &Closed| !closed.wait(CLOSE_MAX)) {
        error!("The store does not close and is left behind; what was answered is on disk.");
    }
    backlog.wait(LOG_MAX);
    exit.into()
}

/// Runs a server until SIGTERM or Ctrl+C, which end its start as well. Whoever waits for `closed` waits for its store.
async fn serve(
    now: Effective,
    reread: Reread,
    closed: &OnceCell<Closed>,
    backlog: &Arc<Backlog>,
) -> Result<(), ServeError> {
    let logging = logging::init(&now.config, backlog)?;
    // Before anything that takes time: unhandled, it would end the process.
    let hangup = signal(SignalKind::hangup())?;
    let notify = Arc::new(Notify::from_env(|name| std::env::var_os(name)));
    let mut shutdown = Box::pin(told_to_stop(notify.clone())?);
    let config = now.config.clone();
    // A task of its own: nobody waits for one that is cut off, and its store is as after a crash.
    let starting = AbortOnDropHandle::new(tokio::spawn(async move { Server::start(&config, show::admin_token).await }));
    let server = tokio::select! {
        biased;
        () = &mut shutdown => {
            info!("Stopped before it had started.");
            return Ok(());
        }
        started = starting => started??,
    };
    if let Some(store) = server.closed() {
        closed.get_or_init(|| store);
    }
    notify.ready();
    let reload = Reload::new(now, reread, server.reloader(), logging, notify.clone());
    let beside = tokio::spawn(async move { tokio::join!(reload.at_each(hangup), notify.keep_alive()) });
    let served = server.serve(shutdown).await;
    beside.abort();
    Ok(served?)
}

/// What everything runs on. A write beyond a limit of the size of files (`ulimit -f`) fails from now on, as on a full disk: its
/// signal ends a process that does not handle it. What tokio handles once it handles as long as the process.
fn runtime() -> io::Result<Runtime> {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async { signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).map(drop) })?;
    Ok(runtime)
}

/// From now on SIGTERM and Ctrl+C do not end the process, but complete this.
fn told_to_stop(notify: Arc<Notify>) -> io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        let name = tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" };
        info!(signal = name, "Told to stop.");
        notify.stopping();
    })
}
