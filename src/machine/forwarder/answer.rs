//! What an answer of the pool's backend means: the status table, in one place.
//!
//! | answer | what becomes of the batch |
//! | --- | --- |
//! | 2xx that echoes the batch and has a result per share | settled, each share by its result |
//! | 409 to a repeated attempt, or to one share | settled as a duplicate, outcome not known (D28) |
//! | 409 to the first attempt of several | posted as two halves: some of them may be new |
//! | 408, 425, 429, 5xx, no answer | posted again, later |
//! | 413 | posted as two halves; a single share is a dead letter |
//! | 400, 422 | posted as two halves, down to the share that is at fault: a dead letter |
//! | everything else, any other 2xx too | nothing is posted until a probe succeeds (D29) |

use std::sync::Arc;

use journal::Outcome;

/// One share's result in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// What the backend says of it.
    pub outcome: Outcome,
    /// Its reason, shortened; empty without one.
    pub detail: Arc<str>,
}

/// What came of one POST, as the sender saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// HTTP status; 0 without an answer.
    pub status: u16,
    /// A result for each share, in the batch's order, if the body is a usable answer to it.
    pub results: Option<Vec<Given>>,
    /// How long the backend asks to be left alone, milliseconds.
    pub retry_after_ms: Option<u64>,
    /// What was wrong, shortened; empty if nothing was.
    pub detail: Arc<str>,
    /// Microseconds until the answer.
    pub rtt_micros: u32,
}

/// What is to be done with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Each share has its result.
    Settle,
    /// All of them were settled before.
    Duplicate,
    /// Post it again later.
    Retry,
    /// Post its halves.
    Split,
    /// Post nothing but probes: this is no backend, or not ours.
    Pause,
}

impl Posted {
    /// Nothing came back.
    pub fn unreachable(detail: Arc<str>, rtt_micros: u32) -> Posted {
        Posted { status: 0, results: None, retry_after_ms: None, detail, rtt_micros }
    }

    /// What it means.
    pub fn fate(&self) -> Fate {
        match self.status {
            200..300 if self.results.is_some() => Fate::Settle,
            409 => Fate::Duplicate,
            0 | 408 | 425 | 429 | 500.. => Fate::Retry,
            400 | 413 | 422 => Fate::Split,
            _ => Fate::Pause,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_table() {
        let fate = |status, is_usable: bool| {
            let results = is_usable.then(Vec::new);
            let detail = Arc::from("");
            Posted { status, results, retry_after_ms: None, detail, rtt_micros: 0 }.fate()
        };
        assert_eq!((fate(200, true), fate(202, true)), (Fate::Settle, Fate::Settle));
        for status in [200, 201, 204, 301, 302, 307, 308, 401, 403, 404, 405, 410, 418, 421] {
            assert_eq!(fate(status, false), Fate::Pause, "{status}");
        }
        for status in [0, 408, 425, 429, 500, 502, 503, 504, 599] {
            assert_eq!(fate(status, false), Fate::Retry, "{status}");
        }
        for status in [400, 413, 422] {
            assert_eq!(fate(status, false), Fate::Split, "{status}");
        }
        assert_eq!(fate(409, false), Fate::Duplicate);
    }
}
