//! The skills-runtime-sdk face (seed 4): mentions, injection, scan, preflight, bundles, and a cache in Redis.
//!
//! The client itself reads the view `skills`, or the views of `client_schema`; here is what it does, for callers in SQL.

use skill_pg::{Answer, Arg, Call, Oid, Row, RowSet, Uuid, arg, pg_function, pg_sys};
use skill_pg::spi::{self, As, See};
use skill_pg::error::{check_for_interrupts, warning};
use crate::{compat};
use std::collections::{BTreeSet, HashSet};

use serde_json::{Map, Value, json};
use skill_core::input::invalid;
use skill_core::skills::Status;
use skill_core::skills::bundle::{self, Limits};
use skill_core::skills::contract::{self, Issue, OWN_SOURCE};
use skill_core::skills::files::{Files, MAX_FILES};
use skill_core::skills::metadata::SkillMetadata;
use skill_core::skills::names::{self, Reference};
use skill_core::skills::preflight;
use skill_core::skills::redis;
use skill_core::skills::version::{File, Identity};
use skill_core::{Code, Fault};

use super::approval;
use super::registry::{self, Change, Head, NewVersion, Placement, Version};
use super::state;
use crate::args::{json as json_argument, jsonb_datum, missing, stored, uuid_datum};

/// What a version is made of.
pub struct Content {
    pub body: String,
    pub files: Vec<File>,
    pub frontmatter: Option<Value>,
    pub manifest: Option<Value>,
}

/// Reads a version as the tables' owner.
pub fn content(version: &Version) -> Content {
    let mut content = Content {
        body: String::new(),
        files: files(version.id, As::Owner, See::OwnWrites),
        frontmatter: None,
        manifest: None,
    };
    compat::run(
        "SELECT body, frontmatter::text, manifest::text FROM skill_system.skill_versions WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Owner, See::OwnWrites,
        &[arg(version.id)],
        |row| {
            content.body = row.get(1);
            content.frontmatter = row.get::<Option<String>>(2).map(|text| stored(Some(text)));
            content.manifest = row.get::<Option<String>>(3).map(|text| stored(Some(text)));
        },
    );
    content
}

fn files(version: Uuid, access: Access) -> Vec<File> {
    let mut files = Vec::new();
    compat::run(
        "SELECT path, content FROM skill_system.skill_files WHERE tenant_id = skill_system.current_tenant() AND version_id = $1 ORDER BY path",
        access,
        &[arg(version)],
        |row| {
            files.push(File {
                path: row.get(1),
                content: row.bytes(2).map(<[u8]>::to_vec).unwrap_or_default(),
            })
        },
    );
    files
}

/// Content that is registered already comes back with its status: what was approved before would be served again, which is
/// a reviewer's decision.
pub fn check_known(head: &Head, body: &str, files: &[File]) -> Result<(), Fault> {
    let identity = Identity::of(body, files);
    match registry::version(head, Some(identity.version()), As::Owner, See::OwnWrites) {
        Ok(known)
            if known.status == Status::Approved && known.id != head.current_version_id && !approval::may_approve() =>
        {
            Err(Fault::new(
                Code::InsufficientPrivilege,
                format!("version {} of skill \"{}\" was approved before", known.version, head.skill_name),
            )
            .detail("Only a reviewer or an administrator makes it the one that is served again.")
            .hint("SELECT skill_system.set_skill_status(skill, 'approved', version);"))
        }
        _ => Ok(()),
    }
}

fn locator(id: Uuid) -> String {
    format!("{OWN_SOURCE}#{id}")
}

fn issue_datums(issue: Option<&Issue>) -> [Option<pg_sys::Datum>; 2] {
    [issue.and_then(|issue| arg(issue.code)), issue.and_then(|issue| jsonb_datum(issue.details.clone()))]
}

/// A skill that clients may load.
struct Enabled {
    id: Uuid,
    skill_name: String,
    body_size: i64,
}

