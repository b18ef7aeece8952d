//! `[mining]`: what blocks pay, and what miners are asked for.

use toml::de::DeValue;
use work::coinbase::COINBASE_TAG_BYTES_MAX;
use work::payout::{Network, PAYOUTS_MAX, Payout};
use work::share::VERSION_ROLLING_MASK;

use super::problem::{Place, Problem};
use super::reader::{Found, Reader, shown, whole};
use super::schema::{
    COINBASE_OUTPUTS, COINBASE_TAG, EXTRANONCE_SIZE, INSTANCE_ID, MAX_CHANNELS_PER_CONNECTION,
    MIN_DIFFICULTY, TARGET_SHARES_PER_MINUTE, VERSION_ROLLING, nearest,
};

/// Version bits of BIP323: bits 5 to 28.
const MASK_BIP323: u32 = VERSION_ROLLING_MASK;

/// Version bits of BIP320: bits 13 to 28.
const MASK_BIP320: u32 = 0x1fff_e000;

/// Channels of one connection at most.
const CHANNELS_MAX: u64 = 65_535;

const OUTPUT_SAMPLE: &str = "[{ address = \"bc1…\", share = 1 }]";

/// The values; `None` where one is wrong or lacking.
pub(super) struct Mining {
    pub payouts: Option<Vec<Payout>>,
    pub coinbase_tag: Option<String>,
    pub extranonce_size: Option<usize>,
    pub instance_id: Option<u16>,
    pub version_rolling_mask: Option<u32>,
    pub target_shares_per_minute: Option<f64>,
    pub min_difficulty: Option<f64>,
    pub max_channels_per_connection: Option<usize>,
}

/// Read the section. Without miners neither outputs nor a number are required.
pub(super) fn read(reader: &mut Reader, network: Option<Network>, has_miners: bool) -> Mining {
    let masks = [("bip323", MASK_BIP323), ("bip320", MASK_BIP320), ("off", 0)];
    let target = reader.take(TARGET_SHARES_PER_MINUTE);
    let easiest = if network == Some(Network::Regtest) { "0.0" } else { "1.0" };
    let difficulty = reader.take_or(MIN_DIFFICULTY, easiest);
    Mining {
        payouts: payouts(reader, network, has_miners),
        coinbase_tag: coinbase_tag(reader),
        extranonce_size: reader.size(EXTRANONCE_SIZE, 4..=16),
        instance_id: instance_id(reader, has_miners),
        version_rolling_mask: reader.choice(VERSION_ROLLING, &masks).map(|(mask, _)| mask),
        target_shares_per_minute: reader.decimal(target, true),
        min_difficulty: reader.decimal(difficulty, false),
        max_channels_per_connection: reader.size(MAX_CHANNELS_PER_CONNECTION, 1..=CHANNELS_MAX),
    }
}

fn payouts(reader: &mut Reader, network: Option<Network>, has_miners: bool) -> Option<Vec<Payout>> {
    if !has_miners && !reader.is_given(COINBASE_OUTPUTS) {
        reader.left_out(COINBASE_OUTPUTS);
        reader.notes.push(
            "mining.coinbase_outputs: left out, so proposals pay a script that anyone may spend, \
             and a policy with pinned payouts denies them; no miner is given any"
                .into(),
        );
        return Some(vec![Payout { script_pubkey: vec![OP_TRUE], share: 1 }]);
    }
    let found = reader.take(COINBASE_OUTPUTS)?;
    let entries = match found.value.get_ref() {
        DeValue::Array(list) if (1..=PAYOUTS_MAX).contains(&list.len()) => list,
        _ => {
            let expected = format!("a list of 1 to {PAYOUTS_MAX} tables with address and share");
            reader.refuse(&found, &expected, &found.assignment(OUTPUT_SAMPLE));
            return None;
        }
    };
    let mut payouts = Vec::new();
    for (number, entry) in entries.iter().enumerate() {
        let place = reader.part(&found, &entry.span());
        payouts.extend(payout(reader, &found, number, entry.get_ref(), &place, network));
    }
    (payouts.len() == entries.len()).then_some(payouts)
}

