//! What a server that preloads this library refuses: statements that take away or bypass the protection of the audit trail.
//!
//! `skill_pg::hooks` reads the statements; this is which of them are refused, and why, in words. What comes in by another
//! door (a server without the library, DML on catalogues, files) is found by `protection.rs`.

use std::ffi::CStr;

use skill_core::{Code, Fault};
use skill_pg::hooks::{self, AlterTableType as At, Change, Hooks, Name, NewPolicy, NewTrigger, Target};
use skill_pg::spi::{self, As, See};
use skill_pg::{Oid, arg, sys};

use super::bypass::{self, Bypass};
use super::identity::has_identity;
use crate::module::Check;
use crate::settings;

const EXTENSION: &CStr = c"skill_system";

static HOOKS: Hooks = Hooks { change: check_change, drop: check_drop, write: check_catalogue, tables: &CATALOGUE_OIDS };

/// Called once when the library is loaded.
pub fn register() {
    hooks::register(&HOOKS);
}

/// For `health()`.
pub fn check() -> Check {
    match (hooks::installed(), settings::allow_unprotected()) {
        (true, false) => Check::ok("statements that take away protection are refused"),
        (true, true) => Check::warning(
            "skill_system.allow_unprotected is on for this session",
            "RESET skill_system.allow_unprotected;",
        ),
        (false, _) => Check::warning(
            "statements that take away protection are reported afterwards, not refused",
            "Add skill_system to shared_preload_libraries and restart the server.",
        ),
    }
}

/// The catalogues that define what a table is and what runs when it is written to.
const CATALOGUES: [(u32, &str); 17] = [
    (1247, "pg_type"),
    (1249, "pg_attribute"),
    (PG_PROC, "pg_proc"),
    (PG_CLASS, "pg_class"),
    (2604, "pg_attrdef"),
    (2606, "pg_constraint"),
    (2608, "pg_depend"),
    (2610, "pg_index"),
    (2611, "pg_inherits"),
    (2612, "pg_language"),
    (PG_NAMESPACE, "pg_namespace"),
    (PG_REWRITE, "pg_rewrite"),
    (PG_TRIGGER, "pg_trigger"),
    (PG_EXTENSION, "pg_extension"),
    (PG_POLICY, "pg_policy"),
    (3350, "pg_partitioned_table"),
    (3466, "pg_event_trigger"),
];
const PG_PROC: u32 = 1255;
const PG_CLASS: u32 = 1259;
const PG_NAMESPACE: u32 = 2615;
const PG_REWRITE: u32 = 2618;
const PG_TRIGGER: u32 = 2620;
const PG_EXTENSION: u32 = 3079;
const PG_POLICY: u32 = 3256;

static CATALOGUE_OIDS: [u32; CATALOGUES.len()] = {
    let mut oids = [0; CATALOGUES.len()];
    let mut i = 0;
    while i < oids.len() {
        oids[i] = CATALOGUES[i].0;
        i += 1;
    }
    oids
};

/// The name may mean something in the schema of the extension.
fn may_be_in_schema(name: &Name) -> bool {
    name.schema.map_or_else(sys::on_search_path, |schema| schema == EXTENSION)
}

fn qualified(name: &CStr) -> String {
    format!("skill_system.{}", sys::quote_identifier(&name.to_string_lossy()))
}

/// Protection is in force: a log exists, and neither the extension itself nor a superuser who has set
/// allow_unprotected is changing it. Before the first record nothing is guarded, so that a restore can create everything.
fn in_force() -> bool {
    !settings::allow_unprotected()
        && !bypass::is_active(Bypass::Definition)
        && sys::find_relation(c"audit_logs").is_some()
        && sys::find_relation(c"audit_state").is_some()
        && !sys::in_own_script()
        && has_identity()
}

/// The name of the target, when it is protected.
fn protected_name(target: &Target) -> Option<String> {
    match target {
        Target::Table(name) => (name.name.to_bytes().starts_with(b"audit_")
            && may_be_in_schema(name)
            && sys::find_table(name.name).is_some())
        .then(|| qualified(name.name)),
        Target::Function(name) => (may_be_in_schema(name) && is_function(name.name)).then(|| qualified(name.name)),
        Target::NewFunction(schema, name) => (*schema == sys::schema()).then(|| qualified(name)),
        Target::Schema(name) | Target::Extension(name) => {
            (*name == EXTENSION).then(|| EXTENSION.to_string_lossy().into_owned())
        }
        Target::BelongingTo(role) => (sys::find_relation(c"audit_logs").is_some() && *role == sys::owner())
            .then(|| "skill_system.audit_logs".to_owned()),
    }
}

fn check_change(target: &Target, change: &Change) -> Result<(), Fault> {
    let Some(loss) = loss_of(change) else { return Ok(()) };
    match protected_name(target).filter(|_| in_force()) {
        Some(name) => Err(refused(&name, &loss.replace("{}", &name))),
        None => Ok(()),
    }
}