fn enabled(reference: Reference) -> Option<Enabled> {
    let (condition, args): (&str, Vec<Arg>) = match reference {
        Reference::Id(id) => ("h.id = $1", vec![arg(Uuid::from_bytes(*id.as_bytes()))]),
        Reference::Name(namespace, name) => {
            ("h.namespace = $1 AND h.skill_name = $2 AND h.deleted_at IS NULL", vec![arg(namespace), arg(name)])
        }
    };
    let mut found = None;
    compat::run_once(
        &format!(
            "SELECT h.id, h.skill_name, h.body_size::bigint FROM skill_system.skill_heads h \
             WHERE h.tenant_id = skill_system.current_tenant() AND h.enabled AND {condition}"
        ),
        As::Caller, See::Statement,
        &args,
        |row| {
            if let (Some(id), Some(skill_name), Some(body_size)) = (row.get(1), row.get(2), row.get(3)) {
                found = Some(Enabled { id, skill_name, body_size });
            }
        },
    );
    found
}

pg_function!(resolve_mentions);
/// `resolve_mentions(text)`
fn resolve_mentions(call: &Call) -> Answer {
    let mut rows = call.row_set();
    for mention in contract::mentions(call.text(0).unwrap_or_default())? {
        check_for_interrupts();
        let skill = enabled(Reference::Name(mention.namespace, mention.skill_name));
        let issue = skill.is_none().then(|| {
            let known = spi::one::<bool>(
                "SELECT EXISTS (SELECT FROM skill_system.skill_namespaces WHERE tenant_id = skill_system.current_tenant() AND namespace = $1)",
                As::Caller, See::Statement,
                &[arg(mention.namespace)],
            );
            if known == Some(true) { contract::unknown(mention.text) } else { contract::no_space(&mention) }
        });
        let [code, details] = issue_datums(issue.as_ref());
        rows.push(&[
            arg(mention.text),
            arg(mention.namespace),
            arg(mention.skill_name),
            skill.is_some(arg()),
            skill.as_ref().and_then(|skill| uuid_datum(skill.id)),
            skill.as_ref().and_then(|skill| arg(&locator(skill.id))),
            code,
            details,
        ]);
    }
    Ok(call.null())
}

pg_function!(inject_skill);
/// `inject_skill(skill, max_bytes)`
fn inject_skill(call: &Call) -> Answer {
    let given = call.text(0).ok_or_else(|| missing("skill"))?;
    let limit = contract::limit(call.get(1))?;
    let reference = match contract::only_mention(given)? {
        Some(mention) => Reference::Name(mention.namespace, mention.skill_name),
        None => Reference::parse(Some(given))?,
    };
    let skill = enabled(reference).ok_or_else(|| {
        let hint = "SELECT namespace, skill_name, enabled FROM skill_system.skills; only an approved skill that is switched on is given out.";
        contract::unknown(&skill_core::error::shorten(given)).fault(Code::SkillNotFound).hint(hint)
    })?;
    let locator = locator(skill.id);
    if let Some(limit) = limit.filter(|limit| skill.body_size > *limit) {
        return Err(
            contract::too_large(&skill.skill_name, &locator, limit, skill.body_size).fault(Code::ProgramLimitExceeded)
        );
    }
    let body = spi::one::<String>(
        "SELECT body FROM skill_system.skills WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Caller, See::Statement,
        &[arg(skill.id)],
    );
    let body = body.ok_or_else(|| {
        let details = json!({"skill_name": skill.skill_name, "locator": locator, "reason": format!("missing body row: {locator}")});
        Issue { code: "SKILL_BODY_READ_FAILED", message: "Skill body read failed.", details }.fault(Code::VersionNotFound)
    })?;
    Ok(arg(&contract::injected(&skill.skill_name, &locator, &body)).unwrap_or_else(|| call.null()))
}

/// A row of a scan.
struct Scanned {
    locator: String,
    row: Map<String, Value>,
}

impl Scanned {
    fn read(row: &Row) -> Self {
        Scanned {
            locator: row.get(1),
            row: stored(row.get(2)).as_object().cloned().unwrap_or_default(),
        }
    }

