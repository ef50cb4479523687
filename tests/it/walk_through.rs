//! Documents with commands: run as they stand, and what they promise compared with what comes.

use std::path::Path;

use tokio::process::Command;

use crate::app::App;
use crate::process::Process;

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

/// Runs the `bash` blocks of a document in order, in one shell, against a server of its own, and finds the lines of its
/// `text` blocks, in order, in what is said.
async fn replay(document: &str) {
    let app = App::start().await;
    let document = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).unwrap();
    let commands: Vec<_> = blocks(&document, &["bash"]).into_iter().map(|(_, block)| block).collect();
    let binary = Path::new(env!("CARGO_BIN_EXE_gatecast")).parent().unwrap();
    let path = std::env::join_paths(
        [binary.to_owned()].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let dir = tempfile::tempdir().unwrap();
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", &format!("exec 2>&1\n{}", commands.concat())]);
    bash.current_dir(dir.path()).env("PATH", path.unwrap()).env("GATECAST_URL", app.url(""));
    let mut bash = Process::spawn(&mut bash);
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
