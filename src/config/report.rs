//! The effective configuration as people and machines read it: `gatecast config`.

use std::io::{self, Write};

use serde::Serialize;

use super::byte_size::ByteSize;
use super::raw::RawConfig;
use super::setting::{self, Setting};
use super::source::Source;
use super::value::Span;
use super::{Config, LogFormat, StoreKind, TlsMode};

/// One setting as it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReportLine {
    /// The setting's name.
    pub name: &'static str,
    /// What holds, with its unit; `(set)` for a secret, `None` for nothing.
    pub value: Option<String>,
    /// What would hold if nothing were written.
    pub default: Option<&'static str>,
    /// What the value counts or is.
    pub unit: &'static str,
    /// Where the value was written.
    pub source: String,
    /// What it is for.
    pub meaning: &'static str,
    /// Whether a running server takes over a change of it (SIGHUP).
    pub live: bool,
}

pub(super) fn report(raw: &RawConfig, config: &Config) -> Vec<ReportLine> {
    setting::ALL.into_iter().map(|setting| line(raw, config, setting)).collect()
}

/// Writes the report as a block per setting.
///
/// # Errors
/// If `out` does not take it.
pub fn write_text(lines: &[ReportLine], out: &mut dyn Write) -> io::Result<()> {
    for line in lines {
        let default = line.default.unwrap_or("none");
        writeln!(out, "{}={}", line.name, line.value.as_deref().unwrap_or_default())?;
        writeln!(out, "    {}", line.meaning)?;
        let change = if line.live { "SIGHUP" } else { "restart" };
        writeln!(out, "    from: {} · default: {default} · {} · changed by: {change}", line.source, line.unit)?;
    }
    Ok(())
}

fn line(raw: &RawConfig, config: &Config, setting: &'static Setting) -> ReportLine {
    let source = raw.source(setting);
    let written = source > Source::Dev;
    let default = if source == Source::Dev { Some(setting::LISTEN_DEFAULT_DEV) } else { setting.default };
    let value = if setting.secret { written.then(|| "(set)".to_owned()) } else { shown(raw, config, setting) };
    let Setting { name, unit, meaning, .. } = *setting;
    ReportLine { name, value, default, unit, source: source.to_string(), meaning, live: setting.is_live() }
}

fn shown(raw: &RawConfig, config: &Config, setting: &Setting) -> Option<String> {
    let (cert, key, client_ca) = match &config.tls {
        TlsMode::Files { cert, key, client_ca } => (Some(cert), Some(key), client_ca.as_ref()),
        TlsMode::SelfSigned | TlsMode::Off => (None, None, None),
    };
    let default = || setting.default.map(str::to_owned);
    let value = match setting.name {
        name if name == setting::LISTEN.name => config.listen.to_string(),
        name if name == setting::DATA_DIR.name => config.data_dir.display().to_string(),
        name if name == setting::TLS.name => tls(&config.tls).to_owned(),
        name if name == setting::TLS_CERT.name => cert?.display().to_string(),
        name if name == setting::TLS_KEY.name => key?.display().to_string(),
        name if name == setting::TLS_CLIENT_CA.name => client_ca?.display().to_string(),
        name if name == setting::ADMIN_TOKEN_FILE.name => raw.texts.admin_token_file.clone()?,
        name if name == setting::STORE.name => store(config.store).to_owned(),
        name if name == setting::RING_MAX_EVENTS.name => config.retention.max_events.to_string(),
        name if name == setting::RING_MAX_BYTES.name => config.retention.max_bytes.to_string(),
        name if name == setting::RING_MAX_AGE.name => Span(config.retention.max_age).to_string(),
        name if name == setting::MAX_EVENT_BYTES.name => ByteSize(config.max_event_bytes as u64).to_string(),
        name if name == setting::MAX_CONNECTIONS.name => config.max_connections.to_string(),
        name if name == setting::CONNECTION_TIMEOUT.name => Span(config.connection_timeout).to_string(),
        name if name == setting::RATE_LIMIT_PER_MINUTE.name => config.rate_limit_per_minute.to_string(),
        name if name == setting::MAX_CONNECTIONS_PER_GATEWAY.name => config.max_connections_per_gateway.to_string(),
        name if name == setting::TRUSTED_PROXIES.name => networks(config)?,
        name if name == setting::SHUTDOWN_GRACE.name => Span(config.shutdown_grace).to_string(),
        name if name == setting::LOG.name => config.log.to_string(),
        name if name == setting::LOG_FORMAT.name => log_format(config.log_format).to_owned(),
        name if name == setting::OTLP_ENDPOINT.name => raw.texts.otlp_endpoint.clone()?,
        name if name == setting::OTLP_CERTIFICATE.name => raw.texts.otlp_certificate.clone()?,
        name if name == setting::OTEL_SERVICE_NAME.name => raw.texts.otel_service_name.clone().or_else(default)?,
        _ => return None,
    };
    Some(value)
}

fn tls(mode: &TlsMode) -> &'static str {
    match mode {
        TlsMode::Files { .. } => "on",
        TlsMode::SelfSigned => "on (self-signed, --dev)",
        TlsMode::Off => "off",
    }
}

fn store(kind: StoreKind) -> &'static str {
    match kind {
        StoreKind::Sled => "sled",
        StoreKind::Memory => "memory",
    }
}

fn log_format(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    }
}

fn networks(config: &Config) -> Option<String> {
    let all: Vec<_> = config.trusted_proxies.iter().map(ToString::to_string).collect();
    (!all.is_empty()).then(|| all.join(","))
}
