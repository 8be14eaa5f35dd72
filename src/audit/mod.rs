//! The audit trail: signing at insert, appending, protecting tables, verifying.

pub mod denial;
pub mod guard;
pub mod protection;

use std::cell::{Cell, RefCell};

use pgrx::datum::IntoDatum;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;
use skill_core::audit::{Record, check_claims, damaged_leaf_hash, leaf_hash, sign, verify};
use skill_core::jsonb;
use skill_core::ledger::tree::{self, Hash};
use skill_core::{Code, Fault};

use crate::pg::audit_table::{AuditRow, Column, Inserter};
use crate::pg::cache::Opened;
use crate::pg::call::{Answer, Call, bytea_datum, text_datum};
use crate::pg::error::{OrRaise, raise};
use crate::pg::spi::{self, Access, arg};
use crate::pg::trigger::{Event, Trigger};
use crate::pg::{cache, capture, guc, keys, sys, worker};
use crate::{ledger, pg_function};

thread_local! {
    static LOG_ID: Cell<Option<[u8; 16]>> = const { Cell::new(None) };
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// Signs instead of the active key.
    static SIGNER: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What tells this log from any other; part of the signed bytes.
fn log_id() -> Option<[u8; 16]> {
    if let Some(id) = LOG_ID.get().filter(|_| cache::identity_valid()) {
        return Some(id);
    }
    cache::watch_identity();
    let id = spi::as_owner(|| {
        spi::one::<pgrx::Uuid>("SELECT log_id FROM skill_system.audit_state", Access::ReadLatest, &[])
    })
    .map(|id| *id.as_bytes());
    LOG_ID.set(id);
    id
}

/// Something has been recorded here, now or before a restore.
pub fn has_identity() -> bool {
    log_id().is_some()
}

/// The identity, made now if this is the first record, together with the keyring.
fn log_id_or_new() -> Result<[u8; 16], Fault> {
    if let Some(id) = log_id() {
        return Ok(id);
    }
    // One first writer; the others wait for its commit and then read what it made.
    let state = sys::relation(c"audit_state");
    sys::lock_writers_out(state);
    if let Some(id) = log_id() {
        // Kept to the end of what may be a long transaction, it would hold up the others that wait.
        sys::let_writers_in(state);
        return Ok(id);
    }
    if !keys::exists() {
        keys::create()?;
    }
    let id = sys::new_uuid_v7();
    spi::as_owner(|| {
        let uuid = pgrx::Uuid::from_bytes(id);
        spi::run("INSERT INTO skill_system.audit_state (log_id) VALUES ($1)", Access::Write, &[arg(uuid)], |_| ());
    });
    LOG_ID.set(Some(id));
    Ok(id)
}

fn finite(timestamp: Option<i64>, column: &str) -> Result<i64, Fault> {
    timestamp.and_then(sys::unix_micros).ok_or_else(|| {
        Fault::new(Code::InvalidParameterValue, format!("{column} of an audit record must be a finite time"))
    })
}

pg_function!(pg_finfo_skill_audit_sign, skill_audit_sign, sign_row);
/// BEFORE INSERT on every partition: sets what the server knows better than the caller, and signs.
fn sign_row(call: &Call) -> Answer {
    let trigger = Trigger::new(call);
    worker::wrote();
    let relation = trigger.relation();
    let mut row = AuditRow::from_tuple(trigger.new_row(), relation)?;
    // A restored row brings its signature. Only the owner may give one, and whether
    // it is true is for verification to say.
    if row.text(Column::Signature).is_some() && sys::has_rights_of(sys::owner()) {
        return Ok(trigger.proceed());
    }
    let tenant_id = row.text(Column::TenantId).unwrap_or_default();
    if !guc::is_tenant(tenant_id) && !sys::has_rights_of(sys::owner()) {
        return Err(Fault::new(Code::InsufficientPrivilege, "an audit record belongs to the tenant of its session")
            .hint("Leave tenant_id out."));
    }
    let log_id = log_id_or_new()?;
    let ring = keys::keyring()?;
    let signer = SIGNER.with_borrow(|id| id.as_deref().map_or(Some(ring.active()), |id| ring.get(id)));
    let key = signer.ok_or_else(|| {
        Fault::new(Code::ConfigFileError, "the keyring has just lost the key that announces the new one")
    })?;
    let event_type = row.text(Column::EventType).unwrap_or_default();
    check_claims(event_type, row.text(Column::ActorId), row.text(Column::ActorType))?;
    if event_type.starts_with(OWN) && !cache::opened(Opened::OwnRecord) {
        return Err(Fault::new(
            Code::InsufficientPrivilege,
            format!("event types that begin with \"{OWN}\" are for records of the log about itself"),
        )
        .hint("Choose another event_type."));
    }
    let Some(event_data) = row.event_data() else {
        return Err(Fault::new(Code::InvalidParameterValue, "event_data of an audit record must not be NULL"));
    };
    let now = sys::clock_timestamp();
    let recorded_at = finite(Some(now), "recorded_at")?;
    let id = sys::uuid_v7(recorded_at);
    let transaction_id = sys::top_transaction_id();
    let (session, current) = (sys::authenticated_user(), sys::current_user());
    let session_name = sys::role_name(session);
    let current_name = if current == session { session_name } else { sys::role_name(current) };
    let signature = BUFFER.with_borrow_mut(|buffer| -> Result<_, Fault> {
        buffer.clear();
        Record {
            id: &id,
            tenant_id,
            event_type,
            actor_id: row.text(Column::ActorId),
            actor_type: row.text(Column::ActorType),
            created_at: finite(row.timestamp(Column::CreatedAt), "created_at")?,
            recorded_at,
            transaction_id,
            session_user: session_name,
            current_user: current_name,
            key_id: &key.id,
        }
        .encode(buffer, &log_id, |writer| jsonb::encode_into(event_data, writer))?;
        let mut signature = Vec::with_capacity(160);
        sign(key, buffer, &mut signature);
        Ok(text_datum(std::str::from_utf8(&signature).unwrap_or_default()))
    })?;
    row.set(Column::Id, pgrx::Uuid::from_bytes(id).into_datum());
    row.set(Column::Signature, signature);
    row.set(Column::RecordedAt, Some(pg_sys::Datum::from(now)));
    row.set(Column::TransactionId, Some(pg_sys::Datum::from(transaction_id as i64)));
    row.set(Column::SessionUser, text_datum(session_name));
    row.set(Column::CurrentUser, text_datum(current_name));
    row.set(Column::KeyId, text_datum(&key.id));
    Ok(pg_sys::Datum::from(row.into_tuple(relation)))
}

pg_function!(pg_finfo_skill_refuse_change, skill_refuse_change, refuse_change);
/// UPDATE, DELETE and TRUNCATE on append-only tables.
fn refuse_change(call: &Call) -> Answer {
    let trigger = Trigger::new(call);
    let verb = match trigger.event() {
        Event::Update => "UPDATE",
        Event::Delete => "DELETE",
        Event::Truncate => "TRUNCATE",
        Event::Insert => return Ok(trigger.proceed()),
    };
    let opened = match trigger.event() {
        Event::Delete => cache::opened(Opened::Retention),
        Event::Update => cache::opened(Opened::Sealing),
        _ => false,
    };
    if opened {
        return Ok(trigger.proceed());
    }
    Err(Fault::new(
        Code::NotInPrerequisiteState,
        format!("{} is append-only: {verb} is refused", trigger.relation_name()),
    )
    .detail("Rows can be added, never changed or removed.")
    .hint("Record a correction as a new row."))
}

/// Appends a record for the current tenant on behalf of the current user.
pub fn append(event_type: &str, event_data: serde_json::Value, actor_id: Option<&str>, actor_type: Option<&str>) {
    append_for(&guc::tenant(), event_type, pgrx::JsonB(event_data).into_datum(), actor_id, actor_type);
}

/// Event types of the log's own records begin so.
const OWN: &str = "audit.";

/// Runs `body` with its records signed by this key of the keyring.
pub fn signing_with<T>(key_id: &str, body: impl FnOnce() -> T) -> T {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            SIGNER.set(None);
        }
    }
    SIGNER.set(Some(key_id.to_owned()));
    let _reset = Reset;
    body()
}

