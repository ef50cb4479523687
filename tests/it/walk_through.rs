//! Documents with commands: run as they stand, and what they promise compared with what comes.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tokio::process::Command;

use crate::app::App;
use crate::process::{Process, run};
use crate::tls::write_certificate;

/// The blocks of a document that are fenced as one of these.
fn blocks<'d>(document: &'d str, kinds: &[&str]) -> Vec<(&'d str, &'d str)> {
    let fenced = document.split("```").skip(1).step_by(2);
    let blocks = fenced.filter_map(|block| block.split_once('\n'));
    blocks.filter(|(kind, _)| kinds.contains(kind)).collect()
}

/// The first of `said` from `from` on that is as promised, where `…` stands for anything; the line after it.
fn find(said: &[String], from: usize, promised: &str) -> Option<usize> {
    let is_so = |line: &String| {
        let mut rest = line.as_str();
        promised.split('…').map(str::trim_end).all(|part| match rest.find(part.trim_start()) {
            Some(at) => {
                rest = &rest[at + part.trim_start().len()..];
                true
            }
            None => false,
        })
    };
    said.iter().skip(from).position(is_so).map(|at| from + at + 1)
}

fn read(document: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).unwrap()
}

/// A shell with these commands, for which `gatecast` is the binary that is tested.
fn bash(commands: &str) -> Command {
    let binary = Path::new(env!("CARGO_BIN_EXE_gatecast")).parent().unwrap();
    let path = std::env::split_paths(&std::env::var_os("PATH").unwrap()).collect::<Vec<_>>();
    let path = std::env::join_paths([binary.to_owned()].into_iter().chain(path)).unwrap();
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", commands]).env("PATH", path);
    bash
}

/// Runs the `bash` blocks of a document in order, in one shell, against a server of its own, and finds the lines of its
/// `text` blocks, in order, in what is said.
async fn replay(document: &str) {
    let app = App::start().await;
    let document = read(document);
    let commands: Vec<_> = blocks(&document, &["bash"]).into_iter().map(|(_, block)| block).collect();
    let dir = tempfile::tempdir().unwrap();
    let mut bash = bash(&format!("exec 2>&1\n{}", commands.concat()));
    let mut bash = Process::spawn(bash.current_dir(dir.path()).env("GATECAST_URL", app.url("")));
    let ended = bash.ended().await;
    let said = bash.out.whole().await;
    assert!(ended.success(), "{said:#?}");
    let mut from = 0;
    let promised = blocks(&document, &["text"]).into_iter().flat_map(|(_, block)| block.lines());
    let promised: Vec<_> = promised.collect();
    assert!(!promised.is_empty(), "a document that promises nothing");
    for line in promised {
        from = find(&said, from, line).unwrap_or_else(|| panic!("{line:?} in {said:#?} from line {from}"));
    }
}

#[tokio::test]
async fn the_document_on_event_types_does_what_it_says() {
    replay("docs/event-types.md").await;
}

#[tokio::test]
async fn the_document_on_operations_does_what_it_says() {
    replay("docs/operations.md").await;
}

/// Commands of a document whose server is ours, in shells that know what the reader has kept of earlier answers.
struct Reader {
    app: App,
    kept: BTreeMap<&'static str, String>,
    listeners: Vec<Process>,
}

impl Reader {
    async fn new() -> Self {
        Self { app: App::start().await, kept: BTreeMap::new(), listeners: Vec::new() }
    }

    fn begin(&self, commands: &str) -> Process {
        let commands = commands.replace("https://localhost:8443", &self.app.url(""));
        Process::spawn(bash(&commands).env("GATECAST_URL", self.app.url("")).envs(&self.kept))
    }

    /// Runs commands to their end: what they say.
    async fn run(&self, commands: &str) -> String {
        let mut shell = self.begin(commands);
        let ended = shell.ended().await;
        let said = shell.out.whole().await.join("\n");
        assert!(ended.success(), "{commands}: {said}");
        said
    }

