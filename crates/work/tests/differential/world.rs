//! Both channels side by side. Every share is shown to both, and what they say is compared; what
//! is true of a share is derived here with the `bitcoin` crate and from what the reference made
//! of the template, without the code that is under test.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bitcoin::hashes::Hash as _;
use channels_sv2::merkle_root::merkle_root_from_path;
use work::payout::Payout;
use work::share::{NTIME_FUTURE_SECONDS, NTIME_ROLL_AHEAD_SECONDS};
use work::{BlockHash, Difficulty, Job, Template, TemplateId, Tip, Transaction, Txid, Wtxid};

use crate::corpus::{Body, Clock, NBITS, Pick, START, Setup, ShareSeed, Step, TIPS_MAX, Want};
use crate::deviations::{DEVIATIONS, Facts};
use crate::ours::Ours;
use crate::theirs::{TAG, TheirWork, Theirs};
use crate::{Block, Outcome, Share};

/// Nonces that are tried for one share.
const NONCES: u32 = 2_048;

/// Tips on whose jobs both sides agree that they are stale, not unknown: the one before.
const TIPS_STALE_THERE: usize = 1;

/// A job as this side remembers it, with the time it was given.
struct Known {
    work: TheirWork,
    template: Arc<Template>,
    told_ntime: u32,
    tip: usize,
    given_at: u32,
    /// Its own difficulty, and those announced while it was the newest.
    difficulties: Vec<Difficulty>,
}

/// Two channels, and what is known about them.
pub struct World {
    setup: Setup,
    pub ours: Ours,
    pub theirs: Theirs,
    now: u32,
    tip: usize,
    known: Vec<Known>,
    sent: Vec<Share>,
    credited: HashSet<[u8; 32]>,
    /// How often each verdict and each deviation came up.
    pub met: HashMap<&'static str, u64>,
}

impl World {
    /// Two channels of one kind.
    pub fn new(setup: &Setup) -> World {
        let ours = Ours::new(setup);
        let grant = &ours.grant;
        let theirs = Theirs::new(setup, &grant.extranonce_prefix, grant.extranonce_size);
        assert_eq!(theirs.extranonce_prefix(), &grant.extranonce_prefix[..]);
        let mut world = World {
            setup: setup.clone(),
            ours,
            theirs,
            now: START,
            tip: 0,
            known: Vec::new(),
            sent: Vec::new(),
            credited: HashSet::new(),
            met: HashMap::new(),
        };
        world.theirs.set_target(world.ours.difficulty().target());
        world
    }

