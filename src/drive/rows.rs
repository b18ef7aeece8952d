//! Which number of which core has which name: the table of `/metrics`.

use prometheus::proto::MetricType;

use crate::metrics::{control as c, forwarder as f, shard as s};

/// Names and values of labels.
pub type Labels = &'static [(&'static str, &'static str)];

/// Which core a row reads.
#[derive(Clone, Copy)]
pub enum From {
    /// The sum of all shards' cells.
    Shards(usize),
    /// Control's cell.
    Control(usize),
    /// The forwarder's cell.
    Forwarder(usize),
}

/// One row of the table: name, kind, page, labels, source.
pub type Row = (&'static str, MetricType, &'static str, Labels, From);

/// A number that only rises.
pub const COUNTER: MetricType = MetricType::COUNTER;
/// A number that rises and falls.
pub const GAUGE: MetricType = MetricType::GAUGE;

/// Everything that is one number. Rows of one name stand together.
pub const ROWS: &[&[Row]] = &[SHARDS_AND_CONTROL, FORWARDER];

const SHARDS_AND_CONTROL: &[Row] = &[
    (
        "connections",
        GAUGE,
        "Connections of miners",
        &[("state", "handshake")],
        From::Shards(s::IN_HANDSHAKE),
    ),
    ("connections", GAUGE, "", &[("state", "setup")], From::Shards(s::IN_SETUP)),
    ("connections", GAUGE, "", &[("state", "open")], From::Shards(s::OPEN)),
    ("connections_opened_total", COUNTER, "Connections accepted", &[], From::Shards(s::ACCEPTED)),
    (
        "connections_refused_total",
        COUNTER,
        "Connections refused at a limit",
        &[("cause", "limit")],
        From::Shards(s::REFUSED),
    ),
    (
        "noise_handshakes_total",
        COUNTER,
        "Handshakes completed",
        &[("result", "ok")],
        From::Shards(s::HANDSHAKES),
    ),
    (
        "channel_opens_total",
        COUNTER,
        "Requests for a channel",
        &[("result", "ok")],
        From::Shards(s::CHANNEL_OPENS),
    ),
    (
        "channel_opens_total",
        COUNTER,
        "",
        &[("result", "refused")],
        From::Shards(s::CHANNEL_REFUSALS),
    ),
    ("frames_received_total", COUNTER, "Frames opened", &[], From::Shards(s::FRAMES_RECEIVED)),
    (
        "bytes_received_total",
        COUNTER,
        "Sealed bytes received",
        &[],
        From::Shards(s::BYTES_RECEIVED),
    ),
    ("bytes_sent_total", COUNTER, "Sealed bytes sent", &[], From::Shards(s::BYTES_SENT)),
    ("jobs_sent_total", COUNTER, "Jobs given to channels", &[], From::Shards(s::JOBS_SENT)),
    (
        "prevhash_sent_total",
        COUNTER,
        "SetNewPrevHash given to channels",
        &[],
        From::Shards(s::TIPS_SENT),
    ),
    ("set_target_total", COUNTER, "SetTarget given", &[], From::Shards(s::SET_TARGETS)),
    (
        "refusals_unrecorded_total",
        COUNTER,
        "Refused shares of which no event tells",
        &[],
        From::Shards(s::REFUSALS_UNRECORDED),
    ),
    (
        "events_unrecorded_total",
        COUNTER,
        "Events that found no room on their way to the log",
        &[("core", "shard")],
        From::Shards(s::EVENTS_UNRECORDED),
    ),
    (
        "events_unrecorded_total",
        COUNTER,
        "Events that found no room on their way to the log",
        &[("core", "control")],
        From::Control(c::EVENTS_UNRECORDED),
    ),
    (
        "events_unrecorded_total",
        COUNTER,
        "",
        &[("core", "forwarder")],
        From::Forwarder(f::EVENTS_LOST),
    ),
    (
        "share_work_total",
        COUNTER,
        "Credited work in difficulty-1 units",
        &[],
        From::Shards(s::WORK),
    ),
    (
        "solutions_total",
        COUNTER,
        "Shares that were blocks, repetitions included",
        &[],
        From::Shards(s::BLOCKS),
    ),
    (
        "unknown_frames_total",
        COUNTER,
        "Frames of unknown types, skipped",
        &[],
        From::Shards(s::UNKNOWN_FRAMES),
    ),
    (
        "credit_stalls_total",
        COUNTER,
        "Times reading waited for a free ring slot",
        &[],
        From::Shards(s::CREDIT_STALLS),
    ),
    (
        "templates_received_total",
        COUNTER,
        "Templates taken into consideration",
        &[],
        From::Control(c::TEMPLATES),
    ),
    (
        "verdicts_total",
        COUNTER,
        "Rulings of the verifier",
        &[("verdict", "accept")],
        From::Control(c::ACCEPTS),
    ),
    ("verdicts_total", COUNTER, "", &[("verdict", "reject")], From::Control(c::REJECTS)),
    (
        "verdict_mismatches_total",
        COUNTER,
        "Rulings bound to other bytes than ours",
        &[],
        From::Control(c::MISMATCHES),
    ),
    ("tips_total", COUNTER, "Tips heard", &[], From::Control(c::TIPS)),
    (
        "prevhash_switches_total",
        COUNTER,
        "Prevhash switches",
        &[("outcome", "ok")],
        From::Control(c::SWITCHES_OK),
    ),
    (
        "prevhash_switches_total",
        COUNTER,
        "",
        &[("outcome", "late")],
        From::Control(c::SWITCHES_LATE),
    ),
    (
        "prevhash_switches_total",
        COUNTER,
        "",
        &[("outcome", "timeout")],
        From::Control(c::SWITCHES_TIMEOUT),
    ),
    (
        "prevhash_hold_active",
        GAUGE,
        "Whether miners are held on an old tip",
        &[],
        From::Control(c::HOLD),
    ),
    (
        "verifier_connected",
        GAUGE,
        "Whether the verifier can be reached",
        &[],
        From::Control(c::VERIFIER_UP),
    ),
    (
        "verifier_connects_total",
        COUNTER,
        "Times the verifier's link was made",
        &[],
        From::Control(c::VERIFIER_CONNECTS),
    ),
    (
        "ready",
        GAUGE,
        "Whether a component is ready",
        &[("component", "templates")],
        From::Control(c::SOURCE_UP),
    ),
    ("ready", GAUGE, "", &[("component", "verifier")], From::Control(c::VERIFIER_UP)),
    ("ready", GAUGE, "", &[("component", "work")], From::Control(c::READY)),
    (
        "jobs_published_total",
        COUNTER,
        "Jobs published to the shards",
        &[],
        From::Control(c::PUBLISHED),
    ),
    ("blocks_found_total", COUNTER, "Blocks found by miners", &[], From::Control(c::BLOCKS)),
    (
        "block_submits_total",
        COUNTER,
        "Answers of nodes to blocks",
        &[("result", "accepted")],
        From::Control(c::SUBMITS_ACCEPTED),
    ),
    (
        "block_submits_total",
        COUNTER,
        "",
        &[("result", "rejected")],
        From::Control(c::SUBMITS_REJECTED),
    ),
    (
        "block_submits_total",
        COUNTER,
        "",
        &[("result", "unreachable")],
        From::Control(c::SUBMITS_RETRIED),
    ),
    ("template_height", GAUGE, "Height of the current template", &[], From::Control(c::HEIGHT)),
    (
        "template_transactions",
        GAUGE,
        "Transactions of the current template",
        &[("slot", "current")],
        From::Control(c::TRANSACTIONS),
    ),
    (
        "template_weight_units",
        GAUGE,
        "Weight of the current template",
        &[("slot", "current")],
        From::Control(c::WEIGHT),
    ),
    (
        "template_fees_sats",
        GAUGE,
        "Fees of the current template",
        &[("slot", "current")],
        From::Control(c::FEES),
    ),
];

