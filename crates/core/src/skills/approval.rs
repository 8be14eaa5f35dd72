//! Approval by signature: whose key, over which bytes.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ed25519_dalek::{Signature, VerifyingKey};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::error::{Code, Fault};
use crate::input::{canonical, invalid};

/// Before the base64url of a signature over [`text`].
pub const PREFIX: &str = "v1:";
/// Before the 32 bytes of a key in its PEM form (RFC 8410).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// What an approver signs: it names all that is served and where, so the signature is good for nothing else.
pub struct Approval<'a> {
    /// Which log, as a UUID.
    pub log_id: &'a str,
    pub tenant: &'a str,
    pub namespace: &'a str,
    pub skill_name: &'a str,
    /// Of body and files.
    pub digest: &'a str,
    /// Of what is served next to them.
    pub metadata_digest: &'a str,
    /// Never comes again: a version that was approved and taken back has another.
    pub review_id: &'a str,
}

impl Approval<'_> {
    pub fn text(&self) -> String {
        canonical(&json!({
            "approve": "skill_system/skill/v2", "log_id": self.log_id, "tenant": self.tenant,
            "namespace": self.namespace, "skill_name": self.skill_name, "digest": self.digest,
            "metadata_digest": self.metadata_digest, "review_id": self.review_id,
        }))
    }
}

/// Reads a public key: PEM, or 64 hexadecimal digits. A key of small order, whose signatures hold for any text, is refused.
pub fn public_key(given: &str) -> Result<[u8; 32], Fault> {
    let given = given.trim();
    let bytes = match given
        .strip_prefix("-----BEGIN PUBLIC KEY-----")
        .and_then(|rest| rest.strip_suffix("-----END PUBLIC KEY-----"))
    {
        Some(inner) => {
            let inner: String = inner.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            STANDARD.decode(inner).ok().and_then(|der| der.strip_prefix(&SPKI).map(<[u8]>::to_vec))
        }
        None => hex::decode(given).ok(),
    };
    let key: Option<[u8; 32]> = bytes.and_then(|bytes| bytes.try_into().ok());
    key.filter(|key| VerifyingKey::from_bytes(key).is_ok_and(|key| !key.is_weak())).ok_or_else(|| {
        invalid("public_key is not an Ed25519 public key")
            .hint("Give the PEM of `openssl pkey -pubout`, or the key's 32 bytes as 64 hexadecimal digits.")
    })
}

/// Names a key: the first 16 hexadecimal digits of its SHA-256.
pub fn key_id(key: &[u8; 32]) -> String {
    hex::encode(&Sha256::digest(key)[..8])
}

/// A signature in base64url; `None` when it is none.
pub fn signature(base64url: &str) -> Option<[u8; 64]> {
    URL_SAFE_NO_PAD.decode(base64url.trim_end_matches('=')).ok()?.try_into().ok()
}

/// The signature is this key's, over these bytes (strictly: RFC 8032 without malleability).
pub fn verifies(key: &[u8], message: &[u8], signature: &[u8; 64]) -> bool {
    let key = key.try_into().ok().and_then(|key| VerifyingKey::from_bytes(key).ok());
    key.is_some_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
}

/// The approval does not hold.
pub fn rejected(message: impl Into<String>) -> Fault {
    Fault::new(Code::ApprovalRejected, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};

    #[test]
    fn a_signature_is_good_for_one_text_and_one_key() {
        let (mine, other) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        let digest = "a".repeat(64);
        let approval = || Approval {
            log_id: "log",
            tenant: "default",
            namespace: "default",
            skill_name: "pdf-forms",
            digest: &digest,
            metadata_digest: "b",
            review_id: "1",
        };
        let message = approval().text();
        let signed = mine.sign(message.as_bytes()).to_bytes();
        let (mine, other) = (mine.verifying_key().to_bytes(), other.verifying_key().to_bytes());
        assert!(verifies(&mine, message.as_bytes(), &signed));
        assert!(!verifies(&other, message.as_bytes(), &signed));
        for changed in [
            Approval { log_id: "other", ..approval() },
            Approval { tenant: "other", ..approval() },
            Approval { namespace: "other", ..approval() },
            Approval { skill_name: "pdf-form", ..approval() },
            Approval { digest: "b", ..approval() },
            Approval { metadata_digest: "c", ..approval() },
            Approval { review_id: "2", ..approval() },
        ] {
            assert!(!verifies(&mine, changed.text().as_bytes(), &signed));
        }
    }

    #[test]
    fn keys_come_as_pem_or_hexadecimal() {
        // RFC 8032, section 7.1, test 1.
        let hexadecimal = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let key = public_key(hexadecimal).unwrap();
        let pem = format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            STANDARD.encode([&SPKI[..], &key].concat())
        );
        assert_eq!(public_key(&pem).unwrap(), key);
        assert_eq!(key_id(&key), "21fe31dfa154a261");
        // The neutral element is a point of small order.
        for bad in [
            "",
            "zz",
            &hexadecimal[2..],
            &format!("01{}", "00".repeat(31)),
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
        ] {
            assert!(public_key(bad).is_err(), "{bad}");
        }
    }
}
