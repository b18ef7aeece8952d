//! `config check`, `config show` and `doctor` as their user meets them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    /// The gateway's tests' own configuration with some lines replaced, in a file of mode 0600.
    fn config(&self, replaced: &[(&str, &str)]) -> PathBuf {
        let base =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/config/base.toml");
        let mut text = fs::read_to_string(base).unwrap();
        for (from, to) in replaced {
            assert!(text.contains(from), "{from}");
            text = text.replacen(from, to, 1);
        }
        let path = self.0.path().join("gateway.toml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        path
    }
}

/// What `reservegrid` says to these words, and its status.
fn say(words: &[&str], file: &Path, environment: &[(&str, &str)]) -> (String, i32) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reservegrid"));
    command.args(words).arg(file).env_clear().envs(environment.iter().copied());
    let output = command.output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (String::from_utf8(output.stdout).unwrap(), output.status.code().unwrap())
}

const CHECK: [&str; 3] = ["config", "check", "--file"];
const SHOW: [&str; 4] = ["config", "show", "--effective", "--file"];

/// Goal: the same text as the gateway gives: both print what the library says of this file.
#[test]
fn mistakes_are_told_as_the_gateway_tells_them() {
    let folder = Folder::new();
    let path =
        folder.config(&[("\"inline\"", "\"inlne\""), ("instance_id = 1", "instance_id = -1")]);
    let (said, status) = say(&CHECK, &path, &[]);
    let none = gateway::config::surroundings::Surroundings::none();
    let refusal = gateway::config::read(&path, &none).unwrap_err();
    assert_eq!(refusal.errors.len(), 2);
    assert!(said.starts_with(&refusal.to_string()), "{said}");
    assert!(said.contains("Warnings:") && said.contains("plain http to 127.0.0.1"), "{said}");
    assert_eq!(status, 1);
    assert_eq!(say(&SHOW, &path, &[]).1, 1);
}

#[test]
fn a_good_file_is_accepted_with_what_is_in_force() {
    let folder = Folder::new();
    let path = folder.config(&[]);
    let (said, status) = say(&CHECK, &path, &[("VELDRA_TIMING__NONCE_EXPIRE_SECS", "90")]);
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("accepted; of 51 keys 19 are from the file, 1 from the"), "{said}");
    assert!(said.contains("auth.max_worker_id_bytes = 512: 255 bytes"), "{said}");
    assert!(!said.contains("mode 0"), "{said}");

    fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    let (said, status) = say(&CHECK, &path, &[]);
    assert_eq!(status, 0);
    assert!(said.contains("secrets in a file of mode 0644"), "{said}");
}

#[test]
fn all_51_keys_are_shown_with_their_origin_and_without_secrets() {
    let folder = Folder::new();
    let path = folder.config(&[]);
    let environment = [("VELDRA_GATEWAY__HTTP_API_KEY", "another-key-of-tests")];
    let (table, status) = say(&SHOW, &path, &environment);
    assert_eq!((table.lines().count(), status), (51, 0), "{table}");
    let line = |key: &str| {
        let line = table.lines().find(|line| line.split_whitespace().next() == Some(key));
        line.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("gateway.mode"), "gateway.mode file \"inline\"");
    assert_eq!(line("gateway.http_api_key"), "gateway.http_api_key env \"***\"");
    assert_eq!(line("gateway.upstream_auth"), "gateway.upstream_auth default -");
    assert_eq!(line("timing.setup_timeout_ms"), "timing.setup_timeout_ms default 10000");
    assert!(line("auth.allowlist").contains("alice"), "{table}");

    let mut words = vec!["config", "show", "--effective", "--json", "--file"];
    let (json, status) = say(&words, &path, &environment);
    let list: Vec<Value> = serde_json::from_str(&json).unwrap();
    assert_eq!((list.len(), status), (51, 0));
    let key = list.iter().find(|entry| entry["key"] == "gateway.http_api_key").unwrap();
    assert_eq!(key["variable"], "VELDRA_GATEWAY__HTTP_API_KEY");
    assert_eq!(key["value"], "***");
    let shards = list.iter().find(|entry| entry["key"] == "cores.shards").unwrap();
    assert_eq!(shards["value"], serde_json::json!([0]));

    words.retain(|word| *word != "--effective");
    let (json, _) = say(&words, &path, &environment);
    let list: Vec<Value> = serde_json::from_str(&json).unwrap();
    assert_eq!(list.len(), 19, "what was given: {json}");
    for secret in ["hunter2", "another-key-of-tests", "29CsU7iymhV6", "dGhlIHNlY3JldCBv"] {
        assert!(!table.contains(secret) && !json.contains(secret), "{secret}");
    }
}

#[test]
fn the_doctor_looks_at_everything_and_fails_on_a_taken_port() {
    let folder = Folder::new();
    let data_dir = folder.0.path().join("data");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap();
    let network = format!(
        "network = \"regtest\"\nmax_connections = 100\ndata_dir = \"{}\"\n\
         http_listen_addr = \"127.0.0.1:0\"",
        data_dir.display()
    );
    let listen = |port: u16| format!("listen_addr = \"127.0.0.1:{port}\"");
    let config = |port: u16| {
        folder.config(&[
            ("listen_addr = \"127.0.0.1:3333\"", &listen(port)),
            ("network = \"regtest\"", &network),
        ])
    };
    let doctor = ["doctor", "--config"];
    let (said, status) = say(&doctor, &config(0), &[]);
    assert_eq!(status, 0, "{said}");
    for what in [
        "configuration",
        "kernel",
        "io_uring",
        "descriptors",
        "locked memory",
        "clock",
        "cores",
        "gateway.listen_addr",
        "gateway.http_listen_addr",
        "gateway.data_dir",
    ] {
        let lines = said.lines().filter(|line| line[6..].starts_with(&format!("{what}: ")));
        assert_eq!(lines.count(), 1, "{what}: {said}");
    }
    assert!(!data_dir.exists(), "nothing is left behind");
    let rest: Vec<_> = fs::read_dir(folder.0.path()).unwrap().collect();
    assert_eq!(rest.len(), 1, "{rest:?}");

    let (said, status) = say(&doctor, &config(taken.port()), &[]);
    assert_eq!(status, 1, "{said}");
    let line = said.lines().find(|line| line.contains("gateway.listen_addr")).unwrap();
    assert!(line.starts_with("fail") && line.contains("taken"), "{said}");

    let broken = folder.config(&[("\"inline\"", "\"inlne\"")]);
    let (said, status) = say(&doctor, &broken, &[]);
    assert_eq!(status, 1);
    assert!(said.contains("fail  configuration: 1 mistakes"), "{said}");
}
