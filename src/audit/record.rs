//! One record: signed when it is inserted, checked when it is verified.

use const_format::concatcp;
use std::cell::{Cell, RefCell};

use skill_core::audit::keyring::{Keyring, MacKey};
use skill_core::audit::skr1::EncodeError;
use skill_core::audit::{Record, check_claims, damaged_leaf_hash, leaf_hash, sign, verify};
use skill_core::jsonb::{self, JsonbError};
use skill_core::limits::{Bounds, LimitError};
use skill_core::tree::{self, Hash};
use skill_core::{Code, Fault};
use skill_pg::insert::{Columns, Inserter, Refused, TableRow};
use skill_pg::{
    And, Answer, Arg, Call, Event, Jsonb, Timestamptz, Timing, Trigger, UnreadJsonb, Uuid, arg, pg_function, pg_sys,
    progress, sys,
};

use super::bypass::{self, Bypass};
use super::identity::log_id_or_new;
use super::keys;
use crate::module::check_event_type;
use crate::settings;

/// The columns of `audit_logs`, in the order of `sql/audit/audit.sql`.
static COLUMNS: Columns<COUNT> = Columns([
    (c"id", pg_sys::UUIDOID),
    (c"tenant_id", pg_sys::TEXTOID),
    (c"event_type", pg_sys::VARCHAROID),
    (c"event_data", pg_sys::JSONBOID),
    (c"actor_id", pg_sys::VARCHAROID),
    (c"actor_type", pg_sys::VARCHAROID),
    (c"created_at", pg_sys::TIMESTAMPTZOID),
    (c"signature", pg_sys::VARCHAROID),
    (c"recorded_at", pg_sys::TIMESTAMPTZOID),
    (c"transaction_id", pg_sys::INT8OID),
    (c"session_user_name", pg_sys::TEXTOID),
    (c"current_user_name", pg_sys::TEXTOID),
    (c"key_id", pg_sys::TEXTOID),
]);
const COUNT: usize = 13;

// Positions in COLUMNS.
const ID: usize = 0;
const TENANT_ID: usize = 1;
const EVENT_TYPE: usize = 2;
const EVENT_DATA: usize = 3;
const ACTOR_ID: usize = 4;
const ACTOR_TYPE: usize = 5;
const CREATED_AT: usize = 6;
const SIGNATURE: usize = 7;
const RECORDED_AT: usize = 8;
const TRANSACTION_ID: usize = 9;
const SESSION_USER: usize = 10;
const CURRENT_USER: usize = 11;
const KEY_ID: usize = 12;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// Signs instead of the active key.
    static SIGNER: RefCell<Option<String>> = const { RefCell::new(None) };
    static WRITTEN: Cell<bool> = const { Cell::new(false) };
}

/// Memory that is kept for the next record.
const KEPT: usize = 1 << 20;

fn with_buffer<T>(body: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.clear();
        let result = body(buffer);
        if buffer.capacity() > KEPT {
            *buffer = Vec::new();
        }
        result
    })
}

/// A record was written since the last call: what is sealed elsewhere must be sealed here, too, once this transaction
/// commits.
pub fn take_written() -> bool {
    WRITTEN.replace(false)
}

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

fn signing_key<T>(ring: &Keyring, body: impl FnOnce(&MacKey) -> T) -> Result<T, Fault> {
    let key = SIGNER.with_borrow(|id| id.as_deref().map_or(Some(ring.active()), |id| ring.get(id)));
    key.map(body).ok_or_else(|| {
        Fault::new(Code::ConfigFileError, "the signing key disappeared from the keyring during rotation")
    })
}

fn finite(timestamp: Option<Timestamptz>, column: &str) -> Result<i64, Fault> {
    timestamp.and_then(Timestamptz::unix_micros).ok_or_else(|| {
        Fault::new(Code::InvalidParameterValue, format!("{column} of an audit record must be a finite time"))
    })
}

fn other_columns() -> Fault {
    Fault::new(Code::NotInPrerequisiteState, "the columns of the audit table are not those of this version")
        .hint("Update the extension with ALTER EXTENSION skill_system UPDATE, and detach foreign partitions.")
}

