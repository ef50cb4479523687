use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use tempfile::TempDir;

use super::disk::{Disk, Mercy};
use crate::random::Random;

/// A supply of power for the servers over one data directory, which can be cut.
pub(super) struct Power {
    shim: PathBuf,
    journal: PathBuf,
    data: PathBuf,
    /// As it was when the server started.
    disk: Disk,
    /// What the server before the last loss did, for who has to find out why a check failed.
    notes: Vec<u8>,
    directory: TempDir,
}

impl Power {
    pub(super) fn of(data: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let shim = directory.path().join("power_loss.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/crash/power_loss.c");
        let compiled = Command::new("cc").args(["-shared", "-fPIC", "-O2", "-o"]).arg(&shim).arg(source).status();
        assert!(compiled.expect("a C compiler").success());
        let journal = directory.path().join("journal");
        Self { shim, journal, data: data.to_owned(), disk: Disk::of(data).unwrap(), notes: Vec::new(), directory }
    }

    /// What a server needs in its environment.
    pub(super) fn settings(&self) -> [(&'static str, String); 3] {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        [
            ("LD_PRELOAD", text(&self.shim)),
            ("POWER_LOSS_JOURNAL", text(&self.journal)),
            ("POWER_LOSS_DATA", text(&self.data)),
        ]
    }

    /// Whether a server has begun to note what it does.
    pub(super) fn is_on(&self) -> bool {
        self.journal.exists()
    }

    /// The server was killed, and now what it had not synced is taken back, as far as chance will have it.
    pub(super) fn cut(&mut self, random: &mut Random) {
        let mercy = Mercy::any(random);
        // None if the kill met the server before it ran.
        let journal = fs::read(&self.journal).unwrap_or_default();
        self.disk.replay(&journal);
        let (data, survivor) = (&self.data, self.data.with_extension("survivor"));
        self.disk.lose_power(&survivor, mercy, random).unwrap();
        fs::remove_dir_all(data).unwrap();
        fs::rename(&survivor, data).unwrap();
        if self.is_on() {
            fs::remove_file(&self.journal).unwrap();
        }
        self.disk = Disk::of(data).unwrap();
        println!("power lost: {mercy:?}, {} bytes of notes", journal.len());
        self.notes = journal;
    }
}

impl Drop for Power {
    /// After a failure what the last loss of power has left is kept, as it was before a server saw it.
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        self.directory.disable_cleanup(true);
        let kept = self.directory.path();
        let left = self.disk.write_to(&kept.join("data"));
        let notes = fs::write(kept.join("notes"), &self.notes);
        println!("kept: {}, {left:?}, {notes:?}", kept.display());
    }
}
