//! Small functions of the server.

use std::cell::{Cell, RefCell};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd};

use std::sync::OnceLock;

use pgrx::pg_sys;
use skill_core::{Code, Fault};

use super::error::raise;

pub use super::error::c_string;
pub use super::schema::schema;
use super::value::Timestamptz;

/// The innermost savepoint, or the transaction itself.
pub fn subtransaction() -> pg_sys::SubTransactionId {
    // SAFETY: no preconditions.
    unsafe { pg_sys::GetCurrentSubTransactionId() }
}

/// The clock now.
pub fn clock_timestamp() -> Timestamptz {
    // SAFETY: no preconditions.
    Timestamptz(unsafe { pg_sys::GetCurrentTimestamp() })
}

/// Start of the transaction.
pub fn transaction_timestamp() -> Timestamptz {
    // SAFETY: no preconditions.
    Timestamptz(unsafe { pg_sys::GetCurrentTransactionStartTimestamp() })
}

/// The 64-bit id of the top-level transaction, assigned now if need be.
pub fn top_transaction_id() -> u64 {
    // SAFETY: only called where writing is allowed.
    unsafe { pg_sys::GetTopFullTransactionId().value }
}

/// The 64-bit id of the top-level transaction, if one is assigned.
pub fn top_transaction_id_if_any() -> Option<u64> {
    // SAFETY: no preconditions.
    Some(unsafe { pg_sys::GetTopFullTransactionIdIfAny().value }).filter(|id| *id != 0)
}

/// The id of the innermost subtransaction, assigned now if need be: the `xmin` of what it writes.
pub fn current_transaction_id() -> u32 {
    // SAFETY: only called where writing is allowed.
    unsafe { pg_sys::GetCurrentTransactionId() }.into_inner()
}

/// The 64-bit id that the next transaction will get.
pub fn next_transaction_id() -> u64 {
    // SAFETY: takes a lock for a moment.
    unsafe { pg_sys::ReadNextFullTransactionId().value }
}

/// System identifier, oid of the database, WAL timeline; `None` in recovery, which has no timeline of insertions.
pub fn cluster_identity() -> Option<(u64, pg_sys::Oid, u32)> {
    // SAFETY: plain reads of shared memory; the timeline is fixed once recovery has ended.
    (!in_recovery())
        .then(|| unsafe { (pg_sys::GetSystemIdentifier(), pg_sys::MyDatabaseId, pg_sys::GetWALInsertionTimeLine()) })
}

/// Locks the extension until the end of this transaction, so that DROP EXTENSION has to wait; false when it does not
/// exist. To be called before several of its tables are locked, or DROP EXTENSION could cause a deadlock.
pub fn hold_extension() -> bool {
    // SAFETY: catalogue look-ups and a lock inside a transaction.
    unsafe {
        let find = || pg_sys::get_extension_oid(c"skill_system".as_ptr(), true);
        let extension = find();
        if extension == pg_sys::InvalidOid {
            return false;
        }
        pg_sys::LockDatabaseObject(
            pg_sys::ExtensionRelationId,
            extension,
            0,
            pg_sys::AccessShareLock as pg_sys::LOCKMODE,
        );
        find() == extension
    }
}

/// Takes a lock on a table, which conflicts with itself, until the end of the transaction; false when it is taken.
pub fn try_lock(table: pg_sys::Oid) -> bool {
    // SAFETY: an oid that names no table is locked for nothing.
    unsafe { pg_sys::ConditionalLockRelationOid(table, pg_sys::ShareUpdateExclusiveLock as i32) }
}

/// The locks of ALTER TABLE ... ATTACH PARTITION, up to the end of the transaction.
#[derive(Clone, Copy)]
pub struct AttachLocks {
    pub parent: pg_sys::Oid,
    /// ACCESS EXCLUSIVE.
    pub default: pg_sys::Oid,
    /// The lock on the parent excludes writers, else neither they nor readers notice it. Without it, a writer that has opened the
    /// parent and not yet the default partition finds its row refused by the default partition's new constraint.
    pub writers_wait: bool,
}

impl AttachLocks {
    fn modes(self) -> (i32, i32) {
        let parent = if self.writers_wait { pg_sys::ShareRowExclusiveLock } else { pg_sys::ShareUpdateExclusiveLock };
        (parent as i32, pg_sys::AccessExclusiveLock as i32)
    }

