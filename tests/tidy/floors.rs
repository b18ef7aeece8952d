//! Who may know whom: locks (I1), clocks and sockets (I9), the executor (I14), unsafe code, and the
//! floors of the house, by imports and by manifests.
//!
//! ```text
//! floor 3   src/drive                       everything below
//! floor 2   src/machine                     floors 1 and 0
//! floor 1   src/{config,limits,metrics,mode,reason}   floor 0
//! floor 0   crates/sv2 · crates/work        nothing of ours
//! ```

use std::collections::BTreeSet;

use super::rust::{code, code_without_tests, lines_with};
use super::tree::{File, check, files, rust_files};

/// A complaint for each line of code on which one of `words` stands.
fn refuse(file: &File, code: &str, words: &[&str], why: &str) -> Vec<String> {
    let found = words
        .iter()
        .flat_map(|word| lines_with(code, word).into_iter().map(move |line| (*word, line)));
    found.map(|(word, line)| format!("{}:{line}: `{word}`: {why}", file.path)).collect()
}

/// I1: what two cores share is a ring, a single-writer counter or immutable.
fn locks(file: &File) -> Vec<String> {
    if !file.is_in("src/") {
        return Vec::new();
    }
    let words = [
        "Mutex",
        "RwLock",
        "Condvar",
        "static mut",
        "lazy_static",
        "OnceLock",
        "LazyLock",
        "OnceCell",
    ];
    let code = code_without_tests(&file.text);
    refuse(file, &code, &words, "cores share no mutable state (I1); send it through a ring")
}

/// I9: machines and the pure crates are told the time and the bytes.
fn outside_world(file: &File) -> Vec<String> {
    let pure = ["src/machine/", "crates/sv2/src/", "crates/work/src/", "crates/policy/src/"];
    // The journal is read and cut by its own crate; its machine and its layout see bytes only.
    let journal = "crates/journal/src/";
    let reads =
        ["audit.rs", "folder.rs", "cursor.rs", "files.rs"].map(|name| format!("{journal}{name}"));
    let is_journal = file.is_in(journal) && !reads.contains(&file.path);
    if !is_journal && !pure.iter().any(|folder| file.is_in(folder)) {
        return Vec::new();
    }
    let words = [
        "Instant",
        "SystemTime",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "UnixStream",
        "ToSocketAddrs",
        "fs",
        "thread",
        "thread_local",
        "env::",
        "process::",
        "stdin",
        "getrandom",
        "thread_rng",
        "OsRng",
        "tracing",
        "println",
    ];
    let code = code_without_tests(&file.text);
    refuse(file, &code, &words, "a machine is handed it by its driver (I9)")
}

/// I14: one folder can be exchanged for another executor.
fn executor(file: &File) -> Vec<String> {
    if file.is_in("src/drive/") || file.is_test() {
        return Vec::new();
    }
    refuse(file, &code(&file.text), &["glommio"], "only src/drive names the executor (I14)")
}

/// Unsafe code is in the crate of the rings, and in the allocator that one test counts with.
fn unsafe_code(file: &File) -> Vec<String> {
    if file.is_in("crates/ring/") || file.path == "tests/no_alloc.rs" {
        return Vec::new();
    }
    refuse(file, &code(&file.text), &["unsafe"], "unsafe code belongs in crates/ring")
}

/// First names behind `crate::`, also those in braces.
fn crate_modules(code: &str) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for (at, mark) in code.match_indices("crate::") {
        let rest = &code[at + mark.len()..];
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let name = |text: &str| text.chars().take_while(|c| is_name(*c)).collect::<String>();
        let Some(group) = rest.strip_prefix('{') else {
            modules.insert(name(rest));
            continue;
        };
        let mut depth = 0;
        for part in group.split_inclusive([',', '{', '}']) {
            if depth == 0 {
                modules.insert(name(part.trim_start()));
            }
            match part.chars().next_back() {
                Some('{') => depth += 1,
                Some('}') if depth == 0 => break,
                Some('}') => depth -= 1,
                _ => (),
            }
        }
    }
    modules.remove("");
    modules
}

