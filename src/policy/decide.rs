//! Decisions: `check_policy()` and the functions that go with it, and their enforcement.

use std::borrow::Cow;

use skill_core::error::shorten;
use skill_core::policy::request::{self, Effects, format_effects};
use skill_core::policy::{Decision, MAX_EFFECTS, Mode, Policy};
use skill_core::{Code, Fault};
use skill_pg::{Answer, Call, Returned, arg, pg_function, sys};

use super::{Compiled, policy};
use crate::audit::{self, denial};

/// Reads the effects from an argument of one of three types.
type ReadEffects = for<'a> fn(&'a Call) -> Effects<'a>;

fn array_argument(call: &Call) -> Effects<'_> {
    request::from_array(call.text_array(1), "the effects are")
}
fn jsonb_argument(call: &Call) -> Effects<'_> {
    request::from_jsonb(call.jsonb(1))
}
fn literal_argument(call: &Call) -> Effects<'_> {
    request::from_literal(call.text(1))
}

/// Decides a request. The single place for this; invalid requests are refused, not raised.
fn decide(
    name: Option<&str>,
    effects: Effects<'_>,
    by: impl FnOnce(&Policy, &[Cow<'_, str>]) -> Decision,
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

fn check_effects(policy: &Policy, effects: &[Cow<'_, str>]) -> Decision {
    policy.check(effects.iter().map(|e| e.as_ref()))
}

/// A decision as a row of type `policy_decision`.
pub fn decision_row(call: &Call, decision: &Decision, compiled: Option<&Compiled>) -> Returned {
    let policy = compiled.and_then(|compiled| compiled.as_ref().as_ref().ok());
    call.row(&[
        arg(decision.allowed),
        arg(decision.blocked.as_slice()),
        arg(decision.verdict.as_str()),
        arg(decision.ask.as_slice()),
        arg(&decision.reason),
        arg(policy.map(|policy| policy.version)),
        arg(policy.map(|policy| &policy.hash)),
    ])
}

fn check(call: &Call, read: ReadEffects) -> Answer {
    let (decision, compiled) = decide(call.text(0), read(call), check_effects);
    Ok(decision_row(call, &decision, compiled.as_ref()))
}

pg_function!(check_policy_array);
fn check_policy_array(call: &Call) -> Answer {
    check(call, array_argument)
}
pg_function!(check_policy_jsonb);
fn check_policy_jsonb(call: &Call) -> Answer {
    check(call, jsonb_argument)
}
pg_function!(check_policy_text);
fn check_policy_text(call: &Call) -> Answer {
    check(call, literal_argument)
}

pg_function!(check_exec);
fn check_exec(call: &Call) -> Answer {
    let argv = request::from_array(call.text_array(1), "the command is");
    let (decision, compiled) = decide(call.text(0), argv, |policy, argv| {
        policy.check_exec(&argv.iter().map(|word| word.as_ref()).collect::<Vec<_>>())
    });
    Ok(decision_row(call, &decision, compiled.as_ref()))
}

pg_function!(check_write);
fn check_write(call: &Call) -> Answer {
    let path = match call.text(1) {
        Some(path) => Ok(vec![path.into()]),
        None => Err((Vec::new(), "the path is NULL".into())),
    };
    let (decision, compiled) = decide(call.text(0), path, |policy, path| policy.check_write(&path[0]));
    Ok(decision_row(call, &decision, compiled.as_ref()))
}

fn enforce(call: &Call, read: ReadEffects) -> Answer {
    let name = call.text(0);
    let (decision, compiled) = decide(name, read(call), check_effects);
    enforce_decision(name, || read(call), &decision, compiled.as_ref())?;
    Ok(decision_row(call, &decision, compiled.as_ref()))
}

pg_function!(enforce_policy_array);
fn enforce_policy_array(call: &Call) -> Answer {
    enforce(call, array_argument)
}
pg_function!(enforce_policy_jsonb);
fn enforce_policy_jsonb(call: &Call) -> Answer {
    enforce(call, jsonb_argument)
}
pg_function!(enforce_policy_text);
fn enforce_policy_text(call: &Call) -> Answer {
    enforce(call, literal_argument)
}

/// As `enforce_policy()`, for effects that do not come from the caller.
pub fn enforce_effects(name: &str, effects: &[String]) -> Result<(), Fault> {
    let requested = || Ok(effects.iter().map(|effect| effect.as_str().into()).collect());
    let (decision, compiled) = decide(Some(name), requested(), check_effects);
    enforce_decision(Some(name), requested, &decision, compiled.as_ref())
}

/// A policy that compiles; anything else is an error.
pub fn load_valid(name: &str) -> Result<Compiled, Fault> {
    let compiled = policy(name);
    match &*compiled {
        Ok(_) => Ok(compiled),
        Err(error) => Err(error.clone().into()),
    }
}

/// Records a decision that does not allow, and raises it as an error unless the policy only observes.
fn enforce_decision<'a>(
    name: Option<&str>,
    requested: impl FnOnce() -> Effects<'a>,
    decision: &Decision,
    compiled: Option<&Compiled>,
) -> Result<(), Fault> {
    if decision.allowed {
        return Ok(());
    }
    let policy = compiled.and_then(|compiled| compiled.as_ref().as_ref().ok());
    if let Some(policy) = policy.filter(|policy| policy.mode == Mode::Observe) {
        // On a standby and in a read-only transaction it cannot be recorded.
        if sys::may_write() {
            let data = serde_json::json!({
                "policy": name, "version": policy.version, "hash": policy.hash,
                "blocked_effects": decision.blocked, "reason": decision.reason,
            });
            audit::append("policy.observed", data, None, None)?;
        }
        return Ok(());
    }
    let what = format!(
        "policy \"{}\" does not allow {}",
        shorten(name.unwrap_or("(null)")),
        format_effects(&decision.blocked)
    );
    let unrecorded = record_denial(name, requested(), decision, policy).map_err(|fault| {
        let why = fault.detail.clone().unwrap_or_default();
        fault.detail(format!("{why} {what}: {}.", decision.reason))
    })?;
    Err(Fault::new(Code::InsufficientPrivilege, what)
        .detail(format!("{}.{unrecorded}", decision.reason))
        .hint("SELECT * FROM skill_system.explain_policy(...) shows the rule behind each effect."))
}

/// Records a denial so that it outlives the transaction, which the caller is going to roll back. Returns what to add to
/// the error's detail when it cannot be recorded.
fn record_denial(
    name: Option<&str>,
    requested: Effects<'_>,
    decision: &Decision,
    policy: Option<&Policy>,
) -> Result<&'static str, Fault> {
    if sys::in_recovery() {
        return Ok(" The denial was not recorded: this server is a standby.");
    }
    let requested: Vec<String> = match requested {
        Ok(effects) => effects.iter().map(|effect| shorten(effect)).take(MAX_EFFECTS).collect(),
        Err((effects, _)) => effects.iter().map(|effect| shorten(effect)).take(MAX_EFFECTS).collect(),
    };
    let data = serde_json::json!({
        "policy": name.map(shorten), "version": policy.map(|p| p.version), "hash": policy.map(|p| &p.hash),
        "effects": requested, "reason": decision.reason,
        "blocked_effects": decision.blocked.iter().map(|effect| shorten(effect)).collect::<Vec<_>>(),
    });
    denial::record("policy.denied", arg(data), None, Some("agent"))?;
    Ok("")
}
