//! `gatecast store`, and what a server does with a data directory that is not as it left it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::platform::{Platform, Registered};
use crate::process::{Process, Served, gatecast, run};
use crate::wire::Sse;

/// Nobody else's, as a limit of threads counts all that its user has.
const LONE_USER: u32 = 64_997;
/// With so many a server with one worker starts.
const THREADS_ENOUGH: usize = 20;

async fn store(command: &[&str], data: &Path) -> (i32, Value) {
    let data = data.display().to_string();
    let said = run(&[&["--json", "store"], command, &["--data-dir", &data]].concat(), &[]).await;
    let text = if said.out.is_empty() { &said.err } else { &said.out };
    (said.exit, serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {said:?}")))
}

/// A gateway with an artifact, a deployment and some events, in a directory that no server has open.
async fn filled(data: &Path) -> (Registered, Vec<String>) {
    let Served { mut process, platform } = Served::dev(data, &[]).await;
    let gateway = platform.register("one").await;
    let artifact = platform.http.put(platform.url("/api/v1/apis/weather")).header("content-type", "application/yaml");
    assert!(artifact.body("name: weather").send().await.unwrap().status().is_success());
    let deploy = json!([{"gatewayId": gateway.id, "vhost": "example.org"}]);
    let (status, answer) = platform.post("/api/v1/apis/weather/deploy-revision?revisionId=r1", deploy).await;
    assert_eq!(status, 200, "{answer}");
    let mut events = vec![answer[0]["eventId"].as_str().unwrap().to_owned()];
    for n in 0..40 {
        events.push(platform.publish(gateway.id, n).await);
    }
    process.signal("TERM").await;
    assert!(process.ended().await.success());
    (gateway, events)
}

/// What a gateway is sent after a cursor, as bytes.
async fn sent(platform: &Platform, to: &Registered, cursor: &str, count: usize) -> Vec<String> {
    let mut sse = Sse::connect(&platform.http, platform.address, &to.token, Some(cursor)).await.unwrap();
    sse.event().await.unwrap();
    let mut sent = Vec::new();
    while sent.len() < count {
        sent.push(sse.event().await.unwrap().data);
    }
    sent
}

fn garble(database: &Path) {
    let db = database.join("db");
    let bytes: Vec<u8> = fs::read(&db).unwrap().into_iter().map(|byte| byte ^ 0x5a).collect();
    fs::write(db, bytes).unwrap();
}

#[tokio::test]
async fn a_second_server_on_a_data_directory_is_refused_and_so_are_the_tools() {
    let dir = tempfile::tempdir().unwrap();
    let Served { process: _first, platform } = Served::dev(dir.path(), &[]).await;
    let mut second = Process::spawn(&mut Served::command(&["--dev"], dir.path(), &[]));
    let status = second.ended().await;
    let said = second.err.whole().await.join("\n");
    assert_eq!(status.code(), Some(75), "{said}");
    assert!(said.contains("in use by another process") && said.contains("Stop that one first"), "{said}");
    for command in ["check", "repair"] {
        let (exit, answer) = store(&[command], dir.path()).await;
        assert_eq!(exit, 75, "{answer}");
    }
    assert_eq!(platform.get("/ready").await.0, 200, "the first goes on");
}

#[tokio::test]
async fn a_data_directory_that_is_none_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let (file, taken) = (dir.path().join("file"), dir.path().join("taken"));
    fs::write(&file, "").unwrap();
    fs::create_dir_all(taken.join("lock")).unwrap();
    for unusable in [file.clone(), file.join("below"), taken] {
        let mut refused = Process::spawn(&mut Served::command(&["--dev"], &unusable, &[]));
        let status = refused.ended().await;
        let said = refused.err.whole().await.join("\n");
        assert_eq!(status.code(), Some(65), "{said}");
        let named = format!("the data directory {} cannot be used: ", unusable.display());
        assert!(said.contains(&named) && said.contains("--data-dir (or GATECAST_DATA_DIR)"), "{said}");
    }
}

