//! The keyring: a JWK set (RFC 7517), which is never stored in a table.
//!
//! Keys for signing rows are symmetric (`"kty":"oct"`, `"alg":"HS256"`, RFC 7518), keys for signing
//! checkpoints are Ed25519 (`"kty":"OKP"`, `"crv":"Ed25519"`, `"alg":"EdDSA"`, RFC 8037). `"active":true`
//! marks the one of each kind that signs; the others only verify.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{SECRET_KEY_LENGTH, SigningKey as Ed25519, VerifyingKey as Ed25519Public};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::Sha256;
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use crate::error::{Code, Fault};

/// Largest keyring that is read, in bytes.
pub const MAX_KEYRING_BYTES: usize = 1024 * 1024;
/// Shortest key that is accepted, in bytes (RFC 7518, section 3.2).
pub const MIN_KEY_BYTES: usize = 32;
/// Random bytes that new keys take, from a cryptographic generator.
pub const RANDOM_BYTES: usize = 80;
/// Longest key id: the signature column holds 256 characters.
pub const MAX_KEY_ID_BYTES: usize = 64;

/// What is wrong with a keyring. Never contains key material.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyringError {
    /// Not a JWK set.
    #[error("the keyring is not a JSON Web Key set")]
    NotJwkSet {
        /// Where parsing stopped; no content.
        line: usize,
    },
    /// Over [`MAX_KEYRING_BYTES`].
    #[error("the keyring is larger than {MAX_KEYRING_BYTES} bytes")]
    TooLarge,
    /// A key id that cannot be part of a signature.
    #[error("the keyring has a key without a usable key id")]
    BadKeyId,
    /// The same key id twice.
    #[error("the keyring has two keys with the same key id")]
    DuplicateKeyId { key_id: String },
    /// Not base64url, or too short.
    #[error("the keyring has a key that is not a base64url text of at least {MIN_KEY_BYTES} bytes")]
    BadKey { key_id: String },
    /// Halves that are not a key, or not of one key, or an active key without its secret half.
    #[error("the keyring has an Ed25519 key whose x and d are not the halves of one key")]
    BadKeyPair { key_id: String },
    #[error("the keyring has {count} active Ed25519 keys; one can sign")]
    SeveralSigning { count: usize },
    /// None or several active keys.
    #[error("the keyring has {count} active HS256 keys instead of one")]
    NotOneActive { count: usize },
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
            KeyringError::DuplicateKeyId { key_id }
            | KeyringError::BadKey { key_id }
            | KeyringError::BadKeyPair { key_id } => fault.detail(format!("The key id is \"{key_id}\".")),
            _ => fault,
        }
    }
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Jwk>,
}

#[derive(Serialize, Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    crv: String,
    #[serde(default)]
    kid: String,
    #[serde(default)]
    alg: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    d: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    k: Option<String>,
    #[serde(default)]
    active: bool,
}

impl Drop for Jwk {
    fn drop(&mut self) {
        self.k.zeroize();
        self.d.zeroize();
    }
}

impl Jwk {
    fn signs_rows(&self) -> bool {
        self.kty == "oct" && self.alg == "HS256"
    }

    fn signs_checkpoints(&self) -> bool {
        self.kty == "OKP" && self.crv == "Ed25519" && self.alg == "EdDSA"
    }

    /// One new active key of each kind.
    fn new_pair(random: &[u8; RANDOM_BYTES]) -> [Jwk; 2] {
        let (mac, ed) = random.split_at(RANDOM_BYTES / 2);
        let (seed, id) = ed.split_at(SECRET_KEY_LENGTH);
        let blank = || Jwk {
            kty: String::new(),
            crv: String::new(),
            kid: String::new(),
            alg: String::new(),
            x: None,
            d: None,
            k: None,
            active: true,
        };
        let (mut row, mut checkpoint) = (blank(), blank());
        row.kty = "oct".into();
        row.alg = "HS256".into();
        row.kid = format!("hs-{}", hex::encode(&mac[32..]));
        row.k = Some(URL_SAFE_NO_PAD.encode(&mac[..32]));
        checkpoint.kty = "OKP".into();
        checkpoint.crv = "Ed25519".into();
        checkpoint.alg = "EdDSA".into();
        checkpoint.kid = format!("ed-{}", hex::encode(id));
        let mut secret = Zeroizing::new([0; SECRET_KEY_LENGTH]);
        secret.copy_from_slice(seed);
        checkpoint.x = Some(URL_SAFE_NO_PAD.encode(Ed25519::from_bytes(&secret).verifying_key()));
        checkpoint.d = Some(URL_SAFE_NO_PAD.encode(seed));
        [row, checkpoint]
    }

