//! Hearing of a new tip: ZMQ `hashblock`, or a longpoll where the node has no ZMQ.
//!
//! ZMQ tells the hash half a millisecond after the node knows it, whatever the mempool's size;
//! it drops messages silently, hence the sequence number, and the pulse beside it (see
//! [`super::pulse`]). A longpoll costs the node a template and delays its `submitblock`, so it
//! is only the second choice.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::oneshot;
use work::contract::feed::NodeAccess;
use work::hash::BlockHash;
use work::payout::Network;
use zeromq::{Socket as _, SocketRecv as _};

use super::{Wake, template};
use crate::event::TipChannel;
use crate::rpc::{RpcClient, Shutdown};

const TOPIC: &str = "hashblock";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A node with a quiet mempool holds a longpoll for as long as it likes.
const LONGPOLL_TIMEOUT: Duration = Duration::from_secs(600);
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);

/// One entry of `getzmqnotifications`.
#[derive(Debug, Deserialize)]
pub(super) struct Notification {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

/// The endpoint of `hashblock` as seen from here: an address that means "everywhere" is the
/// node's own.
pub(super) fn endpoint(notifications: &[Notification], node_url: &str) -> Option<String> {
    let published = notifications.iter().find(|notification| {
        notification.kind == "pubhashblock" && notification.address.starts_with("tcp://")
    })?;
    let (host, port) = published.address.strip_prefix("tcp://")?.rsplit_once(':')?;
    if !matches!(host, "0.0.0.0" | "*" | "[::]") {
        return Some(published.address.clone());
    }
    let authority = node_url.split_once("://")?.1.split('/').next()?;
    let node = authority.rsplit_once(':').map_or(authority, |(node, _)| node);
    Some(format!("tcp://{node}:{port}"))
}

/// A listening thread; dropping this ends it.
pub(super) enum Listener {
    /// Reads ZMQ until the other end is dropped.
    Zmq { _stop: oneshot::Sender<()> },
    /// Holds a longpoll; ending it breaks the connection.
    Longpoll { _stop: Sender<()>, shutdown: Option<Shutdown> },
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Longpoll { shutdown, .. } = self
            && let Some(shutdown) = shutdown.take()
        {
            shutdown.end();
        }
    }
}

/// Listen to the ZMQ `endpoint`.
pub(super) fn zmq(endpoint: String, wake: SyncSender<Wake>) -> Result<Listener, String> {
    let (stop, stopped) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime of ZMQ: {error}"))?;
    std::thread::Builder::new()
        .name("node-zmq".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    why = subscribe(&endpoint, &wake) => {
                        // If nobody is there to hear it, nobody needs it.
                        let _ = wake.try_send(Wake::ZmqFailed(format!("{endpoint}: {why}")));
                    }
                }
            });
        })
        .map_err(|error| format!("cannot start the thread of ZMQ: {error}"))?;
    Ok(Listener::Zmq { _stop: stop })
}

/// Ends with the reason why nothing more will be heard.
async fn subscribe(endpoint: &str, wake: &SyncSender<Wake>) -> String {
    let mut socket = zeromq::SubSocket::new();
    match tokio::time::timeout(CONNECT_TIMEOUT, socket.connect(endpoint)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return error.to_string(),
        Err(_) => return "no connection in time".to_owned(),
    }
    if let Err(error) = socket.subscribe(TOPIC).await {
        return error.to_string();
    }
    let mut expected: Option<u32> = None;
    loop {
        let message = match socket.recv().await {
            Ok(message) => message,
            // The node went away. The pulse will tell when it is back, and a new listener
            // starts then.
            Err(error) => return error.to_string(),
        };
        let frames: Vec<&[u8]> = message.iter().map(|frame| frame.as_ref()).collect();
        let Some((hash, sequence)) = hash_and_sequence(&frames) else { continue };
        if expected.is_some_and(|expected| expected != sequence) {
            tracing::warn!(sequence, ?expected, "zmq dropped messages; asking the node instead");
        }
        expected = Some(sequence.wrapping_add(1));
        if wake.send(Wake::Tip { hash, channel: TipChannel::Zmq }).is_err() {
            return "the source has stopped".to_owned();
        }
    }
}

