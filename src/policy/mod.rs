//! Policy decisions, and what a change of a profile sets in motion.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use pgrx::datum::IntoDatum;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;
use skill_core::error::shorten;
use skill_core::policy::request::{self, Effects, effects_argument, format_effects};
use skill_core::policy::{
    Decision, Finding, MAX_EFFECTS, MAX_NAME_BYTES, Mode, Policy, PolicyError, Profile, Unlisted, Verdict, hash_all,
    lint_broken,
};
use skill_core::{Code, Fault};

use crate::audit::{self, denial};
use crate::pg::call::{Answer, Call, text_array_datum, text_datum};
use crate::pg::error::{OrRaise, raise};
use crate::pg::spi::{self, Access, arg};
use crate::pg::trigger::{Event, Trigger};
use crate::pg::{cache, guc, sys};
use crate::pg_function;

/// A policy, or why there is none.
pub type Compiled = Rc<Result<Policy, PolicyError>>;

thread_local! {
    /// By tenant and name; emptied when the cache is told of a change.
    static POLICIES: RefCell<HashMap<String, HashMap<String, Compiled>>> = RefCell::new(HashMap::new());
}

/// Most policies a session keeps compiled.
const MAX_CACHED: usize = 1000;

/// Columns of a profile `p`, in the order that `profile()` reads them.
macro_rules! profile_columns {
    () => {
        "p.name, p.version, p.allowed_effects, p.ask_effects, p.denied_effects, p.allowed_exec, p.allowed_write_roots, \
         p.inherits, p.unlisted, p.mode, p.metadata::text"
    };
}

fn profile(row: &spi::Row) -> Profile {
    let list = |n: i32| row.get::<Vec<Option<String>>>(n).unwrap_or_default().into_iter().flatten().collect();
    Profile {
        name: row.get(1).unwrap_or_default(),
        version: row.get(2).unwrap_or_default(),
        allowed_effects: list(3),
        ask_effects: list(4),
        denied_effects: list(5),
        allowed_exec: list(6),
        allowed_write_roots: list(7),
        inherits: list(8),
        unlisted: if row.get::<String>(9).as_deref() == Some("ask") { Unlisted::Ask } else { Unlisted::Deny },
        mode: if row.get::<String>(10).as_deref() == Some("observe") { Mode::Observe } else { Mode::Enforce },
        metadata: row.get(11).unwrap_or_default(),
    }
}

/// The compiled policy of the session's tenant, from the cache or fresh.
pub fn policy(name: &str) -> Compiled {
    // No profile has such a name, and the cache is not to be filled with them.
    if name.len() > MAX_NAME_BYTES {
        return Rc::new(Err(PolicyError::Unknown { policy: shorten(name) }));
    }
    let tenant = guc::tenant();
    if !cache::policies_valid() {
        POLICIES.with_borrow_mut(HashMap::clear);
    } else if let Some(found) =
        POLICIES.with_borrow(|all| all.get(tenant.as_str()).and_then(|mine| mine.get(name)).cloned())
    {
        return found;
    }
    cache::watch_policies();
    // A profile's ancestors only, found level by level.
    let profiles = spi::as_owner(|| {
        let mut profiles = Vec::new();
        spi::run(
            concat!(
                "WITH RECURSIVE family(name) AS (SELECT $2 UNION SELECT unnest(p.inherits) FROM skill_system.policy_profiles p ",
                "JOIN family f ON p.name = f.name WHERE p.tenant_id = $1) ",
                "SELECT ",
                profile_columns!(),
                " FROM skill_system.policy_profiles p JOIN family f ON p.name = f.name WHERE p.tenant_id = $1"
            ),
            Access::ReadLatest,
            &[arg(tenant.as_str()), arg(name)],
            |row| profiles.push(profile(row)),
        );
        profiles
    });
    let compiled: Compiled = Rc::new(Policy::compile(name, &profiles));
    POLICIES.with_borrow_mut(|all| {
        if all.values().map(HashMap::len).sum::<usize>() >= MAX_CACHED {
            all.clear();
        }
        all.entry(tenant).or_default().insert(name.to_owned(), compiled.clone());
    });
    compiled
}

