//! From what was written to what holds: every value typed and bounded, all faults collected.

use std::path::PathBuf;
use std::time::Duration;

use super::admin_token::AdminToken;
use super::byte_size::{ByteSize, KIB, MIB, TIB};
use super::fault::ConfigFault;
use super::log_filter::LogFilter;
use super::raw::RawConfig;
use super::setting::{self, Setting};
use super::value::{self, ValueError};
use super::{Config, LogFormat, Retention, StoreKind, TlsMode, TraceExport, trace_export};
use crate::client::{Trust, authorities};

/// Connections at most that can be configured.
const CONNECTIONS_MAX: u32 = 1_000_000;
/// Connection attempts per minute and address at most that can be configured.
const RATE_LIMIT_MAX: u32 = 1_000_000;
/// Events per ring at most that can be configured.
const RING_EVENTS_MAX: u64 = 100_000_000;
/// Bytes per ring that can be configured.
const RING_BYTES: (ByteSize, ByteSize) = (ByteSize(KIB), ByteSize(TIB));
/// Bytes per event that can be configured.
const EVENT_BYTES: (ByteSize, ByteSize) = (ByteSize(KIB), ByteSize(16 * MIB));
/// Ages of a ring that can be configured.
const RING_AGE: (Duration, Duration) = (SECOND, Duration::from_secs(3650 * 86_400));
/// Timeouts of a silent peer that can be configured: below 5 s a slow network looks dead.
const CONNECTION_TIMEOUT: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));
/// Drain times that can be configured.
const SHUTDOWN_GRACE: (Duration, Duration) = (SECOND, Duration::from_secs(600));

const SECOND: Duration = Duration::from_secs(1);

/// Checks everything but TLS, and adds every fault. `None` if there was one.
pub(super) fn check(raw: &RawConfig, tls: Option<TlsMode>, faults: &mut Vec<ConfigFault>) -> Option<Config> {
    let before = faults.len();
    let mut check = Check { raw, faults };
    let retention = check.retention();
    let limits = check.limits();
    let timing = check.timing();
    let log = check.value(&setting::LOG, raw.texts.log.as_deref(), LogFilter::parse);
    let log_format = check.value(&setting::LOG_FORMAT, raw.texts.log_format.as_deref(), log_format);
    let data_dir = check_data_dir(raw, check.faults);
    let store = check.store();
    let admin_token = check.admin_token();
    let listen = check.listen();
    let proxies = raw.texts.trusted_proxies.as_deref().unwrap_or_default();
    let trusted_proxies = check.value(&setting::TRUSTED_PROXIES, Some(proxies), value::networks);
    let traces = check.traces();
    let sound = check.faults.len() == before;
    // Only now may a missing value end this: every check above has had its say.
    let (max_event_bytes, max_connections, max_connections_per_gateway, rate_limit_per_minute) = limits?;
    let (connection_timeout, shutdown_grace) = timing?;
    let config = Config {
        listen: listen?,
        dev: raw.dev,
        data_dir: data_dir?,
        tls: tls?,
        admin_token: admin_token?,
        store: store?,
        retention: retention?,
        max_event_bytes,
        max_connections,
        connection_timeout,
        rate_limit_per_minute,
        max_connections_per_gateway,
        trusted_proxies: trusted_proxies?,
        shutdown_grace,
        log: log?,
        log_format: log_format?,
        traces: traces?,
    };
    sound.then_some(config)
}

/// Of all that was written only how connections are secured. `None` if that is a fault.
pub(super) fn check_tls(raw: &RawConfig, faults: &mut Vec<ConfigFault>) -> Option<TlsMode> {
    Check { raw, faults }.tls()
}

/// Of all that was written only where the data directory is. `None` if that is a fault.
pub(super) fn check_data_dir(raw: &RawConfig, faults: &mut Vec<ConfigFault>) -> Option<PathBuf> {
    Check { raw, faults }.value(&setting::DATA_DIR, raw.texts.data_dir.as_deref(), data_dir)
}

struct Check<'a> {
    raw: &'a RawConfig,
    faults: &'a mut Vec<ConfigFault>,
}