    /// Do one step. Returns the names of the deviations it showed.
    ///
    /// # Errors
    /// A sentence about the first difference that no deviation explains.
    pub fn step(&mut self, step: &Step) -> Result<Vec<&'static str>, String> {
        match step {
            Step::Tip { prev, nbits, body } => self.give(*prev, *nbits, body)?,
            Step::Job(body) => {
                let tip = &self.newest().template.tip;
                self.give(tip.prev_hash.0[0] - 1, tip.nbits, body)?;
            }
            Step::Difficulty(value) => {
                let difficulty = Difficulty::at_most(*value);
                self.ours.set_difficulty(difficulty);
                self.theirs.set_target(difficulty.target());
                self.known.last_mut().unwrap().difficulties.push(difficulty);
            }
            Step::Wait(seconds) => self.now += seconds,
            Step::Share(seed) => {
                let share = self.share(seed);
                return self.submit(share);
            }
            Step::Repeat { back, on_newest } => {
                let Some(at) = self.sent.len().checked_sub(back + 1) else { return Ok(Vec::new()) };
                let mut share = self.sent[at].clone();
                if *on_newest {
                    share.job_id = self.newest().work.job_id;
                }
                return self.submit(share);
            }
        }
        Ok(Vec::new())
    }

    /// Our decision on a share that the reference is not shown.
    pub fn ours_alone(&mut self, step: &Step) -> Outcome {
        let Step::Share(seed) = step else { return Outcome::default() };
        let share = self.share(seed);
        self.ours.on_share(&share, self.now)
    }

    fn newest(&self) -> &Known {
        self.known.last().unwrap()
    }

    /// Give both the same work, and compare what miners would hash.
    fn give(&mut self, prev: u8, nbits: u32, body: &Body) -> Result<(), String> {
        let prev_hash = BlockHash([prev + 1; 32]);
        let tip = Tip { prev_hash, nbits, min_ntime: START - 600 + u32::from(prev) };
        let is_new_tip = self.known.last().is_none_or(|known| {
            (known.template.tip.prev_hash, known.template.tip.nbits) != (prev_hash, nbits)
        });
        if is_new_tip && self.tip == TIPS_MAX {
            return Ok(());
        }
        self.tip += usize::from(is_new_tip);
        let template = Arc::new(template(self.known.len() as u64 + 1, tip, prev, body));
        let told_ntime = tip.min_ntime.max(template.cur_time);
        let payouts = [3u32, 1].map(|share| Payout { script_pubkey: vec![0x51; 30], share });
        let work = self.theirs.give(&template, &payouts, is_new_tip);
        let full = self.ours.grant.extranonce_prefix.len() + self.rollable();
        let job = Arc::new(Job::new(Arc::clone(&template), &payouts, TAG, full).unwrap());
        if let Some((prefix, suffix)) = &work.parts {
            same("coinbase prefix", &job.coinbase.prefix, prefix)?;
            same("coinbase suffix", &job.coinbase.suffix, suffix)?;
        }
        if let Some(root) = &work.root {
            same("root", &job.merkle_root(&self.ours.grant.extranonce_prefix, &[]).0, root)?;
        }
        self.ours.give(work.job_id, &job, told_ntime, self.now, is_new_tip);
        self.known.push(Known {
            work,
            template,
            told_ntime,
            tip: self.tip,
            given_at: self.now,
            difficulties: vec![self.ours.difficulty()],
        });
        Ok(())
    }

    fn rollable(&self) -> usize {
        usize::from(self.ours.grant.extranonce_size)
    }

    /// A share as the seed describes it.
    fn share(&self, seed: &ShareSeed) -> Share {
        let known = match seed.job {
            Pick::Back(back) => &self.known[self.known.len().saturating_sub(back + 1)],
            Pick::Unknown(_) => self.newest(),
        };
        let beyond = if let Pick::Unknown(beyond) = seed.job { beyond } else { 0 };
        let elapsed = self.now - known.given_at;
        let base = match seed.clock {
            Clock::TipFloor => known.template.tip.min_ntime,
            Clock::JobFloor => known.told_ntime,
            Clock::Now => self.now,
            Clock::Rolled => known.told_ntime + elapsed + NTIME_ROLL_AHEAD_SECONDS,
            Clock::TwoHours => known.work.min_ntime + 7_200,
            Clock::Ahead => self.now + NTIME_FUTURE_SECONDS,
        };
        let bytes = self.rollable().saturating_add_signed(seed.extranonce_off.into());
        let bytes = if self.setup.is_standard { 0 } else { bytes };
        let mut share = Share {
            job_id: known.work.job_id + beyond,
            nonce: seed.nonce,
            ntime: u32::try_from(i64::from(base) + seed.offset).unwrap(),
            version: known.template.version ^ seed.rolled,
            extranonce: vec![seed.extranonce; bytes],
        };
        let mut header = header(known, &share, &self.ours.grant.extranonce_prefix);
        for _ in 0..NONCES {
            header.nonce = share.nonce;
            let hash = header.block_hash();
            let is_block = bits_target(known).is_met_by(hash);
            let is_good = target(&known.difficulties[0]).is_met_by(hash);
            let found = match seed.want {
                Want::Any => true,
                Want::Good => !is_block && is_good,
                Want::Low => !is_block && !is_good,
                Want::Block => is_block && is_good,
                Want::LowBlock => is_block && !is_good,
            };
            if found {
                break;
            }
            share.nonce = share.nonce.wrapping_add(1);
        }
        share
    }

    /// Show a share to both, and compare: ours must be theirs after the deviations that apply.
    fn submit(&mut self, share: Share) -> Result<Vec<&'static str>, String> {
        let facts = self.facts(&share);
        let theirs = self.theirs.on_share(&share);
        let ours = self.ours.on_share(&share, self.now);
        let mut expected = theirs.clone();
        let mut shown = Vec::new();
        for deviation in DEVIATIONS {
            let before = expected.clone();
            (deviation.apply)(&facts, &mut expected);
            if !expected.is_like(&before) {
                shown.push(deviation.name);
            }
        }
        if !ours.is_like(&expected) {
            return Err(format!(
                "ours {ours:?}\ntheirs {theirs:?}\nexpected {expected:?} after {shown:?}\n\
                 share {share:?}\nfacts {facts:?}\nsetup {:?}",
                self.setup
            ));
        }
        if let (Some(hash), None) = (facts.hash, ours.code) {
            self.credited.insert(hash);
        }
        for name in shown.iter().copied().chain([ours.code.unwrap_or("accepted")]) {
            *self.met.entry(name).or_default() += 1;
        }
        self.sent.push(share);
        Ok(shown)
    }

    fn facts(&self, share: &Share) -> Facts {
        let Some(known) = self.known.iter().find(|known| known.work.job_id == share.job_id) else {
            return Facts::default();
        };
        let own = known.difficulties[0];
        let announced = known.difficulties[known.difficulties.len() - 1];
        let easiest = if announced.work() < own.work() { announced } else { own };
        let elapsed = self.now - known.given_at;
        let rolled = known.told_ntime + elapsed + NTIME_ROLL_AHEAD_SECONDS;
        let mut facts = Facts {
            is_known: true,
            tips_back: self.tip - known.tip,
            tips_back_stale_there: TIPS_STALE_THERE,
            has_length: share.extranonce.len() == self.rollable(),
            rolled: share.version ^ known.template.version,
            version_mask: self.setup.version_mask,
            ntime: share.ntime,
            floor_here: known.told_ntime,
            ceiling_here: rolled.min(self.now + NTIME_FUTURE_SECONDS),
            ceiling_there: known.work.min_ntime + 7_200,
            credit_own: own.as_f64(),
            credit_easiest: easiest.as_f64(),
            ..Facts::default()
        };
        if facts.has_length {
            let hash = header(known, share, &self.ours.grant.extranonce_prefix).block_hash();
            let bytes = *AsRef::<[u8; 32]>::as_ref(&hash);
            facts.hash = Some(bytes);
            facts.meets_own = target(&own).is_met_by(hash);
            facts.meets_easiest = target(&easiest).is_met_by(hash);
            facts.was_credited = self.credited.contains(&bytes);
            if bits_target(known).is_met_by(hash) {
                facts.block = Some(Block(self.coinbase(known, share)));
            }
        }
        facts
    }

    /// The coinbase of a found block: the stripped parts, parsed, and the witness put in.
    fn coinbase(&self, known: &Known, share: &Share) -> Vec<u8> {
        let prefix = &self.ours.grant.extranonce_prefix;
        let payouts = [3u32, 1].map(|share| Payout { script_pubkey: vec![0x51; 30], share });
        let full = prefix.len() + self.rollable();
        let stripped = match &known.work.parts {
            Some((head, tail)) => [head, &prefix[..], &share.extranonce, tail].concat(),
            // Of a standard job the reference shows no parts; `give` has compared its root.
            None => Job::new(Arc::clone(&known.template), &payouts, TAG, full)
                .unwrap()
                .coinbase
                .stripped(prefix),
        };
        let mut transaction: bitcoin::Transaction =
            bitcoin::consensus::deserialize(&stripped).unwrap();
        transaction.input[0].witness = bitcoin::Witness::from_slice(&[[0u8; 32]]);
        bitcoin::consensus::serialize(&transaction)
    }
}

