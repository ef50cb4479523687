//! Log lines on standard error: for people, or one JSON object a line.

mod plain;
mod time;

use std::io::{IsTerminal, Stderr, stderr};

use gatecast::config::{Config, LogFilter, LogFormat};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{DefaultFields, Format, Full};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Registry, fmt, reload};

use self::plain::PlainFields;
use self::time::WallTime;

/// Changes what is logged.
pub(crate) struct Logging(reload::Handle<Targets, Registry>);

/// Logs what the configuration asks for, until told otherwise.
pub(crate) fn init(config: &Config) -> Logging {
    let (targets, handle) = reload::Layer::new(config.log.targets());
    let registry = tracing_subscriber::registry().with(targets);
    match config.log_format {
        LogFormat::Text if stderr().is_terminal() => registry.with(lines()).init(),
        LogFormat::Text => registry.with(lines().with_ansi(false).fmt_fields(PlainFields)).init(),
        LogFormat::Json => registry.with(lines().json()).init(),
    }
    Logging(handle)
}

type Lines<S> = fmt::Layer<S, DefaultFields, Format<Full, WallTime>, fn() -> Stderr>;

/// Lines for people, each with its time.
fn lines<S>() -> Lines<S> {
    fmt::Layer::default().with_timer(WallTime::default()).with_writer(stderr)
}

impl Logging {
    /// Logs what this filter asks for from now on.
    pub(crate) fn set(&self, filter: &LogFilter) {
        // It fails only without a subscriber, and there is one as long as the process.
        drop(self.0.reload(filter.targets()));
    }
}
