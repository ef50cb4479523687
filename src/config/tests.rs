//! The configuration as a whole, from sources to faults.

use proptest::prelude::*;

use super::*;

fn load_env(dev: bool, pairs: &[(&str, &str)]) -> Result<Effective, Vec<ConfigFault>> {
    let env = pairs.iter().map(|(name, value)| (name.into(), value.into())).collect();
    let read = |path: &str| match path {
        "/token" => Ok(b"a-token-from-a-file\nsecond line".to_vec()),
        _ => Err("no such file".to_owned()),
    };
    load(Sources { dev, env, ..Sources::default() }, &read, &|_| Vec::new())
}

fn faults(dev: bool, pairs: &[(&str, &str)]) -> Vec<String> {
    load_env(dev, pairs).map(|_| ()).unwrap_err().iter().map(ToString::to_string).collect()
}

fn dev(pairs: &[(&str, &str)]) -> Config {
    load_env(true, pairs).unwrap().config
}

#[test]
fn dev_needs_nothing_and_is_loopback() {
    let config = dev(&[]);
    assert_eq!(config.listen.to_string(), "127.0.0.1:8443");
    assert_eq!((config.tls, config.store), (TlsMode::SelfSigned, StoreKind::Sled));
    assert_eq!(config.max_connections, 1000);
    assert_eq!(config.connection_timeout, Duration::from_secs(30));
    assert_eq!(config.rate_limit_per_minute, 10);
    assert_eq!(config.retention.max_events, 10_000);
    assert_eq!(config.retention.max_bytes, ByteSize(64 << 20));
    assert_eq!(config.retention.max_age, Duration::from_secs(7 * 86_400));
    assert_eq!(config.max_event_bytes, 1 << 20);
    assert_eq!(config.max_connections_per_gateway, 64);
    assert_eq!(config.shutdown_grace, Duration::from_secs(10));
    assert!(config.admin_token.is_none() && config.trusted_proxies.is_empty());
}

#[test]
fn dev_refuses_a_public_address() {
    let said = faults(true, &[("GATECAST_LISTEN", "0.0.0.0:8443")]);
    assert!(said.len() == 1 && said[0].contains("loopback"), "{said:?}");
    assert_eq!(dev(&[("GATECAST_LISTEN", "[::1]:0")]).listen.port(), 0);
}

#[test]
fn without_dev_a_certificate_is_asked_for() {
    let said = faults(false, &[]);
    assert!(said.len() == 1 && said[0].contains("GATECAST_TLS_CERT") && said[0].contains("--dev"), "{said:?}");
    let said = faults(false, &[("GATECAST_TLS_CERT", "c.pem")]);
    assert!(said.len() == 1 && said[0].contains("set both"), "{said:?}");
    assert_eq!(load_env(false, &[("GATECAST_TLS", "off")]).unwrap().config.tls, TlsMode::Off);
    let files = load_env(false, &[("GATECAST_TLS_CERT", "c"), ("GATECAST_TLS_KEY", "k")]).unwrap().config;
    assert_eq!(files.tls, TlsMode::Files { cert: "c".into(), key: "k".into(), client_ca: None });
    let said = faults(true, &[("GATECAST_TLS_CLIENT_CA", "ca.pem")]);
    assert!(said.len() == 1 && said[0].contains("GATECAST_TLS_CLIENT_CA needs"), "{said:?}");
    assert_eq!(files.listen.to_string(), "0.0.0.0:8443");
}

#[test]
fn all_faults_are_reported_at_once() {
    let said = faults(
        false,
        &[
            ("GATECAST_LISTEN", "localhost"),
            ("WS_MAX_CONNECTIONS", "0"),
            ("WS_CONNECTION_TIMEOUT", "1s"),
            ("GATECAST_RING_MAX_BYTES", "64M"),
            ("GATECAST_RING_MAX_AGE", "7"),
            ("GATECAST_MAX_EVENT_BYTES", "17MiB"),
            ("GATECAST_TRUSTED_PROXIES", "10.0.0.0/8,nonsense"),
            ("GATECAST_STORE", "redis"),
            ("GATECAST_LOG_FORMAT", "xml"),
            ("GATECAST_LOGG", "info"),
            ("GATECAST_ADMIN_TOKEN_FILE", "/missing"),
        ],
    );
    // Eleven values and the missing certificate.
    assert_eq!(said.len(), 12, "{said:#?}");
    assert!(said.iter().any(|fault| fault.contains("not available in this build")));
    assert!(said.iter().any(|fault| fault.contains("never means unlimited")));
}

#[test]
fn the_seeds_names_keep_working() {
    let config =
        dev(&[("WS_MAX_CONNECTIONS", "5000"), ("WS_CONNECTION_TIMEOUT", "60"), ("WS_RATE_LIMIT_PER_MINUTE", "20")]);
    assert_eq!((config.max_connections, config.rate_limit_per_minute), (5000, 20));
    assert_eq!(config.connection_timeout, Duration::from_secs(60));
    assert_eq!(dev(&[("WS_CONNECTION_TIMEOUT", "2m")]).connection_timeout, Duration::from_secs(120));
}

