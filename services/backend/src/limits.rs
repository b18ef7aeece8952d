//! Every bound of the backend on one page.

use std::time::Duration;

use work::contract::shares::BATCH_SHARES_MAX;

/// Bytes of one body. A share takes about 900, so a full batch fits twice.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
const _: () = assert!(BODY_BYTES_MAX >= BATCH_SHARES_MAX * 2 * 900);

/// Bodies that are read or wait for the ledger at the same time; more are answered 503.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 128;

/// Batches that wait for the ledger thread; more are answered 503.
pub const QUEUE_BATCHES_MAX: usize = 64;

/// Connections that are open at the same time; more wait in the listen backlog.
pub const CONNECTIONS_MAX: usize = 512;

/// Longest time the headers and the body of a request may take to arrive.
pub const BODY_READ_TIMEOUT: Duration = Duration::from_secs(10);

/// `Retry-After` of a 503, seconds.
pub const RETRY_AFTER_SECONDS: u64 = 1;

/// Characters of an id, a reason or a name in a batch.
pub const TEXT_BYTES_MAX: usize = 255;

/// Entries of one `webhook-signature` that are looked at.
pub const SIGNATURES_MAX: usize = 8;

/// Secrets that are accepted at the same time, so that one can be replaced without a gap.
pub const SECRETS_MAX: usize = 4;

/// Shortest secret, bytes.
pub const SECRET_BYTES_MIN: usize = 16;

/// Longest secret file, bytes.
pub const SECRET_FILE_BYTES_MAX: u64 = 4096;

/// Miners that `/status` lists, those with the most work first.
pub const STATUS_MINERS_MAX: usize = 50;

/// Answers that are kept by batch id. An older batch that comes again gets the same answer from
/// its share ids, which are kept for ever.
pub const BATCHES_KEPT: u64 = 100_000;

/// Time after which a ledger file that failed is tried again, unless a batch does so before.
pub const STORAGE_RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Longest wait for another program that has the ledger file locked; nobody should.
pub const STORAGE_LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// Time that requests under way get at a stop.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
