//! The SkillStore contract (seed 2) over the registry.

use skill_pg::{Answer, Arg, Call, Oid, Uuid, arg, pg_function, pg_sys, sys};
use skill_pg::spi::{self, As, See};
use crate::{settings, compat};
use std::cell::RefCell;

use serde_json::{Value, json};
use skill_core::error::shorten;
use skill_core::skills::Status;
use skill_core::skills::approval::rejected;
use skill_core::skills::metadata::SkillMetadata;
use skill_core::skills::names::{Reference, namespace, storable};
use skill_core::skills::store::{self as logic, Filter, IMPLEMENTATION, Metadata, NAMESPACE, Refusal, Token};
use skill_core::{Code, Fault};

use super::approval;
use super::registry::{self, Change, Head, NewVersion, Placement, State};
use crate::args::{json as json_argument, jsonb_datum, missing};

/// A SkillMeta made from a row `h` of `skill_heads`; what is not known is absent.
macro_rules! skill_meta {
    () => {
        "jsonb_build_object('name', h.skill_name, 'version', h.current_version, 'content_hash', h.body_etag, \
             'status', initcap(h.status COLLATE \"C\"), 'created_at', floor(extract(epoch FROM h.created_at))::bigint, \
             'updated_at', floor(extract(epoch FROM h.updated_at))::bigint) \
         || CASE WHEN h.description = '' THEN '{}' ELSE jsonb_build_object('description', h.description) END \
         || coalesce((SELECT jsonb_build_object('status_changed_at', floor(extract(epoch FROM max(x.changed_at)))::bigint) \
                      FROM skill_system.skill_history x WHERE x.tenant_id = h.tenant_id AND x.skill_id = h.id \
                          AND x.version_id = h.current_version_id AND x.action IN ('registered', 'status', 'current') HAVING count(*) > 0), '{}') \
         || CASE WHEN jsonb_typeof(h.metadata->'author') = 'string' THEN jsonb_build_object('author', h.metadata->'author') ELSE '{}' END \
         || CASE WHEN jsonb_typeof(h.metadata) <> 'object' OR h.metadata = '{}' THEN '{}' ELSE jsonb_build_object('metadata_bag', h.metadata) END"
    };
}

/// VersionInfos of a skill, in the contract's order: by the second of the last change, then as they came.
const VERSIONS: &str = "SELECT coalesce(jsonb_agg(i.info ORDER BY i.changed_at, i.revision), '[]') FROM (\
     SELECT v.revision, x.changed_at, jsonb_build_object('name', $1::text, 'version', v.version, 'content_hash', v.content_hash, \
         'status', initcap(v.status COLLATE \"C\"), 'changed_at', x.changed_at, 'changed_by', x.changed_by) \
         || CASE WHEN x.previous IS NULL THEN '{}' ELSE jsonb_build_object('previous_status', initcap(x.previous COLLATE \"C\")) END AS info \
     FROM skill_system.skill_versions v JOIN (\
         SELECT y.version_id, floor(extract(epoch FROM max(y.changed_at)))::bigint AS changed_at, \
             (array_agg(y.changed_by ORDER BY y.revision DESC))[1] AS changed_by, \
             (array_agg(y.previous_status ORDER BY y.revision DESC) FILTER (WHERE y.previous_status IS NOT NULL))[1] AS previous \
         FROM skill_system.skill_history y WHERE y.tenant_id = skill_system.current_tenant() AND y.skill_id = $2 \
             AND y.action IN ('registered', 'status', 'current', 'changed') AND ($3 IS NULL OR y.version_id = $3) GROUP BY y.version_id) x \
     ON x.version_id = v.id \
     WHERE v.tenant_id = skill_system.current_tenant() AND v.skill_id = $2) i";

/// The argument `namespace`.
fn space(call: &Call, n: usize) -> Result<&str, Fault> {
    namespace(Some(call.text(n).unwrap_or(NAMESPACE)))
}

