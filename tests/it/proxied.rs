//! Real proxies from Debian in front of a real server: `deploy/nginx.conf` and `deploy/haproxy.cfg` let everything
//! through, and the doctor names what is wrong with bad ones.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::time::{Instant, timeout};

use crate::doctor::{Examined, doctor};
use crate::platform::{Platform, Registered};
use crate::process::{Process, Served};
use crate::tls::write_certificate;
use crate::wire::{End, PATIENCE, Sse, Ws, trusting_all};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Nginx,
    Haproxy,
}

const ADMIN: &str = "an-admin-token-for-tests";

/// A proxy, and the server behind it on plain HTTP.
struct Proxied {
    served: Process,
    /// The platform through the proxy.
    front: Platform,
    gateway: Registered,
    /// Stopped when this is dropped, before its files go.
    _proxy: Process,
    _dir: tempfile::TempDir,
}

impl Proxied {
    /// With the configuration of `deploy/`, after `change`.
    async fn start(kind: Kind, settings: &[(&str, &str)], change: impl Fn(String) -> String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = [
            &[("GATECAST_TLS", "off"), ("GATECAST_ADMIN_TOKEN", ADMIN), ("GATECAST_TRUSTED_PROXIES", "127.0.0.1")],
            settings,
        ]
        .concat();
        let mut served = Process::spawn(&mut Served::command(&[], &dir.path().join("data"), &settings));
        let backend: SocketAddr = served
            .err
            .until(|line| {
                line.split("Listening on http://").nth(1)?.split_whitespace().next()?.trim_end_matches('.').parse().ok()
            })
            .await;
        write_certificate(dir.path());
        let front = free_port().await;
        let mut proxy = proxy(kind, dir.path(), front, backend, change);
        let listens = async {
            while TcpStream::connect(front).await.is_err() {
                assert!(proxy.runs(), "{:#?}", proxy.err.so_far());
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, listens).await.expect("a proxy that listens");
        let front = Platform { admin: Some(ADMIN.to_owned()), ..Platform::new(front) };
        let gateway = front.register("one").await;
        Self { served, front, gateway, _proxy: proxy, _dir: dir }
    }

    async fn examined(&self, idle: &str) -> Examined {
        doctor(&self.front.url(""), &self.gateway.token, &["-k", "--idle", idle]).await
    }
}

/// A port that was free a moment ago, as neither proxy says which one it took: none of those that the kernel gives to whoever
/// asks for any (32,768 and more), as the tests beside this one do.
async fn free_port() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id() * 64 + NEXT.fetch_add(1, Ordering::Relaxed);
        let address = SocketAddr::from(([127, 0, 0, 1], 20_000 + u16::try_from(number % 10_000).unwrap()));
        if TcpListener::bind(address).await.is_ok() {
            return address;
        }
    }
}

fn proxy(kind: Kind, dir: &Path, front: SocketAddr, backend: SocketAddr, change: impl Fn(String) -> String) -> Process {
    let at = dir.display();
    let (path, places, program): (_, Vec<(&str, String)>, _) = match kind {
        Kind::Nginx => (
            "deploy/nginx.conf",
            vec![
                ("/run/nginx.pid", format!("{at}/nginx.pid")),
                ("error_log /var/log/nginx/error.log", "error_log stderr".to_owned()),
                (
                    "access_log /var/log/nginx/access.log",
                    format!(
                        "client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi; uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi; access_log off"
                    ),
                ),
                ("127.0.0.1:8080", backend.to_string()),
                ("listen 443 ssl", format!("listen {front} ssl")),
                ("/etc/ssl/gatecast", at.to_string()),
                ("worker_rlimit_nofile 65536", "worker_rlimit_nofile 1024".to_owned()),
                ("worker_connections 32768", "worker_connections 512".to_owned()),
            ],
            "/usr/sbin/nginx",
        ),
        Kind::Haproxy => (
            "deploy/haproxy.cfg",
            vec![
                ("log /dev/log local0", "log stderr local0".to_owned()),
                ("maxconn 32768", "maxconn 256".to_owned()),
                ("127.0.0.1:8080", backend.to_string()),
                ("bind :443", format!("bind {front}")),
                ("/etc/haproxy/gatecast.pem", format!("{at}/both.pem")),
            ],
            "/usr/sbin/haproxy",
        ),
    };
    let mut text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    for (from, to) in places {
        assert!(text.contains(from), "{path} says {from}");
        text = text.replace(from, &to);
    }
    let file = dir.join("proxy.conf");
    fs::write(&file, change(text)).unwrap();
    let pem = ["cert.pem", "key.pem"].map(|name| fs::read_to_string(dir.join(name)).unwrap());
    fs::write(dir.join("both.pem"), pem.concat()).unwrap();
    let mut command = Command::new(program);
    match kind {
        Kind::Nginx => command.args(["-e", "stderr", "-g", "daemon off; master_process off;", "-c"]).arg(&file),
        Kind::Haproxy => command.args(["-db", "-f"]).arg(&file),
    };
    Process::spawn(&mut command)
}