#[test]
fn the_admin_token_comes_from_one_place_and_is_never_shown() {
    let secret = "do-not-show-this-token";
    let effective = load_env(true, &[("GATECAST_ADMIN_TOKEN", secret)]).unwrap();
    assert_eq!(effective.config.admin_token.as_ref().map(AdminToken::reveal), Some(secret));
    assert!(!format!("{effective:?}").contains(secret));
    assert!(effective.report.iter().any(|line| line.value.as_deref() == Some("(set)")));
    let from_file = dev(&[("GATECAST_ADMIN_TOKEN_FILE", "/token")]);
    assert_eq!(from_file.admin_token.as_ref().map(AdminToken::reveal), Some("a-token-from-a-file"));
    let said = faults(true, &[("GATECAST_ADMIN_TOKEN", secret), ("GATECAST_ADMIN_TOKEN_FILE", "/token")]);
    assert!(said[0].contains("both set") && !said[0].contains(secret), "{said:?}");
    let said = faults(true, &[("GATECAST_ADMIN_TOKEN", "too short")]);
    assert!(!said[0].contains("too short"), "{said:?}");
}

#[test]
fn what_changed_is_named_as_it_was_written() {
    let names = |now: &Effective, before: &Effective| {
        now.changed_since(before).into_iter().map(|setting| setting.name).collect::<Vec<_>>()
    };
    let file = |text: &str| {
        let env = vec![("GATECAST_ADMIN_TOKEN_FILE".into(), "/token".into())];
        load(Sources { dev: true, env, ..Sources::default() }, &|_| Ok(text.as_bytes().to_vec()), &|_| Vec::new())
            .unwrap()
    };
    let [first, second] = ["the-first-token", "the-second-token"].map(file);
    assert_eq!(names(&second, &first), ["GATECAST_ADMIN_TOKEN_FILE"]);
    assert_eq!(names(&first, &first), [""; 0]);
    let [one, two] = ["token-number-one", "token-number-two"].map(|t| load_env(true, &[("GATECAST_ADMIN_TOKEN", t)]));
    assert_eq!(names(&two.unwrap(), &one.unwrap()), ["GATECAST_ADMIN_TOKEN"]);
    let traced = |headers: &str| {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
        load_env(true, &[endpoint, ("OTEL_EXPORTER_OTLP_HEADERS", headers)]).unwrap()
    };
    let [one, two] = ["authorization=one", "authorization=two"].map(traced);
    assert_eq!(names(&two, &one), ["OTEL_EXPORTER_OTLP_HEADERS"]);
    assert_eq!(names(&one, &traced("Authorization = one")), [""; 0], "only written differently");
    let untraced = load_env(true, &[("OTEL_EXPORTER_OTLP_HEADERS", "authorization=one")]).unwrap();
    assert_eq!(names(&one, &untraced), ["OTEL_EXPORTER_OTLP_ENDPOINT"]);
}

#[test]
fn the_report_names_value_unit_default_and_source() {
    let effective = load_env(true, &[("WS_CONNECTION_TIMEOUT", "60")]).unwrap();
    let line = |name: &str| effective.report.iter().find(|line| line.name == name).unwrap().clone();
    let timeout = line("WS_CONNECTION_TIMEOUT");
    assert_eq!((timeout.value.as_deref(), timeout.default), (Some("1m"), Some("30")));
    assert_eq!(timeout.source, "environment");
    assert_eq!(line("GATECAST_LISTEN").source, "--dev");
    assert_eq!(line("GATECAST_RING_MAX_BYTES").value.as_deref(), Some("64MiB"));
    assert_eq!(effective.report.len(), setting::ALL.len());
    let mut text = Vec::new();
    report::write_text(&effective.report, &mut text).unwrap();
    assert!(String::from_utf8(text).unwrap().contains("GATECAST_RING_MAX_AGE=7d\n"));
}

proptest! {
    #[test]
    fn no_value_of_any_setting_panics(index in 0..setting::ALL.len(), value in "\\PC{0,40}", is_dev: bool) {
        let name = setting::ALL[index].name;
        if let Ok(effective) = load_env(is_dev, &[(name, &value)]) {
            prop_assert!(effective.config.max_event_bytes > 0 && effective.config.max_connections > 0);
        }
    }

    #[test]
    fn every_setting_that_is_wrong_alone_is_reported_among_others(
        values in proptest::collection::btree_map(0..setting::ALL.len(), "\\PC{0,12}|[0-9]{1,30}[a-zA-Z]{0,4}", 1..5),
    ) {
        let pairs = values.iter().map(|(index, value)| (setting::ALL[*index].name, value.as_str()));
        // Set beside the token it is the one fault of the two.
        let pairs: Vec<_> = pairs.filter(|(name, _)| *name != "GATECAST_ADMIN_TOKEN_FILE").collect();
        let together = load_env(true, &pairs).err().unwrap_or_default();
        let together: Vec<_> = together.iter().map(ToString::to_string).collect();
        for pair in &pairs {
            let alone = load_env(true, &[*pair]).err().unwrap_or_default();
            // Its own fault; what two settings have to do with each other is another matter.
            let own = alone.iter().map(ToString::to_string).find(|fault| fault.starts_with(&format!("{}=", pair.0)));
            prop_assert!(own.as_ref().is_none_or(|own| together.contains(own)), "{:?} is not among {:?}", own, together);
        }
    }

    #[test]
    fn no_file_panics(text in "[A-Z_=#\"' \\n0-9a-z]{0,200}") {
        let sources = Sources { dev: true, file: Some(("f".into(), text)), ..Sources::default() };
        let _ = load(sources, &|_| Ok(Vec::new()), &|_| Vec::new());
    }
}