const FORWARDER: &[Row] = &[
    (
        "shares_taken_total",
        COUNTER,
        "Accepted shares taken over by the forwarder",
        &[],
        From::Forwarder(f::SHARES),
    ),
    (
        "share_forward_queue_depth",
        GAUGE,
        "Shares that are not settled",
        &[],
        From::Forwarder(f::QUEUE),
    ),
    ("share_forward_in_flight", GAUGE, "Batches in flight", &[], From::Forwarder(f::IN_FLIGHT)),
    (
        "share_forward_results_total",
        COUNTER,
        "Settled shares",
        &[("outcome", "delivered")],
        From::Forwarder(f::DELIVERED),
    ),
    (
        "share_forward_results_total",
        COUNTER,
        "",
        &[("outcome", "duplicate")],
        From::Forwarder(f::DUPLICATE),
    ),
    (
        "share_forward_results_total",
        COUNTER,
        "",
        &[("outcome", "rejected_by_upstream")],
        From::Forwarder(f::REFUSED),
    ),
    (
        "share_forward_results_total",
        COUNTER,
        "",
        &[("outcome", "dead_lettered")],
        From::Forwarder(f::DISCARDED),
    ),
    (
        "share_forward_requests_total",
        COUNTER,
        "Attempts to post a batch",
        &[("code", "2xx")],
        From::Forwarder(f::POSTS_2XX),
    ),
    (
        "share_forward_requests_total",
        COUNTER,
        "",
        &[("code", "3xx")],
        From::Forwarder(f::POSTS_3XX),
    ),
    (
        "share_forward_requests_total",
        COUNTER,
        "",
        &[("code", "4xx")],
        From::Forwarder(f::POSTS_4XX),
    ),
    (
        "share_forward_requests_total",
        COUNTER,
        "",
        &[("code", "5xx")],
        From::Forwarder(f::POSTS_5XX),
    ),
    ("share_forward_requests_total", COUNTER, "", &[("code", "io")], From::Forwarder(f::POSTS_IO)),
    (
        "share_forward_retries_total",
        COUNTER,
        "Attempts that are repeated",
        &[],
        From::Forwarder(f::RETRIES),
    ),
    (
        "journal_damages_total",
        COUNTER,
        "Places of the journal that could not be read back",
        &[],
        From::Forwarder(f::DAMAGES),
    ),
    (
        "share_forward_oldest_age_milliseconds",
        GAUGE,
        "Age of the oldest share in no batch",
        &[],
        From::Forwarder(f::OLDEST_MILLIS),
    ),
    (
        "share_forward_held",
        GAUGE,
        "Why only probes are posted: 1 failures, 2 a wrong answer",
        &[],
        From::Forwarder(f::HELD),
    ),
    (
        "dead_letters",
        GAUGE,
        "Shares that wait for an operator",
        &[],
        From::Forwarder(f::DEAD_LETTERS),
    ),
    ("events_head", GAUGE, "The event behind the last one on disk", &[], From::Forwarder(f::HEAD)),
    ("outbox_bytes", GAUGE, "Bytes that are not on disk", &[], From::Forwarder(f::UNSYNCED_BYTES)),
    (
        "storage_fault",
        GAUGE,
        "1 while the journal cannot be written",
        &[],
        From::Forwarder(f::DISK_FAULT),
    ),
    (
        "storage_faults_total",
        COUNTER,
        "Failed writes and syncs of the journal",
        &[],
        From::Forwarder(f::DISK_FAULTS),
    ),
    (
        "storage_free_bytes",
        GAUGE,
        "Free bytes where the journal is",
        &[],
        From::Forwarder(f::FREE_BYTES),
    ),
    (
        "storage_level",
        GAUGE,
        "0 all is taken, 1 miners are slowed, 2 shares are refused",
        &[],
        From::Forwarder(f::SPACE_LEVEL),
    ),
];