/// Which of the three forms of an argument a function has.
type Read = for<'a> fn(&'a Call) -> Effects<'a>;

fn array_argument(call: &Call) -> Effects<'_> {
    request::from_array(call.text_array(1), "the effects are")
}
fn jsonb_argument(call: &Call) -> Effects<'_> {
    request::from_jsonb(call.jsonb(1))
}
fn literal_argument(call: &Call) -> Effects<'_> {
    request::from_literal(call.text(1))
}

/// The one place where a request becomes a decision; never raises for what is asked.
fn decide(
    name: Option<&str>,
    effects: Effects<'_>,
    by: impl FnOnce(&Policy, &[std::borrow::Cow<'_, str>]) -> Decision,
) -> (Decision, Option<Compiled>) {
    let effects = match effects {
        Ok(effects) if effects.len() > MAX_EFFECTS => {
            let blocked = effects.into_iter().take(MAX_EFFECTS).map(|e| e.into_owned()).collect();
            return (Decision::refused(blocked, format!("more than {MAX_EFFECTS} effects in one call")), None);
        }
        Ok(effects) => effects,
        Err((blocked, reason)) => return (Decision::refused(blocked, reason), None),
    };
    let refused = |reason: String| Decision::refused(effects.iter().map(|e| e.to_string()).collect(), reason);
    let Some(name) = name else {
        return (refused("the policy name is NULL".into()), None);
    };
    let compiled = policy(name);
    let decision = match &*compiled {
        Err(error) => refused(error.to_string()),
        Ok(policy) => by(policy, &effects),
    };
    (decision, Some(compiled))
}

fn check_effects(policy: &Policy, effects: &[std::borrow::Cow<'_, str>]) -> Decision {
    policy.check(effects.iter().map(|e| e.as_ref()))
}

/// A decision as a row of type `policy_decision`.
pub fn decision_row(call: &Call, decision: &Decision, compiled: Option<&Compiled>) -> pg_sys::Datum {
    let policy = compiled.and_then(|compiled| compiled.as_ref().as_ref().ok());
    call.row(&mut [
        Some(decision.allowed.into()),
        text_array_datum(&decision.blocked),
        text_datum(decision.verdict.as_str()),
        text_array_datum(&decision.ask),
        text_datum(&decision.reason),
        policy.map(|policy| policy.version.into()),
        policy.and_then(|policy| text_datum(&policy.hash)),
    ])
}

fn check(call: &Call, read: Read) -> Answer {
    let (decision, compiled) = decide(call.text(0), read(call), check_effects);
    Ok(decision_row(call, &decision, compiled.as_ref()))
}

pg_function!(pg_finfo_skill_check_policy_array, skill_check_policy_array, check_policy_array);
fn check_policy_array(call: &Call) -> Answer {
    check(call, array_argument)
}
pg_function!(pg_finfo_skill_check_policy_jsonb, skill_check_policy_jsonb, check_policy_jsonb);
fn check_policy_jsonb(call: &Call) -> Answer {
    check(call, jsonb_argument)
}
pg_function!(pg_finfo_skill_check_policy_text, skill_check_policy_text, check_policy_text);
fn check_policy_text(call: &Call) -> Answer {
    check(call, literal_argument)
}

pg_function!(pg_finfo_skill_check_exec, skill_check_exec, check_exec);
fn check_exec(call: &Call) -> Answer {
    let (decision, compiled) =
        decide(call.text(0), request::from_array(call.text_array(1), "the command is"), |policy, argv| {
            policy.check_exec(&argv.iter().map(|word| word.as_ref()).collect::<Vec<_>>())
        });
    Ok(decision_row(call, &decision, compiled.as_ref()))
}

pg_function!(pg_finfo_skill_check_write, skill_check_write, check_write);
fn check_write(call: &Call) -> Answer {
    let path = match call.text(1) {
        Some(path) => Ok(vec![path.into()]),
        None => Err((Vec::new(), "the path is NULL".into())),
    };
    let (decision, compiled) = decide(call.text(0), path, |policy, path| policy.check_write(&path[0]));
    Ok(decision_row(call, &decision, compiled.as_ref()))
}

fn enforce(call: &Call, read: Read) -> Answer {
    let name = call.text(0);
    let (decision, compiled) = decide(name, read(call), check_effects);
    hold_to(name, || read(call), &decision, compiled.as_ref())?;
    Ok(decision_row(call, &decision, compiled.as_ref()))
}

/// As `enforce_policy()`, for effects that the caller of this function does not choose.
pub fn require(name: &str, effects: &[String]) -> Result<(), Fault> {
    let asked = || Ok(effects.iter().map(|effect| effect.as_str().into()).collect());
    let (decision, compiled) = decide(Some(name), asked(), check_effects);
    hold_to(Some(name), asked, &decision, compiled.as_ref())
}

/// A policy that can decide; raises for one that is not there or cannot be compiled.
pub fn deciding(name: &str) -> Result<Compiled, Fault> {
    let compiled = policy(name);
    match &*compiled {
        Ok(_) => Ok(compiled),
        Err(error) => Err(error.clone().into()),
    }
}

/// Records a decision that is no permission, and refuses, unless the policy only observes.
fn hold_to<'a>(
    name: Option<&str>,
    asked: impl FnOnce() -> Effects<'a>,
    decision: &Decision,
    compiled: Option<&Compiled>,
) -> Result<(), Fault> {
    let policy = compiled.and_then(|compiled| compiled.as_ref().as_ref().ok());
    if !decision.allowed {
        match policy.map(|policy| policy.mode) {
            Some(Mode::Observe) => {
                // On a standby and in a read-only transaction there is nothing to record it in.
                if sys::may_write() {
                    let data = serde_json::json!({
                        "policy": name, "version": policy.map(|p| p.version), "hash": policy.map(|p| &p.hash),
                        "blocked_effects": decision.blocked, "reason": decision.reason,
                    });
                    audit::append("policy.observed", data, None, None);
                }
            }
            _ => {
                let what = format!(
                    "policy \"{}\" does not allow {}",
                    shorten(name.unwrap_or("(null)")),
                    format_effects(&decision.blocked)
                );
                let unrecorded = record_denial(name, asked(), decision, policy).map_err(|fault| {
                    let why = fault.detail.clone().unwrap_or_default();
                    fault.detail(format!("{why} {what}: {}.", decision.reason))
                })?;
                return Err(Fault::new(Code::InsufficientPrivilege, what)
                    .detail(format!("{}.{unrecorded}", decision.reason))
                    .hint("SELECT * FROM skill_system.explain_policy(...) shows the rule behind each effect."));
            }
        }
    }
    Ok(())
}

/// Records a denial so that it outlives the transaction, which the caller is going to roll back. Returns what the error
/// has to say when there is nothing to record it in.
fn record_denial(
    name: Option<&str>,
    asked: Effects<'_>,
    decision: &Decision,
    policy: Option<&Policy>,
) -> Result<&'static str, Fault> {
    if sys::in_recovery() {
        return Ok(" The denial was not recorded: this server is a standby.");
    }
    let asked = match asked {
        Ok(effects) => effects.iter().map(|effect| shorten(effect)).take(MAX_EFFECTS).collect(),
        Err((effects, _)) => effects.iter().map(|effect| shorten(effect)).take(MAX_EFFECTS).collect::<Vec<_>>(),
    };
    let data = serde_json::json!({
        "policy": name.map(shorten), "version": policy.map(|p| p.version), "hash": policy.map(|p| &p.hash), "effects": asked,
        "blocked_effects": decision.blocked.iter().map(|effect| shorten(effect)).collect::<Vec<_>>(), "reason": decision.reason,
    });
    denial::record("policy.denied", pgrx::JsonB(data).into_datum(), None, Some("agent"))?;
    Ok("")
}

pg_function!(pg_finfo_skill_enforce_policy_array, skill_enforce_policy_array, enforce_policy_array);
fn enforce_policy_array(call: &Call) -> Answer {
    enforce(call, array_argument)
}
pg_function!(pg_finfo_skill_enforce_policy_jsonb, skill_enforce_policy_jsonb, enforce_policy_jsonb);
fn enforce_policy_jsonb(call: &Call) -> Answer {
    enforce(call, jsonb_argument)
}
pg_function!(pg_finfo_skill_enforce_policy_text, skill_enforce_policy_text, enforce_policy_text);
fn enforce_policy_text(call: &Call) -> Answer {
    enforce(call, literal_argument)
}

/// Unlike the decisions, the explaining functions raise for an unknown policy.
fn known(name: Option<&str>) -> (String, Compiled) {
    let Some(name) = name else {
        raise(Fault::new(Code::InvalidParameterValue, "the policy name is NULL"));
    };
    let compiled = policy(name);
    if let Err(error @ PolicyError::Unknown { .. }) = &*compiled {
        raise(error.clone().into());
    }
    (name.to_owned(), compiled)
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)] // pgrx wants the columns spelt out here
fn explain_policy(
    policy_name: Option<&str>,
    effects: Option<Vec<Option<String>>>,
) -> TableIterator<
    'static,
    (
        name!(effect, String),
        name!(verdict, String),
        name!(winning_rule, Option<String>),
        name!(source_profile, Option<String>),
        name!(reason, String),
    ),
