//! Records as bytes: every record comes back, and no other bytes are one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use journal::codec::{self, Malformed, TEXT_BYTES_MAX};
use journal::record::{Attempt, Outcome, RECORD_BYTES_MAX, Record, Settled, Settlement};
use journal::share::{Refusal, Share};
use proptest::collection::vec;
use proptest::prelude::*;
use work::{BlockHash, Difficulty, TemplateId, Txid, UnixTime, Work};

fn text() -> impl Strategy<Value = Arc<str>> {
    "\\PC{0,80}".prop_map(Arc::from)
}

fn hash() -> impl Strategy<Value = BlockHash> {
    any::<[u8; 32]>().prop_map(BlockHash)
}

fn difficulty() -> impl Strategy<Value = Difficulty> {
    prop_oneof![
        any::<u64>().prop_map(|whole| Difficulty::from_work(Work(u128::from(whole.max(1)) << 32))),
        (0u32..32).prop_map(|exponent| Difficulty::from_work(Work(1 << exponent))),
    ]
    .prop_map(Option::unwrap)
}

prop_compose! {
    fn share()(
        share_id in any::<u128>(),
        hashes in (hash(), hash()),
        (epoch, shard) in any::<(u16, u8)>(),
        long in any::<[u64; 9]>(),
        short in any::<[u32; 9]>(),
        extranonce in vec(any::<u8>(), 0..=32),
        difficulty in difficulty(),
        (block_found, hold) in any::<(bool, bool)>(),
        miner_id in text(),
        worker_id in proptest::option::of(text()),
    ) -> Share {
        Share {
            share_id,
            share_hash: hashes.0,
            epoch,
            shard,
            sequence: long[0],
            connection_id: long[1],
            channel_key: long[2],
            channel_id: short[0],
            opened_event: long[3],
            verdict_event: long[4],
            accepted_at: UnixTime(long[5]),
            latency_micros: short[1],
            sequence_number: short[2],
            job_id: short[3],
            template_id: TemplateId(long[6]),
            height: short[4],
            prev_hash: hashes.1,
            nbits: short[5],
            version: short[6],
            ntime: short[7],
            nonce: short[8],
            extranonce: extranonce.into_iter().collect(),
            coinbase_value: long[7],
            fees: long[8],
            difficulty,
            block_found,
            coinbase_txid: block_found.then_some(Txid(hashes.1.0)),
            hold,
            miner_id,
            worker_id,
        }
    }
}

prop_compose! {
    fn refusal()(
        share_id in any::<u128>(),
        share_hash in proptest::option::of(hash()),
        short in any::<[u32; 4]>(),
        (at, connection_id) in any::<(u64, u64)>(),
        (reason_code, miner_id) in (text(), text()),
    ) -> Refusal {
        Refusal {
            share_id,
            share_hash,
            count: short[0],
            at: UnixTime(at),
            connection_id,
            channel_id: short[1],
            sequence_number: short[2],
            job_id: short[3],
            reason_code,
            miner_id,
        }
    }
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Delivered),
        Just(Outcome::Duplicate),
        Just(Outcome::RejectedByUpstream),
        Just(Outcome::DeadLettered),
    ]
}

fn settlement() -> impl Strategy<Value = Settlement> {
    (any::<u64>(), any::<u128>(), any::<u64>(), outcome(), text()).prop_map(
        |(share_event, share_id, at, outcome, error_detail)| Settlement {
            share_event,
            share_id,
            accepted_at: UnixTime(at),
            outcome,
            error_detail,
        },
    )
}

fn record() -> impl Strategy<Value = Record> {
    let numbers = || vec(any::<u64>(), 0..20);
    prop_oneof![
        share().prop_map(Record::Accepted),
        refusal().prop_map(Record::Refused),
        any::<(u16, u8, u64, u64, u32, u128)>().prop_map(|fields| {
            let (epoch, shard, channel_key, through, count, work) = fields;
            let work = Work(work);
            Record::Acknowledged { epoch, shard, channel_key, through, count, work }
        }),
        (text(), any::<(u32, u16, u32)>(), text(), numbers()).prop_map(
            |(batch_id, (attempt, status, rtt_micros), error_detail, shares)| {
                let attempt =
                    Attempt { batch_id, attempt, status, rtt_micros, error_detail, shares };
                Record::Attempted(attempt)
            }
        ),
        (text(), any::<(u16, u32, u32)>(), vec(settlement(), 0..10)).prop_map(
            |(batch_id, (status, attempts, rtt_micros), results)| {
                Record::Settled(Settled { batch_id, status, attempts, rtt_micros, results })
            }
        ),
        (text(), any::<u16>(), text(), numbers()).prop_map(
            |(batch_id, status, error_detail, shares)| {
                Record::DeadLettered { batch_id, status, error_detail, shares }
            }
        ),
        numbers().prop_map(|shares| Record::Replayed { shares }),
        (text(), text()).prop_map(|(kind, body)| Record::Told { kind, body }),
        vec((text(), any::<u64>()), 0..34).prop_map(|counts| Record::Unrecorded { counts }),
        any::<(u64, u64, u16)>().prop_map(|(settled_below, oldest_dead, epoch)| {
            Record::Checkpoint { settled_below, oldest_dead, epoch }
        }),
    ]
}

