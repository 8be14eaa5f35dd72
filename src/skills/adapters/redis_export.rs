//! The cache that skills-runtime-sdk reads from Redis, as lines for `redis-cli`.

use std::collections::{BTreeSet, HashSet};

use serde_json::{Map, Value};
use skill_core::Fault;
use skill_core::input::invalid;
use skill_core::skills::contract;
use skill_core::skills::names;
use skill_core::skills::redis;
use skill_pg::error::{check_for_interrupts, warning};
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, Json, Row, RowSet, Uuid, arg, pg_function};

use super::bundles::zip;
use super::runtime_sdk::client_time;
use crate::args::given;
use crate::skills::content;

/// The hash fields with the columns that they are filled from.
const FIELDS: [(&str, &str); 9] = [
    ("skill_name", "skill_name"),
    ("description", "description"),
    ("created_at", "created_at"),
    ("updated_at", "updated_at"),
    ("required_env_vars", "required_env_vars"),
    ("metadata", "metadata"),
    ("scope", "scope"),
    ("body_size", "body_size"),
    ("etag", "body_etag"),
];

/// One skill of the cache.
struct CachedSkill {
    namespace: String,
    skill_name: String,
    version_id: Uuid,
    row: Map<String, Value>,
}

impl CachedSkill {
    const SELECT: &str = "SELECT s.namespace, s.skill_name, s.current_version_id, jsonb_build_object('id', s.id, \
             'skill_name', s.skill_name, 'description', s.description, 'created_at', s.created_at, \
             'updated_at', s.updated_at, 'required_env_vars', s.required_env_vars, 'metadata', s.metadata, \
             'scope', s.scope, 'body_size', s.body_size, 'body_etag', s.body_etag)::text \
         FROM skill_system.skill_heads s \
         WHERE s.tenant_id = skill_system.current_tenant() AND s.enabled AND ($1 IS NULL OR s.namespace = $1) \
         ORDER BY s.namespace, s.skill_name";

    fn read(row: &Row) -> Self {
        let (namespace, skill_name, version_id, Json(row)) = row.read();
        CachedSkill { namespace, skill_name, version_id, row }
    }

    fn keys(prefix: &str, namespace: &str, skill_name: &str) -> [String; 3] {
        ["meta", "body", "bundle"].map(|kind| format!("{prefix}{kind}:{namespace}:{skill_name}"))
    }

    /// The line that takes a skill out of the cache.
    fn removal(prefix: &str, namespace: &str, skill_name: &str) -> Option<String> {
        let [meta, body, bundle] = CachedSkill::keys(prefix, namespace, skill_name);
        redis::command(&[b"DEL", meta.as_bytes(), body.as_bytes(), bundle.as_bytes()])
    }

    /// The fields of its hash.
    fn fields(&self, zip: Option<&[u8]>) -> Vec<(&'static str, String)> {
        let text = |column: &str| match &self.row[column] {
            Value::Null => None,
            Value::String(text) if column.ends_with("_at") => Some(client_time(text)),
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        let fields = FIELDS.into_iter().filter_map(|(field, column)| Some((field, text(column)?)));
        let mut fields: Vec<(&str, String)> = fields.collect();
        if let Some(zip) = zip {
            let sha256 = skill_core::input::sha256(zip);
            fields.push(("bundle_sha256", sha256.trim_start_matches("sha256:").to_owned()));
            fields.push(("bundle_size", zip.len().to_string()));
            fields.push(("bundle_format", "zip".to_owned()));
        }
        fields
    }

    /// The lines that put it there, or why it cannot be there.
    fn lines(&self, prefix: &str) -> Result<Vec<String>, String> {
        if !names::is_namespace(&self.namespace) {
            return Err("the client does not accept the namespace".to_owned());
        }
        if let Some(issue) = contract::row_issue(&self.row, "") {
            let field = issue.details["field"].as_str().unwrap_or_default();
            return Err(format!("the client would not read its {field}"));
        }
        let zip = zip(self.version_id).map_err(|fault| fault.message)?;
        let [meta, body_key, bundle_key] = CachedSkill::keys(prefix, &self.namespace, &self.skill_name);
        let fields = self.fields(zip.as_deref());
        let mut command: Vec<&[u8]> = vec![b"HSET", meta.as_bytes()];
        command.extend(fields.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]));
        let fields =
            redis::command(&command).ok_or("its description and metadata are too large for Redis's inline form")?;
        let removal = redis::command(&[b"DEL", meta.as_bytes(), bundle_key.as_bytes()]);
        // A reader of the cache sees the skill as it was, or as it is.
        let removal = removal.ok_or("its name is too long for Redis's inline form")?;
        let mut lines = vec!["MULTI".to_owned(), removal, fields];
        let body = content::find_body(self.version_id, As::Caller, See::Statement);
        redis::set(&body_key, body.ok_or("its body cannot be read")?.as_bytes(), |line| lines.push(line));
        if let Some(zip) = zip {
            redis::set(&bundle_key, &zip, |line| lines.push(line));
        }
        lines.push("EXEC".to_owned());
        Ok(lines)
    }
}

