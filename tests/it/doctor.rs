//! `gatecast doctor`: names the fault in every injected case, and blames nobody on a clean path.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::app::App;
use crate::faulty_proxy::{self, Fault};
use crate::process::{Said, run};

/// Heartbeats of a server with `WS_CONNECTION_TIMEOUT=5s` come every 3.3 s and 2.5 s.
const QUICK: [(&str, &str); 1] = [("WS_CONNECTION_TIMEOUT", "5s")];
const SECOND: Duration = Duration::from_secs(1);

/// The result of an examination.
#[derive(Debug)]
pub(crate) struct Examined {
    pub(crate) exit: i32,
    pub(crate) report: Value,
}

impl Examined {
    fn of(said: Said) -> Self {
        let report = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("no report: {said:?}"));
        Self { exit: said.exit, report }
    }

    /// What is found in one transport.
    pub(crate) fn codes(&self, transport: &str) -> Vec<&str> {
        let of = self.report["transports"].as_array().unwrap();
        let found = of.iter().find(|of| of["transport"] == transport);
        found.map_or_else(Vec::new, |of| {
            of["findings"].as_array().unwrap().iter().map(|f| f.as_str().unwrap()).collect()
        })
    }

    pub(crate) fn detail(&self, code: &str) -> &str {
        let findings = self.report["findings"].as_array().unwrap();
        let found = findings.iter().find(|finding| finding["code"] == code);
        found.unwrap_or_else(|| panic!("no {code}: {self:#?}"))["detail"].as_str().unwrap()
    }

    fn all_codes(&self) -> Vec<&str> {
        self.report["findings"].as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap()).collect()
    }
}

pub(crate) async fn doctor(url: &str, token: &str, args: &[&str]) -> Examined {
    let usual = ["--json", "--url", url, "doctor", "--api-key", token, "--connection-timeout", "5s"];
    Examined::of(run(&[&usual, args].concat(), &[]).await)
}

/// What must be found: of websocket, sse, long-poll and in general, with the exit code.
struct Case {
    fault: Fault,
    idle: &'static str,
    found: [&'static [&'static str]; 4],
    exit: i32,
}