/// Appends a record of the log about itself, for the default tenant.
pub fn append_system(event_type: &str, event_data: serde_json::Value) -> [u8; 16] {
    let data = pgrx::JsonB(event_data).into_datum();
    // With the rights of the owner, because it belongs to no tenant.
    spi::as_owner(|| {
        cache::opening(Opened::OwnRecord, || {
            append_for(guc::DEFAULT_TENANT, event_type, data, Some("skill_system"), Some("system"))
        })
    })
}

/// Appends a record for a tenant. `event_data` is a jsonb datum.
pub fn append_for(
    tenant: &str,
    event_type: &str,
    event_data: Option<pg_sys::Datum>,
    actor_id: Option<&str>,
    actor_type: Option<&str>,
) -> [u8; 16] {
    let now = sys::transaction_timestamp();
    Inserter::open(now).insert(&claims(tenant, event_type, event_data, actor_id, actor_type, now))
}

/// Appends several records of one kind for the current tenant.
pub fn append_all(
    event_type: &str,
    events: impl Iterator<Item = serde_json::Value>,
    actor_id: Option<&str>,
    actor_type: Option<&str>,
) {
    let (tenant, now) = (guc::tenant(), sys::transaction_timestamp());
    let inserter = Inserter::open(now);
    for event in events {
        inserter.insert(&claims(&tenant, event_type, pgrx::JsonB(event).into_datum(), actor_id, actor_type, now));
    }
}