/// Pays anyone, so that a proposal without miners has an output.
const OP_TRUE: u8 = 0x51;

fn payout(
    reader: &mut Reader,
    found: &Found,
    number: usize,
    entry: &DeValue,
    place: &Place,
    network: Option<Network>,
) -> Option<Payout> {
    let problem = |place: Place, field: &str, got: String, expected: &str, mend: &str| Problem {
        place,
        key: format!("{}[{number}]{field}", COINBASE_OUTPUTS.path),
        got,
        expected: expected.into(),
        mend: mend.into(),
    };
    let form = "a table with address and share";
    let sample = "{ address = \"bc1…\", share = 1 }";
    let DeValue::Table(table) = entry else {
        reader.errors.push(problem(place.clone(), "", shown(entry, false), form, sample));
        return None;
    };
    let (mut address, mut share) = (None, None);
    for (name, value) in table {
        let part = reader.part(found, &value.span());
        match (name.get_ref().as_ref(), value.get_ref()) {
            ("address", DeValue::String(text)) => address = Some((text.as_ref(), part)),
            ("share", DeValue::Integer(parts)) => {
                share = whole(parts).and_then(|parts| u32::try_from(parts).ok());
                if share.is_none_or(|share| share == 0) {
                    let got = shown(value.get_ref(), false);
                    let expected = "a whole number from 1 to 4294967295";
                    reader.errors.push(problem(part, ".share", got, expected, "share = 1"));
                    return None;
                }
            }
            ("address" | "share", value) => {
                let field = format!(".{}", name.get_ref());
                let got = shown(value, false);
                reader.errors.push(problem(part, &field, got, form, sample));
                return None;
            }
            (other, _) => {
                let mend = match nearest(other, ["address", "share"]) {
                    Some(meant) => format!("write {meant}"),
                    None => format!("remove {other}"),
                };
                let field = format!(".{other}");
                let part = reader.part(found, &name.span());
                let got = "a field that does not exist".to_owned();
                reader.errors.push(problem(part, &field, got, form, &mend));
                return None;
            }
        }
    }
    let (Some((address, part)), Some(share)) = (address, share) else {
        let got = if share.is_some() { "no address" } else { "no share" };
        reader.errors.push(problem(place.clone(), "", got.into(), form, sample));
        return None;
    };
    // Which addresses are right cannot be said before the network is known.
    Payout::parse(address, share, network?)
        .map_err(|error| {
            let expected = format!(
                "an address of {}, or raw: and a script in hexadecimal",
                network_name(network)
            );
            let mend = "put your own address there";
            reader.errors.push(problem(part, ".address", error, &expected, mend));
        })
        .ok()
}

fn network_name(network: Option<Network>) -> &'static str {
    network.map_or("the network", Network::node_name)
}

fn coinbase_tag(reader: &mut Reader) -> Option<String> {
    let (tag, found) = reader.text(COINBASE_TAG)?;
    if tag.len() > COINBASE_TAG_BYTES_MAX || tag.chars().any(char::is_control) {
        let got = format!("{} of {} bytes", found.shown(), tag.len());
        let expected = format!("at most {COINBASE_TAG_BYTES_MAX} bytes of printable characters");
        reader.refuse_as(&found, &got, &expected, &found.assignment("\"/pool/\""));
        return None;
    }
    Some(tag)
}

fn instance_id(reader: &mut Reader, has_miners: bool) -> Option<u16> {
    let found = match has_miners {
        true => reader.take(INSTANCE_ID),
        false => reader.take_or(INSTANCE_ID, "0"),
    };
    let (number, _) = reader.number_of(found, 0..=u64::from(u16::MAX))?;
    u16::try_from(number).ok()
}