    /// The halves of an Ed25519 key; both are there for one that signs.
    fn halves(&self) -> Option<(Ed25519Public, Option<Ed25519>)> {
        let bytes = |text: &str| -> Option<Zeroizing<[u8; SECRET_KEY_LENGTH]>> {
            let decoded = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).ok()?);
            let mut bytes = Zeroizing::new([0; SECRET_KEY_LENGTH]);
            if decoded.len() != bytes.len() {
                return None;
            }
            bytes.copy_from_slice(&decoded);
            Some(bytes)
        };
        let public = Ed25519Public::from_bytes(&*bytes(self.x.as_deref()?)?).ok().filter(|key| !key.is_weak())?;
        let Some(secret) = self.d.as_deref() else { return Some((public, None)) };
        let secret = Ed25519::from_bytes(&*bytes(secret)?);
        (secret.verifying_key() == public).then_some((public, Some(secret)))
    }
}

/// A parsed set whose texts are wiped on drop.
struct Wiped(Value);

impl Drop for Wiped {
    fn drop(&mut self) {
        fn wipe(value: &mut Value) {
            match value {
                Value::String(text) => text.zeroize(),
                Value::Array(items) => items.iter_mut().for_each(wipe),
                Value::Object(members) => members.values_mut().for_each(wipe),
                _ => {}
            }
        }
        wipe(&mut self.0);
    }
}

/// Written into one buffer that is large enough, or growing would leave copies behind.
fn print(set: &Wiped, capacity: usize) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    // Neither can fail: the target is memory, the source has text keys.
    let _ = serde_json::to_writer_pretty(&mut *bytes, &set.0);
    bytes.push(b'\n');
    Zeroizing::new(String::from_utf8(std::mem::take(&mut *bytes)).unwrap_or_default())
}

fn add_keys(set: &mut Value, random: &[u8; RANDOM_BYTES]) {
    let keys = set["keys"].as_array_mut();
    keys.into_iter().for_each(|keys| keys.extend(Jwk::new_pair(random).iter().flat_map(serde_json::to_value)));
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

/// A key that signs checkpoints. Wiped when dropped.
#[derive(Clone)]
pub struct SigningKey {
    /// Its `kid`.
    pub id: String,
    key: Ed25519,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Ed25519 (RFC 8032) over the message.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        use ed25519_dalek::Signer;
        self.key.sign(message).to_bytes()
    }

    /// The public half.
    pub fn public(&self) -> Ed25519Public {
        self.key.verifying_key()
    }
}

/// The public half of a key that signs checkpoints, or once did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyingKey {
    /// Its `kid`.
    pub id: String,
    pub key: Ed25519Public,
}

/// All keys of a server.
#[derive(Debug, Clone)]
pub struct Keyring {
    keys: Vec<MacKey>,
    active: usize,
    signing: Option<SigningKey>,
    verifying: Vec<VerifyingKey>,
}