/// A row as its writer claims it; the signing trigger adds the rest.
fn claims(
    tenant: &str,
    event_type: &str,
    event_data: Option<pg_sys::Datum>,
    actor_id: Option<&str>,
    actor_type: Option<&str>,
    created_at: i64,
) -> AuditRow {
    let mut row = AuditRow::new();
    row.set(Column::TenantId, text_datum(tenant));
    row.set(Column::EventType, text_datum(event_type));
    row.set(Column::EventData, event_data);
    row.set(Column::ActorId, actor_id.and_then(text_datum));
    row.set(Column::ActorType, actor_type.and_then(text_datum));
    row.set(Column::CreatedAt, Some(pg_sys::Datum::from(created_at)));
    row
}

/// A column without which there is no record.
pub fn missing(column: &str) -> Fault {
    Fault::new(Code::InvalidParameterValue, format!("{column} of an audit record must not be NULL"))
}

pg_function!(pg_finfo_skill_append_audit, skill_append_audit, append_audit);
/// `append_audit(event_type, event_data, actor_id, actor_type)` → id of the record.
fn append_audit(call: &Call) -> Answer {
    let event_type = call.text(0).ok_or_else(|| missing("event_type"))?;
    let event_data = call.datum(1).ok_or_else(|| missing("event_data"))?;
    let id = append_for(&guc::tenant(), event_type, Some(event_data), call.text(2), call.text(3));
    Ok(pgrx::Uuid::from_bytes(id).into_datum().unwrap_or_else(|| call.null()))
}

pg_function!(pg_finfo_skill_audit_problem, skill_audit_problem, audit_problem);
/// What is wrong with one row, given all its columns and the log's id; NULL when nothing is.
fn audit_problem(call: &Call) -> Answer {
    let Some(log_id) = call.get::<pgrx::Uuid>(0) else {
        return Ok(call.null());
    };
    let problem = match judge(call, log_id.as_bytes())? {
        Ok(()) => return Ok(call.null()),
        Err(code) => code,
    };
    Ok(text_datum(problem).unwrap_or_else(|| call.null()))
}

/// The values of a record as `audit_problem` and `audit_leaf_hash` get them; `None` where the table's NOT NULL is broken.
struct Values<'c> {
    record: Record<'c>,
    event_data: &'c [u8],
    signature: &'c str,
}

impl<'c> Values<'c> {
    fn of(call: &'c Call, id: &'c [u8; 16]) -> Option<Self> {
        let time = |n| call.datum(n).and_then(|datum| sys::unix_micros(datum.value() as i64));
        let record = Record {
            id,
            tenant_id: call.text(2)?,
            event_type: call.text(3)?,
            actor_id: call.text(5),
            actor_type: call.text(6),
            created_at: time(7)?,
            recorded_at: time(8)?,
            transaction_id: call.get::<i64>(9)? as u64,
            session_user: call.text(10)?,
            current_user: call.text(11)?,
            key_id: call.text(12)?,
        };
        Some(Values { record, event_data: call.jsonb(4)?, signature: call.text(13)? })
    }