const fn case(fault: Fault, idle: &'static str, found: [&'static [&'static str]; 4], exit: i32) -> Case {
    Case { fault, idle, found, exit }
}

const CASES: [Case; 21] = [
    case(Fault::Slow(Duration::from_millis(200)), "6s", [&[], &[], &[], &[]], 0),
    case(Fault::Strips("x-nothing"), "6s", [&[], &[], &[], &[]], 0),
    case(Fault::Strips("api-key"), "2s", [&[], &[], &[], &["api-key-stripped"]], 1),
    case(
        Fault::Strips("last-event-id"),
        "2s",
        [&["last-event-id-stripped"], &["last-event-id-stripped"], &["last-event-id-stripped"], &[]],
        1,
    ),
    case(Fault::Strips("upgrade"), "2s", [&["upgrade-stripped"], &[], &[], &[]], 0),
    case(
        Fault::Answers("upgrade: websocket", "403 Forbidden\r\nServer: WallOfFire/3"),
        "2s",
        [&["upgrade-refused"], &[], &[], &[]],
        0,
    ),
    case(
        Fault::Answers("upgrade: websocket", "400 Bad Request\r\nVia: 1.1 scanner"),
        "2s",
        [&["upgrade-refused"], &[], &[], &[]],
        0,
    ),
    case(Fault::Gathers(Duration::from_secs(5)), "6s", [&[], &["stream-held-back"], &[], &[]], 0),
    case(Fault::GathersTheRest, "7s", [&[], &["stream-buffered"], &[], &[]], 0),
    case(Fault::CutsIdle(SECOND), "3s", [&["cut"], &["cut"], &["poll-cut"], &[]], 1),
    case(Fault::CutsOld(Duration::from_secs(4)), "6s", [&["cut"], &["cut"], &["poll-cut"], &[]], 1),
    case(Fault::TimesOut(SECOND), "3s", [&[], &[], &["poll-cut"], &[]], 0),
    case(Fault::DropsPings, "7s", [&["pings-dropped"], &[], &[], &[]], 0),
    case(Fault::DropsControlFrames, "3s", [&["pings-dropped"], &[], &[], &[]], 0),
    case(Fault::DropsPongs, "7s", [&["pongs-dropped"], &[], &[], &[]], 0),
    case(Fault::Alters, "2s", [&["altered"], &["altered"], &["altered"], &[]], 1),
    case(Fault::Dates("Sat, 01 Jan 2000 00:00:00 GMT"), "2s", [&[], &[], &[], &["clock-skew"]], 0),
    case(Fault::Compresses, "2s", [&[], &["compressed"], &[], &[]], 0),
    case(
        Fault::Answers("get", "200 OK\r\nContent-Type: text/html"),
        "2s",
        [&["not-gatecast"], &["not-gatecast"], &["not-gatecast"], &[]],
        69,
    ),
    case(
        Fault::Answers("get", "302 Found\r\nLocation: https://login.example/\r\nServer: portal"),
        "2s",
        [&["redirected"], &["redirected"], &["redirected"], &[]],
        69,
    ),
    case(
        Fault::Answers("get", "502 Bad Gateway\r\nServer: edge"),
        "2s",
        [&["nothing-behind-proxy"], &["nothing-behind-proxy"], &["nothing-behind-proxy"], &[]],
        75,
    ),
];

#[tokio::test]
async fn the_doctor_names_every_fault_and_blames_nobody_on_a_clean_path() {
    let app = App::with(&QUICK).await;
    let gateway = app.register("one").await;
    let examine = async |case: &'static Case| {
        let proxy = faulty_proxy::start(app.address, case.fault).await;
        let examined = doctor(&format!("http://{proxy}"), &gateway.token, &["--idle", case.idle]).await;
        (case, examined)
    };
    // Some at a time: a machine that is too busy holds things back itself.
    let examined: Vec<_> = futures::stream::iter(&CASES).map(examine).buffer_unordered(5).collect().await;
    for (case, examined) in &examined {
        let [websocket, sse, long_poll, general] = case.found;
        let about = format!("{:?}: {examined:#?}", case.fault);
        for (transport, expected) in [("websocket", websocket), ("sse", sse), ("long-poll", long_poll)] {
            assert_eq!(examined.codes(transport), expected, "{transport} {about}");
        }
        let findings = examined.report["findings"].as_array().unwrap();
        let in_general: Vec<_> = findings.iter().filter(|f| f["transports"] == json!([])).map(|f| &f["code"]).collect();
        assert_eq!(in_general, general, "{about}");
        assert_eq!(examined.exit, case.exit, "{about}");
        let first_clean = ["websocket", "sse", "long-poll"].into_iter().zip(case.found).find(|(_, of)| of.is_empty());
        if let Some((transport, _)) = first_clean {
            assert_eq!(examined.report["recommended"], transport, "{about}");
        }
    }
    let detail = |fault: Fault, code: &str| {
        let (_, examined) = examined.iter().find(|(case, _)| case.fault == fault).unwrap();
        examined.detail(code).to_owned()
    };
    let by = |answer| detail(Fault::Answers("upgrade: websocket", answer), "upgrade-refused");
    assert!(by("403 Forbidden\r\nServer: WallOfFire/3").contains("WallOfFire/3"));
    assert!(by("400 Bad Request\r\nVia: 1.1 scanner").contains("1.1 scanner"));
    assert!(detail(Fault::CutsIdle(SECOND), "cut").contains("of silence"));
    assert!(detail(Fault::CutsOld(Duration::from_secs(4)), "cut").contains("limit on its age"));
    assert!(detail(Fault::TimesOut(SECOND), "poll-cut").contains("504 from faulty/1"));
}