pg_function!(audit_sign);
/// BEFORE INSERT on every partition: sets what the server knows better than the caller, and signs.
fn audit_sign(call: &Call) -> Answer {
    let trigger = Trigger::new(call, &[(Timing::BeforeRow, &[Event::Insert])])?;
    WRITTEN.set(true);
    // A partition whose columns are others could be signed wrongly, so it is refused.
    let row = trigger.table_row(&COLUMNS).ok_or_else(other_columns)?;
    let of_owner = || sys::has_rights_of(sys::owner());
    // A restored row brings its signature. Only the owner may give one, and whether it is true is for verification to say.
    if row.get::<Option<&str>>(SIGNATURE).is_some() && of_owner() {
        return Ok(trigger.proceed());
    }
    let tenant_id: &str = row.get(TENANT_ID);
    if !settings::is_tenant(tenant_id)? && !of_owner() {
        return Err(Fault::new(Code::InsufficientPrivilege, "an audit record belongs to the tenant of its session")
            .hint("Leave tenant_id out."));
    }
    let signed = Signed::new(&row, tenant_id)?;
    let (id, recorded_at) = (signed.id, signed.recorded_at);
    Ok(trigger.proceed_with_table_row(
        row,
        &[
            (ID, arg(id)),
            (SIGNATURE, arg(&signed.signature)),
            (RECORDED_AT, arg(recorded_at)),
            (TRANSACTION_ID, arg(signed.transaction_id as i64)),
            (SESSION_USER, arg(&signed.session_user)),
            (CURRENT_USER, arg(signed.current_user.as_ref().unwrap_or(&signed.session_user))),
            (KEY_ID, arg(&signed.key_id)),
        ],
    ))
}

/// What the server adds to a record.
struct Signed {
    id: [u8; 16],
    recorded_at: Timestamptz,
    transaction_id: u64,
    session_user: String,
    /// `None`: the session user.
    current_user: Option<String>,
    key_id: String,
    signature: String,
}

impl Signed {
    fn new(row: &TableRow<COUNT>, tenant_id: &str) -> Result<Self, Fault> {
        let log_id = log_id_or_new()?;
        let ring = keys::keyring()?;
        let event_type: &str = row.get(EVENT_TYPE);
        let (actor_id, actor_type) = (row.get::<Option<&str>>(ACTOR_ID), row.get::<Option<&str>>(ACTOR_TYPE));
        check_claims(event_type, actor_id, actor_type)?;
        if !bypass::is_active(Bypass::OwnRecord) {
            check_event_type(event_type)?;
        }
        let Some(Jsonb(event_data)) = row.get::<Option<Jsonb>>(EVENT_DATA) else {
            return Err(missing("event_data"));
        };
        let created_at = finite(row.get(CREATED_AT), "created_at")?;
        let recorded_at = sys::clock_timestamp();
        let recorded_micros = finite(Some(recorded_at), "recorded_at")?;
        let id = sys::uuid_v7(recorded_micros);
        let transaction_id = sys::top_transaction_id();
        let (session, current) = (sys::authenticated_user(), sys::current_user());
        let session_user = sys::role_name(session);
        let current_user = (current != session).then(|| sys::role_name(current));
        let (key_id, signature) = signing_key(&ring, |key| {
            with_buffer(|buffer| {
                Record {
                    id: &id,
                    tenant_id,
                    event_type,
                    actor_id,
                    actor_type,
                    created_at,
                    recorded_at: recorded_micros,
                    transaction_id,
                    session_user: &session_user,
                    current_user: current_user.as_ref().unwrap_or(&session_user),
                    key_id: &key.id,
                }
                .encode::<Fault>(
                    buffer,
                    &log_id,
                    Bounds::STORED.with_text(settings::max_record_bytes()),
                    |writer| Ok(jsonb::encode_into(event_data, writer)?),
                )?;
                Ok::<_, Fault>((key.id.clone(), sign(key, buffer)))
            })
        })??;
        Ok(Signed { id, recorded_at, transaction_id, session_user, current_user, key_id, signature })
    }
}

/// Writes records into the partition of this transaction, without parsing, planning or privilege checks: callers that may
/// execute the function may have the record written.
pub struct Appender {
    partition: Inserter<COUNT>,
    created_at: Timestamptz,
}

fn refused(why: Refused) -> Fault {
    match why {
        Refused::OtherColumns => other_columns(),
        Refused::NotATable => Fault::new(
            Code::NotInPrerequisiteState,
            "the partition of the audit table that this record belongs to is a foreign table",
        )
        .hint("Detach it; records of its month then go to audit_logs_default."),
        Refused::NoPartition => {
            Fault::new(Code::NotInPrerequisiteState, "no partition of the audit table accepts this record")
                .hint("The partition audit_logs_default belongs to it; attach it again.")
        }
        Refused::Swallowed => Fault::new(Code::NotInPrerequisiteState, "a trigger discarded the audit record")
            .hint("SELECT * FROM skill_system.verify_audit(); names the trigger."),
    }
}