    fn name(&self) -> &str {
        self.row.get("skill_name").and_then(Value::as_str).unwrap_or_default()
    }

    fn push(&self, issue: Option<&Issue>, rows: &mut RowSet) {
        let text = |field: &str| self.row.get::<Option<_>>(field).and_then(Value::as_str);
        let time = |field: &str| {
            text(field)
                .map(|time| time.strip_suffix("+00:00").map_or_else(|| time.to_owned(), |time| format!("{time}Z")))
        };
        let size =
            self.row.get("body_size").and_then(|size| size.as_i64().or_else(|| size.as_str()?.trim().parse().ok()));
        let list = self.row.get("required_env_vars").and_then(Value::as_array);
        let list: Option<Vec<String>> =
            list.map(|list| list.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect());
        // What the client would not take is not given out as if it did.
        let good = issue.is_none();
        let [code, details] = issue_datums(issue);
        rows.push(&[
            arg(&self.locator),
            text("skill_name").and_then(text_datum),
            text("description").and_then(text_datum),
            size.filter(|_| good).and_then(IntoDatum::into_datum),
            text("body_etag").and_then(text_datum),
            time("created_at").as_deref().and_then(text_datum),
            time("updated_at").as_deref().and_then(text_datum),
            arg(&list.unwrap_or_default()).filter(|_| good),
            jsonb_datum(self.row.get("metadata").cloned().filter(Value::is_object).unwrap_or_else(|| json!({})))
                .filter(|_| good),
            text("scope").and_then(text_datum),
            code,
            details,
        ]);
    }
}

/// Rows of one name, the good ones, in the order of their locators.
fn push_group(group: &mut Vec<Scanned>, namespace: &str, rows: &mut RowSet) {
    let issue = (group.len() > 1).then(|| {
        let locators: Vec<String> = group.iter().map(|row| row.locator.clone()).collect();
        contract::duplicate(namespace, group[0].name(), &locators)
    });
    for row in group.drain(..) {
        row.push(issue.as_ref(), rows);
    }
}

/// `schema.table` as the client writes it, and quoted.
fn source_name(source: Option<Oid>) -> Result<(String, String), Fault> {
    let Some(source) = source else {
        return Ok((OWN_SOURCE.to_owned(), OWN_SOURCE.to_owned()));
    };
    let mut found = None;
    compat::run(
        "SELECT format('%s.%s', n.nspname, c.relname), format('%I.%I', n.nspname, c.relname) \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1",
        As::Caller, See::Statement,
        &[given(arg(source), pg_sys::OIDOID)],
        |row| found = row.get::<Option<_>>(1).zip(row.get(2)),
    );
    found.ok_or_else(|| Fault::new(Code::UndefinedObject, format!("there is no relation with the OID {source}")))
}

pg_function!(scan_skills);
/// `scan_skills(namespace, source)`
fn scan_skills(call: &Call) -> Answer {
    let namespace = names::namespace(call.text(0))?;
    let (shown, quoted) = source_name(call.get(1))?;
    let own = if shown == OWN_SOURCE { "AND t.tenant_id = skill_system.current_tenant()" } else { "" };
    let sql = format!(
        "SELECT $2 || '#' || coalesce(t.id::text, 'None'), jsonb_build_object('id', t.id, 'skill_name', t.skill_name, 'description', t.description, \
             'body_size', t.body_size, 'body_etag', t.body_etag, 'created_at', t.created_at, 'updated_at', t.updated_at, \
             'required_env_vars', t.required_env_vars, 'metadata', t.metadata, 'scope', t.scope)::text \
         FROM {quoted} t WHERE t.enabled = TRUE AND t.namespace = $1 {own} ORDER BY t.skill_name::text COLLATE \"C\", t.id::text COLLATE \"C\""
    );
    let mut rows = call.row_set();
    let mut group: Vec<Scanned> = Vec::new();
    spi::with_plain_text(|| {
        spi::stream(&sql, &[arg(namespace), arg(shown.as_str())], |row| {
            let row = Scanned::read(row);
            if let Some(issue) = contract::row_issue(&row.row, &row.locator) {
                row.push(Some(&issue), &mut rows);
                return;
            }
            if group.first().is_some_and(|first| first.name() != row.name()) {
                push_group(&mut group, namespace, &mut rows);
            }
            group.push(row);
        });
    });
    push_group(&mut group, namespace, &mut rows);
    Ok(call.null())
}

