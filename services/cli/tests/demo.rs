//! How a demo starts, watches and stops its programs, with stand-ins for them: what a real program
//! does wrong cannot be ordered, a stand-in can.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PROGRAMS: [&str; 5] =
    ["reference-backend", "template-manager", "pool-verifier", "sv2-gateway", "loadgen"];

struct Stage {
    root: tempfile::TempDir,
}

impl Stage {
    /// A folder with all stand-ins; `behaviours` are pairs of program and behaviour.
    fn new(behaviours: &[(&str, &str)]) -> Stage {
        let root = tempfile::tempdir().unwrap();
        let programs = root.path().join("programs");
        fs::create_dir(&programs).unwrap();
        // Tests lie in target/PROFILE/deps, examples in target/PROFILE/examples.
        let own = std::env::current_exe().unwrap();
        let fake = own.parent().unwrap().parent().unwrap().join("examples/fake_program");
        assert!(fake.is_file(), "cargo builds examples with the tests: {}", fake.display());
        for program in PROGRAMS {
            symlink(&fake, programs.join(program)).unwrap();
        }
        for (program, behaviour) in behaviours {
            fs::write(programs.join(format!("{program}.behaviour")), behaviour).unwrap();
        }
        Stage { root }
    }

    fn programs(&self) -> PathBuf {
        self.root.path().join("programs")
    }

    fn folder(&self) -> PathBuf {
        self.root.path().join("folder")
    }

    fn command(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reservegrid"));
        command
            .args(["demo", "--screen", "plain", "--programs"])
            .arg(self.programs())
            .args(flags)
            .env("TMPDIR", self.root.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn in_folder(&self) -> Command {
        self.command(&["--folder", self.folder().to_str().unwrap()])
    }

    /// Process numbers of the first `count` programs, which they write as the first thing in
    /// their logs; waits until they have.
    fn pids(&self, count: usize) -> Vec<i32> {
        let began = Instant::now();
        PROGRAMS[..count]
            .iter()
            .map(|program| {
                loop {
                    let log = self.folder().join(format!("{program}.log"));
                    let log = fs::read_to_string(log).unwrap_or_default();
                    let first = log.split_once('\n').and_then(|(line, _)| line.split_once(' '));
                    match first {
                        Some((name, pid)) if name == *program => break pid.parse().unwrap(),
                        _ => assert!(began.elapsed() < Duration::from_secs(10), "{program}"),
                    }
                    std::thread::yield_now();
                }
            })
            .collect()
    }

    fn log(&self, program: &str) -> String {
        fs::read_to_string(self.folder().join(format!("{program}.log"))).unwrap()
    }
}

/// Reads lines until one contains `text`.
fn wait_for(reader: &mut impl BufRead, text: &str) {
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0, "the output ended without {text:?}");
    }
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
}

fn lives(pid: i32) -> bool {
    // A zombie has ended; it only waits for its parent, or for the system, to notice.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// Waits until every one of `pids` has ended.
fn wait_gone(pids: &[i32]) {
    let began = Instant::now();
    while pids.iter().any(|pid| lives(*pid)) {
        assert!(began.elapsed() < Duration::from_secs(10), "still running: {pids:?}");
        std::thread::yield_now();
    }
}

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn runs_for_its_time_and_leaves_nothing_behind() {
    let stage = Stage::new(&[]);
    let flags = ["--duration", "3", "--block-interval-ms", "1000"];
    let output = stage.command(&flags).output().unwrap();
    let (said, errors) = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}{errors}");
    let ready = said.lines().take(5).map(|line| line.split(' ').next().unwrap());
    assert_eq!(ready.collect::<Vec<_>>(), PROGRAMS);
    assert!(said.contains("miners connect to stratum2+tcp://127.0.0.1:"), "{said}");
    assert!(said.contains("connections 24"), "{said}");
    assert!(said.contains("42 shares accepted, rejected: stale_share 1"), "{said}");
    let left: Vec<_> =
        fs::read_dir(stage.root.path()).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(left, [stage.programs()], "the temporary folder is removed after a good run");
}

#[test]
fn an_unhealthy_run_fails_and_keeps_its_files() {
    let stage = Stage::new(&[]);
    // The stand-in's chain makes two blocks a second, so ten a second are missed.
    let flags = ["--duration", "2", "--block-interval-ms", "100"];
    let output = stage.command(&flags).output().unwrap();
    let (said, errors) = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}{errors}");
    assert!(errors.contains("at least 19 were expected"), "{errors}");
    let kept = said.lines().rev().find_map(|line| line.strip_prefix("files are in ")).unwrap();
    assert!(Path::new(kept).join("sv2-gateway.toml").is_file());
    assert!(kept.contains("/reservegrid-demo-"), "{kept}");
}

