//! The contract of the skillscript SkillStore over the registry.

use std::cell::RefCell;

use const_format::concatcp;
use serde_json::{Value, json};
use skill_core::error::shorten;
use skill_core::skills::Status;
use skill_core::skills::approval::rejected;
use skill_core::skills::metadata::SkillMetadata;
use skill_core::skills::names::{self, Reference, storable};
use skill_core::skills::store::{self as logic, Filter, IMPLEMENTATION, Metadata, NAMESPACE, Refusal, Token};
use skill_core::{Code, Fault};
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Arg, Call, Oid, Uuid, arg, pg_function, sys};

use crate::args::{self, given};
use crate::settings;
use crate::skills::approval;
use crate::skills::content;
use crate::skills::model::{self, Head, State, Version};
use crate::skills::registry::{self, NewVersion, Placement};
use crate::versioned::Change;

/// A SkillMeta from a row `h` of `skill_heads`; what is not known is absent.
const META: &str = include_str!("skill_store_meta.sql");
/// VersionInfos of a skill.
const VERSIONS: &str = include_str!("skill_store_versions.sql");

/// The argument `namespace`.
fn namespace_or_default(namespace: Option<&str>) -> Result<&str, Fault> {
    names::namespace(Some(namespace.unwrap_or(NAMESPACE)))
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
        let mut detail = json!({
            "error": class, "connector_type": "skill_store", "implementation": IMPLEMENTATION, "name": shorten(name),
        });
        if let Some(reason) = &fault.detail {
            detail["reason"] = reason.as_str().into();
        }
        fault.detail(detail.to_string())
    })
}

/// The one jsonb value of a query, as it is.
fn answer_query(call: &Call, sql: &'static str, args: &[Arg]) -> Answer {
    spi::with_rows(sql, As::Caller, See::Statement, args, |rows| {
        Ok(rows.first().map_or_else(|| call.null(), |row| call.answer(row.get::<Arg>(1))))
    })
}

/// The approver whose signature a body carries. Such a signature names neither skill nor tenant, so it counts only where
/// an administrator has said so.
fn approver(namespace: &str, body: &str) -> Result<String, Refusal> {
    let signature = logic::signature(body)?;
    if !model::accepts_store_signatures(namespace) {
        return Err(Refusal::NotAccepted);
    }
    approval::signer(logic::canonical(body).as_bytes(), &signature)
        .ok_or_else(|| if approval::has_approver() { Refusal::Signature } else { Refusal::NoApprover })
}

/// What the history keeps of an approval by signature.
fn approved_with(key_id: &str, body: &str) -> Option<String> {
    logic::header(body).and_then(|header| header.token).map(|token| format!("{key_id} {token}"))
}

/// The VersionInfo of a change that was just made.
fn version_info(state: &State, previous: Option<Status>) -> Result<Value, Fault> {
    const SQL: &str = concatcp!("SELECT (", VERSIONS, ")::text");
    let args = [arg(&state.skill_name), arg(state.skill_id), arg(state.version_id)];
    let mut list: Value = spi::one(SQL, As::Owner, See::OwnWrites, &args);
    let Some(Value::Object(mut info)) = list.get_mut(0).map(Value::take) else {
        return Err(Fault::new(Code::Internal, "the version was not written"));
    };
    info.remove("previous_status");
    if let Some(previous) = previous {
        info.insert("previous_status".into(), logic::status_name(previous).into());
    }
    Ok(info.into())
}

/// The skill that the arguments `name` and `namespace` tell, and its name.
fn find<'c>(name: Option<&'c str>, namespace: Option<&str>) -> Result<(&'c str, Head), Fault> {
    let name = given(name, "name")?;
    let namespace = namespace_or_default(namespace)?;
    Ok((name, as_contract(name, model::find(Reference::Name(namespace, name)))?))
}

pg_function!(skill_store_load);
fn skill_store_load(call: &Call) -> Answer {
    const SQL: &str = concatcp!(
        "SELECT jsonb_build_object('name', h.skill_name, 'version', v.version, 'content_hash', v.content_hash, \
             'source', v.body, 'metadata', ",
        META,
        ") FROM skill_system.skill_heads h, skill_system.skill_versions v \
         WHERE h.tenant_id = skill_system.current_tenant() AND h.id = $1 AND v.tenant_id = h.tenant_id AND v.id = $2"
    );
    let (name, version, namespace) = call.arguments();
    let (name, head) = find(name, namespace)?;
    let version_id = match version {
        Some(version) => as_contract(name, model::version(&head, Some(version), As::Caller, See::Statement))?.id,
        None => head.current_version_id,
    };
    answer_query(call, SQL, &[arg(head.id), arg(version_id)])
}