#[tokio::test]
async fn check_says_what_there_is_and_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(store(&["check"], &dir.path().join("nothing")).await.0, 65);
    filled(dir.path()).await;
    let (exit, checked) = store(&["check"], dir.path()).await;
    assert_eq!(
        (exit, &checked["events"], &checked["logs"], &checked["faults"]),
        (0, &json!(41), &json!(1), &json!([]))
    );
    fs::remove_file(dir.path().join("directory.copy")).unwrap();
    let data = dir.path().display().to_string();
    let said = run(&["store", "check", "--data-dir", &data], &[]).await;
    assert_eq!(said.exit, 65);
    assert!(said.out.contains("fault: directory.copy: it is missing"), "{}", said.out);
    assert!(said.err.contains("gatecast store repair"), "{}", said.err);
    let (unread, broken) = std::io::pipe().unwrap();
    drop(unread);
    let mut unheard = gatecast(&["store", "check", "--data-dir", &data], &[]);
    let status = unheard.stdout(broken).stderr(Stdio::null()).status().await.unwrap();
    assert_eq!(status.code(), Some(65), "a store has its faults though nobody reads of them");
}

#[tokio::test]
async fn a_damaged_directory_refuses_to_start_until_it_is_repaired_and_lacks_nothing_then() {
    let dir = tempfile::tempdir().unwrap();
    let (gateway, events) = filled(dir.path()).await;
    garble(&dir.path().join("directory"));
    let mut refused = Process::spawn(&mut Served::command(&["--dev"], dir.path(), &[]));
    let status = refused.ended().await;
    let said = refused.err.whole().await.join("\n");
    assert!(status.code() == Some(65) && said.contains("gatecast store repair"), "{status} {said}");
    let (exit, repaired) = store(&["repair"], dir.path()).await;
    assert_eq!((exit, &repaired["directoryRebuilt"], &repaired["eventsRebuilt"]), (0, &json!(true), &json!(false)));
    assert_eq!(store(&["check"], dir.path()).await.0, 0);
    let Served { process: _process, platform } = Served::dev(dir.path(), &[]).await;
    assert_eq!(sent(&platform, &gateway, &events[0], 40).await.len(), 40, "token and cursor are good");
    let artifact = platform.http.get(platform.url("/api/v1/apis/weather")).send().await.unwrap();
    assert_eq!(artifact.text().await.unwrap(), "name: weather");
}

#[tokio::test]
async fn damaged_events_are_set_aside_and_the_gateway_is_reset() {
    let dir = tempfile::tempdir().unwrap();
    let (gateway, events) = filled(dir.path()).await;
    garble(&dir.path().join("events"));
    let Served { process: _process, platform } = Served::dev(dir.path(), &[]).await;
    let reset: Value = serde_json::from_str(&sent(&platform, &gateway, &events[3], 1).await[0]).unwrap();
    assert_eq!((&reset["type"], &reset["payload"]["reason"]), (&json!("stream.reset"), &json!("unknown-epoch")));
    let aside = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(aside.filter(|name| name.starts_with("events.damaged-")).count(), 1);
}

#[tokio::test]
async fn events_that_are_gone_are_told_of_and_the_gateway_is_reset() {
    let dir = tempfile::tempdir().unwrap();
    let lost = |process: &Process| process.err.so_far().iter().any(|line| line.contains("The event store is missing"));
    let Served { mut process, .. } = Served::dev(dir.path(), &[]).await;
    assert!(!lost(&process), "a new store has none");
    process.signal("TERM").await;
    assert!(process.ended().await.success());
    let (gateway, events) = filled(dir.path()).await;
    fs::remove_dir_all(dir.path().join("events")).unwrap();
    let Served { process, platform } = Served::dev(dir.path(), &[]).await;
    assert!(lost(&process), "{:?}", process.err.so_far());
    let reset: Value = serde_json::from_str(&sent(&platform, &gateway, &events[3], 1).await[0]).unwrap();
    assert_eq!((&reset["type"], &reset["payload"]["reason"]), (&json!("stream.reset"), &json!("unknown-epoch")));
}

#[tokio::test]
async fn an_export_is_imported_elsewhere_and_gateways_go_on_with_their_cursors() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to, file) = (dir.path().join("from"), dir.path().join("to"), dir.path().join("export"));
    let (gateway, events) = filled(&from).await;
    let file = file.display().to_string();
    let (exit, exported) = store(&["export", &file], &from).await;
    assert_eq!(exit, 0, "{exported}");
    assert_eq!(store(&["export", &file], &from).await.0, 65, "an export is not overwritten");
    assert_eq!(store(&["import", &file], &to).await, (0, exported));
    assert_eq!(store(&["import", &file], &to).await.0, 65, "nor is a store");
    let mut seen = Vec::new();
    for data in [&from, &to] {
        let Served { process: _process, platform } = Served::dev(data, &[]).await;
        let mut after = sent(&platform, &gateway, &events[10], 30).await;
        let next = platform.publish(gateway.id, 99).await;
        after.push(next);
        seen.push(after);
    }
    assert_eq!(seen[0], seen[1], "the same bytes, and the same position next");
}

