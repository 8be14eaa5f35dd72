//! Checkpoints: who keeps one can show later whether the log was rewritten.
//!
//! A checkpoint is a signed note (c2sp.org/tlog-checkpoint) with the log's origin, its size and its root. The key's name is
//! the origin. Proofs that a record is in the log are texts too (c2sp.org/tlog-proof).

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use signed_note::{Note, NoteError, Signer, StandardVerifier, Verifier, VerifierError, VerifierList};
use thiserror::Error;

use crate::audit::keyring::SigningKey;
use crate::error::{Code, Fault};
use crate::input::sha256;
use crate::tree::{Hash, MAX_PROOF, MAX_SIZE};

/// Longest checkpoint or proof that is read, in bytes.
pub const MAX_TEXT: usize = 64 * 1024;
const PROOF_HEAD: &str = "c2sp.org/tlog-proof@v1";
/// Algorithm byte of Ed25519 in a verifier key (c2sp.org/signed-note).
const ED25519: u8 = 1;

/// A text as it was signed, out of what files, psql, mail and tickets make of it: without a byte order mark, with line
/// feeds alone, nothing empty around it and one line feed at its end.
pub fn tidy(text: &str) -> String {
    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    format!("{}\n", text.trim_matches(['\n', '\r', '\t', ' ']))
}

/// Why a checkpoint, a proof or a key is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CheckpointError {
    /// Not of the form.
    #[error("the checkpoint is not a signed note with origin, size and root")]
    Malformed,
    /// Not of the form.
    #[error("the proof is not a {PROOF_HEAD} text: {0}")]
    MalformedProof(&'static str),
    /// Not of the form.
    #[error("invalid verifier key: \"{0}\" is not <name>+<hash>+<base64> of an Ed25519 key")]
    MalformedKey(String),
    /// Signed by others only.
    #[error("the checkpoint of \"{origin}\" carries no signature of a given key for that origin")]
    NotSigned { origin: String },
    /// A signature by a given key that is not true.
    #[error("the checkpoint of \"{origin}\" is not what its key signed")]
    BadSignature { origin: String },
    /// Blanks or a plus in the origin.
    #[error("\"{0}\" cannot be the origin of a log")]
    BadOrigin(String),
}

impl From<CheckpointError> for Fault {
    fn from(error: CheckpointError) -> Fault {
        Fault::new(Code::InvalidParameterValue, error.to_string())
    }
}

/// A log at one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log: `skill_system/<log id>/<incarnation>`.
    pub origin: String,
    pub size: u64,
    pub root: Hash,
}

/// A public key for one origin: `<origin>+<hash>+<base64>`.
#[derive(Clone)]
pub struct VerifierKey {
    verifier: StandardVerifier,
    public: Vec<u8>,
}

impl VerifierKey {
    pub fn parse(text: &str) -> Result<VerifierKey, CheckpointError> {
        let malformed = || CheckpointError::MalformedKey(text.chars().take(200).collect());
        let tidy = tidy(text);
        let verifier = StandardVerifier::new(tidy.trim_end()).map_err(|error| match error {
            VerifierError::Format | VerifierError::Alg | VerifierError::Id => malformed(),
        })?;
        let public = tidy.trim_end().splitn(3, '+').nth(2).and_then(|key| BASE64.decode(key).ok());
        // The first byte is the algorithm.
        let public = public.and_then(|key| Some(key.get(1..)?.to_vec())).ok_or_else(malformed)?;
        Ok(VerifierKey { verifier, public })
    }

    /// The origin it is for.
    pub fn origin(&self) -> &str {
        self.verifier.name()
    }

    /// The 32 bytes of Ed25519.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// `SHA256:` and the hex digest of the 32 bytes of the public key, to be read out over a telephone.
    pub fn fingerprint(&self) -> String {
        sha256(&self.public).replacen("sha256", "SHA256", 1)
    }
}

/// The text of the public key for an origin, to be handed to those who verify.
pub fn verifier_key(origin: &str, key: &ed25519_dalek::VerifyingKey) -> String {
    signed_note::new_ed25519_verifier_key(origin, key)
}

struct NoteSigner<'k> {
    origin: &'k str,
    key_id: u32,
    key: &'k SigningKey,
}

impl Signer for NoteSigner<'_> {
    fn name(&self) -> &str {
        self.origin
    }
    fn key_id(&self) -> u32 {
        self.key_id
    }
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, ed25519_dalek::SignatureError> {
        Ok(self.key.sign(message).to_vec())
    }
}