/// Refuses to drop what is part of the protection.
fn check_drop(class: Oid, object: Oid) -> Result<(), Fault> {
    let found = match class.to_u32() {
        PG_PROC | PG_CLASS | PG_REWRITE | PG_TRIGGER | PG_POLICY if in_force() => {
            spi::first(include_str!("protected_object.sql"), As::Caller, See::Latest, &[arg(class), arg(object)])
                .map(|name: String| (format!("drop, or drop a part of, {name}"), name))
        }
        PG_EXTENSION => dropped(sys::extension_name(object)),
        PG_NAMESPACE => dropped(sys::schema_name(object)),
        _ => None,
    };
    found.map_or(Ok(()), |(loss, name)| Err(refused(&name, &loss)))
}

fn dropped(name: Option<String>) -> Option<(String, String)> {
    name.filter(|name| name.as_bytes() == EXTENSION.to_bytes() && in_force())
        .map(|name| (format!("drop the audit trail with {name}"), name))
}

/// Refuses INSERT, UPDATE and DELETE on a catalogue that defines how tables are protected.
fn check_catalogue(place: usize) -> Result<(), Fault> {
    if !in_force() {
        return Ok(());
    }
    let (_, name) = CATALOGUES[place];
    Err(refused(name, &format!("bypass every check by writing to the catalogue {name}")))
}

/// `loss` completes "It would ...".
fn refused(name: &str, loss: &str) -> Fault {
    Fault::new(Code::InsufficientPrivilege, format!("{name} is protected: the statement is refused"))
        .detail(format!("It would {loss}."))
        .hint(
            "A superuser can SET skill_system.allow_unprotected = on in one session; verify_audit() then reports what \
             was changed, and the next seal records it.",
        )
}

fn is_function(name: &CStr) -> bool {
    const SQL: &str =
        "SELECT EXISTS (SELECT FROM pg_proc WHERE proname = $1 AND pronamespace = 'skill_system'::regnamespace)";
    sys::schema() != Oid::INVALID && spi::one(SQL, As::Caller, See::Latest, &[arg(name.to_string_lossy().as_ref())])
}

/// What a change takes away, where `{}` is the name of the target; `None` when it takes nothing away.
fn loss_of(change: &Change) -> Option<&'static str> {
    match change {
        Change::Alter(subcommand) => loss_of_alter(*subcommand),
        Change::AddPrimaryKey => None,
        Change::CreateTrigger(trigger) if only_refuses(trigger) => None,
        Change::CreatePolicy(policy) if only_shows_auditors(policy) => None,
        Change::JoinHierarchy => Some("put {} into a hierarchy of tables"),
        Change::AddChild => Some("add rows from outside to {}"),
        Change::CreateTrigger(_) => Some("let a trigger change or discard records of {}"),
        Change::CreateRule => Some("let a rule change or discard records of {}"),
        Change::CreatePolicy(_) | Change::AlterPolicy => Some("change who sees the rows of {}"),
        Change::CreateFunction => Some("replace the function {}"),
        Change::AlterFunction => Some("change the function {}"),
        Change::Rename => Some("rename, or rename a part of, {}"),
        Change::SetSchema => Some("move {} to another schema"),
        Change::ChangeOwner => Some("change the owner of {}"),
        Change::AlterContents => Some("change what belongs to the extension {}"),
    }
}

/// A new trigger against TRUNCATE, as a restore creates it for each partition, can only protect more.
fn only_refuses(trigger: &NewTrigger) -> bool {
    trigger.is_plain_truncate
        && trigger.function.is_some_and(|name| name.schema == Some(EXTENSION) && name.name == c"refuse_change")
}

/// The policy that shows auditors everything, as a restore creates it for each partition.
fn only_shows_auditors(policy: &NewPolicy) -> bool {
    policy.shows_all && policy.roles.iter().all(|role| *role == Some(c"skill_system_auditor"))
}

/// As [`loss_of`], for a subcommand of ALTER TABLE. What a restore runs for the partitions it creates takes nothing away: it
/// comes when the log has its identity again.
fn loss_of_alter(subcommand: At::Type) -> Option<&'static str> {
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
        At::AT_AlterColumnType => "rewrite the rows of {}",
        At::AT_AddColumn | At::AT_DropColumn | At::AT_ColumnDefault | At::AT_SetNotNull | At::AT_DropNotNull => {
            "change the columns of {}"
        }
        At::AT_DisableTrig | At::AT_DisableTrigAll | At::AT_DisableTrigUser => "disable triggers of {}",
        At::AT_EnableTrig | At::AT_EnableReplicaTrig | At::AT_EnableTrigAll | At::AT_EnableTrigUser => {
            "make it possible to bypass triggers of {}"
        }
        At::AT_DetachPartition | At::AT_DetachPartitionFinalize => "take records out of {}",
        At::AT_AttachPartition | At::AT_AddInherit | At::AT_DropInherit => "change which tables belong to {}",
        At::AT_SetUnLogged => "make {} unlogged, so that a crash would empty it",
        At::AT_ChangeOwner => "change the owner of {}",
        At::AT_DisableRowSecurity | At::AT_ForceRowSecurity => "change who sees the rows of {}",
        At::AT_DisableRule | At::AT_EnableRule | At::AT_EnableAlwaysRule | At::AT_EnableReplicaRule => {
            "change a rule of {}"
        }
        _ => "change the definition of {}",
    })
}