    /// Takes them if they are free.
    pub fn try_acquire(self) -> bool {
        let (parent_mode, default_mode) = self.modes();
        // SAFETY: an oid that names no table is locked for nothing; what is unlocked was locked just now.
        unsafe {
            if !pg_sys::ConditionalLockRelationOid(self.parent, parent_mode) {
                return false;
            }
            if pg_sys::ConditionalLockRelationOid(self.default, default_mode) {
                return true;
            }
            pg_sys::UnlockRelationOid(self.parent, parent_mode);
        }
        false
    }

    /// Waits for them in the queue, where others wait behind; raises 55P03 after lock_timeout.
    pub fn acquire(self) {
        let (parent_mode, default_mode) = self.modes();
        // SAFETY: as in `try_acquire`.
        unsafe {
            pg_sys::LockRelationOid(self.parent, parent_mode);
            pg_sys::LockRelationOid(self.default, default_mode);
        }
    }
}

/// Fills `buffer` from the server's cryptographic generator.
pub fn strong_random(buffer: &mut [u8]) {
    // SAFETY: the pointer and length are those of the buffer.
    if !unsafe { pg_sys::pg_strong_random(buffer.as_mut_ptr().cast(), buffer.len()) } {
        raise(Fault::new(Code::Internal, "the server's random number generator failed"));
    }
}

/// Random bytes fetched at once: the generator costs as much for 640 bytes as for eight.
struct Pool {
    bytes: [u8; 640],
    used: usize,
}

thread_local! {
    // Filled in the backend that uses it, never before the fork.
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { bytes: [0; 640], used: 640 }) };
}

/// A UUID version 7 of this moment.
pub fn new_uuid_v7() -> [u8; 16] {
    uuid_v7(clock_timestamp().unix_micros().unwrap_or_default())
}

/// UUID version 7 (RFC 9562): 48 bits of Unix milliseconds, 12 bits of their fraction
/// (section 6.2, method 3), so that ids sort by time, 62 random bits.
pub fn uuid_v7(unix_micros: i64) -> [u8; 16] {
    let mut bytes = [0; 16];
    POOL.with_borrow_mut(|pool| {
        if pool.used == pool.bytes.len() {
            strong_random(&mut pool.bytes);
            pool.used = 0;
        }
        bytes[8..].copy_from_slice(&pool.bytes[pool.used..pool.used + 8]);
        pool.used += 8;
    });
    bytes[..6].copy_from_slice(&(unix_micros / 1000).to_be_bytes()[2..]);
    let fraction = ((unix_micros % 1000) * 4096 / 1000) as u16;
    bytes[6..8].copy_from_slice(&(0x7000 | fraction).to_be_bytes());
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}

thread_local! {
    static ON_BEHALF_OF: Cell<Option<pg_sys::Oid>> = const { Cell::new(None) };
}

/// The session user: who logged in, or what SET SESSION AUTHORIZATION chose.
pub fn session_user() -> pg_sys::Oid {
    // SAFETY: no preconditions.
    unsafe { pg_sys::GetSessionUserId() }
}

/// Sets the authenticated user of this background worker, which writes on behalf of another session.
pub fn write_on_behalf_of(authenticated: pg_sys::Oid) {
    ON_BEHALF_OF.set(Some(authenticated));
}

/// The role that logged in, whatever SET SESSION AUTHORIZATION chose later.
pub fn authenticated_user() -> pg_sys::Oid {
    // SAFETY: no preconditions.
    ON_BEHALF_OF.get().unwrap_or_else(|| unsafe { pg_sys::GetAuthenticatedUserId() })
}

/// The role whose rights are in force.
pub fn current_user() -> pg_sys::Oid {
    // SAFETY: no preconditions.
    unsafe { pg_sys::GetUserId() }
}

thread_local! {
    /// Who called, while a statement runs with the owner's rights.
    static CALLER: Cell<Option<pg_sys::Oid>> = const { Cell::new(None) };
}

/// Whose rights were in force when the extension took the owner's for a statement; else the current user.
pub fn caller() -> pg_sys::Oid {
    CALLER.get().unwrap_or_else(current_user)
}

/// Keeps who calls while the rights of `owner` are taken. Returns what [`restore_caller`] takes back.
pub(crate) fn keep_caller(owner: pg_sys::Oid) -> Option<pg_sys::Oid> {
    let before = CALLER.get();
    // A trigger of an owner's statement runs as the owner on behalf of the same caller.
    if before.is_none() || current_user() != owner {
        CALLER.set(Some(current_user()));
    }
    before
}

pub(crate) fn restore_caller(before: Option<pg_sys::Oid>) {
    CALLER.set(before);
}

