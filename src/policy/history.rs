//! Triggers of `policy_profiles`: check of the row, its history, and invalidation of caches.

use const_format::concatcp;
use skill_core::Fault;
use skill_core::error::shorten;
use skill_core::policy::{PolicyError, Profile, hash_all};
use skill_pg::cached::announce_change;
use skill_pg::lock::Mode;
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, Event, FromRow, Row, Timing, Trigger, arg, pg_function};

use super::explain::warn_of_findings;
use super::{PROFILE_COLUMNS, read_profile};
use crate::args::missing;
use crate::{audit, locks, settings};

/// Checks a column with two valid values.
fn check_choice(column: &'static str, given: &str, words: [&'static str; 2]) -> Result<(), PolicyError> {
    if words.contains(&given) {
        return Ok(());
    }
    Err(PolicyError::BadChoice { column, given: shorten(given), words })
}

pg_function!(check_policy_row);
/// Refuses rules that do not parse.
fn check_policy_row(call: &Call) -> Answer {
    let trigger = Trigger::new(call, &[(Timing::BeforeRow, &[Event::Insert, Event::Update])])?;
    let list = |name: &std::ffi::CStr| -> Vec<String> {
        let elements: Vec<Option<String>> = trigger.new_value(name);
        // NULL is refused as the empty rule is.
        elements.into_iter().map(Option::unwrap_or_default).collect()
    };
    Profile {
        name: trigger.new_value::<Option<String>>(c"name").ok_or_else(|| missing("name"))?,
        allowed_effects: list(c"allowed_effects"),
        ask_effects: list(c"ask_effects"),
        denied_effects: list(c"denied_effects"),
        allowed_exec: list(c"allowed_exec"),
        allowed_write_roots: list(c"allowed_write_roots"),
        inherits: list(c"inherits"),
        ..Profile::default()
    }
    .validate()?;
    check_choice("unlisted", trigger.new_value(c"unlisted"), ["deny", "ask"])?;
    check_choice("mode", trigger.new_value(c"mode"), ["enforce", "observe"])?;
    Ok(trigger.proceed())
}

const ANY: &[Event] = &[Event::Insert, Event::Update, Event::Delete, Event::Truncate];

pg_function!(lock_policies);
/// One statement of a tenant at a time, because hashes depend on other rows. Locks before any row is locked, or two
/// statements could deadlock.
fn lock_policies(call: &Call) -> Answer {
    let trigger = Trigger::new(call, &[(Timing::BeforeStatement, ANY)])?;
    const ALL: &str = "the policies of all tenants";
    if sees_one_tenant() {
        locks::acquire(c"policy_profiles", &[], Mode::Shared, ALL)?;
        let what = "the policies of this tenant";
        locks::acquire(c"policy_profiles", &[&settings::tenant()?], Mode::Exclusive, what)?;
    } else {
        locks::acquire(c"policy_profiles", &[], Mode::Exclusive, ALL)?;
    }
    Ok(trigger.done())
}

/// Row security binds the role to the policies of its tenant.
fn sees_one_tenant() -> bool {
    const SQL: &str = "SELECT row_security_active('skill_system.policy_profiles')";
    spi::one(SQL, As::Caller, See::Statement, &[])
}

pg_function!(record_policy_change);
/// Invalidates the compiled policies of all sessions, and writes the history of each profile whose content changed.
fn record_policy_change(call: &Call) -> Answer {
    let trigger = Trigger::new(call, &[(Timing::AfterStatement, ANY)])?;
    announce_change(c"policy_profiles");
    spi::increment_command_counter();
    if trigger.event() == Event::Truncate {
        audit::append("policy.truncated", serde_json::json!({}), None, None)?;
    } else {
        let own = settings::tenant()?;
        let records = spi::as_owner(|| write_history(&own, sees_one_tenant()))?;
        let policies: Vec<String> = records.iter().filter(|r| r.tenant == own).map(|r| r.policy.clone()).collect();
        for record in records {
            audit::append_for(&record.tenant, record.event_type, arg(record.data), None, None)?;
        }
        warn_of_findings(&policies)?;
    }
    Ok(trigger.done())
}

struct StoredProfile {
    profile: Profile,
    tenant: String,
    id: i64,
    hash: Option<String>,
}

impl FromRow<'_> for StoredProfile {
    fn from_row(row: &Row<'_>) -> Self {
        StoredProfile { profile: read_profile(row), tenant: row.get(12), id: row.get(13), hash: row.get(14) }
    }
}

/// An audit record to append.
struct Record {
    tenant: String,
    policy: String,
    event_type: &'static str,
    data: serde_json::Value,
}

/// Rows of `policy_versions`, column by column.
#[derive(Default)]
struct Versions {
    tenants: Vec<String>,
    ids: Vec<i64>,
    versions: Vec<i32>,
    hashes: Vec<String>,
    names: Vec<String>,
    contents: Vec<String>,
}

