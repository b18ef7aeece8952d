//! The gateway itself: it says what is wrong, and ends with 1.

use std::process::{Command, Output};

use super::case::Case;

/// Run the gateway on a case; what it gave, and the path of its file.
fn run(case: &str) -> (Output, String) {
    let folder = tempfile::tempdir().unwrap();
    let (text, variables) = Case::of(case).input(folder.path());
    let path = folder.path().join("gateway.toml");
    std::fs::write(&path, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sv2-gateway"));
    command.arg("--config").arg(&path).env_clear().env("NO_COLOR", "1").envs(variables);
    (command.output().unwrap(), path.display().to_string())
}

#[test]
fn a_broken_file_is_told_and_ends_the_gateway() {
    let case = "-mode = \"inline\"\n+mode = \"inlne\"\n-instance_id = 1\n+instance_id = -1";
    let (output, path) = run(case);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let expected = format!(
        "{path}: 2 mistakes\n\n\
         {path}:2:8: gateway.mode\n    \
         got       \"inlne\"\n    \
         expected  shadow, observe or inline\n    \
         mend      mode = \"inline\"\n\n\
         {path}:30:15: mining.instance_id\n    \
         got       the number -1\n    \
         expected  a whole number from 0 to 65535\n    \
         mend      instance_id = 1\n"
    );
    assert!(said.contains(&expected), "{said}");
    assert_eq!(said.matches("ERROR").count(), 1, "{said}");
}

#[test]
fn a_missing_file_and_an_unknown_variable_are_told() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sv2-gateway"));
    let output = command.args(["--config", "no/such.toml"]).env_clear().output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no/such.toml") && said.contains("No such file"), "{said}");

    let (output, _) = run("env VELDRA_GATEWAY__MOED=inline");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("environment VELDRA_GATEWAY__MOED"), "{said}");
    assert!(said.contains("write VELDRA_GATEWAY__MODE"), "{said}");
}