/// `topic | hash in RPC order 32 | sequence 4 LE`.
fn hash_and_sequence(frames: &[&[u8]]) -> Option<(BlockHash, u32)> {
    let [topic, hash, sequence] = frames else { return None };
    if *topic != TOPIC.as_bytes() {
        return None;
    }
    let mut hash: [u8; 32] = (*hash).try_into().ok()?;
    hash.reverse();
    let sequence = u32::from_le_bytes((*sequence).try_into().ok()?);
    Some((BlockHash(hash), sequence))
}

/// Hold a longpoll at the node, one after the other.
pub(super) fn longpoll(
    node: &NodeAccess,
    network: Network,
    wake: SyncSender<Wake>,
) -> Result<Listener, String> {
    let client = RpcClient::new(node, LONGPOLL_TIMEOUT)?;
    let shutdown = client.shutdown();
    let (stop, stopped) = channel();
    std::thread::Builder::new()
        .name("node-longpoll".to_owned())
        .spawn(move || hold(client, network, &wake, &stopped))
        .map_err(|error| format!("cannot start the thread of the longpoll: {error}"))?;
    Ok(Listener::Longpoll { _stop: stop, shutdown: Some(shutdown) })
}

fn hold(mut client: RpcClient, network: Network, wake: &SyncSender<Wake>, stopped: &Receiver<()>) {
    let mut longpoll_id: Option<String> = None;
    loop {
        let parameters = template::parameters(network, longpoll_id.as_deref());
        let answer = client.ask("getblocktemplate", parameters).and_then(|answer| {
            let id = answer.read::<template::Offer<'_>>()?.longpoll_id().to_owned();
            Ok((answer, id))
        });
        let pause = match answer {
            Ok((answer, id)) => {
                longpoll_id = (!id.is_empty()).then_some(id);
                if wake.send(Wake::Longpolled(answer)).is_err() {
                    return;
                }
                // Without an id the node cannot hold the next request.
                if longpoll_id.is_some() { Duration::ZERO } else { PAUSE_AFTER_ERROR }
            }
            Err(error) => {
                tracing::debug!(%error, "longpoll");
                longpoll_id = None;
                PAUSE_AFTER_ERROR
            }
        };
        if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        let check = |kind: &str, address: &str, expected: Option<&str>| {
            let list = [Notification { kind: kind.into(), address: address.into() }];
            assert_eq!(endpoint(&list, "http://node:8332/").as_deref(), expected);
        };
        check("pubhashblock", "tcp://127.0.0.1:28332", Some("tcp://127.0.0.1:28332"));
        check("pubhashblock", "tcp://0.0.0.0:28332", Some("tcp://node:28332"));
        check("pubhashblock", "tcp://*:28332", Some("tcp://node:28332"));
        check("pubhashblock", "ipc:///tmp/zmq", None);
        check("pubrawtx", "tcp://127.0.0.1:28332", None);
        assert_eq!(endpoint(&[], "http://node:8332/"), None);
    }

    #[test]
    fn messages() {
        let mut hash = [0u8; 32];
        hash[0] = 0xaa;
        let read = hash_and_sequence(&[b"hashblock", &hash, &[1, 0, 0, 0]]).unwrap();
        assert_eq!(read.1, 1);
        assert!(read.0.to_string().starts_with("aa00"), "the node sends RPC order");
        assert_eq!(hash_and_sequence(&[b"hashtx", &hash, &[1, 0, 0, 0]]), None);
        assert_eq!(hash_and_sequence(&[b"hashblock", &hash[1..], &[1, 0, 0, 0]]), None);
        assert_eq!(hash_and_sequence(&[b"hashblock", &hash]), None);
    }
}