/// What is of root in a data directory.
fn of_root(data: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut dirs = vec![data.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()) {
            let metadata = entry.metadata().unwrap();
            if metadata.uid() == 0 {
                found.push(entry.path().display().to_string());
            }
            if metadata.is_dir() {
                dirs.push(entry.path());
            }
        }
    }
    found
}

/// Whether directories are a user's now, with all that is in them.
fn are_given(user: u32, paths: &[&Path]) -> bool {
    let given =
        std::process::Command::new("chown").arg("-R").arg(format!("{user}:{user}")).args(paths).output().unwrap();
    if !given.status.success() {
        eprintln!("Not tested: nothing may be given away here (it takes root).");
    }
    given.status.success()
}

#[tokio::test]
async fn what_root_does_to_the_store_of_another_user_locks_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let (data, new, export) = (dir.path().join("data"), dir.path().join("new"), dir.path().join("export"));
    filled(&data).await;
    fs::create_dir(&new).unwrap();
    if !are_given(65_534, &[&data, &new]) {
        return;
    }
    let export = export.display().to_string();
    assert_eq!(store(&["check"], &data).await.0, 0);
    assert_eq!(of_root(&data), [""; 0], "after a check");
    assert_eq!(store(&["export", &export], &data).await.0, 0);
    garble(&data.join("directory"));
    assert_eq!(store(&["repair"], &data).await.0, 0);
    assert_eq!(of_root(&data), [""; 0], "after a repair");
    assert_eq!(store(&["import", &export], &new).await.0, 0);
    assert_eq!(of_root(&new), [""; 0], "after an import");
    assert_ne!(store(&["import", &export], &data).await.0, 0);
    assert_eq!(of_root(&data), [""; 0], "after an import that was refused");
}

#[tokio::test]
async fn a_part_of_the_store_that_may_not_be_opened_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    filled(&data).await;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    if !are_given(65_534, &[&data]) {
        return;
    }
    let db = data.join("events/db");
    std::os::unix::fs::chown(&db, Some(0), Some(0)).unwrap();
    fs::set_permissions(&db, fs::Permissions::from_mode(0o600)).unwrap();
    let mut refused = Process::spawn(Served::command(&["--dev"], &data, &[]).uid(65534).gid(65534));
    let status = refused.ended().await;
    let said = refused.err.whole().await.join("\n");
    assert_eq!(status.code(), Some(65), "{said}");
    assert!(said.contains(&data.join("events").display().to_string()) && said.contains("chown -R"), "{said}");
}

/// What is wanting is no damage: whatever a start lacks, the next one finds the store as it was.
#[tokio::test]
async fn a_start_that_may_have_few_threads_sets_nothing_aside() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (gateway, events) = filled(&data).await;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    if !are_given(LONE_USER, &[&data]) {
        return;
    }
    let server = Served::command(&["--dev"], &data, &[("TOKIO_WORKER_THREADS", "1")]);
    let server = server.as_std();
    let mut has_failed = false;
    for threads in 3..THREADS_ENOUGH {
        let mut limited = tokio::process::Command::new("prlimit");
        limited.arg(format!("--nproc={threads}")).arg(server.get_program()).args(server.get_args());
        limited.envs(server.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let mut start = Process::spawn(limited.stdin(Stdio::null()).uid(LONE_USER).gid(LONE_USER));
        if start.listens().await {
            start.kill().await;
            continue;
        }
        let (status, said) = (start.ended().await, start.err.so_far().join("\n"));
        assert_ne!(status.code(), Some(65), "of {threads} threads: {said}");
        has_failed |= said.contains("the store failed");
    }
    assert!(has_failed, "no start lacked threads for its store");
    let names = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.contains("damaged")).collect::<Vec<_>>(), [""; 0]);
    let again = Process::spawn(Served::command(&["--dev"], &data, &[]).uid(LONE_USER).gid(LONE_USER));
    let Served { process: _again, platform } = Served::listening(again).await;
    let there = sent(&platform, &gateway, "earliest", events.len()).await;
    assert!(there.iter().zip(&events).all(|(there, event)| there.contains(event.as_str())), "{there:?}");
}
