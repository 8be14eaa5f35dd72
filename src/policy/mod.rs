//! Policy: may a skill have these effects, and which rule decided it.

mod decide;
mod explain;
mod history;

use std::rc::Rc;

use const_format::concatcp;
use skill_core::Fault;
use skill_core::error::shorten;
use skill_core::policy::{MAX_NAME_BYTES, Mode, Policy, PolicyError, Profile, Unlisted};
use skill_pg::cached::Cached;
use skill_pg::spi::{self, As, See};
use skill_pg::{FromRow, Row, arg};

use crate::module::Module;
use crate::settings;

pub use decide::{decision_row, enforce_effects, load_valid};

pub const MODULE: Module = Module {
    event_types: &["policy."],
    caches: &[|change| POLICIES.with(|cache| cache.notice(change))],
    maintained_tables: &["policy_profiles"],
    ..Module::new("policy")
};

/// A policy, or why it does not compile.
pub type Compiled = Rc<Result<Policy, PolicyError>>;

thread_local! {
    /// By tenant and name, with a NUL, which no text of the server holds, between them.
    static POLICIES: Cached<String, Compiled> = const { Cached::new(c"policy_profiles", 1000) };
}

/// Columns of a profile `p`, as `Profile` is read from them.
const PROFILE_COLUMNS: &str = "p.name, p.version, p.allowed_effects, p.ask_effects, p.denied_effects, p.allowed_exec, \
     p.allowed_write_roots, p.inherits, p.unlisted, p.mode, p.metadata::text";

fn read_profile(row: &Row) -> Profile {
    let (name, version, allowed, ask, denied, exec, roots, inherits, unlisted, mode, metadata): (
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        &str,
        &str,
        _,
    ) = row.read();
    Profile {
        name,
        version,
        allowed_effects: allowed,
        ask_effects: ask,
        denied_effects: denied,
        allowed_exec: exec,
        allowed_write_roots: roots,
        inherits,
        unlisted: if unlisted == "ask" { Unlisted::Ask } else { Unlisted::Deny },
        mode: if mode == "observe" { Mode::Observe } else { Mode::Enforce },
        metadata,
    }
}

struct ProfileRow(Profile);

impl FromRow<'_> for ProfileRow {
    fn from_row(row: &Row<'_>) -> Self {
        ProfileRow(read_profile(row))
    }
}

/// The compiled policy of the session's tenant, from the cache or freshly read.
pub fn policy(name: &str) -> Result<Compiled, Fault> {
    // No profile has such a long name; it must not fill the cache.
    if name.len() > MAX_NAME_BYTES {
        return Ok(Rc::new(Err(PolicyError::Unknown { policy: shorten(name) })));
    }
    let key = settings::with_tenant(|tenant| [tenant, "\0", name].concat())?;
    POLICIES.with(|cache| {
        cache.get_or_try_load(key.as_str(), || Ok(Rc::new(Policy::compile(name, &family(&settings::tenant()?, name)))))
    })
}

/// A profile and its ancestors, found level by level.
fn family(tenant: &str, name: &str) -> Vec<Profile> {
    const SQL: &str = concatcp!(
        "WITH RECURSIVE family(name) AS (SELECT $2 UNION SELECT unnest(p.inherits) FROM skill_system.policy_profiles p ",
        "JOIN family f ON p.name = f.name WHERE p.tenant_id = $1) SELECT ",
        PROFILE_COLUMNS,
        " FROM skill_system.policy_profiles p JOIN family f ON p.name = f.name WHERE p.tenant_id = $1"
    );
    let rows = spi::collect::<ProfileRow>(SQL, As::Owner, See::Latest, &[arg(tenant), arg(name)]);
    rows.into_iter().map(|row| row.0).collect()
}
