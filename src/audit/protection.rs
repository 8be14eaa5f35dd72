//! What protects the audit trail, as the catalogue has it now: is it all there, and what is it exactly.
//!
//! `problems()` compares with what this library ships; it needs no preload and believes nothing that is stored in the
//! database. `fingerprint()` writes the same state down, so that a change and its taking back both leave a trace in the log.
//! Audit tables are all tables of the schema named audit_...; their rows are the business of `record.rs`.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use skill_core::audit::shipped;
use skill_pg::cached::roles_unchanged;
use skill_pg::hooks;
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Arg, Call, Oid, arg, pg_function, sys};

use crate::module::Check;

/// The install script, in parts.
pub const SCRIPTS: &[&str] = include!(concat!(env!("OUT_DIR"), "/install_scripts.rs"));

/// What the scripts declare, as parameters of the checks.
fn shipped() -> [Arg<'static>; 2] {
    let mut all = shipped::Shipped::default();
    for script in SCRIPTS {
        let part = shipped::read(script);
        all.functions.extend(part.functions);
        all.columns.extend(part.columns);
    }
    [arg(json!(all.functions)), arg(json!(all.columns))]
}

/// Something that is not as it should be.
pub struct Problem {
    /// The table, where it is about one.
    pub table: Option<Oid>,
    /// What is wrong with it, or on the whole.
    pub detail: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self.table.and_then(sys::relation_name) {
            Some(table) => write!(f, "{table}: {}", self.detail),
            None => f.write_str(&self.detail),
        }
    }
}

/// What is wrong with the protection.
pub fn problems() -> Vec<Problem> {
    let found: Vec<(Option<Oid>, String)> =
        spi::with_plain_text(|| spi::collect(PROBLEMS, As::Caller, See::Statement, &shipped()));
    found.into_iter().map(|(table, detail)| Problem { table, detail }).collect()
}

/// For `health()`.
pub fn check() -> Check {
    let problems: Vec<_> = problems().iter().map(ToString::to_string).collect();
    if problems.is_empty() {
        return Check::ok("audit tables and functions are as the extension ships them");
    }
    Check::error(
        problems.join("; "),
        "As a superuser: SELECT * FROM skill_system.repair(); what it cannot do comes with the statements that do it. \
         verify_audit() names the tables.",
    )
}

/// The numbers are those of the attacks in the list that the tests follow.
const PROBLEMS: &str = include_str!("protection_problems.sql");

thread_local! {
    /// The last fingerprint, and the versions of the catalogue rows it was made of.
    static LAST: RefCell<Option<(String, Value, [u8; 32])>> = const { RefCell::new(None) };
}

/// The state of the protection as a JSON object from item to state, and the SHA-256 of its text: keys sorted by their
/// bytes, no white space. The same before and after dump and restore. Cheap while nothing changes: then only
/// the versions of the catalogue rows are looked at, which tell also of DML on catalogues that sends no invalidation.
pub fn fingerprint() -> (Value, [u8; 32]) {
    let versions: String = spi::one(VERSIONS, As::Caller, See::Latest, &[]);
    let roles_same = roles_unchanged();
    if let Some(last) = LAST.with_borrow(|last| {
        last.as_ref().filter(|last| roles_same && last.0 == versions).map(|last| (last.1.clone(), last.2))
    }) {
        return last;
    }
    let value = json!(items());
    let hash: [u8; 32] = Sha256::digest(value.to_string()).into();
    LAST.set(Some((versions, value.clone(), hash)));
    (value, hash)
}

fn items() -> BTreeMap<String, String> {
    let found: Vec<(String, Option<String>)> =
        spi::with_plain_text(|| spi::collect(STATE, As::Caller, See::Latest, &[]));
    let mut items: BTreeMap<_, _> = found.into_iter().map(|(item, state)| (item, state.unwrap_or_default())).collect();
    let preloaded = if hooks::installed() { "preloaded" } else { "not preloaded" };
    items.insert("library".to_owned(), format!("{}, {preloaded}", env!("CARGO_PKG_VERSION")));
    items
}

pg_function!(audit_fingerprint);
/// `audit_fingerprint()` → one row for each item.
fn audit_fingerprint(call: &Call) -> Answer {
    let mut rows = call.row_set();
    if let Value::Object(items) = fingerprint().0 {
        for (item, state) in &items {
            rows.push(&[arg(item), arg(state.as_str())]);
        }
    }
    Ok(rows.finish())
}

/// Every catalogue row that `STATE` is made of has a version: where it lies and who wrote it. (What roles are called is
/// watched by `skill_pg::cached`.)
const VERSIONS: &str = include_str!("protection_versions.sql");

/// Item and state, without oids, in an order that the reader sets.
const STATE: &str = include_str!("protection_state.sql");