    /// The signed bytes. The table cannot hold what could not be signed, so an error means damage.
    fn encode(&self, out: &mut Vec<u8>, log_id: &[u8; 16]) -> Result<(), Fault> {
        out.clear();
        self.record.encode::<Fault>(out, log_id, |writer| Ok(jsonb::encode_into(self.event_data, writer)?))
    }
}

fn judge(call: &Call, log_id: &[u8; 16]) -> Result<Result<(), &'static str>, Fault> {
    let id = call.get::<pgrx::Uuid>(1);
    let Some(values) = id.as_ref().and_then(|id| Values::of(call, id.as_bytes())) else {
        return Ok(Err("value_missing"));
    };
    let ring = keys::keyring()?;
    Ok(BUFFER.with_borrow_mut(|buffer| match values.encode(buffer, log_id) {
        Err(_) => Err("event_data_damaged"),
        Ok(()) => verify(&ring, values.record.key_id, values.signature, buffer).map_err(|problem| problem.code()),
    }))
}

pg_function!(pg_finfo_skill_audit_leaf_hash, skill_audit_leaf_hash, audit_leaf_hash);
/// The leaf hash of one row, given all its columns and the log's id.
fn audit_leaf_hash(call: &Call) -> Answer {
    let (Some(log_id), Some(id)) = (call.get::<pgrx::Uuid>(0), call.get::<pgrx::Uuid>(1)) else {
        return Ok(call.null());
    };
    let hash = BUFFER.with_borrow_mut(|buffer| {
        match Values::of(call, id.as_bytes()).filter(|values| values.encode(buffer, log_id.as_bytes()).is_ok()) {
            Some(values) => leaf_hash(buffer, values.signature),
            // Even a damaged record has its leaf, so that it cannot hold up those after it.
            None => damaged_leaf_hash(log_id.as_bytes(), id.as_bytes()),
        }
    });
    Ok(bytea_datum(&hash))
}

pg_function!(pg_finfo_skill_audit_record_digest, skill_audit_record_digest, audit_record_digest);
/// A number that stands for one record and its leaf in the sums of a verification; NULL when the signature is wrong.
fn audit_record_digest(call: &Call) -> Answer {
    let (Some(log_id), Some(id)) = (call.get::<pgrx::Uuid>(0), call.get::<pgrx::Uuid>(1)) else {
        return Ok(call.null());
    };
    // The nonce is new for each verification, so nobody can have chosen records that cancel out.
    let (Some(nonce), Some(values)) = (call.bytes(14), Values::of(call, id.as_bytes())) else {
        return Ok(call.null());
    };
    let ring = keys::keyring()?;
    crate::ledger::count_record();
    let digest = BUFFER.with_borrow_mut(|buffer| {
        values.encode(buffer, log_id.as_bytes()).ok()?;
        verify(&ring, values.record.key_id, values.signature, buffer).ok()?;
        Some(leaf_digest(nonce, id.as_bytes(), &leaf_hash(buffer, values.signature)))
    });
    Ok(digest.and_then(IntoDatum::into_datum).unwrap_or_else(|| call.null()))
}

/// What [`audit_record_digest`] gives for a true record, from its leaf.
pub fn leaf_digest(nonce: &[u8], id: &[u8; 16], leaf: &Hash) -> i64 {
    let hash = tree::leaf_hash_of(&[nonce, id, leaf]);
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    i64::from_be_bytes(first)
}

/// A function of a record, called with the columns of a row aliased `a`; `$1` is the log's id.
macro_rules! of_record {
    ($function:literal $(, $more:literal)?) => {
        concat!(
            "skill_system.", $function, "($1, a.id, a.tenant_id, a.event_type::text, a.event_data, a.actor_id::text, a.actor_type::text, \
             a.created_at, a.recorded_at, a.transaction_id, a.session_user_name, a.current_user_name, a.key_id, a.signature::text", $(", ", $more,)? ")"
        )
    };
}

/// What is wrong with a row; NULL when nothing is.
pub const PROBLEM: &str = of_record!("audit_problem");
/// The leaf hash of a row.
pub const LEAF_HASH: &str = of_record!("audit_leaf_hash");
/// What stands for a row in the sums of a verification; `$9` is the nonce.
pub const RECORD_DIGEST: &str = of_record!("audit_record_digest", "$9");

