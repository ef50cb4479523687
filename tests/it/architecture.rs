//! The dependency graph is the architecture: a new edge fails here.

use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn sources(dir: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut dirs = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(dir)];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

#[test]
fn storage_and_transports_do_not_know_each_other_nor_the_server() {
    for (manifest, strangers) in [
        ("storage/Cargo.toml", ["gatecast-transports", "warp", "hyper", "tungstenite"]),
        ("transports/Cargo.toml", ["gatecast-storage", "sled", "gatecast =", "redis"]),
    ] {
        let manifest = read(manifest);
        for stranger in strangers {
            let named = manifest.lines().any(|line| line.trim_start().starts_with(stranger));
            assert!(!named, "{stranger}");
        }
    }
}

#[test]
fn nobody_but_its_engine_names_sled() {
    for (path, source) in sources("src").into_iter().chain(sources("transports/src")) {
        assert!(!source.contains("sled::"), "{path}");
    }
    for (path, source) in sources("storage/src") {
        let is_engine = path.contains("/sled/") || path.ends_with("/sled.rs");
        assert!(is_engine || !source.contains("::sled::"), "{path}");
    }
}

#[test]
fn only_the_api_the_dashboard_the_hub_and_the_server_name_warp() {
    for (path, source) in sources("src") {
        let may = ["/api/", "/api.rs", "/dashboard/", "/server", "/hub.rs"].iter().any(|part| path.contains(part));
        assert!(may || !source.contains("warp::"), "{path}");
    }
}

/// `it::module::name`, `sim::module::name` or either without the name, as documents name tests.
fn named_tests(document: &str) -> Vec<String> {
    let quoted = document.split('`').skip(1).step_by(2);
    quoted.filter(|name| name.starts_with("it::") || name.starts_with("sim::")).map(Into::into).collect()
}

#[test]
fn every_test_that_a_document_names_exists() {
    for document in [
        "ARCHITECTURE.md",
        "docs/requirements.md",
        "docs/durability.md",
        "docs/operations.md",
        "docs/security.md",
        "docs/concepts.md",
        "docs/migrating.md",
    ] {
        let names = named_tests(&read(document));
        assert!(!names.is_empty(), "{document}");
        for name in names {
            let mut parts = name.split("::");
            let (suite, module) = (parts.next().unwrap(), parts.next().unwrap());
            let source = read(&format!("tests/{suite}/{module}.rs"));
            let test = parts.next().is_none_or(|test| source.contains(&format!("fn {test}(")));
            assert!(test, "{document} names {name}");
        }
    }
}
