//! Decisions: `check_policy()` and the functions that go with it, and their enforcement.

use std::borrow::Cow;

use skill_core::error::shorten;
use skill_core::policy::request::{self, Effects, format_effects};
use skill_core::policy::{Decision, MAX_EFFECTS, Mode, Policy};
use skill_core::{Code, Fault};
use skill_pg::error::report_warning;
use skill_pg::{Answer, Call, Jsonb, Returned, arg, pg_function, sys};

use super::{Compiled, policy};
use crate::audit::denial;

/// The name of a policy and the effects that it is asked for, which are an argument of one of three types.
struct Request<'c> {
    name: Option<&'c str>,
    effects: Effects<'c>,
}

impl<'c> Request<'c> {
    fn of_array(call: &'c Call) -> Self {
        let (name, effects): (_, Option<Vec<Option<&str>>>) = call.arguments();
        Request { name, effects: request::from_array(effects, "the effects are") }
    }

    fn of_jsonb(call: &'c Call) -> Self {
        let (name, effects): (_, Option<Jsonb>) = call.arguments();
        Request { name, effects: request::from_jsonb(effects.map(|effects| effects.0)) }
    }

    fn of_literal(call: &'c Call) -> Self {
        let (name, effects) = call.arguments();
        Request { name, effects: request::from_literal(effects) }
    }
}

