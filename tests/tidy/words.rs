//! Nothing of the machine a file was written on: no paths of its own, no hosts but public ones.

use super::tree::{File, check, files};

/// Folders of somebody's machine. In pieces, so that this file does not name them.
const FOLDERS: [&str; 4] =
    [concat!("/", "work/"), concat!("/", "root/"), concat!("/", "home/"), concat!("/", "tmp/")];

/// Hosts that a file may name: whoever names another one adds it here, and says so.
const HOSTS: [&str; 4] = ["github.com", "www.apache.org", "pool.example", "docs.rs"];

/// A folder of a machine, where a path begins: not after a letter, a brace or another slash.
fn paths(file: &File) -> Vec<String> {
    let mut complaints = Vec::new();
    for (line, number) in file.text.lines().zip(1..) {
        for folder in FOLDERS {
            let begins = |at: usize| {
                let before = line[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || "_-.}/*)~$".contains(c))
            };
            if line.match_indices(folder).any(|(at, _)| begins(at)) {
                complaints.push(format!(
                    "{}:{number}: {folder} is a folder of one machine; name none",
                    file.path
                ));
            }
        }
    }
    complaints
}

/// Hosts in addresses: names without a dot and loopback are nobody's.
fn hosts(file: &File) -> Vec<String> {
    let mut complaints = Vec::new();
    for (line, number) in file.text.lines().zip(1..) {
        for (at, mark) in line.match_indices("://") {
            let is_http = line[..at].ends_with("http") || line[..at].ends_with("https");
            let rest = &line[at + mark.len()..];
            let is_host = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
            let host = &rest[..rest.find(|c| !is_host(c)).unwrap_or(rest.len())];
            let host = host.trim_end_matches('.');
            let is_nobodys = !host.contains('.') || host.starts_with("127.");
            if is_http && !is_nobodys && !HOSTS.contains(&host) {
                complaints.push(format!(
                    "{}:{number}: host {host}; expected one of {HOSTS:?}, or add it there",
                    file.path
                ));
            }
        }
    }
    complaints
}

#[test]
fn no_file_names_a_folder_of_a_machine() {
    check(&files(), paths);
    let planted = format!("cd {}main\nsee crates{}src", FOLDERS[0], FOLDERS[0]);
    let complaints = paths(&File::planted("a.sh", &planted));
    assert_eq!(complaints.len(), 1, "{complaints:?}");
}

#[test]
fn no_file_names_a_host_that_is_not_public() {
    check(&files(), hosts);
    let of = |host: &str| hosts(&File::planted("a.toml", &format!("url = \"http://{host}/x\"")));
    assert_eq!(of("mirror.corp.internal").len(), 1);
    assert_eq!(of("10.1.2.3:80").len(), 1);
    assert!(of("127.0.0.1:8082").is_empty() && of("github.com").is_empty());
    assert!(of("host").is_empty());
}