impl Checkpoint {
    pub fn sign(&self, key: &SigningKey) -> Result<String, CheckpointError> {
        let text = format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(self.root));
        sign_text(&self.origin, &text, key)
    }

    /// Reads a note without believing it.
    pub fn read(note: &str) -> Result<Checkpoint, CheckpointError> {
        parse(note).map(|(_, checkpoint)| checkpoint)
    }

    /// Reads a note that one of the keys signed for its origin. Other signatures, such as those of witnesses, do not count.
    pub fn verify(note: &str, keys: &[VerifierKey]) -> Result<Checkpoint, CheckpointError> {
        let (note, checkpoint) = parse(note)?;
        verify_text(&note, &checkpoint.origin, keys).map(|()| checkpoint)
    }
}

/// A text signed as a note by the key of a log.
pub(crate) fn sign_text(origin: &str, text: &str, key: &SigningKey) -> Result<String, CheckpointError> {
    let bad = || CheckpointError::BadOrigin(origin.to_owned());
    if !signed_note::is_key_name_valid(origin) {
        return Err(bad());
    }
    let mut note = Note::new(text.as_bytes(), &[]).map_err(|_| bad())?;
    let public = [&[ED25519], key.public().as_bytes().as_slice()].concat();
    let signer = NoteSigner { origin, key_id: signed_note::key_id(origin, &public), key };
    note.add_sigs(&[&signer]).map_err(|_| bad())?;
    String::from_utf8(note.to_bytes()).map_err(|_| bad())
}

/// One of the keys signed the note for its origin.
pub(crate) fn verify_text(note: &Note, origin: &str, keys: &[VerifierKey]) -> Result<(), CheckpointError> {
    let mut known: Vec<Box<dyn Verifier>> = Vec::new();
    for VerifierKey { verifier: key, .. } in keys.iter().filter(|key| key.origin() == origin) {
        // The list takes the same key twice for two keys that cannot be told apart.
        if known.iter().all(|other| other.key_id() != key.key_id()) {
            known.push(Box::new(key.clone()));
        }
    }
    match note.verify(&VerifierList::new(known)) {
        Ok(_) => Ok(()),
        Err(NoteError::UnverifiedNote) => Err(CheckpointError::NotSigned { origin: origin.to_owned() }),
        Err(_) => Err(CheckpointError::BadSignature { origin: origin.to_owned() }),
    }
}

fn parse(note: &str) -> Result<(Note, Checkpoint), CheckpointError> {
    if note.len() > MAX_TEXT {
        return Err(CheckpointError::Malformed);
    }
    let note = Note::from_bytes(tidy(note).as_bytes()).map_err(|_| CheckpointError::Malformed)?;
    let read = tlog_tiles::Checkpoint::from_bytes(note.text()).map_err(|_| CheckpointError::Malformed)?;
    if read.size() > MAX_SIZE {
        return Err(CheckpointError::Malformed);
    }
    let checkpoint = Checkpoint { origin: read.origin().to_owned(), size: read.size(), root: read.hash().0 };
    Ok((note, checkpoint))
}

/// Shows that one record is in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    pub index: u64,
    /// Its path to the root.
    pub hashes: Vec<Hash>,
    /// Anything; not covered by the proof.
    pub extra: Option<Vec<u8>>,
    pub checkpoint: String,
}

impl Proof {
    /// The text of the proof.
    pub fn print(&self) -> String {
        let mut text = format!("{PROOF_HEAD}\n");
        if let Some(extra) = &self.extra {
            text += &format!("extra {}\n", BASE64.encode(extra));
        }
        text += &format!("index {}\n", self.index);
        for hash in &self.hashes {
            text += &BASE64.encode(hash);
            text.push('\n');
        }
        text + "\n" + &self.checkpoint
    }

    /// Reads the text; believes nothing.
    pub fn parse(text: &str) -> Result<Proof, CheckpointError> {
        let wrong = CheckpointError::MalformedProof;
        if text.len() > MAX_TEXT {
            return Err(wrong("it is too long"));
        }
        let text = tidy(text);
        let (head, checkpoint) = text.split_once("\n\n").ok_or(wrong("no empty line before the checkpoint"))?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(PROOF_HEAD) {
            return Err(wrong("another first line"));
        }
        let extra = match lines.peek().and_then(|line| line.strip_prefix("extra ")) {
            Some(extra) => {
                lines.next();
                Some(BASE64.decode(extra).map_err(|_| wrong("the extra data is not base64"))?)
            }
            None => None,
        };
        let digits = lines.next().and_then(|line| line.strip_prefix("index ")).ok_or(wrong("no index"))?;
        let index = digits
            .parse::<u64>()
            .ok()
            .filter(|index| index.to_string() == digits)
            .ok_or(wrong("the index is not a number"))?;
        let hashes = hashes(lines).ok_or(wrong("a line of the path is not a hash, or it has too many lines"))?;
        Ok(Proof { index, hashes, extra, checkpoint: checkpoint.to_owned() })
    }
}

