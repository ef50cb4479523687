//! What was written, each value a string with its source.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::path::PathBuf;

use envconfig::Envconfig;

use super::fault::ConfigFault;
use super::file;
use super::nearest::nearest;
use super::setting::{self, ADMIN_TOKEN_FILE, Setting};
use super::source::Source;

/// The sources, as the caller found them. Nothing below reads the process environment or the disk.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Whether `--dev` was given.
    pub dev: bool,
    /// Flags, by the name of their setting. The strongest source.
    pub flags: Vec<(&'static str, String)>,
    /// The environment. Other programs' variables are skipped.
    pub env: Vec<(OsString, OsString)>,
    /// The configuration file and its text.
    pub file: Option<(PathBuf, String)>,
}

/// The settings by field, as text. `None` where nothing, or nothing but spaces, was written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Envconfig)]
pub(super) struct Texts {
    #[envconfig(from = "GATECAST_LISTEN")]
    pub(super) listen: Option<String>,
    #[envconfig(from = "GATECAST_DATA_DIR")]
    pub(super) data_dir: Option<String>,
    #[envconfig(from = "GATECAST_TLS")]
    pub(super) tls: Option<String>,
    #[envconfig(from = "GATECAST_TLS_CERT")]
    pub(super) tls_cert: Option<String>,
    #[envconfig(from = "GATECAST_TLS_KEY")]
    pub(super) tls_key: Option<String>,
    #[envconfig(from = "GATECAST_TLS_CLIENT_CA")]
    pub(super) tls_client_ca: Option<String>,
    #[envconfig(from = "GATECAST_ADMIN_TOKEN")]
    pub(super) admin_token: Option<String>,
    #[envconfig(from = "GATECAST_ADMIN_TOKEN_FILE")]
    pub(super) admin_token_file: Option<String>,
    #[envconfig(from = "GATECAST_STORE")]
    pub(super) store: Option<String>,
    #[envconfig(from = "GATECAST_REDIS_URL")]
    pub(super) redis_url: Option<String>,
    #[envconfig(from = "GATECAST_RING_MAX_EVENTS")]
    pub(super) ring_max_events: Option<String>,
    #[envconfig(from = "GATECAST_RING_MAX_BYTES")]
    pub(super) ring_max_bytes: Option<String>,
    #[envconfig(from = "GATECAST_RING_MAX_AGE")]
    pub(super) ring_max_age: Option<String>,
    #[envconfig(from = "GATECAST_MAX_EVENT_BYTES")]
    pub(super) max_event_bytes: Option<String>,
    #[envconfig(from = "WS_MAX_CONNECTIONS")]
    pub(super) max_connections: Option<String>,
    #[envconfig(from = "WS_CONNECTION_TIMEOUT")]
    pub(super) connection_timeout: Option<String>,
    #[envconfig(from = "WS_RATE_LIMIT_PER_MINUTE")]
    pub(super) rate_limit_per_minute: Option<String>,
    #[envconfig(from = "GATECAST_MAX_CONNECTIONS_PER_GATEWAY")]
    pub(super) max_connections_per_gateway: Option<String>,
    #[envconfig(from = "GATECAST_TRUSTED_PROXIES")]
    pub(super) trusted_proxies: Option<String>,
    #[envconfig(from = "GATECAST_SHUTDOWN_GRACE")]
    pub(super) shutdown_grace: Option<String>,
    #[envconfig(from = "GATECAST_LOG")]
    pub(super) log: Option<String>,
    #[envconfig(from = "GATECAST_LOG_FORMAT")]
    pub(super) log_format: Option<String>,
    #[envconfig(from = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub(super) otlp_endpoint: Option<String>,
    #[envconfig(from = "OTEL_EXPORTER_OTLP_HEADERS")]
    pub(super) otlp_headers: Option<String>,
    #[envconfig(from = "OTEL_EXPORTER_OTLP_CERTIFICATE")]
    pub(super) otlp_certificate: Option<String>,
    #[envconfig(from = "OTEL_SERVICE_NAME")]
    pub(super) otel_service_name: Option<String>,
}

