//! The JSON-RPC client against a node that is played here: credentials that change, connections
//! that close, answers that make no sense.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::json;
use source::rpc::{RpcClient, RpcError};
use source::submit::{SubmitAnswer, submit_block};
use work::contract::feed::NodeAccess;

/// One request: its Authorization header and its body.
struct Asked {
    authorization: String,
    body: String,
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let (mut authorization, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ").unwrap_or((line, ""));
        match name.to_ascii_lowercase().as_str() {
            "authorization" => value.clone_into(&mut authorization),
            "content-length" => length = value.parse().unwrap(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { authorization, body: String::from_utf8(body).unwrap() })
}

/// A node that gives these answers (status, body), each on a connection that it then closes
/// without saying so if `abrupt`.
fn node(answers: Vec<(u16, &'static str)>, abrupt: bool) -> (String, Receiver<Asked>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let mut answers = answers.into_iter().peekable();
        while answers.peek().is_some() {
            let (stream, _) = listener.accept().unwrap();
            let mut writer = stream.try_clone().unwrap();
            let mut reader = BufReader::new(stream);
            while answers.peek().is_some()
                && let Some(asked) = read_request(&mut reader)
            {
                tell.send(asked).unwrap();
                let (status, body) = answers.next().unwrap();
                let length = body.len();
                let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {length}\r\n\r\n");
                writer.write_all(format!("{head}{body}").as_bytes()).unwrap();
                if abrupt {
                    break;
                }
            }
        }
    });
    (url, told)
}

fn client(url: &str, auth: Option<&str>) -> RpcClient {
    let access = NodeAccess { url: url.to_owned(), auth: auth.map(str::to_owned) };
    RpcClient::new(&access, Duration::from_secs(5)).unwrap()
}

fn basic(credentials: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(credentials))
}

#[test]
fn a_new_cookie_is_read_when_the_old_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let cookie = folder.path().join(".cookie");
    std::fs::write(&cookie, "__cookie__:old\n").unwrap();
    let good = r#"{"result":1,"error":null,"id":0}"#;
    let (url, told) = node(vec![(200, good), (401, ""), (200, good)], false);
    let mut client = client(&url, Some(&format!("cookie:{}", cookie.display())));
    assert_eq!(client.call::<u32>("getblockcount", json!([])), Ok(1));
    std::fs::write(&cookie, "__cookie__:new").unwrap();
    assert_eq!(client.call::<u32>("getblockcount", json!([])), Ok(1));
    let seen: Vec<String> = told.iter().take(3).map(|asked| asked.authorization).collect();
    assert_eq!(seen, ["old", "old", "new"].map(|word| basic(&format!("__cookie__:{word}"))));
}

#[test]
fn wrong_credentials_are_named() {
    let check = |auth: Option<&str>, answers, part: &str| {
        let (url, _told) = node(answers, false);
        match client(&url, auth).call::<u32>("getblockcount", json!([])) {
            Err(RpcError::Unauthorized(why)) => assert!(why.contains(part), "{why}"),
            other => panic!("{other:?}"),
        }
    };
    check(Some("a:b"), vec![(401, "")], "user and password");
    check(None, vec![(401, "")], "none are configured");
    check(Some("a:b"), vec![(403, "")], "forbids");
    check(Some("cookie:/nowhere/.cookie"), vec![], "/nowhere/.cookie");
    let access = NodeAccess { url: String::new(), auth: Some("nonsense".into()) };
    assert!(RpcClient::new(&access, Duration::from_secs(1)).is_err());
}

#[test]
fn a_connection_that_the_node_closed_is_made_again() {
    let good = r#"{"result":1,"error":null,"id":0}"#;
    let (url, _told) = node(vec![(200, good); 4], true);
    let mut client = client(&url, None);
    for _ in 0..4 {
        assert_eq!(client.call::<u32>("getblockcount", json!([])), Ok(1));
    }
}

#[test]
fn answers_that_are_none() {
    let check = |status, body, expected: fn(&RpcError) -> bool| {
        let (url, _told) = node(vec![(status, body)], false);
        let error = client(&url, None).call::<u32>("getblockcount", json!([])).unwrap_err();
        assert!(expected(&error), "{error}");
    };
    let is_malformed = |error: &RpcError| matches!(error, RpcError::Malformed(_));
    check(200, "hello", is_malformed);
    check(200, r#"{"result":"#, is_malformed);
    check(200, r#"{"result":"text","error":null}"#, is_malformed);
    check(503, "Work queue depth exceeded", |e| matches!(e, RpcError::Unreachable(_)));
    let loading = r#"{"result":null,"error":{"code":-28,"message":"Loading"},"id":0}"#;
    check(500, loading, RpcError::is_warming_up);
}

#[test]
fn batches() {
    let good = r#"[{"result":1,"error":null,"id":0},{"result":"a","error":null,"id":1}]"#;
    let (url, told) = node(vec![(200, good), (200, "[]")], false);
    let mut client = client(&url, None);
    let calls = [("getblockcount", json!([])), ("getblockhash", json!([1]))];
    let answers = client.ask_all(&calls).unwrap();
    assert_eq!(answers[0].read::<u32>(), Ok(1));
    assert_eq!(answers[1].read::<String>(), Ok("a".to_owned()));
    assert!(told.recv().unwrap().body.starts_with('['));
    assert!(matches!(client.ask_all(&calls), Err(RpcError::Malformed(_))));
}

#[test]
fn a_block_is_submitted() {
    let check = |status, body, expected: SubmitAnswer| {
        let (url, told) = node(vec![(status, body)], false);
        assert_eq!(submit_block(&NodeAccess { url, auth: Some("a:b".into()) }, "00ff"), expected);
        let asked = told.recv().unwrap();
        assert_eq!(asked.authorization, basic("a:b"));
        assert!(asked.body.contains(r#""method":"submitblock""#), "{}", asked.body);
        assert!(asked.body.contains(r#"["00ff"]"#), "{}", asked.body);
    };
    check(200, r#"{"result":null,"error":null,"id":0}"#, SubmitAnswer::Accepted);
    check(200, r#"{"result":"duplicate","error":null,"id":0}"#, SubmitAnswer::Duplicate);
    let word = SubmitAnswer::Rejected("high-hash".into());
    check(200, r#"{"result":"high-hash","error":null,"id":0}"#, word);
    let undecodable = r#"{"result":null,"error":{"code":-22,"message":"Block decode failed"}}"#;
    let word = SubmitAnswer::Rejected("Block decode failed (error -22)".into());
    check(500, undecodable, word);
}
