//! Log lines on standard error: for people, or one JSON object a line.

mod plain;

use std::io::{IsTerminal, stderr};

use gatecast::config::{Config, LogFilter, LogFormat};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Registry, fmt, reload};

use self::plain::PlainFields;

/// Changes what is logged.
pub(crate) struct Logging(reload::Handle<Targets, Registry>);

/// Logs what the configuration asks for, until told otherwise.
pub(crate) fn init(config: &Config) -> Logging {
    let (targets, handle) = reload::Layer::new(config.log.targets());
    let registry = tracing_subscriber::registry().with(targets);
    match config.log_format {
        LogFormat::Text if stderr().is_terminal() => registry.with(fmt::layer().with_writer(stderr)).init(),
        LogFormat::Text => {
            registry.with(fmt::layer().with_writer(stderr).with_ansi(false).fmt_fields(PlainFields)).init();
        }
        LogFormat::Json => registry.with(fmt::layer().json().with_writer(stderr)).init(),
    }
    Logging(handle)
}

impl Logging {
    /// Logs what this filter asks for from now on.
    pub(crate) fn set(&self, filter: &LogFilter) {
        // It fails only without a subscriber, and there is one as long as the process.
        drop(self.0.reload(filter.targets()));
    }
}