#[tokio::test]
async fn a_busy_clean_server_is_told_from_a_wrong_key_and_the_words_say_what_to_do() {
    let app = App::with(&QUICK).await;
    let gateway = app.register("one").await;
    let url = app.url("");
    let traffic = async {
        let mut pace = tokio::time::interval(Duration::from_millis(300));
        for n in 0.. {
            pace.tick().await;
            app.publish(gateway.id, n).await;
        }
    };
    let clean = tokio::select! {
        clean = doctor(&url, &gateway.token, &["-k", "--idle", "7s"]) => clean,
        () = traffic => unreachable!(),
    };
    assert_eq!((clean.exit, clean.all_codes()), (0, vec![]), "{clean:#?}");
    assert_eq!((&clean.report["recommended"], &clean.report["http2Offered"]), (&json!("websocket"), &json!(true)));
    let wrong = doctor(&url, "no-such-key", &["-k", "--idle", "2s"]).await;
    assert_eq!((wrong.exit, wrong.all_codes()), (77, vec!["key-refused"]), "{wrong:#?}");
    let said = run(&["-k", "--url", &url, "doctor", "--api-key", &gateway.token, "--idle", "2s"], &[]).await;
    assert_eq!(said.exit, 0, "{said:?}");
    for part in
        ["✓ TLS in", "TRANSPORT  WORKS", "websocket  yes", "Recommended: websocket; it works cleanly.", "75.0 s"]
    {
        assert!(said.out.contains(part), "{part}: {}", said.out);
    }
    assert!(!said.out.contains(&gateway.token) && !said.err.contains(&gateway.token));
}

#[tokio::test]
async fn a_key_that_is_revoked_in_between_is_no_fault_of_the_way() {
    let app = App::with(&QUICK).await;
    let gateway = app.register("one").await;
    let revoke = async {
        app.connected(3).await;
        let token = format!("/api/v1/gateways/{}/tokens/{}", gateway.id, gateway.token_id);
        assert!(app.delete(&token).await.is_success());
    };
    let url = app.url("");
    let (revoked, ()) = tokio::join!(doctor(&url, &gateway.token, &["-k", "--idle", "5s"]), revoke);
    assert_eq!((revoked.exit, revoked.all_codes()), (77, vec!["key-refused"]), "{revoked:#?}");
}

/// A TLS server that closes after the handshake.
async fn tls_server(names: &[&str], from: (i32, u8, u8), to: (i32, u8, u8), is_ca: IsCa) -> (SocketAddr, String) {
    let mut params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
    params.not_before = date_time_ymd(from.0, from.1, from.2);
    params.not_after = date_time_ymd(to.0, to.1, to.2);
    params.is_ca = is_ca;
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            drop(acceptor.accept(socket).await);
        }
    });
    (address, certificate.pem())
}

/// Answers whatever is said with plain text, as servers of HTTP do a TLS hello.
async fn plain_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            socket.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await.ok();
            socket.shutdown().await.ok();
            socket.read_to_end(&mut Vec::new()).await.ok();
        }
    });
    address
}

#[tokio::test]
async fn a_certificate_or_a_port_that_is_wrong_is_told_precisely() {
    let (past, then, future) = ((2001, 1, 1), (2020, 1, 1), (2101, 1, 1));
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    let ca = ca.to_str().unwrap();
    let authority = IsCa::Ca(BasicConstraints::Unconstrained);
    for (names, from, to, is_ca, code) in [
        (["localhost"], past, then, IsCa::NoCa, "certificate-expired"),
        (["localhost"], (2100, 1, 1), future, IsCa::NoCa, "certificate-not-yet-valid"),
        (["elsewhere.example"], past, future, IsCa::NoCa, "certificate-wrong-name"),
        (["localhost"], past, future, authority, "certificate-of-authority"),
    ] {
        let (address, pem) = tls_server(&names, from, to, is_ca).await;
        fs::write(ca, pem).unwrap();
        let url = format!("https://localhost:{}", address.port());
        let found = doctor(&url, "k", &["--ca", ca]).await;
        assert_eq!((found.exit, found.all_codes()), (69, vec![code]), "{found:#?}");
    }
    let (address, _) = tls_server(&["localhost"], past, future, IsCa::NoCa).await;
    let untrusted = doctor(&format!("https://localhost:{}", address.port()), "k", &[]).await;
    assert_eq!((untrusted.exit, untrusted.all_codes()), (69, vec!["certificate-untrusted"]), "{untrusted:#?}");
    let app = App::start().await;
    let proxy = faulty_proxy::start(app.address, Fault::Answers("get", "404 Not Found")).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for (url, code) in [
        (format!("https://{closed}"), "tcp-refused"),
        (format!("https://{}", plain_server().await), "not-tls"),
        ("https://nowhere.invalid".to_owned(), "name-unknown"),
    ] {
        let found = doctor(&url, "k", &["--idle", "1s"]).await;
        assert_eq!((found.exit, found.all_codes()), (69, vec![code]), "{found:#?}");
    }
    let plain = doctor(&format!("http://{}", app.address), "k", &["--idle", "1s"]).await;
    assert_eq!((plain.exit, plain.all_codes()), (69, vec!["not-http"]), "{plain:#?}");
    let elsewhere = doctor(&format!("http://{proxy}"), "k", &["--idle", "1s"]).await;
    assert!(elsewhere.all_codes().contains(&"not-gatecast"), "{elsewhere:#?}");
    assert_eq!(elsewhere.exit, 69);
}

