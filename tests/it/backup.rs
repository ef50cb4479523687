//! A running server's store is copied while it is published to.

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gatecast_storage::GatewayId;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::Instant;

use crate::platform::{Platform, Registered};
use crate::process::{Process, Said, Served, gatecast, run};
use crate::serve::{handles_sigterm, make_fifo};
use crate::wire::{PATIENCE, Sse};

/// So small that events leave the ring all the time.
const RING: (&str, &str) = ("GATECAST_RING_MAX_EVENTS", "100");
/// Events of each gateway before the backup.
const BEFORE: u64 = 300;
/// What a publisher may wait longer than without a backup.
const STALL_MAX: Duration = Duration::from_secs(1);

async fn backup(platform: &Platform, to: &Path) -> Said {
    let url = platform.url("");
    run(&["--json", "-k", "--url", &url, "backup", &to.display().to_string()], &[]).await
}

/// All that is held of a gateway up to the newest, as bytes by id: the compacted state, then the ring.
async fn held(platform: &Platform, gateway: &Registered) -> HashMap<String, String> {
    let [_, newest, ..] = platform.bounds(gateway.id).await;
    let mut sse = Sse::connect(&platform.http, platform.address, &gateway.token, Some("earliest")).await.unwrap();
    sse.event().await.unwrap();
    let mut held = HashMap::new();
    if newest.as_str().is_some_and(|newest| newest.ends_with("-0")) {
        return held;
    }
    loop {
        let event = sse.event().await.unwrap();
        let id = event.id.clone().unwrap();
        held.insert(id.clone(), event.data);
        if newest == id.as_str() {
            return held;
        }
    }
}

/// Publishes one event after the other until told to stop; the longest wait for an answer.
async fn publish(platform: Platform, to: GatewayId, stop: Arc<AtomicBool>) -> Duration {
    let mut longest = Duration::ZERO;
    for n in BEFORE.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let at = Instant::now();
        platform.publish(to, n).await;
        longest = longest.max(at.elapsed());
    }
    longest
}

#[tokio::test]
async fn all_that_was_answered_before_a_backup_is_in_it_and_publishers_do_not_wait_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to, file) = (dir.path().join("from"), dir.path().join("to"), dir.path().join("backup"));
    let Served { process: mut first, platform } = Served::dev(&from, &[RING]).await;
    let mut gateways = Vec::new();
    for name in ["one", "two", "three"] {
        let gateway = platform.register(name).await;
        for n in 0..BEFORE {
            platform.publish(gateway.id, n).await;
        }
        gateways.push(gateway);
    }
    let mut before = Vec::new();
    for gateway in &gateways {
        before.push(held(&platform, gateway).await);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let publishers: Vec<_> =
        gateways.iter().map(|one| tokio::spawn(publish(platform.clone(), one.id, stop.clone()))).collect();
    let said = backup(&platform, &file).await;
    assert_eq!(said.exit, 0, "{said:?}");
    stop.store(true, Ordering::Release);
    for publisher in publishers {
        let longest = publisher.await.unwrap();
        assert!(longest < STALL_MAX, "a publisher waited {longest:?}");
    }
    let again = backup(&platform, &file).await;
    assert!(again.exit != 0 && fs::metadata(&file).unwrap().len() > 0, "a file is not overwritten: {again:?}");
    let left = fs::read_dir(&from).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(left.filter(|name| name.contains("backup")).collect::<Vec<_>>(), [""; 0], "nothing is left of it");
    first.signal("TERM").await;
    assert!(first.ended().await.success());

    let import = ["--json", "store", "import", &file.display().to_string(), "--data-dir", &to.display().to_string()];
    let said = run(&import, &[]).await;
    assert_eq!(said.exit, 0, "{said:?}");
    let Served { process: _second, platform } = Served::dev(&to, &[RING]).await;
    for (gateway, before) in gateways.iter().zip(before) {
        let restored = held(&platform, gateway).await;
        for (id, event) in before {
            assert_eq!(restored.get(&id), Some(&event), "an event that was answered before");
        }
        let seq = |id: &str| id.split_once('-').unwrap().1.parse::<u64>().unwrap();
        let newest = restored.keys().map(|id| seq(id)).max().unwrap();
        assert_eq!(restored.len() as u64, newest, "each key is of one event, so all up to the newest is there");
        let cursor = restored.keys().max_by_key(|id| seq(id)).unwrap();
        let mut sse = Sse::connect(&platform.http, platform.address, &gateway.token, Some(cursor)).await.unwrap();
        assert_eq!(sse.event().await.unwrap().json()["resume"], "resumed", "cursors stay valid");
        let next = platform.publish(gateway.id, 1_000_000).await;
        assert_eq!((seq(&next), sse.event().await.unwrap().id), (newest + 1, Some(next)));
    }
}

#[tokio::test]
async fn a_backup_that_is_refused_or_breaks_off_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backup");
    let Served { process: _memory, platform } = Served::dev(dir.path(), &[("GATECAST_STORE", "memory")]).await;
    let said = backup(&platform, &file).await;
    let refused: Value = serde_json::from_str(&said.err).unwrap();
    assert!(said.exit != 0 && refused.to_string().contains("404"), "{said:?}");
    assert!(!file.exists() && !dir.path().join("backup.partial").exists());
}