> {
    let (_, compiled) = known(policy_name);
    let effects = effects_argument(effects).or_raise();
    let rows: Vec<_> = match &*compiled {
        Ok(policy) => policy
            .explain(effects.iter().map(String::as_str))
            .into_iter()
            .map(|e| (e.effect, e.verdict.as_str().to_owned(), e.rule, e.source, e.why))
            .collect(),
        Err(error) => effects.into_iter().map(|e| (e, "deny".to_owned(), None, None, error.to_string())).collect(),
    };
    TableIterator::new(rows)
}

#[pg_extern(sql = false)]
fn effective_policy(
    policy_name: Option<&str>,
) -> TableIterator<
    'static,
    (name!(kind, String), name!(verdict, String), name!(rule, String), name!(source_profile, String)),
> {
    let (_, compiled) = known(policy_name);
    let rows: Vec<_> = match &*compiled {
        Ok(policy) => policy
            .effective()
            .into_iter()
            .map(|(kind, v, rule, source)| (kind.to_owned(), v.as_str().to_owned(), rule, source))
            .collect(),
        Err(error) => raise(error.clone().into()),
    };
    TableIterator::new(rows)
}

#[pg_extern(sql = false)]
fn lint_policy(
    policy_name: Option<&str>,
) -> TableIterator<
    'static,
    (
        name!(severity, String),
        name!(code, String),
        name!(rule, String),
        name!(source_profile, String),
        name!(message, String),
        name!(hint, String),
    ),
