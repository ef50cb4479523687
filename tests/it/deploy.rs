//! What `deploy/` installs: under systemd, and in a container.

use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use tokio::net::UnixDatagram as Datagrams;
use tokio::process::Command;
use tokio::time::timeout;

use crate::process::{Process, Served, gatecast, run};
use crate::tls::write_certificate;
use crate::wire::PATIENCE;

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)).unwrap()
}

/// What follows `key` at the beginning of each line.
fn values<'t>(text: &'t str, key: &str) -> Vec<&'t str> {
    text.lines().filter_map(|line| line.strip_prefix(key)).map(str::trim).collect()
}

/// What the manager is told next, but for signs of life.
async fn told(manager: &Datagrams) -> String {
    let said = async {
        loop {
            let said = any(manager).await;
            if said != "WATCHDOG=1" {
                return said;
            }
        }
    };
    timeout(PATIENCE, said).await.expect("more than signs of life in time")
}

async fn any(manager: &Datagrams) -> String {
    let mut said = [0; 256];
    let length = timeout(PATIENCE, manager.recv(&mut said)).await.expect("something in time").unwrap();
    String::from_utf8(said[..length].to_vec()).unwrap()
}

#[tokio::test]
async fn systemd_is_told_of_each_step_by_a_path_or_an_abstract_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let name = format!("gatecast-test-{}", std::process::id());
    let by_name = SocketAddr::from_abstract_name(&name).unwrap();
    let sockets = [
        (path.display().to_string(), UnixDatagram::bind(&path).unwrap()),
        (format!("@{name}"), UnixDatagram::bind_addr(&by_name).unwrap()),
    ];
    for (number, (name, socket)) in sockets.into_iter().enumerate() {
        socket.set_nonblocking(true).unwrap();
        let manager = Datagrams::from_std(socket).unwrap();
        let mut command = Served::command(&["--dev"], &dir.path().join(number.to_string()), &[]);
        command.env("NOTIFY_SOCKET", &name).env("WATCHDOG_USEC", "200000");
        let mut served = Served::listening(Process::spawn(&mut command)).await;
        assert_eq!(told(&manager).await, "READY=1");
        for _ in 0..3 {
            assert_eq!(any(&manager).await, "WATCHDOG=1");
        }
        served.process.signal("HUP").await;
        assert_eq!((told(&manager).await, told(&manager).await), ("RELOADING=1".into(), "READY=1".into()));
        served.process.signal("TERM").await;
        assert_eq!(told(&manager).await, "STOPPING=1");
        assert_eq!(served.process.ended().await.code(), Some(0));
    }
}

#[tokio::test]
async fn without_a_watchdog_of_its_own_or_with_a_manager_that_is_gone_it_serves_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = Datagrams::bind(&path).unwrap();
    let mut command = Served::command(&["--dev"], &dir.path().join("one"), &[]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "1000").env("WATCHDOG_PID", "1");
    let served = Served::listening(Process::spawn(&mut command)).await;
    served.process.signal("TERM").await;
    let said = [any(&manager).await, any(&manager).await];
    assert_eq!(said, ["READY=1", "STOPPING=1"], "the watchdog is another process's");
    let mut command = Served::command(&["--dev"], &dir.path().join("two"), &[]);
    let served = Served::listening(Process::spawn(command.env("NOTIFY_SOCKET", dir.path().join("none")))).await;
    assert_eq!(served.platform.get("/ready").await.0, 200);
}

/// What `gatecast config` says of settings and a file.
async fn accepted(settings: &[(&str, &str)], args: &[&str]) {
    let said = run(&[&["config"], args].concat(), settings).await;
    assert_eq!(said.exit, 0, "{said:?}");
}