/// The contract's error classes, so that an adapter can tell which one to raise.
fn as_contract<T>(name: &str, result: Result<T, Fault>) -> Result<T, Fault> {
    result.map_err(|fault| {
        let class = match fault.code {
            Code::SkillNotFound => "SkillNotFoundError",
            Code::VersionNotFound => "VersionNotFoundError",
            Code::SkillConflict => "StorageConflictError",
            Code::ApprovalRejected => "ApprovalRejectedError",
            _ => return fault,
        };
        let mut detail = json!({"error": class, "connector_type": "skill_store", "implementation": IMPLEMENTATION, "name": shorten(name)});
        if let Some(reason) = &fault.detail {
            detail["reason"] = reason.as_str().into();
        }
        fault.detail(detail.to_string())
    })
}

/// The one jsonb value of a query, as it is.
fn one_jsonb(call: &Call, sql: &'static str, args: &[Arg]) -> Answer {
    let mut found = None;
    compat::run(sql, As::Caller, See::Statement, args, |row| found = row.bytes(1).map(<[u8]>::to_vec));
    found.map_or_else(|| Ok(call.null()), |bytes| jsonb_root(&bytes))
}

fn answer(call: &Call, value: Value) -> Answer {
    Ok(jsonb_datum(value).unwrap_or_else(|| call.null()))
}

/// Who signed the approval that a body carries.
fn approver(body: &str) -> Result<String, Refusal> {
    let signature = logic::signature(body)?;
    let any = "SELECT EXISTS (SELECT FROM skill_system.skill_approvers WHERE tenant_id = skill_system.current_tenant() AND revoked_at IS NULL)";
    approval::signer(logic::canonical(body).as_bytes(), &signature).ok_or_else(|| {
        match spi::one::<bool>(any, As::Owner, See::OwnWrites, &[]) {
            Some(true) => Refusal::Signature,
            _ => Refusal::NoApprover,
        }
    })
}

/// What the history keeps of an approval by signature.
fn approved_with(key_id: &str, body: &str) -> Option<String> {
    logic::header(body).and_then(|header| header.token).map(|token| format!("{key_id} {token}"))
}

/// The VersionInfo of a change that was just made.
fn version_info(state: &State, previous: Option<Status>) -> Value {
    let args = [arg(state.skill_name.as_str()), arg(state.skill_id), arg(state.version_id)];
    let mut info = spi::one::<pgrx::JsonB>(VERSIONS, As::Owner, See::OwnWrites, &args)
        .map(|mut list| list.0[0].take())
        .unwrap_or_default();
    if let Some(members) = info.as_object_mut() {
        members.remove("previous_status");
        if let Some(previous) = previous {
            members.insert("previous_status".into(), logic::status_name(previous).into());
        }
    }
    info
}

fn name_of(call: &Call) -> Result<&str, Fault> {
    call.text(0).ok_or_else(|| missing("name"))
}

fn found(call: &Call, n: usize) -> Result<Head, Fault> {
    let name = name_of(call)?;
    as_contract(name, registry::find(Reference::Name(space(call, n)?, name)))
}

pg_function!(skill_store_load);
/// `skill_store_load(name, version, namespace)`
fn skill_store_load(call: &Call) -> Answer {
    let head = found(call, 2)?;
    let version = match call.text(1) {
        Some(version) => as_contract(&head.skill_name, registry::version(&head, Some(version), As::Caller, See::Statement))?.id,
        None => head.current_version_id,
    };
    one_jsonb(
        call,
        concat!(
            "SELECT jsonb_build_object('name', h.skill_name, 'version', v.version, 'content_hash', v.content_hash, 'source', v.body, 'metadata', ",
            skill_meta!(),
            ") FROM skill_system.skill_heads h, skill_system.skill_versions v \
             WHERE h.tenant_id = skill_system.current_tenant() AND h.id = $1 AND v.tenant_id = h.tenant_id AND v.id = $2"
        ),
        &[arg(head.id), arg(version)],
    )
}

