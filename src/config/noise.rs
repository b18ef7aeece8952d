//! `[noise]`: the authority key that miners trust.

use std::path::{Path, PathBuf};

use sv2::{AuthorityKey, AuthorityPublicKey};
use zeroize::Zeroizing;

use super::hatch::Hatch;
use super::problem::{Place, Problem};
use super::reader::{Found, Reader};
use super::schema::{AUTHORIZED_KEYS, HANDSHAKE_TIMEOUT_MS, PRIVKEY, PUBKEY};

/// Keys that a deployment may trust.
const AUTHORIZED_KEYS_MAX: usize = 64;

/// Digits of a secret key in hexadecimal.
const HEX_DIGITS: usize = 64;

const GENERATE: &str = "put both lines of `reservegrid keys generate` there";

/// The values; `None` where one is wrong or lacking.
pub(super) struct Noise {
    pub authority: Option<AuthorityKey>,
    pub is_ephemeral: bool,
    pub handshake_timeout_ms: Option<u64>,
}

/// Read the section. `random` makes an ephemeral key, `folder` is where relative paths begin.
pub(super) fn read(reader: &mut Reader, random: Option<[u8; 32]>, folder: &Path) -> Noise {
    let is_given = reader.is_given(PRIVKEY) || reader.is_given(PUBKEY);
    let is_ephemeral = !is_given && reader.hatches.is_open(Hatch::EphemeralNoiseKey);
    let authority = match is_ephemeral {
        true => ephemeral(reader, random),
        false => configured(reader, folder),
    };
    let handshake_timeout_ms = reader.number(HANDSHAKE_TIMEOUT_MS, 100..=60_000);
    Noise { authority, is_ephemeral, handshake_timeout_ms }
}

fn ephemeral(reader: &mut Reader, random: Option<[u8; 32]>) -> Option<AuthorityKey> {
    reader.left_out(PRIVKEY);
    reader.left_out(PUBKEY);
    let key = random.and_then(|random| AuthorityKey::from_secret_bytes(random).ok());
    let Some(key) = key else {
        reader.errors.push(Problem {
            place: Place::Environment(Hatch::EphemeralNoiseKey.name().into()),
            key: PRIVKEY.path.into(),
            got: "no random bytes to make a key of".into(),
            expected: "a kernel that gives some, or a key in the file".into(),
            mend: GENERATE.into(),
        });
        return None;
    };
    if let Some(list) = reader.take(AUTHORIZED_KEYS)
        && list.value.get_ref().as_array().is_none_or(|list| !list.is_empty())
    {
        let mend = format!("remove it, or {GENERATE}");
        reader.refuse(&list, "no list beside a key that is made anew at each start", &mend);
    }
    reader.warnings.push(Problem {
        place: Place::Environment(Hatch::EphemeralNoiseKey.name().into()),
        key: PUBKEY.path.into(),
        got: format!("a key for this run alone; its public half is {}", key.public()),
        expected: "a key that miners can be told once".into(),
        mend: GENERATE.into(),
    });
    Some(key)
}

fn configured(reader: &mut Reader, folder: &Path) -> Option<AuthorityKey> {
    let private = reader.text(PRIVKEY);
    let public = reader.text(PUBKEY);
    let private =
        private.and_then(|(text, found)| Some((key(reader, &text, &found, folder)?, found)));
    let public = public.and_then(|(text, found)| match text.parse::<AuthorityPublicKey>() {
        Ok(key) => Some((key, found)),
        Err(error) => {
            let got = format!("{}: {error}", found.shown());
            let expected = "the public half of noise.privkey, in base58check";
            reader.refuse_as(&found, &got, expected, GENERATE);
            None
        }
    });
    authorized(reader, public.as_ref().map(|(key, _)| *key));
    let (private, private_found) = private?;
    if private.is_example() {
        let got = "the example key of the reference implementation, which everybody has";
        reader.refuse_as(&private_found, got, "a key of your own", GENERATE);
        return None;
    }
    let (public, public_found) = public?;
    if private.public() != public {
        let own = format!("\"{}\"", private.public());
        let expected = format!("{own}, the public half of noise.privkey");
        reader.refuse(&public_found, &expected, &public_found.assignment(&own));
        return None;
    }
    Some(private)
}

/// The secret key from its text, or from the file that the text names.
fn key(reader: &mut Reader, text: &str, found: &Found, folder: &Path) -> Option<AuthorityKey> {
    let mut source = "a text".to_owned();
    let mut text = Zeroizing::new(text.to_owned());
    if let Some(path) = text.strip_prefix("file:") {
        let path: PathBuf = folder.join(path);
        source = path.display().to_string();
        match reader.files.read(&path) {
            Ok((inside, warning)) => {
                if let Some(trouble) = warning {
                    reader.warn(found, &trouble.got, trouble.expected, &trouble.mend);
                }
                text = inside;
            }
            Err(trouble) => {
                reader.refuse_as(found, &trouble.got, trouble.expected, &trouble.mend);
                return None;
            }
        }
    }
    let key = match bytes_of_hex(&text) {
        Some(bytes) => AuthorityKey::from_secret_bytes(*bytes),
        None => text.parse(),
    };
    key.map_err(|error| {
        let got = format!("{source} of {} bytes: {error}", text.len());
        let expected = "a secret key in base58check or 64 hexadecimal digits, or file: and a path";
        reader.refuse_as(found, &got, expected, GENERATE);
    })
    .ok()
}

fn bytes_of_hex(text: &str) -> Option<Zeroizing<[u8; HEX_DIGITS / 2]>> {
    let text = text.trim();
    if text.len() != HEX_DIGITS || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = Zeroizing::new([0; HEX_DIGITS / 2]);
    for (byte, at) in bytes.iter_mut().zip((0..HEX_DIGITS).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// The keys that this deployment trusts: the gateway's own must be among them (T1).
fn authorized(reader: &mut Reader, own: Option<AuthorityPublicKey>) {
    let Some(found) = reader.take(AUTHORIZED_KEYS) else { return };
    let Some(texts) = reader.texts(&found, AUTHORIZED_KEYS_MAX) else { return };
    let mut keys = Vec::new();
    for (text, place) in &texts {
        match text.parse::<AuthorityPublicKey>() {
            Ok(key) => keys.push(key),
            Err(error) => reader.errors.push(Problem {
                place: place.clone(),
                key: AUTHORIZED_KEYS.path.into(),
                got: format!("{text:?}: {error}"),
                expected: "public authority keys in base58check".into(),
                mend: "correct it, or remove it from the list".into(),
            }),
        }
    }
    if let Some(own) = own
        && !texts.is_empty()
        && keys.len() == texts.len()
        && !keys.contains(&own)
    {
        let expected = "noise.pubkey among them, or an empty list";
        reader.refuse(&found, expected, &format!("add \"{own}\" to the list"));
    }
}
