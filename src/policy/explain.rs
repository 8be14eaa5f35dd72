//! Why a policy decides as it does, and lint. Unlike the decisions, these functions raise for an unknown policy.

use std::collections::HashSet;

use skill_core::error::shorten;
use skill_core::policy::request::{self, effects_argument, format_effects};
use skill_core::policy::{Finding, PolicyError, Verdict, lint_broken};
use skill_core::{Code, Fault};
use skill_pg::error::{warning, warning_with};
use skill_pg::{Answer, Call, Jsonb, arg, pg_function};

use super::{Compiled, policy};

/// A policy, which must exist but may fail to compile.
fn existing_policy(name: Option<&str>) -> Result<(&str, Compiled), Fault> {
    let name = name.ok_or_else(|| Fault::new(Code::InvalidParameterValue, "the policy name is NULL"))?;
    let compiled = policy(name)?;
    match &*compiled {
        Err(error @ PolicyError::Unknown { .. }) => Err(error.clone().into()),
        _ => Ok((name, compiled)),
    }
}

pg_function!(explain_policy_array);
fn explain_policy_array(call: &Call) -> Answer {
    let (name, effects) = call.arguments();
    explain(call, name, || effects_argument(effects))
}
pg_function!(explain_policy_jsonb);
fn explain_policy_jsonb(call: &Call) -> Answer {
    let (name, effects): (_, Option<Jsonb>) = call.arguments();
    explain(call, name, || request::readable(request::from_jsonb(effects.map(|effects| effects.0))))
}
pg_function!(explain_policy_text);
fn explain_policy_text(call: &Call) -> Answer {
    let (name, effects): (_, Option<&str>) = call.arguments();
    explain(call, name, || request::readable(request::from_literal(effects)))
}

/// `explain_policy(policy_name, effects)`
fn explain(call: &Call, name: Option<&str>, effects: impl FnOnce() -> Result<Vec<String>, Fault>) -> Answer {
    let (_, compiled) = existing_policy(name)?;
    let effects = effects()?;
    let mut rows = call.row_set();
    match &*compiled {
        Ok(policy) => {
            for e in policy.explain(effects.iter().map(String::as_str)) {
                rows.push(&[arg(e.effect), arg(e.verdict.as_str()), arg(e.rule), arg(e.source), arg(e.why)]);
            }
        }
        Err(error) => {
            let why = error.to_string();
            for effect in &effects {
                rows.push(&[arg(effect), arg("deny"), arg(None::<&str>), arg(None::<&str>), arg(&why)]);
            }
        }
    }
    Ok(rows.finish())
}

pg_function!(effective_policy);
fn effective_policy(call: &Call) -> Answer {
    let (_, compiled) = existing_policy(call.arguments())?;
    let policy = compiled.as_ref().as_ref().map_err(Clone::clone)?;
    let mut rows = call.row_set();
    for (kind, verdict, rule, source) in policy.effective() {
        rows.push(&[arg(kind), arg(verdict.as_str()), arg(rule), arg(source)]);
    }
    Ok(rows.finish())
}

fn findings(name: &str, compiled: &Compiled) -> Vec<Finding> {
    match &**compiled {
        Ok(policy) => policy.lint(),
        Err(error) => vec![lint_broken(name, error)],
    }
}

/// Sends what lint finds in policies that were just written, the first of it.
pub(super) fn warn_of_findings(names: &[String]) -> Result<(), Fault> {
    const SHOWN: usize = 10;
    let mut sent = HashSet::new();
    for name in names {
        for finding in findings(name, &policy(name)?).into_iter().filter(|finding| finding.severity != "info") {
            let message = format!(
                "rule \"{}\" of policy \"{}\": {}",
                shorten(&finding.rule),
                shorten(&finding.source),
                finding.message
            );
            // A policy that inherits has the findings of the other too.
            if !sent.insert(message.clone()) {
                continue;
            }
            if sent.len() > SHOWN {
                warning(format!("policy \"{}\" has more findings, which lint_policy() shows", shorten(name)));
                return Ok(());
            }
            let detail = format!("It is a finding \"{}\" of lint_policy().", finding.code);
            warning_with(message, detail, finding.hint);
        }
    }
    Ok(())
}

pg_function!(lint_policy);
fn lint_policy(call: &Call) -> Answer {
    let (name, compiled) = existing_policy(call.arguments())?;
    let findings = findings(name, &compiled);
    let mut rows = call.row_set();
    for f in findings {
        rows.push(&[arg(f.severity), arg(f.code), arg(f.rule), arg(f.source), arg(f.message), arg(f.hint)]);
    }
    Ok(rows.finish())
}

pg_function!(assert_allows);
fn assert_allows(call: &Call) -> Answer {
    let (name, effects) = call.arguments();
    let (name, compiled) = existing_policy(name)?;
    let effects = effects_argument(effects)?;
    let policy = compiled.as_ref().as_ref().map_err(Clone::clone)?;
    let decision = policy.check(effects.iter().map(String::as_str));
    if decision.allowed {
        return Ok(call.void());
    }
    let blocked = format_effects(&decision.blocked);
    Err(Fault::new(Code::AssertFailure, format!("policy \"{name}\" does not allow {blocked}"))
        .detail(format!("{}.", decision.reason)))
}

pg_function!(assert_denies);
fn assert_denies(call: &Call) -> Answer {
    let (name, effects) = call.arguments();
    let (name, compiled) = existing_policy(name)?;
    let effects = effects_argument(effects)?;
    let policy = compiled.as_ref().as_ref().map_err(Clone::clone)?;
    let explained = policy.explain(effects.iter().map(String::as_str));
    let allowed: Vec<String> =
        explained.into_iter().filter(|e| e.verdict == Verdict::Allow).map(|e| e.effect).collect();
    if allowed.is_empty() && !effects.is_empty() {
        return Ok(call.void());
    }
    Err(Fault::new(Code::AssertFailure, format!("policy \"{name}\" allows {}", format_effects(&allowed)))
        .detail("Each of the given effects was expected to be blocked."))
}

pg_function!(effect_problem);
/// `effect_problem(rule)`: why this extension would refuse a rule of a legacy profile.
fn effect_problem(call: &Call) -> Answer {
    let rule: Option<&str> = call.arguments();
    let problem = match rule {
        None => Some("it is NULL".to_owned()),
        Some(rule) => skill_core::policy::effect::Effect::parse_rule(rule).err().map(|e| e.to_string()),
    };
    Ok(call.answer(problem))
}