pg_function!(skill_store_metadata);
/// `skill_store_metadata(name, namespace)`
fn skill_store_metadata(call: &Call) -> Answer {
    let head = found(call, 1)?;
    let sql = concat!(
        "SELECT ",
        skill_meta!(),
        " FROM skill_system.skill_heads h WHERE h.tenant_id = skill_system.current_tenant() AND h.id = $1"
    );
    one_jsonb(call, sql, &[arg(head.id)])
}

pg_function!(skill_store_versions);
/// `skill_store_versions(name, namespace)`
fn skill_store_versions(call: &Call) -> Answer {
    let head = found(call, 1)?;
    one_jsonb(call, VERSIONS, &[arg(head.skill_name.as_str()), arg(head.id), arg(None::<Uuid>)])
}

/// Conditions of a filter: $1 namespace, $2 statuses, $3 author, $4 since, $5 tags.
macro_rules! matching {
    () => {
        "FROM skill_system.skill_heads h WHERE h.tenant_id = (SELECT skill_system.current_tenant()) AND h.namespace = $1 AND h.deleted_at IS NULL \
             AND ($2 IS NULL OR h.status = ANY ($2)) \
             AND ($3 IS NULL OR jsonb_typeof(h.metadata->'author') = 'string' AND h.metadata->>'author' = $3) \
             AND ($4 IS NULL OR floor(extract(epoch FROM h.updated_at)) >= $4) \
             AND (cardinality($5) = 0 OR jsonb_typeof(h.metadata->'tags') IN ('array', 'string') AND h.metadata->'tags' ?& $5) \
         ORDER BY h.skill_name"
    };
}

pg_function!(skill_store_query);
/// `skill_store_query(filter, namespace)`
fn skill_store_query(call: &Call) -> Answer {
    let filter = Filter::parse(json_argument(call, 0, "filter")?.as_ref())?;
    let list = |list: &[String]| given(arg(list), pg_sys::TEXTARRAYOID);
    let mut args = vec![
        arg(space(call, 1)?),
        filter.statuses.as_deref().map_or_else(|| given(None, pg_sys::TEXTARRAYOID), list),
        arg(filter.author.as_deref()),
        arg(filter.since),
        list(&filter.tags),
    ];
    let Some(pattern) = &filter.pattern else {
        args.extend([arg(filter.limit), arg(filter.offset)]);
        let sql = concat!(
            "SELECT coalesce(jsonb_agg(",
            skill_meta!(),
            " ORDER BY h.skill_name), '[]') FROM (SELECT * ",
            matching!(),
            " LIMIT $6 OFFSET $7) h"
        );
        return one_jsonb(call, sql, &args);
    };
    // The pattern counts before limit and offset do.
    let (mut ids, mut skip) = (Vec::<Uuid>::new(), filter.offset);
    let wanted = filter.limit.unwrap_or(i64::MAX);
    spi::stream(concat!("SELECT h.id, h.skill_name ", matching!()), &args, |row| {
        if (ids.len() as i64) < wanted && row.text(2).is_some_and(|name| pattern.is_match(name)) {
            if skip > 0 {
                skip -= 1;
            } else {
                ids.extend(row.get::<Option<Uuid>>(1));
            }
        }
    });
    let sql = concat!(
        "SELECT coalesce(jsonb_agg(",
        skill_meta!(),
        " ORDER BY h.skill_name), '[]') FROM skill_system.skill_heads h \
         WHERE h.tenant_id = skill_system.current_tenant() AND h.id = ANY ($1)"
    );
    one_jsonb(call, sql, &[arg(ids)])
}

