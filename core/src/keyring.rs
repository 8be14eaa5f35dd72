//! The keyring: a JWK set (RFC 7517) that never lies in a table.
//!
//! Keys for signing rows are symmetric (`"kty":"oct"`, `"alg":"HS256"`, RFC 7518).
//! `"active":true` marks the one that signs; the others only verify.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use crate::error::{Code, Fault};

/// Largest keyring that is read, in bytes.
pub const MAX_KEYRING_BYTES: usize = 1024 * 1024;
/// Shortest key that is accepted, in bytes (RFC 7518, section 3.2).
pub const MIN_KEY_BYTES: usize = 32;
/// Longest key id: the signature column holds 256 characters.
pub const MAX_KEY_ID_BYTES: usize = 64;

/// What is wrong with a keyring. Never says what a key is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyringError {
    /// Not a JWK set.
    #[error("the keyring is no JSON Web Key set")]
    NotJwkSet {
        /// Where parsing stopped; no content.
        line: usize,
    },
    /// Over [`MAX_KEYRING_BYTES`].
    #[error("the keyring is larger than {MAX_KEYRING_BYTES} bytes")]
    TooLarge,
    /// A key id that cannot stand in a signature.
    #[error("the keyring has a key without a usable key id")]
    BadKeyId,
    /// The same key id twice.
    #[error("the keyring has two keys with the same key id")]
    DuplicateKeyId {
        /// The id.
        key_id: String,
    },
    /// Not base64url, or too short.
    #[error("the keyring has a key that is no base64url text of at least {MIN_KEY_BYTES} bytes")]
    BadKey {
        /// Whose.
        key_id: String,
    },
    /// None or several active keys.
    #[error("the keyring has {count} active HS256 keys instead of one")]
    NotOneActive {
        /// How many.
        count: usize,
    },
}

impl From<KeyringError> for Fault {
    fn from(error: KeyringError) -> Fault {
        let message = error.to_string();
        let fault = Fault::new(Code::ConfigFileError, message)
            .hint("See skill_system.keyring_file and skill_system.keyring_command; SELECT * FROM skill_system.health() tells more.");
        match error {
            KeyringError::NotJwkSet { line } => fault.detail(format!("Reading stopped in line {line}.")),
            KeyringError::BadKeyId => {
                fault.detail(format!("A kid is 1 to {MAX_KEY_ID_BYTES} characters of A-Z, a-z, 0-9, '.', '_' and '-'."))
            }
            KeyringError::DuplicateKeyId { key_id } | KeyringError::BadKey { key_id } => {
                fault.detail(format!("The key id is \"{key_id}\"."))
            }
            _ => fault,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct JwkSet {
    keys: Vec<Jwk>,
}

#[derive(Serialize, Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    kid: String,
    #[serde(default)]
    alg: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    k: Option<String>,
    #[serde(default)]
    active: bool,
}

impl Drop for Jwk {
    fn drop(&mut self) {
        self.k.zeroize();
    }
}

/// A key that signs rows, with its state computed once.
#[derive(Clone)]
pub struct MacKey {
    /// Its `kid`.
    pub id: String,
    state: Hmac<Sha256>,
}

impl std::fmt::Debug for MacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MacKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl MacKey {
    /// HMAC-SHA256 (RFC 2104) of the parts, one after the other.
    pub fn sign(&self, parts: &[&[u8]]) -> [u8; 32] {
        self.run(parts).finalize().into_bytes().into()
    }

    /// Compares in constant time.
    pub fn verify(&self, parts: &[&[u8]], mac: &[u8]) -> bool {
        self.run(parts).verify_slice(mac).is_ok()
    }

    fn run(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut state = self.state.clone();
        for part in parts {
            state.update(part);
        }
        state
    }
}

/// All keys of a server.
#[derive(Debug, Clone)]
pub struct Keyring {
    keys: Vec<MacKey>,
    active: usize,
}

impl Keyring {
    /// Reads a JWK set. Keys of other types are left to those who know them.
    pub fn parse(text: &str) -> Result<Keyring, KeyringError> {
        if text.len() > MAX_KEYRING_BYTES {
            return Err(KeyringError::TooLarge);
        }
        // serde's message may quote the text, so only the line is kept.
        let set: JwkSet = serde_json::from_str(text).map_err(|e| KeyringError::NotJwkSet { line: e.line() })?;
        let mut keys: Vec<MacKey> = Vec::new();
        let mut active = Vec::new();
        for jwk in set.keys.iter().filter(|jwk| jwk.kty == "oct" && jwk.alg == "HS256") {
            let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
            if jwk.kid.is_empty() || jwk.kid.len() > MAX_KEY_ID_BYTES || !jwk.kid.bytes().all(legal) {
                return Err(KeyringError::BadKeyId);
            }
            if keys.iter().any(|key| key.id == jwk.kid) {
                return Err(KeyringError::DuplicateKeyId { key_id: jwk.kid.clone() });
            }
            let bad = || KeyringError::BadKey { key_id: jwk.kid.clone() };
            let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(jwk.k.as_deref().unwrap_or_default()).map_err(|_| bad())?);
            if bytes.len() < MIN_KEY_BYTES {
                return Err(bad());
            }
            let state = Hmac::<Sha256>::new_from_slice(&bytes).map_err(|_| bad())?;
            if jwk.active {
                active.push(keys.len());
            }
            keys.push(MacKey { id: jwk.kid.clone(), state });
        }
        match active[..] {
            [active] => Ok(Keyring { keys, active }),
            _ => Err(KeyringError::NotOneActive { count: active.len() }),
        }
    }

    /// A new set with one active key, as JSON. `random` is from a cryptographic generator.
    pub fn generate(random: &[u8; 40]) -> Zeroizing<String> {
        let key = Jwk {
            kty: "oct".into(),
            kid: format!("hs-{}", hex::encode(&random[32..])),
            alg: "HS256".into(),
            k: Some(URL_SAFE_NO_PAD.encode(&random[..32])),
            active: true,
        };
        Zeroizing::new(serde_json::to_string_pretty(&JwkSet { keys: vec![key] }).unwrap_or_default() + "\n")
    }

    /// The key that signs.
    pub fn active(&self) -> &MacKey {
        &self.keys[self.active]
    }

    /// The key with this id.
    pub fn get(&self, id: &str) -> Option<&MacKey> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// How many keys can verify.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Never true: a keyring has an active key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_keyring_signs_and_verifies() {
        let text = Keyring::generate(&[7; 40]);
        let ring = Keyring::parse(&text).unwrap();
        assert_eq!(ring.active().id, "hs-0707070707070707");
        let mac = ring.active().sign(&[b"a", b"b"]);
        assert!(ring.active().verify(&[b"ab"], &mac));
        assert!(!ring.active().verify(&[b"ac"], &mac));
        assert!(!ring.active().verify(&[b"ab"], &mac[..31]));
        assert!(!format!("{ring:?}").contains("BwcH"), "Debug shows a key");
    }

