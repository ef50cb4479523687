//! Log lines on standard error: for people, or one JSON object a line.

mod backlog;
mod plain;
mod time;

use std::io::{self, IsTerminal, stderr};
use std::sync::Arc;

use gatecast::config::{Config, LogFilter, LogFormat};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{DefaultFields, Format, Full};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Registry, fmt, reload};

pub(crate) use self::backlog::Backlog;
use self::plain::PlainFields;
use self::time::WallTime;

/// Changes what is logged.
pub(crate) struct Logging(reload::Handle<Targets, Registry>);

/// Logs what the configuration asks for, until told otherwise, and waits for nobody who reads it.
///
/// # Errors
/// If there can be no thread that writes.
pub(crate) fn init(config: &Config, backlog: &Arc<Backlog>) -> io::Result<Logging> {
    backlog.start()?;
    let lines = || lines(Arc::clone(backlog));
    let (targets, handle) = reload::Layer::new(config.log.targets());
    let registry = tracing_subscriber::registry().with(targets);
    match config.log_format {
        LogFormat::Text if stderr().is_terminal() => registry.with(lines()).init(),
        LogFormat::Text => registry.with(lines().with_ansi(false).fmt_fields(PlainFields)).init(),
        LogFormat::Json => registry.with(lines().json()).init(),
    }
    Ok(Logging(handle))
}

type Lines<S> = fmt::Layer<S, DefaultFields, Format<Full, WallTime>, Arc<Backlog>>;

/// Lines for people, each with its time.
fn lines<S>(backlog: Arc<Backlog>) -> Lines<S> {
    fmt::Layer::default().with_timer(WallTime::default()).with_writer(backlog)
}

impl Logging {
    /// Logs what this filter asks for from now on.
    pub(crate) fn set(&self, filter: &LogFilter) {
        // It fails only without a subscriber, and there is one as long as the process.
        drop(self.0.reload(filter.targets()));
    }
}