pg_function!(redis_export);
fn redis_export(call: &Call) -> Answer {
    let (prefix, namespace): (_, Option<&str>) = call.arguments();
    let prefix = given(prefix, "key_prefix")?;
    let namespace = namespace.map(|namespace| names::namespace(Some(namespace))).transpose()?;
    if !redis::is_prefix(prefix) {
        return Err(invalid("key_prefix cannot be used")
            .detail(format!(
                "A prefix has 1 to {} bytes, no control characters and none of * ? [ ] ^ \\, \
                 which the client would take as a pattern.",
                redis::MAX_PREFIX
            ))
            .hint("For example skills:."));
    }
    if namespace.is_none() {
        check_nesting()?;
    }
    let mut rows = call.value_set();
    spi::with_plain_text(|| {
        export_enabled(prefix, namespace, &mut rows)?;
        export_removals(prefix, namespace, &mut rows)
    })?;
    Ok(rows.finish())
}

fn export_enabled(prefix: &str, namespace: Option<&str>, rows: &mut RowSet) -> Result<(), Fault> {
    spi::stream(CachedSkill::SELECT, &[arg(namespace)], |row| {
        let skill = CachedSkill::read(row);
        check_for_interrupts();
        match skill.lines(prefix) {
            Ok(lines) => lines.iter().for_each(|line| rows.push(&[arg(line)])),
            Err(why) => {
                warning(format!("skill \"{}/{}\" is not in the cache: {why}", skill.namespace, skill.skill_name));
                if let Some(line) = CachedSkill::removal(prefix, &skill.namespace, &skill.skill_name) {
                    rows.push(&[arg(line)]);
                }
            }
        }
        Ok(())
    })
}

/// What once was there and must not be used any more is taken out of the cache.
fn export_removals(prefix: &str, namespace: Option<&str>, rows: &mut RowSet) -> Result<(), Fault> {
    spi::stream(
        "SELECT DISTINCT g.namespace, g.skill_name FROM skill_system.skill_history g \
         WHERE g.tenant_id = skill_system.current_tenant() AND ($1 IS NULL OR g.namespace = $1) \
           AND NOT EXISTS (SELECT FROM skill_system.skill_heads h WHERE h.tenant_id = g.tenant_id \
               AND h.namespace = g.namespace AND h.skill_name = g.skill_name AND h.enabled)",
        &[arg(namespace)],
        |row| {
            let (namespace, skill_name) = row.read();
            if names::is_namespace(namespace)
                && contract::is_skill_name(skill_name)
                && let Some(line) = CachedSkill::removal(prefix, namespace, skill_name)
            {
                rows.push(&[arg(line)]);
            }
            Ok(())
        },
    )
}

/// The client finds the skills of a namespace by the beginning of their keys, and so those of the namespaces below it too.
fn check_nesting() -> Result<(), Fault> {
    let namespaces = spi::collect::<String>(
        "SELECT DISTINCT namespace FROM skill_system.skill_heads \
         WHERE tenant_id = skill_system.current_tenant() AND enabled",
        As::Caller,
        See::Statement,
        &[],
    );
    let namespaces: BTreeSet<String> = namespaces.into_iter().collect();
    let all: HashSet<&str> = namespaces.iter().map(String::as_str).collect();
    let below = namespaces.iter().find_map(|inner| {
        let mut above = inner.match_indices(':').map(|(end, _)| &inner[..end]);
        above.find(|outer| all.contains(outer)).map(|outer| (inner, outer))
    });
    match below {
        None => Ok(()),
        Some((inner, outer)) => {
            Err(invalid(format!("namespace \"{inner}\" is below \"{outer}\"; the client would mix them up"))
                .hint("Export each namespace with a separate key_prefix."))
        }
    }
}