    /// RFC 4231, test case 2, with the key padded to the shortest that is accepted (zero padding is what HMAC does itself).
    #[test]
    fn hmac_is_the_standard_one() {
        let mut key = b"Jefe".to_vec();
        key.resize(32, 0);
        let ring = Keyring::parse(&format!(
            r#"{{"keys":[{{"kty":"oct","alg":"HS256","kid":"a","active":true,"k":"{}"}}]}}"#, URL_SAFE_NO_PAD.encode(key)
        ))
        .unwrap();
        assert_eq!(
            hex::encode(ring.active().sign(&[b"what do ya want for nothing?"])),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn what_is_wrong_is_named_without_the_key() {
        let good = URL_SAFE_NO_PAD.encode([1; 32]);
        let key = |kid: &str, active: bool| format!(r#"{{"kty":"oct","alg":"HS256","kid":"{kid}","active":{active},"k":"{good}"}}"#);
        let set = |keys: &[String]| format!(r#"{{"keys":[{}]}}"#, keys.join(","));
        for (text, error) in [
            ("{".to_owned(), KeyringError::NotJwkSet { line: 1 }),
            (set(&[]), KeyringError::NotOneActive { count: 0 }),
            (set(&[key("a", true), key("b", true)]), KeyringError::NotOneActive { count: 2 }),
            (set(&[key("a", true), key("a", false)]), KeyringError::DuplicateKeyId { key_id: "a".into() }),
            (set(&[key("a:b", true)]), KeyringError::BadKeyId),
            (set(&[key("a", true).replace(&good, "AAAA")]), KeyringError::BadKey { key_id: "a".into() }),
        ] {
            let found = Keyring::parse(&text).unwrap_err();
            assert_eq!(found, error);
            assert!(!Fault::from(found).to_string().contains(&good));
        }
        assert_eq!(Keyring::parse(&set(&[key("a", false), key("b", true)])).unwrap().active().id, "b");
    }
}