fn push_issues(call: &Call, issues: &[Issue]) -> Answer {
    let mut rows = call.row_set();
    for issue in issues {
        let [code, details] = issue_datums(Some(issue));
        rows.push(&[
            code,
            arg(preflight::level(issue)),
            arg(issue.message),
            issue.details["path"].as_str().and_then(text_datum),
            details,
        ]);
    }
    Ok(call.null())
}

pg_function!(preflight_skills);
/// `preflight_skills(config)`
fn preflight_skills(call: &Call) -> Answer {
    let config = json_argument(call, 0, "config")?.ok_or_else(|| missing("config"))?;
    push_issues(call, &preflight::preflight(&(&config).into()))
}

pg_function!(preflight_skills_yaml);
/// `preflight_skills_yaml(config)`
fn preflight_skills_yaml(call: &Call) -> Answer {
    push_issues(call, &preflight::of_yaml(call.text(0).ok_or_else(|| missing("config"))?)?)
}

pg_function!(check_skill_bundle);
/// `check_skill_bundle(zip, max_bytes, max_extracted_bytes, max_files, max_single_file_bytes)`
fn check_skill_bundle(call: &Call) -> Answer {
    let limits = Limits::new(call.get(1), call.get(2), call.get(3), call.get(4))?;
    let mut rows = call.row_set();
    for file in bundle::read(call.bytes(0).ok_or_else(|| missing("zip"))?, &limits)? {
        rows.push(&[arg(&file.path), (arg(file.content.len() as i32)), arg(&file.sha256())]);
    }
    Ok(call.null())
}

pg_function!(register_skill_bundle);
/// `register_skill_bundle(skill, zip, version)`
fn register_skill_bundle(call: &Call) -> Answer {
    let reference = Reference::parse(call.text(0))?;
    let bundled = bundle::read(call.bytes(1).ok_or_else(|| missing("zip"))?, &Limits::default())?;
    let head = registry::locked(reference)?;
    let version = registry::version(&head, call.text(2), As::Owner, See::OwnWrites)?;
    let content = content(&version);
    let mut files = Files::up_to(bundle::MAX_FILES + MAX_FILES, content.body.len());
    for file in bundled.into_iter().chain(content.files.into_iter().filter(|file| !bundle::holds(&file.path))) {
        files.add(&file.path, file.content)?;
    }
    let files = files.into_list();
    check_known(&head, &content.body, &files)?;
    let new = NewVersion {
        namespace: &head.namespace,
        skill_name: &head.skill_name,
        body: &content.body,
        files: &files,
        semver: version.semver.clone(),
        about: SkillMetadata::from_json(&registry::about(&version)),
        frontmatter: content.frontmatter,
        manifest: content.manifest,
        status: None,
        previous_status: None,
        placement: Placement::WhenServable,
    };
    Ok(state(call, &registry::register(&new, &Change::by_caller())?))
}

/// The zip of what belongs into a bundle; `None` where there is nothing.
fn zip(version: Uuid) -> Result<Option<Vec<u8>>, Fault> {
    let files: Vec<File> = files(version, As::Caller, See::Statement).into_iter().filter(|file| bundle::holds(&file.path)).collect();
    if files.is_empty() { Ok(None) } else { bundle::write(&files).map(Some) }
}

