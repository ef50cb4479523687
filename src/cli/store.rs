//! `store`: looking after a data directory that no server has open.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use gatecast_storage::{Checked, Clock, Repaired, SystemClock};
use gatecast_storage::{check_store, export_store, import_store, repair_store};
use serde_json::json;

use super::failure::Failure;
use super::output::Output;
use super::printable::printable;
use super::remote::Environment;
use crate::config;

#[derive(Debug, Clone, Subcommand)]
pub(super) enum StoreCommand {
    /// Look at every row: forms, positions without a gap, sums, indexes, the directory's second copy
    #[command(after_help = "\
Examples:
  gatecast store check --data-dir /var/lib/gatecast
  gatecast store check --json | jq .faults

The server must be stopped. The store is opened as by a start: what a crash left is recovered first, and the engine writes
files of its own (copy the directory before, if it is evidence). Nothing is repaired, and no row is changed.
Each fault is a line; any fault ends with exit code 65.")]
    Check(Data),

    /// Make a damaged store whole again; what was damaged is renamed and kept
    #[command(after_help = "\
Examples:
  gatecast store repair --data-dir /var/lib/gatecast

The server must be stopped. A damaged directory (gateways, tokens, APIs, deployments, event types) is rebuilt from its
second copy, directory.copy, which has all that was ever answered. Of a damaged event store the logs that are exact are
kept; the others start anew, and their gateways are reset and catch up by what is published from then on. Nothing is
deleted: what was damaged stays beside it as NAME.damaged-TIME, to be removed by hand. A sound store is not touched.")]
    Repair(Data),

    /// Write all of the store to one file
    #[command(after_help = "\
Examples:
  gatecast store export gatecast-2026-11-20.export --data-dir /var/lib/gatecast

The server must be stopped. The file holds everything, artifacts and the hashes of tokens too, with checksums, so only its
owner may read it; it appears under its name once it is whole and on disk. An existing file is not overwritten. A store with
faults is not exported.")]
    Export(Portable),

    /// Make an empty data directory the store that an export was written from
    #[command(after_help = "\
Examples:
  gatecast store import gatecast-2026-11-20.export --data-dir /var/lib/gatecast-new

Positions and epochs stay what they were, so gateways go on with their cursors. All of it or nothing: a damaged file
changes nothing, and an import that was interrupted can be repeated. A data directory that is not empty is refused.")]
    Import(Portable),
}

#[derive(Debug, Clone, Args)]
pub(super) struct Data {
    /// Where event logs, gateways and tokens are kept [env: GATECAST_DATA_DIR] [default: as for serve]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub(super) struct Portable {
    /// The export
    file: PathBuf,

    #[command(flatten)]
    data: Data,
}

impl Data {
    fn dir(&self, env: &Environment) -> Result<PathBuf, Failure> {
        config::data_dir(self.data_dir.clone(), env.all()).map_err(Failure::Config)
    }
}

impl StoreCommand {
    pub(super) async fn run(self, env: &Environment, output: &mut Output<'_>) -> Result<(), Failure> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        match self {
            Self::Check(data) => {
                let checked = check_store(data.dir(env)?, clock).await?;
                let written = write_checked(output, &checked);
                if checked.fault_count > 0 { Err(Failure::Faults(checked.fault_count)) } else { Ok(written?) }
            }
            Self::Repair(data) => Ok(write_repaired(output, &repair_store(data.dir(env)?, clock).await?)?),
            Self::Export(Portable { file, data }) => {
                Ok(write_checked(output, &export_store(data.dir(env)?, file, clock).await?)?)
            }
            Self::Import(Portable { file, data }) => {
                Ok(write_checked(output, &import_store(data.dir(env)?, file, clock).await?)?)
            }
        }
    }
}

fn write_checked(output: &mut Output<'_>, checked: &Checked) -> io::Result<()> {
    let Checked { logs, events, compacted, records, directory_rows, faults, fault_count } = checked;
    if output.json {
        let answer = json!({
            "logs": logs, "events": events, "compacted": compacted, "records": records,
            "directoryRows": directory_rows, "faultCount": fault_count, "faults": faults,
        });
        return writeln!(output.out, "{answer}");
    }
    for fault in faults {
        writeln!(output.out, "fault: {}", printable(fault))?;
    }
    if *fault_count > faults.len() as u64 {
        writeln!(output.out, "and {} more", fault_count - faults.len() as u64)?;
    }
    writeln!(output.out, "Logs: {logs} with {events} events, and {compacted} in compacted states")?;
    writeln!(output.out, "Positions, outcomes, failed deliveries, answers, orders: {records}")?;
    writeln!(output.out, "Directory: {directory_rows} rows")?;
    writeln!(output.out, "Faults: {fault_count}")
}

fn write_repaired(output: &mut Output<'_>, repaired: &Repaired) -> io::Result<()> {
    let Repaired { directory_rebuilt, copy_rebuilt, events_rebuilt, logs_kept, logs_reset, lost, aside } = repaired;
    if output.json {
        let answer = json!({
            "directoryRebuilt": directory_rebuilt, "copyRebuilt": copy_rebuilt, "eventsRebuilt": events_rebuilt,
            "logsKept": logs_kept, "logsReset": logs_reset.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "lost": lost, "aside": aside,
        });
        return writeln!(output.out, "{answer}");
    }
    if !(*directory_rebuilt || *copy_rebuilt || *events_rebuilt) {
        return writeln!(output.out, "There was nothing to repair.");
    }
    if *directory_rebuilt {
        writeln!(output.out, "The directory was rebuilt from its second copy.")?;
    }
    if *copy_rebuilt {
        writeln!(output.out, "The directory's second copy was written anew.")?;
    }
    if *events_rebuilt {
        writeln!(output.out, "The event store was rebuilt; {logs_kept} logs were kept.")?;
    }
    for gateway in logs_reset {
        writeln!(output.out, "The log of gateway {gateway} starts anew.")?;
    }
    for what in lost {
        writeln!(output.out, "Lost: {}", printable(what))?;
    }
    for path in aside {
        writeln!(output.out, "What was damaged is kept in {}", printable(&path.display().to_string()))?;
    }
    Ok(())
}