pg_function!(skill_store_metadata);
fn skill_store_metadata(call: &Call) -> Answer {
    const SQL: &str = concatcp!(
        "SELECT ",
        META,
        " FROM skill_system.skill_heads h WHERE h.tenant_id = skill_system.current_tenant() AND h.id = $1"
    );
    let (name, namespace) = call.arguments();
    let (_, head) = find(name, namespace)?;
    answer_query(call, SQL, &[arg(head.id)])
}

pg_function!(skill_store_versions);
fn skill_store_versions(call: &Call) -> Answer {
    let (name, namespace) = call.arguments();
    let (_, head) = find(name, namespace)?;
    answer_query(call, VERSIONS, &[arg(&head.skill_name), arg(head.id), arg(None::<Uuid>)])
}

/// Conditions of a filter: $1 namespace, $2 statuses, $3 author, $4 since, $5 tags.
const MATCHING: &str = "FROM skill_system.skill_heads h \
     WHERE h.tenant_id = (SELECT skill_system.current_tenant()) AND h.namespace = $1 AND h.deleted_at IS NULL \
         AND ($2 IS NULL OR h.status = ANY ($2)) \
         AND ($3 IS NULL OR jsonb_typeof(h.metadata->'author') = 'string' AND h.metadata->>'author' = $3) \
         AND ($4 IS NULL OR floor(extract(epoch FROM h.updated_at)) >= $4) \
         AND (cardinality($5) = 0 OR jsonb_typeof(h.metadata->'tags') IN ('array', 'string') AND h.metadata->'tags' ?& $5) \
     ORDER BY h.skill_name";
const SELECT_METAS: &str = concatcp!("SELECT coalesce(jsonb_agg(", META, " ORDER BY h.skill_name), '[]') FROM ");

pg_function!(skill_store_query);
fn skill_store_query(call: &Call) -> Answer {
    const PAGE: &str = concatcp!(SELECT_METAS, "(SELECT * ", MATCHING, " LIMIT $6 OFFSET $7) h");
    const NAMES: &str = concatcp!("SELECT h.id, h.skill_name ", MATCHING);
    const BY_ID: &str = concatcp!(
        SELECT_METAS,
        "skill_system.skill_heads h WHERE h.tenant_id = skill_system.current_tenant() AND h.id = ANY ($1)"
    );
    let (filter, namespace) = call.arguments();
    let filter = Filter::parse(args::json(filter, "filter")?.as_ref())?;
    let mut args = vec![
        arg(namespace_or_default(namespace)?),
        arg(filter.statuses.as_deref()),
        arg(filter.author.as_deref()),
        arg(filter.since),
        arg(filter.tags.as_slice()),
    ];
    let Some(pattern) = &filter.pattern else {
        args.extend([arg(filter.limit), arg(filter.offset)]);
        return answer_query(call, PAGE, &args);
    };
    // The pattern counts before limit and offset do.
    let (mut ids, mut skip) = (Vec::<Uuid>::new(), filter.offset);
    let wanted = filter.limit.unwrap_or(i64::MAX);
    spi::stream(NAMES, &args, |row| {
        let (id, name) = row.read();
        if (ids.len() as i64) < wanted && pattern.is_match(name) {
            if skip > 0 {
                skip -= 1;
            } else {
                ids.push(id);
            }
        }
        Ok(())
    })?;
    answer_query(call, BY_ID, &[arg(ids)])
}

