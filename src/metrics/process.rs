//! What the kernel says of this process and of the store's files.

use std::fs;
use std::path::Path;

/// Ticks a second in `/proc/*/stat`: fixed by Linux's interface to programs, whatever the kernel's own clock.
const USER_HZ: f64 = 100.0;

/// The process as `/proc` shows it. Without `/proc` nothing is known.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Process {
    pub(crate) resident_bytes: Option<u64>,
    pub(crate) open_fds: Option<usize>,
    pub(crate) cpu_seconds: Option<f64>,
}

impl Process {
    pub(crate) fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").ok();
        let stat = fs::read_to_string("/proc/self/stat").ok();
        Self {
            resident_bytes: status.as_deref().and_then(resident_bytes),
            open_fds: fs::read_dir("/proc/self/fd").ok().map(Iterator::count),
            cpu_seconds: stat.as_deref().and_then(cpu_seconds),
        }
    }
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// User and system time. They are the 14th and 15th field; the second, the name, may hold anything in parentheses.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut ticks = rest.split_whitespace().skip(11).map(|field| field.parse::<f64>());
    Some((ticks.next()?.ok()? + ticks.next()?.ok()?) / USER_HZ)
}

/// Bytes of the files in a directory, of what lies below it too. A file that goes away meanwhile has none.
pub(crate) fn bytes_in(dir: &Path) -> u64 {
    let mut bytes = 0;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(of) if of.is_dir() => bytes += bytes_in(&entry.path()),
            Ok(of) => bytes += of.len(),
            Err(_) => {}
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_files_and_time() {
        let now = Process::now();
        assert!(now.resident_bytes.unwrap() > 100_000 && now.open_fds.unwrap() > 2, "{now:?}");
        assert!(now.cpu_seconds.is_some());
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 9 1 1";
        assert_eq!(cpu_seconds(stat), Some(3.0));
    }

    #[test]
    fn files_below_count() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("below")).unwrap();
        fs::write(dir.path().join("a"), [0; 10]).unwrap();
        fs::write(dir.path().join("below/b"), [0; 5]).unwrap();
        assert_eq!(bytes_in(dir.path()), 15);
    }
}
