//! What the connections of one shard have in common: its settings, its board, its counters, and
//! what is given out once: prefixes, sequence numbers, keys.

use std::collections::VecDeque;
use std::sync::Arc;

use rand_chacha::ChaCha20Rng;
use sv2::{AuthorityKey, Ephemeral, Identity, NoiseError, Transport};
use work::extranonce::{Grant, PrefixAllocator};
use work::seen::TipClock;
use work::{Difficulty, Mono, Now, Work};

use super::admission::Admission;
use super::board::Board;
use super::channel::{Channel, Kind, NewChannel};
use super::flood::ShareLimits;
use super::opening::OpenRequest;
use super::output::{ChannelKey, ClosedChannel, ConnectionId};
use super::refusals::Reports;
use super::throttle::Throttle;
use super::vardiff::Goal;
use crate::limits::{
    ACKS_PENDING_MAX, CHANNELS_PER_SHARD_MAX, EPHEMERALS_READY, HANDSHAKES_PER_TURN,
    STARVED_MILLIS_MAX,
};
use crate::metrics::{Counters, shard as counter};

/// What a shard is told once.
#[derive(Debug, Clone)]
pub struct ShardSettings {
    /// Its number.
    pub shard: u8,
    /// The gateway's number (D23).
    pub instance_id: u16,
    /// The start's number (D23).
    pub epoch: u16,
    /// Bytes of the whole extranonce: the prefix and what extended channels roll.
    pub extranonce_bytes: usize,
    /// Goal of a channel's difficulty.
    pub target_shares_per_minute: f64,
    /// Easiest difficulty of a channel.
    pub min_difficulty: f64,
    /// Version bits that miners may roll; 0 for none.
    pub version_mask: u32,
    /// Time for both acts.
    pub handshake_timeout_ms: u64,
    /// Time until SetupConnection, and until the first channel.
    pub setup_timeout_ms: u64,
    /// Silence after which a connection is closed; 0 for never.
    pub channel_idle_timeout_ms: u64,
    /// Floor on how long share hashes are remembered (D43).
    pub nonce_expire_secs: u64,
    /// Hashes of shares for which a channel has room between two jobs.
    pub seen_room: usize,
    /// Connections of this shard.
    pub max_connections: usize,
    /// Connections of one address on this shard; 0 for any number.
    pub max_connections_per_ip: usize,
    /// Channels of one connection.
    pub max_channels_per_connection: usize,
    /// Workers that one extended channel tells apart.
    pub max_workers_per_channel: usize,
}

/// An accepted share that waits for its durable number.
#[derive(Debug, Clone, Copy)]
pub struct PendingAck {
    /// The shard's own number.
    pub sequence: u64,
    /// Whose.
    pub connection: ConnectionId,
    /// Which channel of it.
    pub channel_id: u32,
    /// The miner's number.
    pub sequence_number: u32,
    /// Its credit.
    pub work: Work,
    /// When it came.
    pub received_at: Mono,
}

/// What the connections of a shard have in common.
pub struct ShardState {
    /// The settings.
    pub settings: ShardSettings,
    /// What may be mined.
    pub board: Board,
    /// The numbers of its tips.
    pub tips: TipClock,
    /// Who may open channels.
    pub admission: Arc<Admission>,
    /// Addresses whose credentials were wrong too often.
    pub throttle: Throttle,
    /// What difficulties are chosen for.
    pub goal: Goal,
    /// How many shares a channel may send.
    pub share_limits: ShareLimits,
    /// Addresses that sent too much that is no handshake.
    pub(super) strangers: Throttle,
    /// The counters.
    pub counters: Counters<{ counter::CELLS }>,
    /// Requests for a channel that wait, of all connections.
    pub parked: usize,
    /// Channels that ended and of which the forwarder does not know it.
    pub closed: VecDeque<ClosedChannel>,
    /// What is told beside the entries.
    pub reports: Reports,
    prefixes: PrefixAllocator,
    sequence: u64,
    next_channel: u64,
    /// In the order of their sequence numbers.
    pub(super) acks: VecDeque<PendingAck>,
    /// Since when there has been no credit.
    pub(super) starved_since: Option<Mono>,
    pub(super) authority: AuthorityKey,
    pub(super) identity: Identity,
    pub(super) entropy: ChaCha20Rng,
    pub(super) ephemerals: Vec<Ephemeral>,
    /// Handshakes that this turn may still answer.
    pub(super) handshakes_left: usize,
}

impl ShardState {
    /// The state of a shard without connections, and without work.
    pub fn new(
        settings: ShardSettings,
        admission: Arc<Admission>,
        authority: AuthorityKey,
        identity: Identity,
        entropy: ChaCha20Rng,
    ) -> ShardState {
        let floor = Difficulty::at_most(settings.min_difficulty);
        ShardState {
            board: Board::default(),
            tips: TipClock::new(settings.nonce_expire_secs),
            admission,
            throttle: Throttle::new(),
            goal: Goal::new(settings.target_shares_per_minute, floor),
            share_limits: ShareLimits::new(settings.target_shares_per_minute),
            strangers: Throttle::new(),
            counters: Counters::default(),
            closed: VecDeque::new(),
            reports: Reports::default(),
            parked: 0,
            prefixes: PrefixAllocator::new(settings.instance_id, settings.epoch, settings.shard),
            sequence: 0,
            next_channel: 0,
            acks: VecDeque::with_capacity(ACKS_PENDING_MAX),
            starved_since: None,
            authority,
            identity,
            entropy,
            ephemerals: Vec::with_capacity(EPHEMERALS_READY),
            handshakes_left: HANDSHAKES_PER_TURN,
            settings,
        }
    }

