//! Versions of a skill: status, which one is served, pins, channels, differences.

use skill_core::Code;
use skill_core::Fault;
use skill_core::skills::Status;
use skill_core::skills::diff;
use skill_core::skills::names::Reference;
use skill_core::skills::requirement::{Requirement, channel};
use skill_pg::error::check_for_interrupts;
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, RowSet, arg, pg_function};

use crate::skills::model::{self, Head, Version};
use crate::skills::requirements::{
    approved_versions, named_version, no_version, require_approved, resolve_approved, resolve_requirement,
};
use crate::skills::{approval, content, registry};
use crate::versioned::Change;

pg_function!(set_skill_status);
fn set_skill_status(call: &Call) -> Answer {
    let (skill, status, version, signature, reason): (_, _, Option<&str>, _, _) = call.arguments();
    let reference = Reference::parse(skill)?;
    let status = Status::from_argument(status)?;
    let change = Change::for_reason(reason);
    if status == Status::Approved && version.is_none() {
        return Err(approval::version_missing());
    }
    let mut head = model::lock(reference)?;
    let given = version.unwrap_or(&head.current_version);
    // What is approved is named by its content: another version may have the same semver, or come into the channel.
    let version = match status {
        Status::Approved => model::version(&head, Some(given), As::Owner, See::OwnWrites).map_err(|fault| {
            fault.hint(
                "An approval names the version by its 12 digits: SELECT version, semver, status FROM \
                 skill_system.skill_versions;",
            )
        })?,
        _ => named_version(&head, Some(given), As::Owner, See::OwnWrites)?,
    };
    let approved_with = approval::check(&head, &version, status, signature)?;
    Ok(registry::set_status(&mut head, &version, status, &Change { approved_with, ..change })?.answer(call))
}

pg_function!(delete_skill);
fn delete_skill(call: &Call) -> Answer {
    let (skill, reason) = call.arguments();
    let reference = Reference::parse(skill)?;
    let change = Change::for_reason(reason);
    registry::delete(&mut model::lock(reference)?, &change)?;
    Ok(call.answer(true))
}

fn is_switched_off(head: &Head) -> bool {
    spi::one(
        "SELECT NOT enabled AND status = 'approved' FROM skill_system.skill_heads \
         WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Caller,
        See::Statement,
        &[arg(head.id)],
    )
}

pg_function!(resolve_skill);
fn resolve_skill(call: &Call) -> Answer {
    let (skill, requirement) = call.arguments();
    let requirement = Requirement::parse(requirement)?;
    let head = model::find_existing(Reference::parse(skill)?)?;
    if is_switched_off(&head) {
        return Err(Fault::new(Code::VersionNotFound, format!("skill \"{}\" is switched off", head.skill_name)));
    }
    let version = resolve_requirement(&head, &requirement, As::Caller, See::Statement)?;
    let version = require_approved(&head, version)?;
    Ok(call.row(&[
        arg(head.id),
        arg(version.id),
        arg(&version.version),
        arg(version.semver.as_deref()),
        arg(version.status.as_str()),
        arg(&head.namespace),
        arg(&head.skill_name),
    ]))
}

pg_function!(pin_skill);
fn pin_skill(call: &Call) -> Answer {
    let (skill, version, reason) = call.arguments();
    let change = Change::for_short_reason(reason)?;
    let mut head = model::lock(Reference::parse(skill)?)?;
    let version = resolve_approved(&head, version)?;
    Ok(registry::pin(&mut head, &version, &change)?.answer(call))
}

pg_function!(unpin_skill);
fn unpin_skill(call: &Call) -> Answer {
    let (skill, reason) = call.arguments();
    let change = Change::for_short_reason(reason)?;
    let mut head = model::lock(Reference::parse(skill)?)?;
    let version = model::current_version(&head)?;
    Ok(registry::unpin(&mut head, &version, &change)?.answer(call))
}

pg_function!(rollback_skill);
fn rollback_skill(call: &Call) -> Answer {
    let (skill, version, reason) = call.arguments();
    let change = Change::for_short_reason(reason)?;
    let mut head = model::lock(Reference::parse(skill)?)?;
    let version = match version {
        Some(requirement) => resolve_approved(&head, Some(requirement))?,
        None => previous_approved(&head)?,
    };
    Ok(registry::promote(&mut head, &version, &change)?.answer(call))
}