#[tokio::test]
async fn the_unit_and_the_image_name_what_there_is() {
    let (unit, image, env) = (read("gatecast.service"), read("Dockerfile"), read("gatecast.env"));
    let dir = tempfile::tempdir().unwrap();
    write_certificate(dir.path());
    let (file, env) = (dir.path().join("gatecast.env"), env.replace("/etc/gatecast", dir.path().to_str().unwrap()));
    fs::write(&file, &env).unwrap();
    let file = file.display().to_string();
    accepted(&[], &["--config", &file]).await;
    // What is commented out is an example and must hold too.
    fs::write(&file, env.replace("#GATECAST_ADMIN_TOKEN_FILE", "GATECAST_ADMIN_TOKEN_FILE")).unwrap();
    let said = run(&["config", "--config", &file], &[]).await;
    assert!(said.err.contains("admin-token cannot be read") && said.err.contains("1 fault"), "{said:?}");
    for setting in values(&unit, "Environment=").into_iter().chain(values(&image, "ENV ")) {
        let (name, value) = setting.split_once('=').unwrap();
        accepted(&[(name, value)], &["--dev"]).await;
    }
    let binary = Path::new(env!("CARGO_BIN_EXE_gatecast")).file_name().unwrap().to_str().unwrap();
    let installed = format!("/usr/local/bin/{binary}");
    assert_eq!(values(&unit, "ExecStart="), [format!("{installed} serve --config /etc/gatecast/gatecast.env")]);
    assert_eq!(values(&image, "ENTRYPOINT "), [format!("[\"{installed}\"]")]);
    assert_eq!(values(&image, "CMD "), ["[\"serve\"]"]);
    let copied = values(&image, "COPY --from=build ");
    assert!(copied.contains(&format!("/src/target/release/{binary} {installed}").as_str()), "{copied:?}");
    assert_eq!(values(&image, "USER "), ["10001:10001"]);
    assert_eq!(values(&image, "VOLUME "), ["/var/lib/gatecast"]);
    assert_eq!(values(&unit, "RestartPreventExitStatus="), ["64 65"]);
    // Debian's /bin/kill is in procps, which a small system lacks: the reload failed there.
    assert!(values(&unit, "ExecReload=").iter().all(|command| command.starts_with("/bin/sh ")), "{unit}");
}

#[tokio::test]
async fn systemd_finds_no_fault_in_the_unit_and_little_that_it_could_reach() {
    let dir = tempfile::tempdir().unwrap();
    let unit = dir.path().join("gatecast.service");
    fs::write(&unit, read("gatecast.service").replace("/usr/local/bin/gatecast", env!("CARGO_BIN_EXE_gatecast")))
        .unwrap();
    // Of ten, in tenths; a unit that says nothing has 9.6.
    for args in [&["verify", "--man=no"][..], &["security", "--offline=true", "--threshold=15", "--no-pager"]] {
        let looked = Command::new("systemd-analyze").args(args).arg(&unit).output().await;
        let looked = looked.expect("systemd-analyze is missing: run scripts/setup-tests");
        let said = String::from_utf8_lossy(&looked.stdout).into_owned() + &String::from_utf8_lossy(&looked.stderr);
        assert!(looked.status.success(), "{said}");
        // A misspelt key is a warning, and of this unit.
        assert!(args[0] != "verify" || !said.contains("gatecast.service:"), "{said}");
    }
}

/// A directory of others' that this user may read and nobody write to, with the binary.
fn installed(dir: &Path) -> PathBuf {
    let (root, binary) = (dir.join("root"), dir.join("root/gatecast"));
    fs::create_dir(&root).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_gatecast"), &binary).unwrap();
    for (path, mode) in [(dir, 0o755), (root.as_path(), 0o555), (binary.as_path(), 0o555)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    binary
}

#[tokio::test]
async fn another_user_needs_to_write_nothing_but_the_data_directory() {
    const NOBODY: u32 = 65_534;
    let dir = tempfile::tempdir().unwrap();
    let (binary, data) = (installed(dir.path()), dir.path().join("data"));
    fs::create_dir(&data).unwrap();
    chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--bounding-set=-all"]);
    command.arg(&binary).args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&data);
    command.current_dir(binary.parent().unwrap());
    let clean = gatecast(&[], &[]);
    for (name, value) in clean.as_std().get_envs().filter(|(_, value)| value.is_none()) {
        assert!(value.is_none());
        command.env_remove(name);
    }
    let mut served = Served::listening(Process::spawn(&mut command)).await;
    let status = fs::read_to_string(format!("/proc/{}/status", served.process.pid())).unwrap();
    assert!(status.lines().any(|line| line.starts_with("Uid:\t65534\t65534\t65534")), "{status}");
    let gateway = served.platform.register("one").await;
    served.platform.publish(gateway.id, 1).await;
    served.process.signal("TERM").await;
    assert_eq!(served.process.ended().await.code(), Some(0));
}