impl Keyring {
    /// Parses a JWK set. Keys of other types are ignored.
    pub fn parse(text: &str) -> Result<Keyring, KeyringError> {
        if text.len() > MAX_KEYRING_BYTES {
            return Err(KeyringError::TooLarge);
        }
        // serde's message may quote the text, so only the line is kept.
        let set: JwkSet = serde_json::from_str(text).map_err(|e| KeyringError::NotJwkSet { line: e.line() })?;
        let (mut keys, mut verifying): (Vec<MacKey>, Vec<VerifyingKey>) = (Vec::new(), Vec::new());
        let (mut active, mut signing) = (Vec::new(), Vec::new());
        for jwk in set.keys.iter().filter(|jwk| jwk.signs_rows() || jwk.signs_checkpoints()) {
            let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
            if jwk.kid.is_empty() || jwk.kid.len() > MAX_KEY_ID_BYTES || !jwk.kid.bytes().all(legal) {
                return Err(KeyringError::BadKeyId);
            }
            if keys.iter().any(|key| key.id == jwk.kid) || verifying.iter().any(|key| key.id == jwk.kid) {
                return Err(KeyringError::DuplicateKeyId { key_id: jwk.kid.clone() });
            }
            if jwk.signs_checkpoints() {
                let bad = || KeyringError::BadKeyPair { key_id: jwk.kid.clone() };
                let (public, secret) = jwk.halves().ok_or_else(bad)?;
                if jwk.active {
                    signing.push(SigningKey { id: jwk.kid.clone(), key: secret.ok_or_else(bad)? });
                }
                verifying.push(VerifyingKey { id: jwk.kid.clone(), key: public });
                continue;
            }
            let bad = || KeyringError::BadKey { key_id: jwk.kid.clone() };
            let bytes =
                Zeroizing::new(URL_SAFE_NO_PAD.decode(jwk.k.as_deref().unwrap_or_default()).map_err(|_| bad())?);
            if bytes.len() < MIN_KEY_BYTES {
                return Err(bad());
            }
            let state = Hmac::<Sha256>::new_from_slice(&bytes).map_err(|_| bad())?;
            if jwk.active {
                active.push(keys.len());
            }
            keys.push(MacKey { id: jwk.kid.clone(), state });
        }
        if signing.len() > 1 {
            return Err(KeyringError::SeveralSigning { count: signing.len() });
        }
        match active[..] {
            [active] => Ok(Keyring { keys, active, signing: signing.pop(), verifying }),
            _ => Err(KeyringError::NotOneActive { count: active.len() }),
        }
    }

    /// A new set with one active key of each kind, as JSON. `random` is from a cryptographic generator.
    pub fn generate(random: &[u8; RANDOM_BYTES]) -> Zeroizing<String> {
        let mut set = Wiped(serde_json::json!({ "keys": [] }));
        add_keys(&mut set.0, random);
        print(&set, 1024)
    }

    /// The set in `text` with one new active key of each kind. The others only verify from now on; what else the
    /// set holds stays.
    pub fn rotate(text: &str, random: &[u8; RANDOM_BYTES]) -> Result<Zeroizing<String>, KeyringError> {
        Keyring::parse(text)?;
        let mut set = Wiped(serde_json::from_str(text).map_err(|e| KeyringError::NotJwkSet { line: e.line() })?);
        for jwk in set.0["keys"].as_array_mut().into_iter().flatten() {
            if matches!(jwk["alg"].as_str(), Some("HS256" | "EdDSA")) {
                jwk["active"] = Value::Bool(false);
            }
        }
        add_keys(&mut set.0, random);
        let rotated = print(&set, 4 * text.len() + 1024);
        // A set that has become too large, or an id that was there before.
        Keyring::parse(&rotated)?;
        Ok(rotated)
    }

    /// The key that signs.
    pub fn active(&self) -> &MacKey {
        &self.keys[self.active]
    }

    /// The key with this id.
    pub fn get(&self, id: &str) -> Option<&MacKey> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// The key that signs checkpoints; none in a set that is older than checkpoints.
    pub fn signing(&self) -> Option<&SigningKey> {
        self.signing.as_ref()
    }

    /// All keys that sign checkpoints, or once did.
    pub fn verifying(&self) -> &[VerifyingKey] {
        &self.verifying
    }

    /// How many keys can verify rows.
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
        let text = Keyring::generate(&[7; RANDOM_BYTES]);
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
            r#"{{"keys":[{{"kty":"oct","alg":"HS256","kid":"a","active":true,"k":"{}"}}]}}"#,
            URL_SAFE_NO_PAD.encode(key)
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
        let key = |kid: &str, active: bool| {
            format!(r#"{{"kty":"oct","alg":"HS256","kid":"{kid}","active":{active},"k":"{good}"}}"#)
        };
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
        let ring = Keyring::parse(&set(&[key("a", false), key("b", true)])).unwrap();
        assert_eq!(ring.active().id, "b");
        assert!(ring.signing().is_none() && ring.verifying().is_empty());
    }