> {
    let (name, compiled) = known(policy_name);
    let findings: Vec<Finding> = match &*compiled {
        Ok(policy) => policy.lint(),
        Err(error) => vec![lint_broken(&name, error)],
    };
    let rows: Vec<_> = findings
        .into_iter()
        .map(|f| (f.severity.to_owned(), f.code.to_owned(), f.rule, f.source, f.message, f.hint.to_owned()))
        .collect();
    TableIterator::new(rows)
}

#[pg_extern(sql = false)]
fn assert_allows(policy_name: Option<&str>, effects: Option<Vec<Option<String>>>) {
    let (name, compiled) = known(policy_name);
    let effects = effects_argument(effects).or_raise();
    let policy = compiled.as_ref().as_ref().map_err(Clone::clone).or_raise();
    let decision = policy.check(effects.iter().map(String::as_str));
    if !decision.allowed {
        raise(
            Fault::new(
                Code::AssertFailure,
                format!("policy \"{name}\" does not allow {}", format_effects(&decision.blocked)),
            )
            .detail(format!("{}.", decision.reason)),
        );
    }
}

#[pg_extern(sql = false)]
fn assert_denies(policy_name: Option<&str>, effects: Option<Vec<Option<String>>>) {
    let (name, compiled) = known(policy_name);
    let effects = effects_argument(effects).or_raise();
    let policy = compiled.as_ref().as_ref().map_err(Clone::clone).or_raise();
    let allowed: Vec<String> = policy
        .explain(effects.iter().map(String::as_str))
        .into_iter()
        .filter(|e| e.verdict == Verdict::Allow)
        .map(|e| e.effect)
        .collect();
    if !allowed.is_empty() || effects.is_empty() {
        raise(
            Fault::new(Code::AssertFailure, format!("policy \"{name}\" allows {}", format_effects(&allowed)))
                .detail("Each of the given effects was expected to be blocked."),
        );
    }
}