/// The floors inside the gateway.
fn floors(file: &File) -> Vec<String> {
    let allowed: &[&str] = match file.path.as_str() {
        "src/limits.rs" | "src/mode.rs" | "src/reason.rs" => &[],
        "src/metrics.rs" => &["reason"],
        path if path.starts_with("src/config/") => &["config", "limits", "mode"],
        path if path.starts_with("src/machine/") => {
            &["machine", "limits", "metrics", "mode", "reason"]
        }
        _ => return Vec::new(),
    };
    let modules = crate_modules(&code_without_tests(&file.text));
    let refused = modules.iter().filter(|module| !allowed.contains(&module.as_str()));
    refused
        .map(|module| format!("{}: crate::{module} lies above it; expected {allowed:?}", file.path))
        .collect()
}

/// Crates that the machines may name: whoever adds one makes sure that it asks the world nothing.
fn machine_crates(file: &File) -> Vec<String> {
    if !file.is_in("src/machine/") {
        return Vec::new();
    }
    let allowed = [
        "std",
        "super",
        "crate",
        "sv2",
        "work",
        "arrayvec",
        "hmac",
        "journal",
        "rand_chacha",
        "serde",
        "sha2",
        "subtle",
    ];
    let code = code_without_tests(&file.text);
    let is_module = |name: &str| code.contains(&format!("mod {name};"));
    let named = code.lines().zip(1..).filter_map(|(line, number)| {
        let line = line.trim_start().trim_start_matches("pub ");
        Some((line.strip_prefix("use ")?.split([':', ';', ' ']).next()?.to_owned(), number))
    });
    named
        .filter(|(name, _)| !allowed.contains(&name.as_str()) && !is_module(name))
        .map(|(name, line)| format!("{}:{line}: {name}; expected {allowed:?}", file.path))
        .collect()
}

/// Our own crates that a package may depend on, and whether it must be free of IO.
fn may_depend_on(path: &str) -> (&'static [&'static str], bool) {
    match path {
        "crates/sv2/Cargo.toml" | "crates/work/Cargo.toml" => (&[], true),
        "crates/ring/Cargo.toml" => (&[], false),
        "crates/policy/Cargo.toml" | "crates/journal/Cargo.toml" => (&["work"], true),
        "crates/source/Cargo.toml" => (&["work"], false),
        "loadgen/Cargo.toml" => (&["sv2", "work", "rg-ring"], false),
        "Cargo.toml" => (&OURS, false),
        // It reads the gateway's configuration, and asks the kernel what the gateway will ask.
        "services/cli/Cargo.toml" => {
            (&["sv2", "work", "policy", "source", "journal", "rg-ring", "sv2-gateway"], false)
        }
        path if path.starts_with("services/") => (&["sv2", "work", "policy", "source"], false),
        _ => (&OURS, false),
    }
}

const OURS: [&str; 8] =
    ["sv2", "work", "rg-ring", "policy", "source", "journal", "loadgen", "sv2-gateway"];

/// Crates that talk to the kernel, or to a clock, or to chance.
const OUTSIDE: [&str; 12] = [
    "glommio",
    "tokio",
    "io-uring",
    "rustix",
    "libc",
    "socket2",
    "ureq",
    "axum",
    "getrandom",
    "rand",
    "tracing",
    "crossbeam",
];

/// Manifests: what a crate cannot name it cannot use.
fn manifests(file: &File) -> Vec<String> {
    let name = file.path.rsplit('/').next().unwrap_or_default();
    if name != "Cargo.toml" || file.is_in("fuzz/") {
        return Vec::new();
    }
    let table: toml::Table = file.text.parse().unwrap();
    let names = |section: &str| -> Vec<String> {
        let section = table.get(section).and_then(toml::Value::as_table);
        section.map(|section| section.keys().cloned().collect()).unwrap_or_default()
    };
    let (allowed, is_pure) = may_depend_on(&file.path);
    let all = ["dependencies", "dev-dependencies", "build-dependencies"].map(names).concat();
    let above = all.iter().filter(|n| OURS.contains(&n.as_str()) && !allowed.contains(&n.as_str()));
    let mut complaints: Vec<String> =
        above.map(|n| format!("{}: {n} lies above it; expected {allowed:?}", file.path)).collect();
    if is_pure {
        let outside = names("dependencies").into_iter().filter(|n| OUTSIDE.contains(&n.as_str()));
        complaints.extend(outside.map(|n| format!("{}: {n} in a pure crate (I9)", file.path)));
    }
    complaints
}

