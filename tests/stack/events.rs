//! Readers of `/gateway/events`, which take it as a connection gives it to them, and may be cut off
//! anywhere.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use journal::event;
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use ureq::Agent;

use super::{PATIENCE, Stack, proof};

/// The key of the test stacks' HTTP.
pub const API_KEY: &str = "an-api-key-for-tests";

/// Receive buffer of a reader that never reads, bytes.
const STUCK_BUFFER: usize = 4 * 1_024;

/// The two forms that the log is told in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A JSON object a line.
    Lines,
    /// Server-sent events.
    Sse,
}

/// An event that came whole: its number and its JSON.
pub type Told = (u64, String);

/// A connection.
pub struct Reader {
    form: Form,
    lines: BufReader<Box<dyn Read>>,
    /// Number of the server-sent event whose data has not come yet.
    id: Option<u64>,
}

impl Reader {
    /// Ask for everything behind event `after`; with `follow` also for what is to come. `None` if
    /// the gateway does not answer with 200.
    pub fn open(stack: &Stack, form: Form, after: Option<u64>, follow: bool) -> Option<Reader> {
        let mut url = format!("http://{}/gateway/events", stack.gateway.http_addr());
        url += &format!("?follow={follow}");
        let agent: Agent = Agent::config_builder()
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .into();
        if let (Form::Lines, Some(after)) = (form, after) {
            url += &format!("&after={after}");
        }
        let mut request = agent.get(&url).header("x-api-key", API_KEY);
        if form == Form::Sse {
            request = request.header("accept", "text/event-stream");
            if let Some(after) = after {
                request = request.header("last-event-id", after.to_string());
            }
        }
        let answer = request.call().ok().filter(|answer| answer.status() == 200)?;
        let body: Box<dyn Read> = Box::new(answer.into_body().into_reader());
        Some(Reader { form, lines: BufReader::new(body), id: None })
    }

    /// The next event; `None` at the end, or if the connection was cut off.
    pub fn next(&mut self) -> Option<Told> {
        loop {
            let mut line = String::new();
            let is_whole = self.lines.read_line(&mut line).is_ok() && line.ends_with('\n');
            if !is_whole {
                return None;
            }
            let line = line.trim_end_matches('\n');
            let (json, id) = match self.form {
                Form::Lines => (line, None),
                Form::Sse => match line.split_once(": ") {
                    Some(("id", id)) => {
                        self.id = Some(id.parse().unwrap());
                        continue;
                    }
                    Some(("data", json)) => (json, self.id.take()),
                    _ => {
                        assert_eq!(line, "");
                        continue;
                    }
                },
            };
            let event: Value = serde_json::from_str(json).unwrap();
            if event["type"] == "heartbeat" {
                continue;
            }
            let event_id = event["event_id"].as_u64().unwrap_or_else(|| panic!("{json}"));
            assert!(id.is_none_or(|id| id == event_id), "{id:?}: {json}");
            return Some((event_id, json.to_owned()));
        }
    }

    /// Take some bytes of what comes next, and end the connection there.
    pub fn cut_off(mut self, bytes: usize) {
        let mut some = vec![0; bytes];
        let _ = self.lines.read(&mut some);
    }
}

/// A reader that asks for everything and never reads.
pub struct Stuck(TcpStream);

impl Stuck {
    /// Connect and ask.
    pub fn start(stack: &Stack) -> Stuck {
        let address: SocketAddr = stack.gateway.http_addr().parse().unwrap();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(STUCK_BUFFER).unwrap();
        socket.connect(&address.into()).unwrap();
        let mut stream = TcpStream::from(socket);
        let request = format!(
            "GET /gateway/events?follow=true HTTP/1.1\r\nhost: {address}\r\n\
             x-api-key: {API_KEY}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        Stuck(stream)
    }

    /// It reads after all: bytes that come until none come for a while.
    pub fn wake(mut self, silence: Duration) -> u64 {
        self.0.set_read_timeout(Some(silence)).unwrap();
        let mut chunk = vec![0; 64 * 1_024];
        let mut bytes = 0;
        while let Ok(count @ 1..) = self.0.read(&mut chunk) {
            bytes += count as u64;
        }
        bytes
    }
}

/// Every event of a journal, as readers are to be told.
pub fn of_journal(data_dir: &Path, gateway_id: &str) -> Vec<Told> {
    let mut lines = Vec::new();
    for located in proof::records(data_dir) {
        event::events(&located, gateway_id, &mut lines);
    }
    lines.into_iter().map(|line| (line.event_id, line.json)).collect()
}
