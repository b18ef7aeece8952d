//! Whose shares a channel's are: what shards say once, so that a share needs only a key.

use std::collections::HashMap;
use std::sync::Arc;

use arrayvec::ArrayVec;
use journal::Share;

use crate::machine::output::{ChannelKey, ConnectionId, ShareRecord};

/// A channel.
#[derive(Debug)]
pub struct Name {
    /// Its connection.
    pub connection: ConnectionId,
    /// Its number there.
    pub channel_id: u32,
    /// Who is credited.
    pub miner_id: Arc<str>,
    /// What of its extranonce the miner does not roll.
    pub extranonce_prefix: ArrayVec<u8, 32>,
    /// Event that says that it was opened.
    pub opened_event: u64,
    /// Names of its workers; the first has number 1.
    pub workers: Vec<Arc<str>>,
}

/// All open channels.
#[derive(Debug, Default)]
pub struct Names(HashMap<ChannelKey, Name>);

impl Names {
    /// A channel was opened.
    pub fn insert(&mut self, channel: ChannelKey, name: Name) {
        self.0.insert(channel, name);
    }

    /// No more shares of it will follow.
    pub fn remove(&mut self, channel: ChannelKey) -> Option<Name> {
        self.0.remove(&channel)
    }

    /// A further worker of a channel.
    pub fn add_worker(&mut self, channel: ChannelKey, worker_id: Arc<str>) {
        if let Some(name) = self.0.get_mut(&channel) {
            name.workers.push(worker_id);
        }
    }

    /// Open channels.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// A share with its owner; `None` if its channel was never named.
    pub fn share(&self, record: &ShareRecord, from: Origin) -> Option<Share> {
        let name = self.0.get(&record.channel)?;
        let worker = (record.worker as usize).checked_sub(1);
        let rolled = record.rolled.as_slice();
        let mut extranonce = name.extranonce_prefix.clone();
        // The prefix and what is rolled are one extranonce of at most 32 bytes.
        let _ = extranonce.try_extend_from_slice(rolled);
        Some(Share {
            share_id: record.share_id,
            share_hash: record.share_hash,
            epoch: from.epoch,
            shard: from.shard,
            sequence: record.sequence,
            connection_id: name.connection.0,
            channel_key: record.channel.0,
            channel_id: name.channel_id,
            opened_event: name.opened_event,
            verdict_event: from.verdict_event,
            accepted_at: record.accepted_at,
            latency_micros: record.latency_micros,
            sequence_number: record.sequence_number,
            job_id: record.job_id,
            template_id: record.template_id,
            height: record.height,
            prev_hash: record.prev_hash,
            nbits: record.nbits,
            version: record.version,
            ntime: record.ntime,
            nonce: record.nonce,
            extranonce,
            coinbase_value: record.coinbase_value,
            fees: record.fees,
            difficulty: record.difficulty,
            block_found: record.block_found,
            coinbase_txid: record.coinbase_txid,
            hold: record.hold,
            miner_id: Arc::clone(&name.miner_id),
            worker_id: worker.and_then(|at| name.workers.get(at)).cloned(),
        })
    }
}

/// What a share has from its place, not from its record.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// Start of this gateway.
    pub epoch: u16,
    /// Shard.
    pub shard: u8,
    /// Event with the verdict on its template; 0 if none was told.
    pub verdict_event: u64,
}
