//! The pages of a gateway over a journal that the test writes, and clients of them.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use gateway::config::hatch::Hatches;
use gateway::config::secret::Secret;
use gateway::drive::ops::{self, Blocks, JournalView, OpsSettings};
use gateway::machine::command::Command;
use gateway::mode::Mode;
use rg_ring::{Bell, Sequence};
use serde_json::Value;
use ureq::Agent;

use super::log::disk::Disk;

pub const KEY: &str = "the-key-of-the-tests";

/// Orders that fit into the queue.
pub const ORDERS: usize = 4;

/// Longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Pages on loopback.
pub struct Pages {
    pub address: SocketAddr,
    pub head: Sequence,
    pub commands: Arc<ArrayQueue<Command>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// What the server said to a request.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", self.text()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Pages {
    /// Of a journal in `folder` that is on disk up to `head`; of none without a folder.
    pub fn new(folder: Option<&Path>, head: u64) -> Pages {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (head, commands) = (Sequence::new(head), Arc::new(ArrayQueue::new(ORDERS)));
        let journal = folder.map(|folder| JournalView {
            folder: folder.to_owned(),
            head: head.clone(),
            gateway_id: "gw-1".to_owned(),
            commands: Arc::clone(&commands),
            bell: Bell::new().unwrap(),
        });
        let settings = OpsSettings {
            mode: Mode::Observe,
            api_keys: vec![Secret::new(KEY)],
            hatches: Hatches::default(),
            authority_pubkey: String::new(),
            listen_addr: None,
            journal,
        };
        let blocks =
            Blocks { shards: Vec::new(), control: Arc::default(), forwarder: Arc::default() };
        let stop = Arc::new(AtomicBool::new(false));
        let thread = ops::spawn(listener, Arc::new(blocks), settings, Arc::clone(&stop)).unwrap();
        Pages { address, head, commands, stop, thread: Some(thread) }
    }

    /// Says that what the disk has may be read.
    pub fn publish(&self, disk: &Disk) {
        self.head.publish(disk.durable());
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask(path, &[("x-api-key", KEY)])
    }

    pub fn ask(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = agent().get(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.call().unwrap())
    }

    pub fn post(&self, path: &str, body: &str) -> Answer {
        let request = agent().post(format!("http://{}{path}", self.address));
        let request = request.header("x-api-key", KEY).content_type("application/json");
        answer(request.send(body).unwrap())
    }

    /// Asks for a page that may never end.
    pub fn follow(&self, path: &str, headers: &str) -> Follower {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // HTTP/1.0: the body comes as it is, without chunks around it.
        write!(stream, "GET {path} HTTP/1.0\r\nx-api-key: {KEY}\r\n{headers}\r\n").unwrap();
        Follower { reader: BufReader::new(stream) }
    }
}

fn agent() -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .max_redirects(0)
        .build();
    Agent::new_with_config(config)
}

fn answer(mut response: ureq::http::Response<ureq::Body>) -> Answer {
    let mut body = Vec::new();
    let headers = response.headers().clone();
    let status = response.status().as_u16();
    response.body_mut().as_reader().read_to_end(&mut body).unwrap();
    Answer { status, headers, body }
}

/// A client that reads line by line.
pub struct Follower {
    reader: BufReader<TcpStream>,
}

impl Follower {
    /// The status, after all headers were read.
    pub fn status(&mut self) -> u16 {
        let status = self.line();
        while !self.line().is_empty() {}
        status.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// The next line without its end.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line.trim_end_matches(['\r', '\n']).to_owned()
    }

    /// The next event.
    pub fn event(&mut self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line:?}"))
    }
}
