//! What administrators decide about a namespace.

use serde_json::json;
use skill_core::skills::names;
use skill_core::{Code, Fault};
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, Uuid, arg, pg_function};

use crate::args::given;
use crate::skills::history::append_audit;
use crate::skills::model::{self, NAMESPACES};
use crate::skills::registry;
use crate::versioned::Change;

pg_function!(accept_store_signatures);
fn accept_store_signatures(call: &Call) -> Answer {
    let (namespace, accept) = call.arguments();
    let namespace = names::namespace(Some(given(namespace, "namespace")?))?;
    let accept: bool = given(accept, "accept")?;
    NAMESPACES.lock(namespace)?;
    let changed = spi::execute(
        "UPDATE skill_system.skill_namespaces SET accepts_store_signatures = $2 \
         WHERE tenant_id = skill_system.current_tenant() AND namespace = $1 AND accepts_store_signatures <> $2",
        As::Owner,
        See::OwnWrites,
        &[arg(namespace), arg(accept)],
    );
    if changed > 0 {
        append_audit("skill.store_signatures", json!({"namespace": namespace, "accept": accept}))?;
    }
    Ok(call.answer(changed > 0))
}

pg_function!(drop_skill_namespace);
fn drop_skill_namespace(call: &Call) -> Answer {
    let (namespace, reason) = call.arguments();
    // Any that exists: rules for names may have changed.
    let namespace: &str = given(namespace, "namespace")?;
    let change = Change::for_short_reason(reason)?;
    if !NAMESPACES.lock_existing(namespace) {
        return Ok(call.answer(false));
    }
    let skills = spi::collect::<(Uuid, String, bool)>(
        "SELECT id, skill_name, status = 'approved' AND deleted_at IS NULL FROM skill_system.skill_heads \
         WHERE tenant_id = skill_system.current_tenant() AND namespace = $1 ORDER BY skill_name",
        As::Owner,
        See::OwnWrites,
        &[arg(namespace)],
    );
    if let Some((_, skill_name, _)) = skills.iter().find(|(_, _, approved)| *approved) {
        return Err(Fault::new(
            Code::NotInPrerequisiteState,
            format!("namespace \"{namespace}\" contains an approved skill"),
        )
        .detail(format!("Skill \"{skill_name}\" is approved."))
        .hint(format!("SELECT skill_system.delete_skill('{namespace}/{skill_name}');")));
    }
    for (id, ..) in &skills {
        if let Some(mut head) = model::lock_row(names::Reference::Id(uuid::Uuid::from_bytes(*id.as_bytes())))? {
            registry::purge(&mut head, &change)?;
        }
    }
    spi::execute(
        "UPDATE skill_system.skill_namespaces SET dropped_at = clock_timestamp(), accepts_store_signatures = false \
         WHERE tenant_id = skill_system.current_tenant() AND namespace = $1",
        As::Owner,
        See::OwnWrites,
        &[arg(namespace)],
    );
    append_audit(
        "skill.namespace_dropped",
        json!({"namespace": namespace, "skills": skills.len(), "reason": change.reason}),
    )?;
    Ok(call.answer(true))
}