    /// The same, whose last line is JSON.
    async fn answer(&self, commands: &str) -> Value {
        let said = self.run(commands).await;
        let json = said.find(['{', '[']).unwrap_or_else(|| panic!("{commands}: {said}"));
        serde_json::from_str(&said[json..]).unwrap_or_else(|error| panic!("{commands}: {error}: {said}"))
    }

    /// Begins each line that listens, and waits until it is told so.
    async fn listen(&mut self, lines: &str) {
        for line in lines.lines() {
            // The one client that is not ours to install: a WebSocket like any other.
            let line =
                match line.strip_prefix("wscat -n -c wss://localhost:8443/api/internal/v1/ws/gateways/connect -H ") {
                    Some(header) => {
                        format!("gatecast -k listen --transport ws {}", header.replace("api-key: ", "--api-key="))
                    }
                    None => line.to_owned(),
                };
            // In the background they would outlive their shell.
            let mut listener = self.begin(&format!("exec {}", line.replace(" &", "")));
            let is_acked = |line: &str| line.contains("connection.ack") || line.contains("Received connection ACK");
            listener.out.until(|line| is_acked(line).then_some(())).await;
            self.listeners.push(listener);
        }
    }

    /// Everyone who listens is told of this.
    async fn all_hear(&mut self, part: &str) {
        for listener in &mut self.listeners {
            listener.out.containing(part).await;
        }
    }
}

#[tokio::test]
async fn the_quickstart_by_hand_does_what_it_says() {
    let document = read("docs/quickstart.md");
    let blocks: Vec<_> = blocks(&document, &["bash"]).into_iter().map(|(_, block)| block).collect();
    let [start, register, token, connect, deploy, catch_up, see, poll] = blocks[..] else { panic!("{blocks:#?}") };
    assert!(start.lines().eq([
        "cargo build --release",
        "export PATH=\"$PWD/target/release:$PATH\"",
        "gatecast serve --dev"
    ]));
    let mut reader = Reader::new().await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let id = text(&reader.answer(register).await["id"]);
    reader.kept.insert("ID", id);
    let token = text(&reader.answer(token).await["token"]);
    reader.kept.insert("TOKEN", token);
    assert_eq!(connect.lines().count(), 4);
    reader.listen(connect).await;
    let first = text(&reader.answer(deploy).await[0]["eventId"]);
    reader.all_hear(&first).await;
    reader.listeners.clear();
    let missed = text(&reader.answer(deploy).await[0]["eventId"]);
    reader.kept.insert("EVENT_ID", first);
    reader.listen(catch_up).await;
    reader.all_hear(&missed).await;
    let seen = reader.run(see).await;
    assert!(seen.contains("\"totalActive\":") && seen.contains("\"pagination\":"), "{seen}");
    reader.listeners.clear();
    let mut polls = reader.begin(poll);
    polls.out.containing("connection.ack").await;
    let last = text(&reader.answer(deploy).await[0]["eventId"]);
    polls.out.containing(&last).await;
}

#[tokio::test]
async fn the_readme_does_what_it_says() {
    let document = read("README.md");
    let [(_, block)] = blocks(&document, &["bash"])[..] else { panic!("one block") };
    let lines: Vec<_> = block.lines().collect();
    let (make, hear) = lines.split_at(lines.len() - 3);
    let (listen, publish) = hear.split_at(2);
    let mut reader = Reader::new().await;
    let said = reader.run(&format!("{}\necho \"$ID $TOKEN\"", make.join("\n"))).await;
    let (id, token) = said.lines().last().unwrap().split_once(' ').unwrap();
    assert_eq!((id.len(), token.len()), (36, 43), "{said}");
    reader.kept.extend([("ID", id.to_owned()), ("TOKEN", token.to_owned())]);
    reader.listen(&listen.join("\n")).await;
    let stored = reader.run(&publish.join("\n")).await;
    reader.all_hear(stored.split("Stored event ").nth(1).unwrap().split_whitespace().next().unwrap()).await;
}

