//! Making authority keys: the pair whose public half miners are told to trust.

use sv2::AuthorityKey;

/// Draws after which making a key gives up: each fails with probability 2^-128.
const DRAWS_MAX: usize = 8;

/// A new pair from the kernel's random bytes.
///
/// # Errors
/// A sentence when the kernel gives no random bytes.
pub fn authority() -> Result<AuthorityKey, String> {
    for _ in 0..DRAWS_MAX {
        if let Ok(key) = AuthorityKey::from_secret_bytes(random()?) {
            return Ok(key);
        }
    }
    Err("the kernel's random bytes never made a key; they cannot be random".to_owned())
}

/// `N` random bytes from the kernel.
///
/// # Errors
/// A sentence when the kernel gives none.
pub fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| format!("the kernel gives no random bytes: {error}"))?;
    Ok(bytes)
}

/// A new pair as the text of a `[noise]` section.
///
/// # Errors
/// A sentence when the kernel gives no random bytes.
pub fn generate() -> Result<String, String> {
    let key = authority()?;
    let public = key.public().to_text();
    let section = serde_json::json!({ "noise": {
        "privkey": key.to_text().as_str(), "pubkey": public, "authorized_keys": [public],
    }});
    toml::to_string(&section).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_pair_belongs_together() {
        let table: toml::Table = generate().unwrap().parse().unwrap();
        let noise = &table["noise"];
        let key: AuthorityKey = noise["privkey"].as_str().unwrap().parse().unwrap();
        assert_eq!(key.public().to_text(), noise["pubkey"].as_str().unwrap());
        assert_eq!(noise["authorized_keys"][0], noise["pubkey"]);
        let other: toml::Table = generate().unwrap().parse().unwrap();
        assert_ne!(other["noise"]["privkey"], noise["privkey"]);
    }
}
