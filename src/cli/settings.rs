//! `serve` and `config`: the flags that are settings, and the file with more of them.

use std::fs;
use std::io::Write;
use std::iter;
use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use super::remote::{Environment, Remote};
use crate::config::{self, ConfigFault, Effective, Sources, report, setting};
use crate::server::file_faults;

/// The largest configuration file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Settings as flags. Each wins over its variable in the environment, which wins over the file.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Settings (all others: gatecast config)")]
pub(super) struct Settings {
    /// For trying out: loopback only, a self-signed certificate, no admin token
    #[arg(long)]
    pub(super) dev: bool,

    /// A file of NAME=VALUE lines, with the names of the environment
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Where to listen, such as 127.0.0.1:8443; port 0 takes a free one
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,

    /// Where event logs, gateways and tokens are kept
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,

    /// on, or off behind a proxy that speaks TLS
    #[arg(long, value_name = "on|off")]
    tls: Option<String>,

    /// The certificate chain
    #[arg(long, value_name = "PEM")]
    tls_cert: Option<String>,

    /// The certificate's private key
    #[arg(long, value_name = "PEM")]
    tls_key: Option<String>,

    /// The storage engine: sled or memory
    #[arg(long, value_name = "ENGINE")]
    store: Option<String>,

    /// What to log, such as info or warn,gatecast=debug
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,

    /// text or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

impl Settings {
    /// What holds, or every fault. Those of the files of TLS are among them if there are others; if there are none, whoever
    /// reads the files tells them.
    pub(super) fn load(&self, remote: &Remote, env: &Environment) -> Result<Effective, Vec<ConfigFault>> {
        let (file, unreadable) = match self.file() {
            Ok(file) => (file, None),
            Err(fault) => (None, Some(fault)),
        };
        let read = |path: &str| fs::read(path).map_err(|error| error.to_string());
        let sources = Sources { dev: self.dev, flags: self.flags(remote), env: env.all(), file };
        match (config::load(sources, &read, &file_faults), unreadable) {
            (Ok(effective), None) => Ok(effective),
            (Ok(effective), Some(fault)) => Err(iter::once(fault).chain(file_faults(&effective.config.tls)).collect()),
            (Err(faults), unreadable) => Err(unreadable.into_iter().chain(faults).collect()),
        }
    }

    fn flags(&self, remote: &Remote) -> Vec<(&'static str, String)> {
        let token_file = remote.admin_token_file.as_ref().map(|path| path.display().to_string());
        let flags = [
            (setting::LISTEN.name, self.listen.clone()),
            (setting::DATA_DIR.name, self.data_dir.clone()),
            (setting::TLS.name, self.tls.clone()),
            (setting::TLS_CERT.name, self.tls_cert.clone()),
            (setting::TLS_KEY.name, self.tls_key.clone()),
            (setting::STORE.name, self.store.clone()),
            (setting::LOG.name, self.log.clone()),
            (setting::LOG_FORMAT.name, self.log_format.clone()),
            (setting::ADMIN_TOKEN.name, remote.admin_token.as_ref().map(|token| token.0.clone())),
            (setting::ADMIN_TOKEN_FILE.name, token_file),
        ];
        flags.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    fn file(&self) -> Result<Option<(PathBuf, String)>, ConfigFault> {
        let Some(path) = &self.config else { return Ok(None) };
        let fault = |problem: String| ConfigFault::Unreadable { name: "--config", path: path.clone(), problem };
        let size = fs::metadata(path).map_err(|error| fault(error.to_string()))?.len();
        if size > FILE_BYTES_MAX {
            return Err(fault(format!("has {size} bytes; at most {FILE_BYTES_MAX} are read")));
        }
        let text = fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
        Ok(Some((path.clone(), text)))
    }
}

/// `gatecast config`. What no server would start with is not shown.
pub(super) fn show(effective: &Effective, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let faults = file_faults(&effective.config.tls);
    if !faults.is_empty() {
        return Err(Failure::Config(faults));
    }
    if json {
        serde_json::to_writer_pretty(&mut *out, &effective.report).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        report::write_text(&effective.report, out)?;
    }
    Ok(())
}
