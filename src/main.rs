//! The gatecast binary.

use std::io::{stderr, stdout};
use std::process::ExitCode;

use clap::Parser;
use gatecast::cli::{self, Cli, Environment, Io};

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
    // WIRE HERE: `gatecast::server::run(config)` takes the place of this closure.
    runtime.block_on(cli::run(cli, io, |_config| async { Err("this build has no server yet".into()) })).into()
}