#[tokio::test]
async fn the_doctor_moves_no_position_of_a_replica_also_where_its_name_is_taken_away() {
    let app = App::with(&QUICK).await;
    let gateway = app.register("one").await;
    let first = app.publish(gateway.id, 1).await;
    let (_, reply, _) = app.poll(&gateway.token, &format!("lastEventId={first}&timeout=0")).await.unwrap();
    assert!(reply["events"].is_array(), "{reply}");
    let second = app.publish(gateway.id, 2).await;
    let proxy = faulty_proxy::start(app.address, Fault::Strips("gateway-instance")).await;
    let examined = doctor(&format!("http://{proxy}"), &gateway.token, &["--idle", "4s"]).await;
    assert_eq!(examined.exit, 0, "{examined:#?}");
    let (status, stream) = app.get(&format!("/api/internal/v1/gateways/{}/stream", gateway.id)).await;
    assert!(status.is_success());
    let of = |name: &str| {
        let instances = stream["instances"].as_array().unwrap();
        instances.iter().find(|of| of["instance"] == name).unwrap_or_else(|| panic!("no {name} in {stream}"))
    };
    assert_eq!(of("default")["position"], first, "{stream}");
    assert_eq!(of("gatecast-doctor")["position"], second, "{stream}");
    assert_eq!(stream["newest"], second, "nothing was published");
}

#[tokio::test]
async fn the_document_on_transports_names_every_finding_and_its_command_works() {
    let read = |path: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let (document, source) = (read("docs/transports.md"), read("src/cli/doctor/finding.rs"));
    let codes = source.split("fn code").nth(1).unwrap().split("fn is_warning").next().unwrap();
    let mut codes: Vec<_> = codes.split("=> \"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    let table = document.lines().filter(|line| line.starts_with("| `"));
    let mut told: Vec<_> = table.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2)).collect();
    codes.sort_unstable();
    told.sort_unstable();
    assert!(codes.len() > 25, "{codes:?}");
    assert_eq!(codes, told);
    let tests = read("tests/it/doctor.rs") + &read("src/cli/doctor/tests.rs");
    let untried: Vec<_> = codes.iter().filter(|code| !tests.contains(&format!("\"{code}\""))).collect();
    assert!(untried.is_empty(), "in no test: {untried:?}");

    let app = App::with(&QUICK).await;
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key.txt");
    fs::write(&key, app.register("one").await.token).unwrap();
    let command = document.lines().find(|line| line.starts_with("gatecast doctor")).unwrap();
    let command = command.replace("https://events.example.com", &app.url("")).replace("key.txt", key.to_str().unwrap());
    let args: Vec<_> = command.split_whitespace().skip(1).chain(["-k", "--idle", "2s"]).collect();
    let said = run(&args, &[]).await;
    assert!(said.exit == 0 && said.out.contains("works cleanly"), "{said:?}");
}