    /// The number of the next accepted share.
    pub fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Places for accepted shares that wait to be acknowledged.
    pub fn acks_free(&self) -> usize {
        ACKS_PENDING_MAX - self.acks.len()
    }

    /// Remember an accepted share until it is durable.
    pub fn pend(&mut self, ack: PendingAck) {
        self.counters.add(counter::SHARES, 1);
        let rest = Work(u128::from(self.counters.read(counter::WORK_REST)));
        let (whole, rest) = (ack.work + rest).split_whole();
        self.counters.add(counter::WORK, whole);
        self.counters.set(counter::WORK_REST, u64::try_from(rest.0).unwrap_or(0));
        self.acks.push_back(ack);
    }

    /// Whether frames may wait for credit, or have waited long enough to be judged without (D19).
    pub fn may_wait_for_credit(&mut self, now: Now) -> bool {
        match self.starved_since {
            None => {
                self.counters.add(counter::CREDIT_STALLS, 1);
                self.starved_since = Some(now.mono);
                true
            }
            Some(since) => now.mono < since.plus_millis(STARVED_MILLIS_MAX),
        }
    }

    /// Whether another handshake may be answered this turn; if so it is counted.
    pub fn may_shake_hands(&mut self) -> bool {
        let may = self.handshakes_left > 0;
        self.handshakes_left -= usize::from(may);
        may
    }

    /// A channel with a prefix of its own, or `None` if there is no prefix left, or no room. An
    /// extended one if its miner asks for bytes to roll. Difficulties: the first and the easiest.
    pub fn allocate(
        &mut self,
        now: Now,
        channel_id: u32,
        request: &OpenRequest<'_>,
        miner_id: Arc<str>,
        (difficulty, easiest): (Difficulty, Difficulty),
    ) -> Option<Channel> {
        let min_extranonce_size = request.min_extranonce_size;
        if self.counters.read(counter::CHANNELS) >= CHANNELS_PER_SHARD_MAX {
            return None;
        }
        let prefix = self.prefixes.allocate(self.board.tip_number())?;
        let full_bytes = self.settings.extranonce_bytes;
        let (kind, grant) = match min_extranonce_size {
            None => (Kind::standard(), Grant::for_standard(prefix, full_bytes)?),
            Some(size) => {
                let grant = Grant::for_extended(prefix, full_bytes, size)?;
                (Kind::extended(grant.extranonce_size.into()), grant)
            }
        };
        let key = ChannelKey(u64::from(self.settings.shard) << 56 | self.next_channel);
        self.next_channel += 1;
        self.counters.add(counter::CHANNELS, 1);
        self.counters.add(counter::CHANNEL_OPENS, 1);
        self.counters.add(counter::CHANNELS_EXTENDED, u64::from(min_extranonce_size.is_some()));
        Some(Channel::new(NewChannel {
            channel_id,
            key,
            miner_id,
            prefix,
            extranonce_prefix: grant.extranonce_prefix,
            kind,
            difficulty,
            easiest,
            nominal_hash_rate: request.nominal_hash_rate,
            now: now.mono,
        }))
    }

    /// A channel ended: its prefix rests, its name is to be forgotten, and what was held back of
    /// its refused shares is told.
    pub fn release(
        &mut self,
        now: Now,
        connection: ConnectionId,
        channel: &mut Channel,
        reason_code: &'static str,
    ) {
        let due = channel.refusals.finish();
        self.reports.push_refusals(due, || channel.sent(connection), &mut self.counters);
        if channel.seen.is_empty() {
            // Nothing was credited under it, so nothing can be credited twice.
            self.prefixes.give_back(channel.prefix);
        } else {
            self.prefixes.free(channel.prefix, self.board.tip_number());
        }
        self.counters.take(counter::CHANNELS);
        if channel.is_extended() {
            self.counters.take(counter::CHANNELS_EXTENDED);
        }
        self.closed.push_back(ClosedChannel { channel: channel.key, reason_code, at: now.unix });
    }

    /// Act 2 for `act1`.
    ///
    /// # Errors
    /// The handshake's.
    pub fn respond(
        &mut self,
        act1: &[u8; sv2::ACT1_BYTES],
        act2: &mut [u8; sv2::ACT2_BYTES],
    ) -> Result<Transport, NoiseError> {
        let ephemeral = match self.ephemerals.pop() {
            Some(ephemeral) => ephemeral,
            None => Ephemeral::generate(&mut self.entropy),
        };
        sv2::respond(&self.identity, ephemeral, act1, act2)
    }
}