pg_function!(skill_store_store);
fn skill_store_store(call: &Call) -> Answer {
    let (name, source, metadata, namespace) = call.arguments();
    let name = given(name, "name")?;
    let source = given(source, "source")?;
    let metadata = Metadata::parse(args::json(metadata, "metadata")?.as_ref())?;
    let namespace = namespace_or_default(namespace)?;
    let storable = storable(name).map_err(|fault| Fault { code: Code::SkillConflict, ..fault });
    as_contract(name, storable)?;
    let may_approve = approval::may_approve();
    let mut placement = Placement::Always;
    if !may_approve {
        model::lock_namespace(namespace)?;
        if let Some(head) = model::find_now(Reference::Name(namespace, name)) {
            if is_document(head.current_version_id) {
                return as_contract(name, Err(refuse_document(name)));
            }
            if !approval::may_change(Some(head.status), Some(Status::Draft)) {
                placement = Placement::WhenServable;
            }
        }
    }
    let signed = approver(namespace, source).ok();
    let decision = logic::decide(source, metadata.status, signed.is_some(), settings::signed_approvals(), may_approve);
    let new = NewVersion {
        namespace,
        skill_name: name,
        body: &decision.body,
        files: &[],
        semver: None,
        metadata: SkillMetadata {
            description: metadata.description(&decision.body),
            domain_tags: metadata.tags(&decision.body),
            metadata: Value::Object(metadata.bag),
            ..SkillMetadata::default()
        },
        frontmatter: None,
        manifest: None,
        status: Some(decision.status),
        previous_status: None,
        placement,
    };
    let caller = Change::by_caller();
    let signed = signed.filter(|_| decision.status == Status::Approved);
    let change = Change {
        changed_by: metadata.author.unwrap_or(caller.changed_by),
        approved_with: signed.and_then(|key_id| approved_with(&key_id, source)),
        ..caller
    };
    let state = as_contract(name, registry::register(&new, &change))?;
    Ok(call.answer(version_info(&state, None)?))
}

pg_function!(skill_store_update_status);
fn skill_store_update_status(call: &Call) -> Answer {
    let (name, status, namespace, version) = call.arguments();
    let name = given(name, "name")?;
    let status = logic::parse_status(status)?;
    let namespace = namespace_or_default(namespace)?;
    Ok(call.answer(as_contract(name, change_status(namespace, name, status, version))?))
}

/// The version is a SKILL.md or has files: another adapter registered it, and its status is not in its body.
fn is_document(version_id: Uuid) -> bool {
    spi::one(
        "SELECT frontmatter IS NOT NULL OR digest <> content_hash FROM skill_system.skill_versions \
         WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Owner,
        See::OwnWrites,
        &[arg(version_id)],
    )
}

/// Callers that may not approve cannot take a skill of another adapter out of service by this one.
fn refuse_document(name: &str) -> Fault {
    Fault::new(
        Code::SkillConflict,
        format!("skill \"{}\" is a SKILL.md or has files, and the caller may not approve", shorten(name)),
    )
    .hint("register_skill() registers a new version of it.")
}

/// Checks an approval. Returns the change that records it, and whether the body keeps the signature that it carries.
fn approve(head: &Head, body: &str, is_document: bool) -> Result<(Change, bool), Fault> {
    let change = Change::by_caller();
    match approver(&head.namespace, body) {
        Ok(key_id) => Ok((Change { approved_with: approved_with(&key_id, body), ..change }, true)),
        Err(refusal) if settings::signed_approvals() => {
            let hint = if is_document || matches!(refusal, Refusal::NotAccepted) {
                "Approve it with set_skill_status() and a signature over skill_approval_text(); \
                 skill_system.signed_approvals is on."
            } else {
                "Store the body with \"# Status: Approved v3:\" and the signature of a registered approver; \
                 skill_system.signed_approvals is on."
            };
            Err(rejected(format!("skill \"{}\" carries no valid approval", shorten(&head.skill_name)))
                .detail(refusal.to_string())
                .hint(hint))
        }
        Err(_) => Ok((change, false)),
    }
}

fn change_status(namespace: &str, name: &str, status: Status, version: Option<&str>) -> Result<Value, Fault> {
    let mut head = model::lock(Reference::Name(namespace, name))?;
    let previous = head.status;
    if !approval::may_change(Some(previous), Some(status)) {
        return Err(refuse_status(name, status));
    }
    if status == Status::Approved && version.is_none() && !settings::single_user_store() {
        let Fault { detail, hint, message, .. } = approval::version_missing();
        return Err(Fault { detail, hint, ..rejected(message) });
    }
    let version = version.unwrap_or(&head.current_version);
    let version = model::version(&head, Some(version), As::Owner, See::OwnWrites)?;
    let body = content::body(&version, As::Owner, See::OwnWrites)?;
    let is_document = is_document(version.id);
    if is_document && !approval::may_approve() {
        return Err(refuse_document(name));
    }
    let (change, keeps_body) = match status {
        Status::Approved => approve(&head, &body, is_document)?,
        Status::Draft | Status::Disabled => (Change::by_caller(), false),
    };
    let is_current = head.current_version_id == version.id;
    // The status of a SKILL.md or of a bundle is not in its body, and a version that is not served does not become so.
    let state = if is_document || !is_current && status != Status::Approved {
        registry::set_status(&mut head, &version, status, &change)?
    } else {
        let body = if keeps_body { body } else { logic::with_status(&body, status) };
        register_status(&head, version, &body, status, &change)?
    };
    version_info(&state, Some(previous))
}

