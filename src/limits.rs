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

/// Acknowledgements that one step may tell before it looks at frames; with more channels than that
/// a connection goes on when these are sent.
pub const ACKS_PER_STEP: usize = 224;

/// Entries that one step may write: one for each frame, and the acknowledgements before them.
pub const ENTRIES_PER_STEP: usize = FRAMES_PER_TURN + ACKS_PER_STEP;

/// Refused shares of one channel that are told one by one in a second; more are told as one (D31).
pub const REFUSALS_PER_SECOND: u32 = 10;

/// Connections that one shard tells in a second as opened, as closed, or as wrongly authenticated;
/// more are only counted.
pub const CONNECTION_REPORTS_PER_SECOND: u32 = 256;

/// Reports of one shard that wait for the end of a step.
pub const REPORTS_WAITING_MAX: usize = 1_024;

/// Reports of one shard that wait for the forwarder.
pub const REPORT_RING: usize = 4_096;

/// Events of control that wait for the forwarder.
pub const TOLD_RING: usize = 1_024;

/// Bytes of one text from outside in an event of control's.
pub const TOLD_TEXT_BYTES_MAX: usize = 256;

/// Texts of one list in such an event.
pub const TOLD_LIST_MAX: usize = 64;

/// Transactions that an event names.
pub const TOLD_TXIDS_MAX: usize = 16;

/// Bytes that are kept of each text with which a miner describes its device.
pub const DEVICE_TEXT_BYTES_MAX: usize = 64;

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

/// Longest wait that a backend may ask for with Retry-After, milliseconds.
pub const RETRY_AFTER_MAX_MILLIS: u64 = 3_600_000;

/// Failures in a row after which only one batch at a time is posted, to see if the backend is
/// there again.
pub const FAILURES_BEFORE_PROBING: u32 = 20;

/// Bytes that are kept of a text from the backend.
pub const ERROR_DETAIL_BYTES_MAX: usize = 200;

/// Shares that wait for an operator's decision. More are not given up: nothing but probes is
/// posted then.
pub const DEAD_LETTERS_MAX: usize = 10_000;

/// Shares that one command of an operator is about.
pub const COMMAND_SHARES_MAX: usize = DEAD_LETTERS_MAX;

/// Blocks whose shares go to the backend ahead of all others; more of them, as on regtest, wait
/// like any share.
pub const BLOCKS_AHEAD_MAX: usize = 64;

/// Commands of operators that wait for the forwarder.
pub const COMMANDS_MAX: usize = 16;

/// Bytes of a segment of the journal.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// Bytes that wait for the disk before nothing more is taken from the rings. What one turn may add
/// beyond it is bounded by what is in flight.
pub const UNSYNCED_BYTES_MAX: usize = 8 << 20;

/// Bytes of the journal that are read back at once.
pub const READ_BACK_BYTES: usize = 256 << 10;

/// Milliseconds between two checkpoints of the journal, if anything changed.
pub const CHECKPOINT_MILLIS: u64 = 10_000;

/// Milliseconds between two looks at the free space.
pub const FREE_SPACE_MILLIS: u64 = 500;

/// Free bytes below which miners are slowed.
pub const FREE_BYTES_SLOW: u64 = 256 << 20;

/// Free bytes below which no share is taken: what is left is for results and blocks.
pub const FREE_BYTES_FULL: u64 = 128 << 20;

/// Milliseconds between two turns that take shares while miners are slowed. Less than
/// [`STARVED_MILLIS_MAX`], so that none is refused.
pub const SLOW_TAKE_MILLIS: u64 = 500;

/// Bytes of the journal that refused shares may take at once (D31).
pub const REFUSALS_BYTES_MAX: u64 = 4 << 20;

/// Bytes by which that refills in a second: 350 MB in a day at most.
pub const REFUSALS_BYTES_PER_SECOND: u64 = 4 << 10;

/// Bytes that the record of a connection's begin or end takes, about.
pub const VISIT_BYTES: u64 = 300;

/// Bytes of the journal that connections which come and go may take at once.
pub const VISITS_BYTES_MAX: u64 = 32 << 20;

/// Bytes by which that refills in a second.
pub const VISITS_BYTES_PER_SECOND: u64 = 16 << 10;

/// Milliseconds after which refused shares that found no room are told as a sum.
pub const UNRECORDED_MILLIS: u64 = 60_000;

/// Reason codes in that sum.
pub const REFUSAL_REASONS_MAX: usize = 64;

/// Verdicts that are remembered with their events, for the shares behind them.
pub const VERDICTS_REMEMBERED: usize = 256;

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

/// Readers of `/gateway/events` at once.
pub const EVENT_READERS_MAX: usize = 16;

/// Types of events that a reader may name.
pub const EVENT_TYPES_MAX: usize = 32;

/// Open shares of the miner a reader asks for that are remembered; others' results are looked up.
pub const MINER_SHARES_KEPT: usize = 65_536;

/// Exports of shares at once.
pub const EXPORTS_MAX: usize = 2;

/// Looks at single shares and at dead letters at once.
pub const LOOKUPS_MAX: usize = 4;

/// Threads of the ops pages that wait for the disk.
pub const READING_THREADS: usize = 4;

/// Bytes after which a piece of a stream of events is sent; the last record may go beyond it.
pub const PIECE_BYTES: usize = 64 * 1024;

/// Records that one piece of reading looks at, wanted or not.
pub const RECORDS_PER_PIECE: usize = 8_192;

const _: () = assert!(SHARES_PER_TURN >= FRAMES_PER_TURN); // `Output.shares` cannot overflow
const _: () = assert!(ENTRIES_PER_STEP >= SHARES_PER_TURN + ACKS_PER_STEP);
const _: () = assert!(REPORTS_WAITING_MAX >= 2 * FRAMES_PER_TURN); // a step alone loses none
const _: () = assert!(RECEIVE_BUFFERS.is_power_of_two());
const _: () = assert!(STASH_BYTES_MAX > 80 * 1024 + RECEIVE_BUFFER_BYTES);
const _: () = assert!(JOBS_KEPT_MAX > CANDIDATES_MAX);
const _: () = assert!(BATCHES_WAITING_MAX > SENDER_THREADS_MAX);
const _: () = assert!(SLOW_TAKE_MILLIS < STARVED_MILLIS_MAX); // slowed miners are not refused
const _: () = assert!(FREE_BYTES_FULL > 2 * SEGMENT_BYTES - 1); // the next segment fits
