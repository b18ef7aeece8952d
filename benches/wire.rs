//! What the wire costs: a handshake, a message decoded, a message encoded and sealed, a frame
//! opened. `cargo bench --bench wire`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

mod measure;

use measure::{each, head, row, watch};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use sv2::message::mining::{
    NewMiningJob, SetNewPrevHash, SubmitSharesStandard, SubmitSharesSuccess,
};
use sv2::{
    ACT1_BYTES, ACT2_BYTES, AuthorityKey, Ephemeral, Frame, FrameHeader, FromMiner, Identity,
    Initiator, Opened, StaticKey, Transport, respond,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const UNIX_SECONDS: u32 = 1_800_000_000;
const HANDSHAKES: u64 = 200;
const MESSAGES: u64 = 20_000;

const SHARE: SubmitSharesStandard = SubmitSharesStandard {
    channel_id: 2,
    sequence_number: 7,
    job_id: 3,
    nonce: 0xdead_beef,
    ntime: UNIX_SECONDS,
    version: 0x2000_0000,
};

fn main() {
    head("wire");
    let mut random = ChaCha20Rng::seed_from_u64(1);
    let authority = AuthorityKey::generate(&mut random).unwrap();
    let static_key = StaticKey::generate(&mut random);
    let identity = Identity::issue(&authority, static_key, UNIX_SECONDS, 86_400).unwrap();
    handshakes(&identity, &mut random);
    messages(&identity, &mut random);
}

fn handshakes(identity: &Identity, random: &mut ChaCha20Rng) {
    each("an ephemeral key, made ahead of a handshake", HANDSHAKES, |_| {
        Ephemeral::generate(random)
    });
    row("handshake: act 1 in, act 2 out, key made ahead", HANDSHAKES, || {
        let mut waiting: Vec<([u8; ACT1_BYTES], Ephemeral)> = (0..HANDSHAKES)
            .map(|_| {
                let (_, act1) = Initiator::new(None, Ephemeral::generate(random));
                (act1, Ephemeral::generate(random))
            })
            .collect();
        let mut act2 = [0u8; ACT2_BYTES];
        watch(true);
        while let Some((act1, ephemeral)) = waiting.pop() {
            std::hint::black_box(respond(identity, ephemeral, &act1, &mut act2).unwrap());
        }
        watch(false);
    });
}

/// Both ends of one connection: the miner's and the gateway's.
fn connection(identity: &Identity, random: &mut ChaCha20Rng) -> (Transport, Transport) {
    let (initiator, act1) = Initiator::new(None, Ephemeral::generate(random));
    let mut act2 = [0u8; ACT2_BYTES];
    let gateway = respond(identity, Ephemeral::generate(random), &act1, &mut act2).unwrap();
    (initiator.finish(&act2, UNIX_SECONDS).unwrap(), gateway)
}

fn messages(identity: &Identity, random: &mut ChaCha20Rng) {
    let mut payload = Vec::new();
    SHARE.encode(&mut payload);
    let header = FrameHeader {
        extension_type: 0,
        channel_msg: true,
        msg_type: SubmitSharesStandard::MSG_TYPE,
        msg_length: payload.len() as u32,
    };
    each("decode SubmitSharesStandard", MESSAGES, |_| {
        let frame = Frame { header, payload: std::hint::black_box(&payload) };
        FromMiner::decode(&frame).unwrap();
    });
    let (mut miner, mut gateway) = connection(identity, random);
    row("open a sealed SubmitSharesStandard and decode it", MESSAGES, || {
        let mut sealed = Vec::new();
        for _ in 0..MESSAGES {
            miner.seal(&SHARE, &mut sealed).unwrap();
        }
        let mut at = 0;
        watch(true);
        while at < sealed.len() {
            let Opened::Frame { frame, consumed } = gateway.open(&mut sealed[at..]) else {
                panic!("a whole frame opens");
            };
            std::hint::black_box(FromMiner::decode(&frame).unwrap());
            at += consumed;
        }
        watch(false);
    });
    seals(&mut gateway);
}

fn seals(gateway: &mut Transport) {
    let success = SubmitSharesSuccess {
        channel_id: 2,
        last_sequence_number: 7,
        new_submits_accepted_count: 28,
        new_shares_sum: 28,
    };
    let job = NewMiningJob {
        channel_id: 2,
        job_id: 3,
        min_ntime: None,
        version: 0x2000_0000,
        merkle_root: [7; 32],
    };
    let tip = SetNewPrevHash {
        channel_id: 2,
        job_id: 3,
        prev_hash: [8; 32],
        min_ntime: UNIX_SECONDS,
        nbits: 0x1a00_ffff,
    };
    let mut wire = Vec::with_capacity(4096);
    let mut seal = |name: &str, write: &mut dyn FnMut(&mut Vec<u8>)| {
        each(name, MESSAGES, |_| {
            wire.clear();
            write(&mut wire);
        });
    };
    seal("encode and seal SubmitSharesSuccess", &mut |wire| gateway.seal(&success, wire).unwrap());
    seal("encode and seal NewMiningJob", &mut |wire| gateway.seal(&job, wire).unwrap());
    seal("encode and seal SetNewPrevHash", &mut |wire| gateway.seal(&tip, wire).unwrap());
}