/// In words what `audit_problem()` says.
pub fn explain_problem(code: &str) -> &'static str {
    use skill_core::audit::Problem::{KeyIdDiffers, KeyUnknown, SignatureMalformed, SignatureMismatch};
    [SignatureMalformed, KeyIdDiffers, KeyUnknown, SignatureMismatch]
        .into_iter()
        .find(|problem| problem.code() == code)
        .map_or("a value that every record has is missing or damaged", |problem| problem.explain())
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)] // pgrx wants the columns spelt out here
fn audit_status() -> TableIterator<
    'static,
    (
        name!(key_id, String),
        name!(records, i64),
        name!(first_recorded_at, Option<TimestampWithTimeZone>),
        name!(last_recorded_at, Option<TimestampWithTimeZone>),
        name!(key_present, bool),
        name!(key_active, bool),
    ),
> {
    let ring = keys::keyring().ok();
    let mut rows = Vec::new();
    spi::run(
        "SELECT key_id, count(*), min(recorded_at), max(recorded_at) FROM skill_system.audit_logs GROUP BY key_id ORDER BY min(recorded_at)",
        Access::Read,
        &[],
        |row| {
            let key_id: String = row.get(1).unwrap_or_default();
            let present = ring.as_ref().is_some_and(|ring| ring.get(&key_id).is_some());
            let active = ring.as_ref().is_some_and(|ring| ring.active().id == key_id);
            rows.push((key_id, row.get(2).unwrap_or(0), row.get(3), row.get(4), present, active));
        },
    );
    TableIterator::new(rows)
}

#[pg_extern(sql = false)]
fn create_keyring() {
    if keys::exists() && !ledger::keyring_is_foreign() {
        raise(
            Fault::new(Code::NotInPrerequisiteState, "there is a keyring already")
                .detail("skill_system.keyring_command is set, or skill_system.keyring_file exists.")
                .hint("SELECT * FROM skill_system.health() says whether it can be used; to add a key, edit it."),
        );
    }
    if !keys::exists() {
        keys::create().or_raise();
    }
    ledger::announce_new_keyring().or_raise();
}

/// Locks what a new partition changes; false when others use it.
pub fn partitions_lockable() -> bool {
    sys::try_lock_out(&[sys::relation(c"audit_logs"), sys::relation(c"audit_logs_default")])
}

