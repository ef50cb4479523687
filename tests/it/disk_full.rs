//! The disk is full: a server whose data directory lies on a file system of some tens of MiB, in a mount namespace of the
//! test's own.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use crate::platform::{Platform, Registered};
use crate::process::{Process, Served};
use crate::wire::{PATIENCE, Sse};

const FILE_SYSTEM_MIB: u32 = 64;
/// Far less than the store asks for before it writes.
const ROOM_FOR_A_START: u64 = 2 << 20;
/// Calls of who repeats what is refused.
const DEPLOYS: u64 = 100;
/// Publishers at once.
const PUBLISHERS: u64 = 8;

/// A small file system at `data` that only this namespace sees; gone with the process that holds it.
struct SmallDisk {
    holder: Process,
    data: PathBuf,
}

impl SmallDisk {
    /// `None` where nothing may be mounted: that takes root.
    async fn new(data: &Path) -> Option<Self> {
        fs::create_dir_all(data).unwrap();
        let mut holder = Command::new("unshare");
        let mount = format!("mount -t tmpfs -o size={FILE_SYSTEM_MIB}m tmpfs \"$0\" && echo mounted && exec sleep 600");
        let mut holder = Process::spawn(holder.args(["-m", "sh", "-c", &mount]).arg(data).stdin(Stdio::null()));
        let is_mounted = holder.out.line().await.is_some();
        is_mounted.then(|| Self { holder, data: data.to_owned() })
    }

    /// The server, on it.
    async fn served(&self) -> Served {
        let pid = self.holder.pid().to_string();
        let server = Served::command(&["--dev"], &self.data, &[]);
        let server = server.as_std();
        let mut inside = Command::new("nsenter");
        inside.args(["-m", "-t", &pid]).arg(server.get_program()).args(server.get_args()).stdin(Stdio::null());
        for (name, value) in server.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        Served::listening(Process::spawn(&mut inside)).await
    }

    /// The file that takes the room, as seen from here.
    fn filler(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.pid()));
        root.join(self.data.strip_prefix("/").unwrap()).join("filler")
    }
}

fn no_mounts() {
    eprintln!("Not tested: nothing may be mounted here (it takes root).");
}

/// Publishes an event of `bytes`: its id, or the code of the refusal, which is checked for what a refusal must be.
async fn publish(platform: &Platform, to: &Registered, n: u64, bytes: usize) -> Result<String, String> {
    let event = json!({"type": "api.deployed", "payload": {"apiId": "a", "n": n, "padding": "x".repeat(bytes)}});
    let url = platform.url(&format!("/api/internal/v1/gateways/{}/events", to.id));
    let response = platform.http.post(url).json(&event).send().await.unwrap();
    let (status, retry) = (response.status(), response.headers().contains_key("retry-after"));
    let answer: Value = response.json().await.unwrap();
    if status == 201 {
        return Ok(answer["eventId"].as_str().unwrap().to_owned());
    }
    assert!(status == 503 && retry, "{status} {answer}");
    Err(answer["code"].as_str().unwrap().to_owned())
}

/// Deploys an API to a gateway: the status.
async fn deploy(platform: &Platform, to: &Registered) -> u16 {
    let body = json!([{"gatewayId": to.id, "vhost": "a.example"}]);
    platform.post("/api/v1/apis/a/deploy-revision?revisionId=r", body).await.0.as_u16()
}

/// What the gateway's log holds: event ids with their numbers.
async fn stored(platform: &Platform, of: &Registered) -> Vec<(String, u64)> {
    let (mut all, mut cursor) = (Vec::new(), "earliest".to_owned());
    loop {
        let query = format!("lastEventId={cursor}&timeout=0&max=1000&instance=reader");
        let (status, reply, _) = platform.poll(&of.token, &query).await.unwrap();
        let events = reply["events"].as_array().map(Vec::as_slice).unwrap_or_default();
        let events = events.iter().filter(|event| event["eventId"].is_string());
        let before = all.len();
        all.extend(events.map(|e| (e["eventId"].as_str().unwrap().to_owned(), e["payload"]["n"].as_u64().unwrap())));
        if status == 204 || all.len() == before {
            return all;
        }
        cursor.clone_from(&all.last().unwrap().0);
    }
}