/// Decides a request. The single place for this; invalid requests are refused, not raised.
fn decide(
    Request { name, effects }: &Request,
    by: impl FnOnce(&Policy, &[Cow<'_, str>]) -> Decision,
) -> Result<(Decision, Option<Compiled>), Fault> {
    let effects = match effects {
        Ok(effects) if effects.len() > MAX_EFFECTS => {
            let blocked = effects.iter().take(MAX_EFFECTS).map(|e| e.to_string()).collect();
            return Ok((Decision::refused(blocked, format!("more than {MAX_EFFECTS} effects in one call")), None));
        }
        Ok(effects) => effects,
        Err((blocked, reason)) => return Ok((Decision::refused(blocked.clone(), reason), None)),
    };
    let refused = |reason: String| Decision::refused(effects.iter().map(|e| e.to_string()).collect(), reason);
    let Some(name) = name else {
        return Ok((refused("the policy name is NULL".into()), None));
    };
    let compiled = policy(name)?;
    let decision = match &*compiled {
        Err(error) => refused(error.to_string()),
        Ok(policy) => by(policy, effects),
    };
    Ok((decision, Some(compiled)))
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

fn check(call: &Call, request: &Request) -> Answer {
    let (decision, compiled) = decide(request, check_effects)?;
    Ok(decision_row(call, &decision, compiled.as_ref()))
}

pg_function!(check_policy_array);
fn check_policy_array(call: &Call) -> Answer {
    check(call, &Request::of_array(call))
}
pg_function!(check_policy_jsonb);
fn check_policy_jsonb(call: &Call) -> Answer {
    check(call, &Request::of_jsonb(call))
}
pg_function!(check_policy_text);
fn check_policy_text(call: &Call) -> Answer {
    check(call, &Request::of_literal(call))
}

pg_function!(check_exec);
fn check_exec(call: &Call) -> Answer {
    let (name, command): (_, Option<Vec<Option<&str>>>) = call.arguments();
    let request = Request { name, effects: request::from_array(command, "the command is") };
    let (decision, compiled) =
        decide(&request, |policy, argv| policy.check_exec(&argv.iter().map(|word| word.as_ref()).collect::<Vec<_>>()))?;
    Ok(decision_row(call, &decision, compiled.as_ref()))
}

pg_function!(check_write);
fn check_write(call: &Call) -> Answer {
    let (name, path): (_, Option<&str>) = call.arguments();
    let effects = match path {
        Some(path) => Ok(vec![path.into()]),
        None => Err((Vec::new(), "the path is NULL".into())),
    };
    let (decision, compiled) = decide(&Request { name, effects }, |policy, path| policy.check_write(&path[0]))?;
    Ok(decision_row(call, &decision, compiled.as_ref()))
}

fn enforce(call: &Call, request: &Request) -> Answer {
    let (mut decision, compiled) = decide(request, check_effects)?;
    enforce_decision(request, &mut decision, compiled.as_ref())?;
    Ok(decision_row(call, &decision, compiled.as_ref()))
}

pg_function!(enforce_policy_array);
fn enforce_policy_array(call: &Call) -> Answer {
    enforce(call, &Request::of_array(call))
}
pg_function!(enforce_policy_jsonb);
fn enforce_policy_jsonb(call: &Call) -> Answer {
    enforce(call, &Request::of_jsonb(call))
}
pg_function!(enforce_policy_text);
fn enforce_policy_text(call: &Call) -> Answer {
    enforce(call, &Request::of_literal(call))
}

/// As `enforce_policy()`, for effects that do not come from the caller.
pub fn enforce_effects(name: &str, effects: &[String]) -> Result<(), Fault> {
    let effects = Ok(effects.iter().map(|effect| effect.as_str().into()).collect());
    let request = Request { name: Some(name), effects };
    let (mut decision, compiled) = decide(&request, check_effects)?;
    enforce_decision(&request, &mut decision, compiled.as_ref())
}

/// A policy that compiles; anything else is an error.
pub fn load_valid(name: &str) -> Result<Compiled, Fault> {
    let compiled = policy(name)?;
    match &*compiled {
        Ok(_) => Ok(compiled),
        Err(error) => Err(error.clone().into()),
    }
}

/// Records a decision that does not allow, and raises it as an error unless the policy only observes: then the reason states
/// what could not be recorded.
fn enforce_decision(request: &Request, decision: &mut Decision, compiled: Option<&Compiled>) -> Result<(), Fault> {
    if decision.allowed {
        return Ok(());
    }
    let policy = compiled.and_then(|compiled| compiled.as_ref().as_ref().ok());
    if let Some(policy) = policy.filter(|policy| policy.mode == Mode::Observe) {
        if let Err(fault) = record_blocked("policy.observed", request, decision, Some(policy)) {
            let why = fault.detail.as_deref().unwrap_or(&fault.message).trim_end_matches('.').to_owned();
            decision.reason.push_str(&format!("; not recorded: {why}"));
            report_warning(fault);
        }
        return Ok(());
    }
    let what = format!(
        "policy \"{}\" does not allow {}",
        shorten(request.name.unwrap_or("(null)")),
        format_effects(&decision.blocked)
    );
    let recorded = match sys::in_recovery() {
        true => " The denial was not recorded: this server is a standby.",
        false => {
            record_blocked("policy.denied", request, decision, policy).map_err(|fault| {
                let why = fault.detail.clone().unwrap_or_default();
                fault.detail(format!("{why} {what}: {}.", decision.reason))
            })?;
            ""
        }
    };
    Err(Fault::new(Code::InsufficientPrivilege, what)
        .detail(format!("{}.{recorded}", decision.reason))
        .hint("SELECT * FROM skill_system.explain_policy(...) shows the rule behind each effect."))
}

/// Records what a policy does not allow so that it outlives the transaction, which the caller may roll back.
fn record_blocked(
    event_type: &str,
    Request { name, effects }: &Request,
    decision: &Decision,
    policy: Option<&Policy>,
) -> Result<(), Fault> {
    if sys::in_recovery() {
        return Err(
            Fault::new(Code::ReadOnlyTransaction, "could not record the decision").detail("This server is a standby.")
        );
    }
    let requested: Vec<String> = match effects {
        Ok(effects) => effects.iter().map(|effect| shorten(effect)).take(MAX_EFFECTS).collect(),
        Err((effects, _)) => effects.iter().map(|effect| shorten(effect)).take(MAX_EFFECTS).collect(),
    };
    let data = serde_json::json!({
        "policy": name.map(shorten), "version": policy.map(|p| p.version), "hash": policy.map(|p| &p.hash),
        "effects": requested, "reason": decision.reason,
        "blocked_effects": decision.blocked.iter().map(|effect| shorten(effect)).collect::<Vec<_>>(),
    });
    denial::record(event_type, arg(data), None, Some("agent"))?;
    Ok(())
}