impl Appender {
    /// Opens the partition of this transaction.
    pub fn open() -> Result<Self, Fault> {
        // Before that: the partition of this month may come with the identity of the log.
        log_id_or_new()?;
        let created_at = sys::transaction_timestamp();
        let partition = Inserter::open(c"audit_logs", &COLUMNS, created_at).map_err(refused)?;
        Ok(Appender { partition, created_at })
    }

    /// Adds a row as its writer claims it, and returns its id; the signing trigger adds the rest. Any event type will do:
    /// what a user chose is to be checked before.
    pub fn append(
        &self,
        tenant: &str,
        event_type: &str,
        event_data: Arg,
        actor_id: Option<&str>,
        actor_type: Option<&str>,
    ) -> Result<Uuid, Fault> {
        let mut row = COLUMNS.0.each_ref().map(|(_, oid)| Arg::null(*oid));
        row[TENANT_ID] = arg(tenant);
        row[EVENT_TYPE] = arg(event_type);
        row[EVENT_DATA] = event_data;
        row[ACTOR_ID] = arg(actor_id);
        row[ACTOR_TYPE] = arg(actor_type);
        row[CREATED_AT] = arg(self.created_at);
        bypass::with(Bypass::OwnRecord, || self.partition.insert(&row)).map_err(refused)
    }
}

/// A column that every record must have.
pub fn missing(column: &str) -> Fault {
    Fault::new(Code::InvalidParameterValue, format!("{column} of an audit record must not be NULL"))
}

skill_pg::arguments! {
    /// The log's id and the columns of a record, any of which may be NULL in a table that was tampered with.
    struct RecordArguments<'c> {
        log_id: Option<Uuid>,
        id: Option<Uuid>,
        tenant_id: Option<&'c str>,
        event_type: Option<&'c str>,
        event_data: Option<UnreadJsonb<'c>>,
        actor_id: Option<&'c str>,
        actor_type: Option<&'c str>,
        created_at: Option<Timestamptz>,
        recorded_at: Option<Timestamptz>,
        transaction_id: Option<i64>,
        session_user: Option<&'c str>,
        current_user: Option<&'c str>,
        key_id: Option<&'c str>,
        signature: Option<&'c str>,
    }
}

impl<'c> RecordArguments<'c> {
    /// Seen before it is read. The binary form of short numbers has four times the length of their text.
    fn is_too_large(&self) -> bool {
        self.event_data.as_ref().is_some_and(|data| data.size() > 4 * settings::max_record_bytes())
    }

    /// The values; `None` where the table's NOT NULL is broken.
    fn values(&self, id: &'c [u8; 16]) -> Option<Values<'c>> {
        let time = |time: Option<Timestamptz>| time.and_then(Timestamptz::unix_micros);
        let record = Record {
            id,
            tenant_id: self.tenant_id?,
            event_type: self.event_type?,
            actor_id: self.actor_id,
            actor_type: self.actor_type,
            created_at: time(self.created_at)?,
            recorded_at: time(self.recorded_at)?,
            transaction_id: self.transaction_id? as u64,
            session_user: self.session_user?,
            current_user: self.current_user?,
            key_id: self.key_id?,
        };
        Some(Values { record, event_data: self.event_data.as_ref()?.read().0, signature: self.signature? })
    }
}

struct Values<'c> {
    record: Record<'c>,
    event_data: &'c [u8],
    signature: &'c str,
}

impl Values<'_> {
    /// The signed bytes. The table cannot hold what could not be signed, so an error means damage, or that less is accepted
    /// now than when the record was written.
    fn encode(&self, out: &mut Vec<u8>, log_id: &[u8; 16], bounds: Bounds) -> Result<(), JsonbError> {
        self.record.encode(out, log_id, bounds, |writer| jsonb::encode_into(self.event_data, writer))
    }
}

/// What `audit_problem()` reports of a record that is larger than is read now.
pub const TOO_LARGE: &str = "record_too_large";

/// The bounds of what is verified: those of all records ever written, up to the size that is read now.
pub fn verified() -> Bounds {
    Bounds::RECORDED.with_text(settings::max_record_bytes())
}