/// What was written: the strongest value of each setting and where it is from.
///
/// It holds the admin token as written, so it has no `Debug`.
#[derive(Clone)]
pub struct RawConfig {
    pub(super) dev: bool,
    pub(super) texts: Texts,
    pub(super) admin_token_file: Option<Result<String, String>>,
    /// Only if there is a collector.
    pub(super) otlp_certificate: Option<Result<Vec<u8>, String>>,
    sources: BTreeMap<&'static str, Source>,
}

impl RawConfig {
    /// Joins the sources: flags over environment over file. `read` reads a file that a setting names, and answers
    /// its bytes or what is wrong; it is called at most once for each.
    ///
    /// Names that start with `GATECAST_` and are none are faults, except those that Kubernetes injects for a service
    /// called `gatecast`.
    pub fn join(
        sources: Sources,
        read: &dyn Fn(&str) -> Result<Vec<u8>, String>,
        faults: &mut Vec<ConfigFault>,
    ) -> Self {
        let mut layers = Layers { faults, values: HashMap::new(), sources: BTreeMap::new() };
        if let Some((path, text)) = &sources.file {
            for written in file::parse(path, text, layers.faults) {
                layers.put(written.name, written.value, Source::File { line: written.line });
            }
        }
        for (name, value) in &sources.env {
            layers.put_env(name, value);
        }
        for (name, value) in &sources.flags {
            layers.put(name, value, Source::Flag);
        }
        // Every field is an `Option<String>`, and from a map that cannot fail.
        let texts = Texts::init_from_hashmap(&layers.values).unwrap_or_default();
        let text = |path: &str| String::from_utf8(read(path)?).map_err(|error| error.to_string());
        let admin_token_file = texts.admin_token_file.as_deref().map(text);
        let otlp_certificate = texts.otlp_certificate.as_deref().filter(|_| texts.otlp_endpoint.is_some()).map(read);
        Self { dev: sources.dev, texts, admin_token_file, otlp_certificate, sources: layers.sources }
    }

    /// Where the value of a setting is from.
    #[must_use]
    pub fn source(&self, setting: &Setting) -> Source {
        let dev_chooses = self.dev && setting.name == setting::LISTEN.name;
        let unwritten = if dev_chooses { Source::Dev } else { Source::Default };
        self.sources.get(setting.name).copied().unwrap_or(unwritten)
    }

    /// The path in `GATECAST_ADMIN_TOKEN_FILE`.
    pub(super) fn admin_token_path(&self) -> (&'static str, PathBuf) {
        (ADMIN_TOKEN_FILE.name, self.texts.admin_token_file.clone().unwrap_or_default().into())
    }
}

struct Layers<'f> {
    faults: &'f mut Vec<ConfigFault>,
    values: HashMap<String, String>,
    sources: BTreeMap<&'static str, Source>,
}

impl Layers<'_> {
    fn put_env(&mut self, name: &OsString, value: &OsString) {
        let name = name.to_string_lossy();
        let ours = name.starts_with("GATECAST_") || setting::named(&name).is_some();
        if !ours || is_injected(&name) {
            return;
        }
        match value.to_str() {
            Some(value) => self.put(&name, value, Source::Environment),
            None => self.faults.push(ConfigFault::NotText { name: name.into_owned() }),
        }
    }

    /// A later call wins. An empty value is as if nothing were written: container tooling sets empty variables freely.
    fn put(&mut self, name: &str, value: &str, source: Source) {
        if setting::CLIENT_NAMES.contains(&name) {
            return;
        }
        let Some(setting) = setting::named(name) else {
            let nearest = nearest(name, setting::ALL.iter().map(|setting| setting.name));
            self.faults.push(ConfigFault::Unknown { name: name.to_owned(), source_: source, nearest });
            return;
        };
        let value = value.trim();
        if !value.is_empty() {
            self.values.insert(setting.name.to_owned(), value.to_owned());
            self.sources.insert(setting.name, source);
        }
    }
}