fn encoded(record: &Record, event_id: u64, at: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode(record, event_id, UnixTime(at), &mut bytes);
    bytes
}

proptest! {
    #[test]
    fn every_record_comes_back(record in record(), event_id: u64, at: u64) {
        let bytes = encoded(&record, event_id, at);
        let framed = codec::decode(&bytes).unwrap();
        prop_assert_eq!(framed.record, record);
        prop_assert_eq!((framed.event_id, framed.at.0), (event_id, at));
    }

    #[test]
    fn what_is_cut_or_flipped_is_none(record in record(), place: prop::sample::Index, bit in 0..8) {
        let mut bytes = encoded(&record, 7, 8);
        let at = place.index(bytes.len());
        prop_assert!(codec::decode(&bytes[..at]).is_err());
        bytes[at] ^= 1u8 << bit;
        prop_assert!(codec::decode(&bytes).is_err());
    }

    #[test]
    fn any_body_is_a_record_or_none(kind: u8, body in vec(any::<u8>(), 0..400)) {
        // Whatever is read is what would be written.
        if let Ok(record) = codec::decode_body(kind, &body) {
            let bytes = encoded(&record, 0, 0);
            prop_assert_eq!(&bytes[25..], &body[..]);
        }
    }

    #[test]
    fn a_changed_body_is_a_record_or_none(
        record in record(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let bytes = encoded(&record, 0, 0);
        let (kind, mut body) = (bytes[8], bytes[25..].to_vec());
        for (place, byte) in changes {
            if !body.is_empty() {
                let at = place.index(body.len());
                body[at] = byte;
            }
        }
        if let Ok(record) = codec::decode_body(kind, &body) {
            prop_assert_eq!(&encoded(&record, 0, 0)[25..], &body[..]);
        }
    }
}

#[test]
fn types_are_contracts() {
    let types = [
        (
            3,
            Record::Acknowledged {
                epoch: 0,
                shard: 0,
                channel_key: 0,
                through: 0,
                count: 0,
                work: Work::ZERO,
            },
        ),
        (7, Record::Replayed { shares: Vec::new() }),
        (8, Record::Told { kind: "".into(), body: "".into() }),
        (9, Record::Unrecorded { counts: Vec::new() }),
        (10, Record::Checkpoint { settled_below: 1, oldest_dead: 2, epoch: 3 }),
    ];
    for (kind, record) in types {
        assert_eq!(encoded(&record, 0, 0)[8], kind);
    }
    // The layout itself, byte for byte.
    let checkpoint = Record::Checkpoint { settled_below: 1, oldest_dead: 2, epoch: 3 };
    let bytes = encoded(&checkpoint, 4, 5);
    let content = [
        &[10][..],
        &4u64.to_le_bytes(),
        &5u64.to_le_bytes(),
        &1u64.to_le_bytes(),
        &2u64.to_le_bytes(),
        &[3, 0],
    ]
    .concat();
    assert_eq!(bytes[..4], (content.len() as u32).to_le_bytes());
    assert_eq!(bytes[4..8], crc32c::crc32c(&content).to_le_bytes());
    assert_eq!(bytes[8..], content);
}

#[test]
fn what_is_too_long_is_cut_or_left_out() {
    let kind: Arc<str> = "é".repeat(TEXT_BYTES_MAX).into();
    let body: Arc<str> = "x".repeat(RECORD_BYTES_MAX).into();
    let bytes = encoded(&Record::Told { kind, body }, 1, 2);
    assert!(bytes.len() <= RECORD_BYTES_MAX);
    let Record::Told { kind, body } = codec::decode(&bytes).unwrap().record else { panic!() };
    assert_eq!(kind.len(), TEXT_BYTES_MAX);
    assert_eq!(&*body, "{\"omitted_bytes\":1048576}");
}

#[test]
fn announced_sizes_are_not_believed() {
    let huge = u32::MAX.to_le_bytes();
    assert_eq!(codec::decode_body(7, &huge), Err(Malformed::Field(7)));
    assert_eq!(codec::decode(&huge), Err(Malformed::Length(u32::MAX)));
    assert_eq!(codec::decode_body(0, &[]), Err(Malformed::Type(0)));
    assert_eq!(codec::decode_body(11, &[]), Err(Malformed::Type(11)));
    assert_eq!(codec::decode_body(7, &[0, 0, 0, 0, 1]), Err(Malformed::Trailing(7)));
}
