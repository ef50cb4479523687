//! Every setting of the server: its name, default, unit and meaning, written once.

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// The name in the environment and in a configuration file.
    pub name: &'static str,
    /// What holds when nothing is written; `None` for a setting that is then absent.
    pub default: Option<&'static str>,
    /// What the value counts or is.
    pub unit: &'static str,
    /// One line for people.
    pub meaning: &'static str,
    /// Whether the value must never be shown.
    pub secret: bool,
}

/// Where the server listens.
pub const LISTEN: Setting = Setting {
    name: "GATECAST_LISTEN",
    default: Some("0.0.0.0:8443"),
    unit: "ip:port",
    meaning: "Where the server listens; port 0 takes a free port, which the log names.",
    secret: false,
};
/// The default of [`LISTEN`] with `--dev`.
pub const LISTEN_DEFAULT_DEV: &str = "127.0.0.1:8443";
/// Where logs and records live.
pub const DATA_DIR: Setting = Setting {
    name: "GATECAST_DATA_DIR",
    default: Some("./data"),
    unit: "directory",
    meaning: "Where event logs, gateways and tokens are kept.",
    secret: false,
};
/// Whether the server speaks TLS itself.
pub const TLS: Setting = Setting {
    name: "GATECAST_TLS",
    default: Some("on"),
    unit: "on|off",
    meaning: "Whether the server speaks TLS; off only behind a proxy that does.",
    secret: false,
};
/// The certificate chain.
pub const TLS_CERT: Setting = Setting {
    name: "GATECAST_TLS_CERT",
    default: None,
    unit: "PEM file",
    meaning: "The server's certificate chain.",
    secret: false,
};
/// The private key.
pub const TLS_KEY: Setting = Setting {
    name: "GATECAST_TLS_KEY",
    default: None,
    unit: "PEM file",
    meaning: "The private key of the certificate.",
    secret: false,
};
/// The authorities of client certificates.
pub const TLS_CLIENT_CA: Setting = Setting {
    name: "GATECAST_TLS_CLIENT_CA",
    default: None,
    unit: "PEM file",
    meaning: "Authorities whose client certificates prove gateways (certificateNames); needs GATECAST_TLS_CERT.",
    secret: false,
};
/// The admin token itself.
pub const ADMIN_TOKEN: Setting = Setting {
    name: "GATECAST_ADMIN_TOKEN",
    default: None,
    unit: "secret",
    meaning: "What admin and publishing calls must carry; absent, the first start creates one and prints it. Set, it counts instead of that.",
    secret: true,
};
/// A file that holds the admin token.
pub const ADMIN_TOKEN_FILE: Setting = Setting {
    name: "GATECAST_ADMIN_TOKEN_FILE",
    default: None,
    unit: "file",
    meaning: "A file whose first line is the admin token, instead of GATECAST_ADMIN_TOKEN.",
    secret: false,
};
/// The storage engine.
pub const STORE: Setting = Setting {
    name: "GATECAST_STORE",
    default: Some("sled"),
    unit: "sled|memory",
    meaning: "The storage engine; memory forgets everything when the server stops.",
    secret: false,
};
/// Where redis is, for a build that has it.
pub const REDIS_URL: Setting = Setting {
    name: "GATECAST_REDIS_URL",
    default: None,
    unit: "url",
    meaning: "Where redis is; needs GATECAST_STORE=redis, which this build does not have.",
    secret: true,
};
/// Events kept per gateway.
pub const RING_MAX_EVENTS: Setting = Setting {
    name: "GATECAST_RING_MAX_EVENTS",
    default: Some("10000"),
    unit: "events",
    meaning: "How many events are kept per gateway.",
    secret: false,
};
/// Bytes kept per gateway.
pub const RING_MAX_BYTES: Setting = Setting {
    name: "GATECAST_RING_MAX_BYTES",
    default: Some("64MiB"),
    unit: "bytes",
    meaning: "How many bytes of events are kept per gateway.",
    secret: false,
};
/// Age up to which events are kept.
pub const RING_MAX_AGE: Setting = Setting {
    name: "GATECAST_RING_MAX_AGE",
    default: Some("7d"),
    unit: "duration",
    meaning: "How long an event is kept.",
    secret: false,
};
/// The largest event.
pub const MAX_EVENT_BYTES: Setting = Setting {
    name: "GATECAST_MAX_EVENT_BYTES",
    default: Some("1MiB"),
    unit: "bytes",
    meaning: "The largest event, envelope included; a larger one is refused with 413.",
    secret: false,
};
/// Connections in all.
pub const MAX_CONNECTIONS: Setting = Setting {
    name: "WS_MAX_CONNECTIONS",
    default: Some("1000"),
    unit: "connections",
    meaning: "How many connections are held at once, on all transports together.",
    secret: false,
};
/// How long a silent peer is kept.
pub const CONNECTION_TIMEOUT: Setting = Setting {
    name: "WS_CONNECTION_TIMEOUT",
    default: Some("30"),
    unit: "duration; a plain number is seconds",
    meaning: "A peer that shows no sign of life for this long is disconnected.",
    secret: false,
};
/// Connection attempts per address.
pub const RATE_LIMIT_PER_MINUTE: Setting = Setting {
    name: "WS_RATE_LIMIT_PER_MINUTE",
    default: Some("10"),
    unit: "connection attempts per minute",
    meaning: "How many connection attempts one address has per minute.",
    secret: false,
};
/// Connections per gateway.
pub const MAX_CONNECTIONS_PER_GATEWAY: Setting = Setting {
    name: "GATECAST_MAX_CONNECTIONS_PER_GATEWAY",
    default: Some("64"),
    unit: "connections",
    meaning: "How many connections (replicas) one gateway may hold at once.",
    secret: false,
};
/// Proxies whose forwarded addresses count.
pub const TRUSTED_PROXIES: Setting = Setting {
    name: "GATECAST_TRUSTED_PROXIES",
    default: None,
    unit: "networks, comma-separated",
    meaning: "Proxies whose X-Forwarded-For or Forwarded header names the client's address.",
    secret: false,
};
/// How long a drain may take.
pub const SHUTDOWN_GRACE: Setting = Setting {
    name: "GATECAST_SHUTDOWN_GRACE",
    default: Some("10s"),
    unit: "duration",
    meaning: "How long a shutdown may take to say goodbye and flush.",
    secret: false,
};
/// What is logged.
pub const LOG: Setting = Setting {
    name: "GATECAST_LOG",
    default: Some("info"),
    unit: "level, or target=level list",
    meaning: "What is logged, such as info or warn,gatecast=debug; spaces around the parts do not matter.",
    secret: false,
};
/// How log lines look.
pub const LOG_FORMAT: Setting = Setting {
    name: "GATECAST_LOG_FORMAT",
    default: Some("text"),
    unit: "text|json",
    meaning: "How log lines look.",
    secret: false,
};