pg_function!(audit_problem, of any size);
/// What is wrong with one row, given all its columns and the log's id; NULL when nothing is.
fn audit_problem(call: &Call) -> Answer {
    let given: RecordArguments = call.arguments();
    let Some(log_id) = given.log_id else {
        return Ok(call.null());
    };
    if given.is_too_large() {
        return Ok(call.answer(TOO_LARGE));
    }
    let Some(values) = given.id.as_ref().and_then(|id| given.values(id.as_bytes())) else {
        return Ok(call.answer("value_missing"));
    };
    let ring = keys::keyring()?;
    let problem = with_buffer(|buffer| match values.encode(buffer, log_id.as_bytes(), verified()) {
        Err(JsonbError::Encode(EncodeError::Limit(LimitError::TooLarge(_)))) => Some(TOO_LARGE),
        Err(_) => Some("event_data_damaged"),
        Ok(()) => verify(&ring, values.record.key_id, values.signature, buffer).err().map(|problem| problem.code()),
    });
    Ok(call.answer(problem))
}

pg_function!(audit_leaf_hash, of any size);
/// The leaf hash of one row, given all its columns and the log's id.
fn audit_leaf_hash(call: &Call) -> Answer {
    let given: RecordArguments = call.arguments();
    let (Some(log_id), Some(id)) = (given.log_id, given.id) else {
        return Ok(call.null());
    };
    // Whatever the bounds are now: a record has one leaf.
    let encoded = |values: &Values, buffer: &mut Vec<u8>| values.encode(buffer, log_id.as_bytes(), Bounds::RECORDED);
    let hash = with_buffer(|buffer| {
        match given.values(id.as_bytes()).filter(|values| encoded(values, buffer).is_ok()) {
            Some(values) => leaf_hash(buffer, values.signature),
            // Even a damaged record has its leaf, so that it cannot hold up those after it.
            None => damaged_leaf_hash(log_id.as_bytes(), id.as_bytes()),
        }
    });
    Ok(call.answer(&hash))
}

pg_function!(audit_record_digest, of any size);
/// A number that stands for one record and its leaf in the sums of a verification; NULL when the signature is wrong.
fn audit_record_digest(call: &Call) -> Answer {
    // The nonce is new for each verification, so nobody can have chosen records that cancel out.
    let And(given, nonce): And<RecordArguments, Option<&[u8]>> = call.arguments();
    let (Some(log_id), Some(id)) = (given.log_id, given.id) else {
        return Ok(call.null());
    };
    if given.is_too_large() {
        return Ok(call.null());
    }
    let (Some(nonce), Some(values)) = (nonce, given.values(id.as_bytes())) else {
        return Ok(call.null());
    };
    let ring = keys::keyring()?;
    progress::advance(1, |done| format!("verify_audit: {done} records"));
    let digest = with_buffer(|buffer| {
        values.encode(buffer, log_id.as_bytes(), verified()).ok()?;
        verify(&ring, values.record.key_id, values.signature, buffer).ok()?;
        Some(leaf_digest(nonce, id.as_bytes(), &leaf_hash(buffer, values.signature)))
    });
    Ok(call.answer(digest))
}

/// What [`audit_record_digest`] gives for a true record, from its leaf.
pub fn leaf_digest(nonce: &[u8], id: &[u8; 16], leaf: &Hash) -> i64 {
    let hash = tree::leaf_hash_of(&[nonce, id, leaf]);
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    i64::from_be_bytes(first)
}

/// Arguments of a function of a record: the log's id in `$1`, and the columns of a row aliased `a`.
const RECORD: &str = "($1, a.id, a.tenant_id, a.event_type::text, a.event_data, a.actor_id::text, a.actor_type::text, \
     a.created_at, a.recorded_at, a.transaction_id, a.session_user_name, a.current_user_name, a.key_id, a.signature::text";

/// What is wrong with a row; NULL when nothing is.
pub const PROBLEM: &str = concatcp!("skill_system.audit_problem", RECORD, ")");
pub const LEAF_HASH: &str = concatcp!("skill_system.audit_leaf_hash", RECORD, ")");
/// What stands for a row in the sums of a verification; `$9` is the nonce.
pub const RECORD_DIGEST: &str = concatcp!("skill_system.audit_record_digest", RECORD, ", $9)");

/// In words what `audit_problem()` reports.
pub fn explain_problem(code: &str) -> &'static str {
    if code == TOO_LARGE {
        return "the record is larger than skill_system.max_record_size and was not read: verify it with a larger one";
    }
    use skill_core::audit::Problem::{KeyIdDiffers, KeyUnknown, SignatureMalformed, SignatureMismatch};
    [SignatureMalformed, KeyIdDiffers, KeyUnknown, SignatureMismatch]
        .into_iter()
        .find(|problem| problem.code() == code)
        .map_or("a value that every record has is missing or damaged", |problem| problem.explain())
}
