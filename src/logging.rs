//! Log lines on standard error: for people, or one JSON object a line.

use std::io::{IsTerminal, stderr};

use gatecast::config::{Config, LogFormat};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

/// Logs what the configuration asks for, for the rest of the process.
pub(crate) fn init(config: &Config) {
    let targets: Targets = config.log.targets();
    let registry = tracing_subscriber::registry().with(targets);
    match config.log_format {
        LogFormat::Text => registry.with(fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal())).init(),
        LogFormat::Json => registry.with(fmt::layer().json().with_writer(stderr)).init(),
    }
}
