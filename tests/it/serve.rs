//! `gatecast serve` as a process: how it starts, how it ends.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use reqwest::StatusCode;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::app::App;
use crate::http2;
use crate::platform::Platform;
use crate::process::{Process, Served};
use crate::tls::write_certificate;
use crate::wire::{End, PATIENCE, Ws, raw, tls};

/// `serve` as in production: a certificate, no `--dev`.
async fn production(dir: &Path) -> Served {
    Served::listening(started(dir, &[])).await
}

/// The same without waiting until it listens.
fn started(dir: &Path, settings: &[(&str, &str)]) -> Process {
    Process::spawn(&mut command(dir, settings))
}

fn command(dir: &Path, settings: &[(&str, &str)]) -> tokio::process::Command {
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| dir.join(name).display().to_string());
    Served::command(&["--tls-cert", &cert, "--tls-key", &key], &dir.join("data"), settings)
}

#[tokio::test]
async fn the_first_start_prints_an_admin_token_once_that_works_and_no_other_does() {
    let dir = tempfile::tempdir().unwrap();
    write_certificate(dir.path());
    let mut first = production(dir.path()).await;
    let line = first.process.out.containing("Admin token").await;
    let token = line.rsplit(' ').next().unwrap().to_owned();
    assert!(token.len() >= 43, "{line}");
    first.process.signal("TERM").await;
    assert_eq!(first.process.ended().await.code(), Some(0));
    let log = first.process.err.whole().await;
    assert!(!log.iter().any(|line| line.contains(&token)), "not in the log");
    let mut second = production(dir.path()).await;
    let wrong = format!("{}x", &token[..token.len() - 1]);
    for (admin, status) in [(None, 401), (Some(wrong), 401), (Some(token), 200)] {
        let platform = Platform { admin, ..second.platform.clone() };
        let (answered, body) = platform.get("/api/v1/gateways").await;
        assert_eq!(answered, StatusCode::from_u16(status).unwrap(), "{body}");
    }
    second.process.signal("TERM").await;
    assert_eq!(second.process.ended().await.code(), Some(0));
    assert_eq!(second.process.out.whole().await, [""; 0], "shown once");
}

#[tokio::test]
async fn a_first_start_that_cannot_listen_leaves_the_admin_token_to_the_next() {
    let dir = tempfile::tempdir().unwrap();
    write_certificate(dir.path());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut failed = started(dir.path(), &[("GATECAST_LISTEN", &address)]);
    assert_ne!(failed.ended().await.code(), Some(0));
    let said = failed.err.whole().await.join("\n");
    assert!(said.contains(&format!("cannot listen on {address}")), "{said}");
    assert_eq!(failed.out.whole().await, [""; 0], "there is no token yet");
    let mut next = production(dir.path()).await;
    let line = next.process.out.containing("Admin token").await;
    let admin = line.rsplit(' ').next().map(str::to_owned);
    let platform = Platform { admin, ..next.platform.clone() };
    let (answered, body) = platform.get("/api/v1/gateways").await;
    assert_eq!(answered, StatusCode::OK, "{body}");
}

#[tokio::test]
async fn a_first_start_whose_output_nobody_gets_leaves_the_admin_token_to_the_next() {
    let dir = tempfile::tempdir().unwrap();
    write_certificate(dir.path());
    let (unread, broken) = std::io::pipe().unwrap();
    drop(unread);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    // A process that has no standard output is given /dev/null.
    for (what, out) in [("full", Stdio::from(full)), ("broken", Stdio::from(broken)), ("nowhere", Stdio::null())] {
        let mut command = command(dir.path(), &[]);
        let failed = command.kill_on_drop(true).stdout(out).stderr(Stdio::piped()).spawn().unwrap();
        let failed = timeout(PATIENCE, failed.wait_with_output()).await.expect("it ends").unwrap();
        let said = String::from_utf8(failed.stderr).unwrap();
        assert_eq!(failed.status.code(), Some(64), "{what}: {said}");
        assert!(said.contains("so none was made") && said.contains("GATECAST_ADMIN_TOKEN"), "{what}: {said}");
    }
    let mut next = production(dir.path()).await;
    let line = next.process.out.containing("Admin token").await;
    let admin = line.rsplit(' ').next().map(str::to_owned);
    let platform = Platform { admin, ..next.platform.clone() };
    assert_eq!(platform.get("/api/v1/gateways").await.0, StatusCode::OK);
}

#[tokio::test]
async fn sigterm_and_sigint_say_goodbye_and_exit_0() {
    for signal in ["TERM", "INT"] {
        let data = tempfile::tempdir().unwrap();
        let mut served = Served::dev(data.path(), &[]).await;
        let gateway = served.platform.register("one").await;
        let mut ws = Ws::connect(served.platform.address, &gateway.token, None).await.unwrap();
        ws.message().await.unwrap();
        let before = Instant::now();
        served.process.signal(signal).await;
        assert_eq!(ws.message().await.unwrap()["type"], "server.goodbye");
        assert_eq!(ws.message().await, Err(End::Closed(1000, "server shutdown".into())));
        assert_eq!(served.process.ended().await.code(), Some(0));
        assert!(before.elapsed() < Duration::from_secs(10), "within the grace");
    }
}

/// Until the process handles SIGTERM: before, that ends it.
pub(crate) async fn handles_sigterm(process: &Process) {
    let caught = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
        u64::from_str_radix(caught, 16).unwrap() & (1 << (15 - 1)) != 0
    };
    let handled = async {
        while !caught() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, handled).await.expect("SIGTERM is handled");
}