/// What a legacy profile may contain and this extension would refuse.
#[pg_extern(sql = false)]
fn effect_problem(rule: Option<&str>) -> Option<String> {
    match rule {
        None => Some("it is NULL".to_owned()),
        Some(rule) => skill_core::policy::effect::Effect::parse_rule(rule).err().map(|e| e.to_string()),
    }
}

/// A column that has one of two words; NULL is for the table to refuse.
fn choice(column: &'static str, given: Option<String>, words: [&'static str; 2]) -> Result<(), PolicyError> {
    match given {
        Some(given) if !words.contains(&given.as_str()) => {
            Err(PolicyError::BadChoice { column, given: shorten(&given), words })
        }
        _ => Ok(()),
    }
}

pg_function!(pg_finfo_skill_policy_check_row, skill_policy_check_row, check_row);
/// BEFORE INSERT OR UPDATE for each row: refuses what does not parse.
fn check_row(call: &Call) -> Answer {
    let trigger = Trigger::new(call);
    let list = |name: &std::ffi::CStr| -> Vec<String> {
        trigger
            .new_value::<Vec<Option<String>>>(name)
            .unwrap_or_default()
            .into_iter()
            .map(Option::unwrap_or_default)
            .collect()
    };
    Profile {
        name: trigger.new_value(c"name").unwrap_or_default(),
        allowed_effects: list(c"allowed_effects"),
        ask_effects: list(c"ask_effects"),
        denied_effects: list(c"denied_effects"),
        allowed_exec: list(c"allowed_exec"),
        allowed_write_roots: list(c"allowed_write_roots"),
        ..Profile::default()
    }
    .validate()?;
    choice("unlisted", trigger.new_value(c"unlisted"), ["deny", "ask"])?;
    choice("mode", trigger.new_value(c"mode"), ["enforce", "observe"])?;
    Ok(trigger.proceed())
}

pg_function!(pg_finfo_skill_policy_lock, skill_policy_lock, lock);
/// BEFORE each statement that changes `policy_profiles`: one at a time, because each
/// computes hashes from the others, and before any row is locked, or two would wait
/// for each other.
fn lock(call: &Call) -> Answer {
    let trigger = Trigger::new(call);
    spi::run("LOCK TABLE skill_system.policy_versions IN SHARE ROW EXCLUSIVE MODE", Access::WriteAsOwner, &[], |_| ());
    Ok(trigger.done())
}

pg_function!(pg_finfo_skill_policy_changed, skill_policy_changed, changed);
/// AFTER each statement that changes `policy_profiles`: forget what was compiled,
/// and write the history of every profile whose content is not what it was.
fn changed(call: &Call) -> Answer {
    let trigger = Trigger::new(call);
    cache::policies_changed();
    if trigger.event() == Event::Truncate {
        audit::append("policy.truncated", serde_json::json!({}), None, None);
    } else {
        let records = spi::as_owner(write_history).map_err(Fault::from)?;
        for (tenant, event, data) in records {
            audit::append_for(&tenant, event, pgrx::JsonB(data).into_datum(), None, None);
        }
    }
    Ok(trigger.done())
}

struct Stored {
    tenant: String,
    id: i64,
    hash: Option<String>,
    profile: Profile,
}