/// Each of these must be there to be replaced.
fn replaced(text: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    })
}

async fn everything_passes(kind: Kind) {
    let mut proxied = Proxied::start(kind, &[("WS_CONNECTION_TIMEOUT", "5s")], |text| text).await;
    let (front, gateway) = (proxied.front.clone(), proxied.gateway.clone());
    let clean = proxied.examined("6s").await;
    assert_eq!((clean.exit, &clean.report["findings"]), (0, &json!([])), "{clean:#?}");
    assert_eq!(clean.report["recommended"], "websocket");

    let mut ws = Ws::connect(front.address, &gateway.token, None).await.unwrap();
    let mut sse = Sse::connect(&front.http, front.address, &gateway.token, None).await.unwrap();
    assert_eq!(ws.message().await.unwrap()["type"], "connection.ack");
    assert_eq!(sse.event().await.unwrap().json()["type"], "connection.ack");
    let (_, opened, _) = front.poll(&gateway.token, "timeout=0").await.unwrap();
    let cursor = opened["lastEventId"].as_str().unwrap();
    let query = format!("timeout=20&lastEventId={cursor}");
    let (published, polled) = tokio::join!(front.publish(gateway.id, 7), front.poll(&gateway.token, &query));
    let (_, polled, _) = polled.unwrap();
    assert_eq!(polled["events"][0]["eventId"], published, "{polled}");
    assert_eq!(ws.message().await.unwrap()["eventId"], published);
    assert_eq!(sse.event().await.unwrap().json()["eventId"], published);

    // A revoked key: its codes pass.
    let mut revoked = Ws::connect(front.address, &front.token(gateway.id).await.1, None).await.unwrap();
    revoked.message().await.unwrap();
    let (_, tokens) = front.get(&format!("/api/v1/gateways/{}/tokens", gateway.id)).await;
    let other = tokens["list"].as_array().unwrap().iter().find(|token| token["id"] != gateway.token_id).unwrap();
    front.delete(&format!("/api/v1/gateways/{}/tokens/{}", gateway.id, other["id"].as_str().unwrap())).await;
    assert!(matches!(ended(&mut revoked).await, End::Closed(1008, _)));

    // A drain: so do its.
    proxied.served.signal("TERM").await;
    assert_eq!(ws.message().await.unwrap()["type"], "server.goodbye");
    assert!(matches!(ended(&mut ws).await, End::Closed(1000, reason) if reason == "server shutdown"));
    assert_eq!(sse.event().await.unwrap().json()["type"], "server.goodbye");
    assert_eq!(sse.event().await, None);
    assert!(proxied.served.ended().await.success());
}

async fn ended(ws: &mut Ws) -> End {
    loop {
        if let Err(end) = ws.message().await {
            return end;
        }
    }
}

#[tokio::test]
async fn everything_passes_through_nginx_as_deploy_has_it() {
    everything_passes(Kind::Nginx).await;
}

#[tokio::test]
async fn everything_passes_through_haproxy_as_deploy_has_it() {
    everything_passes(Kind::Haproxy).await;
}

