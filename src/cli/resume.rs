//! Where `listen` starts, and the file that remembers it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use gatecast_storage::Cursor;

use super::failure::Failure;

/// What `--resume` means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Resume {
    /// A position in words or as a cursor.
    At(String),
    /// A file that holds a cursor, or will.
    File(ResumeFile),
}

impl Resume {
    /// An existing file is a file; else what reads as a position is one; else it is a file to be.
    pub(super) fn parse(text: &str) -> Self {
        if !Path::new(text).exists() && is_position(text) {
            Self::At(text.to_owned())
        } else {
            Self::File(ResumeFile { path: text.into() })
        }
    }
}

fn is_position(text: &str) -> bool {
    matches!(text, "earliest" | "latest" | "stored") || text.parse::<Cursor>().is_ok()
}

/// A file with one cursor in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResumeFile {
    path: PathBuf,
}

impl ResumeFile {
    /// The position in the file; `None` if there is no file, or it is empty.
    pub(super) fn load(&self) -> Result<Option<String>, Failure> {
        match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            // A device would be replaced by the first save.
            Ok(meta) if !meta.is_file() => return Err(self.fault(io::Error::other("is not a regular file"))),
            Ok(_) => {}
            Err(error) => return Err(self.fault(error)),
        }
        let text = fs::read_to_string(&self.path).map_err(|error| self.fault(error))?;
        match text.trim() {
            "" => Ok(None),
            position if is_position(position) => Ok(Some(position.to_owned())),
            _ => Err(self.fault(io::Error::other("holds no cursor, such as 6f3a9c21-42; remove it to start anew"))),
        }
    }

    /// Replaces the cursor in the file: a reader, or a crash, finds the old one or the new one, never half of one.
    pub(super) fn save(&self, cursor: &str) -> Result<(), Failure> {
        self.replace(cursor).map_err(|error| self.fault(error))
    }

    fn replace(&self, cursor: &str) -> io::Result<()> {
        // In the same directory, since a rename does not cross file systems.
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = self.path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
        let written = File::create(&temporary).and_then(|mut file| {
            writeln!(file, "{cursor}")?;
            // Before the rename: else a power loss could leave the new name on an empty file.
            file.sync_data()
        });
        let replaced = written.and_then(|()| fs::rename(&temporary, &self.path));
        if replaced.is_err() {
            // What failed is reported; a leftover is not worth a second report.
            let _ = fs::remove_file(&temporary);
        }
        replaced
    }

    fn fault(&self, source: io::Error) -> Failure {
        Failure::File { path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dir: &tempfile::TempDir) -> ResumeFile {
        ResumeFile { path: dir.path().join("cursor") }
    }

    #[test]
    fn a_saved_cursor_is_loaded_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(&dir);
        assert_eq!(file.load().unwrap(), None);
        for cursor in ["6f3a9c21-1", "6f3a9c21-2"] {
            file.save(cursor).unwrap();
            assert_eq!(file.load().unwrap().as_deref(), Some(cursor));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_save_replaces_the_file_and_never_writes_into_it() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let file = file(&dir);
        file.save("6f3a9c21-1").unwrap();
        let open = File::open(&file.path).unwrap();
        file.save("6f3a9c21-2").unwrap();
        assert_ne!(open.metadata().unwrap().ino(), fs::metadata(&file.path).unwrap().ino());
        // Who opened it before still reads a whole cursor.
        assert_eq!(io::read_to_string(open).unwrap(), "6f3a9c21-1\n");
    }

    #[test]
    fn a_failed_save_keeps_the_old_cursor_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let below = ResumeFile { path: dir.path().join("no/such/dir") };
        assert!(below.save("6f3a9c21-1").is_err());
        // A directory in the way makes the rename fail after the write.
        fs::create_dir(dir.path().join("cursor")).unwrap();
        assert!(file(&dir).save("6f3a9c21-1").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn foreign_content_is_refused_and_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(&dir);
        fs::write(&file.path, "important notes\n").unwrap();
        assert!(file.load().is_err());
        assert!(ResumeFile { path: dir.path().to_owned() }.load().is_err());
        fs::write(&file.path, "\n").unwrap();
        assert_eq!(file.load().unwrap(), None);
    }

    #[test]
    fn an_existing_file_is_a_file_and_else_a_position_is_a_position() {
        let at = |text: &str| Resume::At(text.to_owned());
        for text in ["6f3a9c21-42", "earliest", "latest", "stored"] {
            assert_eq!(Resume::parse(text), at(text));
        }
        for text in ["cursor.txt", "./earliest", "6f3a9c21"] {
            assert!(matches!(Resume::parse(text), Resume::File(_)), "{text}");
        }
    }
}
