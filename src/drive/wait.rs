//! Sleeping on a bell.
//!
//! Each executor of the gateway runs one task, so the task itself sleeps in the kernel: a shard in
//! its ring, control and the forwarder in poll(2) on their bell's eventfd: one ring less on the way
//! than an await of the eventfd through glommio, and nothing of its scheduling in between
//! (docs/decisions.md).

use std::time::Duration;

use rg_ring::Bell;
use work::{Mono, Now};

/// Longest sleep: whatever goes wrong with a bell costs this much and no more.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// How long to sleep for `deadline`.
pub fn span(now: Now, deadline: Option<Mono>) -> Duration {
    match deadline {
        Some(at) => Duration::from_micros(at.micros_since(now.mono)).min(SLEEP_MAX),
        None => SLEEP_MAX,
    }
}

/// Sleep until the bell rings or `deadline`. The owner has said `prepare_sleep` and looked once
/// more.
pub fn sleep(bell: &Bell, now: Now, deadline: Option<Mono>) {
    let span = span(now, deadline);
    if span.is_zero() {
        bell.awake();
    } else {
        bell.wait_blocking(Some(span));
    }
}