fn planted(path: &str, text: &str) -> File {
    File::planted(path, text)
}

#[test]
fn the_gateway_has_no_locks() {
    check(&rust_files(), locks);
    let text = "// Mutex\nuse std::sync::{Arc, Mutex};\nstatic mut A: u8 = 0;";
    assert_eq!(locks(&planted("src/drive/a.rs", text)).len(), 2);
    assert!(locks(&planted("services/a/src/a.rs", text)).is_empty());
}

#[test]
fn machines_ask_the_world_nothing() {
    check(&rust_files(), outside_world);
    let text = "use std::{fs, time::Instant};\nuse std::net::IpAddr;\nlet a = env!(\"A\");";
    assert_eq!(outside_world(&planted("src/machine/a.rs", text)).len(), 2);
    assert_eq!(outside_world(&planted("crates/work/src/a.rs", text)).len(), 2);
    assert!(outside_world(&planted("src/drive/a.rs", text)).is_empty());
    let tests = format!("#[cfg(test)]\nmod tests {{ {text} }}");
    assert!(outside_world(&planted("crates/sv2/src/a.rs", &tests)).is_empty());
}

#[test]
fn only_the_drivers_name_the_executor() {
    check(&rust_files(), executor);
    assert_eq!(executor(&planted("src/machine/a.rs", "use glommio::Task;")).len(), 1);
    assert!(executor(&planted("src/machine/a.rs", "// glommio")).is_empty());
    assert!(executor(&planted("src/drive/a.rs", "use glommio::Task;")).is_empty());
}

#[test]
fn unsafe_code_is_in_the_crate_of_the_rings() {
    check(&rust_files(), unsafe_code);
    assert_eq!(unsafe_code(&planted("src/drive/a.rs", "unsafe { a() }")).len(), 1);
    assert!(unsafe_code(&planted("crates/ring/src/a.rs", "unsafe { a() }")).is_empty());
    assert!(unsafe_code(&planted("src/a.rs", "#![deny(unsafe_code)] // unsafe")).is_empty());
}

#[test]
fn nobody_looks_up() {
    let all = rust_files();
    check(&all, floors);
    check(&all, machine_crates);
    let text = "use crate::{limits::A, drive::{b, c}, machine};\nlet d = crate::metrics::E;";
    let modules = crate_modules(text);
    assert_eq!(modules.iter().collect::<Vec<_>>(), ["drive", "limits", "machine", "metrics"]);
    assert_eq!(floors(&planted("src/machine/a.rs", text)).len(), 1);
    assert_eq!(floors(&planted("src/limits.rs", text)).len(), 4);
    assert!(floors(&planted("src/drive/a.rs", text)).is_empty());
    let text = "mod c;\nuse sv2::A;\npub use crate::b;\nuse c::d;\nuse tokio::net;";
    assert_eq!(machine_crates(&planted("src/machine/a.rs", text)).len(), 1);
}

#[test]
fn manifests_keep_the_floors() {
    check(&files(), manifests);
    let text = "[dependencies]\nwork.workspace = true\ntokio = \"1\"\n";
    assert_eq!(manifests(&planted("crates/sv2/Cargo.toml", text)).len(), 2);
    let text = "[dev-dependencies]\nsv2.workspace = true\n";
    assert_eq!(manifests(&planted("crates/work/Cargo.toml", text)).len(), 1);
    let text = "[dependencies]\nsv2-gateway.workspace = true\n";
    assert_eq!(manifests(&planted("services/a/Cargo.toml", text)).len(), 1);
}