fn assert_dense(events: &[(String, u64)]) {
    let seqs = events.iter().map(|(id, _)| id.rsplit_once('-').unwrap().1.parse::<u64>().unwrap());
    assert!(seqs.eq(1..=events.len() as u64), "{events:?}");
}

async fn ready(platform: &Platform) -> (u16, Value) {
    let (status, body) = platform.get("/ready").await;
    (status.as_u16(), body)
}

/// What `/metrics` says of the store, and how many calls it says were refused for want of room.
async fn measured(platform: &Platform) -> (String, u64) {
    let (_, page) = platform.get("/metrics").await;
    let page = page.as_str().unwrap();
    let of =
        |name: &str| page.lines().filter_map(|line| line.strip_prefix(name)?.split_once("\"} ")).collect::<Vec<_>>();
    let states = of("gatecast_store_state{state=\"").into_iter().filter(|(_, value)| *value == "1");
    let states: Vec<_> = states.map(|(state, _)| state.to_owned()).collect();
    let refused = of("gatecast_api_refusals_total{code=\"");
    let (_, full) = refused.into_iter().find(|(code, _)| *code == "STORE_FULL").unwrap();
    (states.join(" "), full.parse().unwrap())
}

#[tokio::test]
async fn a_full_disk_refuses_publishers_while_reads_go_on_and_recovers_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::new(&dir.path().join("data")).await else { return no_mounts() };
    let Served { mut process, platform } = disk.served().await;
    let (gateway, revoked) = (platform.register("one").await, platform.register("two").await);
    let mut live = Sse::connect(&platform.http, platform.address, &gateway.token, None).await.unwrap();
    live.event().await.unwrap();
    assert_eq!(deploy(&platform, &revoked).await, 200);

    let mut answered = Vec::new();
    let mut filler = File::create(disk.filler()).unwrap();
    let refusal = loop {
        match publish(&platform, &gateway, answered.len() as u64, 2_000).await {
            Ok(id) => answered.push((id, answered.len() as u64)),
            Err(refusal) => break refusal,
        }
        filler.write_all(&vec![0; 1 << 20]).unwrap();
    };
    assert_eq!(refusal, "STORE_FULL");
    filler.write_all(&vec![0; 1 << 20]).unwrap();
    let copied = || fs::metadata(disk.filler().with_file_name("directory.copy")).unwrap().len();
    let before = copied();
    for _ in 0..DEPLOYS {
        assert_eq!(deploy(&platform, &revoked).await, 503);
    }
    assert_eq!(copied(), before, "what is refused takes none of what is left for keys");
    let token = format!("/api/v1/gateways/{}/tokens/{}", revoked.id, revoked.token_id);
    assert!(platform.delete(&token).await.is_success(), "a key is revoked whatever the disk is like");
    assert_eq!(platform.poll(&revoked.token, "timeout=0").await.unwrap().0, 401);
    // To the last byte.
    while filler.write_all(&[0; 4_096]).is_ok() {}

    for n in 0..20 {
        assert_eq!(publish(&platform, &gateway, n, 2_000).await, Err("STORE_FULL".to_owned()));
    }
    let more = json!({"organizationId": crate::platform::ORGANIZATION, "name": "three", "displayName": "three"});
    let (status, problem) = platform.post("/api/v1/gateways", more).await;
    assert_eq!((status.as_u16(), &problem["code"]), (503, &json!("STORE_FULL")));
    assert_eq!(ready(&platform).await, (200, json!({"status": "read-only"})));
    assert_eq!(measured(&platform).await, ("full".to_owned(), 22 + DEPLOYS));
    for (id, _) in &answered {
        assert_eq!(live.event().await.unwrap().id.as_ref(), Some(id), "live delivery");
    }
    // Reads go on, and so does what they leave behind (positions, receipts) that cannot be written now.
    assert_eq!(stored(&platform, &gateway).await, answered);
    process.err.containing("The file system of the store is full").await;

    drop(filler);
    fs::remove_file(disk.filler()).unwrap();
    let first = publish(&platform, &gateway, answered.len() as u64, 2_000).await.expect("at once, without a restart");
    answered.push((first.clone(), answered.len() as u64));
    assert_eq!(live.event().await.unwrap().id, Some(first));
    assert_eq!(ready(&platform).await, (200, json!({"status": "ready"})));
    assert_eq!(measured(&platform).await.0, "serving");
    process.err.containing("has room again").await;
    assert_dense(&answered);

    // Nearly full again, and nothing of the log was asked for since the start.
    let mut filler = File::create(disk.filler()).unwrap();
    while filler.write_all(&[0; 4_096]).is_ok() {}
    filler.set_len(filler.metadata().unwrap().len() - ROOM_FOR_A_START).unwrap();
    process.kill().await;
    let Served { process: _again, platform } = disk.served().await;
    assert_eq!(ready(&platform).await, (200, json!({"status": "read-only"})));
    assert_eq!(stored(&platform, &gateway).await, answered);
}