/// A server that begins to answer and never ends.
async fn endless() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        // Small, so it comes as one.
        assert!(socket.read(&mut [0; 4_096]).await.unwrap() > 0);
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ngcex\r\n";
        socket.write_all(head.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    });
    url
}

/// `backup` of that, once it has written something.
async fn under_way(to: &Path) -> Process {
    let url = endless().await;
    let process = Process::spawn(&mut gatecast(&["--url", &url, "backup", &to.display().to_string()], &[]));
    let until = Instant::now() + PATIENCE;
    while !fs::metadata(partial(to)).is_ok_and(|partial| partial.len() > 0) {
        assert!(Instant::now() < until, "it writes");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    process
}

fn partial(file: &Path) -> PathBuf {
    file.with_extension("partial")
}

/// Who may do what with a file.
fn mode(file: &Path) -> u32 {
    fs::metadata(file).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn an_interrupted_backup_leaves_nothing_that_is_in_the_way_of_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backup");
    for signal in ["INT", "TERM"] {
        let mut process = under_way(&file).await;
        assert!(!file.exists(), "it appears once it is whole");
        assert_eq!(mode(&partial(&file)), 0o600, "and is its owner's alone");
        process.signal(signal).await;
        assert_eq!(process.ended().await.code(), Some(1), "{:?}", process.err.whole().await);
        assert!(!file.exists() && !partial(&file).exists());
    }
    let mut first = under_way(&file).await;
    let Served { process: _server, platform } = Served::dev(&dir.path().join("data"), &[]).await;
    let said = backup(&platform, &file).await;
    assert!(said.exit == 65 && said.err.contains("another backup"), "of two at once one fails: {said:?}");
    first.kill().await;
    assert!(!file.exists() && partial(&file).exists());
    fs::set_permissions(partial(&file), Permissions::from_mode(0o644)).unwrap();
    assert_eq!(backup(&platform, &file).await.exit, 0);
    assert!(!partial(&file).exists());
    assert_eq!(mode(&file), 0o600, "hashes of tokens and artifacts are nobody else's");
    let made = fs::read(&file).unwrap();
    assert_eq!(backup(&platform, &file).await.exit, 65);
    assert!(!partial(&file).exists() && fs::read(&file).unwrap() == made, "a file is not overwritten");
}

#[tokio::test]
async fn a_backup_is_not_led_elsewhere_by_what_has_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let (file, other) = (dir.path().join("backup"), dir.path().join("other"));
    fs::write(&other, "other").unwrap();
    symlink(&other, partial(&file)).unwrap();
    let said = run(&["--url", "http://127.0.0.1:1", "backup", &file.display().to_string()], &[]).await;
    assert!(said.exit == 65 && said.err.contains("backup.partial"), "{said:?}");
    assert_eq!(fs::read_to_string(&other).unwrap(), "other");
}

/// A server that says what it is given for a backup, and hangs up.
async fn saying(bytes: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        assert!(socket.read(&mut [0; 4_096]).await.unwrap() > 0);
        socket.write_all(&bytes).await.unwrap();
        socket.shutdown().await.unwrap();
        socket.read_to_end(&mut Vec::new()).await.ok();
    });
    url
}

#[tokio::test]
async fn a_backup_that_breaks_off_does_not_say_that_there_is_no_server() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backup");
    let url = saying(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\ngatecast 1".to_vec()).await;
    let said = run(&["--url", &url, "backup", &file.display().to_string()], &[]).await;
    assert!(said.exit == 75 && !said.err.contains("serve --dev"), "{said:?}");
    assert!(!file.exists() && !partial(&file).exists());
}

#[tokio::test]
async fn a_backup_that_a_limit_of_the_size_of_files_ends_says_so_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backup");
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 8192\r\n\r\n";
    let url = saying([&head[..], &[b'x'; 8_192]].concat()).await;
    let backup = gatecast(&["--url", &url, "backup", &file.display().to_string()], &[]);
    let backup = backup.as_std();
    let mut limited = Command::new("sh");
    // Blocks of 512 bytes.
    limited.args(["-c", "ulimit -f 2; exec \"$@\"", "sh"]).arg(backup.get_program()).args(backup.get_args());
    let mut process = Process::spawn(limited.stdin(Stdio::null()));
    assert_eq!(process.ended().await.code(), Some(65), "{:?}", process.err.so_far());
    let said = process.err.whole().await;
    assert!(said.iter().any(|line| line.starts_with("error: ") && line.contains("backup.partial")), "{said:?}");
    assert!(!file.exists() && !partial(&file).exists());
}

#[tokio::test]
async fn an_interrupted_backup_whose_disk_hangs_is_no_success() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backup");
    // Whoever opens it waits for a reader.
    make_fifo(&partial(&file));
    let mut hangs = Process::spawn(&mut gatecast(&["backup", &file.display().to_string()], &[]));
    handles_sigterm(&hangs).await;
    hangs.signal("TERM").await;
    assert_eq!(hangs.ended().await.code(), Some(1), "{:?}", hangs.err.whole().await);
    assert!(!file.exists());
}