/// Kubernetes gives every pod variables for each service of its namespace, such as `GATECAST_SERVICE_HOST` and
/// `GATECAST_PORT_8443_TCP_ADDR` for one called `gatecast`: they are no one's typing errors.
fn is_injected(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| name.contains("_PORT_") && name.contains(protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(sources: Sources) -> (RawConfig, Vec<String>) {
        let mut faults = Vec::new();
        let raw = RawConfig::join(sources, &|path| Err(format!("no {path}")), &mut faults);
        (raw, faults.iter().map(ToString::to_string).collect())
    }

    fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    #[test]
    fn every_setting_has_its_field() {
        let env = setting::ALL.iter().map(|s| (s.name.into(), "x".into())).collect();
        let (raw, faults) = join(Sources { env, ..Sources::default() });
        assert!(faults.is_empty(), "{faults:?}");
        let fields = format!("{:?}", raw.texts);
        assert_eq!(fields.matches("Some(\"x\")").count(), setting::ALL.len(), "{fields}");
    }

    #[test]
    fn flags_win_over_environment_over_file() {
        let file = Some(("f".into(), "GATECAST_LOG=warn\nGATECAST_STORE=memory\nGATECAST_TLS=off".to_owned()));
        let env = env(&[("GATECAST_LOG", "debug"), ("GATECAST_STORE", "sled"), ("PATH", "/bin")]);
        let (raw, faults) = join(Sources { file, env, flags: vec![("GATECAST_LOG", "error".into())], dev: false });
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!((raw.texts.log.as_deref(), raw.source(&setting::LOG)), (Some("error"), Source::Flag));
        assert_eq!((raw.texts.store.as_deref(), raw.source(&setting::STORE)), (Some("sled"), Source::Environment));
        assert_eq!((raw.texts.tls.as_deref(), raw.source(&setting::TLS)), (Some("off"), Source::File { line: 3 }));
        assert_eq!(raw.source(&setting::LISTEN), Source::Default);
    }

    #[test]
    fn unknown_names_are_faults_with_a_suggestion() {
        let (_, faults) =
            join(Sources { env: env(&[("GATECAST_LISTN", "x"), ("WS_OTHER", "x")]), ..Sources::default() });
        assert_eq!(faults, ["GATECAST_LISTN (environment): there is no such setting; did you mean GATECAST_LISTEN?"]);
    }

    #[test]
    fn what_kubernetes_injects_and_clients_read_is_skipped() {
        let names = [
            "GATECAST_SERVICE_HOST",
            "GATECAST_SERVICE_PORT_HTTPS",
            "GATECAST_PORT",
            "GATECAST_PORT_8443_TCP_ADDR",
            "GATECAST_ADMIN_SERVICE_HOST",
            "GATECAST_URL",
            "GATECAST_API_KEY",
        ];
        let env = names.iter().map(|name| (name.into(), "x".into())).collect();
        assert_eq!(join(Sources { env, ..Sources::default() }).1, [""; 0]);
    }

    #[test]
    fn an_empty_value_is_as_if_unwritten() {
        let (raw, _) = join(Sources { env: env(&[("GATECAST_TLS_CERT", "  ")]), ..Sources::default() });
        assert_eq!((raw.texts.tls_cert.as_ref(), raw.source(&setting::TLS_CERT)), (None, Source::Default));
    }

    #[cfg(unix)]
    #[test]
    fn a_value_that_is_not_text_is_a_fault() {
        use std::os::unix::ffi::OsStringExt;
        let env = vec![
            ("GATECAST_LOG".into(), OsString::from_vec(vec![0xff])),
            ("OTHER".into(), OsString::from_vec(vec![0xff])),
        ];
        assert_eq!(
            join(Sources { env, ..Sources::default() }).1,
            ["GATECAST_LOG (environment): the value is not UTF-8"]
        );
    }
}
