//! skills-runtime-sdk 0.1.12: mentions, injection, scan, preflight.
//!
//! The client itself reads the view `skills`, or the views of `client_schema`; here is what it does, for callers in SQL.

use const_format::concatcp;
use serde_json::{Map, Value, json};
use skill_core::error::shorten;
use skill_core::skills::contract::{self, Issue, OWN_SOURCE};
use skill_core::skills::names::{self, Reference};
use skill_core::skills::preflight;
use skill_core::{Code, Fault};
use skill_pg::error::check_for_interrupts;
use skill_pg::spi::{self, As, Once, See};
use skill_pg::{Answer, Arg, Call, Json, Oid, Row, RowSet, Uuid, arg, pg_function};

use crate::args::{self, given};

fn locator(id: Uuid) -> String {
    format!("{OWN_SOURCE}#{id}")
}

/// The columns `code` and `details` of an issue.
fn issue_columns(issue: Option<&Issue>) -> [Arg<'_>; 2] {
    [arg(issue.map(|issue| issue.code)), arg(issue.map(|issue| &issue.details))]
}

/// A time as the client writes it.
pub fn client_time(time: &str) -> String {
    time.strip_suffix("+00:00").map_or_else(|| time.to_owned(), |time| format!("{time}Z"))
}

skill_pg::columns! {
    /// A skill that clients may load.
    struct EnabledSkill {
        id: Uuid = "h.id",
        skill_name: String = "h.skill_name",
        body_size: i64 = "h.body_size::bigint",
    }
}

fn find_enabled(reference: Reference) -> Option<EnabledSkill> {
    const SELECT: &str = concatcp!(
        "SELECT ",
        EnabledSkill::COLUMNS,
        " FROM skill_system.skill_heads h WHERE h.tenant_id = skill_system.current_tenant() AND h.enabled AND "
    );
    const BY_ID: &str = concatcp!(SELECT, "h.id = $1");
    const BY_NAME: &str = concatcp!(SELECT, "h.namespace = $1 AND h.skill_name = $2 AND h.deleted_at IS NULL");
    match reference {
        Reference::Id(id) => spi::first(BY_ID, As::Caller, See::Statement, &[arg(*id.as_bytes())]),
        Reference::Name(namespace, name) => {
            spi::first(BY_NAME, As::Caller, See::Statement, &[arg(namespace), arg(name)])
        }
    }
}

fn namespace_exists(namespace: &str) -> bool {
    spi::one(
        "SELECT EXISTS (SELECT FROM skill_system.skill_namespaces \
                        WHERE tenant_id = skill_system.current_tenant() AND namespace = $1 AND dropped_at IS NULL)",
        As::Caller,
        See::Statement,
        &[arg(namespace)],
    )
}

pg_function!(resolve_mentions);
fn resolve_mentions(call: &Call) -> Answer {
    // NULL mentions nothing.
    let text = call.arguments::<Option<&str>>().unwrap_or_default();
    let mut rows = call.row_set();
    for mention in contract::mentions(text)? {
        check_for_interrupts();
        let skill = find_enabled(Reference::Name(mention.namespace, mention.skill_name));
        let issue = skill.is_none().then(|| match namespace_exists(mention.namespace) {
            true => contract::unknown(mention.text),
            false => contract::no_space(&mention),
        });
        let [code, details] = issue_columns(issue.as_ref());
        rows.push(&[
            arg(mention.text),
            arg(mention.namespace),
            arg(mention.skill_name),
            arg(skill.is_some()),
            arg(skill.as_ref().map(|skill| skill.id)),
            arg(skill.as_ref().map(|skill| locator(skill.id))),
            code,
            details,
        ]);
    }
    Ok(rows.finish())
}

pg_function!(inject_skill);
fn inject_skill(call: &Call) -> Answer {
    let (skill, max_bytes) = call.arguments();
    let skill = given(skill, "skill")?;
    let max_bytes = contract::limit(max_bytes)?;
    let reference = match contract::only_mention(skill)? {
        Some(mention) => Reference::Name(mention.namespace, mention.skill_name),
        None => Reference::parse(Some(skill))?,
    };
    let skill = find_enabled(reference).ok_or_else(|| {
        contract::unknown(&shorten(skill)).fault(Code::SkillNotFound).hint(
            "SELECT namespace, skill_name, enabled FROM skill_system.skills; \
             only an approved skill that is switched on is given out.",
        )
    })?;
    let locator = locator(skill.id);
    if let Some(limit) = max_bytes.filter(|limit| skill.body_size > *limit) {
        let issue = contract::too_large(&skill.skill_name, &locator, limit, skill.body_size);
        return Err(issue.fault(Code::ProgramLimitExceeded));
    }
    let body = spi::first::<String>(
        "SELECT body FROM skill_system.skills WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Caller,
        See::Statement,
        &[arg(skill.id)],
    );
    let body = body.ok_or_else(|| {
        let reason = format!("missing body row: {locator}");
        let details = json!({"skill_name": skill.skill_name, "locator": locator, "reason": reason});
        Issue { code: "SKILL_BODY_READ_FAILED", message: "Skill body read failed.", details }
            .fault(Code::VersionNotFound)
    })?;
    Ok(call.answer(contract::injected(&skill.skill_name, &locator, &body)))
}

