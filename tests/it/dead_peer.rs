//! Peers whose link is cut, in real time: clients in a network namespace of the test's own, whose end of the cable is
//! taken down. No FIN, no RST; nothing comes any more.

use std::path::Path;
use std::process::{Command as Blocking, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use tokio::time::Instant;

use crate::platform::{Platform, Registered};
use crate::process::{Process, Served};
use crate::tls::write_certificate;
use crate::wire::PATIENCE;

/// FR-006: a dead peer is gone at most this long after its last sign of life.
const GONE_WITHIN: Duration = Duration::from_secs(30);
/// For asking, on a busy machine.
const ASKING: Duration = Duration::from_secs(1);
const ASK_EVERY: Duration = Duration::from_millis(50);
const ADMIN: &str = "an-admin-token-for-tests";

/// A network namespace, joined to this one by a cable; both are gone when it is dropped.
struct Namespace {
    name: String,
    here: String,
    subnet: u32,
}

impl Namespace {
    /// `None` where none may be made: that takes root.
    fn new() -> Option<Self> {
        let id = std::process::id();
        let (name, here) = (format!("gatecast-{id}"), format!("gch{id}"));
        let made = Self { subnet: id % 16_000, name, here };
        let (name, here) = (made.name.as_str(), made.here.as_str());
        ip(&["netns", "add", name]).then_some(())?;
        let [own, peer] = [made.address(1), made.address(2)].map(|address| format!("{address}/30"));
        let steps: [&[&str]; 5] = [
            &["link", "add", here, "type", "veth", "peer", "name", "eth0", "netns", name],
            &["addr", "add", &own, "dev", here],
            &["link", "set", here, "up"],
            &["-n", name, "addr", "add", &peer, "dev", "eth0"],
            &["-n", name, "link", "set", "eth0", "up"],
        ];
        steps.iter().all(|step| ip(step)).then_some(made)
    }

    /// An address of the cable: 1 is here, 2 is there.
    fn address(&self, end: u32) -> String {
        // A /30 of its own in 10.128.0.0/16.
        let bits = self.subnet * 4 + end;
        format!("10.128.{}.{}", bits >> 8, bits & 0xff)
    }

    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    fn cut(&self) {
        assert!(ip(&["-n", &self.name, "link", "set", "eth0", "down"]));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&["link", "del", &self.here]);
        ip(&["netns", "del", &self.name]);
    }
}

fn ip(args: &[&str]) -> bool {
    Blocking::new("ip").args(args).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Who is connected: gateway and transport.
async fn connected(platform: &Platform) -> Vec<(String, String)> {
    let (status, stats) = platform.get("/api/internal/v1/stats").await;
    assert_eq!(status, 200, "{stats}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let connections = stats["gatewayConnections"]["connections"].as_array().unwrap();
    connections.iter().map(|connection| (text(&connection["gatewayId"]), text(&connection["transport"]))).collect()
}

/// A server that can be reached over the cable.
async fn served(namespace: &Namespace, dir: &Path) -> Served {
    write_certificate(dir);
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| dir.join(name).display().to_string());
    let listen = format!("{}:0", namespace.address(1));
    let settings = [("GATECAST_LISTEN", listen.as_str()), ("GATECAST_ADMIN_TOKEN", ADMIN)];
    let mut served = Served::start(&["--tls-cert", &cert, "--tls-key", &key], &dir.join("data"), &settings).await;
    served.platform.admin = Some(ADMIN.to_owned());
    served
}

/// Listeners at the other end of the cable, which have all heard an event.
async fn listeners(namespace: &Namespace, platform: &Platform, gateway: &Registered) -> [Process; 2] {
    let url = format!("https://{}", platform.address);
    let mut listeners = ["ws", "sse"].map(|transport| {
        let mut listener = namespace.inside(env!("CARGO_BIN_EXE_gatecast"));
        listener.args(["-k", "--url", &url, "listen", "--api-key", &gateway.token, "--transport", transport]);
        Process::spawn(&mut listener)
    });
    for listener in &mut listeners {
        listener.out.containing("---").await;
    }
    platform.publish(gateway.id, 1).await;
    for listener in &mut listeners {
        listener.out.containing("\"n\": 1").await;
    }
    listeners
}

/// Waits until the peers' kernels have acknowledged all that was sent: an acknowledgement may be late by 40 ms.
async fn all_acknowledged(platform: &Platform) {
    let acknowledged = async {
        loop {
            let sockets = Command::new("ss")
                .args(["-tnH", "sport", "="])
                .arg(format!(":{}", platform.address.port()))
                .output()
                .await;
            let sockets = String::from_utf8(sockets.unwrap().stdout).unwrap();
            let mut unsent = sockets.lines().map(|line| line.split_whitespace().nth(2).unwrap());
            if sockets.lines().count() >= 4 && unsent.all(|bytes| bytes == "0") {
                return;
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    };
    tokio::time::timeout(PATIENCE, acknowledged).await.expect("all is acknowledged");
}

#[tokio::test]
async fn websocket_and_sse_peers_whose_link_is_cut_are_gone_within_30_seconds_of_real_time() {
    let Some(namespace) = Namespace::new() else {
        return eprintln!("Not tested: no network namespace may be made here (it takes root).");
    };
    let dir = tempfile::tempdir().unwrap();
    let Served { process: _server, platform } = served(&namespace, dir.path()).await;
    let (busy, idle) = (platform.register("busy").await, platform.register("idle").await);
    let _listeners = [listeners(&namespace, &platform, &busy).await, listeners(&namespace, &platform, &idle).await];
    let mut before = connected(&platform).await;
    assert_eq!(before.len(), 4);
    all_acknowledged(&platform).await;
    // Later than their last sign of life.
    let cut = Instant::now();
    namespace.cut();
    // One gateway has something to be sent, the other has only its heartbeats.
    platform.publish(busy.id, 2).await;
    while !before.is_empty() {
        let now = connected(&platform).await;
        for gone in before.iter().filter(|peer| !now.contains(peer)) {
            let name = if gone.0 == idle.id.to_string() { "idle" } else { "busy" };
            println!("{name} over {}: gone {:?} after the cut", gone.1, cut.elapsed());
        }
        before = now;
        assert!(before.is_empty() || cut.elapsed() <= GONE_WITHIN + ASKING, "still there: {before:?}");
        tokio::time::sleep(ASK_EVERY).await;
    }
}