pg_function!(skill_store_store);
/// `skill_store_store(name, source, metadata, namespace)`
fn skill_store_store(call: &Call) -> Answer {
    let name = name_of(call)?;
    let source = call.text(1).ok_or_else(|| missing("source"))?;
    let metadata = Metadata::parse(json_argument(call, 2, "metadata")?.as_ref())?;
    let namespace = space(call, 3)?;
    let storable = storable(name).map_err(|fault| Fault { code: Code::SkillConflict, ..fault });
    as_contract(name, storable)?;
    let may_approve = approval::may_approve();
    if !may_approve {
        registry::lock_namespace(namespace);
        if registry::find_now(Reference::Name(namespace, name)).is_some_and(|head| is_document(&head)) {
            return as_contract(name, Err(refuse_document(name)));
        }
    }
    let signed = approver(source).ok();
    let decision = logic::decide(source, metadata.status, signed.is_some(), settings::signed_approvals(), may_approve);
    let about = SkillMetadata {
        description: metadata.description(&decision.body),
        domain_tags: metadata.tags(&decision.body),
        metadata: Value::Object(metadata.bag),
        ..SkillMetadata::default()
    };
    let new = NewVersion {
        namespace,
        skill_name: name,
        body: &decision.body,
        files: &[],
        semver: None,
        about,
        frontmatter: None,
        manifest: None,
        status: Some(decision.status),
        previous_status: None,
        placement: Placement::Always,
    };
    let caller = Change::by_caller();
    let change = Change {
        by: metadata.author.unwrap_or(caller.by),
        approved_with: signed
            .filter(|_| decision.status == Status::Approved)
            .and_then(|key_id| approved_with(&key_id, source)),
        ..caller
    };
    let state = as_contract(name, registry::register(&new, &change))?;
    answer(call, version_info(&state, None))
}

pg_function!(skill_store_update_status);
/// `skill_store_update_status(name, status, namespace)`
fn skill_store_update_status(call: &Call) -> Answer {
    let name = name_of(call)?;
    let status = logic::parse_status(call.text(1))?;
    let namespace = space(call, 2)?;
    as_contract(name, change_status(namespace, name, status)).and_then(|info| answer(call, info))
}

/// The version that is served is a SKILL.md or has files: it came by another face, and its status is not in its body.
fn is_document(head: &Head) -> bool {
    let sql = "SELECT frontmatter IS NOT NULL OR digest <> content_hash FROM skill_system.skill_versions \
               WHERE tenant_id = skill_system.current_tenant() AND id = $1";
    spi::one::<bool>(sql, As::Owner, See::OwnWrites, &[arg(head.current_version_id)]) == Some(true)
}

/// Who may not approve cannot take a skill of another face out of service by this one.
fn refuse_document(name: &str) -> Fault {
    Fault::new(
        Code::SkillConflict,
        format!("skill \"{}\" is a SKILL.md or has files, and the caller may not approve", shorten(name)),
    )
    .hint("register_skill() registers a new version of it.")
}

fn change_status(namespace: &str, name: &str, status: Status) -> Result<Value, Fault> {
    let mut head = registry::locked(Reference::Name(namespace, name))?;
    let previous = head.status;
    let current = registry::version(&head, Some(&head.current_version), As::Owner, See::OwnWrites)?;
    let body =
        "SELECT body FROM skill_system.skill_versions WHERE tenant_id = skill_system.current_tenant() AND id = $1";
    let body = spi::one::<String>(body, As::Owner, See::OwnWrites, &[arg(current.id)]).unwrap_or_default();
    let (is_document, may_approve) = (is_document(&head), approval::may_approve());
    if is_document && !may_approve {
        return Err(refuse_document(name));
    }
    let mut change = Change::by_caller();
    let mut keep = false;
    if status == Status::Approved {
        if !may_approve {
            return Err(rejected(format!("the caller may not approve skill \"{}\"", shorten(name)))
                .detail("A member of skill_system_reviewer or skill_system_admin approves."));
        }
        match approver(&body) {
            // What was signed keeps its signature.
            Ok(key_id) => (change.approved_with, keep) = (approved_with(&key_id, &body), true),
            Err(refusal) if settings::signed_approvals() => {
                let hint = if is_document {
                    "Approve it with set_skill_status() and a signature over skill_approval_text(); skill_system.signed_approvals is on."
                } else {
                    "Store the body with \"# Status: Approved v3:\" and the signature of a registered approver; skill_system.signed_approvals is on."
                };
                return Err(rejected(format!("skill \"{}\" carries no valid approval", shorten(name)))
                    .detail(refusal.to_string())
                    .hint(hint));
            }
            Err(_) => {}
        }
    }
    // The status of a SKILL.md or of a bundle is not in its body.
    if is_document {
        let state = registry::set_status(&mut head, &current, status, &change);
        return Ok(version_info(&state, Some(previous)));
    }
    let new = NewVersion {
        namespace,
        skill_name: name,
        body: &if keep { body } else { logic::with_status(&body, status) },
        files: &[],
        semver: current.semver,
        about: registry::metadata_of(&head),
        frontmatter: None,
        manifest: None,
        status: Some(status),
        previous_status: Some(previous),
        placement: Placement::Always,
    };
    let state = registry::register(&new, &change)?;
    Ok(version_info(&state, Some(previous)))
}

