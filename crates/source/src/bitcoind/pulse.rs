//! The pulse: `getbestblockhash` four times a second, on a connection of its own.
//!
//! It notices within a second that the node is gone or back, however long other calls take,
//! and is the net under ZMQ and longpoll: a tip that they miss is a quarter of a second late.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use work::hash::BlockHash;

use super::Wake;
use crate::clock;
use crate::event::{Deliver, SourceEvent, TipChannel};
use crate::rpc::RpcClient;

/// Between two questions.
const PERIOD: Duration = Duration::from_millis(250);
/// Time for one answer.
pub(super) const TIMEOUT: Duration = Duration::from_millis(600);
/// Silence after which the node counts as lost.
const LOST_AFTER: Duration = Duration::from_millis(500);
/// Between two reminders that it is.
const REMINDER: Duration = Duration::from_secs(1);

pub(super) fn run(
    mut client: RpcClient,
    wake: &SyncSender<Wake>,
    deliver: &Deliver,
    stopped: &Receiver<()>,
) {
    let mut answered = clock::mono();
    let mut reminded = None;
    let mut is_up = false;
    let mut tip: Option<BlockHash> = None;
    loop {
        match client.call::<BlockHash>("getbestblockhash", serde_json::json!([])) {
            Ok(hash) => {
                answered = clock::mono();
                let came_back = !is_up;
                is_up = true;
                reminded = None;
                if came_back {
                    deliver(SourceEvent::NodeBack);
                    if wake.send(Wake::Back).is_err() {
                        return;
                    }
                }
                if tip != Some(hash) {
                    tip = Some(hash);
                    if wake.send(Wake::Tip { hash, channel: TipChannel::Poll }).is_err() {
                        return;
                    }
                }
            }
            Err(error) => {
                let silent = answered.elapsed();
                let due = reminded.is_none_or(|at: std::time::Instant| at.elapsed() >= REMINDER);
                if silent >= LOST_AFTER && due {
                    is_up = false;
                    reminded = Some(clock::mono());
                    let since_millis = u64::try_from(silent.as_millis()).unwrap_or(u64::MAX);
                    deliver(SourceEvent::NodeLost { since_millis, why: error.to_string() });
                }
            }
        }
        if stopped.recv_timeout(PERIOD) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}
