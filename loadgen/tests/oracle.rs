//! The reference implementation's channels are given the same jobs, and judge the miner's shares.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod server;

use channels_sv2::bip141::try_strip_bip141;
use channels_sv2::client::extended::ExtendedChannel;
use channels_sv2::client::share_accounting::{ShareValidationError, ShareValidationResult};
use channels_sv2::extranonce_manager::ExtranoncePrefix;
use loadgen::miner::{ChannelKinds, MinerConfig};
use mining_sv2::{NewExtendedMiningJobOwned, SetNewPrevHashOwned, SubmitSharesExtendedOwned};
use server::*;
use sv2::message::mining::NewExtendedMiningJob;

/// Goal: what the miner finds on an extended channel holds before the reference implementation,
/// over jobs with and without version rolling, a tip, and a new prefix.
#[test]
fn extended_shares_hold_before_the_reference_implementation() {
    let config = MinerConfig { kinds: ChannelKinds::Extended, ..config() };
    let mut pair = Pair::grouped(config);
    let coinbase = coinbase();
    let stripped = try_strip_bip141(&coinbase.prefix, &coinbase.suffix).unwrap();
    assert_eq!(stripped, None, "the parts are stripped already");
    let mut oracle = oracle();
    oracle.on_new_extended_mining_job(theirs(&extended_job(&coinbase, CHANNEL, 1, None))).unwrap();
    oracle.on_set_new_prev_hash(tip(1, 1)).unwrap();
    judge(&mut pair, &mut oracle, 30);

    let fixed = NewExtendedMiningJob {
        version_rolling_allowed: false,
        ..extended_job(&coinbase, CHANNEL, 2, Some(UNIX + 5))
    };
    pair.say(&fixed).unwrap();
    oracle.on_new_extended_mining_job(theirs(&fixed)).unwrap();
    judge(&mut pair, &mut oracle, 10);

    let future = extended_job(&coinbase, CHANNEL, 3, None);
    pair.say(&future).unwrap();
    oracle.on_new_extended_mining_job(theirs(&future)).unwrap();
    pair.say(&prev_hash(3, 2)).unwrap();
    oracle.on_set_new_prev_hash(tip(3, 2)).unwrap();
    judge(&mut pair, &mut oracle, 10);
}

/// Goal: the oracle does object when there is something to object to.
#[test]
fn the_oracle_is_not_blind() {
    let config = MinerConfig { kinds: ChannelKinds::Extended, ..config() };
    let mut pair = Pair::grouped(config);
    let mut oracle = oracle();
    let coinbase = coinbase();
    oracle.on_new_extended_mining_job(theirs(&extended_job(&coinbase, CHANNEL, 1, None))).unwrap();
    oracle.on_set_new_prev_hash(tip(1, 1)).unwrap();
    let share = share(&pair.mine_all(1)[0]);
    assert!(oracle.validate_share(share.clone()).is_ok());
    let again = oracle.validate_share(share.clone());
    assert!(matches!(again, Err(ShareValidationError::DuplicateShare(_))), "{again:?}");
    let other = SubmitSharesExtendedOwned { job_id: 9, ..share };
    let unknown = oracle.validate_share(other);
    assert!(matches!(unknown, Err(ShareValidationError::InvalidJobId(_))), "{unknown:?}");
}

fn oracle() -> ExtendedChannel {
    let prefix = ExtranoncePrefix::from_wire(prefix(CHANNEL).to_vec()).unwrap();
    let target = bitcoin::Target::from_le_bytes(easy_target().to_le_bytes());
    let name = "oracle".to_owned();
    ExtendedChannel::new(CHANNEL, name, prefix, target, 1.0, true, ROLLED_BYTES, None).unwrap()
}

fn judge(pair: &mut Pair, oracle: &mut ExtendedChannel, count: usize) {
    for heard in pair.mine_all(count) {
        let judged = oracle.validate_share(share(&heard));
        let is_good = matches!(
            judged,
            Ok(ShareValidationResult::Valid(_) | ShareValidationResult::BlockFound(_))
        );
        assert!(is_good, "{judged:?}: {heard:?}");
    }
}

fn theirs(job: &NewExtendedMiningJob<'_>) -> NewExtendedMiningJobOwned {
    let path: Vec<_> = job.merkle_path.iter().map(|node| (*node).into()).collect();
    NewExtendedMiningJobOwned {
        channel_id: job.channel_id,
        job_id: job.job_id,
        min_ntime: binary_sv2::Sv2OptionOwned::new(job.min_ntime),
        version: job.version,
        version_rolling_allowed: job.version_rolling_allowed,
        merkle_path: path.try_into().unwrap(),
        coinbase_tx_prefix: job.coinbase_tx_prefix.to_vec().try_into().unwrap(),
        coinbase_tx_suffix: job.coinbase_tx_suffix.to_vec().try_into().unwrap(),
    }
}

fn tip(job_id: u32, byte: u8) -> SetNewPrevHashOwned {
    let ours = prev_hash(job_id, byte);
    SetNewPrevHashOwned {
        channel_id: ours.channel_id,
        job_id,
        prev_hash: ours.prev_hash.into(),
        min_ntime: ours.min_ntime,
        nbits: ours.nbits,
    }
}

fn share(heard: &Heard) -> SubmitSharesExtendedOwned {
    let Heard::Extended(share, extranonce, _) = heard else { panic!("{heard:?}") };
    SubmitSharesExtendedOwned {
        channel_id: share.channel_id,
        sequence_number: share.sequence_number,
        job_id: share.job_id,
        nonce: share.nonce,
        ntime: share.ntime,
        version: share.version,
        extranonce: extranonce.clone().try_into().unwrap(),
    }
}