/// The events themselves fill the disk, published as fast as they are taken: the look before each batch keeps sled from
/// ever meeting the end.
#[tokio::test]
async fn publishers_that_fill_the_disk_never_break_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::new(&dir.path().join("data")).await else { return no_mounts() };
    let Served { mut process, platform } = disk.served().await;
    let gateway = platform.register("one").await;
    let publishers = (0..PUBLISHERS).map(|publisher| {
        let (platform, gateway) = (platform.clone(), gateway.clone());
        tokio::spawn(async move {
            let (mut answered, mut refused) = (Vec::new(), 0);
            for n in 0.. {
                let n = publisher + n * PUBLISHERS;
                match publish(&platform, &gateway, n, (n as usize * 7_919) % 150_000).await {
                    Ok(id) => answered.push((id, n)),
                    Err(code) => {
                        assert_eq!(code, "STORE_FULL");
                        refused += 1;
                    }
                }
                if refused == 30 {
                    break;
                }
            }
            answered
        })
    });
    let mut answered = Vec::new();
    for publisher in publishers.collect::<Vec<_>>() {
        answered.extend(timeout(PATIENCE, publisher).await.expect("a full disk in time").unwrap());
    }
    answered.sort_by_key(|(id, _)| id.rsplit_once('-').unwrap().1.parse::<u64>().unwrap());
    assert_eq!(ready(&platform).await.0, 200);
    assert_eq!(stored(&platform, &gateway).await, answered);
    assert_dense(&answered);
    process.kill().await;
    let Served { process: _again, platform } = disk.served().await;
    assert_eq!(stored(&platform, &gateway).await, answered);
}

/// The look before the write does not see every limit: here the file may not grow, on a disk with room.
#[tokio::test]
async fn a_write_that_fails_all_the_same_poisons_the_store_and_a_restart_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let server = Served::command(&["--dev"], dir.path(), &[]);
    let server = server.as_std();
    let mut limited = Command::new("sh");
    // Blocks of 512 bytes.
    limited.args(["-c", "ulimit -f 8192; exec \"$@\"", "sh"]);
    limited.arg(server.get_program()).args(server.get_args()).stdin(Stdio::null());
    limited.envs(server.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let Served { mut process, platform } = Served::listening(Process::spawn(&mut limited)).await;
    let gateway = platform.register("one").await;
    let mut answered = Vec::new();
    let refusal = loop {
        match publish(&platform, &gateway, answered.len() as u64, 20_000).await {
            Ok(id) => answered.push((id, answered.len() as u64)),
            Err(refusal) => break refusal,
        }
    };
    assert_eq!(refusal, "UNAVAILABLE");
    process.err.containing("refuses writes until the server is restarted").await;
    assert_eq!(ready(&platform).await, (503, json!({"status": "unavailable"})));
    assert_eq!(platform.get("/health").await.0, 200);
    assert_eq!(publish(&platform, &gateway, 0, 10).await, Err("UNAVAILABLE".to_owned()), "it does not guess");
    process.signal("TERM").await;
    process.ended().await;

    let Served { process: _again, platform } = Served::dev(dir.path(), &[]).await;
    assert_eq!(ready(&platform).await.0, 200);
    let after = stored(&platform, &gateway).await;
    assert_dense(&after);
    assert_eq!(after[..answered.len()], answered);
    assert!(after.len() <= answered.len() + 1, "at most what was under way");
    publish(&platform, &gateway, 0, 10).await.unwrap();
}