/// The caller is a superuser or has the rights of a role of this name, whichever role's rights are in force.
pub fn caller_has_rights_of(role: &CStr) -> bool {
    let caller = caller();
    // SAFETY: catalogue look-ups inside a transaction.
    unsafe {
        pg_sys::superuser_arg(caller) || pg_sys::has_privs_of_role(caller, pg_sys::get_role_oid(role.as_ptr(), true))
    }
}

pub fn database() -> pg_sys::Oid {
    // SAFETY: set when the session connected.
    unsafe { pg_sys::MyDatabaseId }
}

/// Name of a role; raises when it does not exist.
pub fn role_name(role: pg_sys::Oid) -> String {
    // SAFETY: the server returns a palloc'd, NUL-terminated name, copied at once.
    unsafe { CStr::from_ptr(pg_sys::GetUserNameFromId(role, false)).to_string_lossy().into_owned() }
}

/// The server's role pg_monitor.
pub const PG_MONITOR: pg_sys::Oid = pg_sys::Oid::from_u32(pg_sys::ROLE_PG_MONITOR);

/// The current user is a superuser or has the rights of `role`.
pub fn has_rights_of(role: pg_sys::Oid) -> bool {
    // SAFETY: catalogue look-up inside a transaction.
    unsafe { pg_sys::superuser() || pg_sys::has_privs_of_role(pg_sys::GetUserId(), role) }
}

/// The session has the setting with which all scripts of pg_dump and pg_restore begin, whatever their options.
pub fn is_restore() -> bool {
    // SAFETY: a plain read of a setting of this session.
    unsafe { !pg_sys::check_function_bodies }
}

pub fn is_parallel_worker() -> bool {
    // SAFETY: a plain variable of this process.
    unsafe { pg_sys::ParallelWorkerNumber >= 0 }
}

pub fn is_superuser(role: pg_sys::Oid) -> bool {
    // SAFETY: catalogue look-up inside a transaction.
    unsafe { pg_sys::superuser_arg(role) }
}

/// The current user is a superuser or has the rights of a role of this name.
pub fn has_rights_of_named(role: &CStr) -> bool {
    // SAFETY: a catalogue look-up inside a transaction.
    let role = unsafe { pg_sys::get_role_oid(role.as_ptr(), true) };
    has_rights_of(role)
}