#[pg_extern(sql = false)]
fn create_audit_partition(month: Option<pgrx::datum::Date>) -> pg_sys::Oid {
    sys::prevent_if_read_only(c"create_audit_partition()");
    let mut answer = (String::new(), String::new(), String::new(), None::<pg_sys::Oid>);
    // Months are months of UTC, so that the bounds do not depend on who makes them.
    spi::run(
        "WITH month AS (SELECT date_trunc('month', coalesce($1::timestamp, (now() AT TIME ZONE 'UTC') + interval '1 month')) AS start), \
              bounds AS (SELECT start AT TIME ZONE 'UTC' AS lower, (start + interval '1 month') AT TIME ZONE 'UTC' AS upper, \
                                'audit_logs_' || to_char(start, 'YYYY_MM') AS name FROM month) \
         SELECT name, to_char(lower AT TIME ZONE 'UTC', 'YYYY-MM-DD') || ' 00:00:00+00', to_char(upper AT TIME ZONE 'UTC', 'YYYY-MM-DD') || ' 00:00:00+00', \
                to_regclass('skill_system.' || quote_ident(name))::oid FROM bounds",
        Access::Write,
        &[arg(month)],
        |row| {
            answer = (
                row.get(1).unwrap_or_default(),
                row.get(2).unwrap_or_default(),
                row.get(3).unwrap_or_default(),
                row.get(4),
            )
        },
    );
    let (name, lower, upper, existing) = answer;
    if let Some(existing) = existing {
        return existing;
    }
    let held = spi::one::<bool>(
        "SELECT EXISTS (SELECT FROM skill_system.audit_logs_default WHERE created_at >= $1::timestamptz AND created_at < $2::timestamptz)",
        Access::Write,
        &[arg(lower.as_str()), arg(upper.as_str())],
    );
    if held == Some(true) {
        raise(
            Fault::new(
                Code::NotInPrerequisiteState,
                format!("audit_logs_default already holds records of the month of {name}"),
            )
            .detail("Records never move, so this month stays in the default partition.")
            .hint("Make later months ahead of time; maintain() does."),
        );
    }
    if !partitions_lockable() {
        raise(
            Fault::new(
                Code::LockNotAvailable,
                format!("{name} cannot be made while other transactions use the audit trail"),
            )
            .detail("Waiting for them would hold up all writers.")
            .hint("Try again when long and prepared transactions have ended; maintain() does."),
        );
    }
    // Everything here is a name or a date made above.
    let statements = [
        format!(
            "CREATE TABLE skill_system.{name} PARTITION OF skill_system.audit_logs FOR VALUES FROM ('{lower}') TO ('{upper}')"
        ),
        format!("ALTER TABLE skill_system.{name} ADD PRIMARY KEY (id, tenant_id)"),
        format!("CREATE INDEX {name}_brin_idx ON skill_system.{name} USING brin (created_at, transaction_id)"),
        format!(
            "CREATE TRIGGER audit_logs_no_truncate BEFORE TRUNCATE ON skill_system.{name} FOR EACH STATEMENT EXECUTE FUNCTION skill_system.refuse_change()"
        ),
        format!("ALTER TABLE skill_system.{name} ENABLE ALWAYS TRIGGER audit_logs_no_truncate"),
        format!("ALTER TABLE skill_system.{name} ENABLE ROW LEVEL SECURITY"),
        format!("CREATE POLICY auditor ON skill_system.{name} FOR SELECT TO skill_system_auditor USING (true)"),
        format!("GRANT SELECT ON skill_system.{name} TO skill_system_auditor"),
        format!(
            "COMMENT ON TABLE skill_system.{name} IS 'Partition of audit_logs for one month of UTC. Made by create_audit_partition().'"
        ),
    ];
    cache::opening(Opened::Definition, || {
        for sql in statements {
            spi::run_once(&sql, Access::Write, &[], |_| ());
        }
    });
    spi::run_once(&format!("SELECT 'skill_system.{name}'::regclass::oid"), Access::Write, &[], |row| {
        answer.3 = row.get(1)
    });
    answer.3.unwrap_or(pg_sys::InvalidOid)
}

/// The table's qualified name, its partitions included, parents first.
fn table_and_partitions(table: Option<pg_sys::Oid>) -> Vec<String> {
    let Some(table) = table else {
        raise(Fault::new(Code::InvalidParameterValue, "the table is NULL"));
    };
    let mut names = Vec::new();
    spi::run(
        "SELECT format('%I.%I', n.nspname, c.relname) FROM (SELECT $1 AS oid, 0 AS level WHERE (SELECT relkind FROM pg_class WHERE oid = $1) = 'r' \
             UNION ALL SELECT relid, level FROM pg_partition_tree($1)) t \
         JOIN pg_class c ON c.oid = t.oid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') \
         GROUP BY 1 ORDER BY min(t.level), 1",
        Access::Read,
        &[arg(table)],
        |row| names.extend(row.get::<String>(1)),
    );
    if names.is_empty() {
        raise(
            Fault::new(Code::InvalidParameterValue, "this is no table").hint("Give an ordinary or partitioned table."),
        );
    }
    names
}

#[pg_extern(sql = false)]
fn make_append_only(table: Option<pg_sys::Oid>) {
    let names = table_and_partitions(table);
    for (i, name) in names.iter().enumerate() {
        // Row triggers are cloned to partitions, statement triggers are not.
        let mut triggers = vec![("skill_system_no_truncate", "BEFORE TRUNCATE", "STATEMENT")];
        if i == 0 {
            triggers.push(("skill_system_no_change", "BEFORE UPDATE OR DELETE", "ROW"));
        }
        for (trigger, when, level) in triggers {
            spi::run_once(
                &format!(
                    "CREATE OR REPLACE TRIGGER {trigger} {when} ON {name} FOR EACH {level} EXECUTE FUNCTION skill_system.refuse_change()"
                ),
                Access::Write,
                &[],
                |_| (),
            );
        }
    }
    for name in &names {
        for trigger in ["skill_system_no_truncate", "skill_system_no_change"] {
            spi::run_once(&format!("ALTER TABLE {name} ENABLE ALWAYS TRIGGER {trigger}"), Access::Write, &[], |_| ());
        }
    }
    append("table.append_only", serde_json::json!({"table": names[0]}), None, None);
}

