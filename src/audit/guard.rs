//! What a server that preloads this library refuses: statements that take away the protection of the audit trail,
//! or go round it.
//!
//! `src/pg/utility.rs` reads the statements; here stands which of them are refused, and why, in words. What comes
//! in by another door (a server without the library, DML on catalogues, files) is found by `protection.rs`.

use crate::settings;
use skill_pg::error::raise;
use skill_pg::spi::{self, As, See};
use skill_pg::{Oid, arg, sys};
use std::ffi::{CStr, CString};

use pgrx::pg_sys::AlterTableType as At;
use skill_core::{Code, Fault};

use super::bypass::{self, Bypass};
use crate::audit;

/// What a statement changes.
pub enum Target<'a> {
    /// A table, as the statement names it.
    Table(Name<'a>),
    /// A function, as the statement names it.
    Function(Name<'a>),
    /// A function that would be made in this schema.
    NewFunction(Oid, &'a CStr),
    /// A schema.
    Schema(&'a CStr),
    /// An extension.
    Extension(&'a CStr),
    /// Everything that belongs to a role.
    BelongingTo(Oid),
}

/// A name as it stands in a statement.
#[derive(Clone, Copy)]
pub struct Name<'a> {
    /// The schema, where the statement says it.
    pub schema: Option<&'a CStr>,
    /// The name in it.
    pub name: &'a CStr,
}

/// An object that is about to be dropped, named by the statement or reached by CASCADE.
pub enum Dropped {
    /// An object of the catalogue `class`: a relation or a column of it, a trigger, a rule, a policy, a function.
    Object {
        /// The catalogue's oid.
        class: Oid,
        /// The object's.
        oid: Oid,
    },
    /// An extension or a schema of this name.
    Named(CString),
}

const EXTENSION: &CStr = c"skill_system";

impl Name<'_> {
    /// The name may mean something in our schema.
    fn may_be_ours(&self) -> bool {
        self.schema.map_or_else(sys::on_search_path, |schema| schema == EXTENSION)
    }

    fn is_audit(&self) -> bool {
        self.name.to_bytes().starts_with(b"audit_")
    }
}

fn qualified(name: &CStr) -> String {
    format!("skill_system.{}", sys::quote_identifier(&name.to_string_lossy()))
}

/// Protection is in force: there is a log, and neither we ourselves nor a superuser who said so are changing it.
/// Before the first record nothing is guarded, so that a restore can make everything anew.
fn in_force() -> bool {
    !settings::allow_unprotected()
        && !bypass::is_active(Bypass::Definition)
        && sys::find_relation(c"audit_logs").is_some()
        && sys::find_relation(c"audit_state").is_some()
        && !sys::in_own_script()
        && audit::has_identity()
}

/// Raises 42501 when `target` is protected. `loss` completes "It would ... <name>.".
pub fn check(target: &Target, loss: &str) {
    let ours = match target {
        Target::Table(name) => (name.is_audit() && name.may_be_ours() && sys::find_table(name.name).is_some())
            .then(|| qualified(name.name)),
        Target::Function(name) => (name.may_be_ours() && is_function(name.name)).then(|| qualified(name.name)),
        Target::NewFunction(schema, name) => (*schema == sys::schema()).then(|| qualified(name)),
        Target::Schema(name) | Target::Extension(name) => {
            (*name == EXTENSION).then(|| EXTENSION.to_string_lossy().into_owned())
        }
        Target::BelongingTo(role) => (sys::find_relation(c"audit_logs").is_some() && *role == sys::owner())
            .then(|| "skill_system.audit_logs".to_owned()),
    };
    if let Some(name) = ours.filter(|_| in_force()) {
        refuse(&name, loss);
    }
}

/// Raises 42501 when the object is part of the protection.
pub fn check_drop(object: &Dropped) {
    if !in_force() {
        return;
    }
    let found = match object {
        Dropped::Object { class, oid } => spi::one::<String>(
            "SELECT format('skill_system.%I', name) FROM (\
                 SELECT relname AS name FROM pg_class WHERE relnamespace = 'skill_system'::regnamespace AND relkind IN ('r', 'p', 'f') AND relname LIKE 'audit\\_%' \
                     AND oid = CASE $1 WHEN 'pg_class'::regclass THEN $2 \
                                       WHEN 'pg_trigger'::regclass THEN (SELECT tgrelid FROM pg_trigger WHERE oid = $2) \
                                       WHEN 'pg_rewrite'::regclass THEN (SELECT ev_class FROM pg_rewrite WHERE oid = $2) \
                                       WHEN 'pg_policy'::regclass THEN (SELECT polrelid FROM pg_policy WHERE oid = $2) END \
                 UNION ALL \
                 SELECT proname FROM pg_proc WHERE pronamespace = 'skill_system'::regnamespace AND oid = $2 AND $1 = 'pg_proc'::regclass) found",
            As::Caller, See::Latest,
            &[arg(*class), arg(*oid)],
        )
        .map(|name| (name, "drop, or drop a part of,")),
        Dropped::Named(name) => (name.as_c_str() == EXTENSION).then(|| ("skill_system".to_owned(), "drop the audit trail with")),
    };
    if let Some((name, loss)) = found {
        refuse(&name, loss);
    }
}

/// Raises 42501 for INSERT, UPDATE or DELETE on a catalogue that says how tables are protected.
pub fn check_catalogue(catalogue: &str) {
    if in_force() {
        refuse(catalogue, "go round every check by writing to the catalogue");
    }
}

fn refuse(name: &str, loss: &str) -> ! {
    raise(
        Fault::new(Code::InsufficientPrivilege, format!("{name} is protected: the statement is refused"))
            .detail(format!("It would {loss} {name}."))
            .hint("A superuser can SET skill_system.allow_unprotected = on in one session; verify_audit() then reports what was changed, and the next seal records it."),
    );
}

fn is_function(name: &CStr) -> bool {
    sys::schema() != Oid::INVALID
        && spi::one::<bool>(
            "SELECT EXISTS (SELECT FROM pg_proc WHERE proname = $1 AND pronamespace = 'skill_system'::regnamespace)",
            As::Caller,
            See::Latest,
            &[arg(name.to_string_lossy().as_ref())],
        ) == Some(true)
}

/// What a subcommand of ALTER TABLE would do to an audit table; `None` when it takes nothing away. What a restore says
/// of the partitions it makes is among the latter: it comes when the log has its identity again.
pub fn loss_of(subcommand: At::Type) -> Option<&'static str> {
    Some(match subcommand {
        At::AT_SetStatistics
        | At::AT_SetOptions
        | At::AT_ResetOptions
        | At::AT_SetStorage
        | At::AT_SetCompression
        | At::AT_SetRelOptions
        | At::AT_ResetRelOptions
        | At::AT_SetTableSpace
        | At::AT_ClusterOn
        | At::AT_DropCluster
        | At::AT_ReplicaIdentity
        | At::AT_ValidateConstraint
        | At::AT_SetLogged
        | At::AT_EnableAlwaysTrig
        | At::AT_EnableRowSecurity
        | At::AT_NoForceRowSecurity => return None,
        At::AT_AlterColumnType => "rewrite the rows of",
        At::AT_AddColumn | At::AT_DropColumn | At::AT_ColumnDefault | At::AT_SetNotNull | At::AT_DropNotNull => {
            "change the columns of"
        }
        At::AT_DisableTrig | At::AT_DisableTrigAll | At::AT_DisableTrigUser => "switch off triggers of",
        At::AT_EnableTrig | At::AT_EnableReplicaTrig | At::AT_EnableTrigAll | At::AT_EnableTrigUser => {
            "open a way round triggers of"
        }
        At::AT_DetachPartition | At::AT_DetachPartitionFinalize => "take records out of",
        At::AT_AttachPartition | At::AT_AddInherit | At::AT_DropInherit => "change which tables belong to",
        At::AT_SetUnLogged => "make a crash empty",
        At::AT_ChangeOwner => "give away",
        At::AT_DisableRowSecurity | At::AT_ForceRowSecurity => "change who sees the rows of",
        At::AT_DisableRule | At::AT_EnableRule | At::AT_EnableAlwaysRule | At::AT_EnableReplicaRule => {
            "change a rule of"
        }
        _ => "change the definition of",
    })
}