/// A consistency proof: at most [`MAX_PROOF`] lines with the base64 of a hash each, none for equal sizes.
pub fn consistency(text: &str) -> Option<Vec<Hash>> {
    hashes(tidy(text).trim_end().lines())
}

fn hashes<'t>(lines: impl Iterator<Item = &'t str>) -> Option<Vec<Hash>> {
    let mut hashes = Vec::new();
    for line in lines {
        if hashes.len() == MAX_PROOF {
            return None;
        }
        hashes.push(BASE64.decode(line).ok()?.try_into().ok()?);
    }
    Some(hashes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::keyring::{Keyring, RANDOM_BYTES};
    use proptest::prelude::*;

    const ORIGIN: &str = "skill_system/0198c0de-0000-7000-8000-000000000001/1";

    fn ring(seed: u8) -> Keyring {
        Keyring::parse(&Keyring::generate(&[seed; RANDOM_BYTES])).unwrap()
    }
    fn checkpoint() -> Checkpoint {
        Checkpoint { origin: ORIGIN.into(), size: 20_852_163, root: [0xab; 32] }
    }
    fn key(origin: &str, ring: &Keyring) -> VerifierKey {
        VerifierKey::parse(&verifier_key(origin, &ring.signing().unwrap().public())).unwrap()
    }

    #[test]
    fn a_checkpoint_is_a_signed_note_of_its_origin() {
        let ring = ring(7);
        let note = checkpoint().sign(ring.signing().unwrap()).unwrap();
        assert!(
            note.starts_with(&format!(
                "{ORIGIN}\n20852163\nq6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=\n\n— {ORIGIN} "
            ))
        );
        assert_eq!(Checkpoint::verify(&note, &[key(ORIGIN, &ring)]), Ok(checkpoint()));
        assert_eq!(
            Checkpoint::verify(&note, &[key(ORIGIN, &ring), key("x", &ring), key(ORIGIN, &ring)]),
            Ok(checkpoint())
        );
        assert_eq!(Checkpoint::read(&note), Ok(checkpoint()));
        let not_signed = Err(CheckpointError::NotSigned { origin: ORIGIN.into() });
        assert_eq!(Checkpoint::verify(&note, &[]), not_signed);
        assert_eq!(Checkpoint::verify(&note, &[key(ORIGIN, &self::ring(8))]), not_signed);
        // The key of another log does not vouch for this one, whatever name its signature carries.
        assert_eq!(Checkpoint::verify(&note, &[key("skill_system/other/1", &ring)]), not_signed);
        let other = Checkpoint { origin: "skill_system/other/1".into(), ..checkpoint() };
        let forged = other.sign(ring.signing().unwrap()).unwrap().replacen("skill_system/other/1", ORIGIN, 1);
        assert_eq!(Checkpoint::verify(&forged, &[key("skill_system/other/1", &ring)]), not_signed);
        let changed = note.replacen("20852163", "20852164", 1);
        assert_eq!(
            Checkpoint::verify(&changed, &[key(ORIGIN, &ring)]),
            Err(CheckpointError::BadSignature { origin: ORIGIN.into() })
        );
        // What witnesses add does not disturb.
        let witnessed = format!("{note}— witness.example {}\n", BASE64.encode([1; 76]));
        assert_eq!(Checkpoint::verify(&witnessed, &[key(ORIGIN, &ring)]), Ok(checkpoint()));
        for bad in ["", "a b", "a+b", "a\nb"] {
            let checkpoint = Checkpoint { origin: bad.into(), ..checkpoint() };
            assert_eq!(checkpoint.sign(ring.signing().unwrap()), Err(CheckpointError::BadOrigin(bad.into())));
        }
    }

    /// What psql, editors, mail, tickets and shells make of a text.
    fn handed_over(text: &str) -> Vec<String> {
        let end = text.trim_end();
        let crlf = end.replace('\n', "\r\n");
        vec![
            text.to_owned(),
            end.to_owned(),
            format!("{text}\n"),
            format!("{text}\n\n \t\n"),
            format!("\n{text}\n"),
            format!("\r\n {crlf}\r\n\r\n"),
            crlf.clone(),
            format!("{crlf}\n"),
            format!("{crlf}\r"),
            format!("\u{feff}{crlf}\r\n"),
        ]
    }

    #[test]
    fn texts_are_read_as_they_are_handed_over() {
        let ring = ring(7);
        let keys = [key(ORIGIN, &ring)];
        let note = checkpoint().sign(ring.signing().unwrap()).unwrap();
        for text in handed_over(&note) {
            assert_eq!(Checkpoint::verify(&text, &keys), Ok(checkpoint()), "{text:?}");
            assert_eq!(Checkpoint::read(&text), Ok(checkpoint()), "{text:?}");
        }
        // Only the ends: what was signed stays as it was signed.
        for bad in [note.replacen("\n\n", "\n\n\n", 1), note.replacen('\n', " \n", 1), note.replacen('\n', "\n\n", 1)] {
            assert!(Checkpoint::verify(&bad, &keys).is_err(), "{bad:?}");
        }
        let proof = Proof { index: 3, hashes: vec![[1; 32], [2; 32]], extra: None, checkpoint: note };
        for text in handed_over(&proof.print()) {
            assert_eq!(Proof::parse(&text), Ok(proof.clone()), "{text:?}");
        }
        let text = verifier_key(ORIGIN, &ring.signing().unwrap().public());
        for text in handed_over(&text) {
            assert_eq!(VerifierKey::parse(&text).unwrap().origin(), ORIGIN, "{text:?}");
        }
        let lines = format!("{0}\n{0}\n", BASE64.encode([1; 32]));
        for text in handed_over(&lines) {
            assert_eq!(consistency(&text), Some(vec![[1; 32], [1; 32]]), "{text:?}");
        }
        for text in handed_over("") {
            assert_eq!(consistency(&text), Some(Vec::new()), "{text:?}");
        }
        assert_eq!(consistency(&lines.replacen('\n', "\n\n", 1)), None);
    }

    #[test]
    fn keys_are_read_strictly() {
        let text = verifier_key(ORIGIN, &ring(7).signing().unwrap().public());
        let key = VerifierKey::parse(&text).unwrap();
        assert_eq!(key.origin(), ORIGIN);
        let public = ring(7).signing().unwrap().public();
        assert_eq!(key.fingerprint(), format!("SHA256:{}", &sha256(public.as_bytes())[7..]));
        for bad in ["", "a", "a+b+c", &text[1..], &text[..text.len() - 4], &text.replacen('+', "+0", 1)] {
            assert!(VerifierKey::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn proofs_are_read_strictly() {
        let proof =
            Proof { index: 3, hashes: vec![[1; 32], [2; 32]], extra: Some(b"x".to_vec()), checkpoint: "note\n".into() };
        let text = proof.print();
        assert_eq!(Proof::parse(&text), Ok(proof.clone()));
        let hash = BASE64.encode([1; 32]);
        for bad in [
            text.replace("@v1", "@v2"),
            text.replace("index 3", "index 03"),
            text.replace("index 3", "index +3"),
            text.replace("index 3", "index"),
            text.replace("extra eA==", "extra eA"),
            text.replace("\n\n", "\n"),
            text.replace(&hash, &hash[1..]),
            text.replace(&hash, &vec![hash.as_str(); 64].join("\n")),
            text.replace("index 3", "index 18446744073709551616"),
            "x".repeat(MAX_TEXT + 1),
        ] {
            assert!(Proof::parse(&bad).is_err(), "{bad}");
        }
        let bare = Proof { extra: None, hashes: Vec::new(), ..proof };
        assert_eq!(bare.print(), format!("{PROOF_HEAD}\nindex 3\n\nnote\n"));
        assert_eq!(Proof::parse(&bare.print()), Ok(bare));
    }

    proptest! {
        #[test]
        fn hostile_texts_are_errors(text in "(c2sp.org/tlog-proof@v1\n)?(index [0-9]{0,30}\n)?(\\PC|\n){0,200}") {
            let keys = [key(ORIGIN, &ring(7))];
            prop_assert!(Checkpoint::verify(&text, &keys).is_err());
            let _ = Proof::parse(&text);
            let _ = VerifierKey::parse(&text);
        }

        #[test]
        fn any_flipped_bit_is_found(at in any::<prop::sample::Index>(), bit in 0u8..7) {
            let note = checkpoint().sign(ring(7).signing().unwrap()).unwrap();
            let mut bytes = note.clone().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(changed) = String::from_utf8(bytes) {
                prop_assert!(Checkpoint::verify(&changed, &[key(ORIGIN, &ring(7))]).is_err());
            }
        }
    }
}
