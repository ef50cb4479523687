//! `backup`: all of a running server's store in one file.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use gatecast_storage::check_export;
use serde_json::json;

use super::failure::Failure;
use super::output::Output;
use super::printable::printable;
use crate::client::api::ApiClient;

#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  gatecast backup gatecast-2026-11-20.export
  gatecast store import gatecast-2026-11-20.export --data-dir /var/lib/gatecast-new     (restores it)

Publishing and delivery go on. All that was answered before the command began is in the file, and of what is answered
meanwhile a part: of each gateway its events up to one moment. It appears under its name once it is whole, checked and on
disk; an existing file is not overwritten. It holds everything, artifacts and the hashes of tokens too.")]
pub(super) struct Backup {
    /// The file to write
    file: PathBuf,
}

impl Backup {
    pub(super) async fn run(self, api: &ApiClient, output: &mut Output<'_>) -> Result<(), Failure> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Failure::File { path, source }
        };
        let mut partial = self.file.clone().into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        // Reserved, so that of two commands with one name one fails, before anything is asked.
        File::create_new(&self.file).map_err(failed(&self.file))?;
        let written = write(api, &partial).await;
        if let Err(error) = written.and_then(|()| fs::rename(&partial, &self.file).map_err(failed(&self.file))) {
            // What failed is reported; a leftover is not worth a second report.
            let _ = fs::remove_file(&partial);
            let _ = fs::remove_file(&self.file);
            return Err(error);
        }
        let bytes = fs::metadata(&self.file).map_err(failed(&self.file))?.len();
        if output.json {
            writeln!(output.out, "{}", json!({ "file": self.file, "bytes": bytes }))?;
        } else {
            writeln!(output.out, "✓ Backed up {bytes} bytes to {}", printable(&self.file.display().to_string()))?;
        }
        Ok(())
    }
}

async fn write(api: &ApiClient, to: &Path) -> Result<(), Failure> {
    let failed = |source| Failure::File { path: to.to_owned(), source };
    let mut file = File::create(to).map_err(failed)?;
    let mut backup = api.backup().await?;
    while let Some(piece) = backup.piece().await? {
        file.write_all(&piece).map_err(failed)?;
    }
    file.sync_all().map_err(failed)?;
    Ok(check_export(to).await?)
}