/// The newest approved version older than the one that is served.
fn previous_approved(head: &Head) -> Result<Version, Fault> {
    let earlier = spi::first::<String>(
        "SELECT v.version FROM skill_system.skill_versions v \
         JOIN skill_system.skill_versions c ON c.tenant_id = v.tenant_id AND c.id = $2 \
         WHERE v.tenant_id = skill_system.current_tenant() AND v.skill_id = $1 AND v.status = 'approved' \
             AND v.revision < c.revision ORDER BY v.revision DESC LIMIT 1",
        As::Owner,
        See::OwnWrites,
        &[arg(head.id), arg(head.current_version_id)],
    );
    let earlier = earlier.ok_or_else(|| {
        no_version(
            format!("skill \"{}\" has no approved version older than {}", head.skill_name, head.current_version),
            &approved_versions(head, As::Owner, See::OwnWrites),
        )
    })?;
    model::version(head, Some(&earlier), As::Owner, See::OwnWrites)
}

pg_function!(set_skill_channel);
fn set_skill_channel(call: &Call) -> Answer {
    let (skill, name, version, reason) = call.arguments();
    let name = channel(name)?;
    let change = Change::for_short_reason(reason)?;
    let head = model::lock(Reference::parse(skill)?)?;
    let version = resolve_approved(&head, version)?;
    Ok(registry::set_channel(&head, name, &version, &change)?.answer(call))
}

pg_function!(drop_skill_channel);
fn drop_skill_channel(call: &Call) -> Answer {
    let (skill, name, reason) = call.arguments();
    let name = channel(name)?;
    let change = Change::for_short_reason(reason)?;
    let head = model::lock(Reference::parse(skill)?)?;
    Ok(call.answer(registry::drop_channel(&head, name, &change)?))
}

pg_function!(skill_version_list);
fn skill_version_list(call: &Call) -> Answer {
    let head = model::find(Reference::parse(call.arguments())?)?;
    let mut rows = call.row_set();
    spi::each(
        "SELECT v.version, v.semver, v.status, v.id = $2, ARRAY(SELECT c.channel FROM skill_system.skill_channels c \
             WHERE c.tenant_id = v.tenant_id AND c.skill_id = v.skill_id AND c.version_id = v.id ORDER BY c.channel)::text[], \
             v.body_size, v.created_at, v.created_by, v.id \
         FROM skill_system.skill_versions v \
         WHERE v.tenant_id = skill_system.current_tenant() AND v.skill_id = $1 ORDER BY v.revision DESC",
        As::Caller,
        See::Statement,
        &[arg(head.id), arg(head.current_version_id)],
        |row| {
            rows.push(&row.args(9));
            Ok(())
        },
    )?;
    Ok(rows.finish())
}

pg_function!(diff_skill_versions);
fn diff_skill_versions(call: &Call) -> Answer {
    let (skill, a, b) = call.arguments();
    let head = model::find(Reference::parse(skill)?)?;
    let a = resolve_requirement(&head, &Requirement::parse(a)?, As::Caller, See::Statement)?;
    let b = match b {
        None => model::version(&head, None, As::Caller, See::Statement)?,
        requirement => resolve_requirement(&head, &Requirement::parse(requirement)?, As::Caller, See::Statement)?,
    };
    let deadline = diff::deadline();
    let mut rows = call.row_set();
    if a.content_hash != b.content_hash {
        let body_a = content::body(&a, As::Caller, See::Statement)?;
        let body_b = content::body(&b, As::Caller, See::Statement)?;
        push_difference(&mut rows, "SKILL.md", [Some(body_a.as_bytes()), Some(body_b.as_bytes())], deadline);
    }
    spi::stream(
        "WITH f AS (SELECT version_id, path, content, sha256 FROM skill_system.skill_files \
                    WHERE tenant_id = skill_system.current_tenant() AND version_id IN ($1, $2)) \
         SELECT coalesce(a.path, b.path), a.content, b.content FROM (SELECT * FROM f WHERE version_id = $1) a \
         FULL JOIN (SELECT * FROM f WHERE version_id = $2) b ON b.path = a.path \
         WHERE a.sha256 IS DISTINCT FROM b.sha256 ORDER BY 1",
        &[arg(a.id), arg(b.id)],
        |row| {
            let (path, old, new) = row.read();
            push_difference(&mut rows, path, [old, new], deadline);
            Ok(())
        },
    )?;
    Ok(rows.finish())
}

fn push_difference(rows: &mut RowSet, path: &str, [a, b]: [Option<&[u8]>; 2], deadline: std::time::Instant) {
    check_for_interrupts();
    if let Some(found) = diff::difference(path, a, b, deadline) {
        rows.push(&[arg(path), arg(found.change), arg(found.added), arg(found.removed), arg(found.diff)]);
    }
}
