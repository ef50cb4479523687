//! A process under test, on the core that is its own.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::Result;

/// The core of whatever is measured; `scripts/bench` gives the generator the other.
const CORE: &str = "0";
/// Ticks a second in `/proc/<pid>/stat`: USER_HZ, which Linux fixes at 100 for user space on all its common platforms.
const TICK_US: u64 = 10_000;
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// A running process, killed with its children when dropped.
pub(crate) struct Process {
    child: Child,
    pid: u32,
}

impl Process {
    /// Starts a program on the measured core.
    pub(crate) fn start(program: &Path, args: &[&str], env: &[(&str, &str)]) -> Result<Self> {
        let mut command = Command::new("taskset");
        command.args(["-c", CORE]).arg(program).args(args).envs(env.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let child = command.spawn()?;
        // taskset becomes the program, so this is the program's id.
        let pid = child.id().ok_or("a process ended at once")?;
        Ok(Self { child, pid })
    }

    /// Its standard input.
    pub(crate) fn stdin(&mut self) -> Result<ChildStdin> {
        Ok(self.child.stdin.take().ok_or("standard input was taken before")?)
    }

    /// Its standard output, line by line.
    pub(crate) fn lines(&mut self) -> Result<Lines<BufReader<ChildStdout>>> {
        Ok(BufReader::new(self.child.stdout.take().ok_or("standard output was taken before")?).lines())
    }

    /// Its id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// CPU time of all its threads so far, those that ended included, and of the processes it started.
    pub(crate) fn cpu_us(&self) -> Result<u64> {
        self.family()?.into_iter().map(cpu_us).sum()
    }

    /// Resident bytes that are no file's, of the processes it started too.
    pub(crate) fn resident(&self) -> Result<u64> {
        self.family()?.into_iter().map(|pid| Ok(status(pid, "RssAnon:")? + status(pid, "RssShmem:")?)).sum()
    }

    /// The most bytes that were resident since [`Self::forget_peak`], those of files included.
    pub(crate) fn peak(&self) -> Result<u64> {
        status(self.pid, "VmHWM:")
    }

    /// From now on the peak is a new one.
    pub(crate) fn forget_peak(&self) -> Result<()> {
        // proc_pid_clear_refs(5): 5 resets the peak.
        Ok(fs::write(format!("/proc/{}/clear_refs", self.pid), "5")?)
    }

    /// It and its children: nginx has a master and a worker.
    fn family(&self) -> Result<Vec<u32>> {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid))?;
        let mut family = vec![self.pid];
        for child in children.split_whitespace() {
            family.push(child.parse()?);
        }
        Ok(family)
    }

    /// Asks it to end and waits for that.
    pub(crate) async fn stop(mut self) -> Result<()> {
        Command::new("kill").arg(self.pid.to_string()).status().await?;
        timeout(STOP_WITHIN, self.child.wait()).await.map_err(|_| "the process does not stop")??;
        Ok(())
    }
}

impl Drop for Process {
    /// Its children end with it: tokio kills only the process itself.
    fn drop(&mut self) {
        let family = self.family().unwrap_or_default();
        let family = family.iter().map(u32::to_string);
        let _killed = std::process::Command::new("kill").arg("-KILL").args(family).stderr(Stdio::null()).status();
    }
}

fn cpu_us(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // proc_pid_stat(5): the second field may hold spaces, so count from the bracket that ends it.
    let (_, fields) = stat.rsplit_once(") ").ok_or("unknown /proc/pid/stat")?;
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u64>).sum::<std::result::Result<u64, _>>()?;
    Ok(ticks * TICK_US)
}

fn status(pid: u32, name: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("unknown /proc/pid/status")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// How many descriptors this process, and so whatever it starts, may have.
pub(crate) fn descriptors() -> Result<usize> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let line =
        limits.lines().find_map(|line| line.strip_prefix("Max open files")).ok_or("unknown /proc/self/limits")?;
    Ok(line.split_whitespace().next().ok_or("no limit")?.parse()?)
}
