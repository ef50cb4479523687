//! A server that may open few files meets more sockets than that.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::platform::{Platform, answer};
use crate::process::{Process, Served};
use crate::wire::{PATIENCE, Sse};

/// What the server may have open, its own files included.
const FILES_MAX: usize = 128;
/// What it may have open when it starts, where it is to have less then: whoever opens sockets and says nothing has a share of
/// what there is at a start.
const FILES_AT_START: usize = 1_024;
/// With fewer a process does not get to its store.
const FILES_OF_A_RUNTIME: usize = 6;

/// `serve --dev` that was given as much, by a limit that it may raise (`-Sn`) or not (`-n`).
async fn limited(data: &Path, limit: &str, files: usize) -> Served {
    Served::listening(started(data, limit, files)).await
}

/// The same with any limit, without waiting.
fn started(data: &Path, limit: &str, files: usize) -> Process {
    let server = Served::command(&["--dev"], data, &[]);
    let server = server.as_std();
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit {limit} {files} && exec \"$0\" \"$@\"")]);
    limited.arg(server.get_program()).args(server.get_args());
    for (name, value) in server.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    Process::spawn(&mut limited)
}

/// Waits until the number of what the process has open is as wanted.
async fn until_open(process: &Process, is_wanted: impl Fn(usize) -> bool) {
    let until = Instant::now() + PATIENCE;
    let open = || fs::read_dir(format!("/proc/{}/fd", process.pid())).unwrap().count();
    while !is_wanted(open()) {
        assert!(Instant::now() < until, "{} are open", open());
        sleep(Duration::from_millis(10)).await;
    }
}

/// From now on it may have less open, and sockets that say nothing leave nothing to be opened.
async fn all_taken(process: &Process, platform: &Platform) -> Vec<TcpStream> {
    let limit = Some(FILES_MAX as u64);
    let pid = Pid::from_raw(i32::try_from(process.pid()).unwrap());
    prlimit(pid, Resource::Nofile, Rlimit { current: limit, maximum: limit }).unwrap();
    let mut idle = Vec::new();
    for _ in 0..FILES_MAX {
        idle.push(TcpStream::connect(platform.address).await.unwrap());
    }
    until_open(process, |open| open >= FILES_MAX).await;
    idle
}

#[tokio::test]
async fn sockets_that_take_all_descriptors_break_no_store() {
    let dir = tempfile::tempdir().unwrap();
    let Served { process, platform } = limited(dir.path(), "-n", FILES_AT_START).await;
    let told = process.err.so_far().into_iter().find(|line| line.contains("LimitNOFILE"));
    assert!(told.is_some_and(|told| told.contains("may open 1024 files")), "{:?}", process.err.so_far());
    let gateway = platform.register("one").await;
    let idle = all_taken(&process, &platform).await;

    platform.publish(gateway.id, 1).await;
    // What is kept of a call with a key may be large: that may take a file.
    let event = json!({"type": "api.deployed", "payload": {"apiId": "pets"}});
    let call = platform.http.post(platform.url(&format!("/api/internal/v1/gateways/{}/events", gateway.id)));
    let (status, answer) = answer(call.header("Idempotency-Key", "key").json(&event).send().await.unwrap()).await;
    assert!(status == 503 && answer["code"] == "UNAVAILABLE", "{answer}");
    let another = json!({"organizationId": uuid::Uuid::new_v4(), "name": "two", "displayName": "Two"});
    let (status, answer) = platform.post("/api/v1/gateways", another.clone()).await;
    assert!(status == 503 && answer["code"] == "UNAVAILABLE", "{answer}");

    drop(idle);
    until_open(&process, |open| open < FILES_MAX / 2).await;
    assert_eq!(platform.post("/api/v1/gateways", another).await.0, 201);
    platform.publish(gateway.id, 2).await;
    assert_eq!(platform.get("/ready").await.0, 200);
}

/// What replicas report is written and not synced: the file that it takes is, by the next publish.
#[tokio::test]
async fn a_file_that_was_made_while_there_were_descriptors_is_synced_when_there_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let Served { process, platform } = limited(dir.path(), "-n", FILES_AT_START).await;
    let gateway = platform.register("one").await;
    let _connection = Sse::connect(&platform.http, platform.address, &gateway.token, None).await.unwrap();
    let mut failed = Vec::new();
    for n in 0..100 {
        let event = platform.publish(gateway.id, n).await;
        let [code, message] = [128, 256].map(|characters| "\u{1f600}".repeat(characters));
        let payload = json!({"eventId": event, "status": "failed", "errorCode": code, "message": message});
        failed.push(json!({"type": "event.receipt", "payload": payload}));
    }
    for failed in failed.chunks(20) {
        let call = platform.http.post(platform.url("/api/internal/v1/gateways/receipts"));
        let (status, answer) = answer(call.header("api-key", &gateway.token).json(failed).send().await.unwrap()).await;
        assert_eq!(status, 202, "{answer}");
    }
    let (blobs, until) = (dir.path().join("events/blobs"), Instant::now() + PATIENCE);
    while fs::read_dir(&blobs).unwrap().next().is_none() {
        assert!(Instant::now() < until, "no row takes a file");
        sleep(Duration::from_millis(10)).await;
    }
    let _idle = all_taken(&process, &platform).await;
    platform.publish(gateway.id, 100).await;
    assert_eq!(platform.get("/ready").await.0, 200);
}

/// 65 is what systemd does not try again (deploy/gatecast.service).
#[tokio::test]
async fn a_start_that_lacks_descriptors_may_be_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    for files in FILES_OF_A_RUNTIME..FILES_MAX {
        let mut start = started(dir.path(), "-n", files);
        if start.listens().await {
            return;
        }
        assert_ne!(start.ended().await.code(), Some(65), "of {files} files: {:#?}", start.err.so_far());
    }
    panic!("it never listens");
}

#[tokio::test]
async fn a_limit_that_may_be_raised_is() {
    let dir = tempfile::tempdir().unwrap();
    let Served { process, .. } = limited(dir.path(), "-Sn", FILES_MAX).await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", process.pid())).unwrap();
    let open = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let [soft, hard] = open.split_whitespace().take(2).collect::<Vec<_>>()[..] else { panic!("{limits}") };
    assert_eq!(soft, hard);
}
