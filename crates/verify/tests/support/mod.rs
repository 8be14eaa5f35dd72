//! A log of made-up records, and exports of it as the server writes them. For tests and for measuring.

use std::collections::BTreeMap;
use std::io::Write;
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use skill_core::audit::keyring::{Keyring, RANDOM_BYTES};
use skill_core::audit::skr1::{self, EncodeError};
use skill_core::audit::{self, Record};
use skill_core::ledger::checkpoint::{Checkpoint, Proof, verifier_key};
use skill_core::limits::Bounds;
use skill_core::tree::{self, Appender, Hash, Tiles};
use skill_core::{Code, Fault};

pub const LOG_ID: [u8; 16] = [1, 0x98, 0xc0, 0xde, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, 1];
const START: i64 = 1_795_263_177_699_023;

/// A row of the audit trail.
pub struct Row {
    pub id: [u8; 16],
    pub tenant_id: String,
    pub event_type: String,
    /// As jsonb prints it.
    pub event_data: String,
    pub actor_id: Option<String>,
    pub created_at: i64,
    pub transaction_id: u64,
    pub session_user: String,
    pub key_id: String,
    pub signature: String,
}

impl Row {
    /// Typical: about 500 bytes as a line.
    pub fn typical(i: u64, ring: &Keyring) -> Row {
        let data = format!(
            r#"{{"cost": {}.{:04}, "skill": "pdf-extract-{}", "outcome": "allowed"}}"#,
            i % 3,
            i % 10_000,
            i % 50
        );
        Row::new(i, "run.logged", data, ring)
    }

    pub fn new(i: u64, event_type: &str, event_data: String, ring: &Keyring) -> Row {
        let created_at = START + i as i64 * 250;
        let mut id = [0; 16];
        id[..6].copy_from_slice(&(created_at as u64 / 1000).to_be_bytes()[2..]);
        id[6..8].copy_from_slice(&(0x7000 | (created_at as u64 % 1000) as u16).to_be_bytes());
        id[8..].copy_from_slice(&(i.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1 << 63).to_be_bytes());
        let mut row = Row {
            id,
            tenant_id: "default".into(),
            event_type: event_type.into(),
            event_data,
            actor_id: Some(format!("agent-{}", i % 20)),
            created_at,
            transaction_id: 700_000 + i / 3,
            session_user: "app".into(),
            key_id: ring.active().id.clone(),
            signature: String::new(),
        };
        row.signature = audit::sign(ring.active(), &row.encoded());
        row
    }

    pub fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let data: Value = serde_json::from_str(&self.event_data).unwrap();
        Record {
            id: &self.id,
            tenant_id: &self.tenant_id,
            event_type: &self.event_type,
            actor_id: self.actor_id.as_deref(),
            actor_type: Some("agent"),
            created_at: self.created_at,
            recorded_at: self.created_at + 7,
            transaction_id: self.transaction_id,
            session_user: &self.session_user,
            current_user: "app",
            key_id: &self.key_id,
        }
        .encode::<EncodeError>(&mut out, &LOG_ID, Bounds::RECORDED, |writer| skr1::encode_into(&data, writer))
        .unwrap();
        out
    }

    pub fn leaf_hash(&self) -> Hash {
        audit::leaf_hash(&self.encoded(), &self.signature)
    }

    pub fn id(&self) -> String {
        uuid::Uuid::from_bytes(self.id).to_string()
    }

    /// The line of an export.
    pub fn line(&self, leaf: u64) -> String {
        let time =
            |micros: i64| chrono::DateTime::from_timestamp_micros(micros).unwrap().format("%Y-%m-%dT%H:%M:%S%.6fZ");
        let text = |text: &str| Value::from(text);
        format!(
            r#"{{"leaf":{leaf},"id":"{}","tenant_id":{},"event_type":{},"event_data":{},"actor_id":{},"actor_type":"agent","created_at":"{}","recorded_at":"{}","transaction_id":{},"session_user_name":{},"current_user_name":"app","key_id":{},"signature":{}}}"#,
            self.id(),
            text(&self.tenant_id),
            text(&self.event_type),
            self.event_data,
            Value::from(self.actor_id.clone()),
            time(self.created_at),
            time(self.created_at + 7),
            self.transaction_id,
            text(&self.session_user),
            text(&self.key_id),
            text(&self.signature)
        )
    }
}

