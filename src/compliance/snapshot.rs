//! One filing as one signed document.

use serde_json::Value;
use skill_core::compliance::snapshot::{Statement, VERSION_MEMBER, digest};
use skill_core::jsonb;
use skill_core::{Code, Fault};
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, JsonText, Jsonb, Uuid, arg, pg_function};

use super::unknown;
use crate::args::given;
use crate::audit::keys;
use crate::ledger;

/// Largest document, in bytes of what has no bound itself: evidence without its content, frozen rules and records.
const MAX_BYTES: i64 = 64 << 20;

/// An error before anything is built that would be too large.
fn check_size(id: Uuid) -> Result<(), Fault> {
    let bytes = spi::first::<i64>(include_str!("snapshot_size.sql"), As::Owner, See::Statement, &[arg(id)]);
    match bytes {
        Some(bytes) if bytes > MAX_BYTES => {
            let message = format!("the snapshot would have {bytes} bytes, more than {MAX_BYTES}");
            Err(Fault::new(Code::ProgramLimitExceeded, message)
                .hint("Keep large evidence elsewhere, by path and digest; audit_export() exports records of any size."))
        }
        _ => Ok(()),
    }
}

pg_function!(compliance_snapshot);
fn compliance_snapshot(call: &Call) -> Answer {
    let id = given(call.arguments(), "checklist_id")?;
    let origin = ledger::current_origin()?;
    check_size(id)?;
    let mut found = None;
    spi::each(include_str!("snapshot.sql"), As::Owner, See::Statement, &[arg(id), arg(&origin)], |row| {
        let (Jsonb(root), payload): (_, String) = row.read();
        let encoded = digest(id.as_bytes(), |writer| jsonb::encode_into(root, writer))?;
        found = Some((encoded, payload));
        Ok(())
    })?;
    let (digest, payload) = found.ok_or_else(|| unknown("checklist", id))?;
    let ring = keys::keyring()?;
    let key = keys::signing(&ring, "the snapshot cannot be signed")?;
    let note = Statement { origin, checklist: *id.as_bytes(), digest }.sign(key)?;
    let document = format!("{{\"{VERSION_MEMBER}\": 1, \"payload\": {payload}, \"note\": {}}}", Value::from(note));
    Ok(call.answer(JsonText(document)))
}