/// Where traces go.
pub const OTLP_ENDPOINT: Setting = Setting {
    name: "OTEL_EXPORTER_OTLP_ENDPOINT",
    default: None,
    unit: "url",
    meaning: "A collector of traces, such as http://127.0.0.1:4318 (OTLP over HTTP, JSON); absent, nothing is traced.",
    secret: false,
};
/// What the collector asks for.
pub const OTLP_HEADERS: Setting = Setting {
    name: "OTEL_EXPORTER_OTLP_HEADERS",
    default: None,
    unit: "name=value, comma-separated",
    meaning: "Headers for the collector, such as authorization=Bearer%20…; values are percent-encoded.",
    secret: true,
};
/// Whom to trust that the collector is who it is.
pub const OTLP_CERTIFICATE: Setting = Setting {
    name: "OTEL_EXPORTER_OTLP_CERTIFICATE",
    default: None,
    unit: "PEM file",
    meaning: "Authorities for the collector's certificate, and no others; absent, those that this machine trusts.",
    secret: false,
};
/// What this server is called in traces.
pub const OTEL_SERVICE_NAME: Setting = Setting {
    name: "OTEL_SERVICE_NAME",
    default: Some("gatecast"),
    unit: "name",
    meaning: "What this server is called in traces.",
    secret: false,
};

/// All settings in the order in which `gatecast config` shows them.
pub const ALL: [&Setting; 26] = [
    &LISTEN,
    &TLS,
    &TLS_CERT,
    &TLS_KEY,
    &TLS_CLIENT_CA,
    &ADMIN_TOKEN,
    &ADMIN_TOKEN_FILE,
    &DATA_DIR,
    &STORE,
    &REDIS_URL,
    &RING_MAX_EVENTS,
    &RING_MAX_BYTES,
    &RING_MAX_AGE,
    &MAX_EVENT_BYTES,
    &MAX_CONNECTIONS,
    &MAX_CONNECTIONS_PER_GATEWAY,
    &CONNECTION_TIMEOUT,
    &RATE_LIMIT_PER_MINUTE,
    &TRUSTED_PROXIES,
    &SHUTDOWN_GRACE,
    &LOG,
    &LOG_FORMAT,
    &OTLP_ENDPOINT,
    &OTLP_HEADERS,
    &OTLP_CERTIFICATE,
    &OTEL_SERVICE_NAME,
];

/// Settings that a running server takes over from its sources when it gets SIGHUP. All others need a restart.
pub const LIVE: [&Setting; 9] = [
    &TLS_CERT,
    &TLS_KEY,
    &TLS_CLIENT_CA,
    &MAX_EVENT_BYTES,
    &MAX_CONNECTIONS,
    &MAX_CONNECTIONS_PER_GATEWAY,
    &RATE_LIMIT_PER_MINUTE,
    &TRUSTED_PROXIES,
    &LOG,
];

/// Names that the command line reads for its client commands: known to the server, and none of its settings.
pub const CLIENT_NAMES: [&str; 2] = ["GATECAST_URL", "GATECAST_API_KEY"];

impl Setting {
    /// Whether it is one of [`LIVE`].
    #[must_use]
    pub fn is_live(&self) -> bool {
        LIVE.iter().any(|live| live.name == self.name)
    }
}

/// The setting of this exact name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Setting> {
    ALL.into_iter().find(|setting| setting.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_documented() {
        for (index, setting) in ALL.iter().enumerate() {
            assert!(!setting.meaning.is_empty() && !setting.unit.is_empty(), "{}", setting.name);
            assert!(ALL.iter().skip(index + 1).all(|other| other.name != setting.name), "{}", setting.name);
        }
    }
}