/// A row of a scan.
struct Scanned {
    locator: String,
    row: Map<String, Value>,
}

impl Scanned {
    fn read(row: &Row) -> Self {
        let (locator, Json(row)) = row.read();
        Scanned { locator, row }
    }

    fn name(&self) -> &str {
        self.row.get("skill_name").and_then(Value::as_str).unwrap_or_default()
    }

    fn push(&self, issue: Option<&Issue>, rows: &mut RowSet) {
        let text = |field: &str| self.row.get(field).and_then(Value::as_str);
        let time = |field: &str| text(field).map(client_time);
        let size = self.row.get("body_size");
        let size = size.and_then(|size| size.as_i64().or_else(|| size.as_str()?.trim().parse().ok()));
        let list = self.row.get("required_env_vars").and_then(Value::as_array);
        let list: Vec<&str> = list.into_iter().flatten().filter_map(Value::as_str).collect();
        let metadata = self.row.get("metadata").cloned().filter(Value::is_object).unwrap_or_else(|| json!({}));
        // What the client would not take is not given out as if it did.
        let good = issue.is_none();
        let [code, details] = issue_columns(issue);
        rows.push(&[
            arg(&self.locator),
            arg(text("skill_name")),
            arg(text("description")),
            arg(size.filter(|_| good)),
            arg(text("body_etag")),
            arg(time("created_at")),
            arg(time("updated_at")),
            arg(good.then_some(list)),
            arg(good.then_some(metadata)),
            arg(text("scope")),
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
    let found = spi::first::<(String, String)>(
        "SELECT format('%s.%s', n.nspname, c.relname), format('%I.%I', n.nspname, c.relname) \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1",
        As::Caller,
        See::Statement,
        &[arg(source)],
    );
    found.ok_or_else(|| Fault::new(Code::UndefinedObject, format!("relation with OID {source} does not exist")))
}

fn scan_query(source: &str, own: bool) -> String {
    let tenant = if own { "AND t.tenant_id = skill_system.current_tenant()" } else { "" };
    format!(
        "SELECT $2 || '#' || coalesce(t.id::text, 'None'), jsonb_build_object('id', t.id, 'skill_name', t.skill_name, \
             'description', t.description, 'body_size', t.body_size, 'body_etag', t.body_etag, 'created_at', t.created_at, \
             'updated_at', t.updated_at, 'required_env_vars', t.required_env_vars, 'metadata', t.metadata, \
             'scope', t.scope)::text \
         FROM {source} t WHERE t.enabled = TRUE AND t.namespace = $1 {tenant} \
         ORDER BY t.skill_name::text COLLATE \"C\", t.id::text COLLATE \"C\""
    )
}

pg_function!(scan_skills);
fn scan_skills(call: &Call) -> Answer {
    let (namespace, source) = call.arguments();
    let namespace = names::namespace(namespace)?;
    let (shown, quoted) = source_name(source)?;
    let query = scan_query(&quoted, shown == OWN_SOURCE);
    let mut rows = call.row_set();
    let mut group: Vec<Scanned> = Vec::new();
    spi::with_plain_text(|| {
        spi::stream(Once(&query), &[arg(namespace), arg(&shown)], |row| {
            let row = Scanned::read(row);
            if let Some(issue) = contract::row_issue(&row.row, &row.locator) {
                row.push(Some(&issue), &mut rows);
                return Ok(());
            }
            if group.first().is_some_and(|first| first.name() != row.name()) {
                push_group(&mut group, namespace, &mut rows);
            }
            group.push(row);
            Ok(())
        })
    })?;
    push_group(&mut group, namespace, &mut rows);
    Ok(rows.finish())
}

fn answer_issues(call: &Call, issues: &[Issue]) -> Answer {
    let mut rows = call.row_set();
    for issue in issues {
        let [code, details] = issue_columns(Some(issue));
        rows.push(&[
            code,
            arg(preflight::level(issue)),
            arg(issue.message),
            arg(issue.details["path"].as_str()),
            details,
        ]);
    }
    Ok(rows.finish())
}

pg_function!(preflight_skills);
fn preflight_skills(call: &Call) -> Answer {
    let config = given(args::json(call.arguments(), "config")?, "config")?;
    answer_issues(call, &preflight::preflight(&(&config).into()))
}

pg_function!(preflight_skills_yaml);
fn preflight_skills_yaml(call: &Call) -> Answer {
    let config = given(call.arguments(), "config")?;
    answer_issues(call, &preflight::of_yaml(config)?)
}