/// New versions for all profiles whose stored hash is not that of their content;
/// returns what is to be audited. Runs as the owner and across tenants, because a
/// restore fills them all in one statement.
fn write_history() -> Result<Vec<(String, &'static str, serde_json::Value)>, PolicyError> {
    let mut stored: Vec<Stored> = Vec::new();
    let sql = concat!(
        "SELECT ",
        profile_columns!(),
        ", p.tenant_id, p.id, p.content_hash FROM skill_system.policy_profiles p ORDER BY p.tenant_id, p.id"
    );
    spi::run(sql, Access::ReadLatest, &[], |row| {
        stored.push(Stored {
            profile: profile(row),
            tenant: row.get(12).unwrap_or_default(),
            id: row.get(13).unwrap_or_default(),
            hash: row.get(14),
        });
    });
    let (mut records, mut tenants, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    let (mut versions, mut hashes, mut names, mut contents) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for mine in stored.chunk_by(|a, b| a.tenant == b.tenant) {
        let profiles: Vec<Profile> = mine.iter().map(|s| s.profile.clone()).collect();
        for (i, result) in hash_all(&profiles) {
            let was = &mine[i];
            let (content, hash) = match result {
                Ok(found) => found,
                // A row that brings its hash is being restored and its parents may come later.
                Err(PolicyError::UnknownParent { .. }) if was.hash.is_some() && restoring(was) => continue,
                // What is broken in another tenant was not broken by this statement.
                Err(_) if was.hash.is_some() && was.tenant != guc::tenant() => continue,
                Err(error) => return Err(error),
            };
            if was.hash.as_ref() == Some(&hash) {
                continue;
            }
            let version = was.profile.version + 1;
            let event = if version == 1 { "policy.created" } else { "policy.changed" };
            records.push((
                was.tenant.clone(),
                event,
                serde_json::json!({"policy": was.profile.name, "id": was.id, "version": version, "hash": hash, "previous_hash": was.hash}),
            ));
            tenants.push(was.tenant.clone());
            ids.push(was.id);
            versions.push(version);
            hashes.push(hash);
            names.push(was.profile.name.clone());
            contents.push(content);
        }
    }
    if !records.is_empty() {
        spi::run(
            "INSERT INTO skill_system.policy_versions (tenant_id, policy_profile_id, version, content_hash, name, content) \
             SELECT t, i, v, h, n, c::jsonb FROM unnest($1, $2, $3, $4, $5, $6) AS new(t, i, v, h, n, c)",
            Access::Write,
            &[
                arg(tenants.clone()),
                arg(ids.clone()),
                arg(versions.clone()),
                arg(hashes.clone()),
                arg(names),
                arg(contents),
            ],
            |_| (),
        );
        // One statement: it fires this trigger again, which then finds every hash as it should be.
        spi::run(
            "UPDATE skill_system.policy_profiles p SET version = v, content_hash = h \
             FROM unnest($1, $2, $3, $4) AS new(t, i, v, h) WHERE p.tenant_id = t AND p.id = i",
            Access::Write,
            &[arg(tenants), arg(ids), arg(versions), arg(hashes)],
            |_| (),
        );
    }
    Ok(records)
}

/// No history yet for a row that says it has one: it comes from a dump.
fn restoring(row: &Stored) -> bool {
    spi::one::<bool>(
        "SELECT NOT EXISTS (SELECT FROM skill_system.policy_versions WHERE tenant_id = $1 AND policy_profile_id = $2)",
        Access::ReadLatest,
        &[arg(row.tenant.as_str()), arg(row.id)],
    )
    .unwrap_or(false)
}

pg_function!(pg_finfo_skill_policy_deleted, skill_policy_deleted, deleted);
/// AFTER DELETE for each row: the history says that and by whom it was deleted.
fn deleted(call: &Call) -> Answer {
    let trigger = Trigger::new(call);
    let tenant: String = trigger.old(c"tenant_id").unwrap_or_default();
    let name: String = trigger.old(c"name").unwrap_or_default();
    let id: i64 = trigger.old(c"id").unwrap_or_default();
    let version = trigger.old::<i32>(c"version").unwrap_or_default() + 1;
    spi::as_owner(|| {
        spi::run(
            "INSERT INTO skill_system.policy_versions (tenant_id, policy_profile_id, version, content_hash, name, content) \
             VALUES ($1, $2, $3, NULL, $4, NULL)",
            Access::Write,
            &[arg(tenant.as_str()), arg(id), arg(version), arg(name.as_str())],
            |_| (),
        );
    });
    let data = serde_json::json!({"policy": name, "id": id, "version": version, "previous_hash": trigger.old::<String>(c"content_hash")});
    audit::append_for(&tenant, "policy.deleted", pgrx::JsonB(data).into_datum(), None, None);
    Ok(trigger.done())
}
