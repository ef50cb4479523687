//! Configuration in two steps: [`RawConfig`] is what was written, [`Config`] is what holds.
//!
//! Flags win over the environment, the environment over a file, a file over defaults. Every value is bounded, 0 never
//! means unlimited, and all faults are reported at once (exit code [`EXIT_CONFIG`]). Nothing here reads the process
//! environment or the disk: `main` hands both in.
//!
//! # Layout
//! [`setting`] lists every setting; `raw` joins the sources; `check` types and bounds them; [`report`] shows them.

mod admin_token;
mod byte_size;
mod check;
mod fault;
mod file;
mod log_filter;
mod nearest;
mod raw;
pub mod report;
pub mod setting;
mod source;
#[cfg(test)]
mod tests;
mod trace_export;
mod value;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use admin_token::AdminToken;
pub use byte_size::ByteSize;
pub use fault::{ConfigFault, EXIT_CONFIG};
use ipnet::IpNet;
pub use log_filter::LogFilter;
pub use raw::{RawConfig, Sources};
pub use report::ReportLine;
pub use setting::Setting;
pub use source::Source;
pub use trace_export::TraceExport;
pub use value::ValueError;
pub(crate) use value::duration;

/// What holds: every value typed and within its bounds.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the server listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whether this is a throw-away server on a loopback address that needs no admin token.
    pub dev: bool,
    /// Where everything durable is kept.
    pub data_dir: PathBuf,
    /// How connections are secured.
    pub tls: TlsMode,
    /// The admin token, if one is configured.
    pub admin_token: Option<AdminToken>,
    /// The storage engine.
    pub store: StoreKind,
    /// How much is kept per gateway.
    pub retention: Retention,
    /// The largest event in bytes, envelope included.
    pub max_event_bytes: usize,
    /// Connections held at once on all transports (`WS_MAX_CONNECTIONS`).
    pub max_connections: u32,
    /// How long a peer without a sign of life is kept (`WS_CONNECTION_TIMEOUT`).
    pub connection_timeout: Duration,
    /// Connection attempts per address and minute (`WS_RATE_LIMIT_PER_MINUTE`).
    pub rate_limit_per_minute: u32,
    /// Connections of one gateway held at once.
    pub max_connections_per_gateway: u32,
    /// Proxies whose word about a client's address counts.
    pub trusted_proxies: Vec<IpNet>,
    /// How long a drain may take.
    pub shutdown_grace: Duration,
    /// What is logged.
    pub log: LogFilter,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Where traces go, if anywhere.
    pub traces: Option<TraceExport>,
}

/// How connections are secured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsMode {
    /// By a certificate and its key in PEM files, not opened yet.
    Files {
        /// The certificate chain.
        cert: PathBuf,
        /// The private key.
        key: PathBuf,
        /// The authorities whose client certificates prove gateways; `None` if none is asked for.
        client_ca: Option<PathBuf>,
    },
    /// By a certificate made at start; only with `--dev`.
    SelfSigned,
    /// Not here: a proxy in front speaks TLS.
    Off,
}

/// The storage engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// On disk.
    Sled,
    /// In memory: gone when the server stops.
    Memory,
}

/// How much is kept per gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Events at most.
    pub max_events: u64,
    /// Bytes at most.
    pub max_bytes: ByteSize,
    /// Age at most.
    pub max_age: Duration,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A checked configuration, and how it came about.
#[derive(Debug, Clone)]
pub struct Effective {
    /// What holds.
    pub config: Config,
    /// Every setting with its value, default and source.
    pub report: Vec<ReportLine>,
}

impl Effective {
    /// The settings that hold another value than `before`. Not the contents of files that they name, but for the admin
    /// token's.
    #[must_use]
    pub fn changed_since(&self, before: &Self) -> Vec<&'static Setting> {
        let is_from_file = self.value(&setting::ADMIN_TOKEN_FILE).is_some();
        let token = if is_from_file { &setting::ADMIN_TOKEN_FILE } else { &setting::ADMIN_TOKEN };
        let token = (self.config.admin_token != before.config.admin_token).then_some(token.name);
        let traces = self.config.traces.as_ref().zip(before.config.traces.as_ref());
        let headers = traces.is_some_and(|(now, before)| now.headers != before.headers);
        // The report says only that they are set.
        let secrets = [token, headers.then_some(setting::OTLP_HEADERS.name)];
        let is_changed =
            |setting: &&Setting| secrets.contains(&Some(setting.name)) || self.value(setting) != before.value(setting);
        setting::ALL.into_iter().filter(is_changed).collect()
    }

    /// Reports the certificate of `before` instead of its own, which was not taken over.
    pub fn keep_certificate(&mut self, before: &Self) {
        let names = [&setting::TLS_CERT, &setting::TLS_KEY, &setting::TLS_CLIENT_CA].map(|setting| setting.name);
        for (line, before) in self.report.iter_mut().zip(&before.report) {
            if names.contains(&line.name) {
                line.clone_from(before);
            }
        }
    }

    fn value(&self, setting: &Setting) -> Option<&str> {
        self.report.iter().find(|line| line.name == setting.name)?.value.as_deref()
    }
}

/// Joins and checks the sources. `read` reads the file of an admin token, or of a collector's authorities: its bytes, or what
/// is wrong. `look` looks at the files of TLS, if there is another fault: a server whose configuration has none waits for
/// files that are being replaced.
///
/// # Errors
/// Every fault there is, not only the first.
pub fn load(
    sources: Sources,
    read: &dyn Fn(&str) -> Result<Vec<u8>, String>,
    look: &dyn Fn(&TlsMode) -> Vec<ConfigFault>,
) -> Result<Effective, Vec<ConfigFault>> {
    let mut faults = Vec::new();
    let raw = RawConfig::join(sources, read, &mut faults);
    let tls = check::check_tls(&raw, &mut faults);
    match check::check(&raw, tls.clone(), &mut faults) {
        Some(config) if faults.is_empty() => Ok(Effective { report: report::report(&raw, &config), config }),
        _ => {
            faults.extend(tls.iter().flat_map(look));
            Err(faults)
        }
    }
}

/// Where the data directory is for who looks after it without a server: as `serve` would find it, which has a file of settings
/// as well.
///
/// # Errors
/// Every fault in what says so.
pub fn data_dir(flag: Option<String>, mut env: Vec<(OsString, OsString)>) -> Result<PathBuf, Vec<ConfigFault>> {
    env.retain(|(name, _)| name == setting::DATA_DIR.name);
    let flags = flag.map(|flag| (setting::DATA_DIR.name, flag)).into_iter().collect();
    let (sources, mut faults) = (Sources { dev: false, flags, env, file: None }, Vec::new());
    let raw = RawConfig::join(sources, &|_| Ok(Vec::new()), &mut faults);
    check::check_data_dir(&raw, &mut faults).filter(|_| faults.is_empty()).ok_or(faults)
}
