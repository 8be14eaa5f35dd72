//! What a policy decides about the effects that a skill declares.

use skill_core::error::shorten;
use skill_core::input::invalid;
use skill_core::policy::Decision;
use skill_core::skills::Status;
use skill_core::skills::names::Reference;
use skill_core::{Code, Fault};
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, arg, pg_function};

use super::model::{self, declared_effects};
use crate::policy::{self, Compiled};

/// Why no policy allows a skill that declares nothing.
pub const UNDECLARED: &str = "the skill declares nothing, so its effects are not known";

/// The policy's decision on a skill's declared effects.
///
/// A skill that declares nothing is denied: unknown effects are not the same as none. One that has no effects declares `[]`
/// in its manifest.
pub fn decide(policy_name: &str, effects: Option<&[String]>) -> Result<(Decision, Compiled), Fault> {
    let compiled = policy::policy(policy_name)?;
    let decision = match &*compiled {
        Err(error) => Decision::refused(effects.unwrap_or_default().to_vec(), error.to_string()),
        Ok(policy) => match effects {
            None => Decision::refused(Vec::new(), UNDECLARED),
            Some(effects) => policy.check(effects.iter().map(String::as_str)),
        },
    };
    Ok((decision, compiled))
}

/// Raises unless the policy allows the declared effects of the skill `name`.
pub fn enforce(policy_name: &str, name: &str, effects: Option<&[String]>) -> Result<(), Fault> {
    match effects {
        Some(effects) => policy::enforce_effects(policy_name, effects),
        None => {
            Err(Fault::new(Code::InsufficientPrivilege, format!("no policy allows skill \"{name}\": {UNDECLARED}"))
                .hint("Declare the effects in a manifest in its body."))
        }
    }
}

pg_function!(check_skill);
/// `check_skill(policy_name, skill, operation)`: like `check_policy` it answers and does not raise.
fn check_skill(call: &Call) -> Answer {
    let (policy_name, skill, operation) = call.arguments();
    let mut effects = None;
    let (decision, compiled) = check(policy_name, skill, operation, &mut effects)
        .unwrap_or_else(|fault| (Decision::refused(effects.unwrap_or_default(), fault.message), None));
    Ok(policy::decision_row(call, &decision, compiled.as_ref()))
}

skill_pg::columns! {
    struct Declared {
        effects: Option<Vec<Option<String>>> = "h.effects",
        enabled: bool = "h.enabled",
        has_operation: bool = "v.manifest->'operations'->$2 IS NOT NULL",
    }
}

/// `effects` is set as soon as they are known, for the answer when the check fails.
fn check(
    policy_name: Option<&str>,
    skill: Option<&str>,
    operation: Option<&str>,
    effects: &mut Option<Vec<String>>,
) -> Result<(Decision, Option<Compiled>), Fault> {
    const SQL: &str = const_format::concatcp!(
        "SELECT ",
        Declared::COLUMNS,
        " FROM skill_system.skill_heads h \
         JOIN skill_system.skill_versions v ON v.tenant_id = h.tenant_id AND v.id = h.current_version_id \
         WHERE h.tenant_id = skill_system.current_tenant() AND h.id = $1"
    );
    let reference = Reference::parse(skill)?;
    let head = model::find(reference)?;
    let declared = spi::first::<Declared>(SQL, As::Caller, See::Statement, &[arg(head.id), arg(operation)])
        .ok_or_else(|| reference.unknown())?;
    *effects = declared_effects(declared.effects);
    let refuse = |message: String| Err(invalid(message));
    if head.deleted {
        return refuse(format!("skill \"{}\" was deleted", head.skill_name));
    }
    if head.status != Status::Approved || !declared.enabled {
        let why = if head.status == Status::Approved { "switched off" } else { head.status.as_str() };
        return refuse(format!("version {} of skill \"{}\" is {why}", head.current_version, head.skill_name));
    }
    if let Some(operation) = operation.filter(|_| !declared.has_operation) {
        return refuse(format!(
            "the manifest of skill \"{}\" has no operation \"{}\"",
            head.skill_name,
            shorten(operation)
        ));
    }
    match policy_name {
        None => refuse("the policy name is NULL".into()),
        Some(name) => decide(name, effects.as_deref()).map(|(decision, compiled)| (decision, Some(compiled))),
    }
}
