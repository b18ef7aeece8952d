//! The real programs together: a short demo has to be healthy by its own judgement, which includes
//! that the backend credited exactly what the gateway accepted.
//!
//! `cargo test --workspace` builds all programs before it runs any test. With `-p reservegrid`
//! alone they are whatever was built last: `cargo build --workspace --bins` first.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

#[test]
fn a_short_demo_is_healthy() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_reservegrid"))
        .args(["demo", "--screen", "none", "--miners", "12"])
        .args(["--duration", "12", "--block-interval-ms", "4000", "--folder"])
        .arg(folder.path().join("demo"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}\n{errors}");
    let summary = said.lines().find(|line| line.starts_with("summary: ")).unwrap();
    assert!(summary.contains("rejected: "), "{summary}");
}
