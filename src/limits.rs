//! Every bound in the program on one page.
//!
//! A queue, table or loop that is not bounded by one of these is a defect. Relations that other
//! code relies on are asserted here, at compile time.

/// Frames handled for one connection before the others get their turn.
///
/// A miner that sends more is not punished; it continues next turn.
pub const FRAMES_PER_TURN: usize = 32;

/// Shares that one step may accept.
pub const SHARES_PER_TURN: usize = FRAMES_PER_TURN;

/// Sealed bytes that one step may write for one connection.
///
/// One catch-up of a channel is three frames of fewer than 120 bytes; a connection with more
/// channels than fit goes on when these bytes are sent.
pub const WIRE_BYTES_PER_TURN: usize = 16 * 1024;

/// Sealed replies that may wait behind a send in flight before the connection is no longer read.
pub const WIRE_WAITING_PAUSE: usize = 4 * 1024;

/// Sealed replies that may wait behind a send in flight at all.
pub const WIRE_WAITING_MAX: usize = WIRE_WAITING_PAUSE + WIRE_BYTES_PER_TURN;

/// Received bytes that wait for the rest of their frame, or for their turn.
///
/// Larger than one receive buffer plus the largest frame of the mining protocol that we take.
pub const STASH_BYTES_MAX: usize = 256 * 1024;

/// Bytes of one receive buffer that the kernel fills.
pub const RECEIVE_BUFFER_BYTES: usize = 2 * 1024;

/// Receive buffers of one shard, a power of two.
pub const RECEIVE_BUFFERS: u16 = 4096;

/// Completions taken from the ring before bells and deadlines are looked at again.
pub const COMPLETIONS_PER_TURN: usize = 512;

/// Connections that catch up before completions are looked at again.
pub const CATCH_UPS_PER_TURN: usize = 256;

/// Board updates that wait for a shard. A shard that lets them run full has hung.
pub const BOARD_RING: usize = 64;

/// Blocks that wait for the control core.
pub const SOLUTION_RING: usize = 256;

/// Blocks a shard keeps until the solution ring has room.
pub const SOLUTIONS_WAITING_MAX: usize = 256;

/// Jobs a shard remembers over the three last tips, so that a block on any of them is still one.
pub const JOBS_KEPT_MAX: usize = 256;

/// Tips whose jobs are remembered (D17).
pub const TIPS_KEPT: u64 = 3;

/// Milliseconds after which a job is given again with a newer time: a Bitaxe leaves after 180 s
/// of silence.
pub const JOB_REFRESH_MILLIS: u64 = 45_000;

/// Fresh jobs behind a SetTarget whose numbers one connection remembers; a further one waits until
/// the work under the oldest is forgotten.
pub const FRESH_JOBS_REMEMBERED: usize = 16;

/// Bytes of a worker's name by extension 0x0002.
pub const WORKER_ID_BYTES_MAX: usize = 32;

/// Bytes of the extranonce that a miner may roll.
pub const ROLLED_BYTES_MAX: usize = 16;

/// Targets that a channel remembers, its current one among them.
pub const TARGETS_PER_CHANNEL: usize = 4;

/// Channels that one connection may open in a span, in multiples of those it may have at once: a
/// proxy opens one whenever a device comes back.
pub const OPENS_PER_CHANNEL_MAX: usize = 4;

/// Milliseconds of such a span.
pub const OPENS_SPAN_MILLIS: u64 = 600_000;

/// Requests for a channel of one shard that may wait for a verified job (D38), or for credit. A
/// connection has as many as it may have channels.
pub const OPENS_PARKED_MAX: usize = 16_384;

/// Bytes of a user identity that are kept.
pub const USER_IDENTITY_BYTES_MAX: usize = 255;

/// Accepted shares of one shard that wait to be acknowledged.
pub const ACKS_PENDING_MAX: usize = 65_536;

/// How long a shard lets miners wait for a free ring slot before it judges without one (D19).
pub const STARVED_MILLIS_MAX: u64 = 1_000;

/// Ephemeral keys a shard makes ahead of the handshakes that will use them.
pub const EPHEMERALS_READY: usize = 64;

/// Life of a certificate in seconds; a new one is signed when half of it is over.
pub const CERTIFICATE_SECONDS: u32 = 86_400;

/// Seconds by which a certificate is back-dated: clocks of miners are off.
pub const CERTIFICATE_BACKDATED_SECONDS: u32 = 3_600;

/// Templates control has under consideration at once.
pub const CANDIDATES_MAX: usize = 16;

/// Blocks control remembers having submitted, so that a repeated share is not sent again.
pub const SOLUTIONS_REMEMBERED: usize = 256;