/// The oid of a relation of this extension's schema, if it exists.
pub fn find_relation(name: &CStr) -> Option<pg_sys::Oid> {
    let schema = schema();
    if schema == pg_sys::InvalidOid {
        return None;
    }
    // SAFETY: a catalogue look-up inside a transaction.
    let oid = unsafe { pg_sys::get_relname_relid(name.as_ptr(), schema) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// The oid of a table of this extension's schema, partitioned and foreign ones included.
pub fn find_table(name: &CStr) -> Option<pg_sys::Oid> {
    // SAFETY: a catalogue look-up inside a transaction.
    find_relation(name).filter(|oid| matches!(unsafe { pg_sys::get_rel_relkind(*oid) } as u8, b'r' | b'p' | b'f'))
}

/// The oid of a relation of this extension.
pub fn relation(name: &CStr) -> pg_sys::Oid {
    find_relation(name).unwrap_or_else(|| {
        raise(
            Fault::new(Code::UndefinedObject, format!("table skill_system.{} does not exist", name.to_string_lossy()))
                .hint("CREATE EXTENSION skill_system; in this database."),
        )
    })
}

/// Name of a relation, without its schema; `None` when it is gone.
pub fn relation_name(relation: pg_sys::Oid) -> Option<String> {
    // SAFETY: a catalogue look-up; the name is palloc'd and copied at once.
    unsafe {
        let name = pg_sys::get_rel_name(relation);
        (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}

/// A script of this extension is running: CREATE EXTENSION or ALTER EXTENSION ... UPDATE.
pub fn in_own_script() -> bool {
    // SAFETY: plain variables of this backend, and a catalogue look-up.
    unsafe {
        pg_sys::creating_extension
            && pg_sys::CurrentExtensionObject == pg_sys::get_extension_oid(c"skill_system".as_ptr(), true)
    }
}

/// Whether an unqualified name may resolve to an object of this extension. Judged by the text of search_path and not by
/// the current schemas, which may change while the statement waits for a lock.
pub fn on_search_path() -> bool {
    // SAFETY: a setting of this backend, always a NUL-terminated text.
    let path = unsafe { CStr::from_ptr(pg_sys::namespace_search_path) }.to_string_lossy().to_lowercase();
    path.contains("skill_system") || (path.contains("$user") && role_name(current_user()) == "skill_system")
}

static OWNER_TABLE: OnceLock<&'static CStr> = OnceLock::new();

/// Names the table whose owner owns the extension's tables; called once when the library is loaded.
pub fn register_owner_table(name: &'static CStr) {
    OWNER_TABLE.get_or_init(|| name);
}

/// Owner of the extension's tables.
pub fn owner() -> pg_sys::Oid {
    let table = relation(OWNER_TABLE.get().copied().unwrap_or_default());
    // SAFETY: the tuple is released after its one field is read.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as i32, pg_sys::Datum::from(table));
        if tuple.is_null() {
            raise(Fault::new(Code::UndefinedObject, format!("relation with OID {} does not exist", table.to_u32())));
        }
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
        let owner = (*form).relowner;
        pg_sys::ReleaseSysCache(tuple);
        owner
    }
}

/// The server is a standby or still recovering.
pub fn in_recovery() -> bool {
    // SAFETY: no preconditions.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// Each statement sees what is committed when it begins.
pub fn read_committed() -> bool {
    // SAFETY: reads a plain variable of this backend.
    unsafe { pg_sys::XactIsoLevel < pg_sys::XACT_REPEATABLE_READ as i32 }
}

pub fn may_write() -> bool {
    // SAFETY: reads a plain variable of this backend.
    !in_recovery() && unsafe { !pg_sys::XactReadOnly }
}

/// Raises 25006 on a standby, and 25000 in a parallel worker.
pub fn prevent_on_standby(what: &CStr) {
    // SAFETY: a NUL-terminated constant.
    unsafe {
        pg_sys::PreventCommandDuringRecovery(what.as_ptr());
        pg_sys::PreventCommandIfParallelMode(what.as_ptr());
    }
}

/// Raises 25006 where the transaction may not write, and 25000 in a parallel worker.
pub fn prevent_if_read_only(what: &CStr) {
    // SAFETY: a NUL-terminated constant.
    unsafe { pg_sys::PreventCommandIfReadOnly(what.as_ptr()) };
    prevent_on_standby(what);
}

/// A text as an SQL literal.
pub fn quote_literal(text: &str) -> String {
    let text = c_string(text);
    // SAFETY: NUL-terminated in and out.
    unsafe { CStr::from_ptr(pg_sys::quote_literal_cstr(text.as_ptr())).to_string_lossy().into_owned() }
}

/// A name as an SQL identifier.
pub fn quote_identifier(name: &str) -> String {
    let name = c_string(name);
    // SAFETY: NUL-terminated in and out.
    unsafe { CStr::from_ptr(pg_sys::quote_identifier(name.as_ptr())).to_string_lossy().into_owned() }
}

/// Name of a schema; `None` when it does not exist.
pub fn schema_name(schema: pg_sys::Oid) -> Option<String> {
    // SAFETY: a catalogue look-up inside a transaction.
    unsafe { copied_name(pg_sys::get_namespace_name(schema)) }
}

/// Name of an extension; `None` when it does not exist.
pub fn extension_name(extension: pg_sys::Oid) -> Option<String> {
    // SAFETY: as above.
    unsafe { copied_name(pg_sys::get_extension_name(extension)) }
}

/// # Safety
/// A NUL-terminated name, or null.
unsafe fn copied_name(name: *const std::ffi::c_char) -> Option<String> {
    // SAFETY: the caller's.
    (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
}

/// Reading from `pipe` does not wait.
pub fn set_nonblocking(pipe: &impl AsFd) {
    let fd = pipe.as_fd().as_raw_fd();
    // SAFETY: plain fcntl on an open descriptor.
    unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK);
    }
}

pub fn data_directory() -> String {
    // SAFETY: set at start and never changed.
    unsafe { CStr::from_ptr(pg_sys::DataDir).to_string_lossy().into_owned() }
}

/// Attribute `i` of a row descriptor, counted from 0.
///
/// # Safety
/// `desc` must be valid and have more than `i` attributes.
pub(crate) unsafe fn attribute(desc: pg_sys::TupleDesc, i: usize) -> *const pg_sys::FormData_pg_attribute {
    #[cfg(not(feature = "pg18"))]
    // SAFETY: the caller's.
    unsafe {
        (*desc).attrs.as_ptr().add(i)
    }
    #[cfg(feature = "pg18")]
    // SAFETY: the caller's.
    unsafe {
        pg_sys::TupleDescAttr(desc, i as i32)
    }
}