pg_function!(skill_bundle);
/// `skill_bundle(skill, version)`
fn skill_bundle(call: &Call) -> Answer {
    let head = registry::find(Reference::parse(call.text(0))?)?;
    let version = match call.text(1) {
        None => head.current_version_id,
        given => registry::version(&head, given, As::Caller, See::Statement)?.id,
    };
    Ok(zip(version)?.map_or_else(|| call.null(), |zip| arg(&zip)))
}

/// One skill of the cache.
struct Cached {
    namespace: String,
    skill_name: String,
    version: Uuid,
    row: Map<String, Value>,
}

impl Cached {
    fn read(row: &Row) -> Option<Self> {
        Some(Cached {
            namespace: row.get(1)?,
            skill_name: row.get(2)?,
            version: row.get(3)?,
            row: stored(row.get(4)).as_object().cloned()?,
        })
    }

    fn keys(prefix: &str, namespace: &str, skill_name: &str) -> [String; 3] {
        ["meta", "body", "bundle"].map(|kind| format!("{prefix}{kind}:{namespace}:{skill_name}"))
    }

    /// The line that takes a skill out of the cache.
    fn removal(prefix: &str, namespace: &str, skill_name: &str) -> Option<String> {
        let [meta, body, bundle] = Cached::keys(prefix, namespace, skill_name);
        redis::command(&[b"DEL", meta.as_bytes(), body.as_bytes(), bundle.as_bytes()])
    }

    /// The lines that put it there, or why it cannot be there.
    fn lines(&self, prefix: &str) -> Result<Vec<String>, String> {
        if !names::is_namespace(&self.namespace) {
            return Err("the client knows no such namespace".to_owned());
        }
        if let Some(issue) = contract::row_issue(&self.row, "") {
            return Err(format!(
                "the client would not read its {}",
                issue.details["field"].as_str().unwrap_or_default()
            ));
        }
        let zip = zip(self.version).map_err(|fault| fault.message)?;
        let [meta, body_key, bundle_key] = Cached::keys(prefix, &self.namespace, &self.skill_name);
        let text = |field: &str| match &self.row[field] {
            Value::Null => None,
            Value::String(text) => Some(
                text.strip_suffix("+00:00")
                    .filter(|_| field.ends_with("_at"))
                    .map_or_else(|| text.clone(), |time| format!("{time}Z")),
            ),
            other => Some(other.to_string()),
        };
        let mut fields: Vec<(&str, String)> = [
            "skill_name",
            "description",
            "created_at",
            "updated_at",
            "required_env_vars",
            "metadata",
            "scope",
            "body_size",
            "body_etag",
        ]
        .into_iter()
        .filter_map(|field| Some((if field == "body_etag" { "etag" } else { field }, text(field)?)))
        .collect();
        if let Some(zip) = &zip {
            fields.push(("bundle_sha256", skill_core::input::sha256(zip).trim_start_matches("sha256:").to_owned()));
            fields.push(("bundle_size", zip.len().to_string()));
            fields.push(("bundle_format", "zip".to_owned()));
        }
        let mut command: Vec<&[u8]> = vec![b"HSET", meta.as_bytes()];
        command.extend(fields.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]));
        let fields =
            redis::command(&command).ok_or("its description and metadata are too large for Redis's inline form")?;
        let removal = redis::command(&[b"DEL", meta.as_bytes(), bundle_key.as_bytes()]);
        // A reader of the cache sees the skill as it was, or as it is.
        let mut lines = vec!["MULTI".to_owned(), removal.unwrap_or_default(), fields];
        let body = spi::one::<String>(
            "SELECT body FROM skill_system.skill_versions WHERE tenant_id = skill_system.current_tenant() AND id = $1",
            As::Caller, See::Statement,
            &[arg(self.version)],
        );
        redis::set(&body_key, body.ok_or("its body cannot be read")?.as_bytes(), |line| lines.push(line));
        if let Some(zip) = zip {
            redis::set(&bundle_key, &zip, |line| lines.push(line));
        }
        lines.push("EXEC".to_owned());
        Ok(lines)
    }
}

