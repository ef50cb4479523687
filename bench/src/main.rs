//! Load generator for gatecast: how much memory an idle connection takes, what a delivery and a publish cost, how fast
//! peers catch up. Run it by `scripts/bench`, which builds it and pins it to a core of its own.
//!
//! # Layout
//! - [`scenario`]: one file a kind of figure. [`table`]: what is printed; [`plot`]: what is drawn.
//! - [`count`]: instructions instead of time, for `scripts/cost`.
//! - [`lab`]: a server under test, its gateways, and where they are kept. [`process`]: its CPU time and memory.
//! - [`peer`]: gateways over the three transports, as CONTRACT.md has them; [`tally`]: what they received.
//! - [`floor`]: the bare writer, a process that writes the same bytes to as many sockets and does nothing else.
//! - [`rival`]: Nchan and NATS, measured in the same rounds with `--peers`.
//! - [`http`], [`nats`], [`tls`]: as little of them as is needed.
//!
//! CPU time of the server's process per delivery is what counts: wall time depends on who else uses the machine. What a
//! figure is compared with runs right beside it, in turns, and the median of the rounds is shown.

mod count;
mod floor;
mod http;
mod lab;
mod nats;
mod peer;
mod plot;
mod process;
mod rival;
mod scenario;
mod table;
mod tally;
mod tls;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Whatever goes wrong ends the bench.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const USAGE: &str = "usage: gatecast-bench run <server binary> [--full] [--peers] [scenario]... \
     | count <server binary> <figures> <directory of profiles> | floor plain|tls | floor durable <file>";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["floor", "plain"] => floor::serve(false, None),
        ["floor", "tls"] => floor::serve(true, None),
        ["floor", "durable", file] => floor::serve(false, Some(Path::new(file))),
        ["run", server, asked @ ..] => scenario::run(PathBuf::from(server), asked),
        ["count", server, kept, profiles] => count::run(PathBuf::from(server), Path::new(kept), Path::new(profiles)),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