/// The caller may not decide on the skill.
fn refuse_status(name: &str, status: Status) -> Fault {
    let fault = match status {
        Status::Approved => rejected(format!("the caller may not approve skill \"{}\"", shorten(name))),
        Status::Draft | Status::Disabled => Fault::new(
            Code::SkillConflict,
            format!("skill \"{}\" was approved or disabled, and the caller may not approve", shorten(name)),
        ),
    };
    fault.detail("A member of skill_system_reviewer or skill_system_admin decides.")
}

/// Registers the body with its new status in it.
fn register_status(head: &Head, version: Version, body: &str, status: Status, change: &Change) -> Result<State, Fault> {
    let metadata = if head.current_version_id == version.id {
        model::head_metadata(head)
    } else {
        SkillMetadata::from_json(&model::version_metadata(&version))
    };
    let new = NewVersion {
        namespace: &head.namespace,
        skill_name: &head.skill_name,
        body,
        files: &[],
        semver: version.semver,
        metadata,
        frontmatter: None,
        manifest: None,
        status: Some(status),
        previous_status: Some(head.status),
        placement: Placement::Always,
    };
    registry::register(&new, change)
}

pg_function!(skill_store_delete);
fn skill_store_delete(call: &Call) -> Answer {
    let (name, namespace) = call.arguments();
    let name = given(name, "name")?;
    let namespace = namespace_or_default(namespace)?;
    let mut head = as_contract(name, model::lock(Reference::Name(namespace, name)))?;
    registry::purge(&mut head, &Change::for_reason(Some("removed with all versions by skill_store_delete()")))?;
    Ok(call.void())
}

/// Which row of `skill_namespaces` a token is of. The row's xmin tells apart two changes with one revision: the other one
/// was rolled back.
#[derive(PartialEq, Eq)]
struct TokenKey {
    table: Oid,
    tenant: String,
    namespace: String,
    revision: i64,
    xmin: String,
}

const MAX_TOKENS: usize = 64;

thread_local! {
    /// Tokens of this session, the latest last, one for each tenant and namespace.
    static TOKENS: RefCell<Vec<(TokenKey, String)>> = const { RefCell::new(Vec::new()) };
}

pg_function!(skill_store_version);
fn skill_store_version(call: &Call) -> Answer {
    let namespace = namespace_or_default(call.arguments())?;
    let found = spi::first::<(i64, String)>(
        "SELECT revision, xmin::text FROM skill_system.skill_namespaces \
         WHERE tenant_id = skill_system.current_tenant() AND namespace = $1",
        As::Caller,
        See::Statement,
        &[arg(namespace)],
    );
    let Some((revision, xmin)) = found else {
        return Ok(call.answer(Token::default().finish()));
    };
    let key = TokenKey {
        table: sys::relation(c"skill_namespaces"),
        tenant: settings::tenant()?,
        namespace: namespace.to_owned(),
        revision,
        xmin,
    };
    let known =
        TOKENS.with_borrow(|tokens| tokens.iter().find(|(known, _)| *known == key).map(|(_, token)| token.clone()));
    if let Some(token) = known {
        return Ok(call.answer(token));
    }
    // With the same snapshot as above.
    let token = compute_token(namespace)?;
    // A transaction that writes may be in the middle of a change.
    if sys::top_transaction_id_if_any().is_none() {
        remember_token(key, token.clone());
    }
    Ok(call.answer(token))
}

fn compute_token(namespace: &str) -> Result<String, Fault> {
    let mut token = Token::default();
    spi::stream(
        "SELECT skill_name, status, current_version FROM skill_system.skill_heads \
         WHERE tenant_id = (SELECT skill_system.current_tenant()) AND namespace = $1 AND deleted_at IS NULL \
         ORDER BY skill_name",
        &[arg(namespace)],
        |row| {
            let (name, status, version) = row.read();
            if let Some(status) = Status::parse(status) {
                token.add(name, status, version);
            }
            Ok(())
        },
    )?;
    Ok(token.finish())
}

fn remember_token(key: TokenKey, token: String) {
    TOKENS.with_borrow_mut(|tokens| {
        tokens.retain(|(known, _)| {
            (known.table, &known.tenant, &known.namespace) != (key.table, &key.tenant, &key.namespace)
        });
        if tokens.len() == MAX_TOKENS {
            tokens.remove(0);
        }
        tokens.push((key, token));
    });
}