#[pg_extern(sql = false)]
fn audit_table(table: Option<pg_sys::Oid>, columns: Option<Vec<Option<String>>>, ignored: Option<Vec<Option<String>>>) {
    let names = table_and_partitions(table);
    // Each record would call for another one, without end.
    if names.iter().any(|name| name.starts_with("skill_system.audit_logs")) {
        raise(
            Fault::new(Code::InvalidParameterValue, "the audit trail cannot record its own rows")
                .hint("It is append-only and signed as it is; give a table of yours."),
        );
    }
    let known: Vec<String> = {
        let mut known = Vec::new();
        spi::run(
            "SELECT attname::text FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            Access::Read,
            &[arg(table)],
            |row| known.extend(row.get::<String>(1)),
        );
        known
    };
    let listed =
        |list: &Option<Vec<Option<String>>>| -> Vec<String> { list.iter().flatten().flatten().cloned().collect() };
    let (columns_given, ignored_given) = (listed(&columns), listed(&ignored));
    if let Some(unknown) = columns_given.iter().chain(&ignored_given).find(|column| !known.contains(column)) {
        raise(
            Fault::new(Code::UndefinedObject, format!("column \"{unknown}\" of {} does not exist", names[0]))
                .detail(format!("Its columns are {}.", known.join(", "))),
        );
    }
    let chosen: Vec<&String> = known
        .iter()
        .filter(|column| (columns.is_none() || columns_given.contains(column)) && !ignored_given.contains(column))
        .collect();
    if chosen.is_empty() {
        raise(Fault::new(Code::InvalidParameterValue, "no column is left to audit"));
    }
    // The trigger keeps what is left out, so that columns added later are audited too.
    let arguments: Vec<String> = match columns {
        Some(_) => std::iter::once("only".to_owned()).chain(chosen.iter().map(|c| (*c).clone())).collect(),
        None => std::iter::once("except".to_owned()).chain(ignored_given.clone()).collect(),
    };
    let literals = arguments.iter().map(|text| crate::pg::sys::quote_literal(text)).collect::<Vec<_>>().join(", ");
    spi::run_once(
        &format!(
            "CREATE OR REPLACE TRIGGER skill_system_audit AFTER INSERT OR UPDATE OR DELETE ON {} FOR EACH ROW \
                  EXECUTE FUNCTION skill_system.capture_change({literals})",
            names[0]
        ),
        Access::Write,
        &[],
        |_| (),
    );
    for name in &names {
        spi::run_once(
            &format!(
                "CREATE OR REPLACE TRIGGER skill_system_audit_truncate AFTER TRUNCATE ON {name} FOR EACH STATEMENT \
                      EXECUTE FUNCTION skill_system.capture_change()"
            ),
            Access::Write,
            &[],
            |_| (),
        );
    }
    for name in &names {
        for trigger in ["skill_system_audit", "skill_system_audit_truncate"] {
            spi::run_once(&format!("ALTER TABLE {name} ENABLE ALWAYS TRIGGER {trigger}"), Access::Write, &[], |_| ());
        }
    }
    append("table.audited", serde_json::json!({"table": names[0], "columns": chosen}), None, None);
}

pg_function!(pg_finfo_skill_capture_change, skill_capture_change, capture_change);
/// AFTER INSERT, UPDATE, DELETE for each row and TRUNCATE: the change becomes an audit record.
fn capture_change(call: &Call) -> Answer {
    let trigger = Trigger::new(call);
    let event_type = match trigger.event() {
        Event::Insert => "row.inserted",
        Event::Update => "row.updated",
        Event::Delete => "row.deleted",
        Event::Truncate => "table.truncated",
    };
    capture::with_statement(call, &trigger, |statement| {
        if let Some(change) = statement.change(&trigger)? {
            let now = sys::transaction_timestamp();
            let row = claims(&guc::tenant(), event_type, Some(change), None, None, now);
            statement.inserter(now).insert(&row);
        }
        Ok(trigger.done())
    })
}