#[test]
fn stops_in_order_on_sigterm() {
    let stage = Stage::new(&[]);
    let mut child = stage.in_folder().spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    wait_for(&mut output, "shares 42");
    let pids = stage.pids(5);
    signal(&child, "-TERM");
    let began = Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(20));
    assert!(pids.iter().all(|pid| !lives(*pid)));
    for program in PROGRAMS {
        assert!(stage.log(program).contains("was asked to stop"), "{program}");
    }
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("summary: "), "{rest}");
    assert!(stage.folder().join("policy.toml").is_file(), "a named folder is kept");
    let again = stage.in_folder().output().unwrap();
    assert!(text(&again).1.contains("is not empty"));
}

#[test]
fn deaf_programs_do_not_hold_the_end_up() {
    let deaf: Vec<(&str, &str)> = PROGRAMS.iter().map(|program| (*program, "deaf")).collect();
    let stage = Stage::new(&deaf);
    let mut child = stage.in_folder().spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    wait_for(&mut output, "loadgen");
    wait_for(&mut output, "shares 42");
    let pids = stage.pids(5);
    signal(&child, "-INT");
    let began = Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(pids.iter().all(|pid| !lives(*pid)));
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("sv2-gateway had to be killed"), "{rest}");
}

#[test]
fn a_program_that_dies_ends_the_demo_with_its_log() {
    let stage = Stage::new(&[("pool-verifier", "die")]);
    let mut child = stage.in_folder().spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    wait_for(&mut output, "shares 42");
    let pids = stage.pids(5);
    fs::write(stage.programs().join("pool-verifier.die"), "").unwrap();
    let ended = child.wait_with_output().unwrap();
    let (_, errors) = text(&ended);
    assert_eq!(ended.status.code(), Some(1));
    assert!(errors.contains("pool-verifier ended by itself (exit status 7)"), "{errors}");
    assert!(errors.contains("the reason why pool-verifier died"), "{errors}");
    wait_gone(&pids);
}

#[test]
fn a_program_that_cannot_start_is_named_with_its_log() {
    let stage = Stage::new(&[("template-manager", "fail")]);
    let output = stage.in_folder().output().unwrap();
    let (said, errors) = text(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("reference-backend  ready"), "{said}");
    assert!(errors.contains("template-manager ended by itself (exit status 3)"), "{errors}");
    assert!(errors.contains("the reason why template-manager failed"), "{errors}");
    wait_gone(&stage.pids(2));
}

#[test]
fn ends_while_a_program_is_still_not_ready() {
    let stage = Stage::new(&[("template-manager", "unready")]);
    let mut child = stage.in_folder().spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    wait_for(&mut output, "reference-backend");
    signal(&child, "-TERM");
    let pids = stage.pids(1);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    wait_gone(&pids);
}

/// Goal: no program outlives a demo that could not clean up.
#[test]
fn a_killed_demo_takes_its_programs_with_it() {
    let stage = Stage::new(&[("sv2-gateway", "deaf")]);
    let mut child = stage.in_folder().spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    wait_for(&mut output, "shares 42");
    let pids = stage.pids(5);
    assert!(pids.iter().all(|pid| lives(*pid)));
    signal(&child, "-KILL");
    child.wait().unwrap();
    wait_gone(&pids);
}

#[test]
fn missing_programs_are_named() {
    let stage = Stage::new(&[]);
    fs::remove_file(stage.programs().join("loadgen")).unwrap();
    let output = stage.in_folder().output().unwrap();
    let (_, errors) = text(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains(": loadgen; build all programs first"), "{errors}");
}

#[test]
fn keys_are_printed_as_toml() {
    let output = Command::new(env!("CARGO_BIN_EXE_reservegrid"))
        .args(["keys", "generate"])
        .output()
        .unwrap();
    let (said, _) = text(&output);
    let table: toml::Table = said.parse().unwrap();
    assert_eq!(table["noise"]["pubkey"].as_str().unwrap().chars().next(), Some('9'));
}

#[test]
fn launch_refuses_a_parent_that_is_not() {
    let output = Command::new(env!("CARGO_BIN_EXE_reservegrid"))
        .args(["launch", "--parent", "1", "--", "true"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).1.contains("is not the parent"));
}