/// Writes new versions of the profiles, of one's own tenant or of all, whose stored hash is not that of their content. Runs
/// as the owner: a restore fills all tenants in one statement.
fn write_history(own: &str, only_own: bool) -> Result<Vec<Record>, Fault> {
    const STORED: &str = concatcp!(
        "SELECT ",
        PROFILE_COLUMNS,
        ", p.tenant_id, p.id, p.content_hash FROM skill_system.policy_profiles p WHERE $1 IS NULL OR p.tenant_id = $1 \
            ORDER BY p.tenant_id, p.id"
    );
    let stored = spi::collect::<StoredProfile>(STORED, As::Caller, See::Latest, &[arg(only_own.then_some(own))]);
    let (mut records, mut new) = (Vec::new(), Versions::default());
    for tenant in stored.chunk_by(|a, b| a.tenant == b.tenant) {
        let profiles: Vec<Profile> = tenant.iter().map(|row| row.profile.clone()).collect();
        for (i, result) in hash_all(&profiles) {
            let was = &tenant[i];
            let (content, hash) = match result {
                Ok(found) => found,
                // A row that brings its hash is being restored and its parents may come later.
                Err(PolicyError::UnknownParent { .. }) if was.hash.is_some() && is_being_restored(was) => continue,
                // Skip: another tenant's broken profile is not this statement's fault.
                Err(_) if was.hash.is_some() && was.tenant != own => continue,
                Err(error) => return Err(error.into()),
            };
            if was.hash.as_ref() == Some(&hash) {
                continue;
            }
            let version = was.profile.version + 1;
            records.push(Record {
                tenant: was.tenant.clone(),
                policy: was.profile.name.clone(),
                event_type: if version == 1 { "policy.created" } else { "policy.changed" },
                data: serde_json::json!({
                    "policy": was.profile.name, "id": was.id, "version": version, "hash": hash, "previous_hash": was.hash,
                }),
            });
            new.tenants.push(was.tenant.clone());
            new.ids.push(was.id);
            new.versions.push(version);
            new.hashes.push(hash);
            new.names.push(was.profile.name.clone());
            new.contents.push(content);
        }
    }
    if !records.is_empty() {
        store_versions(new);
    }
    Ok(records)
}

fn store_versions(new: Versions) {
    spi::execute(
        "INSERT INTO skill_system.policy_versions (tenant_id, policy_profile_id, version, content_hash, name, content) \
         SELECT t, i, v, h, n, c::jsonb FROM unnest($1, $2, $3, $4, $5, $6) AS new(t, i, v, h, n, c)",
        As::Caller,
        See::OwnWrites,
        &[
            arg(new.tenants.as_slice()),
            arg(new.ids.clone()),
            arg(new.versions.clone()),
            arg(new.hashes.as_slice()),
            arg(new.names),
            arg(new.contents),
        ],
    );
    // One statement: it fires this trigger again, which then finds every hash as it should be.
    spi::execute(
        "UPDATE skill_system.policy_profiles p SET version = v, content_hash = h \
         FROM unnest($1, $2, $3, $4) AS new(t, i, v, h) WHERE p.tenant_id = t AND p.id = i",
        As::Caller,
        See::OwnWrites,
        &[arg(new.tenants), arg(new.ids), arg(new.versions), arg(new.hashes)],
    );
}

/// Whether a row with a version has no history yet, which means that it comes from a dump.
fn is_being_restored(row: &StoredProfile) -> bool {
    spi::one(
        "SELECT NOT EXISTS (SELECT FROM skill_system.policy_versions WHERE tenant_id = $1 AND policy_profile_id = $2)",
        As::Caller,
        See::Latest,
        &[arg(&row.tenant), arg(row.id)],
    )
}

pg_function!(record_policy_deletion);
/// Adds the deletion of a profile to its history.
fn record_policy_deletion(call: &Call) -> Answer {
    let trigger = Trigger::new(call, &[(Timing::AfterRow, &[Event::Delete])])?;
    let (tenant, name): (&str, &str) = (trigger.old(c"tenant_id"), trigger.old(c"name"));
    let (id, version): (i64, i32) = (trigger.old(c"id"), trigger.old(c"version"));
    let previous_hash: Option<&str> = trigger.old(c"content_hash");
    spi::execute(
        "INSERT INTO skill_system.policy_versions (tenant_id, policy_profile_id, version, content_hash, name, content) \
         VALUES ($1, $2, $3, NULL, $4, NULL)",
        As::Owner,
        See::OwnWrites,
        &[arg(tenant), arg(id), arg(version + 1), arg(name)],
    );
    let data = serde_json::json!({"policy": name, "id": id, "version": version + 1, "previous_hash": previous_hash});
    audit::append_for(tenant, "policy.deleted", arg(data), None, None)?;
    Ok(trigger.done())
}