pg_function!(skill_store_delete);
/// `skill_store_delete(name, namespace)`
fn skill_store_delete(call: &Call) -> Answer {
    let name = name_of(call)?;
    let mut head = as_contract(name, registry::locked(Reference::Name(space(call, 1)?, name)))?;
    registry::purge(
        &mut head,
        &Change { reason: Some("removed with all versions by skill_store_delete()".into()), ..Change::by_caller() },
    );
    Ok(pg_sys::Datum::from(0))
}

/// Which row of `skill_namespaces` a token is of. The row's xmin tells apart two changes with one revision: the other one
/// was rolled back.
#[derive(PartialEq, Eq)]
struct Key {
    table: Oid,
    tenant: String,
    namespace: String,
    revision: i64,
    xmin: String,
}

const MAX_TOKENS: usize = 64;

thread_local! {
    /// Tokens of this session, the latest last, one for each tenant and namespace.
    static TOKENS: RefCell<Vec<(Key, String)>> = const { RefCell::new(Vec::new()) };
}

pg_function!(skill_store_version);
/// `skill_store_version(namespace)`
fn skill_store_version(call: &Call) -> Answer {
    let namespace = space(call, 0)?;
    let mut key = None;
    compat::run(
        "SELECT revision, xmin::text FROM skill_system.skill_namespaces WHERE tenant_id = skill_system.current_tenant() AND namespace = $1",
        As::Caller, See::Statement,
        &[arg(namespace)],
        |row| {
            key = row.get::<Option<_>>(1).zip(row.get(2)).map(|(revision, xmin)| Key {
                table: sys::relation(c"skill_namespaces"),
                tenant: settings::tenant(),
                namespace: namespace.to_owned(),
                revision,
                xmin,
            });
        },
    );
    let text = |token: &str| Ok(arg(token).unwrap_or_else(|| call.null()));
    let Some(key) = key else {
        return text(&Token::default().finish());
    };
    if let Some(token) =
        TOKENS.with_borrow(|tokens| tokens.iter().find(|(known, _)| *known == key).map(|(_, token)| token.clone()))
    {
        return text(&token);
    }
    let mut token = Token::default();
    // With the same snapshot as above.
    spi::stream(
        "SELECT skill_name, status, current_version FROM skill_system.skill_heads \
         WHERE tenant_id = (SELECT skill_system.current_tenant()) AND namespace = $1 AND deleted_at IS NULL ORDER BY skill_name",
        &[arg(namespace)],
        |row| {
            if let (Some(name), Some(status), Some(version)) =
                (row.text(1), row.text(2).and_then(Status::parse), row.text(3))
            {
                token.add(name, status, version);
            }
        },
    );
    let token = token.finish();
    // A transaction that writes may be in the middle of a change.
    if sys::top_transaction_id_if_any().is_none() {
        TOKENS.with_borrow_mut(|tokens| {
            tokens.retain(|(known, _)| {
                (known.table, &known.tenant, &known.namespace) != (key.table, &key.tenant, &key.namespace)
            });
            if tokens.len() == MAX_TOKENS {
                tokens.remove(0);
            }
            tokens.push((key, token.clone()));
        });
    }
    text(&token)
}