pub(crate) fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[tokio::test]
async fn a_stop_cuts_a_start_off_and_the_store_opens_afterwards() {
    let data = tempfile::tempdir().unwrap();
    let mut first = Served::dev(data.path(), &[]).await;
    let gateway = first.platform.register("one").await;
    first.process.signal("TERM").await;
    assert_eq!(first.process.ended().await.code(), Some(0));
    // The store is opened on a blocking thread, which waits here for a reader that never comes.
    let lock = data.path().join("lock");
    std::fs::remove_file(&lock).unwrap();
    make_fifo(&lock);
    for signal in ["TERM", "INT"] {
        let mut cut = Process::spawn(&mut Served::command(&["--dev"], data.path(), &[]));
        handles_sigterm(&cut).await;
        cut.signal(signal).await;
        assert_eq!(cut.ended().await.code(), Some(0), "{:#?}", cut.err.so_far());
        assert!(cut.err.whole().await.iter().any(|line| line.contains("Told to stop")));
    }
    std::fs::remove_file(&lock).unwrap();
    let next = Served::dev(data.path(), &[]).await;
    let mut ws = Ws::connect(next.platform.address, &gateway.token, None).await.unwrap();
    assert_eq!(ws.message().await.unwrap()["type"], "connection.ack");
}

#[tokio::test]
async fn what_hangs_on_a_blocking_thread_does_not_hold_the_end_up_and_the_store_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("gatecast.env"));
    std::fs::write(&file, "").unwrap();
    let mut served = Served::start(&["--dev", "--config", &file.display().to_string()], &data, &[]).await;
    let gateway = served.platform.register("one").await;
    served.platform.publish(gateway.id, 1).await;
    std::fs::remove_file(&file).unwrap();
    make_fifo(&file);
    served.process.signal("HUP").await;
    served.process.err.containing("read the configuration again").await;
    served.process.signal("TERM").await;
    assert_eq!(served.process.ended().await.code(), Some(0));
    for database in ["directory", "events"] {
        assert!(data.join(database).join("clean").exists(), "{database} was closed");
    }
}

#[tokio::test]
async fn a_call_that_does_not_end_is_cut_after_the_shutdown_grace() {
    let data = tempfile::tempdir().unwrap();
    let mut served = Served::dev(data.path(), &[("GATECAST_SHUTDOWN_GRACE", "2s")]).await;
    let mut stream = tls(served.platform.address, &[b"http/1.1"]).await.unwrap();
    let stuck = "POST /api/v1/gateways HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n";
    // The server reads the body when it says so.
    assert!(raw(&mut stream, stuck, "100 Continue").await.contains("100 Continue"));
    stream.write_all(b"{").await.unwrap();
    let before = Instant::now();
    served.process.signal("TERM").await;
    assert_eq!(served.process.ended().await.code(), Some(0));
    let took = before.elapsed();
    // A body has 30 s; the default grace is 10 s.
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(10), "{took:?}");
    assert!(served.process.err.whole().await.iter().any(|line| line.contains("shutdown grace is over")));
}

#[tokio::test]
async fn a_second_server_on_the_same_data_fails_and_says_why_and_the_first_goes_on() {
    let data = tempfile::tempdir().unwrap();
    let mut first = Served::dev(data.path(), &[]).await;
    let mut second = Process::spawn(&mut Served::command(&["--dev"], data.path(), &[]));
    let exit = second.ended().await;
    assert!(exit.code().is_some_and(|code| code != 0), "{exit}");
    let said = second.err.whole().await.join("\n");
    assert!(said.contains(&data.path().display().to_string()) && said.contains("use"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    assert!(first.process.runs());
    first.platform.register("one").await;
}

#[tokio::test]
async fn connects_disconnects_refusals_and_undelivered_events_are_logged_and_secrets_are_not() {
    let data = tempfile::tempdir().unwrap();
    let mut served = Served::dev(data.path(), &[]).await;
    let gateway = served.platform.register("one").await;
    let log = &mut served.process.err;
    served.platform.publish(gateway.id, 1).await;
    let undelivered = log.containing("event.id").await;
    assert!(undelivered.contains(&gateway.id.to_string()), "{undelivered}");
    assert_eq!(Ws::connect(served.platform.address, "a-secret-but-wrong-key", None).await.err(), Some(401));
    assert!(log.containing("refused").await.contains("127.0.0.1"));
    let mut ws = Ws::connect(served.platform.address, &gateway.token, None).await.unwrap();
    let connection = ws.message().await.unwrap()["connectionId"].as_str().unwrap().to_owned();
    let connected = log.containing("Gateway connected").await;
    drop(ws);
    let disconnected = log.containing("Gateway disconnected").await;
    for line in [connected, disconnected] {
        assert!(line.contains(&connection) && line.contains(&gateway.id.to_string()), "{line}");
    }
    served.process.kill().await;
    let log = served.process.err.whole().await.join("\n");
    assert!(!log.contains(&gateway.token) && !log.contains("a-secret-but-wrong-key"), "{log}");
}

#[tokio::test]
async fn nobody_who_has_not_asked_for_anything_holds_up_the_end() {
    let app = App::start().await;
    let silent = TcpStream::connect(app.address).await.unwrap();
    let mut half = tls(app.address, &[b"http/1.1"]).await.unwrap();
    half.write_all(b"GET /health HTTP/1.1\r\nHo").await.unwrap();
    let mut deaf = tls(app.address, &[b"h2"]).await.unwrap();
    deaf.write_all(&http2::opening(&[])).await.unwrap();
    for stream in [&mut half, &mut deaf] {
        stream.flush().await.unwrap();
    }
    // Accepted after them, and answered.
    raw(&mut tls(app.address, &[b"http/1.1"]).await.unwrap(), "GET /health HTTP/1.1\r\nHost: x\r\n\r\n", "}").await;
    let before = Instant::now();
    app.stop().await;
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}, the grace is 10 s", before.elapsed());
    drop((silent, half, deaf));
}