impl Check<'_> {
    /// The written value or the default, typed.
    fn value<T>(
        &mut self,
        setting: &'static Setting,
        written: Option<&str>,
        parse: impl FnOnce(&str) -> Result<T, ValueError>,
    ) -> Option<T> {
        let text = written.or(setting.default).unwrap_or_default();
        parse(text).map_err(|problem| self.invalid(setting, text, problem)).ok()
    }

    fn invalid(&mut self, setting: &'static Setting, text: &str, problem: ValueError) {
        // A URL may hold a password.
        let written = if setting.secret || text.contains('@') { "(hidden)".to_owned() } else { format!("{text:?}") };
        let source_ = self.raw.source(setting);
        self.faults.push(ConfigFault::Invalid { name: setting.name, written, source_, problem });
    }

    fn retention(&mut self) -> Option<Retention> {
        let texts = &self.raw.texts;
        let events = self.value(&setting::RING_MAX_EVENTS, texts.ring_max_events.as_deref(), |text| {
            value::number(text, 1..=RING_EVENTS_MAX)
        });
        let bytes = self.value(&setting::RING_MAX_BYTES, texts.ring_max_bytes.as_deref(), |text| {
            ByteSize::parse(text, RING_BYTES.0..=RING_BYTES.1)
        });
        let age = self.value(&setting::RING_MAX_AGE, texts.ring_max_age.as_deref(), |text| {
            value::duration(text, None, "7d", RING_AGE.0..=RING_AGE.1)
        });
        Some(Retention { max_events: events?, max_bytes: bytes?, max_age: age? })
    }

    fn limits(&mut self) -> Option<(usize, u32, u32, u32)> {
        let texts = &self.raw.texts;
        let event = self.value(&setting::MAX_EVENT_BYTES, texts.max_event_bytes.as_deref(), |text| {
            let size = ByteSize::parse(text, EVENT_BYTES.0..=EVENT_BYTES.1)?;
            usize::try_from(size.0).map_err(|_| ValueError::Other("too large for this machine".to_owned()))
        });
        let all = self.value(&setting::MAX_CONNECTIONS, texts.max_connections.as_deref(), |text| {
            value::number(text, 1..=CONNECTIONS_MAX)
        });
        let each = &texts.max_connections_per_gateway;
        let each = self.value(&setting::MAX_CONNECTIONS_PER_GATEWAY, each.as_deref(), |text| {
            value::number(text, 1..=CONNECTIONS_MAX)
        });
        let rate = self.value(&setting::RATE_LIMIT_PER_MINUTE, texts.rate_limit_per_minute.as_deref(), |text| {
            value::number(text, 1..=RATE_LIMIT_MAX)
        });
        Some((event?, all?, each?, rate?))
    }

    fn timing(&mut self) -> Option<(Duration, Duration)> {
        let texts = &self.raw.texts;
        let timeout = self.value(&setting::CONNECTION_TIMEOUT, texts.connection_timeout.as_deref(), |text| {
            value::duration(text, Some(SECOND), "30s", CONNECTION_TIMEOUT.0..=CONNECTION_TIMEOUT.1)
        });
        let grace = self.value(&setting::SHUTDOWN_GRACE, texts.shutdown_grace.as_deref(), |text| {
            value::duration(text, None, "10s", SHUTDOWN_GRACE.0..=SHUTDOWN_GRACE.1)
        });
        Some((timeout?, grace?))
    }

    /// `Some(None)` when nothing is traced.
    fn traces(&mut self) -> Option<Option<TraceExport>> {
        let texts = &self.raw.texts;
        let headers = texts.otlp_headers.as_deref().unwrap_or_default();
        let headers = self.value(&setting::OTLP_HEADERS, Some(headers), trace_export::headers);
        let service =
            self.value(&setting::OTEL_SERVICE_NAME, texts.otel_service_name.as_deref(), trace_export::service);
        let Some(endpoint) = &texts.otlp_endpoint else { return headers.and(service).map(|_| None) };
        let url = self.value(&setting::OTLP_ENDPOINT, Some(endpoint), trace_export::url);
        let trust = self.trust();
        Some(Some(TraceExport { url: url?, headers: headers?, trust: trust?, service: service? }))
    }

    /// Whose certificates a collector may have.
    fn trust(&mut self) -> Option<Trust> {
        let Some(path) = &self.raw.texts.otlp_certificate else { return Some(Trust::System) };
        let pem = self.raw.otlp_certificate.as_ref()?;
        let (name, path) = (setting::OTLP_CERTIFICATE.name, path.into());
        match pem.clone().and_then(|pem| authorities(&pem)) {
            Ok(_) => Some(Trust::File(path)),
            Err(problem) => {
                self.faults.push(ConfigFault::Unreadable { name, path, problem });
                None
            }
        }
    }

    fn store(&mut self) -> Option<StoreKind> {
        let texts = &self.raw.texts;
        if texts.redis_url.is_some() && texts.store.as_deref() != Some("redis") {
            self.faults.push(ConfigFault::Together(
                "GATECAST_REDIS_URL has no effect without GATECAST_STORE=redis, which is not available in this build: \
                 remove it",
            ));
        }
        self.value(&setting::STORE, texts.store.as_deref(), store)
    }

    fn tls(&mut self) -> Option<TlsMode> {
        let texts = &self.raw.texts;
        let on = self.value(&setting::TLS, texts.tls.as_deref(), on_off)?;
        let together = match (on, &texts.tls_cert, &texts.tls_key) {
            (true, Some(cert), Some(key)) => {
                let client_ca = texts.tls_client_ca.as_ref().map(PathBuf::from);
                return Some(TlsMode::Files { cert: cert.into(), key: key.into(), client_ca });
            }
            (_, None, None) if texts.tls_client_ca.is_some() => {
                "GATECAST_TLS_CLIENT_CA needs the server's own certificate: set GATECAST_TLS_CERT and GATECAST_TLS_KEY"
            }
            (true, None, None) if self.raw.dev => return Some(TlsMode::SelfSigned),
            (false, None, None) => return Some(TlsMode::Off),
            (true, None, None) => {
                "TLS needs a certificate: set GATECAST_TLS_CERT and GATECAST_TLS_KEY to PEM files; or try --dev on this \
                 machine; or set GATECAST_TLS=off behind a proxy that speaks TLS"
            }
            (true, ..) => "GATECAST_TLS_CERT and GATECAST_TLS_KEY belong together: set both or neither",
            (false, ..) => "GATECAST_TLS=off contradicts GATECAST_TLS_CERT and GATECAST_TLS_KEY: remove one side",
        };
        self.faults.push(ConfigFault::Together(together));
        None
    }

    /// `Some(None)` when there is none, which is no fault.
    fn admin_token(&mut self) -> Option<Option<AdminToken>> {
        match (&self.raw.texts.admin_token, &self.raw.admin_token_file) {
            (None, None) => Some(None),
            (Some(text), None) => self.value(&setting::ADMIN_TOKEN, Some(text), AdminToken::parse).map(Some),
            (None, Some(Ok(text))) => {
                let first = text.lines().next().unwrap_or_default().trim();
                let parse = |_: &str| AdminToken::parse(first);
                let path = self.raw.texts.admin_token_file.as_deref();
                self.value(&setting::ADMIN_TOKEN_FILE, path, parse).map(Some)
            }
            (None, Some(Err(problem))) => {
                let (name, path) = self.raw.admin_token_path();
                self.faults.push(ConfigFault::Unreadable { name, path, problem: problem.clone() });
                None
            }
            (Some(_), Some(_)) => {
                let both = "GATECAST_ADMIN_TOKEN and GATECAST_ADMIN_TOKEN_FILE are both set: remove one";
                self.faults.push(ConfigFault::Together(both));
                None
            }
        }
    }

    fn listen(&mut self) -> Option<std::net::SocketAddr> {
        let dev_default = self.raw.dev.then_some(setting::LISTEN_DEFAULT_DEV);
        let written = self.raw.texts.listen.as_deref().or(dev_default);
        let dev = self.raw.dev;
        self.value(&setting::LISTEN, written, |text| {
            let address = value::address(text)?;
            if dev && !address.ip().is_loopback() {
                let why = "--dev needs no token, so it listens on a loopback address only, such as 127.0.0.1:8443";
                return Err(ValueError::Other(why.to_owned()));
            }
            Ok(address)
        })
    }
}

fn data_dir(text: &str) -> Result<PathBuf, ValueError> {
    if text.contains('\0') { Err(ValueError::Other("must not contain NUL".to_owned())) } else { Ok(text.into()) }
}

fn store(text: &str) -> Result<StoreKind, ValueError> {
    match text {
        "sled" => Ok(StoreKind::Sled),
        "memory" => Ok(StoreKind::Memory),
        "redis" => Err(ValueError::Other("redis is not available in this build; use sled or memory".to_owned())),
        _ => Err(ValueError::NotOneOf("sled, memory")),
    }
}

fn on_off(text: &str) -> Result<bool, ValueError> {
    match text.to_ascii_lowercase().as_str() {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(ValueError::NotOneOf("on, off")),
    }
}

fn log_format(text: &str) -> Result<LogFormat, ValueError> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(ValueError::NotOneOf("text, json")),
    }
}