pg_function!(redis_export);
/// `redis_export(key_prefix, namespace)`
fn redis_export(call: &Call) -> Answer {
    let prefix = call.text(0).ok_or_else(|| missing("key_prefix"))?;
    if !redis::is_prefix(prefix) {
        return Err(invalid("key_prefix cannot be used")
            .detail(format!("It has 1 to {} bytes, no control characters and none of * ? [ ] ^ \\, which the client would take as a pattern.", redis::MAX_PREFIX))
            .hint("skills:"));
    }
    let namespace = call.text(1).map(|namespace| names::namespace(Some(namespace))).transpose()?;
    if namespace.is_none() {
        check_nesting()?;
    }
    let mut rows = call.value_set();
    spi::with_plain_text(|| {
        spi::stream(
            "SELECT s.namespace, s.skill_name, s.current_version_id, jsonb_build_object('id', s.id, 'skill_name', s.skill_name, 'description', s.description, \
                 'created_at', s.created_at, 'updated_at', s.updated_at, 'required_env_vars', s.required_env_vars, 'metadata', s.metadata, \
                 'scope', s.scope, 'body_size', s.body_size, 'body_etag', s.body_etag)::text \
             FROM skill_system.skill_heads s \
             WHERE s.tenant_id = skill_system.current_tenant() AND s.enabled AND ($1 IS NULL OR s.namespace = $1) ORDER BY s.namespace, s.skill_name",
            &[arg(namespace)],
            |row| {
                let Some(skill) = Cached::read(row) else {
                    return;
                };
                check_for_interrupts();
                match skill.lines(prefix) {
                    Ok(lines) => lines.iter().for_each(|line| rows.push(&[arg(line)])),
                    Err(why) => {
                        warning(format!(
                            "skill \"{}/{}\" is not in the cache: {why}",
                            skill.namespace, skill.skill_name
                        ));
                        if let Some(line) = Cached::removal(prefix, &skill.namespace, &skill.skill_name) {
                            rows.push(&[arg(&line)]);
                        }
                    }
                }
            },
        );
        // What once was there and is not to be used any more must not stay in the cache.
        spi::stream(
            "SELECT DISTINCT g.namespace, g.skill_name FROM skill_system.skill_history g \
             WHERE g.tenant_id = skill_system.current_tenant() AND ($1 IS NULL OR g.namespace = $1) \
               AND NOT EXISTS (SELECT FROM skill_system.skill_heads h WHERE h.tenant_id = g.tenant_id AND h.namespace = g.namespace \
                   AND h.skill_name = g.skill_name AND h.enabled)",
            &[arg(namespace)],
            |row| {
                let (namespace, name) = (row.text(1).unwrap_or_default(), row.text(2).unwrap_or_default());
                if let Some(line) = Cached::removal(prefix, namespace, name)
                    .filter(|_| names::is_namespace(namespace) && contract::is_skill_name(name))
                {
                    rows.push(&[arg(&line)]);
                }
            },
        );
    });
    Ok(call.null())
}

/// The client finds the skills of a namespace by the beginning of their keys, and so those of the namespaces below it too.
fn check_nesting() -> Result<(), Fault> {
    let mut namespaces = BTreeSet::new();
    compat::run(
        "SELECT DISTINCT namespace FROM skill_system.skill_heads WHERE tenant_id = skill_system.current_tenant() AND enabled",
        As::Caller, See::Statement,
        &[],
        |row| {
            namespaces.extend(row.get::<Option<String>>(1));
        },
    );
    let all: HashSet<&str> = namespaces.iter().map(String::as_str).collect();
    let below = namespaces.iter().find_map(|inner| {
        inner
            .match_indices(':')
            .map(|(end, _)| &inner[..end])
            .find(|outer| all.contains(outer))
            .map(|outer| (inner, outer))
    });
    match below {
        None => Ok(()),
        Some((inner, outer)) => {
            Err(invalid(format!("the namespace \"{inner}\" is below \"{outer}\"; the client would mix them up"))
                .hint("Export each namespace with a key_prefix of its own."))
        }
    }
}