#[tokio::test]
async fn the_doctor_of_the_document_on_transports_is_understood() {
    let document = read("docs/transports.md");
    let [(_, command)] = blocks(&document, &["bash"])[..] else { panic!("one block") };
    let (app, dir) = (App::start().await, tempfile::tempdir().unwrap());
    let gateway = app.register("one").await;
    std::fs::write(dir.path().join("key.txt"), &gateway.token).unwrap();
    let command = command.trim().replace("https://events.example.com", &app.url(""));
    // It would take 70 s to look for idle time-outs.
    let mut doctor = bash(&format!("{command} --insecure --idle 2s || [ $? = 1 ]"));
    let mut doctor = Process::spawn(doctor.current_dir(dir.path()));
    doctor.out.containing("Recommended: ").await;
    assert!(doctor.ended().await.success(), "{:#?}", doctor.out.so_far());
}

#[tokio::test]
async fn settings_and_bodies_in_documents_are_taken() {
    let document = read("docs/security.md");
    let [(_, body)] = blocks(&document, &["json"])[..] else { panic!("one body") };
    let app = App::start().await;
    let gateway = app.register("one").await;
    let path = format!("/api/v1/gateways/{}", gateway.id);
    let (status, answer) = app.call(reqwest::Method::PUT, &path, Some(serde_json::from_str(body).unwrap())).await;
    assert_eq!(status, 200, "{answer}");
    let document = read("docs/metrics.md");
    let [(_, variables)] = blocks(&document, &[""])[..] else { panic!("one list of variables") };
    // An authority that is there.
    let dir = tempfile::tempdir().unwrap();
    write_certificate(dir.path());
    let authority = dir.path().join("cert.pem");
    let variables = variables.replace("/etc/gatecast/collector-ca.pem", authority.to_str().unwrap());
    let variables: Vec<_> = variables.lines().map(|line| line.split_once('=').unwrap()).collect();
    let said = run(&["config", "--dev"], &variables).await;
    assert_eq!(said.exit, 0, "{said:?}");
    for (name, _) in variables {
        assert!(said.out.contains(name), "{name}: {}", said.out);
    }
    let [(_, scraping)] = blocks(&document, &["yaml"])[..] else { panic!("one configuration") };
    let token = dir.path().join("token");
    std::fs::write(&token, "secret").unwrap();
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/alerts.yml"), dir.path().join("alerts.yml"))
        .unwrap();
    let scraping = scraping.replace("/etc/prometheus/gatecast-admin-token", token.to_str().unwrap());
    std::fs::write(dir.path().join("prometheus.yml"), scraping).unwrap();
    let mut promtool = Command::new("promtool");
    let checked = promtool.args(["check", "config", "prometheus.yml"]).current_dir(dir.path()).output().await.unwrap();
    assert!(checked.status.success(), "{checked:?}");
}

/// Each kind of block of each document, and what of it is run or read by a test.
#[test]
fn no_document_has_a_block_that_no_test_looks_at() {
    let looked_at = BTreeMap::from([
        ("README.md", vec!["bash", "console"]),
        ("docs/event-types.md", vec!["bash", "text"]),
        ("docs/metrics.md", vec!["", "yaml"]),
        // The drop-in is installed by scripts/deploy-proof.
        ("docs/operations.md", vec!["bash", "ini", "text"]),
        ("docs/quickstart.md", vec!["bash"]),
        ("docs/security.md", vec!["json"]),
        ("docs/transports.md", vec!["bash"]),
    ]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    let docs = docs.map(|name| format!("docs/{}", name.to_str().unwrap())).filter(|name| name.ends_with(".md"));
    for name in docs.chain(["README.md".to_owned(), "CONTRIBUTING.md".to_owned()]) {
        let document = read(&name);
        let fences = document.lines().map(str::trim).filter_map(|line| line.strip_prefix("```"));
        let mut kinds: Vec<_> = fences.step_by(2).collect();
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds, looked_at.get(name.as_str()).cloned().unwrap_or_default(), "{name}");
    }
    for script in read("README.md").lines().filter_map(|line| line.strip_prefix("$ ")) {
        let script = script.split_whitespace().next().unwrap();
        assert!(read("scripts/check").contains(script), "{script} is not run by scripts/check");
    }
}
