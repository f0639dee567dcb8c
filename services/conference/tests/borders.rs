//! The borders between crates, held by a tool instead of a promise (`services/ARCHITECTURE.md`, code map).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

/// What each crate may depend on outside of tests. A new line here is a decision, not a formality.
const ALLOWED: [(&str, &[&str]); 6] = [
    ("plenary-model", &["bytes"]),
    ("plenary-room-core", &["plenary-model", "bytes", "thiserror"]),
    (
        "plenary-media-core",
        &[
            "plenary-model",
            "bytes",
            "thiserror",
            "aws-lc-rs",
            "dimpl",
            "sctp-proto",
            "rtc",
            "rustc-hash",
            "subtle",
            "prost",
        ],
    ),
    ("plenary-recording", &["plenary-model", "bytes", "serde", "serde_json", "thiserror"]),
    (
        "plenary-protocol",
        &[
            "plenary-model",
            "base64",
            "livekit-protocol",
            "prost",
            "jsonwebtoken",
            "serde",
            "serde_json",
            "secrecy",
            "thiserror",
        ],
    ),
    (
        "plenary-cluster",
        &["plenary-model", "aws-lc-rs", "bytes", "futures-util", "prost", "redis", "thiserror", "tokio", "tracing"],
    ),
];

#[test]
fn crates_depend_on_nothing_behind_their_border() {
    let dependencies = normal_dependencies();
    for (name, allowed) in ALLOWED {
        let allowed: BTreeSet<_> = allowed.iter().map(|one| (*one).to_owned()).collect();
        let actual = &dependencies[name];
        let foreign: Vec<_> = actual.difference(&allowed).collect();
        assert!(foreign.is_empty(), "{name} depends on {foreign:?}");
    }
}

#[test]
fn only_named_files_touch_what_is_dangerous() {
    let allowed: [(&str, &[&str]); 3] = [
        ("unsafe {", &["services/conference/src/media_router/socket.rs"]),
        ("actix_web_actors", &["services/conference/src/edge/ws.rs"]),
        ("getrandom::", &["services/conference/src/ids.rs"]),
    ];
    let root = root();
    let sources: Vec<_> =
        ["services", "shared", "loadtest"].iter().flat_map(|top| rust_files(&root.join(top))).collect();
    assert!(sources.len() > 20, "the sources were not found");
    for (word, places) in allowed {
        for file in &sources {
            let name = file.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
            let is_source = name.contains("/src/");
            let text = std::fs::read_to_string(file).unwrap();
            assert!(
                !is_source || !text.contains(word) || places.iter().any(|place| name.starts_with(place)),
                "`{word}` stands in {name}"
            );
        }
    }
}

fn normal_dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| {
            let normal = package["dependencies"].as_array().unwrap().iter().filter(|one| one["kind"].is_null());
            (text(&package["name"]), normal.map(|one| text(&one["name"])).collect())
        })
        .collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("node_modules") && !path.ends_with("target") {
                found.extend(rust_files(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}