#[derive(Default)]
pub struct Stored(BTreeMap<(u8, u64), Rc<[u8]>>);

impl Tiles for Stored {
    fn tile(&self, level: u8, n: u64) -> Result<Rc<[u8]>, Fault> {
        self.0.get(&(level, n)).cloned().ok_or_else(|| Fault::new(Code::DataCorrupted, "no tile"))
    }
}

/// The tree over the rows, with its keys.
pub struct Log {
    pub ring: Keyring,
    pub incarnation: u32,
    pub size: u64,
    pub tiles: Stored,
}

#[allow(dead_code, reason = "each of those who share this uses a part of it")]
impl Log {
    pub fn new(ring: Keyring, leaves: impl Iterator<Item = Hash>) -> Log {
        let mut tiles = Stored::default();
        let mut appender = Appender::resume(0, &tiles).unwrap();
        let mut emit = |level, n, hashes: &[u8]| {
            tiles.0.insert((level, n), hashes.into());
            Ok(())
        };
        leaves.for_each(|leaf| appender.push(&leaf, &mut emit).unwrap());
        let (size, _) = appender.finish(&mut emit).unwrap();
        Log { ring, incarnation: 1, size, tiles }
    }

    pub fn origin(&self) -> String {
        format!("skill_system/{}/{}", uuid::Uuid::from_bytes(LOG_ID), self.incarnation)
    }

    pub fn vkey(&self) -> String {
        verifier_key(&self.origin(), &self.ring.signing().unwrap().public())
    }

    pub fn root(&self, size: u64) -> Hash {
        tree::root(size, &self.tiles).unwrap()
    }

    pub fn checkpoint(&self, size: u64) -> String {
        let checkpoint = Checkpoint { origin: self.origin(), size, root: self.root(size) };
        checkpoint.sign(self.ring.signing().unwrap()).unwrap()
    }

    pub fn inclusion(&self, index: u64, size: u64) -> String {
        let hashes = tree::inclusion_proof(index, size, &self.tiles).unwrap();
        Proof { index, hashes, extra: None, checkpoint: self.checkpoint(size) }.print()
    }

    pub fn consistency(&self, old: u64, new: u64) -> String {
        let hashes = tree::consistency_proof(old, new, &self.tiles).unwrap();
        hashes.iter().map(|hash| BASE64.encode(hash) + "\n").collect()
    }

    pub fn cover(&self, start: u64, end: u64) -> Vec<String> {
        tree::cover(start, end, &self.tiles).unwrap().iter().map(|hash| BASE64.encode(hash)).collect()
    }

    pub fn manifest(&self, start: u64, end: u64, size: u64) -> Value {
        json!({
            "skill_system_export": 1, "origin": self.origin(), "log_id": uuid::Uuid::from_bytes(LOG_ID).to_string(),
            "start": start, "end": end, "size": size, "root": BASE64.encode(self.root(size)),
            "since": "2026-11-21T00:00:00.000000Z", "until": "2026-11-22T00:00:00.000000Z",
            "left": self.cover(0, start), "right": self.cover(end, size), "checkpoint": self.checkpoint(size),
        })
    }

    pub fn last_line(manifest: &Value, [records, missing, retired]: [u64; 3]) -> Value {
        let mut last = manifest.clone();
        let members = last.as_object_mut().unwrap();
        members.remove("skill_system_export");
        members.insert("skill_system_export_end".into(), json!(1));
        last["records"] = records.into();
        last["missing"] = missing.into();
        last["retired"] = retired.into();
        last
    }

    /// A whole export of rows that are all there.
    pub fn export(
        &self,
        start: u64,
        end: u64,
        line: impl Fn(u64) -> String,
        out: &mut impl Write,
    ) -> std::io::Result<()> {
        let manifest = self.manifest(start, end, self.size);
        writeln!(out, "{manifest}")?;
        for leaf in start..end {
            writeln!(out, "{}", line(leaf))?;
        }
        writeln!(out, "{}", Log::last_line(&manifest, [end - start, 0, 0]))
    }
}

pub fn ring(seed: u8) -> Keyring {
    Keyring::parse(&Keyring::generate(&[seed; RANDOM_BYTES])).unwrap()
}
