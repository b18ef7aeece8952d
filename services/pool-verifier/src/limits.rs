//! Every bound of this service on one page.

use std::time::Duration;

use work::contract::verifier::PROPOSALS_OPEN_MAX;
use work::template::TEMPLATE_TRANSACTIONS_MAX;

/// Gateways connected at once.
pub const CONNECTIONS_MAX: usize = 32;

/// Time a connection has for its `Hello`.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest silence of a gateway, which pings every second.
pub const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Longest wait for a gateway to take what is written to it.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Lines that make no sense before a connection is closed.
pub const BAD_LINES_MAX: u32 = 5;

/// Lines waiting to be written to one gateway; a full queue stops its reader.
pub const LINES_OUT_MAX: usize = 16;
const _: () = assert!(LINES_OUT_MAX >= PROPOSALS_OPEN_MAX);

/// Bytes of those lines; a line that is longer alone takes all of them.
pub const BYTES_OUT_MAX: u32 = 8 * 1024 * 1024;

/// A line longer than this is parsed on a thread where it delays nobody.
pub const INLINE_LINE_BYTES_MAX: usize = 16 * 1024;

/// Proposals whose verdict is remembered, so that none is answered twice.
pub const ANSWERED_MAX: usize = 256;

/// Characters of a gateway's name.
pub const GATEWAY_ID_CHARS_MAX: usize = 128;

/// Transactions whose facts one connection keeps: two of the largest templates.
pub const CACHE_TRANSACTIONS_MAX: usize = 2 * TEMPLATE_TRANSACTIONS_MAX;

/// Memory of those facts; a full block's take at most about 8 MiB.
pub const CACHE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Full proposals judged at once; coinbase-only ones do not count.
pub const FULL_JUDGED_AT_ONCE: usize = 2;

/// Time between two looks at the chain.
pub const CHAIN_POLL: Duration = Duration::from_millis(100);

/// The same while a proposal waits for a tip.
pub const CHAIN_POLL_PARKED: Duration = Duration::from_millis(20);

/// Shortest time between two looks, however often one is asked for.
pub const CHAIN_POLL_GAP: Duration = Duration::from_millis(5);

/// Time the chain's source has for an answer.
pub const CHAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// A chain not confirmed for this long makes the service not ready.
pub const CHAIN_AGE_MAX: Duration = Duration::from_secs(3);

/// Bytes of an answer of the chain's source.
pub const CHAIN_ANSWER_BYTES_MAX: u64 = 256 * 1024;

/// Verdicts kept in memory for `/verdicts`.
pub const VERDICTS_RECENT_MAX: usize = 1_000;

/// Verdicts that `/verdicts` gives unless asked for more.
pub const VERDICTS_SHOWN: usize = 100;

/// Verdicts waiting for the disk; beyond that they are counted as dropped, and still answered.
pub const LOG_QUEUE_MAX: usize = 4_096;

/// Bytes of one file of the verdict log.
pub const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Files of the verdict log, the current one included.
pub const LOG_FILES_MAX: usize = 8;

/// Bytes of a configuration or policy file.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;