/// Attempts to submit one block to one node before it is left to the next start.
pub const SUBMIT_ATTEMPTS_MAX: u32 = 10_000;

/// First wait before a block is submitted again, milliseconds; doubles up to the maximum.
pub const SUBMIT_RETRY_MILLIS: u64 = 100;

/// Longest wait before a block is submitted again, milliseconds.
pub const SUBMIT_RETRY_MAX_MILLIS: u64 = 5_000;

/// Nodes that blocks are submitted to.
pub const NODES_MAX: usize = 8;

/// Facts that wait for the control core from its links.
pub const CONTROL_FACTS_MAX: usize = 1_024;

/// Batches that wait for a sender thread.
pub const BATCHES_WAITING_MAX: usize = 128;

/// Threads that post batches to the backend.
pub const SENDER_THREADS_MAX: usize = 8;

/// Entries the forwarder takes from one ring before it looks at the next.
pub const ENTRIES_PER_TURN: usize = 1_024;

/// Channels of one shard.
pub const CHANNELS_PER_SHARD_MAX: u64 = 262_144;

/// Channels of one connection that ended and whose late shares are still looked at for a block.
pub const CHANNELS_ENDED_KEPT: usize = 16;

/// Handshakes that one turn answers: each costs two key agreements, and shares must not wait.
pub const HANDSHAKES_PER_TURN: usize = 8;

/// Milliseconds between two looks at the deadlines of all connections.
pub const SWEEP_MILLIS: u64 = 500;

/// Connections whose deadlines one turn looks at.
pub const SWEEP_PER_TURN: usize = 1_024;

/// Milliseconds after which a peer that takes nothing of what it is sent is closed.
pub const WRITE_STALL_MILLIS: u64 = 10_000;

/// Milliseconds after which a template without a verdict is proposed again.
pub const PROPOSE_AGAIN_MILLIS: u64 = 1_000;

/// Descriptors that are kept for everything but miners.
pub const DESCRIPTORS_RESERVED: u64 = 256;

/// How long blocks on their way to a node are waited for at the end, milliseconds.
pub const SUBMIT_DRAIN_MILLIS: u64 = 10_000;

/// First wait before a failed batch is posted again, milliseconds; doubles up to the maximum.
pub const RETRY_FIRST_MILLIS: u64 = 100;

/// Longest wait before a failed batch is posted again, milliseconds.
pub const RETRY_MAX_MILLIS: u64 = 30_000;

/// Bytes of a backend's answer that are read.
pub const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// Multiple of a channel's goal at which its bucket of shares refills (D50).
pub const SHARE_RATE_FACTOR: u32 = 10;

/// Minutes of a channel's goal that its bucket of shares holds.
///
/// With the refill of one job's life this stays below the room for the hashes of a job.
pub const SHARE_BURST_MINUTES: f64 = 10.0;

/// Fewest shares that a channel's bucket holds.
pub const SHARE_BURST_MIN: u32 = 64;

/// Most shares that a channel's bucket holds.
pub const SHARE_BURST_MAX: u32 = 32_768;

/// Shares above the rate by which a channel's true rate is measured.
pub const FLOOD_MEASURED_SHARES: u32 = 16;

/// Milliseconds that a miner has to hear of a target before missing it is ignoring it.
pub const FLOOD_GRACE_MILLIS: u64 = 10_000;

/// Milliseconds that shares found under an older target may take to drain.
pub const FLOOD_LATE_MILLIS: u64 = 60_000;

/// Bursts of shares above the rate that miss every target before that is ignoring it.
pub const FLOOD_JUNK_BURSTS: u32 = 4;

/// SetTargets that a flooding channel may ignore; then its connection is closed (D39).
pub const SET_TARGETS_IGNORED_MAX: u32 = 3;

/// Addresses whose failures are remembered; whoever failed least leaves first.
pub const AUTH_THROTTLE_ADDRESSES_MAX: usize = 4_096;

/// Failures that one address has at once before it is throttled.
pub const FAILURES_PER_ADDRESS: u32 = 60;

/// Milliseconds after which one failure of an address is forgiven.
pub const FAILURE_FORGIVEN_MILLIS: u64 = 1_000;

const _: () = assert!(SHARES_PER_TURN >= FRAMES_PER_TURN); // `Output.shares` cannot overflow
const _: () = assert!(RECEIVE_BUFFERS.is_power_of_two());
const _: () = assert!(STASH_BYTES_MAX > 80 * 1024 + RECEIVE_BUFFER_BYTES);
const _: () = assert!(JOBS_KEPT_MAX > CANDIDATES_MAX);
const _: () = assert!(BATCHES_WAITING_MAX > SENDER_THREADS_MAX);
