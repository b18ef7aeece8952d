//! The program as its tests start it, and what they read of its stream.
#![allow(dead_code, clippy::disallowed_methods, reason = "each test uses its part")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use source::feed::{FeedClient, FeedEvent};
use work::contract::chain::Chain;
use work::template::Template;

use crate::support::{PATIENCE, wait_for};

/// A running service, killed when dropped.
pub struct Service {
    _folder: tempfile::TempDir,
    pub child: Child,
    pub address: String,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn command(folder: &Path, text: &str) -> Command {
    let file = folder.join("template-manager.toml");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_template-manager"));
    command.arg("--config").arg(file).env("RUST_LOG", "warn").stdin(Stdio::null());
    command
}

impl Service {
    pub fn start(rest: &str) -> Service {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("data");
        let text = format!(
            "listen_addr = \"127.0.0.1:0\"\nnetwork = \"regtest\"\ndata_dir = \"{}\"\n{rest}",
            data_dir.display()
        );
        let child = command(folder.path(), &text).spawn().unwrap();
        let address = wait_for("addresses.json", || {
            let text = std::fs::read_to_string(data_dir.join("addresses.json")).ok()?;
            let value: Value = serde_json::from_str(&text).unwrap();
            Some(value["http_listen_addr"].as_str().unwrap().to_owned())
        });
        Service { _folder: folder, child, address }
    }

    pub fn demo() -> Service {
        Service::start(
            "source = \"demo://\"\n[demo]\nblock_interval_ms = 0\nmempool_transactions = 800\n\
             nbits = \"207fffff\"\n",
        )
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Status and body of one request.
    pub fn request(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\
             Content-Type: application/json\r\n\r\n{body}",
            self.address,
            body.len()
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    pub fn chain(&self) -> Chain {
        let (status, body) = self.request("GET", "/chain", "");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    pub fn feed(&self) -> (FeedClient, Receiver<FeedEvent>) {
        let (tell, told) = channel();
        let client = FeedClient::spawn(&self.url(), move |event| drop(tell.send(event))).unwrap();
        (client, told)
    }

    /// Send the signal; how the process ended, and after how long.
    pub fn signal(&mut self, name: &str) -> (Option<i32>, Duration) {
        let asked = Instant::now();
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
        let status = wait_for("the end of the process", || self.child.try_wait().unwrap());
        (status.code(), asked.elapsed())
    }
}

pub fn next<T>(told: &Receiver<FeedEvent>, mut pick: impl FnMut(FeedEvent) -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let event = told.recv_timeout(left).expect("the event came in time");
        if let Some(picked) = pick(event) {
            return picked;
        }
    }
}

pub fn template(told: &Receiver<FeedEvent>) -> Arc<Template> {
    next(told, |event| match event {
        FeedEvent::Template(template) => Some(template),
        FeedEvent::Disconnected { reason } => panic!("{reason}"),
        _ => None,
    })
}

pub fn full_template(told: &Receiver<FeedEvent>) -> Arc<Template> {
    loop {
        let template = template(told);
        if !template.is_coinbase_only() {
            return template;
        }
    }
}
