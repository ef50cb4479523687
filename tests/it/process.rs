//! The real binary as a process of its own: killed by its pid at the latest when the test ends, however it ends.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::platform::{Platform, spacious};
use crate::wire::PATIENCE;

/// What a process writes, line by line, as it comes.
pub(crate) struct Lines {
    seen: watch::Receiver<Vec<String>>,
    next: usize,
}

impl Lines {
    pub(crate) fn of(source: impl AsyncRead + Send + Unpin + 'static) -> Self {
        let (write, seen) = watch::channel(Vec::new());
        tokio::spawn(async move {
            let mut lines = BufReader::new(source).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                write.send_modify(|seen| seen.push(line));
            }
        });
        Self { seen, next: 0 }
    }

    /// The next line; `None` at the end.
    pub(crate) async fn line(&mut self) -> Option<String> {
        let next = self.next;
        let ready = timeout(PATIENCE, self.seen.wait_for(|seen| seen.len() > next)).await.map(|ready| ready.is_ok());
        let Ok(ready) = ready else { panic!("a line in time, after {:#?}", self.so_far()) };
        self.next += usize::from(ready);
        self.seen.borrow().get(next).cloned()
    }

    /// What `find` makes of the first line from here on that it takes.
    pub(crate) async fn until<T>(&mut self, find: impl Fn(&str) -> Option<T>) -> T {
        while let Some(line) = self.line().await {
            if let Some(found) = find(&line) {
                return found;
            }
        }
        panic!("not among all there is: {:#?}", self.so_far())
    }

    /// Waits for a line that contains `part`, and returns it.
    pub(crate) async fn containing(&mut self, part: &str) -> String {
        self.until(|line| line.contains(part).then(|| line.to_owned())).await
    }

    /// Everything, once it has ended.
    pub(crate) async fn whole(&mut self) -> Vec<String> {
        let ended = async { while self.seen.changed().await.is_ok() {} };
        timeout(PATIENCE, ended).await.expect("the end of the output");
        self.so_far()
    }

    /// Everything up to now.
    pub(crate) fn so_far(&self) -> Vec<String> {
        self.seen.borrow().clone()
    }
}

pub(crate) struct Process {
    child: Child,
    pub(crate) out: Lines,
    pub(crate) err: Lines,
}

/// The binary, in an environment that holds nothing of ours but `settings`.
pub(crate) fn gatecast(args: &[&str], settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatecast"));
    for (name, _) in std::env::vars_os() {
        if ["GATECAST_", "WS_", "OTEL_"].iter().any(|ours| name.to_string_lossy().starts_with(ours)) {
            command.env_remove(name);
        }
    }
    command.args(args).envs(settings.iter().copied()).stdin(Stdio::null());
    command
}

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.kill_on_drop(true).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err) = (Lines::of(child.stdout.take().unwrap()), Lines::of(child.stderr.take().unwrap()));
        Self { child, out, err }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Sends a signal, such as `TERM`.
    pub(crate) async fn signal(&self, name: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().await.unwrap().success());
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap()
    }

    /// The same, however long it takes.
    pub(crate) async fn exited(&mut self) -> ExitStatus {
        self.child.wait().await.unwrap()
    }

    /// Whether a server gets so far; else it has said all that it says.
    pub(crate) async fn listens(&mut self) -> bool {
        while let Some(line) = self.err.line().await {
            if line.contains("Listening on ") {
                return true;
            }
        }
        false
    }

    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

/// `gatecast serve` as a process.
pub(crate) struct Served {
    pub(crate) process: Process,
    pub(crate) platform: Platform,
}

impl Served {
    /// Starts `serve --dev` on a free port and waits until it listens.
    pub(crate) async fn dev(data: &Path, settings: &[(&str, &str)]) -> Self {
        Self::start(&["--dev"], data, settings).await
    }

    pub(crate) async fn start(args: &[&str], data: &Path, settings: &[(&str, &str)]) -> Self {
        Self::listening(Process::spawn(&mut Self::command(args, data, settings))).await
    }

    /// Without waiting.
    pub(crate) fn command(args: &[&str], data: &Path, settings: &[(&str, &str)]) -> Command {
        let mut command = gatecast(&["serve"], &spacious(settings));
        command.args(args).env("GATECAST_DATA_DIR", data);
        if !settings.iter().any(|(name, _)| *name == "GATECAST_LISTEN") {
            command.env("GATECAST_LISTEN", "127.0.0.1:0");
        }
        command
    }

    /// Waits until it listens.
    pub(crate) async fn listening(mut process: Process) -> Self {
        let address = process.err.until(address).await;
        Self { process, platform: Platform::new(address) }
    }
}

/// Where a server listens, of the line that says so.
pub(crate) fn address(line: &str) -> Option<SocketAddr> {
    let rest = line.split("Listening on https://").nth(1)?;
    // Followed by a full stop, and in JSON by more.
    let address = rest.split(|c: char| !(c.is_ascii_hexdigit() || ".:[]".contains(c))).next()?;
    address.trim_end_matches('.').parse().ok()
}

/// What a command that ends by itself said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) exit: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs a command to its end.
pub(crate) async fn run(args: &[&str], settings: &[(&str, &str)]) -> Said {
    let output =
        timeout(PATIENCE, gatecast(args, settings).kill_on_drop(true).output()).await.expect("it ends").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { exit: output.status.code().expect("no signal"), out: text(output.stdout), err: text(output.stderr) }
}
