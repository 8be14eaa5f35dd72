//! Whether all that agents and skills refer to exists, and artifacts have their hashes.

use std::collections::HashMap;

use skill_core::error::shorten;
use skill_core::skills::agents::{self as logic, Agent, Finding, Known, Skills};
use skill_core::{Code, Fault};
use skill_pg::error::report_warning;
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, Uuid, arg, pg_function};

use super::loading::skill_address;
use crate::module::Check;
use crate::settings;
use crate::skills::agents;

const CHECK_INTEGRITY: &str = "SELECT * FROM skill_system.check_integrity();";

/// All references of this tenant that lead nowhere.
fn unresolved() -> Vec<Finding> {
    let agents = agents::active();
    let skills = named_skills(&agents);
    let mut found: Vec<Finding> = agents.iter().flat_map(|agent| logic::check_agent(agent, &skills)).collect();
    found.extend(unknown_artifacts());
    found
}

/// The skills that agents name, as far as they exist.
fn named_skills(agents: &[Agent]) -> Skills {
    let named: Vec<(&str, &str)> = agents.iter().flat_map(Agent::skills).collect();
    let (namespaces, names): (Vec<&str>, Vec<&str>) = named.into_iter().unzip();
    let found = spi::collect::<(String, String, String, Vec<String>)>(
        "SELECT d.namespace, d.skill_key, d.status::text, ARRAY(SELECT p.persona_key::text FROM skill_system.skill_personas p \
             WHERE p.tenant_id = d.tenant_id AND p.skill_id = d.id) \
         FROM skill_system.skill_definitions d \
         JOIN (SELECT DISTINCT n, k FROM unnest($1, $2) AS u(n, k)) w ON d.namespace = w.n AND d.skill_key = w.k \
         WHERE d.tenant_id = skill_system.current_tenant()",
        As::Caller,
        See::Statement,
        &[arg(namespaces), arg(names)],
    );
    let known = found.into_iter().map(|(namespace, skill_name, status, personas)| {
        ((namespace, skill_name), Known { status, personas: personas.into_iter().collect() })
    });
    known.collect::<HashMap<_, _>>()
}

/// Artifacts that skills refer to and that do not exist.
fn unknown_artifacts() -> Vec<Finding> {
    let found = spi::collect::<(Uuid, String, String, Option<String>)>(
        "SELECT h.id, h.namespace, h.skill_name, e.id \
         FROM skill_system.skill_heads h, \
         LATERAL (SELECT coalesce(r.value->>'id', r.value->>'artifact_id', r.value #>> '{}'), r.place \
                  FROM jsonb_array_elements(h.tier3_artifact_refs) WITH ORDINALITY AS r(value, place)) AS e(id, place) \
         WHERE h.tenant_id = skill_system.current_tenant() AND h.deleted_at IS NULL AND h.tier3_artifact_refs IS NOT NULL \
             AND NOT EXISTS (SELECT FROM skill_system.skill_artifacts a WHERE a.tenant_id = h.tenant_id AND a.id = e.id) \
         ORDER BY h.namespace, h.skill_name, e.place",
        As::Caller,
        See::Statement,
        &[],
    );
    let finding = |(id, namespace, skill_name, reference): (Uuid, String, String, Option<String>)| {
        let address = skill_address(id, &namespace, &skill_name);
        // An artifact reference that is JSON null.
        let reference = reference.unwrap_or_default();
        Finding {
            code: "unknown_artifact",
            message: format!(
                "skill \"{address}\" refers to artifact \"{}\", which does not exist",
                shorten(&reference)
            ),
            subject: address,
            reference,
            hint: "Add it to skill_artifacts, or correct tier3_artifact_refs with define_skill().",
        }
    };
    found.into_iter().map(finding).collect()
}

/// Artifacts whose text does not have its hash.
fn damaged_artifacts() -> Vec<Finding> {
    let found = spi::collect::<(String, String)>(
        "SELECT id::text, content_hash::text FROM skill_system.skill_artifacts \
         WHERE tenant_id = skill_system.current_tenant() \
             AND content_hash <> encode(sha256(convert_to(content, 'UTF8')), 'hex') ORDER BY id",
        As::Caller,
        See::Statement,
        &[],
    );
    let finding = |(id, content_hash)| Finding {
        code: "content_mismatch",
        message: format!("the content of artifact \"{id}\" does not have its hash"),
        subject: id,
        reference: content_hash,
        hint: "Compare with its audit records, then write the content again.",
    };
    found.into_iter().map(finding).collect()
}

fn findings() -> Vec<Finding> {
    let mut found = unresolved();
    found.extend(damaged_artifacts());
    found
}

pg_function!(check_integrity);
fn check_integrity(call: &Call) -> Answer {
    let severity = if settings::integrity_fail_loud() { "error" } else { "warning" };
    let mut rows = call.row_set();
    for finding in findings() {
        rows.push(&[
            arg(severity),
            arg(finding.code),
            arg(&finding.subject),
            arg(&finding.reference),
            arg(&finding.message),
            arg(finding.hint),
        ]);
    }
    Ok(rows.finish())
}

pg_function!(assert_integrity);
fn assert_integrity(call: &Call) -> Answer {
    let found = findings();
    if let Some(summary) = summary(&found) {
        let fault = Fault::new(Code::AssertFailure, format!("{} unresolved references", found.len()))
            .detail(summary)
            .hint(CHECK_INTEGRITY);
        if settings::integrity_fail_loud() {
            return Err(fault);
        }
        report_warning(fault);
    }
    Ok(call.answer(found.len() as i32))
}

/// The first findings in words; `None` when none exist.
fn summary(found: &[Finding]) -> Option<String> {
    let first: Vec<&str> = found.iter().take(5).map(|finding| finding.message.as_str()).collect();
    let more = if found.len() > 5 { format!("; and {} more", found.len() - 5) } else { String::new() };
    (!first.is_empty()).then(|| format!("{}{more}.", first.join("; ")))
}

/// Reads no texts.
pub fn health() -> Check {
    match summary(&unresolved()) {
        None => Check::ok("all references of agents and skills are resolved"),
        Some(summary) if settings::integrity_fail_loud() => Check::error(summary, CHECK_INTEGRITY),
        Some(summary) => Check::warning(summary, CHECK_INTEGRITY),
    }
}