#[tokio::test]
async fn a_poll_of_60_s_is_not_cut_by_the_proxies_of_deploy() {
    let held = async |kind| {
        let proxied = Proxied::start(kind, &[], |text| text).await;
        let (front, token) = (&proxied.front, &proxied.gateway.token);
        let (_, opened, _) = front.poll(token, "timeout=0").await.unwrap();
        let cursor = opened["lastEventId"].as_str().unwrap();
        let start = Instant::now();
        let (status, _, at) = front.poll(token, &format!("timeout=60&lastEventId={cursor}")).await.unwrap();
        assert_eq!((status, at.as_deref()), (204, Some(cursor)), "{kind:?}");
        assert!(start.elapsed().as_secs() >= 59, "{kind:?}");
    };
    tokio::join!(held(Kind::Nginx), held(Kind::Haproxy));
}

#[tokio::test]
async fn a_client_counts_by_the_address_that_a_trusted_proxy_sees_whatever_it_claims() {
    for kind in [Kind::Nginx, Kind::Haproxy] {
        let proxied = Proxied::start(kind, &[], |text| text).await;
        // A client of another address than the proxy's, which alone is trusted.
        let http = reqwest::Client::builder().tls_backend_preconfigured(trusting_all(&[b"http/1.1"]));
        let http = http.local_address(IpAddr::from([127, 0, 0, 2])).build().unwrap();
        let request = http.get(proxied.front.url("/api/internal/v1/poll/gateways/connect?timeout=0"));
        let claims = [("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=203.0.113.9")];
        let request = claims.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        assert_eq!(request.header("api-key", &proxied.gateway.token).send().await.unwrap().status(), 200);
        let (_, stats) = proxied.front.get("/api/internal/v1/stats").await;
        let peer = &stats["gatewayConnections"]["connections"][0]["peer"];
        assert_eq!(peer, "127.0.0.2", "{kind:?}: {stats}");
    }
}

#[tokio::test]
async fn the_doctor_names_what_is_wrong_with_real_proxies() {
    let nginx = |changes: &'static [(&str, &str)]| move |text: String| replaced(&text, changes);
    let quick = [("WS_CONNECTION_TIMEOUT", "5s")];
    let start = async |kind, change: &'static [(&'static str, &'static str)], idle| {
        let proxied = Proxied::start(kind, &quick, nginx(change)).await;
        proxied.examined(idle).await
    };
    let (no_upgrade, buffering, impatient, tunnel, server) = tokio::join!(
        start(
            Kind::Nginx,
            &[
                ("proxy_set_header Upgrade $http_upgrade;", ""),
                ("proxy_set_header Connection $connection_upgrade;", "")
            ],
            "2s"
        ),
        start(
            Kind::Nginx,
            &[("proxy_buffering off;", "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;")],
            "6s"
        ),
        start(Kind::Nginx, &[("proxy_read_timeout 75s;", "proxy_read_timeout 1s;")], "3s"),
        start(Kind::Haproxy, &[("timeout tunnel 75s", "timeout tunnel 1s")], "6s"),
        start(Kind::Haproxy, &[("timeout server 75s", "timeout server 1s")], "3s"),
    );
    let found = |examined: &Examined| -> Value {
        json!(["websocket", "sse", "long-poll"].map(|transport| json!(examined.codes(transport))))
    };
    assert_eq!(found(&no_upgrade), json!([["upgrade-stripped"], [], []]), "{no_upgrade:#?}");
    assert_eq!((no_upgrade.exit, &no_upgrade.report["recommended"]), (0, &json!("sse")));
    assert_eq!(found(&buffering), json!([[], ["stream-held-back"], []]), "{buffering:#?}");
    assert_eq!(found(&impatient), json!([["cut"], ["cut"], ["poll-cut"]]), "{impatient:#?}");
    assert!(impatient.detail("poll-cut").contains("504 from nginx"), "{impatient:#?}");
    assert_eq!(found(&tunnel), json!([["cut"], [], []]), "{tunnel:#?}");
    assert_eq!((tunnel.exit, &tunnel.report["recommended"]), (0, &json!("sse")));
    assert_eq!(found(&server), json!([[], ["cut"], ["poll-cut"]]), "{server:#?}");

    // `proxy_buffering on` alone is healed by the server's own X-Accel-Buffering.
    let healed = start(Kind::Nginx, &[("proxy_buffering off;", "proxy_buffering on;")], "6s").await;
    assert_eq!(found(&healed), json!([[], [], []]), "{healed:#?}");
}