fn same(what: &str, ours: &[u8], theirs: &[u8]) -> Result<(), String> {
    if ours == theirs { Ok(()) } else { Err(format!("{what}: {ours:02x?} against {theirs:02x?}")) }
}

/// A template whose parts follow from `prev` and `body` alone, apart from its number.
fn template(id: u64, tip: Tip, prev: u8, body: &Body) -> Template {
    let transactions: Vec<Arc<Transaction>> = (0..body.transactions)
        .map(|number| {
            Arc::new(Transaction {
                txid: Txid([0x80 + number; 32]),
                wtxid: Wtxid([0x80 + number; 32]),
                data: Box::default(),
                fee: 0,
                weight: 4,
                sigops: 0,
            })
        })
        .collect();
    Template {
        id: TemplateId(id),
        tip,
        height: [1, 16, 840_000][usize::from(prev)],
        version: 0x2000_0000 | (body.version << 13),
        cur_time: tip.min_ntime + body.ahead,
        coinbase_value: body.value,
        rules: None,
        max_ntime: None,
        witness_commitment: [0x6a; 38],
        merkle_path: work::template::merkle_path(&transactions),
        transactions: transactions.into(),
    }
}

fn header(known: &Known, share: &Share, prefix: &[u8]) -> bitcoin::block::Header {
    let root = known.work.root.unwrap_or_else(|| {
        let (head, tail) = known.work.parts.as_ref().unwrap();
        let path: Vec<[u8; 32]> = known.template.merkle_path.iter().map(|node| node.0).collect();
        // A length that was not agreed gives no root; any will do, nobody looks at it.
        let whole = [prefix, &share.extranonce].concat();
        merkle_root_from_path(head, tail, &whole, &path).unwrap_or_default()
    });
    bitcoin::block::Header {
        version: bitcoin::block::Version::from_consensus(share.version.cast_signed()),
        prev_blockhash: bitcoin::BlockHash::from_byte_array(known.template.tip.prev_hash.0),
        merkle_root: bitcoin::TxMerkleNode::from_byte_array(root),
        time: share.ntime,
        bits: bitcoin::CompactTarget::from_consensus(known.template.tip.nbits),
        nonce: share.nonce,
    }
}

fn bits_target(known: &Known) -> bitcoin::Target {
    assert!(NBITS.contains(&known.template.tip.nbits));
    bitcoin::Target::from_compact(bitcoin::CompactTarget::from_consensus(known.template.tip.nbits))
}

fn target(difficulty: &Difficulty) -> bitcoin::Target {
    bitcoin::Target::from_le_bytes(difficulty.target().to_le_bytes())
}
