//! `backup`: all of a running server's store in one file.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use clap::Args;
use gatecast_storage::check_export;
use rustix::fs::OFlags;
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
disk; an existing file is not overwritten, and an interrupted backup (exit code 1) leaves none. It holds everything,
artifacts and the hashes of tokens too, so only its owner may read it.")]
pub(super) struct Backup {
    /// The file to write
    file: PathBuf,
}

impl Backup {
    /// `stop` resolves when the user has enough.
    pub(super) async fn run(
        self,
        api: &ApiClient,
        output: &mut Output<'_>,
        stop: impl Future<Output = ()>,
    ) -> Result<(), Failure> {
        if self.file.exists() {
            return Err(failed(&self.file)(io::ErrorKind::AlreadyExists.into()));
        }
        let partial = Partial::take(&self.file)?;
        let written =
            tokio::select! { biased; () = stop => Err(Failure::Interrupted), written = partial.fill(api) => written };
        let bytes = written.and_then(|()| partial.publish(&self.file)).inspect_err(|_| partial.remove())?;
        if output.json {
            writeln!(output.out, "{}", json!({ "file": self.file, "bytes": bytes }))?;
        } else {
            writeln!(output.out, "✓ Backed up {bytes} bytes to {}", printable(&self.file.display().to_string()))?;
        }
        Ok(())
    }
}

/// It holds what the data directory does, which is nobody else's either.
const MODE: u32 = 0o600;

/// What a backup is called until it is whole. It is locked, so that of two commands with one name one fails before
/// anything is asked, and what a command left that was killed is in nobody's way.
struct Partial {
    path: PathBuf,
    file: File,
}

impl Partial {
    fn take(of: &Path) -> Result<Self, Failure> {
        let mut path = of.to_owned().into_os_string();
        path.push(".partial");
        let path = PathBuf::from(path);
        let taken = || -> io::Result<File> {
            let not_elsewhere = OFlags::NOFOLLOW.bits().cast_signed();
            let options = &mut File::options();
            let options = options.create(true).truncate(false).write(true).mode(MODE).custom_flags(not_elsewhere);
            let file = options.open(&path)?;
            let taken_by_another = || io::Error::new(io::ErrorKind::ResourceBusy, "another backup is writing it");
            file.try_lock().map_err(|error| match error {
                TryLockError::WouldBlock => taken_by_another(),
                TryLockError::Error(error) => error,
            })?;
            // Whoever had it may have ended meanwhile, and this is no longer what has the name.
            if fs::metadata(&path)?.ino() != file.metadata()?.ino() {
                return Err(taken_by_another());
            }
            // It may be what was left of a command that was killed, and others may have been let in since.
            file.set_permissions(Permissions::from_mode(MODE))?;
            file.set_len(0)?;
            Ok(file)
        };
        let file = taken().map_err(failed(&path))?;
        Ok(Self { path, file })
    }

    async fn fill(&self, api: &ApiClient) -> Result<(), Failure> {
        let failed = failed(&self.path);
        let mut backup = api.backup().await?;
        while let Some(piece) = backup.piece().await? {
            (&self.file).write_all(&piece).map_err(&failed)?;
        }
        self.file.sync_all().map_err(&failed)?;
        Ok(check_export(&self.path).await?)
    }

    /// Gives it its name, unless there is such a file by now; how large it is.
    fn publish(&self, to: &Path) -> Result<u64, Failure> {
        let published = || {
            match fs::hard_link(&self.path, to) {
                // Not every file system has links.
                Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported) => {
                    File::create_new(to)?;
                    fs::rename(&self.path, to)?;
                }
                linked => linked.and_then(|()| fs::remove_file(&self.path))?,
            }
            if let Some(parent) = fs::canonicalize(to)?.parent() {
                File::open(parent)?.sync_all()?;
            }
            Ok(self.file.metadata()?.len())
        };
        published().map_err(failed(to))
    }

    fn remove(&self) {
        // What failed is reported; a leftover is not worth a second report.
        let _ = fs::remove_file(&self.path);
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> Failure {
    let path = path.to_owned();
    move |source| Failure::File { path: path.clone(), source }
}