    /// A set that is older than checkpoints.
    const ROWS_ONLY: &str = r#"{"keys":[{"kty":"oct","alg":"HS256","kid":"a","active":true,"k":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"}]}"#;
    /// RFC 8032, section 7.1, test 1.
    const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    const D: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";

    #[test]
    fn ed25519_is_the_standard_one() {
        let with = |key: &str| Keyring::parse(&ROWS_ONLY.replace('[', &format!("[{key},")));
        let key = |x: &str, d: &str, active: bool| {
            format!(r#"{{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","kid":"e","x":"{x}","d":"{d}","active":{active}}}"#)
        };
        let ring = with(&key(X, D, true)).unwrap();
        assert_eq!(ring.signing().map(|key| key.id.as_str()), Some("e"));
        assert_eq!(
            hex::encode(ring.signing().unwrap().sign(b"")),
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        );
        assert!(!format!("{ring:?}").contains("9d61b19d"), "Debug shows a key");
        let bad = |text: String| {
            assert_eq!(with(&text).unwrap_err(), KeyringError::BadKeyPair { key_id: "e".into() }, "{text}")
        };
        bad(key(D, X, true));
        bad(key(X, X, true));
        bad(key(X, "", true));
        bad(key(&X[1..], D, true));
        bad(key(X, D, true).replace(&format!(r#""d":"{D}","#), ""));
        // A point of small order verifies anything.
        bad(key("AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", D, false));
        let public = with(&key(X, D, false).replace(&format!(r#""d":"{D}","#), "")).unwrap();
        assert!(public.signing().is_none());
        assert_eq!(public.verifying()[0].key, ring.signing().unwrap().public());
        assert_eq!(with(&key(X, D, true)).unwrap().verifying().len(), 1);
        let twice = [key(X, D, true), key(X, D, true).replace("\"e\"", "\"f\"")].join(",");
        assert_eq!(with(&twice).unwrap_err(), KeyringError::SeveralSigning { count: 2 });
        let thrice = [key(X, D, true), key(X, D, false)].join(",");
        assert_eq!(with(&thrice).unwrap_err(), KeyringError::DuplicateKeyId { key_id: "e".into() });
    }

    #[test]
    fn rotation_keeps_all_keys_and_what_it_does_not_know() {
        let first = Keyring::generate(&[7; RANDOM_BYTES]);
        let mut set: Value = serde_json::from_str(&first).unwrap();
        set["note"] = "kept".into();
        set["keys"][0]["use"] = "sig".into();
        set["keys"].as_array_mut().unwrap().push(serde_json::json!({"kty": "RSA", "n": "AQAB", "active": true}));
        let text = set.to_string();
        let (old, rotated) = (Keyring::parse(&text).unwrap(), Keyring::rotate(&text, &[8; RANDOM_BYTES]).unwrap());
        let new = Keyring::parse(&rotated).unwrap();
        assert_eq!((new.active().id.as_str(), new.len()), ("hs-0808080808080808", 2));
        assert_eq!(new.signing().unwrap().id, "ed-0808080808080808");
        assert_eq!(new.verifying().len(), 2);
        let mac = old.active().sign(&[b"row"]);
        assert!(new.get(&old.active().id).unwrap().verify(&[b"row"], &mac));
        assert!(new.verifying().contains(&old.verifying()[0]));
        let kept: Value = serde_json::from_str(&rotated).unwrap();
        assert_eq!(kept["note"], "kept");
        assert_eq!(kept["keys"][0]["use"], "sig");
        assert_eq!(kept["keys"][0]["active"], false);
        assert_eq!(kept["keys"][2], serde_json::json!({"kty": "RSA", "n": "AQAB", "active": true}));
        // The same random bytes again would give the same ids.
        assert_eq!(
            Keyring::rotate(&rotated, &[8; RANDOM_BYTES]).unwrap_err(),
            KeyringError::DuplicateKeyId { key_id: "hs-0808080808080808".into() }
        );
        let after = Keyring::parse(&Keyring::rotate(ROWS_ONLY, &[8; RANDOM_BYTES]).unwrap()).unwrap();
        assert!(after.signing().is_some() && after.get("a").is_some());
        assert!(Keyring::rotate("{}", &[8; RANDOM_BYTES]).is_err());
    }
}
